"""Work ahead in a thread: order, errors, and no thread that stays behind."""

import threading

import pytest

from perception.core import UsageError
from perception.drives import NuScenes, accumulate_sweeps, prefetch
from tests.makers import write_turning_drives


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("ahead", [1, 2, 100])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_items_come_as_they_are_in_their_order(ahead, count):
    assert list(prefetch(range(count), ahead)) == list(range(count))
    assert threads() == []


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_is_made_than_asked_for(ahead):
    made, enough = [], threading.Semaphore(0)

    def items():
        for i in range(10):
            made.append(i)
            enough.release()
            yield i

    ours = prefetch(items(), ahead)
    assert made == []  # nothing before the first is asked for
    assert next(ours) == 0
    for _ in range(ahead + 1):  # the one in hand, and those ahead
        assert enough.acquire(timeout=10)
    assert not enough.acquire(timeout=0.1)
    assert made == list(range(ahead + 1))
    ours.close()
    assert threads() == []


def test_work_is_done_in_another_thread_while_the_consumer_works():
    both_at_work = threading.Barrier(2, timeout=10)

    def items():
        yield 0
        both_at_work.wait()
        yield 1

    for i in prefetch(items()):
        if i == 0:
            both_at_work.wait()  # would time out if the second item were made after the first is done with


@pytest.mark.parametrize("error", [ValueError("bad cloud"), KeyboardInterrupt()])
def test_an_error_comes_to_the_consumer_after_the_items_before_it(error):
    def items():
        yield 0
        yield 1
        raise error

    ours = prefetch(items(), ahead=5)
    assert [next(ours), next(ours)] == [0, 1]
    with pytest.raises(type(error)) as caught:
        next(ours)
    assert caught.value is error
    assert threads() == []


def test_what_cannot_be_iterated_is_an_error_of_the_consumer_too():
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        next(prefetch(5))
    assert threads() == []


def test_the_thread_ends_when_the_consumer_stops():
    def first_of_endless():
        for item in prefetch(iter(int, 1)):
            return item
        return None

    assert first_of_endless() == 0
    assert threads() == []


def test_the_thread_ends_when_the_consumer_fails():
    with pytest.raises(RuntimeError, match="of the consumer"):
        consume_and_fail()
    assert threads() == []


def consume_and_fail():
    items = prefetch(iter(int, 1))
    try:
        for _ in items:
            raise RuntimeError("of the consumer")
    finally:
        items.close()


def test_an_iterator_that_nobody_starts_has_no_thread():
    items = prefetch(range(3))
    assert threads() == []
    del items


@pytest.mark.parametrize("ahead", [0, -1, 1.5, True, None])
def test_impossible_numbers_are_refused_before_the_first_item(ahead):
    with pytest.raises(UsageError, match=f"prefetch: expected ahead 1 or more, got {ahead!r}"):
        prefetch(range(3), ahead)


def test_frames_of_a_drive_are_accumulated_ahead(tmp_path):
    drive = NuScenes(write_turning_drives(tmp_path)).drives()[0]
    pairs = list(prefetch((frame.token, accumulate_sweeps(frame)) for frame in drive))
    assert [token for token, _ in pairs] == drive.tokens
    for frame, (_, cloud) in zip(drive, pairs, strict=True):
        assert cloud.points.tobytes() == accumulate_sweeps(frame).points.tobytes()
