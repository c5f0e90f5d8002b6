"""Losses of a CenterPoint head: focal loss of the heat maps, absolute differences of the boxes and of the IoU that the head predicts.

Sources: det3d, `centernet_loss.py`; for the IoU CIA-SSD and AFDetV2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perception.detection.head import BRANCHES, HeadMaps, TaskMaps
from perception.training.loss_settings import LossSettings
from perception.training.paired_iou import paired_iou_3d
from perception.training.targets import TaskTargets

_HEADING = slice(6, 8)  # its columns among a box's numbers, sine and cosine
_VELOCITY = sum(BRANCHES.values()) - BRANCHES["velocity"]  # its first column among a box's numbers
_LEAST_LENGTH = 0.1  # of a heading, below which the gradient of its direction grows no more
_MOVING = 0.5  # m/s, beyond which a thing moves
_LEAST_SCORE = 1e-4  # scores are cut to [1e-4, 1 - 1e-4]; beyond, a logit has no gradient


class TaskLoss(NamedTuple):
    """Losses of one task, not weighted: () of the heat map, (8 or 10,) of each number of the boxes, () or None of the IoU and the axis."""

    heatmap: Tensor
    boxes: Tensor
    iou: Tensor | None
    axis: Tensor | None


class Losses(NamedTuple):
    """total: the scalar to differentiate. parts: the same in weighted parts by name, detached scalars on the device, which add up to it."""

    total: Tensor
    parts: dict[str, Tensor]


def center_loss(
    maps: HeadMaps, targets: Sequence[TaskTargets], settings: LossSettings | None = None, *, counts: Tensor | None = None
) -> Losses:
    """The loss of the head's maps, of any floating type, computed in float32: the sum over tasks of heat map and weighted boxes.

    maps     of the samples that `targets` were made from
    counts   (tasks,) float: objects a task by which its losses are divided, `object_counts` of these targets by default. With the counts of
             a larger batch, spread over processes or passes, the result is this part's share: the shares add up to the loss of the whole.
    parts    heatmap, one for each of `BRANCHES`, iou where the head has that branch, axis where settings.axis_weight is not 0
    The result does not depend on the order in which threads run, nor does its gradient.
    """
    settings = settings or LossSettings()
    if counts is None:
        counts = object_counts(targets)
    found = [task_loss(m, t, settings, count) for m, t, count in zip(maps.tasks, targets, counts.unbind(), strict=True)]
    parts = {"heatmap": torch.stack([task.heatmap for task in found]).sum()}
    boxes = torch.stack([task.boxes for task in found]).sum(dim=0)  # (8 or 10,)
    column = 0
    for name, channels in BRANCHES.items():
        if column < len(boxes):
            weight = settings.box_weight * (settings.velocity_weight if name == "velocity" else 1.0)
            parts[name] = weight * boxes[column : column + channels].sum()
        column += channels
    if ious := [task.iou for task in found if task.iou is not None]:
        parts["iou"] = settings.iou_weight * torch.stack(ious).sum()
    if axes := [task.axis for task in found if task.axis is not None]:
        parts["axis"] = settings.box_weight * settings.axis_weight * torch.stack(axes).sum()
    total = torch.stack(list(parts.values())).sum()
    return Losses(total, {name: part.detach() for name, part in parts.items()})


def object_counts(targets: Sequence[TaskTargets]) -> Tensor:
    """(tasks,) float32: objects in the slots of each task, over all samples."""
    return torch.stack([task.mask.sum() for task in targets]).float()


def task_loss(maps: TaskMaps, targets: TaskTargets, settings: LossSettings, count: Tensor) -> TaskLoss:
    """Losses of one task; count () float as in `center_loss`. An empty task has the loss of its empty cells, not divided."""
    sample = torch.arange(len(targets.index), device=targets.index.device)[:, None]  # (B, 1) beside index (B, K)
    logits = maps.heatmap.float().flatten(2)  # (B, C, H * W)
    heatmap = _focal_loss(logits, logits[sample, targets.cat, targets.index], targets, count)
    boxes = maps.boxes.flatten(2)[sample, :, targets.index].float()  # (B, K, 8 or 10)
    iou = None if maps.iou is None else _iou_loss(maps.iou.flatten(1)[sample, targets.index].float(), boxes.detach(), targets, count)
    axis = _axis_loss(boxes, targets, count) if settings.axis_weight else None
    return TaskLoss(heatmap, _box_loss(boxes, targets, settings, count), iou, axis)


def _focal_loss(logits: Tensor, at_objects: Tensor, targets: TaskTargets, count: Tensor) -> Tensor:
    """logits (B, C, H * W), and (B, K) at the objects' cells and classes."""
    score = _score(logits)
    empty = torch.log(1 - score) * score.square() * (1 - targets.heatmap.flatten(2)).pow(4)
    score = _score(at_objects)
    object_ = torch.where(targets.mask, torch.log(score) * (1 - score).square(), 0)
    if any(weight != 1 for weight in targets.weights):
        weights = torch.cat([logits.new_full((1,), weight) for weight in targets.weights])
        empty, object_ = empty * weights[:, None], object_ * weights[targets.cat]
    return -(object_.sum() + empty.sum()) / torch.where(count > 0, count, 1)


def _box_loss(boxes: Tensor, targets: TaskTargets, settings: LossSettings, count: Tensor) -> Tensor:
    """(8 or 10,) mean absolute differences of boxes (B, K, 8 or 10) at the objects' cells. An unknown velocity adds nothing to its sum."""
    values, mask = targets.values[..., : boxes.shape[2]], targets.mask[..., None]
    if settings.unknown_velocity == "zero":
        values = values.nan_to_num(nan=0.0)
    difference = torch.where(mask & ~values.isnan(), (boxes - values.nan_to_num(nan=0.0)).abs(), 0)
    if settings.moving_weight != 1 and values.shape[2] > _VELOCITY:
        is_moving = values[..., _VELOCITY:].norm(dim=2, keepdim=True) > _MOVING  # False where unknown
        velocity = torch.where(is_moving, settings.moving_weight, 1.0) * difference[..., _VELOCITY:]
        difference = torch.cat([difference[..., :_VELOCITY], velocity], dim=2)
    return difference.sum(dim=(0, 1)) / (count + 1e-4)


def _axis_loss(boxes: Tensor, targets: TaskTargets, count: Tensor) -> Tensor:
    """() mean absolute differences of sine and cosine of twice the heading, of boxes (B, K, 8 or 10) and objects: 0 for a reversed one too.

    Where front and back cannot be told, any heading between the two has the same mean absolute difference; this keeps it on their line.
    A heading without a length is no way out: it differs from every line by at least 1.
    """
    sine, cosine = boxes[..., _HEADING].unbind(dim=-1)
    true_sine, true_cosine = targets.values[..., _HEADING].unbind(dim=-1)
    square = sine.square() + cosine.square() + _LEAST_LENGTH**2
    across = (2 * sine * cosine / square - 2 * true_sine * true_cosine).abs()
    along = ((cosine.square() - sine.square()) / square - (true_cosine.square() - true_sine.square())).abs()
    return torch.where(targets.mask, across + along, 0).sum() / (count + 1e-4)


def _iou_loss(predicted: Tensor, boxes: Tensor, targets: TaskTargets, count: Tensor) -> Tensor:
    """() mean absolute difference of the head's word (B, K) and 2 * IoU - 1 of its boxes (B, K, 8 or 10) with the objects."""
    iou = paired_iou_3d(_upright(boxes, targets.cell_size), _upright(targets.values, targets.cell_size)).view_as(predicted)
    difference = (predicted - (2 * iou - 1).float()).abs()
    return torch.where(targets.mask, difference, 0).sum() / (count + 1e-4)


def _upright(values: Tensor, cell_size: tuple[float, float]) -> Tensor:
    """values (B, K, 8 or 10) as boxes (B * K, 7) x, y, z, width, length, height, angle of the width, from the corner of their cells."""
    offset_x, offset_y, z, log_w, log_l, log_h, sine, cosine = values.double().flatten(0, 1)[:, :8].unbind(dim=1)
    x, y, angle = offset_x * cell_size[0], offset_y * cell_size[1], -torch.atan2(sine, cosine)  # det3d's yaw is clockwise
    return torch.stack([x, y, z, log_w.exp(), log_l.exp(), log_h.exp(), angle], dim=1)


def _score(logits: Tensor) -> Tensor:
    return logits.sigmoid().clamp(_LEAST_SCORE, 1 - _LEAST_SCORE)
