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
