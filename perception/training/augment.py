"""Samples changed at random: seen from another place, by another lidar, with other objects. A whole batch at once, on its own device.

A GPU is quick with millions of points, but each operation costs its host some 25 us: so none of them is repeated for each sample. What is
drawn on the host for all samples travels in one copy, and the host waits twice, for the number of points and of boxes that are left.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from perception.core.errors import UsageError
from perception.detection.config import CenterPointSettings
from perception.training.augment_settings import AugmentSettings
from perception.training.boxes import AGE, count_key_returns, scale_objects, thinned_points
from perception.training.changes import Changes, draw_change, on_device
from perception.training.object_bank import ObjectBank, classes_of, paste
from perception.training.other_lidars import any_of, limit_sweeps, lost_points
from perception.training.placement import may_place, placed_boxes, placed_points
from perception.training.point_noise import normal_vectors, point_bits
from perception.training.sample import Sample
from perception.training.sample_batch import SampleBatch
from perception.training.upload import of_each
from perception.training.virtual_points import RETURN, VIRTUAL, is_kind

_INTENSITY = 3  # column of the points
Augmentation = Callable[[Sequence[Sample], Sequence[np.random.Generator], float], list[Sample]]


def open_augmentation(settings: AugmentSettings, detector: CenterPointSettings, device: torch.device | str) -> Augmentation:
    """`augment_batch` for a network's samples on a device, its object bank loaded: samples, generators and progress to samples.

    Raises UsageError for a bank of another frame and for a class that the bank has not, DataError for a file that is no bank.
    """
    bank = None
    if (pasting := settings.bank) is not None:
        bank = ObjectBank.load(
            pasting.file, classes=classes_of(detector), frame=detector.frame, min_points=pasting.min_points, device=device
        )
        for name in pasting.counts:
            bank.classes.index(name)

    def change(samples: Sequence[Sample], rngs: Sequence[np.random.Generator], progress: float) -> list[Sample]:
        if torch.device(device).type == "cpu":  # the same one by one, which stays in the cache
            return [augment(sample, settings, rng, bank, progress) for sample, rng in zip(samples, rngs, strict=True)]
        return augment_batch(samples, settings, rngs, bank, progress)

    return change


def augment(
    sample: Sample, settings: AugmentSettings, rng: np.random.Generator, bank: ObjectBank | None = None, progress: float = 0.0
) -> Sample:
    """One sample as another scene: a batch of one, see `augment_batch`."""
    return augment_batch([sample], settings, [rng], bank, progress)[0]


@torch.no_grad()
def augment_batch(
    samples: Sequence[Sample],
    settings: AugmentSettings,
    rngs: Sequence[np.random.Generator],
    bank: ObjectBank | None = None,
    progress: float = 0.0,
) -> list[Sample]:
    """The samples as other scenes; the given ones are left as they are. Points, boxes and so on of the result lie one behind the other.

    rngs      decide everything, each its sample: the same state gives the same sample on the same kind of device, whatever else there is
              in the batch
    bank      of `settings.bank`, on the samples' device
    progress  share of the training that is done, 0 to 1

    In this order: objects of the bank pasted; sweeps, beams, points, sectors and points of objects lost; points shuffled; objects scaled
    and stretched one by one; returns of the key sweep in each box counted anew, and boxes dropped that have too few; the scene flipped,
    turned, scaled, shifted and tilted as a whole (one matrix, on points, boxes and origin alike); intensity; noise. Truth follows: corners
    of the boxes move like points (but for the tilt: boxes stay upright). Of samples with virtual points all points move; returns and their
    painted copies, each for itself, are lost with beams, points, sectors and objects; only returns are counted and have an intensity.
    Raises UsageError where `settings.bank` asks for a bank and none is given, DataError where the bank's points have other columns.
    """
    batch, cleared, old_counts = SampleBatch.of(samples), None, [len(sample.boxes) for sample in samples]
    if settings.bank is not None and progress < settings.bank.fade_from:
        if bank is None:
            raise UsageError(f"augment.bank: expected the object bank {settings.bank.file}, got none; load it with ObjectBank.load")
        batch, cleared = paste(batch, bank, settings.bank, rngs)
    boxes_of = zip(rngs, batch.box_counts, old_counts, strict=True)
    changes = on_device([draw_change(settings, rng, count, is_pasted=count > old) for rng, count, old in boxes_of], batch)

    boxes, num_points, origin, sample = batch.boxes, batch.num_points, batch.origin, changes.sample
    every_row = torch.arange(len(sample), dtype=torch.int32, device=sample.device)
    asks_bits = settings.point_drop is not None or settings.object_drop is not None or settings.jitter
    bits = point_bits(every_row, of_each(changes.counters[:1], sample)[0]) if asks_bits else every_row
    lost, has_velocity = _lost(batch, changes, settings, bits)
    if has_velocity is not None:
        boxes = _with_velocity(boxes, has_velocity.index_select(0, changes.sample_of_box))
    rows, kept_ends = _rows(any_of([*lost] if cleared is None else [cleared, *lost]), every_row, changes, settings)
    if rows is None:
        points = batch.points.clone()
    else:
        points, sample, bits = (part.index_select(0, rows) for part in (batch.points, sample, bits))
    xyz, age = points[:, :3].t().contiguous(), points[:, AGE].contiguous()  # (3, N), (N,): several times quicker than rows of five

    placing, is_return = points, is_kind(points, RETURN)
    if settings.scales_objects:
        xyz, boxes = scale_objects(xyz, points, sample, boxes, changes.sample_of_box, changes.scales)
        placing = xyz.t().contiguous()
    if changes.counts:
        is_key = age == 0 if is_return is None else (age == 0) & is_return
        counted = count_key_returns(placing, is_key, sample, boxes, changes.sample_of_box)
        num_points = torch.where(changes.is_old, num_points, counted)
    is_enough = None
    if changes.counts or settings.min_points > 1:
        is_enough = num_points >= settings.min_points
        is_enough = is_enough if settings.min_points > 1 else is_enough | changes.is_old
    numbers = of_each(changes.numbers, sample)  # (21, N)
    if may_place(settings):
        xyz = placed_points(xyz, numbers)
        boxes = placed_boxes(boxes, of_each(changes.numbers[:19], changes.sample_of_box))
        origin = placed_points(origin.t(), changes.numbers).t().contiguous()
    if settings.jitter:
        xyz = normal_vectors(bits).mul_(settings.jitter).add_(xyz)
    points[:, :3] = xyz.t()
    if settings.intensity is not None:
        others = other_intensity(points[:, _INTENSITY], numbers[19], numbers[20])
        points[:, _INTENSITY] = others if is_return is None else torch.where(is_return, others, points[:, _INTENSITY])
    moved = replace(batch, points=points, boxes=boxes, num_points=num_points, origin=origin)
    return _without(moved, kept_ends, is_enough).samples()


def other_intensity(intensity: Tensor, gain: Tensor, gamma: Tensor) -> Tensor:
    """Intensities 0..255 (N,) as lidars with other scales give them, in float64: gain and gamma (N,) or (1,)."""
    # float64, because a CPU rounds float32 powers in more than one way, by their place in memory
    return (intensity.clamp(min=0) / 255).double().pow_(gamma).mul_(gain * 255).clamp_(max=255)


def _lost(batch: SampleBatch, changes: Changes, settings: AugmentSettings, bits: Tensor) -> tuple[list[Tensor], Tensor | None]:
    """Masks (N,) of points that are lost, and for each sample whether its velocities are known (B,); None: they stay."""
    lost, has_velocity, sample = [], None, changes.sample
    if changes.loses:
        xyz = batch.points[:, :3].t() - of_each(batch.origin.t(), sample)
        mask = lost_points(xyz.contiguous(), of_each(changes.lidars, sample), changes.lacks_beam, sample, bits, settings)
        lost += [] if mask is None else [mask]
    if settings.object_drop is not None:
        lost.append(thinned_points(batch.points, sample, batch.boxes, changes.sample_of_box, changes.thinned, bits))
    if lost and (is_virtual := is_kind(batch.points, VIRTUAL)) is not None:
        lost = [mask & ~is_virtual for mask in lost]
    if settings.sweeps is not None:
        is_lost, has_velocity = limit_sweeps(batch.points[:, AGE].contiguous(), sample, changes.num_sweeps, settings.sweeps)
        lost.append(is_lost)
    return lost, has_velocity


def _with_velocity(boxes: Tensor, is_known: Tensor) -> Tensor:
    """det3d rows (M, 9) whose velocities are unknown where they are not known (M,)."""
    velocity = torch.where(is_known[:, None], boxes[:, 6:8], torch.nan)
    return torch.cat([boxes[:, :6], velocity, boxes[:, 8:]], dim=1)


def _rows(lost: Tensor | None, every_row: Tensor, changes: Changes, settings: AugmentSettings) -> tuple[Tensor | None, Tensor | None]:
    """Which points stay, shuffled in each sample where asked for, or None for all in their order, for whose number the host waits; and the
    end of each sample among them (B,), or None where all stay.
    """
    rows = kept_ends = None
    if lost is not None:
        rows = (~lost).nonzero().squeeze(1)
        kept_ends = torch.searchsorted(rows, changes.ends)
    if settings.shuffle:
        rows = every_row if rows is None else rows
        sample = changes.sample.index_select(0, rows)
        key = point_bits(rows.int(), of_each(changes.counters[1:], sample)[0])
        rows = rows.index_select(0, (sample.long() << 33).add_(key).argsort(stable=True))
    return rows, kept_ends


def _without(batch: SampleBatch, kept_ends: Tensor | None, is_enough: Tensor | None) -> SampleBatch:
    """A batch whose points are chosen already, without the boxes that have too few. The host waits to hear which."""
    told = [part for part in (kept_ends, is_enough) if part is not None]
    if not told:
        return batch
    numbers = np.array(torch.cat(told).tolist(), np.int64)
    if kept_ends is not None:
        ends, numbers = numbers[: len(kept_ends)], numbers[len(kept_ends) :]
        batch = replace(batch, point_counts=np.diff(ends, prepend=0).tolist())
    if is_enough is None or numbers.all():
        return batch
    count = int(numbers.sum())
    order = is_enough.int().argsort(stable=True, descending=True)[:count]  # rather than `nonzero`, for which the host would wait again
    counts = [int(part.sum()) for part in np.split(numbers, np.cumsum(batch.box_counts)[:-1])]
    boxes, labels, num_points = (part.index_select(0, order) for part in (batch.boxes, batch.labels, batch.num_points))
    return replace(batch, boxes=boxes, labels=labels, num_points=num_points, box_counts=counts)
