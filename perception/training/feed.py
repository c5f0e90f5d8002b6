"""What a training step gets to see: batches of samples by number.

    with closing(open_feed(settings, detector, device="cuda", batch_size=32, seed=0)) as feed:
        for step in range(1000):
            samples = feed.batch(step)

Recordings and folders of clips are shuffled anew in each epoch (`EpochFeed`). Simulated clips are kept on the device and drawn again and
again, for a GPU trains many times faster than a CPU simulates (`PoolFeed`, and `ArrivalFeed` for who cannot wait).
"""

import math
from typing import Protocol

import numpy as np
import torch

from perception.core.errors import UsageError
from perception.detection.config import CenterPointSettings, GridSettings
from perception.training.data_settings import DataSettings, SimulationSettings
from perception.training.epoch_feed import EpochFeed, balanced_order
from perception.training.object_bank import classes_of
from perception.training.plan import Plan
from perception.training.pool import ClipPool
from perception.training.pool_feed import ArrivalFeed, PoolFeed
from perception.training.sample import Sample
from perception.training.simulation import SimulatedStreets
from perception.training.sources import open_source
from perception.training.virtual_points import expect_instances


class Feed(Protocol):
    """Batches by number.

    steps_per_epoch  batches in which every sample comes once; None where samples never end
    wait_seconds     that callers of `batch` have waited for data to be read or simulated, so far
    """

    steps_per_epoch: int | None
    wait_seconds: float

    def batch(self, step: int, /) -> list[Sample]:
        """This rank's samples of a batch, without augmentation, on the device. Their tensors may be shared: write into none of them.

        Cheap for numbers that follow each other; any other one is a new start, which reads or simulates again what it needs.
        Raises what reading or simulating raises; an error nobody expected names the sample or scene.
        """
        ...

    def close(self) -> None:
        """End the processes that work ahead, and forget what is kept."""
        ...


def open_feed(
    settings: DataSettings,
    detector: CenterPointSettings,
    *,
    device: torch.device | str,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    first_step: int = 0,
    smallest_scale: float = 1.0,
) -> Feed:
    """The samples that settings name, for a network, in batches.

    device          where samples are wanted
    batch_size      of all ranks together: rank r gets samples r, r + world_size, ... of it, so that it is the same for any number of ranks
    first_step      the batch where training begins or goes on: processes start on its data at once
    smallest_scale  to which augmentation shrinks the world, which brings what is farther off into the grid
    Raises UsageError for numbers that do not fit each other, for settings without samples, for a network of virtual points and a source
    without (or the other way round), and for a network that reads other columns than these or x, y, z, intensity and age.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank: expected 0 to {world_size - 1}, as there are {world_size} processes, got {rank}")
    if batch_size < 1 or batch_size % world_size:
        raise UsageError(f"batch_size: expected a multiple of the number of processes, {world_size}, got {batch_size}")
    if detector.points != "nuscenes":
        raise UsageError("detector: expected one that reads x, y, z, intensity and age; samples have no other columns")
    expect_instances(settings.source, detector)
    classes = classes_of(detector)
    plan, source = Plan(batch_size, rank, world_size, seed, first_step), settings.source
    if isinstance(source, SimulationSettings):
        reach = _radius(detector.grid) / min(smallest_scale, 1.0)
        streets = SimulatedStreets(seed, tuple(source.lidars.items()), source.varied, source.density, reach, source.balanced)
        pool = ClipPool(classes, detector.frame, device)
        return (ArrivalFeed if source.fresh_per_step == "auto" else PoolFeed)(source, streets, pool, plan, settings.workers)
    samples = open_source(source, frame=detector.frame, sweeps=detector.sweeps, window=detector.window)
    order = balanced_order(samples, classes, seed) if source.class_balanced else np.arange(len(samples))
    return EpochFeed(samples, order, classes, detector.frame, plan, settings.workers, device)


def _radius(grid: GridSettings) -> float:
    """Metres from the origin beyond which no point is in the grid, whichever way the world is turned."""
    return math.hypot(*(max(-grid.lower[k], grid.upper[k]) for k in (0, 1)))
