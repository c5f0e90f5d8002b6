"""What is drawn for each sample of a batch on the host, and how it gets to the device: in one copy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perception.training.augment_settings import AugmentSettings, IntensitySettings
from perception.training.other_lidars import OtherLidar, draw_lidar, draw_sweeps
from perception.training.placement import Placement, draw_placement
from perception.training.point_noise import counters
from perception.training.sample_batch import SampleBatch
from perception.training.upload import uploaded


@dataclass(frozen=True, eq=False)
class Change:
    """What happens to one sample.

    seeds       of its points: of losses and noise, and of their order
    num_sweeps  that it keeps
    scales      (M, 3) of its objects' length, width, height
    thinned     (M,) share of its objects' points that is lost
    gain        of its intensities, 0 for none at all
    gamma       of its intensities
    is_counted  whether the returns in its boxes are counted anew
    """

    seeds: tuple[int, int]
    lidar: OtherLidar
    num_sweeps: int
    scales: np.ndarray
    thinned: np.ndarray
    placement: Placement
    gain: float
    gamma: float
    is_counted: bool


@dataclass(frozen=True, eq=False)
class Changes:
    """Those of a batch on its device: B samples, N points, M boxes.

    sample         (N,) int32 of each point
    sample_of_box  (M,) int32
    ends           (B,) int64: row behind the last point of each sample
    counters       (2, B) int32: see `point_noise`, of losses and noise, and of the order
    num_sweeps     (B,) float32
    lidars         (8, B) float32 `OtherLidar.numbers`
    lacks_beam     (B, K) bool
    numbers        (21, B) float32 `Placement.numbers`, gain, gamma
    scales         (M, 3) float32
    thinned        (M,) float32
    is_old         (M,) bool, whether returns are not counted anew
    loses, counts  whether any sample's lidar loses points, whether any's returns are counted
    """

    sample: Tensor
    sample_of_box: Tensor
    ends: Tensor
    counters: Tensor
    num_sweeps: Tensor
    lidars: Tensor
    lacks_beam: Tensor
    numbers: Tensor
    scales: Tensor
    thinned: Tensor
    is_old: Tensor
    loses: bool
    counts: bool


def draw_change(settings: AugmentSettings, rng: np.random.Generator, num_boxes: int, *, is_pasted: bool) -> Change:
    """For a sample with so many boxes; is_pasted: some of them come from an object bank."""
    seeds = int(rng.integers(2**32)), int(rng.integers(2**32))
    lidar = draw_lidar(settings, rng)
    num_sweeps = 0 if settings.sweeps is None else draw_sweeps(settings.sweeps, rng)
    scales = np.ones((num_boxes, 3))
    if settings.object_scale != (1.0, 1.0):
        scales *= rng.uniform(*settings.object_scale, (num_boxes, 1))
    for axis, factors in enumerate(settings.object_stretch):
        if factors != (1.0, 1.0):
            scales[:, axis] *= rng.uniform(*factors, num_boxes)
    thinned = np.zeros(num_boxes)
    if (thinning := settings.object_drop) is not None:
        thinned = np.where(rng.random(num_boxes) < thinning.chance, rng.uniform(*thinning.share, num_boxes), 0)
    placement = draw_placement(settings, rng)
    gain, gamma = (1.0, 1.0) if settings.intensity is None else _draw_intensity(settings.intensity, rng)
    is_counted = is_pasted or lidar.loses or settings.sweeps is not None or settings.object_drop is not None or settings.scales_objects
    return Change(seeds, lidar, num_sweeps, scales, thinned, placement, gain, gamma, is_counted)


def on_device(changes: Sequence[Change], batch: SampleBatch) -> Changes:
    """Those of a batch's samples, on its device, without waiting for it."""
    ends, seeds = np.cumsum(batch.point_counts), np.array([change.seeds for change in changes])
    starts = ends - batch.point_counts
    counts, *drawn = uploaded(
        [
            np.array(batch.point_counts, np.int32),
            np.repeat(np.arange(len(changes), dtype=np.int32), batch.box_counts),
            ends,
            np.stack([counters(seeds[:, k], starts) for k in (0, 1)]),
            np.array([change.num_sweeps for change in changes], np.float32),
            np.stack([change.lidar.numbers for change in changes], axis=1),
            np.stack([change.lidar.lacks_beam for change in changes]),
            np.stack([[*change.placement.numbers, change.gain, change.gamma] for change in changes], axis=1).astype(np.float32),
            np.concatenate([change.scales for change in changes]).astype(np.float32),
            np.concatenate([change.thinned for change in changes]).astype(np.float32),
            np.repeat([not change.is_counted for change in changes], batch.box_counts),
        ],
        batch.points.device,
    )
    sample = torch.repeat_interleave(counts, output_size=len(batch.points))  # the size is told so that the host need not wait for it
    return Changes(
        sample,
        *drawn,
        loses=any(change.lidar.loses for change in changes),
        counts=any(change.is_counted for change in changes),
    )


def _draw_intensity(settings: IntensitySettings, rng: np.random.Generator) -> tuple[float, float]:
    gain, gamma = np.exp(rng.uniform(*np.log(settings.gain))), np.exp(rng.uniform(*np.log(settings.gamma)))
    return (0.0 if rng.random() < settings.zero else float(gain)), float(gamma)
