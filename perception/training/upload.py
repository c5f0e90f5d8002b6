"""Numbers of the host on a device: all of a batch in one copy, and one of each sample for all of its points."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_ALIGNED = 8  # bytes, of the largest dtype
_DTYPES = {"bool": torch.bool, "int32": torch.int32, "int64": torch.int64, "float32": torch.float32}


def uploaded(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """The arrays (bool, int32, int64, float32) on a device, as parts of one buffer, in one copy that the host does not wait for."""
    arrays = [np.ascontiguousarray(array) for array in arrays]
    starts = np.cumsum([0, *(-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays)]).tolist()
    # torch keeps the pinned block until the copy has ended
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    host = buffer.numpy()
    for start, array in zip(starts, arrays, strict=False):
        host[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    buffer = buffer.to(device, non_blocking=True)
    typed = {name: buffer.view(_DTYPES[name]) for name in {array.dtype.name for array in arrays}}
    return [
        typed[array.dtype.name].as_strided(array.shape, [stride // array.itemsize for stride in array.strides], start // array.itemsize)
        for start, array in zip(starts, arrays, strict=False)
    ]


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for what the device is at."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # torch keeps the pinned block until the copy has ended


def of_each(table: Tensor, sample: Tensor) -> Tensor:
    """(K, N): for each of N things the column of its sample, of a table (K, B). Of a table of one column: itself, (K, 1)."""
    return table if table.shape[1] == 1 else table.index_select(1, sample)
