"""A heap of simple shapes that becomes `Matter`: things are put down in parts and refused where people or vehicles need the room."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cuda_ops import Kind, Primitives
from perception.drives.simulated import roads
from perception.drives.simulated.matter import Matter

ROAD_CLEARANCE = 4.2  # metres that must stay free above roads and parking strips
WALK_CLEARANCE = 2.5  # ... and above the walking bands
FURNITURE = (roads.KERB + 0.3, 13.35)  # offsets from a centre line between which lamps, trees and benches may stand
FRONT = 17.35  # offset from the centre lines beyond which everything may stand
BANDS_AT_CORNER = (13.35, FRONT)  # people cross straight on over the next road
ZEBRA_CLEAR = 4.5  # metres of kerb on both sides of the middle of a zebra crossing

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Frontage:
    """One side of an arm, as furniture.Side: `along` metres from the middle of the crossing, `across` metres from the centre line."""

    arm: int
    sign: int

    def at(self, along: float, across: float) -> tuple[float, float]:
        """x, y in the street frame."""
        x, y = roads.turned(np.array([(-along, self.sign * across)]), self.arm)[0].tolist()
        return x, y

    @property
    def yaw(self) -> float:
        """Of a thing that looks along the street (either way)."""
        return self.arm * np.pi / 2


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

    def matter(self, height: Callable[[np.ndarray, np.ndarray], np.ndarray], keep_clear: np.ndarray) -> Matter:
        """Everything that stands where it may, on the ground of `height`; in the order of the rows.

        keep_clear  (K, 3) circles x, y, radius in the street frame, in which nothing may stand lower than `WALK_CLEARANCE`
        """
        rows = np.array(self.rows, np.float64).reshape(-1, 18)
        kind, at, size, yaw, reading, color, taper, passing, extinction, thing = np.split(rows, _COLUMNS, axis=1)
        thing = thing[:, 0].astype(int)
        x, y, z = at.T
        is_bad = blocks_the_way(x, y, z, size, yaw[:, 0]) | (_within(keep_clear, x, y, size, yaw[:, 0]) & (z < WALK_CLEARANCE))
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


def blocks_the_way(x: np.ndarray, y: np.ndarray, z: np.ndarray, size: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """(P,) bool: whether a part stands in, or hangs too low over, the room of vehicles or of people on their routes.

    x, y, z  (P,) the middle of the foot, z above the ground;  size (P, 3);  yaw (P,)
    Vehicles: the roads up to the kerb and `FURNITURE` metres. People: the bands behind, straight on over the roads at the crossing, and
    the kerb at the zebra crossings. Judged by the upright box about the part, so a round part may be refused for a corner that it lacks.
    """
    cos, sin = np.abs(np.cos(yaw)), np.abs(np.sin(yaw))
    reach_x, reach_y = (cos * size[:, 0] + sin * size[:, 1]) / 2, (sin * size[:, 0] + cos * size[:, 1]) / 2
    near_x, near_y = np.maximum(np.abs(x) - reach_x, 0), np.maximum(np.abs(y) - reach_y, 0)
    far_x, far_y = np.abs(x) + reach_x, np.abs(y) + reach_y
    near, is_x_road = np.minimum(near_x, near_y), near_y <= near_x  # offset from the nearer road, which runs along x
    far, begin, end = np.where(is_x_road, [far_y, near_x, far_x], [far_x, near_y, far_y])
    on_road = near < FURNITURE[0]
    in_band = (near < FRONT) & (far > FURNITURE[1])
    at_corner = (near < FRONT) & (begin < BANDS_AT_CORNER[1]) & (end > BANDS_AT_CORNER[0])
    # only the road along x, arms 0 and 2, has zebra crossings
    at_zebra = is_x_road & (near < FRONT) & (end > roads.ZEBRA - ZEBRA_CLEAR) & (begin < roads.ZEBRA + ZEBRA_CLEAR)
    return (on_road & (z < ROAD_CLEARANCE)) | ((in_band | at_corner | at_zebra) & (z < WALK_CLEARANCE))


def _within(circles: np.ndarray, x: np.ndarray, y: np.ndarray, size: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """(P,) bool: whether the foot of a part reaches into one of the circles (K, 3)."""
    dx, dy = circles[:, 0] - x[:, None], circles[:, 1] - y[:, None]  # (P, K)
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    along, across = np.abs(cos * dx + sin * dy) - size[:, :1] / 2, np.abs(cos * dy - sin * dx) - size[:, 1:2] / 2
    return np.asarray((np.hypot(np.maximum(along, 0), np.maximum(across, 0)) < circles[:, 2]).any(axis=1))
