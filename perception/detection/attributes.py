"""nuScenes attributes from the speed of a box, by the rule of the published detectors."""

import numpy as np

from perception.core.classes import ClassSet

MOVING_SPEED = 0.2  # m/s
_VEHICLE, _CYCLE = ("vehicle.moving", "vehicle.parked"), ("cycle.with_rider", "cycle.without_rider")
_MOVING_AND_STILL = {
    "car": _VEHICLE,
    "truck": _VEHICLE,
    "construction_vehicle": _VEHICLE,
    "trailer": _VEHICLE,
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "motorcycle": _CYCLE,
    "bicycle": _CYCLE,
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
}


def attributes_of(classes: ClassSet, label: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """(N,) str: what moves faster than 0.2 m/s over ground is moving; an unknown speed is not. "" for classes without attributes.

    label     (N,) index into `classes`
    velocity  (N, 2) m/s over ground
    Published code gives barriers and cones an attribute of bicycles; the metric does not read it.
    """
    table = np.array([_MOVING_AND_STILL.get(name, ("", "")) for name in classes])  # (C, 2)
    is_still = ~(np.hypot(velocity[:, 0], velocity[:, 1]) > MOVING_SPEED)
    return table[label, is_still.astype(int)]
