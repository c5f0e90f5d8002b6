"""What a training leaves: a checkpoint to go on from, weights to detect with, and a record of how it went."""

import contextlib
import io
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.core.errors import CheckpointError, UsageError, shown
from perception.core.files import write_bytes
from perception.detection.checkpoints import Metadata, save
from perception.detection.config import CenterPointSettings

CHECKPOINT, WEIGHTS, RECORD, CONFIG = "checkpoint.pt", "weights.safetensors", "training.json", "config.yaml"
_FORMAT = 1
_FREE = {"loop.minutes", "loop.checkpoint_minutes", "loop.log_every"}  # what may differ in a training that is resumed


def write_checkpoint(path: Path, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Completely or not at all: `state` (tensors, numbers, texts, dicts and lists of them) and the training's resolved configuration."""
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "config": json.dumps(config), "state": dict(state)}, buffer)
    write_bytes(path, buffer.getvalue())


def read_checkpoint(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The state in a checkpoint. Nothing in the file is executed.

    Raises CheckpointError for a missing or broken file, and UsageError where it was written for another configuration than `config`,
    naming the first key that differs; budget, log and checkpoints may differ.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: expected the checkpoint of a training, got {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001  torch raises whatever the part that it stumbles over does
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: expected a complete checkpoint of a training, got something else or a part of one ({reason})"
        ) from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT or not isinstance(found.get("state"), dict):
        got = shown(found.get("format")) if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(f"{path}: expected a checkpoint of format {_FORMAT}, got {got}; train anew with this version")
    try:
        then = _flat(json.loads(found["config"]))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: its configuration is broken; train anew") from None
    now = _flat(json.loads(json.dumps(config)))
    for key in sorted((then.keys() | now.keys()) - _FREE):
        if then.get(key) != now.get(key):
            raise UsageError(
                f"{path}: this training cannot be resumed: {key}: expected {shown(then.get(key))} as before, got {shown(now.get(key))}; "
                "leave out --resume and choose another --out to start over"
            )
    return found["state"]


def write_weights(path: Path, tensors: Mapping[str, Tensor], detector: CenterPointSettings, name: str, says: Mapping[str, str]) -> None:
    """A weight file that `Detector.from_config` loads. name: of the training; says: how it went, for `perception checkpoint inspect`."""
    has_sparse = any(tensor.ndim == 5 for tensor in tensors.values())
    converter = "unknown"
    with contextlib.suppress(PackageNotFoundError):  # a checkout on PYTHONPATH
        converter = version("perception")
    metadata = Metadata(
        config={"detector": detector.model_dump(mode="json")},
        config_name=name,
        layout="perception",
        convention="perception",
        sparse="perception" if has_sparse else "none",
        notes=("trained by perception",),
        source_name="training",
        source_sha256="",
        source_says=dict(says),
        converter=converter,
    )
    save(path, {name: tensor.detach().cpu() for name, tensor in tensors.items()}, metadata)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {key: entry for part, inner in value.items() for key, entry in _flat(inner, f"{name}.{part}" if name else str(part)).items()}
