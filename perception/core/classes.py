"""Object classes: ordered names, and how other data sets' names map onto them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perception.core.errors import UsageError, nearest_hint


@dataclass(frozen=True)
class ClassSet:
    """Class names in the order of their labels; a label is an index into `names`."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.names, str):  # a tuple of its letters otherwise
            raise UsageError(f"ClassSet: expected a sequence of names, got the text {self.names!r}")
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names or len(set(self.names)) != len(self.names) or not all(isinstance(name, str) for name in self.names):
            raise UsageError(f"ClassSet: expected different names, at least one, got {self.names}")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def array(self) -> np.ndarray:
        """(C,) str, for `array[label]`."""
        return np.array(self.names)

    def index(self, name: str) -> int:
        """The label of a class name; UsageError with the nearest known name where there is none."""
        try:
            return self._index[name]
        except KeyError:
            raise UsageError(f"class {name!r}: expected one of {', '.join(self.names)}{nearest_hint(name, self.names)}") from None

    def labels_from(self, other: "ClassSet") -> np.ndarray:
        """(len(other),) int64: this set's label of each of `other`'s classes, -1 where this set lacks it."""
        return np.array([self._index.get(name, -1) for name in other.names], dtype=np.int64)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"ClassSet({', '.join(self.names)})"


NUSCENES_DETECTION = ClassSet(
    ("car", "truck", "bus", "trailer", "construction_vehicle", "pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier")
)
NUSCENES_TRACKING = ClassSet(("bicycle", "bus", "car", "motorcycle", "pedestrian", "trailer", "truck"))
NUSCENES_ATTRIBUTES = (
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
)

# KITTI's `Tram` has no nuScenes class; `Misc` and `DontCare` are no classes. A KITTI cyclist is a box around bicycle and rider.
KITTI_TO_NUSCENES: Mapping[str, str] = {
    "Car": "car",
    "Van": "car",
    "Truck": "truck",
    "Pedestrian": "pedestrian",
    "Person_sitting": "pedestrian",
    "Person (sitting)": "pedestrian",
    "Person": "pedestrian",
    "Cyclist": "bicycle",
}
COCO_TO_NUSCENES: Mapping[str, str] = {
    "person": "pedestrian",
    "bicycle": "bicycle",
    "car": "car",
    "motorcycle": "motorcycle",
    "bus": "bus",
    "truck": "truck",
}
# Categories that the detection benchmark scores; the rest (animals, strollers, debris, ...) is no truth.
# Source: devkit `category_to_detection_name`.
CATEGORY_TO_CLASS: Mapping[str, str] = {
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
# The 80 classes that networks trained on COCO know, in the order of their labels.
# fmt: off
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant", "stop sign",
    "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
    "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
_CATEGORY_FAMILIES = ("animal", "flat.", "human.", "movable_object.", "static_object.", "vehicle.")  # of nuScenes and nuImages


def class_of_category(name: str) -> str | None:
    """The nuScenes class of a name of the ten themselves, of nuScenes' and nuImages' categories, or of COCO; None for one that has none.

    Raises UsageError, with the nearest known name, for a name of none of them.
    """
    if name in NUSCENES_DETECTION:
        return name
    if name in CATEGORY_TO_CLASS or name.startswith(_CATEGORY_FAMILIES):
        return CATEGORY_TO_CLASS.get(name)
    if name in COCO_CLASSES:
        return COCO_TO_NUSCENES.get(name)
    known = [*NUSCENES_DETECTION.names, *CATEGORY_TO_CLASS, *COCO_CLASSES]
    families = f"one of {', '.join(NUSCENES_DETECTION.names)}, a category of nuScenes, or a class of COCO"
    raise UsageError(f"class {name!r}: expected {families}{nearest_hint(name, known)}")
