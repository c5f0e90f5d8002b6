"""Batches that a thread makes ahead: the same as without it, in order, and errors that arrive."""

import threading
import time

import pytest

torch = pytest.importorskip("torch")

from perception.training.ahead import BatchesAhead  # noqa: E402
from perception.training.sample import Sample  # noqa: E402


def named(token: str) -> Sample:
    return Sample(token, torch.zeros(0, 5), torch.zeros(0, 9), torch.zeros(0, dtype=int), torch.zeros(0, dtype=int), torch.zeros(3))


class Feed:
    """Two samples a batch, named by number; it notes what it was asked for and in which thread."""

    steps_per_epoch = None
    wait_seconds = 0.0

    def __init__(self, broken: int | None = None) -> None:
        self.asked: list[int] = []
        self.threads: set[str] = set()
        self._broken = broken

    def batch(self, number: int) -> list[Sample]:
        self.asked.append(number)
        self.threads.add(threading.current_thread().name)
        if number == self._broken:
            raise ValueError(f"no batch {number}")
        return [named(f"{number}a"), named(f"{number}b")]


def changed(samples: list[Sample], number: int, progress: float) -> list[Sample]:
    time.sleep(0.003 * (number % 2))
    return [named(f"{sample.token} {number} {place}") for place, sample in enumerate(samples)]


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_come_whole_and_in_order(ahead):
    feed = Feed()
    batches = BatchesAhead(feed, changed, ahead=ahead, end=5)
    batches.fetch(2, 0.0)
    found = [[sample.token for sample in batches.batch(number, 0.0)] for number in (2, 3, 4)]
    batches.close()
    assert found == [[f"{n}a {n} 0", f"{n}b {n} 1"] for n in (2, 3, 4)]
    assert feed.asked == [2, 3, 4]  # each once, none behind the end
    assert len(feed.threads) == 1


def test_two_batches_are_begun_ahead():
    feed = Feed()
    batches = BatchesAhead(feed, changed, ahead=True)
    batches.batch(0, 0.0)
    batches.close()
    assert feed.asked[:3] == [0, 1, 2][: len(feed.asked)]
    assert max(feed.asked) <= 2


@pytest.mark.parametrize("ahead", [False, True])
def test_an_error_of_the_feed_arrives_with_its_batch(ahead):
    batches = BatchesAhead(Feed(broken=1), changed, ahead=ahead)
    assert len(batches.batch(0, 0.0)) == 2
    with pytest.raises(ValueError, match="no batch 1"):
        batches.batch(1, 0.0)
    batches.close()


@pytest.mark.parametrize("ahead", [False, True])
def test_an_error_of_the_augmentation_arrives(ahead):
    def broken(*_: object) -> Sample:
        raise ValueError("cannot be turned")

    batches = BatchesAhead(Feed(), broken, ahead=ahead)
    with pytest.raises(ValueError, match="cannot be turned"):
        batches.batch(0, 0.0)
    batches.close()


def test_progress_is_that_of_the_beginning():
    seen = []
    batches = BatchesAhead(Feed(), lambda samples, number, progress: seen.append((number, progress)) or samples, ahead=True, end=2)
    batches.batch(0, 0.25)
    batches.batch(1, 0.5)
    batches.close()
    assert seen == [(0, 0.25), (1, 0.25)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_of_a_stream_of_its_own_are_there_when_they_are_used():
    class Numbers(Feed):
        def batch(self, number: int) -> list[Sample]:
            torch.cuda._sleep(20_000_000)  # some 10 ms in which nothing is written yet
            points = torch.full((1_000_000, 5), float(number), device="cuda")
            rest = (torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(3))
            return [Sample(str(number), points, *(part.to("cuda") for part in rest))]

    batches = BatchesAhead(Numbers(), lambda samples, *_: samples, ahead=True, device="cuda", end=30)
    sums = []
    for number in range(30):
        (sample,) = batches.batch(number, 0.0)
        torch.cuda._sleep(20_000_000)  # the next batch is made meanwhile, and must not be put where this one lies
        sums.append(sample.points.sum(dtype=torch.float64) / 5_000_000)
        del sample
    batches.close()
    assert torch.stack(sums).tolist() == list(range(30))
