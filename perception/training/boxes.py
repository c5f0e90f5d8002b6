"""Boxes of samples (det3d rows) as `cuda_ops` takes them, and the returns within them."""

import math

import numpy as np
import torch
from torch import Tensor

import cuda_ops

AGE = 4  # column of a sample's points


def operator_boxes(rows: Tensor) -> Tensor:
    """det3d rows (M, 9) as `cuda_ops` takes boxes: (M, 7) x, y, z, length, width, height, yaw."""
    # Slices, not a list of columns: that would be copied to a GPU, and the host would wait.
    return torch.cat([rows[:, :3], rows[:, 4:5], rows[:, 3:4], rows[:, 5:6], -rows[:, 8:] - math.pi / 2], dim=1)


def count_key_returns(xyz: Tensor, age: Tensor, boxes: Tensor) -> Tensor:
    """(M,) int64: points of the key sweep (age 0) within each det3d row (M, 9), borders included. Points xyz (3, N), ages (N,)."""
    xyz = xyz.clone()
    xyz[0].masked_fill_(age != 0, math.nan)  # put nowhere rather than left out: a GPU would have to say how many there are
    return cuda_ops.points_in_boxes(xyz.t().contiguous(), operator_boxes(boxes)).count.long()


def scale_objects(xyz: Tensor, boxes: Tensor, factors: np.ndarray) -> tuple[Tensor, Tensor]:
    """Points (3, N) and det3d rows (M, 9) with each box and the points within it scaled by its own of the factors (M,).

    About the middle of the bottom face, so that things stay on the road. A point in several boxes goes with the first one. Moving objects'
    older points outside of their boxes stay where they are.
    """
    scale = torch.from_numpy(factors.astype(np.float32)).to(boxes.device, non_blocking=True)
    bottom = torch.stack([boxes[:, 0], boxes[:, 1], boxes[:, 2] - boxes[:, 5] / 2])  # (3, M)
    index = cuda_ops.points_in_boxes(xyz.t().contiguous(), operator_boxes(boxes)).index + 1
    # p becomes p + (scale - 1) * p + (1 - scale) * bottom, column 0 of the table is for points in no box: they keep every bit.
    table = torch.nn.functional.pad(torch.cat([(scale - 1)[None], bottom * (1 - scale)]), (1, 0))
    moved = table.index_select(1, index)  # (4, N)
    size = boxes[:, 3:6] * scale[:, None]
    middle = (bottom[2] + size[:, 2] / 2)[:, None]
    return moved[1:].addcmul_(xyz, moved[0]).add_(xyz), torch.cat([boxes[:, :2], middle, size, boxes[:, 6:]], dim=1)
