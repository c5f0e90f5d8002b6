"""What other lidars would not have seen: sweeps, beams, single points and sectors, as one mask of the points of a batch."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from perception.training.augment_settings import AugmentSettings, BeamSettings, PointDropSettings, SectorSettings, SweepSettings
from perception.training.point_noise import evenly

_SPREAD = 4096  # places per sample in which extremes are gathered: a GPU's threads would wait for each other at one
_NEVER = 2.0  # a cosine that no angle has


class OtherLidar(NamedTuple):
    """One sample's lidar, drawn on the host.

    numbers     (8,) float32, the rows of `lost_points`
    lacks_beam  (K,) bool, of bins of elevation; K is the same for all samples
    loses       whether it loses anything at all
    """

    numbers: np.ndarray
    lacks_beam: np.ndarray
    loses: bool


def draw_lidar(settings: AugmentSettings, rng: np.random.Generator) -> OtherLidar:
    """One that loses what it happens to lose, sweeps left aside: see `SweepSettings`."""
    has_beams, drops, hides = (_happens(part, rng) for part in (settings.beams, settings.point_drop, settings.sector))
    spacing, phase, lacks_beam = 1.0, 0.0, np.zeros(_num_bins(settings.beams), bool)
    if has_beams and settings.beams is not None:
        spacing, phase, lacks_beam = _draw_beams(settings.beams, len(lacks_beam), rng)
    near = far = 0.0
    if drops and settings.point_drop is not None:
        near, far = rng.uniform(*settings.point_drop.near), rng.uniform(*settings.point_drop.far)
    sector = (1.0, 0.0, _NEVER, 0.0)
    if hides and settings.sector is not None:
        azimuth, half = rng.uniform(-math.pi, math.pi), rng.uniform(*settings.sector.width) / 2
        sector = (math.cos(azimuth), math.sin(azimuth), math.cos(half), rng.uniform(*settings.sector.distance))
    numbers = np.array([spacing, phase, near, far - near, *sector], np.float32)
    return OtherLidar(numbers, lacks_beam, has_beams or drops or hides)


def lost_points(xyz: Tensor, numbers: Tensor, lacks_beam: Tensor, sample: Tensor, bits: Tensor, settings: AugmentSettings) -> Tensor | None:
    """(N,) bool, whether the lidar of its sample loses a point; None where the settings have no such part.

    xyz         (3, N) metres from the lidar
    numbers     (8, N) or (8, 1), `OtherLidar.numbers` of its sample: angle between beams and phase; share lost near and how much more far;
                cosine and sine of a hidden sector's middle, cosine of half its width, distance where it begins
    lacks_beam  (B, K)
    sample      (N,) int32
    bits        (N,) int32, random
    A point without numbers (NaN) is kept by all but the beams.
    """
    x, y, z = xyz.unbind()
    spacing, phase, near, more, cosine, sine, width, begin = numbers.unbind()
    distance = (x * x).addcmul_(y, y).sqrt_()
    masks = []
    if settings.beams is not None:
        # float64, in which the roundings of different processors do not come to the border of a bin
        bins = torch.atan2(z.double(), distance.double()).add_(math.pi / 2).div_(spacing).add_(phase).int()
        bins = bins.clamp_(0, lacks_beam.shape[1] - 1).add_(sample, alpha=lacks_beam.shape[1])  # clamped: NaN becomes any integer
        masks.append(lacks_beam.flatten().index_select(0, bins))
    if settings.point_drop is not None:
        share = (distance / settings.point_drop.distance).clamp_(max=1).mul_(more).add_(near)
        masks.append(evenly(bits) < share)
    if settings.sector is not None:
        masks.append(((x * cosine).addcmul_(y, sine) > distance * width) & (distance > begin))
    return any_of(masks)


class SweepLimits(NamedTuple):
    """What `limit_sweeps` finds: is_lost (N,) bool and, for each sample, whether its velocities are known (B,) bool."""

    is_lost: Tensor
    has_velocity: Tensor


def draw_sweeps(settings: SweepSettings, rng: np.random.Generator) -> int:
    """How many sweeps a sample keeps."""
    return 1 if rng.random() < settings.key_only else int(rng.integers(settings.count[0], settings.count[1] + 1))


def limit_sweeps(age: Tensor, sample: Tensor, count: Tensor, settings: SweepSettings) -> SweepLimits:
    """What is older than the youngest `count` (B,) float32 sweeps of its sample: age (N,) seconds, sample (N,) int32.

    Told by ages alone: sweeps are as far apart as the youngest earlier one is old. Velocities are known where enough sweeps were there and
    are left. Nothing here waits for the device.
    """
    num_samples = len(count)
    place = (torch.arange(len(age), dtype=torch.int32, device=age.device) & (_SPREAD - 1)).add_(sample, alpha=_SPREAD).long()
    earlier = age.masked_fill(age <= 0, math.inf)
    period = age.new_full((num_samples * _SPREAD,), math.inf).scatter_reduce_(0, place, earlier, "amin").view(num_samples, -1).amin(dim=1)
    oldest = age.new_zeros((num_samples * _SPREAD,)).scatter_reduce_(0, place, age, "amax").view(num_samples, -1).amax(dim=1)
    limit = period * (count - 0.5)
    has_velocity = count >= settings.velocity_from
    if settings.velocity_from > 1:
        has_velocity &= oldest >= period * (settings.velocity_from - 1.5)
    return SweepLimits(age >= limit.index_select(0, sample), has_velocity)


def any_of(masks: Sequence[Tensor]) -> Tensor | None:
    """Where one of the masks holds; None for none."""
    together = masks[0] if masks else None
    for mask in masks[1:]:
        together = mask if together is None else together | mask
    return together


def _happens(part: BeamSettings | PointDropSettings | SectorSettings | None, rng: np.random.Generator) -> bool:
    return part is not None and rng.random() < part.chance


def _num_bins(settings: BeamSettings | None) -> int:
    return 1 if settings is None else int(math.pi / settings.spacing[0]) + 2


def _draw_beams(settings: BeamSettings, num_bins: int, rng: np.random.Generator) -> tuple[float, float, np.ndarray]:
    """Spacing, phase and which of the bins are lost; those beyond the zenith are never asked for."""
    spacing, phase = rng.uniform(*settings.spacing), rng.random()
    if rng.random() < settings.regular:
        step = int(rng.integers(settings.keep_every[0], settings.keep_every[1] + 1))
        return spacing, phase, (np.arange(num_bins) + rng.integers(step)) % step != 0
    return spacing, phase, rng.random(num_bins) < rng.uniform(*settings.lost)
