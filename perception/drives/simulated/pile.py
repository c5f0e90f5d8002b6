"""A heap of simple shapes that becomes `Matter`: things are put down in parts and refused where people or vehicles need the room."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cuda_ops import Kind, Primitives
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.roads import Plan, Roadside, Section

ROAD_CLEARANCE = 4.2  # metres that must stay free above roads and parking strips
WALK_CLEARANCE = 2.5  # ... and above the walking bands
ZEBRA_CLEAR = 4.5  # metres of kerb on both sides of the middle of a zebra crossing
# where a part is looked at, as shares of its length and width from the middle: dense enough for a road that bends before a house
_SPOTS = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 5), np.linspace(-0.5, 0.5, 3)), axis=-1).reshape(-1, 2)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Frontage:
    """One side of an arm, straightened out around one place of it: what is put there stands in line, even in a bend.

    section  how this half of the road is laid out
    sign     -1 right of who drives to the crossing, +1 left
    anchor   metres along the arm where the frontage touches it
    x, y     of the centre line there
    yaw      of a thing that looks along the street (towards the crossing)
    """

    section: Section
    sign: int
    anchor: float
    x: float
    y: float
    yaw: float

    @staticmethod
    def of(road: Roadside, anchor: float) -> "Frontage":
        x, y, yaw = (float(value) for value in road.plan.at(road.arm, anchor, 0.0))
        return Frontage(road.section, road.sign, anchor, x, y, yaw)

    def at(self, along: float, across: float) -> tuple[float, float]:
        """x, y in the street frame; `along` metres from the middle of the crossing, `across` metres from the centre line to this side."""
        back, left = self.anchor - along, self.sign * across
        cos, sin = float(np.cos(self.yaw)), float(np.sin(self.yaw))
        return self.x + cos * back - sin * left, self.y + sin * back + cos * left

    @property
    def furniture(self) -> tuple[float, float]:
        return self.section.furniture

    @property
    def front(self) -> float:
        return self.section.front


def surface_reading(median: float, rng: np.random.Generator, spread: float = 0.4) -> float:
    """A drawn reflectivity, 0..255, log-normal about its median."""
    return float(np.clip(median * rng.lognormal(0, spread), 4, 150))


@dataclass
class Pile:
    """Parts while they are being put down; `matter` is the finished value.

    A part's x, y (street frame) is the middle of its foot, its z metres above the ground at the foot of its thing: all parts of one
    thing share the ground height of one place, so that they stay together on a slope. `begin` starts a thing; it is refused as a whole.
    """

    rows: list[tuple[float, ...]] = field(default_factory=list)
    things: list[tuple[float, float]] = field(default_factory=list)

    def begin(self, x: float, y: float) -> None:
        """What follows is one thing that stands on the ground at (x, y)."""
        self.things.append((x, y))

    def box(
        self,
        x: float,
        y: float,
        z: float,
        size: tuple[float, float, float],
        yaw: float = 0.0,
        *,
        reading: float,
        color: Color = (128, 128, 128),
        passing: float = 0.0,
        taper: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        self._put(Kind.BOX, x, y, z, size, yaw, reading, color, taper=taper, passing=passing)

    def pole(self, x: float, y: float, z: float, radius: float, height: float, *, reading: float, color: Color = (110, 110, 110)) -> None:
        self._put(Kind.CYLINDER, x, y, z, (2 * radius, 2 * radius, height), 0.0, reading, color)

    def leaves(
        self,
        x: float,
        y: float,
        z: float,
        size: tuple[float, float, float],
        yaw: float = 0.0,
        *,
        reading: float,
        extinction: float,
        is_box: bool = False,
        color: Color = (70, 96, 52),
    ) -> None:
        self._put(Kind.BOX_VOLUME if is_box else Kind.ELLIPSOID_VOLUME, x, y, z, size, yaw, reading, color, extinction=extinction)

    def _put(
        self,
        kind: Kind,
        x: float,
        y: float,
        z: float,
        size: tuple[float, float, float],
        yaw: float,
        reading: float,
        color: Color,
        *,
        taper: tuple[float, float, float] = (0.0, 0.0, 0.0),
        passing: float = 0.0,
        extinction: float = 0.0,
    ) -> None:
        self.rows.append((int(kind), x, y, z, *size, yaw, reading, *color, *taper, passing, extinction, len(self.things) - 1))

    def matter(self, plan: Plan, height: Callable[[np.ndarray, np.ndarray], np.ndarray], keep_clear: np.ndarray) -> Matter:
        """Everything that stands where it may, on the ground of `height`; in the order of the rows.

        keep_clear  (K, 3) circles x, y, radius in the street frame, in which nothing may stand lower than `WALK_CLEARANCE`
        """
        rows = np.array(self.rows, np.float64).reshape(-1, 18)
        kind, at, size, yaw, reading, color, taper, passing, extinction, thing = np.split(rows, _COLUMNS, axis=1)
        thing = thing[:, 0].astype(int)
        x, y, z = at.T
        is_bad = blocks_the_way(plan, x, y, z, size, yaw[:, 0]) | (_within(keep_clear, x, y, size, yaw[:, 0]) & (z < WALK_CLEARANCE))
        foot = np.array(self.things, np.float64).reshape(-1, 2)
        center = np.stack([x, y, z + size[:, 2] / 2 + height(*foot.T)[thing]], axis=1)
        shapes = Primitives(
            kind=kind[:, 0].astype(np.int32),
            center=center.astype(np.float32),
            size=size.astype(np.float32),
            yaw=yaw[:, 0].astype(np.float32),
            taper=taper.astype(np.float32),
            normal=np.zeros((len(rows), 3), np.float32),
            pass_chance=passing[:, 0].astype(np.float32),
            extinction=extinction[:, 0].astype(np.float32),
            field=np.zeros((len(rows), 3), np.int64),
            heights=np.zeros(0, np.float32),
        )
        return Matter.of(shapes, reading[:, 0], color).taken(~np.isin(thing, thing[is_bad]))


# where a row of `Pile.rows` is cut: kind, x y z, size, yaw, reading, color, taper, passing, extinction, thing
_COLUMNS = (1, 4, 7, 8, 9, 12, 15, 16, 17)


def blocks_the_way(plan: Plan, x: np.ndarray, y: np.ndarray, z: np.ndarray, size: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """(P,) bool: whether a part stands in, or hangs too low over, the room of vehicles or of people on their routes.

    x, y, z  (P,) the middle of the foot, z above the ground;  size (P, 3);  yaw (P,)
    Vehicles: the roads up to the kerb and 0.3 m. People: the bands behind the furniture, straight on over the roads at the crossing, and
    the kerb at the zebra crossings. Judged by the upright box about the part, so a round part may be refused for a corner that it lacks.
    """
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    u, v = size[:, :1] * _SPOTS[:, 0], size[:, 1:2] * _SPOTS[:, 1]
    px, py = x[:, None] + cos * u - sin * v, y[:, None] + sin * u + cos * v  # (P, spots)
    on_road, on_walk = np.zeros(len(x), bool), np.zeros(len(x), bool)
    zebras = dict(plan.zebras)
    for arm in plan.arms:
        along, across = plan.locate(arm, px, py)
        is_here = along > -0.01
        for sign in (-1, 1):
            section = plan.section(arm, sign)
            offset = np.where(is_here, sign * across, np.inf)  # metres to this side, below 0 on the other one
            near = offset.min(axis=1)
            far = np.where(is_here, offset, -np.inf).max(axis=1)
            on_road |= (near < section.furniture[0]) & (far > 0)
            on_walk |= (near < section.front) & (far > section.furniture[1])
            if arm in zebras:
                begin, end = np.where(is_here, along, np.inf).min(axis=1), np.where(is_here, along, -np.inf).max(axis=1)
                is_at_zebra = (end > zebras[arm] - ZEBRA_CLEAR) & (begin < zebras[arm] + ZEBRA_CLEAR)
                on_walk |= is_at_zebra & (near < section.front) & (far > 0)
    return (on_road & (z < ROAD_CLEARANCE)) | (on_walk & (z < WALK_CLEARANCE))


def _within(circles: np.ndarray, x: np.ndarray, y: np.ndarray, size: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """(P,) bool: whether the foot of a part reaches into one of the circles (K, 3)."""
    dx, dy = circles[:, 0] - x[:, None], circles[:, 1] - y[:, None]  # (P, K)
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    along, across = np.abs(cos * dx + sin * dy) - size[:, :1] / 2, np.abs(cos * dy - sin * dx) - size[:, 1:2] / 2
    return np.asarray((np.hypot(np.maximum(along, 0), np.maximum(across, 0)) < circles[:, 2]).any(axis=1))
