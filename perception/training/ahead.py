"""The next batches, made while the network learns from this one: on a GPU the host would else be at samples half of the time."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from perception.training.sample import Sample

_BATCHES = 2  # that are begun ahead


class Feed(Protocol):
    """Where samples come from.

    batch(number)    this process's samples of a batch, on its device; the same for the same number
    steps_per_epoch  batches in which every sample comes once; None for endless data
    wait_seconds     that the caller has waited for data so far
    """

    steps_per_epoch: int | None
    wait_seconds: float

    def batch(self, step: int, /) -> list[Sample]: ...


class BatchesAhead:
    """Augmented batches by number.

    augment  (sample, number of its batch, place in it, progress of the training) to the sample changed
    threads  that augment; 0: everything is done when it is asked for, as is best on a CPU
    end      number of the first batch that nobody will ask for; None where that is not known
    A batch depends on its number alone, but for the progress, which is that of the time when it is begun.
    """

    def __init__(
        self, feed: Feed, augment: Callable[[Sample, int, int, float], Sample], *, threads: int = 0, end: int | None = None
    ) -> None:
        self._feed, self._augment, self._end = feed, augment, end
        self._seconds = 0.0
        self._begun: dict[int, Future[list[Future[Sample]]]] = {}
        self._fed: dict[int, list[Sample]] = {}
        # One thread asks the feed, batch after batch; it hands each sample to the others.
        self._threads = _Threads(threads) if threads else None

    @property
    def wait_seconds(self) -> float:
        """That the caller has waited for data: for the feed, or for its threads."""
        return self._feed.wait_seconds if self._threads is None else self._seconds

    def fetch(self, number: int, progress: float) -> None:
        """Begin with a batch before it is asked for, and wait until its samples are there."""
        if self._threads is None:
            self._fed[number] = self._feed.batch(number)
        else:
            self._begin(self._threads, number, progress).result()

    def batch(self, number: int, progress: float) -> list[Sample]:
        """A batch, from whose number on numbers ascend one by one. What a feed or an augmentation raises comes here."""
        if self._threads is None:
            samples = self._fed.pop(number, None) or self._feed.batch(number)
            return [self._augment(sample, number, place, progress) for place, sample in enumerate(samples)]
        start = time.monotonic()
        for other in range(number, number + _BATCHES + 1):
            if self._end is None or other < max(self._end, number + 1):
                self._begin(self._threads, other, progress)
        samples = [future.result() for future in self._begun.pop(number).result()]
        self._seconds += time.monotonic() - start
        return samples

    def close(self) -> None:
        """Forget what is begun and end the threads."""
        if self._threads is not None:
            for executor in (self._threads.feeding, self._threads.augmenting):
                executor.shutdown(cancel_futures=True)

    def _begin(self, threads: "_Threads", number: int, progress: float) -> Future[list[Future[Sample]]]:
        if number not in self._begun:
            self._begun[number] = threads.feeding.submit(self._augmented, threads, number, progress)
        return self._begun[number]

    def _augmented(self, threads: "_Threads", number: int, progress: float) -> list[Future[Sample]]:
        samples = enumerate(self._feed.batch(number))
        return [threads.augmenting.submit(self._augment, sample, number, place, progress) for place, sample in samples]


class _Threads:
    def __init__(self, augmenting: int) -> None:
        self.feeding = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self.augmenting = ThreadPoolExecutor(augmenting, thread_name_prefix="augment")
