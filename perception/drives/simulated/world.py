"""A simulated scene at any moment between its frames: where everything is, and what rays would meet there."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cuda_ops import Primitives
from perception.core import Transform
from perception.drives.simulated.bodies import body_of
from perception.drives.simulated.furniture import Standing
from perception.drives.simulated.matter import SCENERY, Matter
from perception.drives.simulated.population import Body
from perception.drives.simulated.routes import Route
from perception.drives.simulated.scenery import build_scenery
from perception.drives.simulated.terrain import Terrain
from perception.drives.simulated.traffic import Motion

LEAD = 0.8  # seconds of motion before the first key frame: its earlier sweeps
REAR_AXLE = 1.35  # metres from the middle of the ego vehicle back to its origin
STRIDE = 1.45  # metres of two steps
_PHASES = 12  # poses of a walking person that are kept
_SIGHT = 125.0  # metres around the ego vehicle beyond which nothing that moves is looked at


@dataclass(frozen=True, eq=False)
class World:
    """Everything of one scene as a function of time. Street frame: origin in the middle of the crossing, metres, z up.

    terrain     the ground
    routes, motion  of all road users; `motion` begins LEAD seconds before the first key frame
    ego         which road user carries the sensors
    sources     K things that can be seen, moving or standing, without the ego vehicle
    owners      (K,) row of each among the scene's objects, or SCENERY where nobody annotates it
    seed        draws scenery and bodies
    density     as in `simulate_scene`
    """

    terrain: Terrain
    routes: list[Route]
    motion: Motion
    ego: int
    sources: list[Body | Standing]
    owners: np.ndarray
    seed: int
    density: float

    def ego_to_street(self, seconds: np.ndarray) -> list[Transform]:
        """Poses of the ego vehicle, wheels on the ground, at times (T,) from the first key frame on."""
        s, _ = self.motion.at(np.asarray(seconds) + LEAD)
        x, y, yaw = self.routes[self.ego].path.pose(s[:, self.ego] - REAR_AXLE)
        return self.terrain.poses(x, y, yaw)

    def places(self, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bottom middle (K, 3) and yaw (K,) of all sources, and the way (K,) that each has gone along its path, metres."""
        s, _ = self.motion.at(np.array([seconds + LEAD]))
        rows = []
        for source in self.sources:
            if isinstance(source, Standing):
                rows.append((source.x, source.y, source.yaw, 0.0))
            else:
                way = s[0, source.mover] + source.offset
                x, y, yaw = self.routes[source.mover].path.pose(np.array([way]))
                rows.append((float(x[0]), float(y[0]), float(yaw[0]), float(way)))
        x, y, yaw, way = np.array(rows, np.float64).reshape(-1, 4).T
        return np.stack([x, y, self.terrain.height(x, y)], axis=1), yaw, way

    def matter_at(self, seconds: float) -> tuple[Matter, Matter]:
        """All shapes in the street frame: what stands (ground, scenery, parked things), and what moves, the ego vehicle's own roof too."""
        place, yaw, way = self.places(seconds)
        pose = self.ego_to_street(np.array([seconds]))[0]
        is_near = np.hypot(*(place - pose.translation)[:, :2].T) < _SIGHT
        moving, first = self._moving
        phase = np.round(way / STRIDE * _PHASES).astype(int) % _PHASES
        rows, owner_of_row = [], []
        for i in np.flatnonzero(is_near).tolist():
            if i in first:
                begins = first[i]
                k = int(phase[i]) if len(begins) > 2 else 0
                rows.append(np.arange(begins[k], begins[k + 1]))
                owner_of_row.append(np.full(len(rows[-1]), i))
        ego = ego_body().moved(pose.yaw, pose.translation)
        if not rows:
            return self._still, ego
        source = np.concatenate(owner_of_row)
        return self._still, Matter.concatenate(moving.taken(np.concatenate(rows)).moved(yaw[source], place[source]), ego)

    @cached_property
    def _still(self) -> Matter:
        place, yaw, _ = self.places(0.0)
        standing = [i for i, source in enumerate(self.sources) if isinstance(source, Standing)]
        circles = np.concatenate([np.zeros((0, 3)), *[source.footprint for source in self.sources if isinstance(source, Standing)]])
        scenery = build_scenery(np.random.default_rng([self.seed, 1]), self.terrain, self.density, radius=150.0, keep_clear=circles)
        return Matter.concatenate(self.terrain.matter(), scenery, *[self._body(i, 0).moved(yaw[i], place[i]) for i in standing])

    @cached_property
    def _moving(self) -> tuple[Matter, dict[int, list[int]]]:
        """The bodies of all that moves, in their own frames, and for each source where its poses begin in them."""
        parts: list[Matter] = []
        first: dict[int, list[int]] = {}
        count = 0
        for i, source in enumerate(self.sources):
            if isinstance(source, Body):
                poses = [self._body(i, k) for k in range(_PHASES if source.class_name == "pedestrian" else 1)]
                first[i] = [count, *(count + np.cumsum([len(pose) for pose in poses])).tolist()]
                count = first[i][-1]
                parts += poses
        return Matter.concatenate(*parts), first

    def _body(self, index: int, phase: int) -> Matter:
        """The body of a source in its own frame, in one of the poses of its walk."""
        source, rng = self.sources[index], np.random.default_rng([self.seed, 2, index])
        if isinstance(source, Standing):
            body = body_of(source.class_name, source.size, rng, has_rider=False, is_sitting=source.is_sitting)
        else:
            body = body_of(source.class_name, source.size, rng, stride=2 * np.pi * (phase + 0.25) / _PHASES)
        return body.owned_by(int(self.owners[index]))


def ego_body() -> Matter:
    """What the lidar sees of the vehicle that carries it, in the ego frame: the roof with its rack, and the bonnet.

    Measured on a nuScenes sweep: roof within 0.62 m of the middle, from 1 m behind to 1 m before the sensor and 0.3 to 0.9 m below it;
    bonnet 1.2 to 2.2 m before it, 0.6 to 0.9 m below.
    """
    boxes = np.array(
        [
            [0.80, 0.0, 1.22, 2.1, 1.24, 0.44, 0.0],  # cabin, up to the roof
            [0.35, 0.0, 1.50, 0.5, 1.00, 0.12, 0.0],  # rack behind the sensor
            [2.55, 0.0, 1.02, 1.3, 1.40, 0.24, 0.0],  # bonnet
        ]
    )
    shapes = Primitives.boxes(boxes, taper=np.array([[0.5, 0.3, 0.15], [0, 0, 0], [0.8, 0, 0.1]]))
    return Matter.of(shapes, np.array([12.0, 20.0, 12.0]), (60, 62, 66), SCENERY)
