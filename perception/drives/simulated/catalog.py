"""What nuScenes-like tables name: categories, attributes, visibility levels, the sensor rig, object sizes; and tokens.

Sources: the public nuScenes schema and data (names, numbers of annotations a category); the rig and the sizes were measured on the
recordings of the official mini split.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from perception.core import NUSCENES_ATTRIBUTES

# Category -> number of annotations in the official trainval set (1,166,187 in all); the mix that generated tables copy.
CATEGORIES: dict[str, int] = {
    "human.pedestrian.adult": 208240,
    "human.pedestrian.child": 2066,
    "human.pedestrian.wheelchair": 503,
    "human.pedestrian.stroller": 1072,
    "human.pedestrian.personal_mobility": 395,
    "human.pedestrian.police_officer": 727,
    "human.pedestrian.construction_worker": 9161,
    "animal": 787,
    "vehicle.car": 493322,
    "vehicle.motorcycle": 12617,
    "vehicle.bicycle": 11859,
    "vehicle.bus.bendy": 1820,
    "vehicle.bus.rigid": 14501,
    "vehicle.truck": 88519,
    "vehicle.construction": 14671,
    "vehicle.emergency.ambulance": 49,
    "vehicle.emergency.police": 638,
    "vehicle.trailer": 24860,
    "movable_object.barrier": 152087,
    "movable_object.trafficcone": 97959,
    "movable_object.pushable_pullable": 24605,
    "movable_object.debris": 3016,
    "static_object.bicycle_rack": 2713,
}

CATEGORY_OF_CLASS: dict[str, str] = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "construction_vehicle": "vehicle.construction",
    "pedestrian": "human.pedestrian.adult",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
}
ATTRIBUTES: tuple[str, ...] = NUSCENES_ATTRIBUTES
VISIBILITY_LEVELS: dict[str, str] = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}

# Detection class -> (mean, standard deviation) of length, width, height in metres. Source: unique objects of real recordings.
SIZES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "car": ((4.62, 1.95, 1.70), (0.35, 0.12, 0.16)),
    "truck": ((6.40, 2.36, 2.55), (1.10, 0.22, 0.45)),
    "bus": ((10.84, 2.92, 3.60), (1.20, 0.12, 0.30)),
    "trailer": ((11.0, 2.80, 3.80), (1.60, 0.20, 0.40)),
    "construction_vehicle": ((5.54, 2.66, 2.43), (0.90, 0.30, 0.30)),
    "pedestrian": ((0.74, 0.69, 1.77), (0.14, 0.10, 0.12)),
    "motorcycle": ((2.04, 0.75, 1.50), (0.20, 0.12, 0.15)),
    "bicycle": ((1.78, 0.59, 1.35), (0.14, 0.08, 0.20)),
    "traffic_cone": ((0.45, 0.45, 0.80), (0.06, 0.06, 0.12)),
    "barrier": ((0.63, 2.22, 1.08), (0.08, 0.08, 0.08)),
}


@dataclass(frozen=True)
class Sensor:
    """One sensor of the rig.

    rate_hz      sweeps or images a second
    offset_us    the time of its key frame minus the lidar's, microseconds
    translation  (x, y, z) in the ego frame, metres
    rotation     (w, x, y, z), sensor axes to ego axes
    intrinsics   (focal length, principal x, principal y) in pixels of a 1600 x 900 image; None where it is no camera
    """

    channel: str
    modality: str
    rate_hz: float
    offset_us: int
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    intrinsics: tuple[float, float, float] | None = None

    @property
    def file_format(self) -> str:
        return "jpg" if self.modality == "camera" else "pcd"

    @property
    def file_ending(self) -> str:
        return {"camera": ".jpg", "lidar": ".pcd.bin", "radar": ".pcd"}[self.modality]

    @property
    def intrinsic_matrix(self) -> list[list[float]]:
        """(3, 3) pinhole matrix as nuScenes writes it, [] where there is none."""
        if self.intrinsics is None:
            return []
        focal, x, y = self.intrinsics
        return [[focal, 0.0, x], [0.0, focal, y], [0.0, 0.0, 1.0]]


def _camera(
    name: str, offset_us: int, position: tuple[float, float, float], yaw_deg: float, intrinsics: tuple[float, float, float]
) -> Sensor:
    """A level camera that looks along `yaw_deg` from the ego vehicle's x axis."""
    half = np.radians(yaw_deg) / 2
    c, s = float(np.cos(half)) / 2, float(np.sin(half)) / 2
    # yaw about z, after the fixed turn (0.5, -0.5, 0.5, -0.5) from camera axes (right, down, forward) to (forward, left, up)
    rotation = (c + s, -c - s, c - s, -c + s)
    return Sensor(name, "camera", 12.0, offset_us, position, rotation, intrinsics)


def _radar(name: str, position: tuple[float, float, float], yaw_deg: float) -> Sensor:
    half = np.radians(yaw_deg) / 2
    return Sensor(name, "radar", 13.0, 10_000, position, (float(np.cos(half)), 0.0, 0.0, float(np.sin(half))))


SENSORS: tuple[Sensor, ...] = (
    # nose down by 1.39 degrees, x to the right: yaw -90 degrees, then the tilt
    Sensor("LIDAR_TOP", "lidar", 20.0, 0, (0.943713, 0.0, 1.84023), (0.7070546, -0.0085771, 0.0085771, -0.7070546)),
    _camera("CAM_FRONT", -35_200, (1.70, 0.01, 1.51), 0.3, (1266.4, 816.3, 491.5)),
    _camera("CAM_FRONT_RIGHT", -27_300, (1.55, -0.49, 1.50), -56.4, (1260.8, 807.9, 495.3)),
    _camera("CAM_BACK_RIGHT", -19_700, (1.02, -0.48, 1.56), -110.8, (1259.5, 807.3, 501.2)),
    _camera("CAM_BACK", -10_100, (0.03, 0.00, 1.57), 179.9, (809.2, 829.2, 481.8)),
    _camera("CAM_BACK_LEFT", -300, (1.04, 0.48, 1.59), 108.6, (1256.7, 792.1, 492.8)),
    _camera("CAM_FRONT_LEFT", -42_800, (1.52, 0.49, 1.51), 55.2, (1272.6, 826.6, 479.8)),
    _radar("RADAR_FRONT", (3.41, 0.0, 0.5), 0.0),
    _radar("RADAR_FRONT_RIGHT", (2.42, -0.80, 0.78), -90.0),
    _radar("RADAR_FRONT_LEFT", (2.42, 0.80, 0.78), 90.0),
    _radar("RADAR_BACK_RIGHT", (-0.56, -0.62, 0.53), -175.0),
    _radar("RADAR_BACK_LEFT", (-0.56, 0.63, 0.53), 175.0),
)


def token(*parts: object) -> str:
    """32 hex digits that depend on `parts` alone: the same names give the same token in every run."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def attribute_name(class_name: str, speed: float, *, parked: bool = False) -> str:
    """The nuScenes attribute of an object of a detection class that moves at `speed` m/s, "" where the class has none.

    parked  a vehicle without driver, or a cycle without rider
    """
    is_moving = speed > 0.2
    if class_name == "pedestrian":
        return "pedestrian.moving" if is_moving else "pedestrian.standing"
    if class_name in ("bicycle", "motorcycle"):
        return "cycle.without_rider" if parked else "cycle.with_rider"
    if class_name in ("traffic_cone", "barrier"):
        return ""
    if is_moving:
        return "vehicle.moving"
    return "vehicle.parked" if parked else "vehicle.stopped"


def draw_size(class_name: str, rng: np.random.Generator) -> np.ndarray:
    """(3,) length, width, height in metres of one object; within two standard deviations, long ones tend to be wide and high."""
    mean, std = np.array(SIZES[class_name])
    shared = rng.normal()
    return mean + std * np.clip(0.6 * shared + 0.8 * rng.normal(size=3), -2, 2)
