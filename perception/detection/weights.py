"""Weights into a network: every tensor that it has, no other, each of the right shape."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from perception.core.errors import CheckpointError, require_package


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. CheckpointError where it cannot be read as one. Nothing in such a file is executed."""
    safetensors = require_package("safetensors.torch", extra="models", why="reading weights")
    broken = require_package("safetensors", extra="models", why="reading weights").SafetensorError
    try:
        return safetensors.load_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file of weights (safetensors), got {error.strerror or error}") from None
    except (broken, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: expected a file of weights (safetensors), got one that cannot be read: {error}") from None


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
