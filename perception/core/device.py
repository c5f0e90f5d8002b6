"""Where networks run, by name."""

from typing import TYPE_CHECKING

from perception.core.errors import UsageError, require_package

if TYPE_CHECKING:
    import torch


def expect_device(name: str, *, why: str = "a network", local_rank: int | None = None) -> "torch.device":
    """The torch device "cpu", "cuda" or "cuda:1"; of GPUs the one of `local_rank` where that is given, whatever the name says.

    why  what needs it, for the message where torch is not installed (MissingPackage)
    Raises UsageError where there is no such device.
    """
    torch = require_package("torch", extra="models", why=why)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is not None and device.type == "cpu":
        return device
    if device is not None and device.type == "cuda" and count:
        index = device.index if local_rank is None else local_rank
        index = torch.cuda.current_device() if index is None else index
        if index < count:
            return torch.device("cuda", index)
    whose = "" if local_rank is None else f" for process {local_rank} of this machine"
    expected = f"cpu or cuda (there {'is' if count == 1 else 'are'} {count})" if count else "cpu"
    raise UsageError(f"device: expected {expected}, got {name!r}{whose}; no such device here")
