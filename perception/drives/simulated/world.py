"""A simulated scene at any moment between its frames: where everything is, and what rays would meet there."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from perception.core import Transform
from perception.drives.simulated.bodies import parts_of, walk_of
from perception.drives.simulated.ego import PoseErrors, Sway, tilt
from perception.drives.simulated.furniture import Standing
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.parts import Parts, matter_of
from perception.drives.simulated.paths import PathTable
from perception.drives.simulated.population import Body
from perception.drives.simulated.routes import Route
from perception.drives.simulated.scenery import build_scenery
from perception.drives.simulated.terrain import Terrain
from perception.drives.simulated.traffic import STEP, Motion

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
    errors      of the recorded poses
    """

    terrain: Terrain
    routes: list[Route]
    motion: Motion
    ego: int
    sources: list[Body | Standing]
    owners: np.ndarray
    seed: int
    density: float
    errors: PoseErrors

    def ego_to_street(self, seconds: np.ndarray) -> list[Transform]:
        """True poses of the ego vehicle, wheels on the ground, leaning on its springs, at times (T,) from the first key frame on."""
        on_wheels = self.terrain.poses(*self._ego_on_path(seconds))
        leans = self._sway.at(seconds).tolist()
        return [Transform(p.rotation @ tilt(*lean), p.translation) for p, lean in zip(on_wheels, leans, strict=True)]

    def ego_speed(self, seconds: np.ndarray) -> np.ndarray:
        """(T,) m/s at times (T,) from the first key frame on."""
        return self.motion.at(np.asarray(seconds) + LEAD)[1][:, self.ego]

    def recorded_ego_to_street(self, seconds: float) -> Transform:
        """The pose that goes into recordings: the true one with the errors of localisation."""
        return self.errors.recorded(self.ego_to_street(np.array([seconds]))[0], seconds)

    def street_to_recorded(self, seconds: float) -> Transform:
        """Where things of the street are recorded: annotators see them from the true pose and place them by the recorded one."""
        return self.recorded_ego_to_street(seconds) @ self.ego_to_street(np.array([seconds]))[0].inverse()

    def places(self, seconds: float | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bottom middle (K, 3) and yaw (K,) of all sources, and the way (K,) that each has gone along its path, metres.

        seconds  a time, or one (K,) for each source
        """
        place, yaw, way = (values.copy() for values in self._standing_places)
        rows, mover, offset = self._movers
        way[rows] = self.motion.of(mover, np.broadcast_to(seconds, len(way))[rows] + LEAD) + offset
        x, y, yaw[rows] = self._paths.pose(mover, way[rows])
        place[rows] = np.stack([x, y, self.terrain.height(x, y)], axis=1)
        return place, yaw, way

    def matter_at(self, seconds: float) -> tuple[Matter, Matter]:
        """All shapes in the street frame but the ego vehicle: what stands (ground, scenery, parked things), and what moves.

        What stands is the same value at every time.
        """
        return self.matter_placed(self.places(seconds), seconds)

    def matter_placed(self, places: tuple[np.ndarray, np.ndarray, np.ndarray], seconds: float) -> tuple[Matter, Matter]:
        """What `matter_at` gives with all sources at `places`; of what moves, what is near the ego vehicle at a
        time."""
        place, yaw, way = places
        x, y, _ = self._ego_on_path(np.array([seconds]))
        moving, begins, ends = self._moving
        is_near = np.hypot(place[:, 0] - x, place[:, 1] - y) < _SIGHT
        near = np.flatnonzero(is_near & (ends[:, 0] > begins[:, 0]))
        phase = np.round(way[near] / STRIDE * _PHASES).astype(int) % _PHASES
        begin, count = begins[near, phase], ends[near, phase] - begins[near, phase]
        source = np.repeat(near, count)
        rows = np.arange(len(source)) + np.repeat(begin - np.cumsum(count) + count, count)
        return self._still, moving.taken(rows).moved(yaw[source], place[source])

    def _ego_on_path(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and yaw (T,) of the ego vehicle's rear axle at times (T,)."""
        s, _ = self.motion.at(np.asarray(seconds) + LEAD)
        return self.routes[self.ego].path.pose(s[:, self.ego] - REAR_AXLE)

    @cached_property
    def _paths(self) -> PathTable:
        return PathTable.of([route.path for route in self.routes])

    @cached_property
    def _movers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all sources that move: rows among the sources, whose bodies they are, and how far before its middle."""
        rows = np.array([i for i, source in enumerate(self.sources) if isinstance(source, Body)], np.int64)
        bodies = [source for source in self.sources if isinstance(source, Body)]
        return rows, np.array([body.mover for body in bodies], np.int64), np.array([body.offset for body in bodies], np.float64)

    @cached_property
    def _standing_places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `places` gives of all that stands; zeros of what moves."""
        stands = [i for i, source in enumerate(self.sources) if isinstance(source, Standing)]
        place, yaw = np.zeros((len(self.sources), 3)), np.zeros(len(self.sources))
        x, y, yaw[stands] = np.array([(s.x, s.y, s.yaw) for s in self.sources if isinstance(s, Standing)]).reshape(-1, 3).T
        place[stands] = np.stack([x, y, self.terrain.height(x, y)], axis=1)
        return place, yaw, np.zeros(len(self.sources))

    @cached_property
    def _sway(self) -> Sway:
        s, speed = self.motion.s[:, self.ego], self.motion.speed[:, self.ego]
        yaw = self.routes[self.ego].path.pose(s - REAR_AXLE)[2]
        return Sway.of(-LEAD, speed, yaw, STEP, np.random.default_rng([self.seed, 3]))

    @cached_property
    def _still(self) -> Matter:
        place, yaw, _ = self.places(0.0)
        standing = [i for i, source in enumerate(self.sources) if isinstance(source, Standing)]
        circles = np.concatenate([np.zeros((0, 3)), *[source.footprint for source in self.sources if isinstance(source, Standing)]])
        scenery = build_scenery(np.random.default_rng([self.seed, 1]), self.terrain, self.density, radius=150.0, keep_clear=circles)
        bodies, source = self._bodies(standing, [self._parts(i) for i in standing])
        return Matter.concatenate(self.terrain.matter(), scenery, bodies.moved(yaw[source], place[source]))

    @cached_property
    def _moving(self) -> tuple[Matter, np.ndarray, np.ndarray]:
        """The bodies of all that moves, in their own frames, and where those of each source begin and end in them, (K, _PHASES) each: one
        for each pose of a walk, of all else the same for all; 0 of what stands."""
        strides = [2 * np.pi * (k + 0.25) / _PHASES for k in range(_PHASES)]
        parts: list[Parts] = []
        owners: list[int] = []
        ends = np.zeros((len(self.sources), _PHASES), np.int64)
        begins, count = ends.copy(), 0
        for i in self._movers[0].tolist():
            source = self.sources[i]
            walks = source.class_name == "pedestrian"
            poses = walk_of(source.size, self._draws(i), strides) if walks else [self._parts(i)]
            for k, pose in enumerate(poses):
                phases = k if walks else slice(None)
                begins[i, phases], ends[i, phases] = count, count + len(pose)
                count += len(pose)
            parts += poses
            owners += [i] * len(poses)
        return self._bodies(owners, parts)[0], begins, ends

    def _bodies(self, sources: list[int], parts: list[Parts]) -> tuple[Matter, np.ndarray]:
        """Bodies of sources in their own frames, one after the other, and the source (P,) of each shape."""
        source = np.repeat(np.array(sources, np.int64), [len(body) for body in parts])
        return replace(matter_of(parts), owner=self.owners[source].astype(np.int32)), source

    def _parts(self, index: int) -> Parts:
        """The body of a source that does not walk."""
        source = self.sources[index]
        stands = isinstance(source, Standing)
        return parts_of(source.class_name, source.size, self._draws(index), has_rider=not stands, is_sitting=stands and source.is_sitting)

    def _draws(self, index: int) -> np.random.Generator:
        """What draws the body of a source."""
        return np.random.default_rng([self.seed, 2, index])
