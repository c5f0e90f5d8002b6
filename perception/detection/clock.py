"""Where the time of a frame goes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Profile:
    """frames that were timed, and the seconds of each stage, in their order, of all frames together."""

    frames: int
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def per_frame(self) -> dict[str, float]:
        """Mean seconds of each stage; the last, `total`, is the time of a frame."""
        mean = {stage: seconds / max(self.frames, 1) for stage, seconds in self.seconds.items()}
        return mean | {"total": sum(mean.values())}

    def __str__(self) -> str:
        """A line a stage: name, milliseconds, share."""
        mean = self.per_frame
        lines = [f"{stage:<12}{1e3 * s:>9.1f} ms{100 * s / (mean['total'] or 1):>6.0f} %" for stage, s in mean.items()]
        return "\n".join([f"mean of {self.frames} frames", *lines])


class StageClock:
    """Adds up the time of named stages. `wait` is called before each reading: on a GPU, to wait for it."""

    def __init__(self, wait: Callable[[], None] | None = None) -> None:
        self._wait = wait or (lambda: None)
        self.reset()

    def reset(self) -> None:
        self._frames, self._seconds = 0, {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The time of the block belongs to stage `name`."""
        self._wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def count(self, frames: int) -> None:
        """So many more frames have been through all stages."""
        self._frames += frames

    def profile(self) -> Profile:
        return Profile(self._frames, dict(self._seconds))
