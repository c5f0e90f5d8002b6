"""Batches of simulated clips that are kept on the device and drawn again and again while new ones arrive."""

import logging
import math
from collections import deque
from collections.abc import Callable

import numpy as np

from perception.core.errors import UsageError
from perception.training.data_settings import SimulationSettings
from perception.training.packed import PackedClip
from perception.training.plan import Plan, draw
from perception.training.pool import ClipPool
from perception.training.sample import Sample
from perception.training.simulation import CLIPS_A_SCENE
from perception.training.workers import Workers

log = logging.getLogger(__name__)
_SPARE_SCENES = 100  # that wait to be taken while the training does something else: a gigabyte or two
Streets = Callable[[int], list[PackedClip]]  # number of a street -> its CLIPS_A_SCENE clips


class PoolFeed:
    """Simulated clips, the same in every run of a seed (a `Feed`).

    At step s the pool is the newest `pool_size` of the first n(s) = warm_up + floor(fresh_per_step * s) clips. A batch is what has been new
    since the step before, each once, and for the rest clips of the pool drawn at random, none twice while there are enough. It waits until
    n(s) clips have been simulated: ask for no more fresh ones than the processes make. To begin at step s > 0, clips n(s) - pool_size to
    n(s) are simulated again, which takes as long as it did; so nothing of this need be in a checkpoint. Each rank simulates all clips, for
    it may draw any of them: for several GPUs in one machine `fresh_per_step: auto` is better.
    """

    def __init__(self, settings: SimulationSettings, streets: Streets, pool: ClipPool, plan: Plan, workers: int) -> None:
        if isinstance(settings.fresh_per_step, str) or settings.fresh_per_step > plan.batch_size:
            raise UsageError(
                f"fresh_per_step: expected at most the size of a batch, {plan.batch_size}, which has room for each fresh clip once, "
                f"got {settings.fresh_per_step}"
            )
        self._pool, self._plan = pool, plan
        self._warm_up, self._fresh_per_step, self._pool_size = settings.warm_up, settings.fresh_per_step, settings.pool_size
        self.steps_per_epoch: int | None = None
        self.wait_seconds = 0.0
        first = self.window(plan.first_step).start // CLIPS_A_SCENE
        self.workers: Workers[int, list[PackedClip]] = Workers(streets, int, what="scene", workers=workers, ahead=2 * workers, first=first)

    def window(self, step: int) -> range:
        """The clips that may be drawn at a step."""
        stop = self._warm_up + math.floor(self._fresh_per_step * step)
        return range(max(0, stop - self._pool_size), stop)

    def numbers(self, step: int) -> list[int]:
        """The clips of the whole batch of a step."""
        window = self.window(step)
        first_fresh = max(self.window(step - 1).stop, window.start) if step else window.stop
        rng = np.random.default_rng([self._plan.seed, step])
        return draw(range(first_fresh, window.stop), range(window.start, first_fresh), self._plan.batch_size, rng)

    def batch(self, step: int, /) -> list[Sample]:
        self._fill(self.window(step))
        self.wait_seconds = self.workers.wait_seconds
        return self._pool.samples(self._plan.own(self.numbers(step)))

    def close(self) -> None:
        self.workers.close()
        self._pool.clear()

    def _fill(self, window: range) -> None:
        """Take clips until the pool has all of a window, and drop older ones."""
        next_clip = self.workers.next_number * CLIPS_A_SCENE
        oldest = next(iter(self._pool), next_clip)
        if not oldest <= window.start <= next_clip:
            self._pool.clear()
            self.workers.seek(window.start // CLIPS_A_SCENE)
        if len(self._pool) == 0:
            log.info("waiting for the first %d simulated clips", len(window))
        while (first := self.workers.next_number * CLIPS_A_SCENE) < window.stop:
            for number, clip in enumerate(self.workers.take(), start=first):
                if number >= window.start:
                    self._pool.add(number, clip)
        self._pool.drop_before(window.start)


class ArrivalFeed:
    """Simulated clips as fast as they come (a `Feed`): only the first batch waits, for `warm_up` clips. Differs from run to run.

    A batch is the clips that no batch had yet, the first to come first, and for the rest clips drawn from the newest `pool_size`. Each rank
    simulates streets of its own. To begin at step s > 0, warm up anew, with streets that s steps can hardly have come to.
    """

    def __init__(self, settings: SimulationSettings, streets: Streets, pool: ClipPool, plan: Plan, workers: int) -> None:
        self._pool, self._plan = pool, plan
        self._warm_up, self._pool_size = settings.warm_up, settings.pool_size
        self._unseen: deque[int] = deque()
        self.num_clips = 0  # that have arrived so far
        self.steps_per_epoch: int | None = None
        self.wait_seconds = 0.0
        self.workers: Workers[int, list[PackedClip]] = Workers(
            streets,
            lambda number: number * plan.world_size + plan.rank,
            what="scene",
            workers=workers,
            ahead=2 * workers + _SPARE_SCENES,
            first=plan.first_step * plan.batch_size,  # CLIPS_A_SCENE times as many clips as so many batches have places
        )

    def batch(self, step: int, /) -> list[Sample]:
        if missing := max(self._warm_up - self.num_clips, 0):
            log.info("waiting for the first %d simulated clips", missing)
        for clips in self.workers.take_arrived(-(-missing // CLIPS_A_SCENE)):
            for clip in clips:
                self._pool.add(self.num_clips, clip)
                self._unseen.append(self.num_clips)
                self.num_clips += 1
        self.wait_seconds = self.workers.wait_seconds
        self._pool.drop_before(self.num_clips - self._pool_size)
        while self._unseen and self._unseen[0] not in self._pool:
            self._unseen.popleft()
        fresh = [self._unseen.popleft() for _ in range(min(self._plan.share, len(self._unseen)))]
        old = sorted(set(self._pool).difference(fresh))
        rng = np.random.default_rng([self._plan.seed, step, self._plan.rank])
        return self._pool.samples(draw(fresh, old, self._plan.share, rng))

    def close(self) -> None:
        self.workers.close()
        self._pool.clear()
