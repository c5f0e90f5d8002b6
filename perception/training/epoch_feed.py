"""Batches of samples that are there: recordings and folders of clips, shuffled anew in each epoch."""

from collections.abc import Hashable
from functools import lru_cache

import numpy as np
import torch

from perception.core.classes import ClassSet
from perception.core.errors import UsageError
from perception.training.packed import LabelledCloud, PackedClip
from perception.training.plan import Plan
from perception.training.pool import pooled, samples_of
from perception.training.resample import class_balanced
from perception.training.sample import Sample, sample_of
from perception.training.sample_batch import SampleBatch
from perception.training.sources import Source
from perception.training.workers import Workers


class EpochFeed:
    """Samples of a source in shuffled order (a `Feed`).

    order    (L,) numbers of the source's samples that make an epoch; one may come several times
    classes  of the network, in the order of its labels through all tasks
    frame    of the network, see `perception.detection.frames`
    The order depends on the seed, L and the size of the whole batch only. What an epoch has beyond its last whole batch is left out; each
    epoch leaves out others. Where a batch has room for more than L samples, they come again, none before all others have.
    """

    def __init__(
        self, source: Source, order: np.ndarray, classes: ClassSet, frame: str, plan: Plan, workers: int, device: torch.device | str
    ) -> None:
        self._order, self._classes, self._frame, self._plan, self._device = order, classes, frame, plan, torch.device(device)
        self._steps = max(len(order) // plan.batch_size, 1)
        self.steps_per_epoch: int | None = self._steps
        self.wait_seconds = 0.0
        self._shuffle = lru_cache(maxsize=4)(self._shuffled)
        self.workers: Workers[int, LabelledCloud | PackedClip] = Workers(
            source, self._task, what="sample", workers=workers, ahead=2 * max(plan.share, workers), first=plan.first_step * plan.share
        )

    def numbers(self, step: int) -> list[int]:
        """The samples of the whole batch of a step, as the source counts them."""
        return [self._number(step, place) for place in range(self._plan.batch_size)]

    def batch(self, step: int, /) -> list[Sample]:
        self.workers.seek(step * self._plan.share)
        items = [self.workers.take() for _ in range(self._plan.share)]
        self.wait_seconds = self.workers.wait_seconds
        if clips := [item for item in items if isinstance(item, PackedClip)]:
            return samples_of([pooled(clip, self._classes, self._frame, self._device) for clip in clips])
        clouds = [item for item in items if isinstance(item, LabelledCloud)]  # a source has one kind or the other
        samples = [sample_of(cloud.token, cloud.points, cloud.truth, self._classes, cloud.origin) for cloud in clouds]
        return samples if self._device.type == "cpu" else SampleBatch.of(samples).placed(self._device).samples()

    def close(self) -> None:
        self.workers.close()

    def _task(self, number: int) -> int:
        """The sample that is this rank's `number`-th, counted through all batches."""
        step, own = divmod(number, self._plan.share)
        return self._number(step, self._plan.rank + own * self._plan.world_size)

    def _number(self, step: int, place: int) -> int:
        epoch, within = divmod(step, self._steps)
        again, place = divmod(within * self._plan.batch_size + place, len(self._order))
        return int(self._order[self._shuffle(epoch, again)[place]])

    def _shuffled(self, epoch: int, again: int) -> np.ndarray:
        return np.random.default_rng([self._plan.seed, epoch, again]).permutation(len(self._order))


def balanced_order(source: Source, classes: ClassSet, seed: int) -> np.ndarray:
    """(L,) numbers of a source's samples, those with rare classes of the network several times (CBGS); as `EpochFeed` takes them.

    Raises UsageError where no sample has an object of the network's classes.
    """
    indices: dict[Hashable, list[int]] = {name: [] for name in classes}
    for number, names in enumerate(source.class_names()):
        for name in set(names).intersection(classes):
            indices[name].append(number)
    order = class_balanced(indices, seed)
    if len(order) == 0:
        raise UsageError(f"class_balanced: expected samples with objects of {', '.join(classes)}, found none")
    return order
