"""What a tracker is, and which there are."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from perception.core.classes import ClassSet
from perception.core.config import load_config, shipped_config
from perception.core.detections import Detections, Tracks
from perception.tracking.config import GreedyConfig, ParityConfig, TrackerConfig
from perception.tracking.greedy import GreedyTracker
from perception.tracking.parity import ParityTracker


class Tracker(Protocol):
    """Detections of one drive in time order in, tracks out; everything in the global frame."""

    classes: ClassSet

    def update(self, detections: Detections, timestamp_us: int) -> Tracks: ...

    def reset(self) -> None: ...


def _greedy(config: GreedyConfig | ParityConfig) -> Tracker:
    return ParityTracker(config) if isinstance(config, ParityConfig) else GreedyTracker(config)


TRACKERS: dict[str, Callable[[GreedyConfig | ParityConfig], Tracker]] = {"greedy": _greedy}


def load_tracker_config(path: Path | None = None) -> TrackerConfig:
    """The settings in a YAML file; without one those that come with the package (`configs/tracker_greedy.yaml`)."""
    return load_config(path or shipped_config("tracker_greedy.yaml"), TrackerConfig)


def build_tracker(config: TrackerConfig | Path | str | None = None) -> Tracker:
    """A tracker from its settings, from their file, or (None) from those that come with the package."""
    if not isinstance(config, TrackerConfig):
        config = load_tracker_config(Path(config) if config else None)
    return TRACKERS[config.tracker.name](config.tracker)
