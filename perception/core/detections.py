"""What a detector says of one frame, and what a tracker makes of it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perception.core.boxes import Boxes3D
from perception.core.classes import ClassSet
from perception.core.errors import DataError
from perception.core.expect import expect_array, expect_labels, expect_strings
from perception.core.rows import select_rows
from perception.core.transform import Transform


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """N objects of one frame: detected, or annotated (truth), in the frame of `boxes`.

    boxes       Boxes3D of length N
    label       (N,) int64    index into `classes`
    score       (N,) float64  finite; 1 for truth
    classes     ClassSet
    attribute   (N,) str or None    nuScenes attribute, "" where the object has none
    num_points  (N,) int64 or None  lidar points inside of the box
    instance    (N,) str or None    token of the physical object (truth)
    visibility  (N,) int64 or None  nuScenes level 1 (0-40 %) to 4 (80-100 %), 0 where it was not annotated (truth)
    """

    boxes: Boxes3D
    label: np.ndarray
    score: np.ndarray
    classes: ClassSet
    attribute: np.ndarray | None = None
    num_points: np.ndarray | None = None
    instance: np.ndarray | None = None
    visibility: np.ndarray | None = None
    _has_rows = True

    def __post_init__(self) -> None:
        _check_common(self)
        if self.instance is not None:
            object.__setattr__(self, "instance", expect_strings("Detections.instance", self.instance, len(self)))
        if self.visibility is not None:
            object.__setattr__(self, "visibility", expect_array("Detections.visibility", self.visibility, (len(self),), "int64"))

    @classmethod
    def empty(cls, classes: ClassSet) -> "Detections":
        return cls(Boxes3D.empty(), np.zeros(0, np.int64), np.zeros(0), classes)

    @property
    def names(self) -> np.ndarray:
        """(N,) str class names."""
        return self.classes.array[self.label]

    def transformed(self, a_to_b: Transform) -> "Detections":
        """The same objects with their boxes moved from frame `a` to `b`."""
        return replace(self, boxes=self.boxes.transformed(a_to_b))

    def with_classes(self, classes: ClassSet) -> "Detections":
        """The objects whose class `classes` has, labelled by it; the rest is left out."""
        label = classes.labels_from(self.classes)[self.label]
        kept = self[label >= 0]
        return replace(kept, label=label[label >= 0], classes=classes)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> "Detections":
        return select_rows(self, index)

    def __repr__(self) -> str:
        return f"Detections({_summary(self)})"


@dataclass(frozen=True, eq=False, repr=False)
class Tracks:
    """N tracks alive at one moment, in the frame of `boxes` (global, as trackers give them).

    boxes            Boxes3D of length N
    label            (N,) int64    index into `classes`
    score            (N,) float64  tracking score, finite
    classes          ClassSet
    track_id         (N,) int64    each once; unique within one drive
    age              (N,) float64  seconds since the track's first detection
    hits             (N,) int64    detections over the life of the track
    coasted          (N,) bool     predicted, not seen in this frame
    detection_index  (N,) int64 or None  row of this frame's detections that the track was seen as, -1 where coasted
    attribute        (N,) str or None    nuScenes attribute, "" where the object has none
    num_points       (N,) int64 or None  lidar points inside of the box, -1 where coasted
    covariance       (N, 4, 4) float64 or None  of x, y, vx, vy
    """

    boxes: Boxes3D
    label: np.ndarray
    score: np.ndarray
    classes: ClassSet
    track_id: np.ndarray
    age: np.ndarray
    hits: np.ndarray
    coasted: np.ndarray
    detection_index: np.ndarray | None = None
    attribute: np.ndarray | None = None
    num_points: np.ndarray | None = None
    covariance: np.ndarray | None = None
    _has_rows = True

    def __post_init__(self) -> None:
        _check_common(self)
        count = len(self)
        for name, dtype in (("track_id", "int64"), ("age", "float64"), ("hits", "int64"), ("coasted", "bool")):
            object.__setattr__(self, name, expect_array(f"Tracks.{name}", getattr(self, name), (count,), dtype))
        if self.detection_index is not None:
            object.__setattr__(self, "detection_index", expect_array("Tracks.detection_index", self.detection_index, (count,), "int64"))
        if self.covariance is not None:
            object.__setattr__(self, "covariance", expect_array("Tracks.covariance", self.covariance, (count, 4, 4), "float64"))

    @classmethod
    def empty(cls, classes: ClassSet) -> "Tracks":
        none = np.zeros(0, np.int64)
        return cls(Boxes3D.empty(), none, np.zeros(0), classes, none, np.zeros(0), none, np.zeros(0, bool), none)

    @property
    def names(self) -> np.ndarray:
        """(N,) str class names."""
        return self.classes.array[self.label]

    def transformed(self, a_to_b: Transform) -> "Tracks":
        """The same tracks with their boxes moved from frame `a` to `b`; the covariance's axes turn with the ground plane."""
        covariance = self.covariance
        if covariance is not None:
            turn = np.kron(np.eye(2), a_to_b.rotation[:2, :2])
            covariance = turn @ covariance @ turn.T
        return replace(self, boxes=self.boxes.transformed(a_to_b), covariance=covariance)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> "Tracks":
        return select_rows(self, index)

    def __repr__(self) -> str:
        return f"Tracks({_summary(self)}, {int(self.coasted.sum())} coasted)"


def _check_common(value: Detections | Tracks) -> None:
    """Validate the columns that detections and tracks share."""
    kind = type(value).__name__
    for name, wanted in (("boxes", Boxes3D), ("classes", ClassSet)):
        if not isinstance(getattr(value, name), wanted):
            raise DataError(f"{kind}.{name}: expected {wanted.__name__}, got {type(getattr(value, name)).__name__}")
    count = len(value.boxes)
    label = expect_array(f"{kind}.label", value.label, (count,), "int64")
    expect_labels(f"{kind}.label", label, len(value.classes))
    object.__setattr__(value, "label", label)
    object.__setattr__(value, "score", expect_array(f"{kind}.score", value.score, (count,), "float64", finite=True))
    if value.attribute is not None:
        object.__setattr__(value, "attribute", expect_strings(f"{kind}.attribute", value.attribute, count))
    if value.num_points is not None:
        object.__setattr__(value, "num_points", expect_array(f"{kind}.num_points", value.num_points, (count,), "int64"))


def _summary(value: Detections | Tracks) -> str:
    counts = np.bincount(value.label, minlength=len(value.classes))
    parts = ", ".join(f"{n} {name}" for name, n in zip(value.classes, counts, strict=True) if n)
    return f"{len(value)} objects: {parts}" if parts else "0 objects"
