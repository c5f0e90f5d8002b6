"""The published CenterPoint tracker, id for id, with its defects: a yardstick, not a tracker to use.

Source: CenterPoint `tools/nusc_tracking/pub_tracker.py`. Kept on purpose: an empty frame ends all tracks; detections choose in the order
of the list; matching is float32; a coasted track repeats its last displacement; an undone Hungarian pair loses its track.
"""

from dataclasses import dataclass, field

import numpy as np

from perception.core.boxes import Boxes3D
from perception.core.classes import NUSCENES_TRACKING
from perception.core.detections import Detections, Tracks
from perception.core.errors import DataError
from perception.core.rows import concatenate
from perception.tracking.clock import expect_next
from perception.tracking.config import ParityConfig

# Metres; the authors' 99.9th percentile of the velocity error over 0.5 s, whatever time really passed.
GATE = {"bicycle": 3.0, "bus": 5.5, "car": 4.0, "motorcycle": 13.0, "pedestrian": 1.0, "trailer": 3.0, "truck": 4.0}
_FORBIDDEN = 1e18


@dataclass
class _State:
    """Live tracks, one row each, in the published order: matched, born, coasted."""

    boxes: Boxes3D = field(default_factory=Boxes3D.empty)
    ct: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # x, y used for matching
    tracking: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # displacement one frame back
    label: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    score: np.ndarray = field(default_factory=lambda: np.zeros(0))
    track_id: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    age: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    active: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # frames in a row with a detection, 0 where coasted


class ParityTracker:
    """Gives exactly the ids of the published tracker. `Tracks.age` and `hits` hold its `age` (frames) and `active`."""

    def __init__(self, config: ParityConfig) -> None:
        self.config = config
        self.classes = NUSCENES_TRACKING
        self._gate = np.array([GATE[name] for name in self.classes], np.float32)
        self.reset()

    def reset(self) -> None:
        self._state = _State()
        self._id_count = 0
        self._timestamp_us: int | None = None

    def update(self, detections: Detections, timestamp_us: int) -> Tracks:
        """One frame in, all live tracks out, coasted ones last; global frame."""
        before = self._timestamp_us
        now = self._timestamp_us = expect_next("ParityTracker.update", detections, timestamp_us, before)
        lag = 0.0 if before is None else seconds(now) - seconds(before)
        label = self.classes.labels_from(detections.classes)[detections.label]
        source = np.flatnonzero(label >= 0)
        if not len(source):  # the published code crashes where only untracked classes are left; this is what it does for no detections
            self._state = _State()
            return Tracks.empty(self.classes)
        boxes, label, score = detections.boxes[source], label[source], detections.score[source]
        ct = boxes.center[:, :2].copy()
        with np.errstate(invalid="ignore"):  # an infinite velocity
            tracking = boxes.velocity * -1 * lag
        old = self._state
        matched, born, lost = self._associate(ct, tracking, label)

        first_id = self._id_count + 1
        self._id_count += len(born)
        carried = lost[old.age[lost] < self.config.max_age]
        rows = np.concatenate([matched[:, 0], born])
        self._state = _State(
            boxes=concatenate([boxes[rows], old.boxes[carried]]),
            ct=np.concatenate([ct[rows], old.ct[carried] - old.tracking[carried]]),
            tracking=np.concatenate([tracking[rows], old.tracking[carried]]),
            label=np.concatenate([label[rows], old.label[carried]]),
            score=np.concatenate([score[rows], old.score[carried]]),
            track_id=np.concatenate([old.track_id[matched[:, 1]], np.arange(first_id, self._id_count + 1), old.track_id[carried]]),
            age=np.concatenate([np.ones(len(rows), np.int64), old.age[carried] + 1]),
            active=np.concatenate([old.active[matched[:, 1]] + 1, np.ones(len(born), np.int64), np.zeros(len(carried), np.int64)]),
        )
        return self._tracks(np.concatenate([source[rows], np.full(len(carried), -1)]))

    def _associate(self, ct: np.ndarray, tracking: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(K, 2) matched detection and track, then unmatched detections, then unmatched tracks; rows each."""
        state = self._state
        if not len(state.ct):
            return np.zeros((0, 2), np.int64), np.arange(len(ct)), np.zeros(0, np.int64)
        with np.errstate(invalid="ignore", over="ignore"):  # unknown velocities are taken as they come, and float32 as it is
            cost = self._cost(ct, tracking, label)
        if self.config.assignment == "hungarian":
            from scipy.optimize import linear_sum_assignment  # half a second that the other trackers need not wait for

            if np.isnan(cost).any():
                raise DataError(
                    "ParityTracker.update: expected known velocities, got NaN; the published Hungarian mode fails on them as well: "
                    "use assignment: greedy, or parity: false"
                )
            cost[cost > _FORBIDDEN] = _FORBIDDEN
            pairs = np.stack(linear_sum_assignment(cost), axis=1)
        else:
            pairs = _first_come(cost)
        born = np.setdiff1d(np.arange(len(ct)), pairs[:, 0])
        lost = np.setdiff1d(np.arange(len(state.ct)), pairs[:, 1])
        is_undone = cost[pairs[:, 0], pairs[:, 1]] > 1e16  # undone for the detection alone: the track is neither matched nor lost
        return pairs[~is_undone], np.concatenate([born, pairs[is_undone, 0]]), lost

    def _cost(self, ct: np.ndarray, tracking: np.ndarray, label: np.ndarray) -> np.ndarray:
        """(N, M) float64: metres from each detection, moved back, to each track; far above all of them where the pair is forbidden."""
        state = self._state
        moved_back = (ct + tracking.astype(np.float32)).astype(np.float32)
        offset = state.ct.astype(np.float32)[None] - moved_back[:, None]  # (N, M, 2)
        distance = np.sqrt((offset**2).sum(axis=2))
        is_forbidden = (distance > self._gate[label][:, None]) | (label[:, None] != state.label[None])
        return distance + is_forbidden * _FORBIDDEN  # float64 from here on, as published

    def _tracks(self, source: np.ndarray) -> Tracks:
        state = self._state
        center = state.boxes.center.copy()
        # A coasted track of unknown velocity is nowhere (NaN), and blocks all others; it is shown where it was seen last.
        center[:, :2] = np.where(np.isfinite(state.ct), state.ct, center[:, :2])
        return Tracks(
            Boxes3D(center, state.boxes.size, state.boxes.yaw, state.boxes.velocity),
            state.label,
            state.score,
            self.classes,
            track_id=state.track_id,
            age=state.age.astype(np.float64),
            hits=state.active,
            coasted=state.active == 0,
            detection_index=source,
        )


def seconds(timestamp_us: int) -> float:
    """Float seconds since 1970, as `pub_test.py` makes them: they carry 2e-7 s of rounding, which its displacements inherit."""
    return timestamp_us * 1e-6


def _first_come(cost: np.ndarray) -> np.ndarray:
    """(K, 2) pairs: each detection in list order takes its cheapest remaining track if that is below 1e16."""
    cost = cost.copy()
    pairs = []
    for i, row in enumerate(cost):
        j = int(row.argmin())
        if row[j] < 1e16:
            cost[:, j] = _FORBIDDEN
            pairs.append((i, j))
    return np.array(pairs, np.int64).reshape(-1, 2)
