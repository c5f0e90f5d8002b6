"""Detections of one frame after another in, tracks out."""

from perception.tracking.config import GreedyConfig, ParityConfig, TrackerConfig
from perception.tracking.greedy import GreedyTracker
from perception.tracking.parity import ParityTracker
from perception.tracking.trackers import TRACKERS, Tracker, build_tracker, load_tracker_config

__all__ = [
    "TRACKERS",
    "GreedyConfig",
    "GreedyTracker",
    "ParityConfig",
    "ParityTracker",
    "Tracker",
    "TrackerConfig",
    "build_tracker",
    "load_tracker_config",
]
