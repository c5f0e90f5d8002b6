"""The ground plan of the simulated street: a crossing of two roads, and the paths on it.

Street frame: origin in the middle of the crossing, metres. Arm 0 lies at negative x, arms 1, 2, 3 follow by quarter turns
counter-clockwise (south, east, north). Traffic keeps right. Everything is drawn for arm 0 and turned.

::

    from the centre line outwards:  two lanes | bicycle lane | parking strip | kerb | sidewalk
"""

from dataclasses import dataclass

import numpy as np

LANES = (1.75, 5.25, 7.9)  # offset of the left, right and bicycle lane from the centre line
BICYCLE_LANE = 2
STOP_LINE = 18.0  # distance of the stop lines from the middle of the crossing
PARKING = 10.1  # offset of the middle of the parking strip
KERB = 11.5
KERB_HEIGHT = 0.12
SIDEWALK = {+1: (13.9, 14.1), -1: (15.6, 15.9)}  # offsets of people who walk along their route (+1) and against it (-1)
ZEBRA = 60.0  # distance of the zebra crossings of arms 0 and 2 from the middle
ZEBRA_ARMS = (0, 2)
OPPOSITE, LEFT_EXIT, RIGHT_EXIT = 2, 3, 1  # which arm a movement leaves by, counted from the arm it came from


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
    def through(cls, points: np.ndarray, radius: float, *, zero_at: float = 0.0) -> "Path":
        """The polyline `points` (P, 2), its corners rounded with `radius` metres; s = 0 lies `zero_at` metres after the first point."""
        legs = np.diff(points, axis=0)
        yaws, lengths = np.arctan2(legs[:, 1], legs[:, 0]), np.hypot(legs[:, 0], legs[:, 1])
        turns = (np.diff(yaws) + np.pi) % (2 * np.pi) - np.pi
        yaws = yaws[0] + np.concatenate([[0.0], np.cumsum(turns)])  # without jumps by a full turn
        cuts = np.concatenate([[0.0], radius * np.tan(np.abs(turns) / 2), [0.0]])  # what the arcs take away from the legs
        pieces, s = [], -zero_at
        for i, (yaw, length) in enumerate(zip(yaws, lengths, strict=True)):
            begin = points[i] + cuts[i] * np.array([np.cos(yaw), np.sin(yaw)])
            pieces.append((s, *begin, yaw, 0.0))
            s += length - cuts[i] - cuts[i + 1]
            if i < len(turns) and turns[i] != 0:
                corner = points[i + 1] - cuts[i + 1] * np.array([np.cos(yaw), np.sin(yaw)])
                pieces.append((s, *corner, yaw, np.sign(turns[i]) / radius))
                s += abs(turns[i]) * radius
        return cls(*np.array(pieces).T)

    def pose(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y, yaw (same shape as s); yaw is continuous along the path."""
        piece = np.clip(np.searchsorted(self.start, s, side="right") - 1, 0, len(self.start) - 1)
        along, yaw, curvature = s - self.start[piece], self.yaw[piece], self.curvature[piece]
        turn = curvature * along
        # chord of the arc: length along * sinc, direction half the turn; a straight is the case of no turn
        chord = along * np.sinc(turn / (2 * np.pi))
        return self.x[piece] + chord * np.cos(yaw + turn / 2), self.y[piece] + chord * np.sin(yaw + turn / 2), yaw + turn


@dataclass(frozen=True, eq=False)
class Route:
    """A way through the crossing; s = 0 at the stop line (vehicles) or at the kerb (people).

    path      where it leads
    group     which light opens it: 0, 1 straight on and turning on the main road; 2, 3 on the other; 4 people at the crossing; -1 none
    entry     number of the lane it comes from, -1 for people
    leave     number of the lane it goes to, -1 for people
    crossing  metres from s = 0 to the end of the conflict area
    slow      m/s allowed inside of the conflict area
    zebra     (2,) number of the zebra crossing before and after, -1 where there is none
    zebra_s   (2,) s of the stop line before it; for people on a zebra crossing, 0
    """

    path: Path
    group: int = -1
    entry: int = -1
    leave: int = -1
    crossing: float = 0.0
    slow: float = np.inf
    zebra: tuple[int, int] = (-1, -1)
    zebra_s: tuple[float, float] = (0.0, 0.0)

    @property
    def arms(self) -> tuple[int, int]:
        """The arms that a vehicle comes from and goes to."""
        return self.entry // 3, self.leave // 3


def turned(points: np.ndarray, arm: int) -> np.ndarray:
    """Points (P, 2) drawn for arm 0, moved to `arm` by exact quarter turns."""
    for _ in range(arm % 4):
        points = np.stack([-points[:, 1], points[:, 0]], axis=1)
    return points


def vehicle_route(arm: int, lane: int, movement: str) -> Route:
    """The route of a vehicle that comes in on `lane` of `arm`; movement is `straight`, `left` (lane 0) or `right` (lane 1)."""
    offset, far = LANES[lane], 500.0
    ends = {"straight": (far, -offset), "left": (offset, far), "right": (-offset, -far)}
    corners = {"straight": (0.0, -offset), "left": (offset, -offset), "right": (-offset, -offset)}
    radius = {"straight": 1.0, "left": STOP_LINE + offset, "right": STOP_LINE - offset}[movement]
    points = turned(np.array([(-far, -offset), corners[movement], ends[movement]]), arm)
    exit_arm = (arm + {"straight": OPPOSITE, "left": LEFT_EXIT, "right": RIGHT_EXIT}[movement]) % 4
    crossing = 2 * STOP_LINE if movement == "straight" else radius * np.pi / 2
    to_zebra = ZEBRA - STOP_LINE - 3.0
    zebras = tuple(ZEBRA_ARMS.index(a) if a in ZEBRA_ARMS else -1 for a in (arm, exit_arm))
    return Route(
        Path.through(points, radius, zero_at=far - STOP_LINE),
        group=2 * (arm % 2) + (movement != "straight"),
        entry=3 * arm + lane,
        leave=3 * exit_arm + lane,
        crossing=crossing,
        slow=np.inf if movement == "straight" else np.sqrt(2.0 * radius),  # 2 m/s2 sideways
        zebra=(zebras[0], zebras[1]),
        zebra_s=(-to_zebra - 6.0, crossing + to_zebra),
    )


def walk_around_corner(arm: int, offset: float, direction: int) -> Route:
    """Along the left sidewalk of an arm (seen towards the crossing) and round the corner; direction -1 walks it backwards. No lights."""
    points = np.array([(-200.0, offset), (-offset, offset), (-offset, 200.0)])
    return Route(Path.through(turned(points[::direction], arm), 1.5, zero_at=200.0 - offset))


def walk_across(arm: int, offset: float, direction: int, patience: float) -> Route:
    """Along the left sidewalk of an arm and straight over the next road at the lights; waits up to `patience` metres before the kerb."""
    edge = LANES[BICYCLE_LANE] + 1.9
    points = np.array([(-200.0, offset), (200.0, offset)])
    path = Path.through(turned(points[::direction], arm), 1.0, zero_at=200.0 - edge - patience)
    return Route(path, group=4, crossing=2 * edge + patience)


def walk_over_zebra(zebra: int, offset: float, direction: int, shift: float, patience: float) -> Route:
    """Along a sidewalk towards the crossing, over a zebra crossing, and back on the other side; `shift` metres off its middle."""
    x, edge = -ZEBRA + shift, LANES[BICYCLE_LANE] + 1.9
    points = np.array([(x - 150.0, offset), (x, offset), (x, -offset), (x - 150.0, -offset)])
    before = 150.0 + (np.pi / 2 - 2) * 1.0 + offset - edge - patience  # the rounded corner of 1 m is shorter than the angle
    path = Path.through(turned(points[::direction], ZEBRA_ARMS[zebra]), 1.0, zero_at=before)
    return Route(path, crossing=2 * edge + patience, zebra=(zebra, -1))


def ground_height(x: np.ndarray, y: np.ndarray, *, kerb_height: float = KERB_HEIGHT, ramp: float = 0.5) -> np.ndarray:
    """Height of the ground of a flat street: 0 on the roads, the kerb's height on the sidewalks, `ramp` metres of slope between."""
    from_road = np.minimum(np.abs(x), np.abs(y)) - KERB
    return kerb_height * np.clip(from_road / ramp, 0.0, 1.0)
