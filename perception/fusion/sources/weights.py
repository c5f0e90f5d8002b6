"""Weights of a network of another library, from a file that is not trusted."""

from pathlib import Path
from typing import Any

from perception.core.errors import CheckpointError, require_package

_WRAPPERS = ("model", "state_dict")  # what training programs put around a state


def load_weights(network: Any, path: Path) -> None:
    """Read the state in a .pth or .safetensors file into a network; nothing in the file is executed.

    Raises CheckpointError for a file that is missing, holds more than tensors, or does not fit: names of what is missing and unexpected.
    """
    torch = require_package("torch", extra="fusion", why="instances from a network")
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a file of weights, found none")
    try:
        if path.suffix == ".safetensors":
            state = require_package("safetensors.torch", extra="models", why="weights in .safetensors").load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  whatever a damaged file makes torch raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: expected a state of tensors (.pth saved by torch, or .safetensors), got {reason}") from None
    for name in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected a state of tensors, got {type(state).__name__}")
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())[:300]}") from None
    if missing or unexpected:
        both = (("missing", missing), ("unexpected", unexpected))
        parts = [f"{len(names)} {what}: {', '.join(names[:5])}" for what, names in both if names]
        raise CheckpointError(f"{path}: expected the weights of {type(network).__name__}, got {'; '.join(parts)}")
