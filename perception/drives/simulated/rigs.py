"""Vehicles that carry a lidar: which model, where and how tilted it sits, and what it sees of the vehicle itself.

Sources: the nuScenes rig as measured on one of its frames, KITTI's from its calibration files and drawing; the others are guesses of
a mast on the same roof.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cuda_ops import Primitives, cast_rays
from perception.core import Transform, UsageError
from perception.core.errors import nearest_hint
from perception.drives.simulated.catalog import SENSORS
from perception.drives.simulated.ego import tilt
from perception.drives.simulated.lidar import OwnReturns, beams
from perception.drives.simulated.lidars import LIDARS, LidarModel
from perception.drives.simulated.matter import SCENERY, Matter

_OLDEST = 0.5  # seconds of sweeps that a cloud of several holds


@dataclass(frozen=True, eq=False)
class Rig:
    """A lidar on a vehicle.

    name          in RIGS
    model         the lidar
    lidar_to_ego  how it is mounted; the sensor's axes are those of the model's recordings
    own           parts of the vehicle that the lidar sees, x forward, y left, z up from the SENSOR, which they never move against;
                  None where `model.blind` says what the vehicle hides
    """

    name: str
    model: LidarModel
    lidar_to_ego: Transform
    own: Matter | None = None

    @property
    def num_sweeps(self) -> int:
        """Sweeps in a cloud of several: those of half a second, 10 at 20 Hz."""
        return max(round(_OLDEST * self.model.rate_hz), 1)

    @property
    def sweep_us(self) -> int:
        """Microseconds from one time stamp to the next."""
        return round(1e6 / self.model.rate_hz)

    @cached_property
    def own_returns(self) -> OwnReturns | None:
        """What each ray of a turn meets of the vehicle; the same in every turn."""
        if self.own is None:
            return None
        direction, lift = beams(self.model)
        if self.model.forward_axis == "y":
            direction = direction[..., [1, 0, 2]] * (1, -1, 1)
        ray = direction.reshape(-1, 3).astype(np.float32)
        origin = np.zeros_like(ray)
        origin[:, 2] = np.broadcast_to(lift, direction.shape[:2]).ravel()
        hits = cast_rays(origin, ray, self.own.shapes, min_range=self.model.range_limits[0])
        is_hit, size = hits.primitive >= 0, direction.shape[:2]
        cosine = np.where(is_hit, np.abs((hits.normal * ray).sum(axis=1)), 1.0)
        reading = np.where(is_hit, self.own.reflectivity[np.maximum(hits.primitive, 0)], 0.0)
        distance = np.where(is_hit, hits.distance, np.inf)
        return OwnReturns(*(values.astype(np.float32).reshape(size) for values in (distance, reading, cosine)))

    def varied(self, rng: np.random.Generator) -> "Rig":
        """The same lidar on another vehicle: up to 0.15 m lower or higher, tilted by up to a degree more about both axes."""
        pitch, roll = np.radians(rng.uniform(-1, 1, 2))
        turned = tilt(pitch, roll) @ self.lidar_to_ego.rotation
        raised = np.array([0, 0, rng.uniform(-0.15, 0.15)])
        return replace(self, lidar_to_ego=Transform(turned, self.lidar_to_ego.translation + raised))


def rig_of(name: str) -> Rig:
    """The rig of a lidar by name; UsageError with the nearest known name where there is none."""
    if name not in RIGS:
        raise UsageError(f"lidar {name!r}: expected one of {', '.join(RIGS)}{nearest_hint(name, tuple(RIGS))}")
    return RIGS[name]


def _roof() -> Matter:
    """Roof with a rack and four cameras, and the bonnet, of the vehicle that recorded nuScenes.

    Fitted to one of its sweeps: the roof lies 0.35 m below the lidar and reaches 1 m to the rear, cameras stand 0.65 to 0.85 m off,
    straight ahead, at both front corners and behind; of the bonnet 130 returns are seen between them, 0.8 m below.
    """
    boxes = [  # (rear, front), (right, left), (bottom, top); yaw; taper of front, rear, sides; reflectivity
        ((-0.76, 0.62), (-0.56, 0.56), (-0.55, -0.35), 0.0, (0, 0, 0.3), 30.0),  # roof
        ((-0.985, -0.76), (-0.42, 0.42), (-0.60, -0.385), 0.0, (0, 0, 0), 30.0),
        ((0.50, 0.98), (-0.55, 0.55), (-0.48, -0.36), 0.0, (2.7, 0, 1.0), 20.0),
        ((0.02, 0.14), (-0.51, -0.43), (-0.40, -0.265), 0.0, (0, 0, 0), 30.0),  # ends of the rack
        ((0.04, 0.16), (0.43, 0.51), (-0.40, -0.265), 0.0, (0, 0, 0), 30.0),
        ((0.62, 0.70), (-0.13, 0.09), (-0.40, -0.275), 0.0, (0, 0, 0), 50.0),  # cameras
        ((0.53, 0.63), (0.41, 0.52), (-0.40, -0.305), 0.7, (0, 0, 0), 50.0),
        ((0.55, 0.65), (-0.51, -0.42), (-0.40, -0.288), -0.7, (0, 0, 0), 50.0),
        ((-1.0, -0.60), (-0.075, 0.075), (-0.33, -0.258), 0.0, (3.5, 0, 0), 50.0),
        ((1.4, 2.2), (-0.66, 0.66), (-0.92, -0.79), 0.0, (3.7, 0, 1.5), 12.0),  # bonnet
    ]
    rows = [(*np.mean([x, y, z], axis=1), *np.ptp([x, y, z], axis=1), yaw) for x, y, z, yaw, _, _ in boxes]
    shapes = Primitives.boxes(np.array(rows), taper=np.array([taper for *_, taper, _ in boxes], float))
    return Matter.of(shapes, np.array([reading for *_, reading in boxes]), (60, 62, 66), SCENERY)


_NUSCENES = SENSORS[0]
_KITTI_ROTATION = np.array([  # of its calibration files: rolled by 0.85 degrees
    [0.9999976, -0.0007854, 0.0020244], [0.0007553, 0.9998898, 0.0148245], [-0.0020358, -0.0148230, 0.9998881],
])  # fmt: skip
_RAISED = 1.84  # metres of the others above the ground


def _rigs() -> list[Rig]:
    roof = _roof()
    left, _, right = np.linalg.svd(_KITTI_ROTATION)  # the files have seven digits
    mounts = {
        "hdl32e_nuscenes": (Transform.from_quaternion(_NUSCENES.rotation, _NUSCENES.translation), roof),
        "hdl64e_kitti": (Transform(left @ right, np.array([0.76, 0.0, 1.73])), None),
    }
    other = Transform(tilt(np.radians(1.0), 0.0), np.array([0.95, 0.0, _RAISED])), roof
    return [Rig(name, model, *mounts.get(name, other)) for name, model in LIDARS.items()]


RIGS: dict[str, Rig] = {rig.name: rig for rig in _rigs()}
NUSCENES_RIG, KITTI_RIG = RIGS["hdl32e_nuscenes"], RIGS["hdl64e_kitti"]
