"""The bodies of simulated objects: what stands inside an annotation box, as shapes for a simulated lidar and a camera."""

from collections.abc import Sequence

import numpy as np

from perception.core import NUSCENES_DETECTION, UsageError
from perception.drives.simulated.cars import car
from perception.drives.simulated.construction import construction_vehicle
from perception.drives.simulated.cycles import bicycle, motorcycle
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.parts import Parts
from perception.drives.simulated.people import pedestrian, walking
from perception.drives.simulated.small_objects import barrier, traffic_cone
from perception.drives.simulated.trucks import bus, trailer, truck

_MADE_OF_SIZE = {
    "car": car,
    "truck": truck,
    "bus": bus,
    "trailer": trailer,
    "construction_vehicle": construction_vehicle,
    "traffic_cone": traffic_cone,
    "barrier": barrier,
}
_CYCLES = {"bicycle": bicycle, "motorcycle": motorcycle}


def body_of(
    class_name: str,
    size: np.ndarray,
    rng: np.random.Generator,
    *,
    stride: float = 0.0,
    has_rider: bool = True,
    is_sitting: bool = False,
) -> Matter:
    """One object of a nuScenes detection class, in its own frame: x forward, y left, z up from the middle of its box's bottom, metres.

    size        (3,) length, width, height of the annotation box, each above 0; every part lies inside. A barrier's width is its long side
    rng         draws all that differs between individuals: style, proportions, paint, clothes
    stride      phase of the walk in radians, 0 stands: the same rng state with another stride is the same individual in another pose
    has_rider   bicycles and motorcycles: someone sits on it
    is_sitting  pedestrians: on a seat, or in a wheel-chair
    Shares of returns and reflectivities follow measurements of real recordings (see the modules of the classes). The parts belong to no
    object yet: `Matter.owned_by`. Raises UsageError for another class or a size that is none.
    """
    return parts_of(class_name, size, rng, stride=stride, has_rider=has_rider, is_sitting=is_sitting).matter()


def parts_of(
    class_name: str,
    size: np.ndarray,
    rng: np.random.Generator,
    *,
    stride: float = 0.0,
    has_rider: bool = True,
    is_sitting: bool = False,
) -> Parts:
    """What `body_of` makes its body of: many of them become one table faster than one by one (`parts.matter_of`)."""
    given = _taken(size)
    if class_name == "pedestrian":
        return pedestrian(given, rng, stride=stride, is_sitting=is_sitting)
    if class_name in _CYCLES:
        return _CYCLES[class_name](given, rng, has_rider=has_rider)
    if class_name not in _MADE_OF_SIZE:
        raise UsageError(f"body_of: class_name: expected one of {', '.join(NUSCENES_DETECTION)}, got {class_name!r}")
    return _MADE_OF_SIZE[class_name](given, rng)


def walk_of(size: np.ndarray, rng: np.random.Generator, strides: Sequence[float]) -> list[Parts]:
    """The same pedestrian in several poses: what `parts_of` gives for each stride, from the same state of `rng`."""
    return walking(_taken(size), rng, strides)


def _taken(size: np.ndarray) -> np.ndarray:
    given = np.asarray(size, np.float64)
    if given.shape != (3,) or not (np.isfinite(given) & (given > 0)).all():
        raise UsageError(f"body_of: size: expected 3 lengths above 0 in metres (length, width, height), got {size}")
    return given
