"""The ground plan of a simulated street: roads that cross or not, how wide they are, where their arms bend; and paths in the plane.

Street frame: origin in the middle of the crossing, metres. Arm 0 lies at negative x, arms 1, 2, 3 follow by quarter turns
counter-clockwise (south, east, north); arms 0 and 2 are the main road. Traffic keeps right.

A place is told by its arm, `along`: metres on the arm's centre line from the middle of the crossing outwards, and `across`: metres from
the centre line, positive on the left of who drives TO the crossing. `Plan.at` leads from there to x, y; `Plan.locate` leads back.

::

    from the centre line outwards:  lanes | bicycle lane | parking strip | kerb | furniture | people walk | fronts
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BICYCLE_LANE = 2  # number of the bicycle lane among the lanes of an arm
KERB_HEIGHT = 0.12
CORNER_RADIUS = 3.0  # of the kerb between two roads
REACH = 200.0  # metres along an arm as far as it is built
OPPOSITE, LEFT_EXIT, RIGHT_EXIT = 2, 3, 1  # which arm a movement leaves by, counted from the arm it came from
Pieces = list[tuple[float, float]]  # (length in metres, curvature in 1/m) of straights and arcs, one after the other


@dataclass(frozen=True, eq=False)
class Path:
    """A line in the ground plane made of straights and arcs; s is the distance along it, metres. It goes on straight beyond its ends.

    start      (K,) s at which each piece begins, ascending
    x, y, yaw  (K,) pose there
    curvature  (K,) 1/m, positive to the left; the first and the last piece are straight
    """

    start: np.ndarray
    x: np.ndarray
    y: np.ndarray
    yaw: np.ndarray
    curvature: np.ndarray

    @classmethod
    def chain(cls, pose: tuple[float, float, float], pieces: Iterable[tuple[float, float]], *, zero_at: float = 0.0) -> "Path":
        """From `pose` (x, y, yaw) on; pieces of no length are left out. s = 0 lies `zero_at` metres after the beginning."""
        (x, y, yaw), s, rows = pose, -zero_at, []
        for length, curvature in pieces:
            if length <= 0:
                continue
            rows.append((s, x, y, yaw, curvature))
            turn = curvature * length
            chord = length * np.sinc(turn / (2 * np.pi))
            x, y, yaw, s = x + chord * np.cos(yaw + turn / 2), y + chord * np.sin(yaw + turn / 2), yaw + turn, s + length
        return cls(*np.array(rows, np.float64).T)

    def pose(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y, yaw (same shape as s); yaw is continuous along the path."""
        piece = np.clip(np.searchsorted(self.start, s, side="right") - 1, 0, len(self.start) - 1)
        along, yaw, curvature = s - self.start[piece], self.yaw[piece], self.curvature[piece]
        turn = curvature * along
        # chord of the arc: length along * sinc, direction half the turn; a straight is the case of no turn
        chord = along * np.sinc(turn / (2 * np.pi))
        return self.x[piece] + chord * np.cos(yaw + turn / 2), self.y[piece] + chord * np.sin(yaw + turn / 2), yaw + turn


@dataclass(frozen=True)
class Section:
    """One half of a road across, offsets from its centre line in metres.

    lanes           middles of its lanes, from the centre line outwards
    lane_width      of each
    bicycle         middle of its bicycle lane, None where it has none
    parking         "parallel", "perpendicular" or "none": how vehicles stand between the lanes and the kerb
    parking_begins  where the lanes, the bicycle lane included, end
    kerb            where the road ends
    furniture       between which offsets lamps, trees and benches may stand
    front           beyond which everything may stand; people walk between the furniture and here
    sidewalk_end    where the pavement ends
    """

    lanes: tuple[float, ...]
    lane_width: float
    bicycle: float | None
    parking: str
    parking_begins: float
    kerb: float
    furniture: tuple[float, float]
    front: float
    sidewalk_end: float

    @property
    def parking_middle(self) -> float:
        return (self.parking_begins + self.kerb) / 2

    @property
    def edge(self) -> float:
        """Where people wait who want to cross: at the kerb, or between the parked cars."""
        return min(self.kerb, self.parking_begins + 1.1) if self.parking != "none" else self.kerb

    def lane(self, number: int) -> float:
        """The middle of a lane by its number; `BICYCLE_LANE` is the bicycle lane's."""
        return self.lanes[number] if number != BICYCLE_LANE or self.bicycle is None else self.bicycle


@dataclass(frozen=True)
class Bend:
    """An arc in the centre line of an arm.

    begin   metres along the arm at which it begins
    radius  metres
    angle   radians, positive to the left of who drives outwards
    """

    begin: float
    radius: float
    angle: float

    @property
    def curvature(self) -> float:
        return float(np.sign(self.angle)) / self.radius

    @property
    def length(self) -> float:
        return self.radius * abs(self.angle)

    @property
    def end(self) -> float:
        return self.begin + self.length


@dataclass(frozen=True)
class Lot:
    """A parking lot behind the sidewalk of one side of an arm: from `begin` to `end` along, `depth` metres from its front backwards."""

    arm: int
    sign: int
    begin: float
    end: float
    depth: float


@dataclass(frozen=True)
class Plan:
    """Where the roads of one street are. `plans.draw_plan` draws one, `plans.usual_plan` is a plain one.

    roads       the halves of the main road (south, north) and of the other one (east, west)
    arms        which arms there are: (0, 1, 2, 3), (0, 1, 2) or (0, 2)
    bends       of arms 0 - 3, None where an arm is straight
    has_lights  whether lights rule the crossing; else the main road goes first
    zebras      (arm, metres along it) of the zebra crossings, at most one an arm
    lots        parking lots
    """

    roads: tuple[tuple[Section, Section], tuple[Section, Section]]
    arms: tuple[int, ...] = (0, 1, 2, 3)
    bends: tuple[Bend | None, ...] = (None, None, None, None)
    has_lights: bool = True
    zebras: tuple[tuple[int, float], ...] = ()
    lots: tuple[Lot, ...] = ()

    def section(self, arm: int, sign: int) -> Section:
        """The half of an arm's road: sign -1 is the side of incoming traffic (right of who drives to the crossing), +1 the other."""
        arm %= 4
        return self.roads[arm % 2][(sign > 0) != (arm >= 2)]

    def neighbour(self, arm: int, sign: int) -> int | None:
        """The arm round the corner on one side of an arm, None where the road goes straight on there."""
        other = (arm + (LEFT_EXIT if sign > 0 else RIGHT_EXIT)) % 4
        return other if other in self.arms else None

    def corner(self, arm: int, sign: int) -> Section | None:
        """The half of the road round the corner that lies towards this arm."""
        other = self.neighbour(arm, sign)
        return None if other is None else self.section(other, -sign)

    def stop(self, arm: int) -> float:
        """Metres along an arm at which vehicles wait: where the other road's pavement ends; 0 where there is no other road."""
        return max((corner.sidewalk_end for sign in (-1, 1) if (corner := self.corner(arm, sign))), default=0.0)

    @cached_property
    def corners(self) -> tuple[int, ...]:
        """Corner q lies between arms q and q + 1, in quadrant q: 0 is x < 0, y < 0, the others follow counter-clockwise."""
        return tuple(q for q in self.arms if (q + 1) % 4 in self.arms)

    def at(self, arm: int, along: float | np.ndarray, across: float | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and the yaw of traffic towards the crossing at places of an arm, in their shape."""
        x, y, outward = self._center_lines[arm].pose(np.asarray(along, np.float64))
        return x + across * np.sin(outward), y - across * np.cos(outward), outward + np.pi

    def locate(self, arm: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """along and across of places (x, y), in their shape: the inverse of `at`. Behind the crossing `along` is below 0.

        Far from a bend, beyond the middle of its circle, a place lies on both straights; the nearer one counts.
        """
        # outward frame: u out of the crossing, v to the left of who drives outwards
        cos, sin = ((-1.0, 0.0), (0.0, -1.0), (1.0, 0.0), (0.0, 1.0))[arm]
        u, v = cos * x + sin * y, cos * y - sin * x
        bend = self.bends[arm]
        if bend is None:
            return u, -v
        side, angle, radius = float(np.sign(bend.angle)), abs(bend.angle), bend.radius
        v = side * v  # as if it went to the left
        ahead = u - bend.begin
        cos, sin = np.cos(angle), np.sin(angle)
        ahead_then, v_then = ahead - radius * sin, v - radius * (1 - cos)
        ahead_then, v_then = cos * ahead_then + sin * v_then, cos * v_then - sin * ahead_then
        is_first, is_last = ahead < 0, ahead_then >= 0
        is_last &= ~is_first | (np.abs(v_then) < np.abs(v))
        is_first &= ~is_last
        to_middle = radius - v
        along = np.where(is_last, bend.end + ahead_then, bend.begin + radius * np.arctan2(ahead, to_middle))
        offset = np.where(is_last, v_then, radius - np.hypot(ahead, to_middle))
        return np.where(is_first, u, along), -side * np.where(is_first, v, offset)

    def inward(self, arm: int, across: float, begin: float, end: float) -> Pieces:
        """The line `across` metres off the centre line from `begin` along the arm in to `end`."""
        return [(length, -curvature) for length, curvature in self.outward(arm, across, end, begin)[::-1]]

    def outward(self, arm: int, across: float, begin: float, end: float) -> Pieces:
        """The line `across` metres off the centre line from `begin` along the arm out to `end`: exact straights and arcs."""
        bend = self.bends[arm]
        if bend is None:
            return [(end - begin, 0.0)]
        stretch = 1 + bend.curvature * across  # across is to the right of who drives outwards
        in_bend = min(end, bend.end) - max(begin, bend.begin)
        arc = (in_bend * stretch, bend.curvature / stretch)
        return [(min(end, bend.begin) - begin, 0.0), arc, (end - max(begin, bend.end), 0.0)]

    def stretch(self, arm: int, along: float, across: float) -> float:
        """Metres on the line `across` metres off the centre line for each metre along the arm."""
        bend = self.bends[arm]
        return 1.0 if bend is None or not bend.begin < along < bend.end else 1 + bend.curvature * across

    @cached_property
    def _center_lines(self) -> dict[int, Path]:
        return {arm: Path.chain((0.0, 0.0, arm * np.pi / 2 - np.pi), self.outward(arm, 0.0, 0.0, 1000.0)) for arm in range(4)}


@dataclass(frozen=True)
class Roadside:
    """One side of an arm as it winds; sign -1 is the side of incoming traffic (right of who drives to the crossing), +1 the other."""

    plan: Plan
    arm: int
    sign: int

    @property
    def section(self) -> Section:
        return self.plan.section(self.arm, self.sign)

    @property
    def strip(self) -> float:
        """Width of the parking strip."""
        return self.section.kerb - self.section.parking_begins

    @property
    def has_lot(self) -> bool:
        return any((lot.arm, lot.sign) == (self.arm, self.sign) for lot in self.plan.lots)

    @property
    def kerb_begins(self) -> float:
        """Metres along at which the kerb is free of the other road."""
        return self.plan.stop(self.arm) + 3.0 if self.plan.neighbour(self.arm, self.sign) is not None else 1.5

    @property
    def sidewalk_begins(self) -> float:
        """Metres along from which the sidewalk is not the other road's too, 0 where no road leads off on this side."""
        corner = self.plan.corner(self.arm, self.sign)
        return 0.0 if corner is None else corner.sidewalk_end

    def at(self, along: float, across: float) -> tuple[float, float, float]:
        """x, y and the yaw of this side's traffic, `across` metres from the centre line to this side."""
        x, y, yaw = self.plan.at(self.arm, along, self.sign * across)
        return float(x), float(y), float(yaw) + (0.0 if self.sign < 0 else np.pi)

    def stretch(self, along: float, across: float) -> float:
        """Metres at that offset for each metre along the arm."""
        return self.plan.stretch(self.arm, along, self.sign * across)


@dataclass(frozen=True, eq=False)
class CrossSection:
    """What the plan says about places, arrays in their shape.

    fall       0 on the centre line of a road .. 1 at its kerb and beyond: how far the crown has fallen
    from_kerb  metres beyond the kerb, below 0 on a road
    beyond     metres beyond the pavement, below 0 on it
    quadrant   counted as corners
    """

    fall: np.ndarray
    from_kerb: np.ndarray
    beyond: np.ndarray
    quadrant: np.ndarray

    @staticmethod
    def of(plan: Plan, x: np.ndarray, y: np.ndarray) -> "CrossSection":
        shape = np.broadcast(x, y).shape
        fall, from_kerb, beyond = np.ones(shape), np.full(shape, np.inf), np.full(shape, np.inf)
        quadrant = np.zeros(shape, int)
        beside: dict[tuple[int, int], np.ndarray] = {}  # (arm, sign) -> metres beyond its kerb
        for arm in plan.arms:
            along, across = plan.locate(arm, x, y)
            right, left = plan.section(arm, -1), plan.section(arm, 1)
            is_left = across > 0
            off = np.where(along < 0, np.inf, np.abs(across))
            kerb = np.where(is_left, left.kerb, right.kerb)
            fall = np.minimum(fall, (np.sqrt(np.minimum(off, kerb) ** 2 + 1.0) - 1.0) / (np.sqrt(kerb**2 + 1.0) - 1.0))
            from_kerb = np.minimum(from_kerb, off - kerb)
            mine = off - np.where(is_left, left.sidewalk_end, right.sidewalk_end)
            quadrant = np.where(mine < beyond, np.where(is_left, (arm - 1) % 4, arm), quadrant)
            beyond = np.minimum(beyond, mine)
            beside[arm, -1], beside[arm, 1] = off + np.where(is_left, np.inf, -right.kerb), off + np.where(is_left, -left.kerb, np.inf)
        for q in plan.corners:
            u, v = CORNER_RADIUS - beside[q, -1], CORNER_RADIUS - beside[(q + 1) % 4, 1]
            is_round = (u > 0) & (v > 0)
            if is_round.any():
                from_kerb = np.where(is_round, np.minimum(from_kerb, CORNER_RADIUS - np.hypot(u, v)), from_kerb)
        return CrossSection(fall, from_kerb, beyond, quadrant)
