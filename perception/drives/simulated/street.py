"""A simulated street: what an annotator would have written down, frame by frame.

No two streets are laid out alike (`plans`). Traffic drives in lanes through a crossing, with or without lights, queues, turns, gives way,
waits at zebra crossings; people walk alone and in groups and cross the roads; rows of vehicles are parked along the kerbs and on lots;
a construction site closes a piece of the kerb. One of the cars is the ego vehicle.
Sizes, speeds and spacing follow measurements of real recordings. What sensors would see of it is in `world`.
"""

from dataclasses import dataclass

import numpy as np

from perception.core import NUSCENES_DETECTION, Boxes3D, Detections, Transform, UsageError
from perception.drives.simulated.catalog import attribute_name, token
from perception.drives.simulated.ego import PoseErrors
from perception.drives.simulated.furniture import Standing, furnish
from perception.drives.simulated.matter import SCENERY
from perception.drives.simulated.plans import draw_plan
from perception.drives.simulated.population import Body, Population, populate
from perception.drives.simulated.roads import REACH, Plan
from perception.drives.simulated.terrain import Terrain
from perception.drives.simulated.traffic import Motion, green_begins, simulate_traffic
from perception.drives.simulated.visibility import is_in_sight, visible_fraction
from perception.drives.simulated.world import LEAD, World

FRAME_US = 500_000  # 2 Hz key frames
JITTER_US = 3_000
WARM_UP = 15.0  # seconds in which the drawn start turns into traffic
SIGHT_STRIDE = 4  # key frames between two looks at whether houses hide an object
LEAST_SEEN = 5e-4  # steradians that an object must fill at least once to be annotated: about one return of a 32-beam lidar
TAIL = 0.5  # seconds of motion after the last key frame


@dataclass(frozen=True, eq=False)
class SimulatedObject:
    """One physical object over the F frames of a scene, in the global frame. Where it is not `present` the values go on regardless.

    class_name  one of the nuScenes detection classes
    token       its name in tables, 32 hex digits
    size        (3,) length, width, height in metres
    present     (F,) bool   annotated: from the first to the last frame in which it is seen within the scene's radius of the ego vehicle
    center      (F, 3)      middle of the box, metres
    yaw         (F,)        radians, continuous
    velocity    (F, 2)      m/s
    attribute   (F,) str    nuScenes attribute, "" where the class has none
    visibility  (F,)        share of the object's front that no nearer object and no row of houses hides from the ego vehicle's roof, 0..1
    """

    class_name: str
    token: str
    size: np.ndarray
    present: np.ndarray
    center: np.ndarray
    yaw: np.ndarray
    velocity: np.ndarray
    attribute: np.ndarray
    visibility: np.ndarray


@dataclass(frozen=True, eq=False)
class SimulatedScene:
    """F key frames of a drive: `timestamps_us` (F,) int64, the ego vehicle's poses, the objects around it, and the world they are in.

    Poses are the recorded ones, a little off (see `ego`); the truth follows them, as an annotator's would who marks boxes in the cloud of a
    key frame: relative to the vehicle every box is exactly where the sensors see the object, and on the map it shares the pose's error.
    """

    name: str
    timestamps_us: np.ndarray
    ego_to_global: list[Transform]
    objects: list[SimulatedObject]
    world: World
    street_to_global: Transform

    def __len__(self) -> int:
        return len(self.timestamps_us)

    def ego_to_global_at(self, seconds: float) -> Transform:
        """The recorded pose at a time from the first key frame on."""
        return self.street_to_global @ self.world.recorded_ego_to_street(seconds)

    def street_to_global_at(self, seconds: float) -> Transform:
        """Where things of the street are recorded at a time from the first key frame on."""
        return self.street_to_global @ self.world.street_to_recorded(seconds)

    def truth(self, frame: int) -> Detections:
        """The objects present at a frame, in the order of `objects`, in the global frame."""
        here = [thing for thing in self.objects if thing.present[frame]]
        if not here:
            return Detections.empty(NUSCENES_DETECTION)
        columns = (np.array([getattr(thing, name)[frame] for thing in here]) for name in ("center", "yaw", "velocity"))
        center, yaw, velocity = columns
        boxes = Boxes3D(center, np.array([thing.size for thing in here]), yaw, velocity)
        label = np.array([NUSCENES_DETECTION.index(thing.class_name) for thing in here])
        attribute, instance = np.array([str(thing.attribute[frame]) for thing in here]), np.array([thing.token for thing in here])
        return Detections(boxes, label, np.ones(len(here)), NUSCENES_DETECTION, attribute=attribute, instance=instance)


def simulate_scenes(num_scenes: int, *, seed: int, num_frames: int = 40, density: float = 1.0) -> list[SimulatedScene]:
    """Scenes `sim-0001`, ... one minute apart; each depends on the seed and its own number only."""
    return [
        simulate_scene(f"sim-{i + 1:04d}", np.random.default_rng([seed, i]), num_frames=num_frames, density=density, start_us=_start_us(i))
        for i in range(num_scenes)
    ]


def simulate_scene(
    name: str,
    rng: np.random.Generator,
    *,
    num_frames: int = 40,
    density: float = 1.0,
    radius: float = 60.0,
    start_us: int = 1_600_000_000_000_000,
    pose_errors: float = 1.0,
    keeps_height: bool = False,
    balanced: bool = False,
) -> SimulatedScene:
    """One drive through a new street.

    num_frames  key frames, half a second apart
    density     1 gives 15 - 120 objects within `radius` of the ego vehicle, 65 in the mean; people and traffic scale with it
    radius      metres around the ego vehicle in which objects are annotated
    pose_errors   how far recorded poses are off: 0 not at all, 1 as usual (4 cm, 0.04 degrees)
    keeps_height  recorded poses have the true height; else it is 0, as on nuScenes
    balanced      for training: the rare classes are three times as frequent as on real streets, at the cost of cars
    """
    if num_frames < 1 or density <= 0 or radius <= 0:
        raise UsageError(f"simulate_scene: expected num_frames >= 1, density > 0 and radius > 0, got {num_frames}, {density} and {radius}")
    timestamps_us = start_us + FRAME_US * np.arange(num_frames, dtype=np.int64) + rng.integers(-JITTER_US, JITTER_US + 1, num_frames)
    plan = draw_plan(rng)
    population = populate(rng, plan, density, balanced=balanced)
    duration = num_frames * FRAME_US / 1e6
    wants_turn = bool(rng.random() < 0.5)
    # the ego vehicle's light turns green a few seconds into the scene
    clock = green_begins(2 * int(rng.integers(2)) + wants_turn) - WARM_UP - rng.uniform(1, 6)
    motion = simulate_traffic(population.movers(has_lights=plan.has_lights), clock=clock, warm_up=WARM_UP, duration=LEAD + duration + TAIL)
    ego = _choose_ego(population, motion, wants_turn)
    # the construction site lies on the ego vehicle's way
    standing = furnish(rng, plan, density, site_arms=population.routes[ego].arms, balanced=balanced)
    # the street lies anywhere on the map, turned by any angle; all of it at x, y > 0, where maps have pixels
    street_to_global = Transform.from_yaw(rng.uniform(-np.pi, np.pi), (*rng.uniform(1.1 * REACH, 2.2 * REACH, 2), 0.0))
    seed = int(rng.integers(2**62))
    terrain = Terrain.draw(np.random.default_rng([seed, 0]), plan)
    seconds = (timestamps_us - timestamps_us[0]) / 1e6
    s, speed = motion.at(seconds + LEAD)
    sources = [body for body in population.bodies if body.mover != ego] + standing
    errors = PoseErrors.draw(np.random.default_rng([seed, 4]), scale=pose_errors, keeps_height=keeps_height)
    world = World(terrain, population.routes, motion, ego, sources, np.full(len(sources), SCENERY), seed, density, errors)
    poses = world.ego_to_street(seconds)
    ego_xy = np.array([pose.translation[:2] for pose in poses])
    tracks = _tracks(sources, population, s, speed, terrain)
    # far away during the whole scene: nobody would have annotated it
    rows = [i for i, track in enumerate(tracks) if (np.hypot(*(track.center[:, :2] - ego_xy).T) <= radius).any()]
    tracks = [tracks[i] for i in rows]
    apart = np.array([np.hypot(*(track.center[:, :2] - ego_xy).T) for track in tracks]).reshape(-1, num_frames)
    visibility = _visibility(plan, tracks, apart <= radius, ego_xy)
    front = np.array([np.sqrt(track.size[0] * track.size[1]) * track.size[2] for track in tracks]).reshape(-1, 1)
    is_seen = (apart <= radius) & (visibility > 0.1) & (visibility * front > LEAST_SEEN * np.maximum(apart, 1.0) ** 2)
    recorded = [street_to_global @ errors.recorded(pose, t) for pose, t in zip(poses, seconds.tolist(), strict=True)]
    # annotators see things from the true pose and place them by the recorded one
    maps = [shown @ pose.inverse() for shown, pose in zip(recorded, poses, strict=True)]
    objects = []
    for i in np.flatnonzero(is_seen.any(axis=1)).tolist():  # nobody annotates what is never seen
        world.owners[rows[i]] = len(objects)
        name_of = token(name, "instance", i, start_us)
        objects.append(tracks[i].finished(name_of, _without_gaps(is_seen[i]), visibility[i], maps))
    return SimulatedScene(name, timestamps_us, recorded, objects, world, street_to_global)


def _without_gaps(is_seen: np.ndarray) -> np.ndarray:
    """(F,) bool: true from the first to the last true; annotators follow an object that comes back."""
    return np.maximum.accumulate(is_seen) & np.maximum.accumulate(is_seen[::-1])[::-1]


def _visibility(plan: Plan, tracks: list["_Track"], is_near: np.ndarray, ego_xy: np.ndarray) -> np.ndarray:
    """(N, F) share of each object that is seen from the ego vehicle; 1 where it is not near."""
    visibility, num_frames = np.ones(is_near.shape), len(ego_xy)
    for f in range(num_frames):
        here = np.flatnonzero(is_near[:, f])
        boxes = np.array([[*tracks[i].center[f, :2], *tracks[i].size, tracks[i].yaw[f]] for i in here]).reshape(-1, 6)
        visibility[here, f] = visible_fraction(boxes, ego_xy[f])
    if is_near.any():
        looks = np.arange(num_frames) // SIGHT_STRIDE * SIGHT_STRIDE
        xy = np.array([track.center[:, :2] for track in tracks])
        sight = np.ones(is_near.shape, bool)
        row, frame = np.nonzero(np.isin(np.arange(num_frames), looks) & (is_near | is_near[:, looks]))
        sight[row, frame] = is_in_sight(plan, xy[row, frame], ego_xy[frame])
        visibility *= sight[:, looks]
    return visibility


def _start_us(index: int) -> int:
    return 1_600_000_000_000_000 + index * 60_000_000


@dataclass(frozen=True, eq=False)
class _Track:
    """An object in the street frame before it is known who sees it; arrays as in SimulatedObject."""

    class_name: str
    size: np.ndarray
    center: np.ndarray
    yaw: np.ndarray
    speed: np.ndarray
    is_parked: bool
    is_sitting: bool = False

    def finished(self, name: str, present: np.ndarray, visibility: np.ndarray, maps: list[Transform]) -> SimulatedObject:
        """`maps` are street to global, one a frame."""
        yaw = self.yaw + np.unwrap([street_to_global.yaw for street_to_global in maps])
        velocity = self.speed[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        attribute = [attribute_name(self.class_name, v, parked=self.is_parked) for v in self.speed.tolist()]
        if self.is_sitting:
            attribute = ["pedestrian.sitting_lying_down"] * len(attribute)
        center = np.array([street_to_global.apply(place) for street_to_global, place in zip(maps, self.center, strict=True)])
        return SimulatedObject(self.class_name, name, self.size, present, center, yaw, velocity, np.array(attribute), visibility)


def _tracks(sources: list[Body | Standing], population: Population, s: np.ndarray, speed: np.ndarray, terrain: Terrain) -> list[_Track]:
    """The tracks of all bodies and of all that stands; s and speed (F, N) of all road users."""
    num_frames, zero = len(s), np.zeros(len(s))
    lines = []  # (3, F or 1): x, y, yaw
    for source in sources:
        if isinstance(source, Standing):
            lines.append(np.array([[source.x], [source.y], [source.yaw]]))
        else:
            lines.append(np.array(population.routes[source.mover].path.pose(s[:, source.mover] + source.offset)))
    x, y, _ = np.concatenate([np.zeros((3, 0)), *lines], axis=1)
    heights = np.split(terrain.height(x, y), np.cumsum([line.shape[1] for line in lines])[:-1]) if lines else []  # all at once: faster
    tracks = []
    for source, line, height in zip(sources, lines, heights, strict=True):
        center = np.stack([line[0], line[1], height + source.size[2] / 2], axis=1)
        if isinstance(source, Standing):
            still, yaw = np.repeat(center, num_frames, axis=0), zero + source.yaw
            tracks.append(_Track(source.class_name, source.size, still, yaw, zero, is_parked=True, is_sitting=source.is_sitting))
        else:
            tracks.append(_Track(source.class_name, source.size, center, line[2], speed[:, source.mover], is_parked=False))
    return tracks


def _choose_ego(population: Population, motion: Motion, wants_turn: bool) -> int:
    """The road user that becomes the ego vehicle: a car that stays where the street is furnished, passes the crossing in the middle of
    the scene, drives far, and turns if it should; in this order of weight.
    """
    is_car = np.zeros(len(population.routes), bool)
    is_car[[body.mover for body in population.bodies if body.class_name == "car"]] = True
    crossing = np.array([route.crossing for route in population.routes])
    is_turning = np.isfinite([route.slow for route in population.routes])
    first, last = motion.s[0], motion.s[-1]
    driven = last - first
    outside = np.maximum(-100.0 - first, 0) + np.maximum(last - crossing - 100.0, 0)  # metres driven where little stands
    passes = (first < 0) & (last > crossing)
    off_middle = np.abs((first + last - crossing) / 2)  # metres between the middle of the way and the middle of the crossing
    merit = 400.0 * passes + 7.0 * np.minimum(driven, 90.0) - 10.0 * outside + 150.0 * (is_turning == wants_turn) - 0.5 * off_middle
    return int(np.where(is_car, merit, -np.inf).argmax())
