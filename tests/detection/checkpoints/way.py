"""From a foreign state dict through both files and back."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.detection.checkpoints import Metadata, convert, load
from tests.detection.checkpoints.files import write_config, write_pth


def converted(tmp_path: Path, settings: dict[str, Any], foreign: Any, **options: Any) -> tuple[dict[str, Tensor], Metadata]:
    """The state dict and metadata of a foreign one after the way through both files."""
    source = foreign if isinstance(foreign, Path) else write_pth(tmp_path / "in.pth", foreign)
    convert(source, tmp_path / "out.safetensors", config=write_config(tmp_path / "model.yaml", settings), **options)
    return load(tmp_path / "out.safetensors")


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(got) == sorted(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        assert torch.equal(got[name], value), name
