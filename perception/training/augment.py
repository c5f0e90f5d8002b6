"""One sample changed at random: seen from another place, by another lidar, with other objects. All on the sample's own device."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from perception.core.errors import UsageError
from perception.detection.config import CenterPointSettings
from perception.training.augment_settings import AugmentSettings, IntensitySettings
from perception.training.boxes import AGE, count_key_returns, scale_objects
from perception.training.object_bank import ObjectBank, classes_of, paste
from perception.training.other_lidars import SweepLimit, both, kept_points
from perception.training.placement import draw_placement
from perception.training.sample import Sample

_INTENSITY = 3  # column of the points


def open_augmentation(
    settings: AugmentSettings, detector: CenterPointSettings, device: torch.device | str
) -> Callable[[Sample, np.random.Generator, float], Sample]:
    """`augment` for a network's samples on a device, its object bank loaded: sample, generator and progress to sample.

    Raises UsageError for a bank of another frame and for a class that the bank has not, DataError for a file that is no bank.
    """
    bank = None
    if (pasting := settings.bank) is not None:
        bank = ObjectBank.load(
            pasting.file, classes=classes_of(detector), frame=detector.frame, min_points=pasting.min_points, device=device
        )
        for name in pasting.counts:
            bank.classes.index(name)
    return lambda sample, rng, progress: augment(sample, settings, rng, bank, progress)


@torch.no_grad()
def augment(
    sample: Sample, settings: AugmentSettings, rng: np.random.Generator, bank: ObjectBank | None = None, progress: float = 0.0
) -> Sample:
    """The sample as another scene; the given one is left as it is.

    rng       decides everything: the same state gives the same sample on the same kind of device
    bank      of `settings.bank`, on the sample's device
    progress  share of the training that is done, 0 to 1

    In this order: objects of the bank pasted; sweeps, beams, points and sectors lost; objects scaled one by one; returns of the key sweep
    in each box counted anew, and boxes dropped that have too few; the scene flipped, turned, scaled, shifted and tilted as a whole (one
    matrix, on points, boxes and origin alike); intensity; noise; shuffled. Truth follows: corners of the boxes move like points
    (but for the tilt: boxes stay upright).
    Raises UsageError where `settings.bank` asks for a bank and none is given, DataError where the bank's points have other columns.
    """
    points, boxes, labels, num_points = sample.points, sample.boxes, sample.labels, sample.num_points
    generator = torch.Generator(device=points.device)
    generator.manual_seed(int(rng.integers(2**62)))
    kept = None
    if settings.bank is not None and progress < settings.bank.fade_from:
        if bank is None:
            raise UsageError(f"augment.bank: expected the object bank {settings.bank.file}, got none; load it with ObjectBank.load")
        points, boxes, labels, kept = paste(points, boxes, labels, bank, settings.bank, rng)
    xyz, age = points[:, :3].t().contiguous(), points[:, AGE].contiguous()  # (3, N), (N,): several times quicker than rows of five
    if len(points):
        kept = both(kept, kept_points(xyz, sample.origin, settings, rng, generator))
        if settings.sweeps is not None:
            limit = SweepLimit(age, settings.sweeps, rng)
            boxes, kept = limit.boxes(boxes), both(kept, limit.kept())
    is_changed = kept is not None or points is not sample.points
    if (rows := _rows(len(points), kept, generator if settings.shuffle else None)) is None:
        points = points.clone()
    else:
        points, xyz, age = points.index_select(0, rows), xyz.index_select(1, rows), age.index_select(0, rows)
    if settings.object_scale != (1.0, 1.0) and len(boxes):
        xyz, boxes, is_changed = *scale_objects(xyz, boxes, rng.uniform(*settings.object_scale, len(boxes))), True
    if is_changed:
        num_points = count_key_returns(xyz, age, boxes)
    if len(boxes) and (is_changed or settings.min_points > 1):
        enough = (num_points >= settings.min_points).nonzero().squeeze(1)
        boxes, labels, num_points = (part.index_select(0, enough) for part in (boxes, labels, num_points))
    placement, origin = draw_placement(settings, rng), sample.origin
    if not placement.changes_nothing:
        xyz, boxes, origin = placement.points(xyz), placement.boxes(boxes), placement.points(origin[:, None])[:, 0]
    if settings.jitter:
        xyz = torch.randn(xyz.shape, generator=generator, device=xyz.device).mul_(settings.jitter).add_(xyz)
    points[:, :3] = xyz.t()
    if settings.intensity is not None:
        points[:, _INTENSITY] = other_intensity(points[:, _INTENSITY], settings.intensity, rng)
    return Sample(sample.token, points, boxes, labels, num_points, origin)


def other_intensity(intensity: Tensor, settings: IntensitySettings, rng: np.random.Generator) -> Tensor:
    """Intensities 0..255 as a lidar with another scale gives them."""
    gain, gamma = np.exp(rng.uniform(*np.log(settings.gain))), np.exp(rng.uniform(*np.log(settings.gamma)))
    if rng.random() < settings.zero:
        return torch.zeros_like(intensity)
    return (intensity.clamp(min=0) / 255).pow_(float(gamma)).mul_(255 * float(gain)).clamp_(max=255)


def _rows(num_points: int, kept: Tensor | None, shuffler: torch.Generator | None) -> Tensor | None:
    """Which points stay, shuffled where there is a generator for it; None for all in their order. The host waits to hear how many."""
    rows = None if kept is None else kept.nonzero().squeeze(1)
    if shuffler is None:
        return rows
    count = num_points if rows is None else len(rows)
    order = torch.randperm(count, generator=shuffler, device=shuffler.device)
    return order if rows is None else rows.index_select(0, order)
