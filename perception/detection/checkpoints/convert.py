"""A published weight file into one of ours."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from perception.core.config import shipped_config
from perception.core.errors import CheckpointError, UsageError
from perception.detection.build import build_network
from perception.detection.checkpoints.source import Source, read_source
from perception.detection.checkpoints.state import convert_state, identify
from perception.detection.checkpoints.store import Metadata, save
from perception.detection.config import DetectorConfig, load_detector_config

_NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Conversion:
    """What was written where; `notes` of the metadata tell each decision."""

    path: Path
    metadata: Metadata
    num_tensors: int
    num_parameters: int


def convert(source: Path, target: Path, *, config: Path | str | None = None, layout: str = "auto", spconv: str = "auto") -> Conversion:
    """Write the weights in `source` (.pth or .safetensors of det3d, OpenPCDet or mmdetection3d) as a file of ours.

    target  .safetensors; appears complete or not at all
    config  the detector that the weights belong to: a YAML file or a name of one that comes with the package. The file does not tell it:
            models of 0.075 m and 0.1 m voxels have equal names and shapes
    layout  auto, det3d, openpcdet, mmdet3d, or mmdet3d-0 for mmdetection3d before 1.0
    spconv  auto, 1 or 2: the major version that wrote the sparse weights, where shapes do not tell
    Raises CheckpointError for a file that is broken, not trusted or does not fit the network (everything that does not fit is listed), and
    UsageError for a wrong option; without `config` it names those that fit.
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: expected a name that ends in .safetensors")
    read = read_source(source)
    if config is None:
        raise UsageError(_which_config(read, layout, spconv))
    settings = load_detector_config(config)
    _, found, _ = identify(read, layout)
    if (reader := settings.detector.reader.name) in found.no_readers:
        fitting = f"; its names and shapes are those of --config {' or '.join(n)}" if (n := fitting_configs(read, layout, spconv)) else ""
        raise CheckpointError(f"{source}: expected a reader that {found.name} has, got {reader}{fitting}")
    try:
        converted = convert_state(read, network_tensors(settings), layout=layout, spconv=spconv)
    except CheckpointError as error:
        if names := fitting_configs(read, layout, spconv):
            raise CheckpointError(f"{error}\n  its shapes are those of --config {' or '.join(names)}") from None
        raise
    metadata = Metadata(
        config=settings.model_dump(mode="json"),
        config_name=Path(config).name,
        layout=converted.layout.name,
        convention=converted.layout.convention,
        sparse=converted.sparse,
        notes=converted.notes + tuple(f"not opened: {name}" for name in read.skipped),
        source_name=source.name,
        source_sha256=read.sha256,
        source_says=read.meta,
        converter=sys.modules["perception"].__version__,  # no import: the package names all rooms, and rooms do not import each other
    )
    metadata = save(target, converted.tensors, metadata)
    return Conversion(target, metadata, len(converted.tensors), count_parameters(converted.tensors))


def network_tensors(settings: DetectorConfig) -> dict[str, Tensor]:
    """Names, shapes and dtypes of a detector's state dict, without memory for its numbers."""
    with torch.device("meta"):
        return build_network(settings.detector).state_dict()


def count_parameters(tensors: dict[str, Tensor]) -> int:
    """Numbers that training learns: all but running statistics and counters."""
    return sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(_NOT_LEARNED))


def fitting_configs(source: Source, layout: str, spconv: str) -> list[str]:
    """Names of the configurations in the package whose networks have exactly the tensors of the file."""
    names, (_, found, _) = [], identify(source, layout)
    for path in sorted(shipped_config("centerpoint_voxel0075.yaml").parent.glob("centerpoint_*.yaml")):
        settings = load_detector_config(path)
        with contextlib.suppress(CheckpointError):
            convert_state(source, network_tensors(settings), layout=layout, spconv=spconv)
            if settings.detector.reader.name not in found.no_readers:
                names.append(path.stem)
    return names


def _which_config(source: Source, layout: str, spconv: str) -> str:
    identify(source, layout)  # a file of another kind is told so
    head = f"{source.path}: a weight file does not tell range and voxel size of its model"
    if names := fitting_configs(source, layout, spconv):
        return f"{head}; of the models in the package {', '.join(names)} fit its shapes: choose one with --config NAME (or a YAML file)"
    return f"{head}, and no model in the package fits its shapes: write one (see configs/) and give it with --config FILE"
