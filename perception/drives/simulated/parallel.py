"""One process a core, one thread a process: for work that comes scene by scene."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_scenes(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """work(item) for each item, in their order, in `workers` processes; in this one where that is 1. All must be picklable.

    More than one asks of a script what `multiprocessing` asks: its main part stands under `if __name__ == "__main__"`.
    """
    workers = min(len(items), workers)
    if workers <= 1:
        return [work(item) for item in items]
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers read it when they start
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            return list(pool.map(work, items))
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
