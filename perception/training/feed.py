"""What a training step gets to see: batches of samples, the same in every run with the same seed.

    with open_feed(settings, detector, device="cuda", batch_size=32, seed=0) as feed:
        for step in range(1000):
            samples = feed.batch(step)

Recordings and folders of clips are shuffled anew in each epoch (`EpochFeed`). Simulated clips are kept on the device and drawn again and
again, for a GPU trains many times faster than a CPU simulates (`PoolFeed`, and `ArrivalFeed` for who cannot wait).
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from perception.core.classes import ClassSet
from perception.core.errors import UsageError
from perception.detection.config import CenterPointSettings
from perception.training.data_settings import DataSettings, SimulationSettings
from perception.training.packed import LabelledCloud, PackedClip
from perception.training.pool import ClipPool, placed, pooled
from perception.training.sample import Sample, sample_of
from perception.training.simulation import CLIPS_A_SCENE, SimulatedStreets
from perception.training.sources import Source, open_source
from perception.training.workers import Workers

_LARGEST_SCALE = 1.1  # to which augmentation may shrink the world: what is farther off cannot come into the grid
_SHUFFLE, _DRAW = 0, 1  # streams of random numbers


class Feed(Protocol):
    """Batches by step.

    steps_per_epoch  steps in which every sample comes once; None where samples never end
    wait_seconds     that callers of `batch` have waited for data to be read or simulated, so far
    """

    steps_per_epoch: int | None

    @property
    def wait_seconds(self) -> float: ...

    def batch(self, step: int) -> list[Sample]:
        """This rank's samples of a step, without augmentation, on the device. Their tensors may be shared: write into none of them.

        Cheap for steps that follow each other; any other step is a new start, which reads or simulates again what it needs.
        Raises what reading or simulating raises, with the number of the scene or sample.
        """
        ...

    def close(self) -> None:
        """End the processes that work ahead."""
        ...

    def __enter__(self) -> "Feed": ...

    def __exit__(self, *_: object) -> None: ...


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
) -> Feed:
    """The samples that settings name, for a network, in batches.

    device      where samples are wanted
    batch_size  of all ranks together: rank r gets samples r, r + world_size, ... of it, so that the batch is the same for any number of ranks
    first_step  where training begins or goes on: processes start on its data at once
    Raises UsageError for numbers that do not fit each other, for settings without samples, and for a network that reads other columns than
    x, y, z, intensity and age.
    """
    if not 0 <= rank < world_size or batch_size < 1 or batch_size % world_size:
        raise UsageError(f"batch_size: expected a multiple of the number of processes, {world_size}, got {batch_size} (rank {rank})")
    if detector.points != "nuscenes" or getattr(detector.reader, "virtual", False):
        raise UsageError("detector: expected one that reads x, y, z, intensity and age; samples have no other columns")
    classes = ClassSet(tuple(name for task in detector.head.tasks for name in task))
    share, source = Share(batch_size, rank, world_size), settings.source
    begin = Start(seed, settings.workers, first_step)
    if isinstance(source, SimulationSettings):
        pool = ClipPool(classes, detector.frame, device)
        reach = _LARGEST_SCALE * math.hypot(*(max(-detector.grid.lower[k], detector.grid.upper[k]) for k in (0, 1)))
        streets = SimulatedStreets(seed, tuple(source.lidars.items()), source.varied, source.density, reach)
        return (ArrivalFeed if source.fresh_per_step == "auto" else PoolFeed)(source, streets, pool, share, begin)
    samples = open_source(source, frame=detector.frame, sweeps=detector.sweeps)
    order = _class_balanced(samples, classes, seed) if source.class_balanced else np.arange(len(samples))
    return EpochFeed(samples, order, classes, detector.frame, share, begin, torch.device(device))


@dataclass(frozen=True)
class Share:
    """How the batches of `batch_size` samples are shared among `world_size` ranks, of which this is `rank`."""

    batch_size: int
    rank: int
    world_size: int

    @property
    def size(self) -> int:
        """Samples of a batch that are this rank's."""
        return self.batch_size // self.world_size

    def of(self, batch: Sequence[int]) -> list[int]:
        """This rank's part of a whole batch."""
        return [int(number) for number in batch[self.rank :: self.world_size]]


@dataclass(frozen=True)
class Start:
    """The seed, the number of processes, and the step that comes first."""

    seed: int
    workers: int
    first_step: int


class EpochFeed:
    """Samples of a source, shuffled anew in each epoch.

    order  (L,) numbers of the samples of an epoch; one may come several times
    The order of step s depends on the seed, the size of the whole batch and s only. What is left of an epoch behind its last whole batch is
    not used in it. Where there are fewer samples than in a batch, they come again, each as often as any other or once more.
    """

    def __init__(
        self, source: Source, order: np.ndarray, classes: ClassSet, frame: str, share: Share, begin: Start, device: torch.device
    ) -> None:
        self._order, self._classes, self._frame, self._share, self._device, self._seed = order, classes, frame, share, device, begin.seed
        self.steps_per_epoch: int | None = max(len(order) // share.batch_size, 1)
        self._shuffled: dict[tuple[int, int], np.ndarray] = {}
        first, ahead = begin.first_step * share.size, max(2 * share.size, 2 * begin.workers)
        self._workers: Workers[int, LabelledCloud | PackedClip] = Workers(
            source, self._sample_number, what="sample", workers=begin.workers, ahead=ahead, first=first
        )

    @property
    def wait_seconds(self) -> float:
        return self._workers.wait_seconds

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that read."""
        return self._workers.process_ids

    def numbers(self, step: int) -> list[int]:
        """The samples of the whole batch of a step, as the source counts them."""
        return [self._number(step, place) for place in range(self._share.batch_size)]

    def batch(self, step: int) -> list[Sample]:
        self._workers.seek(step * self._share.size)
        return [self._sample(self._workers.take()) for _ in range(self._share.size)]

    def close(self) -> None:
        self._workers.close()

    def __enter__(self) -> "EpochFeed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sample(self, item: LabelledCloud | PackedClip) -> Sample:
        if isinstance(item, PackedClip):
            return pooled(item, self._classes, self._frame, self._device).sample()
        return placed(sample_of(item.token, item.points, item.truth, self._classes, item.origin), self._device)

    def _sample_number(self, task: int) -> int:
        """What this rank's sample of a number is, counted from the first step through all of its batches."""
        step, own = divmod(task, self._share.size)
        return self._number(step, self._share.rank + own * self._share.world_size)

    def _number(self, step: int, place: int) -> int:
        steps = self.steps_per_epoch or 1
        place += step % steps * self._share.batch_size
        shuffle, place = divmod(place, len(self._order))
        return int(self._order[self._shuffle(step // steps, shuffle)[place]])

    def _shuffle(self, epoch: int, number: int) -> np.ndarray:
        if (epoch, number) not in self._shuffled:
            if len(self._shuffled) > 8:  # of other epochs: shuffles of small sets, and few
                self._shuffled.clear()
            self._shuffled[epoch, number] = np.random.default_rng([self._seed, _SHUFFLE, epoch, number]).permutation(len(self._order))
        return self._shuffled[epoch, number]


class PoolFeed:
    """Simulated clips, kept on the device and drawn again and again, the same in every run of a seed.

    At step s the pool is the newest `pool_size` of the first n(s) = warm_up + floor(fresh_per_step * s) clips of the seed. A batch is what
    has been new since the step before, and for the rest clips of the pool drawn at random, none twice if there are enough. It waits until
    clip n(s) has been simulated: give it no more fresh clips a step than arrive. A start at step s > 0 simulates clips n(s) - pool_size
    to n(s) first, as long as it takes; a checkpoint need hold nothing of this. Every rank simulates all clips, for each may draw any of
    them: on several GPUs of one machine prefer `fresh_per_step: auto`.
    """

    def __init__(self, settings: SimulationSettings, streets: SimulatedStreets, pool: ClipPool, share: Share, begin: Start) -> None:
        self._settings, self._pool, self._share, self._seed = settings, pool, share, begin.seed
        if isinstance(settings.fresh_per_step, str) or settings.fresh_per_step > share.batch_size:
            raise UsageError(
                f"fresh_per_step: expected at most the size of a batch, {share.batch_size}, which has room for each once, "
                f"got {settings.fresh_per_step}"
            )
        self.steps_per_epoch: int | None = None
        self._fresh = float(settings.fresh_per_step)
        first = self.window(begin.first_step)[0] // CLIPS_A_SCENE
        self._workers: Workers[int, list[PackedClip]] = Workers(
            streets, int, what="scene", workers=begin.workers, ahead=2 * begin.workers, first=first
        )

    @property
    def wait_seconds(self) -> float:
        return self._workers.wait_seconds

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that simulate."""
        return self._workers.process_ids

    def window(self, step: int) -> range:
        """The clips that may be drawn at a step."""
        end = self._settings.warm_up + math.floor(self._fresh * step)
        return range(max(0, end - self._settings.pool_size), end)

    def numbers(self, step: int) -> list[int]:
        """The clips of the whole batch of a step."""
        window = self.window(step)
        fresh = [n for n in window if n >= self.window(step - 1).stop] if step else []
        rng = np.random.default_rng([self._seed, _DRAW, step])
        return _drawn(fresh, range(window.start, window.stop - len(fresh)), self._share.batch_size, rng)

    def batch(self, step: int) -> list[Sample]:
        self._fill(self.window(step))
        return [self._pool[number].sample() for number in self._share.of(self.numbers(step))]

    def close(self) -> None:
        self._workers.close()
        self._pool.clear()

    def __enter__(self) -> "PoolFeed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self, window: range) -> None:
        """Simulate until the pool has all clips of a window, and drop older ones."""
        numbers, next_clip = self._pool.numbers, self._workers.next_number * CLIPS_A_SCENE
        if window.start < (numbers[0] if numbers else next_clip) or window.start > next_clip:
            self._pool.clear()
            self._workers.seek(window.start // CLIPS_A_SCENE)
        while (first := self._workers.next_number * CLIPS_A_SCENE) < window.stop:
            for number, clip in enumerate(self._workers.take(), start=first):
                if number >= window.start:
                    self._pool.add(number, clip)
        self._pool.drop_before(window.start)


class ArrivalFeed:
    """Simulated clips as fast as they come: no step waits but the first, which waits for `warm_up` clips. Differs from run to run.

    A batch is the clips that no batch had yet, in the order of their arrival, and for the rest clips drawn from the newest `pool_size`.
    Each rank simulates streets of its own. A run that goes on at step s begins with streets that the first s steps can hardly have reached.
    """

    def __init__(self, settings: SimulationSettings, streets: SimulatedStreets, pool: ClipPool, share: Share, begin: Start) -> None:
        self._settings, self._pool, self._share, self._seed = settings, pool, share, begin.seed
        self.steps_per_epoch: int | None = None
        self._new: deque[int] = deque()
        self._next_clip = 0
        first = begin.first_step * share.batch_size // CLIPS_A_SCENE
        self._workers: Workers[int, list[PackedClip]] = Workers(
            streets,
            lambda number: number * share.world_size + share.rank,
            what="scene",
            workers=begin.workers,
            ahead=max(4 * begin.workers, settings.pool_size // CLIPS_A_SCENE),  # while the training is busy with something else
            first=first,
        )

    @property
    def wait_seconds(self) -> float:
        return self._workers.wait_seconds

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that simulate."""
        return self._workers.process_ids

    @property
    def num_clips(self) -> int:
        """That have arrived so far."""
        return self._next_clip

    def batch(self, step: int) -> list[Sample]:
        missing = max(self._settings.warm_up - self._next_clip, 0)
        for clips in self._workers.take_arrived(-(-missing // CLIPS_A_SCENE)):
            for clip in clips:
                self._pool.add(self._next_clip, clip)
                self._new.append(self._next_clip)
                self._next_clip += 1
        self._pool.drop_before(self._next_clip - self._settings.pool_size)
        rng = np.random.default_rng([self._seed, _DRAW, step, self._share.rank])
        fresh = [self._new.popleft() for _ in range(min(self._share.size, len(self._new)))]
        fresh = [number for number in fresh if number in self._pool]
        old = [number for number in self._pool.numbers if number not in fresh]
        return [self._pool[number].sample() for number in _drawn(fresh, old, self._share.size, rng)]

    def close(self) -> None:
        self._workers.close()
        self._pool.clear()

    def __enter__(self) -> "ArrivalFeed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _drawn(fresh: Sequence[int], old: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """`count` numbers in random order: all fresh ones, the rest drawn from the old ones; none comes again before all others have."""
    population = np.array(old if len(old) else fresh, dtype=np.int64)
    wanted, drawn = count - len(fresh), [np.array(fresh, dtype=np.int64)]
    while wanted > 0:
        drawn.append(rng.permutation(population)[:wanted])
        wanted -= len(drawn[-1])
    return rng.permutation(np.concatenate(drawn)).tolist()


def _class_balanced(samples: Source, classes: ClassSet, seed: int) -> np.ndarray:
    """(L,) numbers of samples, those with rare classes several times."""
    from perception.training.resample import class_balanced

    raise NotImplementedError
