"""Greedy closest-point tracker. Source: CenterPoint (Yin et al. 2021), section on tracking; without the published code's defects."""

import numpy as np

from perception.core.boxes import Boxes3D
from perception.core.classes import ClassSet
from perception.core.detections import Detections, Tracks
from perception.core.errors import DataError
from perception.tracking import kernel
from perception.tracking.config import GreedyConfig


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
        if self._timestamp_us is not None and timestamp_us < self._timestamp_us:
            raise DataError(
                f"GreedyTracker.update: expected timestamp_us >= {self._timestamp_us}, got {timestamp_us}; "
                "sort the frames by time, or call reset() to begin another drive"
            )
        self._timestamp_us = int(timestamp_us)
        numbers, whole = self._room_for(len(detections))
        self._count = kernel.retire(numbers, whole, self._count, timestamp_us, self._max_age_us)
        if len(detections):
            label = self._tracked_label(detections)
            order = np.argsort(-detections.score, kind="stable")
            order = order[label[order] >= 0]
            boxes = np.column_stack((detections.boxes.center, detections.boxes.size, detections.boxes.yaw, detections.boxes.velocity))
            config = self.config
            match = kernel.associate(order, boxes, label, numbers, whole, self._count, timestamp_us, self._gate, config.gate_growth, config.gate_horizon)
            self._count, self._next_id = kernel.absorb(
                order, match, boxes, label, detections.score, numbers, whole, self._count, timestamp_us, config.birth_score, self._next_id
            )
        return self._tracks(detections, timestamp_us)

    def _tracks(self, detections: Detections, timestamp_us: int) -> Tracks:
        """The state as values that later frames do not touch."""
        numbers, whole = self._numbers[: self._count], self._whole[: self._count]
        if self.config.min_hits > 1:
            reported = whole[:, kernel.HITS] >= self.config.min_hits
            numbers, whole = numbers[reported], whole[reported]
        source = whole[:, kernel.DETECTION].copy()
        unseen = (timestamp_us - whole[:, kernel.SEEN_US]) * 1e-6
        coasted = source < 0
        center, velocity = numbers[:, :3].copy(), numbers[:, kernel.VX : kernel.VY + 1].copy()
        import os
        mode=os.environ.get("SC","mean")
        score = numbers[:, kernel.SCORE] * (1 - (1 - self.config.first_confidence) ** whole[:, kernel.HITS])
        if coasted.any():
            center[:, :2] += np.nan_to_num(velocity) * unseen[:, None]
            score *= self.config.coast_decay**unseen
        return Tracks(
            Boxes3D(center, numbers[:, kernel.SIZE : kernel.YAW].copy(), numbers[:, kernel.YAW].copy(), velocity),
            whole[:, kernel.LABEL].copy(),
            score,
            self.classes,
            track_id=whole[:, kernel.ID].copy(),
            age=(timestamp_us - whole[:, kernel.BORN_US]) * 1e-6,
            hits=whole[:, kernel.HITS].copy(),
            coasted=coasted,
            detection_index=source,
            attribute=None if detections.attribute is None else np.where(coasted, "", detections.attribute[source]) if len(detections) else None,
            num_points=None if detections.num_points is None else np.where(coasted, -1, detections.num_points[source]) if len(detections) else None,
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
