"""Weights into a network: made for its settings, every tensor that it has, no other, each of the right shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from perception.core.errors import CheckpointError, require_package
from perception.detection.checkpoints.store import Metadata, load
from perception.detection.config import CenterPointSettings, DetectorConfig

_MOST_DIFFERENCES = 3


def read_weights(path: Path, settings: CenterPointSettings) -> dict[str, Tensor]:
    """The tensors of a weight file of ours, by name, where it was made for these settings.

    Range, voxels, reader, network, tasks, points and frame must be those of the file; shapes do not show them all: a network for voxels of
    0.075 m takes the weights of one for 0.1 m. Sweeps and their window, limits of voxels and how boxes are read from maps may differ.
    Raises CheckpointError for a file that cannot be read, and one line that says what differs. Nothing in the file is executed.
    """
    require_package("safetensors.torch", extra="models", why="reading weights")
    tensors, metadata = load(path)
    made_for, wanted = _essentials(_settings_of(metadata, path)), _essentials(settings)
    different = [name for name in wanted | made_for if wanted.get(name) != made_for.get(name)]
    if different:
        told = "; ".join(f"{name} {wanted.get(name)}, got ones for {made_for.get(name)}" for name in different[:_MOST_DIFFERENCES])
        more = f"; and {len(different) - _MOST_DIFFERENCES} more differ" if len(different) > _MOST_DIFFERENCES else ""
        raise CheckpointError(f"{path}: expected weights for {told}{more}; the file was made for the settings {metadata.config_name}")
    return tensors


def _settings_of(metadata: Metadata, path: Path) -> CenterPointSettings:
    try:
        return DetectorConfig.model_validate(metadata.config).detector
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise CheckpointError(f"{path}: the settings in its metadata are not those of this version ({where}); convert it again") from None


def _essentials(settings: CenterPointSettings) -> dict[str, Any]:
    """Settings that the weights depend on, by dotted name."""
    free = {"decode": True, "sweeps": True, "window": True, "reader": {"limit": {"max_voxels", "max_voxels_training"}}}
    values = settings.model_dump(mode="json", exclude=free)
    flat: dict[str, Any] = {}

    def flatten(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, entry in value.items():
                flatten(entry, f"{name}.{key}" if name else key)
        else:
            flat[name] = value

    flatten(values, "")
    return flat


@torch.no_grad()
def load_state(network: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Copy `state` into the network. CheckpointError (`where`: ...) lists what is missing, unexpected or of a wrong shape."""
    own = network.state_dict()
    faults = [f"missing {name}" for name in own if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in own]
    for name in own:
        if name in state and state[name].shape != own[name].shape:
            faults.append(f"{name}: expected shape {tuple(own[name].shape)}, got {tuple(state[name].shape)}")
    if faults:
        shown = "\n  ".join(faults[:20]) + (f"\n  and {len(faults) - 20} more" if len(faults) > 20 else "")
        raise CheckpointError(f"{where}: the weights do not fit the network:\n  {shown}")
    network.load_state_dict(dict(state), strict=True)
