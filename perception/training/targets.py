"""Targets of a CenterPoint head: what its maps should say of the boxes of some samples. Source: det3d, `AssignLabel`.

All steps are vectorised over boxes and samples on the samples' device. Nothing waits for a GPU, and results do not depend on the order in
which threads run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perception.detection.build import grid_of
from perception.detection.config import CenterPointSettings
from perception.detection.grid import BevGrid
from perception.detection.voxels import joined
from perception.training.loss_settings import LossSettings
from perception.training.sample import Sample
from perception.training.upload import uploaded

# On a GPU the window in which heat is drawn is chosen before sizes are known (metres): one for all vehicles that there are, and a larger
# one for the largest boxes of each sample. Only of still larger boxes, or of more of them, would heat be cut.
_LARGE, _HUGE, _MOST_HUGE = (4.0, 25.0), (40.0, 40.0), 8


@dataclass(frozen=True, eq=False)
class TaskTargets:
    """What the maps of one task should say. B samples, K slots for objects, C classes of the task.

    heatmap  (B, C, H, W) float32  1 in the cell of an object's centre, less around it; also at objects that are left out of the loss
    index    (B, K) int64    cell y * W + x of the object in a slot, 0 in an empty one
    mask     (B, K) bool     whether the slot holds an object
    cat      (B, K) int64    its class within the task
    values   (B, K, 10) float32  in the order of `head.BRANCHES`: offset of the centre from its cell's corner x, y (cells); height of the
             centre (m); log of width, length, height; sine and cosine of det3d's yaw; velocity x, y (m/s, NaN where unknown); else 0
    weights       (C,) of the classes in the heat map's loss
    cell_size     metres along x, y of a cell
    Slots are filled class by class, in a class in the order of the sample. Two objects in one cell have a slot each.
    """

    heatmap: Tensor
    index: Tensor
    mask: Tensor
    cat: Tensor
    values: Tensor
    weights: tuple[float, ...]
    cell_size: tuple[float, float]


def make_targets(samples: Sequence[Sample], settings: CenterPointSettings, loss: LossSettings | None = None) -> list[TaskTargets]:
    """One `TaskTargets` a task of the network with `settings`; tensors on the samples' device.

    samples  at least one, all on one device; boxes of labels below 0 are no objects
    K is the largest number of boxes in a sample (at least 1, at most loss.max_objects).
    The cell of a centre is cut toward zero, as published: a centre up to one cell below the lower limits belongs to cell 0, with a negative
    offset, one above the upper limits belongs to none. A box without a cell leaves its slot empty, and so does one with a number (velocity
    excepted) that is not finite or a size that is not above 0. Boxes above or below the grid are objects like others.
    An object with fewer than loss.min_points returns, and one that is beyond the loss.max_objects nearest, has heat but no slot: it is no
    positive, and a prediction there costs as little as it would beside a positive.
    """
    loss = loss or LossSettings()
    grid, counts = grid_of(settings), [len(task) for task in settings.head.tasks]
    boxes, label, num_points = _padded(samples)

    cell, values, has_cell = _cells_and_values(boxes, grid)
    has_cell &= label >= 0
    heat = _heat(boxes, label, cell, has_cell, sum(counts), grid, loss)  # (B, all classes, H, W)
    is_near = _nearest(boxes, label, samples, loss.max_objects)
    is_object = has_cell & (num_points >= loss.min_points)

    key = torch.where((label >= 0) & is_near, label, sum(counts))
    order = key.argsort(dim=1, stable=True)  # objects class by class, then the rest
    width = grid.map_shape[1]
    index = torch.where(is_object, cell[..., 1] * width + cell[..., 0], 0)
    slot = torch.arange(min(boxes.shape[1], loss.max_objects), device=boxes.device)
    targets, first = [], 0
    for heatmap, names in zip(heat.split(counts, dim=1), settings.head.tasks, strict=True):
        count, weights = len(names), tuple(loss.class_weights.get(name, 1.0) for name in names)
        begin, end = (key < first).sum(dim=1, keepdim=True), (key < first + count).sum(dim=1, keepdim=True)  # (B, 1) among `order`
        source = order.gather(1, (begin + slot).clamp(max=order.shape[1] - 1))  # (B, K) boxes
        mask = (begin + slot < end) & is_object.gather(1, source)
        cat = torch.where(mask, label.gather(1, source) - first, 0)
        rows = values.gather(1, source[..., None].expand(-1, -1, values.shape[2]))
        rows = torch.where(mask[..., None], rows, 0)
        cells = torch.where(mask, index.gather(1, source), 0)
        targets.append(TaskTargets(heatmap, cells, mask, cat, rows, weights, grid.cell_size))
        first += count
    return targets


def _padded(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, M, 9), labels (B, M) and returns (B, M) of samples, M at least 1; behind each sample's last: 0, labels -1.

    Some operations for all samples, where `pad_sequence` copies them one by one.
    """
    counts, device = np.array([len(sample.boxes) for sample in samples]), samples[0].boxes.device
    slot, first, total = np.arange(max(counts.max(), 1)), np.cumsum(counts) - counts, int(counts.sum())
    rows = np.where(slot < counts[:, None], first[:, None] + slot, total)  # (B, M), the row behind the last one where there is none
    (index,) = uploaded([rows.ravel()], device)

    def padded(parts: list[Tensor], value: int) -> Tensor:
        together = joined(parts)
        one_more = torch.cat([together, together.new_full((1, *together.shape[1:]), value)])
        return one_more.index_select(0, index).view(*rows.shape, *together.shape[1:])

    boxes, labels = padded([sample.boxes for sample in samples], 0), padded([sample.labels for sample in samples], -1)
    return boxes, labels, padded([sample.num_points for sample in samples], 0)


def _cells_and_values(boxes: Tensor, grid: BevGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Of boxes (B, M, 9): cells x, y (B, M, 2) int64, values (B, M, 10) as in `TaskTargets`, and whether the box has a cell (B, M)."""
    height, width = grid.map_shape
    places = [_place(boxes[..., axis], axis, grid) for axis in (0, 1)]  # in cells
    place = torch.stack(places, dim=-1)
    corner = place.trunc()
    has_cell = (corner[..., 0] >= 0) & (corner[..., 0] < width) & (corner[..., 1] >= 0) & (corner[..., 1] < height)
    yaw = boxes[..., 8:]
    has_cell &= torch.cat([boxes[..., :6], yaw], dim=-1).isfinite().all(dim=-1) & (boxes[..., 3:6] > 0).all(dim=-1)
    parts = [place - corner, boxes[..., 2:3], boxes[..., 3:6].log(), yaw.sin(), yaw.cos(), boxes[..., 6:8]]
    return torch.where(has_cell[..., None], corner, 0).long(), torch.cat(parts, dim=-1), has_cell


def _place(x: Tensor, axis: int, grid: BevGrid) -> Tensor:
    """Coordinates (m) in cells of the map, with the roundings of the published float32 code on any device."""
    # Tensors, not numbers: a GPU would multiply by the inverse of a number, which moves centres that lie on a border.
    size, stride = torch.full_like(x, grid.voxels.voxel_size[axis]), torch.full_like(x, grid.stride)
    return (x - grid.voxels.lower[axis]) / size / stride


def _nearest(boxes: Tensor, label: Tensor, samples: Sequence[Sample], most: int) -> Tensor:
    """(B, M) whether a box is among the `most` nearest of its sample, seen from above; equal ones in their order."""
    if boxes.shape[1] <= most:
        return torch.ones_like(label, dtype=torch.bool)
    origin = torch.stack([sample.origin[:2] for sample in samples])[:, None]  # (B, 1, 2)
    distance = torch.where(label >= 0, (boxes[..., :2] - origin).square().sum(dim=-1), torch.inf)
    return distance.argsort(dim=1, stable=True).argsort(dim=1) < most


def _heat(boxes: Tensor, label: Tensor, cell: Tensor, has_cell: Tensor, classes: int, grid: BevGrid, loss: LossSettings) -> Tensor:
    """(B, classes, H, W): around the cell of each box a Gaussian, cut to a square; where several meet, the largest."""
    (height, width), (size_x, size_y) = grid.map_shape, grid.cell_size
    radius = gaussian_radius(boxes[..., 3] / size_x, boxes[..., 4] / size_y, loss.gaussian_overlap)
    radius = torch.where(has_cell, radius, -1).clamp(min=loss.min_radius)  # (B, M) float32, whole numbers
    corner = label.clamp(min=0) * (height * width)
    heat = torch.zeros((len(boxes), classes * height * width), device=boxes.device)

    def paint(radius: Tensor, corner: Tensor, cell: Tensor, has_cell: Tensor, window: int) -> None:
        step = torch.arange(-window, window + 1, device=radius.device)
        x, y = cell[..., :1] + step, cell[..., 1:] + step  # (B, M, S)
        sigma = (2 * radius[..., None] + 1) / 6
        bell = torch.exp(-step.square() / (2 * sigma.square())) * (step.abs() <= radius[..., None])  # (B, M, S) along one axis
        value = (bell * has_cell[..., None])[..., :, None] * bell[..., None, :]  # (B, M, S, S)
        # Beyond the border: moved to the cell at the border, where it changes nothing, because heat is larger nearer to the centre.
        place = y.clamp(0, height - 1)[..., :, None] * width + x.clamp(0, width - 1)[..., None, :] + corner[..., None, None]
        heat.scatter_reduce_(1, place.flatten(1), value.flatten(1), "amax")  # the maximum is the same in any order

    if boxes.device.type == "cpu":
        # no wider than the map, whatever a broken box says: beyond its border nothing is painted
        paint(radius, corner, cell, has_cell, min(int(radius.max()), max(height, width)))
    else:  # without asking the GPU how large the largest is
        paint(radius, corner, cell, has_cell, _radius_of(*_LARGE, grid, loss))
        large = radius.topk(min(_MOST_HUGE, radius.shape[1]), dim=1).indices
        corner, has_cell = corner.gather(1, large), has_cell.gather(1, large)
        paint(radius.gather(1, large), corner, cell.gather(1, large[..., None].expand(-1, -1, 2)), has_cell, _radius_of(*_HUGE, grid, loss))
    return heat.unflatten(1, (classes, height, width))


def gaussian_radius(width: Tensor, length: Tensor, overlap: float) -> Tensor:
    """The radius of an object's heat, in whole cells, of its width and length in cells.

    The three cases of CornerNet with the published code's roots: it divides by 2, not by 2 a, so that one case decides nearly always.
    """
    total, area = (width + length).double(), (width * length).double()
    inside = (total + (total.square() - 4 * area * ((1 - overlap) / (1 + overlap))).clamp(min=0).sqrt()) / 2
    across = (2 * total + (4 * total.square() - 16 * (1 - overlap) * area).clamp(min=0).sqrt()) / 2
    around = (-2 * overlap * total + (4 * (overlap * total).square() + 16 * overlap * (1 - overlap) * area).clamp(min=0).sqrt()) / 2
    return torch.minimum(torch.minimum(inside, across), around).trunc().to(width.dtype)


def _radius_of(width: float, length: float, grid: BevGrid, loss: LossSettings) -> int:
    """Cells, of a box in metres."""
    size_x, size_y = grid.cell_size
    return max(loss.min_radius, int(gaussian_radius(torch.tensor(width / size_x), torch.tensor(length / size_y), loss.gaussian_overlap)))
