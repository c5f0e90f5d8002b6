"""Overlap of boxes in pairs: the first with the first, the second with the second. (`cuda_ops.iou_3d` takes all with all.)"""

import torch
from torch import Tensor

_CORNERS = ((1, 1), (-1, 1), (-1, -1), (1, -1))  # counter-clockwise, in half sizes
_ON_BORDER = 1e-11  # of a half size: an edge of b this near to one of a is the same edge, and counts for a only


def paired_iou_3d(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(N,) float64 intersection over union of the volumes of boxes (N, 7): x, y, z (centre), length, width, height, yaw; m, radians.

    A NaN, an infinite number or a size that is not above 0: 0. Errors are some 1e-10. Computed on the boxes' device, without waiting.
    """
    both = torch.stack([boxes_a, boxes_b]).double()
    is_sound = (both.isfinite().all(dim=2) & (both[..., 3:6] > 0).all(dim=2)).all(dim=0)
    a, b = torch.where(is_sound[:, None], both, 1)
    top = torch.minimum(a[:, 2] + a[:, 5] / 2, b[:, 2] + b[:, 5] / 2)
    bottom = torch.maximum(a[:, 2] - a[:, 5] / 2, b[:, 2] - b[:, 5] / 2)
    shared = _shared_area(a, b) * (top - bottom).clamp(min=0)
    iou = shared / (a[:, 3:6].prod(dim=1) + b[:, 3:6].prod(dim=1) - shared)
    return torch.where(is_sound, iou.clamp(0, 1), 0)


def _shared_area(a: Tensor, b: Tensor) -> Tensor:
    """(N,) area that the boxes share, seen from above.

    Its border consists of the parts of a's edges in b and of b's edges in a. Each adds the triangle between it and the centre of a (Green's
    theorem), so that the corners need not be put in order.
    """
    shift = _turned((b[:, :2] - a[:, :2])[:, None], -a[:, 6])  # (N, 1, 2) in the axes of a
    turn = b[:, 6] - a[:, 6]
    corners_a, corners_b = _corners(a), _corners(b)  # (N, 4, 2), each in its own axes
    b_in_a, a_in_b = _turned(corners_b, turn) + shift, _turned(corners_a - shift, -turn)
    parts_of_a = _part_inside(a_in_b, b[:, 3:5] / 2 * (1 + _ON_BORDER))
    parts_of_b = _part_inside(b_in_a, a[:, 3:5] / 2 * (1 - _ON_BORDER))
    return (_triangles(corners_a, *parts_of_a) + _triangles(b_in_a, *parts_of_b)).clamp(min=0)


def _corners(boxes: Tensor) -> Tensor:
    signs = [torch.stack([boxes[:, 3] * x, boxes[:, 4] * y], dim=1) for x, y in _CORNERS]
    return torch.stack(signs, dim=1) / 2


def _turned(points: Tensor, angle: Tensor) -> Tensor:
    """points (N, P, 2) turned counter-clockwise by angle (N,)."""
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    x, y = points.unbind(dim=2)
    return torch.stack([c * x - s * y, s * x + c * y], dim=2)


def _part_inside(corners: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Where the edges from corners (N, 4, 2) to the next ones are inside of a box of half sizes (N, 2) around 0: from, to (N, 4), 0..1."""
    edges = corners.roll(-1, dims=1) - corners
    one, other = (
        (-half[:, None] - corners) / edges,
        (half[:, None] - corners) / edges,
    )  # infinite where parallel: as it should be
    begin = torch.minimum(one, other).amax(dim=2).clamp(0, 1)
    end = torch.maximum(one, other).amin(dim=2).clamp(max=1)
    return begin, torch.maximum(begin, end)  # equal where nothing is inside


def _triangles(corners: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """(N,) signed area between 0 and the parts of the edges from corners (N, 4, 2) to the next ones."""
    edges = corners.roll(-1, dims=1) - corners
    (x0, y0), (x1, y1) = ((corners + part[..., None] * edges).unbind(dim=2) for part in (begin, end))
    return (x0 * y1 - x1 * y0).sum(dim=1) / 2
