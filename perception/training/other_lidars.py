"""What other lidars would not have seen: sweeps, beams, single points and sectors, as one mask of the points that are kept."""

import math

import numpy as np
import torch
from torch import Tensor

from perception.training.augment_settings import AugmentSettings, BeamSettings, PointDropSettings, SectorSettings, SweepSettings


def kept_points(
    xyz: Tensor, origin: Tensor, settings: AugmentSettings, rng: np.random.Generator, generator: torch.Generator
) -> Tensor | None:
    """(N,) bool, or None where all are kept: whether a lidar at `origin` (3,) that was drawn from `settings` has each point (3, N).

    Sweeps are left to `SweepLimit`. `generator` is on the device of the points.
    """
    beams = settings.beams if _happens(settings.beams, rng) else None
    drop = settings.point_drop if _happens(settings.point_drop, rng) else None
    sector = settings.sector if _happens(settings.sector, rng) else None
    if beams is None and drop is None and sector is None:
        return None
    x, y, z = xyz - origin[:, None]
    distance = torch.hypot(x, y)
    masks = []
    if beams is not None:
        masks.append(_has_beam(z, distance, beams, rng))
    if drop is not None:
        masks.append(_is_returned(distance, drop, rng, generator))
    if sector is not None:
        masks.append(_is_visible(x, y, distance, sector, rng))
    return both(*masks)


class SweepLimit:
    """How many sweeps a sample keeps, told by ages alone: sweeps are as far apart as the youngest earlier one is old.

    Nothing here waits for the device: ages stay where they are.
    """

    def __init__(self, age: Tensor, settings: SweepSettings, rng: np.random.Generator) -> None:
        """age (N,) seconds, at least one."""
        low, high = settings.count
        self.count = 1 if rng.random() < settings.key_only else int(rng.integers(low, high + 1))
        self._velocity_from, self._age = settings.velocity_from, age
        self._period = self._age.masked_fill(self._age <= 0, math.inf).amin()

    def kept(self) -> Tensor:
        """(N,) bool."""
        return self._age < self._period * (self.count - 0.5)

    def boxes(self, rows: Tensor) -> Tensor:
        """The det3d rows, of unknown velocity where too few sweeps are left to tell it (or were there)."""
        if self._velocity_from <= 1:
            return rows
        if self.count < self._velocity_from:
            velocity = torch.full_like(rows[:, 6:8], math.nan)
        else:
            velocity = rows[:, 6:8].masked_fill(self._age.amax() < self._period * (self._velocity_from - 1.5), math.nan)
        return torch.cat([rows[:, :6], velocity, rows[:, 8:]], dim=1)


def both(*masks: Tensor | None) -> Tensor | None:
    """Where all of the masks hold that are not None; None where all are."""
    found = [mask for mask in masks if mask is not None]
    if not found:
        return None
    together = found[0]
    for mask in found[1:]:
        together = together & mask
    return together


def _happens(part: BeamSettings | PointDropSettings | SectorSettings | None, rng: np.random.Generator) -> bool:
    return part is not None and rng.random() < part.chance


def _has_beam(height: Tensor, distance: Tensor, settings: BeamSettings, rng: np.random.Generator) -> Tensor:
    """height, distance (N,): of each point seen from the lidar, along z and along the ground."""
    spacing, phase = rng.uniform(*settings.spacing), rng.random()
    num_bins = int(math.pi / spacing) + 2
    if rng.random() < settings.regular:
        step = int(rng.integers(settings.keep_every[0], settings.keep_every[1] + 1))
        is_kept = (np.arange(num_bins) + rng.integers(step)) % step == 0
    else:
        is_kept = rng.random(num_bins) >= rng.uniform(*settings.lost)
    table = torch.from_numpy(is_kept).to(height.device, non_blocking=True)
    bins = torch.atan2(height, distance).add_(math.pi / 2).div_(spacing).add_(phase).int()
    return table.index_select(0, bins.clamp_(0, num_bins - 1))  # clamped: NaN becomes any integer


def _is_returned(distance: Tensor, settings: PointDropSettings, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
    near, far = rng.uniform(*settings.near), rng.uniform(*settings.far)
    lost = (distance * ((far - near) / settings.distance)).add_(near)
    lost.clamp_(min(near, far), max(near, far))
    return torch.rand(len(distance), generator=generator, device=distance.device) >= lost


def _is_visible(x: Tensor, y: Tensor, distance: Tensor, settings: SectorSettings, rng: np.random.Generator) -> Tensor:
    azimuth, half = rng.uniform(-math.pi, math.pi), rng.uniform(*settings.width) / 2
    along = (x * math.cos(azimuth)).add_(y, alpha=math.sin(azimuth))
    is_hidden = (along > distance * math.cos(half)) & (distance > rng.uniform(*settings.distance))
    return ~is_hidden
