"""Processes that work ahead of the training, task by task, and never outlive it.

They are started anew (`spawn`), because a process that was forked from one that uses CUDA is broken, import no torch of their own accord,
see no GPU, and let the process that trains go first. What `multiprocessing` asks of a script holds: its main part stands under
`if __name__ == "__main__"`.
"""

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from perception.core.errors import PerceptionError

Task = TypeVar("Task")
Result = TypeVar("Result")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_NICENESS = 5


@dataclass(frozen=True)
class _Failure:
    """What went wrong in a worker. An expected error stays what it is; of any other there is the text, with its traceback."""

    error: PerceptionError | None
    text: str


@dataclass
class _Worker:
    process: BaseProcess
    connection: Any  # the end here of a pipe to it
    task: tuple[int, int, Any] | None = None  # (generation, number, task) that it works on


class Workers(Generic[Task, Result]):
    """`work(task_of(number))` for number = first, first + 1, ..., made ahead in `workers` processes.

    work     what is done with a task; it, tasks and results must be picklable, for each process has a copy of its own
    task_of  number -> task, called in this process
    what     what a task is ("scene"), for error messages
    workers  0: the work is done here, when its result is asked for
    ahead    results that may be in the making or wait to be taken; at least the number of processes
    An error of `work` is raised by the next call that takes results: a PerceptionError as it is, any other as RuntimeError that names
    the task. Close it, or use it in a `with` statement; if this process ends without that, the others end too.
    """

    def __init__(
        self, work: Callable[[Task], Result], task_of: Callable[[int], Task], *, what: str, workers: int, ahead: int, first: int = 0
    ) -> None:
        self._work, self._task_of, self._what = work, task_of, what
        self._next_task = self._next_result = first
        self._generation = 0
        self._ahead = max(ahead, workers)
        self._arrived: dict[int, Result] = {}
        self._error: Exception | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._workers: list[_Worker] = []
        self.wait_seconds = 0.0  # that callers have waited for results
        if workers:
            self._start(workers)

    def take(self) -> Result:
        """The next result in the order of the numbers; waits for it."""
        begin = time.perf_counter()
        if not self._workers:
            result = self._work_here()
        else:
            with self._changed:
                self._changed.wait_for(lambda: self._next_result in self._arrived or self._is_over)
                self._raise_error()
                result = self._arrived.pop(self._next_result)
                self._next_result += 1
                self._give_tasks()
        self.wait_seconds += time.perf_counter() - begin
        return result

    def take_arrived(self, at_least: int = 0) -> list[Result]:
        """All results that have arrived, in whatever order their work was finished; waits until there are `at_least` so many.

        Not to be mixed with `take`, which would wait for a number that was taken here.
        """
        begin, results = time.perf_counter(), list[Result]()
        if not self._workers:
            results = [self._work_here() for _ in range(at_least)]
        else:
            with self._changed:
                self._raise_error()
                results += self._take_all()
                while len(results) < at_least:  # by and by: no more wait to be taken than there may be
                    self._changed.wait_for(lambda: self._arrived or self._is_over)
                    self._raise_error()
                    results += self._take_all()
        self.wait_seconds += time.perf_counter() - begin
        return results

    def seek(self, number: int) -> None:
        """Go on with the results of `number`; what was made ahead is thrown away."""
        with self._changed:
            if number != self._next_result:
                self._generation += 1
                self._arrived.clear()
                self._next_task = self._next_result = number
                self._give_tasks()

    @property
    def next_number(self) -> int:
        """That of the result that `take` gives next."""
        return self._next_result

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that work."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def close(self) -> None:
        """End the processes; what they were at is lost. A second call does nothing."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        if self._workers:
            self._reader.join()
        for worker in self._workers:
            worker.connection.close()
            worker.process.close()
        self._workers = []

    def __enter__(self) -> "Workers[Task, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_all(self) -> list[Result]:
        results = list(self._arrived.values())
        self._arrived.clear()
        self._give_tasks()
        return results

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._error is not None

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self._is_closed:
            raise RuntimeError(f"{self._what} {self._next_result}: asked for after the workers were closed")

    def _work_here(self) -> Result:
        if self._is_closed:
            self._raise_error()
        task = self._task_of(self._next_result)
        self._next_result += 1
        try:
            return self._work(task)
        except PerceptionError:
            raise
        except Exception as error:
            raise RuntimeError(f"{self._what} {task}: {type(error).__name__}: {error}") from error

    def _start(self, workers: int) -> None:
        context = get_context("spawn")
        with _one_thread_each():
            for i in range(workers):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, self._work), name=f"{self._what}-{i}", daemon=True)
                process.start()
                there.close()  # so that the end of the process ends the connection
                self._workers.append(_Worker(process, here))
        with self._changed:
            self._give_tasks()
        self._reader = threading.Thread(target=self._read, name=f"{self._what}-results", daemon=True)
        self._reader.start()

    def _give_tasks(self) -> None:
        """Give a task to everyone who has none, while results are wanted. Called with the lock held."""
        for worker in self._workers:
            at_work = sum(other.task is not None and other.task[0] == self._generation for other in self._workers)
            if self._is_over or at_work + len(self._arrived) >= self._ahead:
                return
            if worker.task is None:
                worker.task = (self._generation, self._next_task, self._task_of(self._next_task))
                with contextlib.suppress(OSError):  # it has died: the reader will find out
                    worker.connection.send(worker.task)
                self._next_task += 1

    def _read(self) -> None:
        """Collect results until closed or failed; runs in a thread of its own, so that no worker waits with a full pipe."""
        by_connection = {worker.connection: worker for worker in self._workers}
        while not self._is_over:
            for connection in wait(list(by_connection), timeout=0.5):
                worker = by_connection[connection]
                try:
                    (generation, number, task), outcome = worker.connection.recv()
                except (EOFError, OSError):
                    self._lose(worker)
                    return
                with self._changed:
                    worker.task = None
                    if isinstance(outcome, _Failure):
                        self._error = outcome.error or RuntimeError(f"{self._what} {task}: {outcome.text}")
                    elif generation == self._generation:
                        self._arrived[number] = outcome
                    self._give_tasks()
                    self._changed.notify_all()

    def _lose(self, worker: _Worker) -> None:
        """A process is gone: say so, unless it was sent away."""
        worker.process.join(5)
        with self._changed:
            if not self._is_closed:
                task = worker.task[2] if worker.task else self._task_of(self._next_task)
                self._error = RuntimeError(
                    f"{self._what} {task}: its worker process ended with exit code {worker.process.exitcode}; "
                    "-9 mostly means that memory ran out (fewer workers), 1 that a script lacks `if __name__ == '__main__'`"
                )
            self._changed.notify_all()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started within have one thread for their arithmetic."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """The life of a worker process: tasks in, results out, until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the process that trains decides
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):  # no Windows
        os.nice(_NICENESS)
    with contextlib.suppress(EOFError, OSError):
        while True:
            order = connection.recv()
            try:
                outcome = work(order[2])
            except Exception as error:  # noqa: BLE001  whatever it is, it belongs to the caller
                expected = error if isinstance(error, PerceptionError) else None
                outcome = _Failure(expected, f"{type(error).__name__}: {error}; in a worker process:\n{traceback.format_exc()}")
            connection.send((order, outcome))


def _leave_with_parent() -> None:
    """End this process at once when the one that started it has ended, however that came about."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
