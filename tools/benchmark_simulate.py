"""Seconds of simulated streets: a scene's set-up, one sweep, clips; `python tools/benchmark.py simulate`."""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from cuda_ops import ray_tree
from perception.core.errors import require_package
from perception.drives.simulated import SimulatedScene, simulate_scene
from perception.drives.simulated.clips import write_clips
from perception.drives.simulated.recording import scan_at

Result = TypeVar("Result")


def rows(repeats: int) -> list[tuple[str, str, str]]:
    """(step, processes or threads, median and spread of repetitions), each repetition on a street of its own."""
    set_up: list[float] = []
    scenes = [timed(set_up, partial(scene, seed)) for seed in range(repeats)]
    shapes = [sum(len(table) for table in street.world.matter_at(0.0)) for street in scenes]
    sweep = f"one sweep, 34,688 rays x {np.median(shapes):,.0f} shapes and where they then are"
    found = [("one street: traffic of 24 s, scenery, bodies", "1 thread", text(set_up, 1e3, "ms"))]
    torch = require_package("torch", extra="models", why="it sets the number of threads")
    before = torch.get_num_threads()
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        seconds: list[float] = []
        for street in scenes:
            for k in range(10):
                timed(seconds, partial(scan_at, street, int(street.timestamps_us[3]) - 50_000 * k))
        found.append((sweep, f"{threads} thread{'s' * (threads > 1)}", text(seconds, 1e3, "ms")))
    torch.set_num_threads(before)
    for workers in sorted({1, os.cpu_count() or 1}):
        seconds, count = [], 16 * workers
        for seed in range(max(repeats // 4, 1)):
            with tempfile.TemporaryDirectory() as aside:
                timed(seconds, partial(write_clips, Path(aside), count, seed=seed, workers=workers))
        processes = f"{workers} process{'es' * (workers > 1)}"
        found.append(
            ("clips of ten sweeps, eight a street, with all set-up", processes, f"{np.median(count / np.array(seconds)):.1f} a second")
        )
    return found


def scene(seed: int) -> SimulatedScene:
    """A street of which everything is there that the first sweep would make."""
    street = simulate_scene("street", np.random.default_rng(seed), num_frames=16)
    still, _ = street.world.matter_at(0.0)
    ray_tree(still.shapes)
    return street


def timed(seconds: list[float], work: Callable[[], Result]) -> Result:
    """The result of some work; how long it took is added to `seconds`."""
    start = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - start)
    return result


def text(seconds: list[float], scale: float, unit: str) -> str:
    low, middle, high = np.percentile(np.array(seconds) * scale, [10, 50, 90])
    return f"{middle:.0f} {unit} ({low:.0f}..{high:.0f})"
