"""What stands still: parked rows, racks of cycles, waiting people, a construction site with its barriers and cones.

Each side of each arm has its own axes: `along` metres from the middle of the crossing outwards, `across` metres from the centre line.
"""

from dataclasses import dataclass

import numpy as np

from perception.drives.simulated import roads
from perception.drives.simulated.catalog import draw_size

ROW_BEGINS, ROW_ENDS = 26.0, 135.0


@dataclass(frozen=True, eq=False)
class Standing:
    """An object that never moves, in the street frame: x, y metres, yaw radians, size (3,) l w h."""

    class_name: str
    x: float
    y: float
    yaw: float
    size: np.ndarray
    is_sitting: bool = False


@dataclass(frozen=True)
class Side:
    """One side of an arm; sign -1 is the side of incoming traffic (right of who drives to the crossing), +1 the other."""

    arm: int
    sign: int

    def place(self, class_name: str, along: float, across: float, yaw: float, size: np.ndarray, *, is_sitting: bool = False) -> Standing:
        """yaw is counted from the direction in which traffic of this side drives."""
        x, y = roads.turned(np.array([(-along, self.sign * across)]), self.arm)[0]
        heading = self.arm * np.pi / 2 + (0.0 if self.sign < 0 else np.pi) + yaw
        return Standing(class_name, float(x), float(y), heading, size, is_sitting)


def furnish(rng: np.random.Generator, density: float, *, site_arms: tuple[int, ...]) -> list[Standing]:
    """Everything that stands on the street of one scene; one construction site on one of `site_arms`, one parked bus and one trailer."""
    sides = [Side(arm, sign) for arm in range(4) for sign in (-1, 1)]
    site = Side(int(rng.choice(site_arms)), int(rng.choice([-1, 1])))
    begin, length = rng.uniform(34, 38), rng.uniform(11, 14)
    things = construction_site(site, begin, length, rng)
    others = rng.permutation([i for i, side in enumerate(sides) if side != site])
    first = {sides[others[0]]: "bus", sides[others[1]]: "trailer"}  # the rare classes, once in every scene
    for side in sides:
        closed = [(roads.ZEBRA - 9, roads.ZEBRA + 9)] if side.arm in roads.ZEBRA_ARMS else []
        if side == site:
            closed.append((begin - 9, begin + length + 6))
        elif side not in first and rng.random() < 0.12 * density:
            along = rng.uniform(30, 40)
            things += rack(side, along, rng)
            closed.append((along - 2.0, along + 8.0))
        things += parked_row(side, closed, min(0.16 * density, 0.95), rng, first=first.get(side))
        things += waiting_people(side, rng.uniform(14, 22), rng.poisson(0.25 * density), rng)
    return things


def parked_row(
    side: Side, closed: list[tuple[float, float]], occupancy: float, rng: np.random.Generator, *, first: str | None = None
) -> list[Standing]:
    """Vehicles one behind the other in the parking strip, 0.8 - 2.2 m apart, with free places; none where the strip is closed.

    first  class of a vehicle that stands at the head of the row
    """
    row, along = [], ROW_BEGINS
    if first:
        size = draw_size(first, rng)
        row.append(side.place(first, along + size[0] / 2, roads.PARKING, 0.0, size))
        along += size[0] + 1.5
    while along < ROW_ENDS:
        if rng.random() > occupancy:
            along += 6.2
            continue
        name = str(rng.choice(["car", "truck", "trailer", "bus"], p=[0.89, 0.06, 0.03, 0.02]))
        size = draw_size(name, rng)
        end = along + size[0]
        if not any(along < high and end > low for low, high in closed):
            across = roads.PARKING + rng.normal(0, 0.08)
            row.append(side.place(name, (along + end) / 2, across, rng.normal(0, 0.015), size))
        along = end + rng.uniform(0.8, 2.2)
    return row


def waiting_people(side: Side, along: float, count: int, rng: np.random.Generator, *, across: float = 12.3) -> list[Standing]:
    """People who stand together near the kerb, 0.9 m apart, facing anywhere; one in eight sits."""
    people = []
    for i in range(count):
        size, is_sitting = draw_size("pedestrian", rng), bool(rng.random() < 0.125)
        if is_sitting:
            size = size * (1.0, 1.0, 0.72)
        spot = along + 0.95 * i, across + rng.uniform(0, 0.3)
        people.append(side.place("pedestrian", *spot, rng.uniform(-3, 3), size, is_sitting=is_sitting))
    return people


def rack(side: Side, along: float, rng: np.random.Generator) -> list[Standing]:
    """Two to five cycles across the kerb, 1.3 m apart."""
    name = str(rng.choice(["bicycle", "motorcycle"]))
    count = int(rng.integers(2, 6))
    return [side.place(name, along + 1.3 * i, 12.15, np.pi / 2 + rng.normal(0, 0.04), draw_size(name, rng)) for i in range(count)]


def construction_site(side: Side, begin: float, length: float, rng: np.random.Generator) -> list[Standing]:
    """A closed part of the parking strip: barriers end to end along the lane, a slanting line of cones before, a machine, workers.

    A barrier's width is its long side, so it faces across the road.
    """
    site = []
    for i in range(int(length / 2.4) + 1):
        site.append(side.place("barrier", begin + 2.4 * i, 9.0, np.pi / 2 + rng.normal(0, 0.03), draw_size("barrier", rng)))
    for i in range(4):
        site.append(side.place("traffic_cone", begin - 2.2 - 1.6 * i, 9.3 + 0.55 * i, rng.uniform(-3, 3), draw_size("traffic_cone", rng)))
    size = np.minimum(draw_size("construction_vehicle", rng), (7.0, 2.5, 3.0))
    site.append(side.place("construction_vehicle", begin + length / 2, 10.9, rng.normal(0, 0.02), size))
    site += waiting_people(side, begin + 1, int(rng.integers(1, 3)), rng, across=13.1)
    return site
