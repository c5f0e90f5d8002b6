"""Work ahead in a thread while the consumer is busy with what it has."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from perception.core.errors import UsageError

T = TypeVar("T")


def prefetch(items: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """The same items in the same order, made by a thread that stays up to `ahead` of them before the consumer.

    Frames read their files when asked, so ask in what is iterated over: `prefetch((frame, accumulate_sweeps(frame)) for frame in drive)`.
    An error of `items` is raised here, after the items before it. The thread starts with the first item that is asked for and has ended
    when iteration has: at the end, by an error, or by `close()`, which a `for` loop that is left early calls when its iterator goes.
    Raises UsageError for `ahead` below 1.
    """
    if not isinstance(ahead, int) or isinstance(ahead, bool) or ahead < 1:
        raise UsageError(f"prefetch: expected ahead 1 or more, got {ahead!r}")
    return _prefetched(items, ahead)


def _prefetched(items: Iterable[T], ahead: int) -> Iterator[T]:
    results: queue.SimpleQueue[tuple[bool, T | BaseException | None]] = queue.SimpleQueue()
    free, stop = threading.Semaphore(ahead), threading.Event()

    def work() -> None:
        try:
            iterator = iter(items)
            while free.acquire() and not stop.is_set():
                results.put((True, next(iterator)))
        except StopIteration:
            results.put((False, None))
        except BaseException as error:  # noqa: BLE001  whatever it is, it belongs to the consumer
            results.put((False, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)  # a daemon: a hanging disk must not keep the program alive
    thread.start()
    try:
        while True:
            is_item, result = results.get()
            if not is_item:
                if isinstance(result, BaseException):
                    raise result
                return
            free.release()
            yield result  # type: ignore[misc]
    finally:
        stop.set()
        free.release()
        thread.join()
