"""From the head's maps to boxes: scores, limits, one of two kinds of non-maximum suppression, task by task.

A box is a row of det3d's: x, y, z of the middle (m), width, length, height (m), velocity x, y (m/s), yaw r, clockwise and zero where the
width lies along x and the front points to -y (`perception.core.borders.boxes_from_det3d`). Source: CenterPoint's `predict`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cuda_ops import nms_bev, nms_circle
from perception.detection.grid import BevGrid
from perception.detection.head import HeadMaps

_COLUMNS = 9  # of a box


class Boxes(NamedTuple):
    """Boxes of one sample: rows (N, 9) float32, scores (N,) float32, labels (N,) int64; tasks in order, in each the best first."""

    rows: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class RotatedNms:
    """Boxes seen from above: one whose overlap (IoU) with a better one is above the threshold is dropped.

    max_in   boxes of a task that take part, the best; of each of its groups of classes where there are any
    max_out  boxes of a task that are kept, the best
    """

    iou_threshold: float
    max_in: int
    max_out: int

    def __call__(self, rows: Tensor, scores: Tensor, _task: int) -> Tensor:
        """rows (N, 9), scores (N,) of one task, to the rows kept, best first."""
        return nms_bev(self._flat(rows), scores, self.iou_threshold, self.max_out)

    def fixed(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Nothing waits for a count: rows (B, tasks, K, 9) and scores (B, tasks, K), NaN where there is no box, to the rows of all kept
        ones, numbered through (B * tasks * K,), in any order and with -1 in between."""
        flat, group = self._flat(rows.flatten(0, 2)), _numbers(scores.flatten(0, 1))
        return nms_bev(flat, scores.flatten(), self.iou_threshold, self.max_out, group=group, fixed_capacity=True)

    @staticmethod
    def _flat(rows: Tensor) -> Tensor:
        """x, y, length, width and heading, counter-clockwise from x."""
        x, y, length, width, r = (rows[:, column] for column in (0, 1, 4, 3, 8))
        return torch.stack([x, y, length, width, -r - torch.pi / 2], dim=1)


@dataclass(frozen=True)
class CircleNms:
    """Centres: one that is within the task's radius of a better one is dropped. squared_radius: square metres, per task."""

    squared_radius: tuple[float, ...]
    max_out: int
    max_in: int | None = None

    def __call__(self, rows: Tensor, scores: Tensor, task: int) -> Tensor:
        """As `RotatedNms`."""
        return nms_circle(rows[:, :2], scores, squared_radius=self.squared_radius[task], max_out=self.max_out)

    def fixed(self, rows: Tensor, scores: Tensor) -> Tensor:
        """As `RotatedNms.fixed`."""
        _, tasks, places = scores.shape
        group, kept = _numbers(scores[:, 0]), []
        for task, square in enumerate(self.squared_radius):
            centers = rows[:, task, :, :2].flatten(0, 1)
            options = {"squared_radius": square, "max_out": self.max_out, "group": group, "fixed_capacity": True}
            row = nms_circle(centers, scores[:, task].flatten(), **options)  # numbered through (B * K,)
            kept.append(torch.where(row < 0, -1, (row // places * tasks + task) * places + row % places))
        return torch.cat(kept)


@dataclass(frozen=True)
class Decoder:
    """What is needed to turn maps into boxes.

    num_classes      per task; labels count through all tasks
    score_threshold  a cell is a candidate when its score is above it
    center_lower, center_upper  metres, x y z: limits of the middle of a box, borders included
    iou_alpha        per label, 0..1, or nothing: where the head predicts the IoU, the score of a candidate becomes
                     score^(1 - alpha) * IoU^alpha before suppression. Source: CIA-SSD, AFDetV2
    groups           per task its groups of classes, numbered within the task, or nothing: a cell gives one box for each group whose
                     best class is above the threshold, and boxes suppress each other within a group only. Else a task is one group
    """

    grid: BevGrid
    num_classes: tuple[int, ...]
    nms: RotatedNms | CircleNms
    score_threshold: float
    center_lower: tuple[float, float, float]
    center_upper: tuple[float, float, float]
    iou_alpha: tuple[float, ...] = ()
    groups: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def from_maps(self, maps: HeadMaps) -> list[Boxes]:
        """One `Boxes` a sample, of maps that are there for all cells."""
        scores, stacked = [task.heatmap.float().sigmoid() for task in maps.tasks], [task.stacked for task in maps.tasks]

        def rows(task: int, sample: int, cells: Tensor) -> Tensor:
            branches = stacked[task][sample].flatten(1)[:, cells].t()
            return decoded(branches, cells, maps.shared.shape[3], self.grid, has_iou=maps.tasks[task].iou is not None)

        return self.from_scores(scores, rows)

    def from_scores(self, scores: Sequence[Tensor], rows: Callable[[int, int, Tensor], Tensor]) -> list[Boxes]:
        """scores: per task (B, classes, H, W); rows(task, sample, cells (N,)) gives the boxes (N, 9) of cells y * W + x,
        or (N, 10) with the predicted IoU behind them.

        It is asked for candidates only.
        """
        samples = []
        for sample in range(len(scores[0])):
            parts = [self._task(task, maps[sample], lambda cells, t=task, s=sample: rows(t, s, cells)) for task, maps in enumerate(scores)]
            samples.append(Boxes(*(torch.cat(columns) for columns in zip(*parts, strict=True))))
        return samples

    def _task(self, task: int, scores: Tensor, rows_at: Callable[[Tensor], Tensor]) -> Boxes:
        """Boxes of one task of one sample; scores (classes, H, W)."""
        if not self.groups:
            return self._group(task, scores, range(len(scores)), rows_at)
        rows_at = self._once(scores, rows_at, len(self.groups[task]))
        parts = [self._group(task, scores[list(group)], group, rows_at) for group in self.groups[task]]
        boxes = Boxes(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        best = boxes.scores.argsort(descending=True, stable=True)[: self.nms.max_out]
        return Boxes(*(column[best] for column in boxes))

    def _once(self, scores: Tensor, rows_at: Callable[[Tensor], Tensor], num_groups: int) -> Callable[[Tensor], Tensor]:
        """`rows_at` for several groups: a cell that is a candidate in more than one is computed once, unless most need not be at all."""
        cells = (scores.flatten(1).amax(dim=0) > self.score_threshold).nonzero()[:, 0]
        if self.nms.max_in is not None and len(cells) > self.nms.max_in * num_groups:
            return rows_at
        rows, place = rows_at(cells), cells.new_zeros(scores[0].numel())
        place[cells] = torch.arange(len(cells), device=cells.device)
        return lambda wanted: rows[place[wanted]]

    def _group(self, task: int, scores: Tensor, classes: Sequence[int], rows_at: Callable[[Tensor], Tensor]) -> Boxes:
        """Boxes of those classes of a task, numbered within it, whose scores (classes, H, W) these are."""
        best, label = scores.flatten(1).max(dim=0)  # (H * W,); the first of equal classes
        label = label.new_tensor(list(classes))[label] + sum(self.num_classes[:task])
        cells = (best > self.score_threshold).nonzero()[:, 0]
        cells = cells[best[cells].argsort(descending=True, stable=True)]  # (N,)
        rows, cells = self._rows(cells, rows_at)
        score = best[cells]
        if self.iou_alpha and rows.shape[1] > _COLUMNS:
            score = self._rescored(score, rows[:, _COLUMNS], label[cells])
            rows = rows[:, :_COLUMNS]
        keep = self.nms(rows, score, task)
        return Boxes(rows[keep], score[keep], label[cells[keep]])

    def _rows(self, cells: Tensor, rows_at: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes within the limits, and their cells: of all candidates, or of as many of the best as suppression takes."""
        most = self.nms.max_in
        if most is None or len(cells) <= most:
            rows = rows_at(cells)
            is_inside = self.is_inside(rows)
            return rows[is_inside], cells[is_inside]
        found, places, count = [], [], 0
        for part in cells.split(most):  # the others need not be looked at
            rows, part = self._rows(part, rows_at)
            found.append(rows)
            places.append(part)
            count += len(part)
            if count >= most:
                break
        return torch.cat(found)[:most], torch.cat(places)[:most]

    def _rescored(self, score: Tensor, iou: Tensor, label: Tensor) -> Tensor:
        alpha = score.new_tensor(self.iou_alpha)[label]
        return score ** (1 - alpha) * iou**alpha

    def is_inside(self, rows: Tensor) -> Tensor:
        """Whether the middles of boxes (..., 9) are within the limits: (...)."""
        axes = zip(rows[..., :3].unbind(dim=-1), self.center_lower, self.center_upper, strict=True)
        inside = [(place >= lower) & (place <= upper) for place, lower, upper in axes]  # numbers, not tensors: those would be copied
        return inside[0] & inside[1] & inside[2]


def _numbers(scores: Tensor) -> Tensor:
    """scores (G, K) to the number of the row of each, (G * K,) int64."""
    return torch.arange(len(scores), device=scores.device)[:, None].expand_as(scores).flatten()


def decoded(branches: Tensor, cells: Tensor, width: int, grid: BevGrid, *, has_iou: bool = False) -> Tensor:
    """Rows (N, 9) of the stacked branches (N, 8 or 10) at cells (N,) = y * width + x. Without a velocity branch it is 0.

    has_iou: the last of the branches, then one more, is that of the IoU; rows are (N, 10), the IoU behind the box.
    """
    branches = branches.float()
    branches, iou = (branches[:, :-1], branches[:, -1:]) if has_iou else (branches, None)
    rows = boxes_of(branches[:, :3], branches[:, 3:6].exp(), branches[:, 6:8], branches[:, 8:], cells, width, grid)
    return rows if iou is None else with_iou(rows, iou)


def with_iou(rows: Tensor, branch: Tensor) -> Tensor:
    """(N, 10): rows (N, 9) and behind them the IoU, 0..1, of its branch (N, 1), which says 2 * IoU - 1."""
    return torch.cat([rows, (branch / 2 + 0.5).clamp(0, 1)], dim=1)


def boxes_of(offset_height: Tensor, size: Tensor, heading: Tensor, velocity: Tensor, cells: Tensor, width: int, grid: BevGrid) -> Tensor:
    """Rows (N, 9) of offset and height (N, 3), size (N, 3) in metres, sine and cosine (N, 2) and velocity (N, 2) or (N, 0)."""
    offset, height = offset_height[:, :2], offset_height[:, 2:]
    axes = zip((cells % width, cells // width), offset.unbind(dim=1), grid.voxels.voxel_size, grid.voxels.lower, strict=False)
    xy = torch.stack([(cell + shift) * grid.stride * size + low for cell, shift, size, low in axes], dim=1)  # (N, 2)
    velocity = velocity if velocity.shape[1] else torch.zeros_like(offset)
    yaw = torch.atan2(heading[:, :1], heading[:, 1:])
    return torch.cat([xy, height, size, velocity, yaw], dim=1)
