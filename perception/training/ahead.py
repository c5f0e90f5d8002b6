"""The next batches, made while the network learns from this one: on a GPU the host would else be at samples a good part of the time."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch

from perception.training.feed import Feed
from perception.training.sample import Sample

_BATCHES = 2  # that are begun ahead


class BatchesAhead:
    """Augmented batches by number.

    augment  (samples, number of their batch, progress of the training) to the samples changed
    ahead    whether a thread makes them ahead; else everything is done when it is asked for, as is best on a CPU
    device   where the samples are. The thread has a stream of its own on a GPU, so that what it waits for is its own work only
    end      number of the first batch that nobody will ask for; None where that is not known
    A batch depends on its number alone, but for the progress, which is that of the time when it is begun.
    """

    def __init__(
        self,
        feed: Feed,
        augment: Callable[[list[Sample], int, float], list[Sample]],
        *,
        ahead: bool = False,
        device: torch.device | str = "cpu",
        end: int | None = None,
    ) -> None:
        self._feed, self._augment, self._end = feed, augment, end
        self._seconds = 0.0
        self._begun: dict[int, Future[tuple[list[Sample], torch.Event | None]]] = {}
        self._fed: dict[int, list[Sample]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None
        self._stream = None
        if ahead and torch.device(device).type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # what the augmentation reads may still be on its way

    @property
    def wait_seconds(self) -> float:
        """That the caller has waited for data: for the feed, or for its thread."""
        return self._feed.wait_seconds if self._thread is None else self._seconds

    def fetch(self, number: int, progress: float) -> None:
        """Begin with a batch before it is asked for, and wait until it is there."""
        if self._thread is None:
            self._fed[number] = self._feed.batch(number)
        else:
            self._begin(self._thread, number, progress).result()

    def batch(self, number: int, progress: float) -> list[Sample]:
        """A batch, from whose number on numbers ascend one by one. What a feed or an augmentation raises comes here."""
        if self._thread is None:
            samples = self._fed.pop(number, None) or self._feed.batch(number)
            return self._augment(samples, number, progress)
        start = time.monotonic()
        for other in range(number, number + _BATCHES + 1):
            if self._end is None or other < max(self._end, number + 1):
                self._begin(self._thread, other, progress)
        samples, is_there = self._begun.pop(number).result()
        if is_there is not None:
            _take_over(samples, is_there)
        self._seconds += time.monotonic() - start
        return samples

    def close(self) -> None:
        """Forget what is begun and end the thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _begin(self, thread: ThreadPoolExecutor, number: int, progress: float) -> Future[tuple[list[Sample], torch.Event | None]]:
        if number not in self._begun:
            self._begun[number] = thread.submit(self._made, number, progress)
        return self._begun[number]

    def _made(self, number: int, progress: float) -> tuple[list[Sample], torch.Event | None]:
        """A batch, and on a GPU what tells when it is there."""
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            samples = self._augment(self._feed.batch(number), number, progress)
            return samples, None if self._stream is None else self._stream.record_event()


def _take_over(samples: list[Sample], is_there: torch.Event) -> None:
    """Samples of another stream for the current one: it waits for them, and their memory is not used again before it is done with them."""
    stream = torch.cuda.current_stream(samples[0].points.device)
    stream.wait_event(is_there)
    for sample in samples:
        for tensor in (sample.points, sample.boxes, sample.labels, sample.num_points, sample.origin):
            tensor.record_stream(stream)
