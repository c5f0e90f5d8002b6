"""The loss of the second stage: some boxes of the first, how well they fit, and what is between them and the truth.

Source: CenterPoint, `proposal_target_layer.py` and `roi_head_template.py`, which are OpenPCDet's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops import iou_3d
from perception.detection.decode import Boxes
from perception.detection.grid import BevGrid
from perception.detection.second_stage import SecondStage, point_features
from perception.training.boxes import operator_boxes
from perception.training.loss_settings import LossSettings, SecondStageLossSettings
from perception.training.losses import Losses
from perception.training.sample import Sample

_LARGEST = 100.0  # metres, of a box that is one


class Proposals(NamedTuple):
    """Boxes of the first stage to learn from: rows (S, 9), scores (S,), the truth of each (S, 9), their IoU with it (S,), 0 for none."""

    rows: Tensor
    scores: Tensor
    truth: Tensor
    iou: Tensor


def second_stage_loss(
    stage: SecondStage,
    feature_map: Tensor,
    boxes: Sequence[Boxes],
    samples: Sequence[Sample],
    grid: BevGrid,
    settings: LossSettings | None = None,
    *,
    generator: torch.Generator | None = None,
    total_of: Callable[[Tensor], Tensor] = lambda count: count,
) -> Losses:
    """The loss of the second stage on a random choice of the first one's boxes; parts second_score and second_box.

    feature_map  (B, C, H, W) that the stage reads: the head's shared map or the neck's output, of any floating type. Nothing flows back to
                 it: the first stage learns from its own losses only, or is frozen, as published
    boxes        of the first stage, one `Boxes` a sample
    samples      their truth
    generator    of the choice, on the CPU; torch's own where it is left out
    total_of     a sum over processes: with it the result is this process's share of the loss of all, see `center_loss`
    The score should be the IoU stretched over settings.second_stage.score_iou, by cross entropy, on average over the boxes. The borders
    should move to the truth, by absolute differences, summed over the numbers of a box and averaged over the boxes that overlap it enough.
    """
    settings = settings or LossSettings()
    second = settings.second_stage
    found = [choose(b, s, second, generator) for b, s in zip(boxes, samples, strict=True)]
    chosen = [Boxes(p.rows, p.scores, p.scores.long()) for p in found]
    features = torch.cat(point_features(feature_map.detach(), chosen, grid)).float()
    rows, scores, truth, iou = (torch.cat(parts) for parts in zip(*found, strict=True))
    logit, residual = stage(features, rows, scores)

    low, high = second.score_iou
    score = F.binary_cross_entropy_with_logits(logit[:, 0].float(), ((iou - low) / (high - low)).clamp(0, 1), reduction="sum")
    truth = truth.nan_to_num(nan=0.0) if settings.unknown_velocity == "zero" else truth
    wanted = residual_to(rows, truth)[:, : residual.shape[1]]
    is_near = iou > second.foreground_iou
    is_known = is_near[:, None] & ~wanted.isnan()
    difference = torch.where(is_known, (residual.float() - wanted.nan_to_num()).abs(), 0).sum(dim=0)  # (7 or 9,)
    box = difference[:7].sum() + settings.velocity_weight * difference[7:].sum()

    counts = total_of(torch.stack([torch.ones_like(is_near).sum(), is_near.sum()]).float()).clamp(min=1)
    score, box = settings.second_stage_weight * torch.stack([score, box]) / counts
    return Losses(score + box, {"second_score": score.detach(), "second_box": box.detach()})


def choose(boxes: Boxes, sample: Sample, settings: SecondStageLossSettings, generator: torch.Generator | None = None) -> Proposals:
    """settings.boxes of the boxes of one sample, at random: foreground first, as much as there is of it up to its share.

    A box belongs to the object of its class that it overlaps most. Foreground is drawn once each; other boxes, and foreground where there
    is nothing else, may come several times. Without any box all rows are zeros, which belong to no object and should have no score.
    Boxes of a network that has learnt little may have no numbers or any size: those are left out.
    """
    count, device = settings.boxes, boxes.rows.device
    boxes = Boxes(*(column[boxes.rows.isfinite().all(dim=1) & (boxes.rows[:, 3:6] < _LARGEST).all(dim=1)] for column in boxes))
    if len(boxes.rows) == 0:
        rows = boxes.rows.new_zeros((count, 9))
        return Proposals(rows, rows[:, 0], rows, rows[:, 0])
    truth = sample.boxes if len(sample.boxes) else boxes.rows.new_zeros((1, 9))  # a box of no size overlaps nothing
    labels = sample.labels if len(sample.boxes) else boxes.labels.new_full((1,), -1)
    iou = iou_3d(operator_boxes(boxes.rows), operator_boxes(truth))  # (N, M) float64
    iou, object_ = torch.where(boxes.labels[:, None] == labels, iou, 0).max(dim=1)

    overlap = iou.cpu()
    is_near, is_hard = overlap >= settings.foreground_iou, overlap >= settings.hard_iou
    near, hard, easy = (found.nonzero()[:, 0] for found in (is_near, is_hard & ~is_near, ~is_hard & ~is_near))
    num_near = min(round(count * settings.foreground), len(near)) if len(hard) + len(easy) else 0
    num_far = count - num_near
    if len(hard) + len(easy) == 0:
        picked = [_again(near, count, generator)]
    else:
        num_hard = min(int(num_far * settings.hard), len(hard)) if len(easy) else num_far
        once = near[torch.randperm(len(near), generator=generator)[:num_near]]
        picked = [once, _again(hard, num_hard, generator), _again(easy, num_far - num_hard, generator)]
    index = torch.cat(picked).to(device)
    return Proposals(boxes.rows[index], boxes.scores[index], truth[object_[index]], iou[index].float())


def residual_to(rows: Tensor, truth: Tensor) -> Tensor:
    """(N, 9) what `perception.detection.second_stage.moved` must be given to turn boxes (N, 9) into the truth (N, 9): the shift x, y in the
    axes of the box, then z, w, l, h, r and velocity. r is within pi / 2: a box the wrong way round stays so. An unknown velocity is NaN.
    """
    difference = truth - rows
    c, s = rows[:, 8].cos(), rows[:, 8].sin()
    x, y = difference[:, 0], difference[:, 1]
    shift = torch.stack([x * c - y * s, x * s + y * c], dim=1)
    turn = torch.remainder(difference[:, 8:] + torch.pi / 2, torch.pi) - torch.pi / 2
    return torch.cat([shift, difference[:, 2:6], turn, difference[:, 6:8]], dim=1)


def _again(index: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """count of the indices, drawn with replacement."""
    return index[torch.randint(len(index), (count,), generator=generator)] if count else index[:0]
