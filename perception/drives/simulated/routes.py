"""The ways that road users take over a ground plan: vehicles through the crossing, people along the sidewalks and over the roads."""

from dataclasses import dataclass

import numpy as np

from perception.drives.simulated.roads import (
    BICYCLE_LANE,
    LEFT_EXIT,
    OPPOSITE,
    RIGHT_EXIT,
    Path,
    Pieces,
    Plan,
)

FAR = 500.0  # metres along an arm at which routes begin and end
PEOPLE = 4  # group of those who cross at the lights


@dataclass(frozen=True, eq=False)
class Route:
    """A way through the crossing; s = 0 at the stop line (vehicles) or at the kerb (people).

    path      where it leads
    group     which light opens it: 0 straight on and turning right on the main road, 1 turning left; 2, 3 on the other; 4 people at the
              crossing; -1 none. Groups cross each other's ways. Where there are no lights, the lower group goes first
    entry     number of the lane it comes from, -1 for people
    leave     number of the lane it goes to, -1 for people
    crossing  metres from s = 0 to the end of the conflict area
    slow      m/s allowed inside of the conflict area
    fastest   m/s allowed anywhere, for the sake of its bends
    zebra     (2,) number of the zebra crossing before and after, -1 where there is none
    zebra_s   (2,) s of the stop line before it; for people on a zebra crossing, 0
    """

    path: Path
    group: int = -1
    entry: int = -1
    leave: int = -1
    crossing: float = 0.0
    slow: float = np.inf
    fastest: float = np.inf
    zebra: tuple[int, int] = (-1, -1)
    zebra_s: tuple[float, float] = (0.0, 0.0)

    @property
    def arms(self) -> tuple[int, int]:
        """The arms that a vehicle comes from and goes to."""
        return self.entry // 3, self.leave // 3


def lanes(plan: Plan, arm: int) -> list[int]:
    """Numbers of the lanes on which traffic comes in on an arm."""
    section = plan.section(arm, -1)
    return [*range(len(section.lanes)), *([BICYCLE_LANE] if section.bicycle is not None else [])]


def movements(plan: Plan, arm: int, lane: int) -> list[str]:
    """Where a vehicle on a lane may go: `straight`, `left`, `right`. Never empty but for bicycles in a T."""
    section, found = plan.section(arm, -1), []
    if (arm + OPPOSITE) % 4 in plan.arms:
        found.append("straight")
    if lane == BICYCLE_LANE:
        return found
    if lane == 0 and (arm + LEFT_EXIT) % 4 in plan.arms:
        found.append("left")
    right = (arm + RIGHT_EXIT) % 4
    # who turns right waits for bicycles that go straight on, together with those who turn left into the same arm from the other side
    shares_exit = section.bicycle is not None and len(plan.section(right, 1).lanes) == 1
    if lane == len(section.lanes) - 1 and right in plan.arms and not shares_exit:
        found.append("right")
    return found


def vehicle_route(plan: Plan, arm: int, lane: int, movement: str) -> Route:
    """The route of a vehicle that comes in on `lane` of `arm`; movement is one of `movements`."""
    enter = plan.section(arm, -1)
    exit_arm = (arm + {"straight": OPPOSITE, "left": LEFT_EXIT, "right": RIGHT_EXIT}[movement]) % 4
    leave = plan.section(exit_arm, 1)
    exit_lane = {"straight": lane, "left": 0, "right": len(leave.lanes) - 1}[movement]
    come, go = enter.lane(lane), leave.lane(exit_lane)
    stop, stop_after = plan.stop(arm), plan.stop(exit_arm)
    if movement == "straight":
        # legs: metres along the arms, out to which the crossing is driven straight
        radius, begin, end, turn = np.inf, 0.0, 0.0, []
    elif movement == "left":
        radius = min(stop + go, stop_after + come)
        begin, end, turn = radius - go, radius - come, [(radius * np.pi / 2, 1 / radius)]
    else:
        radius = min(stop - go, stop_after - come)
        begin, end, turn = radius + go, radius + come, [(radius * np.pi / 2, -1 / radius)]
    way_in, way_out = plan.inward(arm, -come, FAR, begin), plan.outward(exit_arm, go, end, FAR)
    before = length(plan.inward(arm, -come, FAR, stop))
    crossing = (stop - begin) + length(turn) + (stop_after - end)
    x, y, yaw = plan.at(arm, FAR, -come)
    zebra, zebra_s = [-1, -1], [0.0, 0.0]
    for number, (on, along) in enumerate(plan.zebras):
        if on == arm:
            zebra[0], zebra_s[0] = number, -length(plan.inward(arm, -come, along + 3.0, stop))
        if on == exit_arm:
            zebra[1], zebra_s[1] = number, crossing + length(plan.outward(exit_arm, go, stop_after, along - 3.0))
    turns_late = movement == "left" or (movement == "right" and enter.bicycle is not None)
    arcs = [1 / abs(curvature) for piece, curvature in [*way_in, *way_out] if curvature and piece > 0]
    return Route(
        Path.chain((float(x), float(y), float(yaw)), [*way_in, *turn, *way_out], zero_at=before),
        group=2 * (arm % 2) + turns_late if len(plan.arms) > 2 else -1,
        entry=3 * arm + lane,
        leave=3 * exit_arm + exit_lane,
        crossing=crossing,
        slow=float(np.sqrt(2.0 * radius)),  # 2 m/s2 sideways
        fastest=float(np.sqrt(2.0 * min(arcs, default=np.inf))),
        zebra=(zebra[0], zebra[1]),
        zebra_s=(zebra_s[0], zebra_s[1]),
    )


def length(pieces: Pieces) -> float:
    """Metres; pieces that lie the wrong way round count nothing."""
    return sum(max(piece, 0.0) for piece, _ in pieces)


def walk_around_corner(plan: Plan, arm: int, inside: float, direction: int) -> Route:
    """Along the left sidewalk of an arm (seen towards the crossing) and round the corner; direction -1 walks it backwards. No lights.

    inside  metres from the furniture, at which people walk
    """
    other = (arm + LEFT_EXIT) % 4
    here, there = plan.section(arm, 1).furniture[1] + inside, plan.section(other, -1).furniture[1] + inside
    turn = [(1.5 * np.pi / 2, direction / 1.5)]
    if direction > 0:
        first, last = plan.inward(arm, here, FAR, there + 1.5), plan.outward(other, -there, here + 1.5, FAR)
        pose = plan.at(arm, FAR, here)
    else:
        first, last = plan.inward(other, -there, FAR, here + 1.5), plan.outward(arm, here, there + 1.5, FAR)
        pose = plan.at(other, FAR, -there)
    return Route(_walk(pose, [*first, *turn, *last], zero_at=length(first)))


def walk_along(plan: Plan, arm: int, inside: float, direction: int, patience: float = 0.0) -> Route:
    """Along the left sidewalk of an arm and straight on, over the next road at the lights where there is one.

    patience  metres before the kerb at which they wait
    """
    across = plan.section(arm, 1).furniture[1] + inside
    opposite, other = (arm + OPPOSITE) % 4, (arm + LEFT_EXIT) % 4
    legs = [(arm, across), (opposite, -across)][::direction]
    (first, c), (last, d) = legs
    pieces = [*plan.inward(first, c, FAR, 0.0), *plan.outward(last, d, 0.0, FAR)]
    before = length(plan.inward(first, c, FAR, 0.0))
    if other not in plan.arms:
        return Route(_walk(plan.at(first, FAR, c), pieces, zero_at=before))
    edges = [plan.section(other, -1).edge, plan.section(other, 1).edge][::direction]
    path = _walk(plan.at(first, FAR, c), pieces, zero_at=before - edges[0] - patience)
    return Route(path, group=PEOPLE, crossing=sum(edges) + patience)


def walk_over_zebra(plan: Plan, zebra: int, inside: float, direction: int, shift: float, patience: float) -> Route:
    """Along a sidewalk towards the crossing, over a zebra crossing, and back on the other side; `shift` metres off its middle."""
    arm, along = plan.zebras[zebra]
    along -= shift
    begin, end = plan.section(arm, direction), plan.section(arm, -direction)
    here, there = begin.furniture[1] + inside, end.furniture[1] + inside
    corner = [(np.pi / 2, -float(direction))]
    first = plan.inward(arm, here * direction, FAR, along + 1.0)
    over = [(here + there - 2.0, 0.0)]
    pieces = [*first, *corner, *over, *corner, *plan.outward(arm, -there * direction, along + 1.0, FAR)]
    before = length(first) + np.pi / 2 + here - 1.0 - begin.edge - patience
    path = _walk(plan.at(arm, FAR, here * direction), pieces, zero_at=before)
    return Route(path, crossing=begin.edge + end.edge + patience, zebra=(zebra, -1))


def _walk(pose: tuple[np.ndarray, np.ndarray, np.ndarray], pieces: Pieces, *, zero_at: float) -> Path:
    x, y, yaw = pose
    return Path.chain((float(x), float(y), float(yaw)), pieces, zero_at=zero_at)
