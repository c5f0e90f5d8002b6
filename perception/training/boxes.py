"""Boxes of samples (det3d rows) as `cuda_ops` takes them, and the returns within them."""

import math

import torch
from torch import Tensor

import cuda_ops
from perception.training.point_noise import evenly

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


def thinned_points(points: Tensor, sample: Tensor, boxes: Tensor, sample_of_box: Tensor, share: Tensor, bits: Tensor) -> Tensor:
    """(N,) bool, whether a point is lost with its share (M,) of those in the first det3d row (M, 9) of its sample around it.

    points (N, 3 or more); sample (N,) and sample_of_box (M,) int32; bits (N,) int32, random, of which the lower half is used
    """
    groups = {"point_group": sample, "box_group": sample_of_box}
    index = cuda_ops.points_in_boxes(points, operator_boxes(boxes), **groups).index + 1
    return evenly(bits << 16) < torch.nn.functional.pad(share, (1, 0)).index_select(0, index)


def scale_objects(
    xyz: Tensor, points: Tensor, sample: Tensor, boxes: Tensor, sample_of_box: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor]:
    """Points (3, N) and det3d rows (M, 9) with each box and the points of its sample within it scaled by its own of the factors (M, 3).

    points (N, 3 or more) are the same once more; the factors are those of length, width and height. About the middle of the bottom face, so
    that things stay on the road. A point in several boxes goes with the first one. Moving objects' older points outside of their boxes stay
    where they are.
    """
    bottom = boxes[:, 2] - boxes[:, 5] / 2
    groups = {"point_group": sample, "box_group": sample_of_box}
    index = cuda_ops.points_in_boxes(points, operator_boxes(boxes), **groups).index + 1
    # p becomes p + S (p - b), with b the bottom and S symmetric: the factors less 1 along the box's own axes. Its length lies along
    # (sin r, cos r), and whether that is its front or its back is all the same.
    change, sin, cos = (scales - 1).t(), torch.sin(boxes[:, 8]), torch.cos(boxes[:, 8])
    along, across = torch.stack([sin, cos]), torch.stack([cos, -sin])  # (2, M)
    flat = change[0] * along[:, None] * along + change[1] * across[:, None] * across  # (2, 2, M)
    shift = (flat * boxes[:, :2].t()).sum(dim=1).neg_()
    table = torch.cat([flat.flatten(0, 1), change[2:], shift, (-change[2] * bottom)[None]])  # (8, M)
    # Column 0 is for points in no box: they keep every bit.
    of_point = torch.nn.functional.pad(table, (1, 0)).index_select(1, index)
    flat, up, moved = of_point[:4].view(2, 2, -1), of_point[4], of_point[5:]
    moved[:2].addcmul_(flat[:, 0], xyz[0]).addcmul_(flat[:, 1], xyz[1])
    moved[2].addcmul_(up, xyz[2])
    size = boxes[:, 3:6] * torch.stack([scales[:, 1], scales[:, 0], scales[:, 2]], dim=1)  # det3d's width comes first
    middle = (bottom + size[:, 2] / 2)[:, None]
    return moved.add_(xyz), torch.cat([boxes[:, :2], middle, size, boxes[:, 6:]], dim=1)
