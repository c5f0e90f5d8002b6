"""A network whose tensors all have shapes that are known before the data: nothing between points and boxes waits for a count.

What has no place is marked: points NaN, rows of voxels and sites with coords -1, cells -1, boxes with a NaN score. The result is that of
`InferenceNetwork` on the same clouds, unless a limit was too low, which is noted (see `RowLimits`).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perception.detection.decode import Boxes, Decoder, decoded
from perception.detection.encoders import SparseEncoder
from perception.detection.inference import InferenceNetwork
from perception.detection.pillar_stem import PillarStem
from perception.detection.row_limits import RowLimits
from perception.detection.second_stage import SecondStage, refined_rows
from perception.detection.voxels import VoxelFeatures

_ALL_CANDIDATES = 1024  # to begin with, where suppression has no limit of its own


class FixedBoxes(NamedTuple):
    """Boxes of a batch, of each task the best first and nothing behind the last.

    rows (B, tasks, max_out, 9) float32, scores and labels (B, tasks, max_out) float32 and int64, num_boxes (B, tasks) int64
    """

    rows: Tensor
    scores: Tensor
    labels: Tensor
    num_boxes: Tensor


class FixedNetwork:
    """The parts of an `InferenceNetwork`, run with fixed shapes; see `supports`."""

    def __init__(self, network: InferenceNetwork) -> None:
        self.network = network

    LACKS = "double_flip, a sparse encoder of pillars, predicted IoUs, groups of classes and spconv's convolutions"

    @staticmethod
    def supports(network: InferenceNetwork) -> bool:
        """Whether it does without what is in `LACKS`."""
        encoder = network.encoder
        is_known = isinstance(encoder, PillarStem) or (isinstance(encoder, SparseEncoder) and encoder.backend == "native")
        decoder = network.decoder
        return is_known and not network.double_flip and not decoder.iou_alpha and not decoder.groups

    def __call__(self, points: Tensor, limits: RowLimits) -> Tensor:
        """points (B, N, columns) float32, rows of NaN behind each cloud, to everything in one tensor for one copy: see `unpacked`."""
        limits.noted.clear()
        neck = self.network.neck(self.birds_eye(points, limits))
        return _packed(self.boxes(neck, *self.network.lazy_head.heatmaps(neck), limits), limits)

    def birds_eye(self, points: Tensor, limits: RowLimits) -> Tensor:
        """The first half of the way: points to the bird's-eye map (B, C, H, W)."""
        return self.network.birds_eye(self.features(self.voxels(points, limits)), limits)

    def voxels(self, points: Tensor, limits: RowLimits) -> Any:
        """Its first step: what the reader sorts the points into."""
        return self.network.reader.voxelize(list(points), None, limits)

    def features(self, voxels: Any) -> VoxelFeatures:
        """Its second."""
        return self.network.in_dtype(self.network.reader(voxels))

    def boxes(self, neck: Tensor, shared: Tensor, logits: Sequence[Tensor], limits: RowLimits) -> FixedBoxes:
        """The end: the neck's map, the head's shared one and its heat maps to boxes."""
        net = self.network
        scores, labels, cells, num_candidates = self._candidates(logits, limits)
        branches = net.lazy_head.branches_at(shared, cells)
        rows = decoded(branches.flatten(0, 2), cells.clamp(min=0).flatten(), shared.shape[3], net.decoder.grid).view(*cells.shape, 9)
        boxes = self._kept(rows, self._taking_part(rows, scores, num_candidates, limits), labels)
        if net.second_stage is None:
            return boxes
        return self._refined(net.second_stage, shared if net.second_reads == "head" else neck, boxes)

    def _candidates(self, logits: Sequence[Tensor], limits: RowLimits) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scores, labels and cells (B, tasks, K) of the best cells above the threshold, the best first, equal ones by cell; NaN, any label
        and -1 behind the last. And how many there are above the threshold, (B, tasks)."""
        decoder, maps, labels, first = self.network.decoder, [], [], 0
        for task in logits:
            best = task.float().sigmoid().flatten(2).max(dim=1)  # the first of equal classes
            maps.append(best.values)
            labels.append(best.indices + first)
            first += task.shape[1]
        scores = torch.stack(maps, dim=1)  # (B, tasks, H * W)
        num_cells = scores.shape[2]
        count = limits.rows("candidates", guess=decoder.nms.max_in or _ALL_CANDIDATES, most=num_cells)
        # A positive float32 and its bits are in the same order; with the cell below, no two keys are equal and no order is left to chance.
        after = num_cells - 1 - torch.arange(num_cells, device=scores.device)
        is_candidate = scores > decoder.score_threshold
        key = torch.where(is_candidate, (scores.view(torch.int32).long() << 32) + after, -1).topk(count, dim=2).values
        cells = torch.where(key >= 0, num_cells - 1 - (key & 0xFFFFFFFF), -1)
        found = (key >> 32).int().view(torch.float32)  # the bits of -1 are those of a NaN
        return found, torch.stack(labels, dim=1).gather(2, cells.clamp(min=0)), cells, is_candidate.sum(dim=2)

    def _taking_part(self, rows: Tensor, scores: Tensor, num_candidates: Tensor, limits: RowLimits) -> Tensor:
        """The scores (B, tasks, K) with NaN for boxes that do not go into suppression: beyond the limits, or more than it takes."""
        decoder = self.network.decoder
        most, is_inside = decoder.nms.max_in, decoder.is_inside(rows) & (scores == scores)
        needed = num_candidates
        if most is not None:
            rank = is_inside.cumsum(dim=2)  # (B, tasks, K)
            place = torch.arange(1, rank.shape[2] + 1, device=rank.device)
            last = torch.where(is_inside & (rank == most), place, 0).amax(dim=2)  # 0 where there are fewer than `most`
            is_inside, needed = is_inside & (rank <= most), torch.where(last > 0, last, needed)
        limits.note("candidates", needed.amax())
        return torch.where(is_inside, scores, torch.nan)

    def _kept(self, rows: Tensor, scores: Tensor, labels: Tensor) -> FixedBoxes:
        """rows (B, tasks, K, 9), scores and labels (B, tasks, K), to the boxes that suppression keeps. In each task the best come first
        already, so those kept only have to move together."""
        nms, (samples, tasks, places), size = self.network.decoder.nms, scores.shape, scores.numel()
        kept = nms.fixed(rows, scores)
        is_kept = torch.zeros(size + 1, dtype=torch.bool, device=rows.device)  # the last one takes what is none
        is_kept = is_kept.scatter_(0, torch.where(kept < 0, size, kept), True)[:size].view(samples * tasks, places)
        task = torch.arange(samples * tasks, device=rows.device)[:, None]
        slots = samples * tasks * nms.max_out
        slot = torch.where(is_kept, task * nms.max_out + is_kept.cumsum(dim=1) - 1, slots).flatten()
        source = torch.zeros(slots + 1, dtype=torch.int64, device=rows.device)
        source = source.scatter_(0, slot, torch.arange(size, device=rows.device))[:slots]
        count = is_kept.sum(dim=1)
        is_box = (torch.arange(nms.max_out, device=rows.device) < count[:, None]).view(samples, tasks, nms.max_out)
        rows, scores, labels = (column.flatten(0, 2)[source].unflatten(0, is_box.shape) for column in (rows, scores, labels))
        rows, scores = torch.where(is_box[..., None], rows, 0), torch.where(is_box, scores, 0)
        return FixedBoxes(rows, scores, labels, count.view(samples, tasks))

    def _refined(self, stage: SecondStage, feature_map: Tensor, boxes: FixedBoxes) -> FixedBoxes:
        shape = boxes.scores.shape
        sample = torch.arange(shape[0], device=feature_map.device)[:, None].expand(-1, shape[1] * shape[2]).flatten()
        rows, scores = boxes.rows.flatten(0, 2), boxes.scores.flatten()
        rows, scores = refined_rows(stage, feature_map, rows, scores, sample, self.network.decoder.grid)
        return boxes._replace(rows=rows.view(*shape, 9), scores=scores.view(shape))


def _packed(boxes: FixedBoxes, limits: RowLimits) -> Tensor:
    """All of it as one row of float32, in which every number is exact: labels, counts and rows below 2^24."""
    needed = torch.stack(list(limits.noted.values()))
    return torch.cat([part.flatten().float() for part in (*boxes, needed)])


def unpacked(packed: Tensor, samples: int, decoder: Decoder, names: Sequence[str]) -> tuple[list[Boxes], dict[str, int]]:
    """packed: on the CPU. The boxes of each sample, and what was needed by the names of `RowLimits.noted`."""
    shape = (samples, len(decoder.num_classes), decoder.nms.max_out)
    size = math.prod(shape)
    rows, scores, labels, count, needed = packed.split([9 * size, size, size, shape[0] * shape[1], len(names)])
    rows, scores, labels, count = rows.view(*shape, 9), scores.view(shape), labels.view(shape).long(), count.view(*shape[:2], 1)
    is_box = torch.arange(shape[2]) < count
    boxes = [Boxes(rows[i][is_box[i]], scores[i][is_box[i]], labels[i][is_box[i]]) for i in range(samples)]
    return boxes, {name: int(number) for name, number in zip(names, needed.tolist(), strict=True)}
