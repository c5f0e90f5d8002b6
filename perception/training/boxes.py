"""Boxes of samples (det3d rows) as `cuda_ops` takes them, and the returns within them."""

import math

import torch
from torch import Tensor

import cuda_ops

AGE = 4  # column of a sample's points


def operator_boxes(rows: Tensor) -> Tensor:
    """det3d rows (M, 9) as `cuda_ops` takes boxes: (M, 7) x, y, z, length, width, height, yaw."""
    # Slices, not a list of columns: that would be copied to a GPU, and the host would wait.
    return torch.cat([rows[:, :3], rows[:, 4:5], rows[:, 3:4], rows[:, 5:6], -rows[:, 8:] - math.pi / 2], dim=1)


def count_key_returns(points: Tensor, is_key: Tensor, sample: Tensor, boxes: Tensor, sample_of_box: Tensor) -> Tensor:
    """(M,) int64: points (N, 3 or more) of the key sweep (is_key (N,)) and of its sample within each det3d row (M, 9), borders included.

    sample (N,) and sample_of_box (M,) int32
    """
    # Put into no sample rather than left out: a GPU would have to say how many there are.
    groups = {"point_group": torch.where(is_key, sample, -1), "box_group": sample_of_box}
    return cuda_ops.points_in_boxes(points, operator_boxes(boxes), **groups).count.long()


def scale_objects(
    xyz: Tensor, points: Tensor, sample: Tensor, boxes: Tensor, sample_of_box: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Points (3, N) and det3d rows (M, 9) with each box and the points of its sample within it scaled by its own of the factors (M,).

    points (N, 3 or more) are the same once more. About the middle of the bottom face, so that things stay on the road. A point in several
    boxes goes with the first one. Moving objects' older points outside of their boxes stay where they are.
    """
    x, y, z, height = boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 5]
    bottom = torch.stack([x, y, z - height / 2])  # (3, M)
    groups = {"point_group": sample, "box_group": sample_of_box}
    index = cuda_ops.points_in_boxes(points, operator_boxes(boxes), **groups).index + 1
    # p becomes p + (scale - 1) * p + (1 - scale) * bottom, column 0 of the table is for points in no box: they keep every bit.
    table = torch.nn.functional.pad(torch.cat([(scale - 1)[None], bottom * (1 - scale)]), (1, 0))
    moved = table.index_select(1, index)  # (4, N)
    size = boxes[:, 3:6] * scale[:, None]
    middle = (bottom[2] + size[:, 2] / 2)[:, None]
    return moved[1:].addcmul_(xyz, moved[0]).add_(xyz), torch.cat([boxes[:, :2], middle, size, boxes[:, 6:]], dim=1)
