"""Greedy closest-point tracker. Source: CenterPoint (Yin et al. 2021), section on tracking; without the published code's defects."""

from typing import Any, TypeVar

import numpy as np

from perception.core.boxes import Boxes3D
from perception.core.classes import ClassSet
from perception.core.detections import Detections, Tracks
from perception.tracking import kernel
from perception.tracking.clock import expect_next
from perception.tracking.config import GreedyConfig

Value = TypeVar("Value", Boxes3D, Tracks)


class GreedyTracker:
    """Tracks of one drive, frame by frame; `reset()` begins another drive.

    Detections choose their track in the order of their score (equal scores: in the given order). A track goes on over frames without
    detections, predicted with its velocity over the time that really passed, until its class's `max_age`. Ids count from 1 in the order
    of birth, so that the same input gives the same ids; they are unique within a drive.
    """

    def __init__(self, config: GreedyConfig) -> None:
        self.config = config
        self.classes = ClassSet(tuple(config.gate))
        self._gate = np.array([config.gate[name] for name in self.classes])
        self._max_age_us = np.array([round(config.max_age[name] * 1e6) for name in self.classes], np.int64)
        self._label_of: dict[ClassSet, np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all tracks and begin a new drive, ids from 1."""
        self._numbers = np.zeros((256, kernel.NUM_FLOATS))
        self._whole = np.zeros((256, kernel.NUM_INTS), np.int64)
        self._count, self._next_id = 0, 1
        self._timestamp_us: int | None = None

    def update(self, detections: Detections, timestamp_us: int) -> Tracks:
        """One frame in, the tracks alive at it out: in the global frame, by id, with the coasted ones.

        detections    in the global frame; classes that are not tracked are ignored
        timestamp_us  not before that of the call before (DataError); the same time again is a second look at the same moment
        The score of a track is that of its last detection, times a confidence 1 - (1 - first_confidence)^hits that grows with the number
        of detections, times `coast_decay` for each second without one. An unknown (NaN) velocity is replaced by what the track did between
        its last two detections; in the first frame of a track it stays NaN.
        """
        now = self._timestamp_us = expect_next("GreedyTracker.update", detections, timestamp_us, self._timestamp_us)
        numbers, whole = self._room_for(len(detections))
        self._count = kernel.retire(numbers, whole, self._count, now, self._max_age_us)
        if len(detections):
            config = self.config
            found = _rows(detections)
            label = self._tracked_label(detections)
            order = np.argsort(-found[:, kernel.SCORE], kind="stable")
            match = kernel.associate(
                order, found, label, numbers, whole, self._count, now, self._gate, config.gate_growth, config.gate_horizon
            )
            self._count, self._next_id = kernel.absorb(
                order, match, found, label, numbers, whole, self._count, now, config.birth_score, self._next_id
            )
        return self._tracks(detections, now)

    def _tracks(self, detections: Detections, now: int) -> Tracks:
        """The state as values that later frames do not touch."""
        config, count = self.config, self._count
        center, size, yaw, velocity = np.empty((count, 3)), np.empty((count, 3)), np.empty(count), np.empty((count, 2))
        score, age, coasted = np.empty(count), np.empty(count), np.empty(count, np.bool_)
        label, track_id, hits, source = (np.empty(count, np.int64) for _ in range(4))
        shown = kernel.report(
            self._numbers, self._whole, count, now, config.min_hits, config.first_confidence, config.coast_decay,
            center, size, yaw, velocity, label, score, track_id, age, hits, coasted, source,
        )  # fmt: skip
        if shown < count:
            center, size, yaw, velocity, score, age = (column[:shown] for column in (center, size, yaw, velocity, score, age))
            coasted, label, track_id, hits, source = (column[:shown] for column in (coasted, label, track_id, hits, source))
        return _unchecked(
            Tracks,
            boxes=_unchecked(Boxes3D, center=center, size=size, yaw=yaw, velocity=velocity),
            label=label,
            score=score,
            classes=self.classes,
            track_id=track_id,
            age=age,
            hits=hits,
            coasted=coasted,
            detection_index=source,
            attribute=_carried(detections.attribute, source, ""),
            num_points=_carried(detections.num_points, source, -1),
            covariance=None,
        )

    def _tracked_label(self, detections: Detections) -> np.ndarray:
        """(N,) int64 label in the tracked classes, -1 for a class that is not tracked."""
        table = self._label_of.get(detections.classes)
        if table is None:
            table = self._label_of[detections.classes] = self.classes.labels_from(detections.classes)
        return table[detections.label]

    def _room_for(self, births: int) -> tuple[np.ndarray, np.ndarray]:
        """The state matrices, grown so that every detection of a frame could start a track."""
        needed = self._count + births
        if needed > len(self._numbers):
            grow = ((0, 2 * needed - len(self._numbers)), (0, 0))
            self._numbers, self._whole = np.pad(self._numbers, grow), np.pad(self._whole, grow)
        return self._numbers, self._whole


def _rows(detections: Detections) -> np.ndarray:
    """(N, NUM_FLOATS) the detections in the kernel's columns, always of one memory layout: numba compiles for each layout anew."""
    boxes = detections.boxes
    rows = np.empty((len(boxes), kernel.NUM_FLOATS), order="F")  # by column: filled twice as fast
    rows[:, : kernel.SIZE] = boxes.center
    rows[:, kernel.SIZE : kernel.YAW] = boxes.size
    rows[:, kernel.YAW] = boxes.yaw
    rows[:, kernel.VX : kernel.SCORE] = boxes.velocity
    rows[:, kernel.SCORE] = detections.score
    return rows


def _carried(column: np.ndarray | None, source: np.ndarray, unseen: str | int) -> np.ndarray | None:
    """A column of the detections for tracks seen as row `source`, `unseen` where that is -1; None for None."""
    if column is None:
        return None
    if not len(column):
        return np.full(len(source), unseen, column.dtype)
    values = column[source]
    values[source < 0] = unseen
    return values


def _unchecked(kind: type[Value], **columns: Any) -> Value:
    """A frozen value without its checks at construction, which took a third of a frame's time.

    Every field must be given, in its final type. Only for what the kernel has just made from detections that were checked.
    """
    value = object.__new__(kind)
    value.__dict__.update(columns)
    return value
