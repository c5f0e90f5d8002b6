"""What stands still: parked rows and lots, racks of cycles, waiting people, a construction site with its barriers and cones.

Each side of each arm has its own axes: `along` metres from the middle of the crossing outwards, `across` metres from the centre line.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perception.drives.simulated.catalog import draw_size
from perception.drives.simulated.roads import CrossSection, Lot, Plan, Roadside

ROW_ENDS = 105.0
ROOMY = 2.75  # metres of a parking strip in which large vehicles stand
_USUAL, _LARGE = (0.93, 0.05, 0.012, 0.008), (0.76, 0.1, 0.09, 0.05)  # shares of car, truck, trailer and bus among what is parked
Span = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Standing:
    """An object that never moves, in the street frame: x, y metres, yaw radians, size (3,) l w h."""

    class_name: str
    x: float
    y: float
    yaw: float
    size: np.ndarray
    is_sitting: bool = False

    @property
    def footprint(self) -> np.ndarray:
        """(K, 3) circles x, y, radius that cover it, no wider than it is."""
        long, wide = max(self.size[0], self.size[1]), min(self.size[0], self.size[1])
        yaw = self.yaw if self.size[0] >= self.size[1] else self.yaw + np.pi / 2
        steps = np.linspace(-0.5, 0.5, max(int(np.ceil(long / wide)), 1) + 1) * (long - wide)
        return np.stack([self.x + steps * np.cos(yaw), self.y + steps * np.sin(yaw), np.full(len(steps), 0.56 * wide)], axis=1)


def place(
    road: Roadside, class_name: str, along: float, across: float, yaw: float, size: np.ndarray, *, is_sitting: bool = False
) -> Standing:
    """yaw is counted from the direction in which traffic of this side drives."""
    x, y, heading = road.at(along, across)
    return Standing(class_name, x, y, heading + yaw, size, is_sitting)


def furnish(rng: np.random.Generator, plan: Plan, density: float, *, site_arms: tuple[int, ...], balanced: bool = False) -> list[Standing]:
    """Everything that stands on the street of one scene; one construction site on one of `site_arms`, one parked bus and one trailer
    where there is room for them.

    balanced  more of the rare classes: a site on several sides, more racks of cycles, rows of barriers and of cones, large vehicles parked
    """
    sides = [Roadside(plan, arm, sign) for arm in plan.arms for sign in (-1, 1)]
    closed: dict[Roadside, list[Span]] = {side: [] for side in sides}
    for arm, along in plan.zebras:
        for sign in (-1, 1):
            closed[Roadside(plan, arm, sign)].append((along - 9, along + 9))
    things: list[Standing] = []
    order = [sides[i] for i in rng.permutation(len(sides))]
    # the site needs a parking strip, or a yard behind the sidewalk
    possible = [side for side in order if side.section.parking != "none" or not side.has_lot]
    best = [side for side in possible if side.arm in site_arms and side.section.parking != "none"]
    sites = (best + [side for side in possible if side not in best])[: 3 if balanced else 1]
    for site in sites:
        begin, length = _free_stretch(site, closed[site], 23.0, rng), float(rng.uniform(11, 14))
        things += construction_site(site, begin, length, rng)
        closed[site].append((begin - 15, begin + length + 6))
    roomy = [side for side in order if side not in sites and side.section.parking == "parallel" and side.strip > ROOMY]
    first = dict(zip(roomy, ("bus", "trailer", *(("trailer", "bus") if balanced else ())), strict=False))  # the rare classes
    for row in order[-3:] if balanced else order[-1:]:
        if rng.random() < (0.6 if balanced else 0.4):
            things += _row_of(row, closed[row], "barrier", int(rng.integers(5, 22)), rng)
        if rng.random() < (0.7 if balanced else 0.4):
            things += _row_of(row, closed[row], "traffic_cone", int(rng.integers(3, 14)), rng)
    crowd = density * rng.lognormal(-0.15, 0.6)
    for side in sides:
        if not side.has_lot and side not in sites and rng.random() < (0.7 if balanced else 0.25) * density:
            along = float(side.kerb_begins + rng.uniform(4, 30))
            if _is_open(closed[side], along - 2.0, along + 8.0):
                things += rack(side, along, rng, bicycles=0.7 if balanced else 0.5)
                closed[side].append((along - 2.0, along + 8.0))
        things += parked_row(side, closed[side], _occupancy(density, rng), rng, first=first.get(side), balanced=balanced)
        for _ in range(rng.poisson(0.5 * crowd)):
            along, count = float(side.kerb_begins + rng.uniform(0, 70)), int(1 + rng.geometric(0.5))
            if _is_open(closed[side], along - 1, along + count):
                things += waiting_people(side, along, count, rng)
    people = []
    for lot in plan.lots:
        is_square = rng.random() < 0.35
        if not is_square:
            things += parked_in_lot(plan, lot, _occupancy(1.1 * density, rng), rng)
        people += people_in_lot(plan, lot, int(rng.poisson((9.0 if is_square else 3.0) * crowd)), rng)
    for side in sides:
        for _ in range(rng.poisson(0.7 * crowd)):
            along, count = float(side.kerb_begins + rng.uniform(0, 90)), int(rng.geometric(0.6))
            people += waiting_people(side, along, count, rng, across=side.section.front + float(rng.uniform(0.5, 3.2)))
    return things + _where_nothing_is(plan, people, things)


def _where_nothing_is(plan: Plan, people: list[Standing], things: list[Standing]) -> list[Standing]:
    """Those of the people who stand behind the pavements of all roads and in none of the things."""
    if not people:
        return []
    x, y = np.array([(person.x, person.y) for person in people]).T
    taken = np.concatenate([np.zeros((0, 3)), *[thing.footprint for thing in things]])
    is_near = (np.hypot(taken[:, 0] - x[:, None], taken[:, 1] - y[:, None]) < taken[:, 2] + 0.6).any(axis=1)
    is_free = ~is_near & (CrossSection.of(plan, x, y).beyond > 0.4)
    return [person for person, is_kept in zip(people, is_free.tolist(), strict=True) if is_kept]


def _occupancy(density: float, rng: np.random.Generator) -> float:
    """Share of the places that are taken: most rows are nearly full, some nearly empty."""
    return float(min(rng.beta(2.0, 0.8) * min(density, 1.0), 0.97))


def _is_open(closed: list[Span], begin: float, end: float) -> bool:
    return not any(begin < high and end > low for low, high in closed)


def _free_stretch(side: Roadside, closed: list[Span], length: float, rng: np.random.Generator) -> float:
    """Where a closed part of the kerb of that length may begin: the first try that meets nothing else."""
    along = side.kerb_begins
    for _ in range(8):
        along = side.kerb_begins + float(rng.uniform(9, 25))
        if _is_open(closed, along - 9, along + length):
            return along
    return max([along, *(high + 10 for _, high in closed)])


def parked_row(
    side: Roadside, closed: list[Span], occupancy: float, rng: np.random.Generator, *, first: str | None = None, balanced: bool = False
) -> list[Standing]:
    """Vehicles in the parking strip: one behind the other 0.8 - 2.2 m apart, or side by side; none where the strip is closed.

    first  class of a vehicle that stands at the head of the row
    Whether a place is taken depends on the one before: full and empty stretches follow each other.
    """
    section, row, along = side.section, [], side.kerb_begins + float(rng.uniform(0, 3))
    if section.parking == "none":
        return []
    taken = _chain(occupancy, rng)
    if section.parking == "perpendicular":
        pitch, heading = float(rng.uniform(2.6, 3.0)), float(rng.choice([-1, 1])) * np.pi / 2
        while along < ROW_ENDS:
            tight = min(side.stretch(along, section.kerb), side.stretch(along, section.parking_begins))
            size = draw_size("car", rng)
            deep = min(section.kerb + 0.2 - size[0] / 2, section.parking_begins + size[0] / 2 + float(rng.uniform(0.15, 0.5)))
            if next(taken) and _is_open(closed, along - 1.5, along + 1.5):
                turned = heading + np.pi * (rng.random() < 0.12)
                across = max(deep, section.parking_begins + size[0] / 2 + 0.1)
                row.append(place(side, "car", along, across, turned + rng.normal(0, 0.015), size))
            along += pitch / tight
        return row
    if first:
        taken = _headed(taken)
    while along < ROW_ENDS:
        tight = min(side.stretch(along, section.kerb), side.stretch(along, section.parking_begins))
        if not next(taken):
            along += 6.2 / tight
            continue
        name = first or str(rng.choice(["car", "truck", "trailer", "bus"], p=_LARGE if balanced else _USUAL))
        size = draw_size(name, rng)
        if size[1] > side.strip + 0.3:
            name, size = "car", draw_size("car", rng)
        end = along + size[0] / tight
        if _is_open(closed, along, end):
            first = None
            # who is wider than the strip stands on the kerb
            across = max(section.parking_middle + rng.normal(0, 0.06), section.parking_begins + size[1] / 2 + 0.04)
            row.append(place(side, name, (along + end) / 2, across, rng.normal(0, 0.015), size))
        along = end + float(rng.uniform(0.8, 2.2)) / tight
    return row


def _chain(occupancy: float, rng: np.random.Generator) -> Iterator[bool]:
    """Without end: whether place after place is taken."""
    stay = 0.5 + 0.48 * occupancy
    enter = min(occupancy * (1 - stay) / max(1 - occupancy, 1e-6), 1.0)
    is_taken = bool(rng.random() < occupancy)
    while True:
        yield is_taken
        is_taken = bool(rng.random() < (stay if is_taken else enter))


def _headed(taken: Iterator[bool]) -> Iterator[bool]:
    yield True
    yield from taken


def parked_in_lot(plan: Plan, lot: Lot, occupancy: float, rng: np.random.Generator) -> list[Standing]:
    """Cars side by side in rows along the street, two rows back to back between the lanes of a parking lot."""
    side, parked = Roadside(plan, lot.arm, lot.sign), []
    pitch, row = float(rng.uniform(2.6, 3.0)), side.section.sidewalk_end + 1.5
    lanes_after = bool(rng.random() < 0.5)  # the first row stands alone, or is the first of two
    while row + 5.0 <= side.section.sidewalk_end + lot.depth:
        taken, heading = _chain(occupancy, rng), float(rng.choice([-1, 1])) * np.pi / 2
        for along in np.arange(lot.begin + 1.6, lot.end - 1.5, pitch).tolist():
            if next(taken):
                size = draw_size("car", rng)
                turned = heading + np.pi * (rng.random() < 0.15) + rng.normal(0, 0.02)
                car = place(side, "car", along, row + 2.6 + float(rng.normal(0, 0.1)), turned, size)
                if float(CrossSection.of(plan, np.array(car.x), np.array(car.y)).beyond) > 3.0:
                    parked.append(car)
        row += 5.7 + 6.0 * lanes_after
        lanes_after = not lanes_after
    return parked


def people_in_lot(plan: Plan, lot: Lot, count: int, rng: np.random.Generator) -> list[Standing]:
    """People alone and in groups, anywhere on a lot."""
    side, people = Roadside(plan, lot.arm, lot.sign), list[Standing]()
    while len(people) < count:
        group = min(int(rng.geometric(0.6)), count - len(people))
        along, deep = float(rng.uniform(lot.begin + 1.0, lot.end - 1.0)), float(rng.uniform(1.0, lot.depth - 1.0))
        people += waiting_people(side, along, group, rng, across=side.section.sidewalk_end + deep)
    return people


def waiting_people(side: Roadside, along: float, count: int, rng: np.random.Generator, *, across: float | None = None) -> list[Standing]:
    """People who stand together near the kerb or before the fronts, facing anywhere; one in eight sits."""
    people, section = [], side.section
    if across is None:
        near_kerb = section.furniture[0] + 0.55
        across = near_kerb if rng.random() < 0.5 else section.front + float(rng.uniform(0.1, 0.6))
    for _ in range(count):
        size, is_sitting = draw_size("pedestrian", rng), bool(rng.random() < 0.125)
        if is_sitting:
            size = size * (1.0, 1.0, 0.72)
        spot = along, across + float(rng.uniform(0, 0.3))
        people.append(place(side, "pedestrian", *spot, rng.uniform(-3, 3), size, is_sitting=is_sitting))
        along += float(rng.uniform(0.75, 1.1))
    return people


def rack(side: Roadside, along: float, rng: np.random.Generator, *, bicycles: float) -> list[Standing]:
    """Two to five cycles before the fronts, 1.3 m apart; `bicycles` is how likely they are no motorcycles."""
    name, across = "bicycle" if rng.random() < bicycles else "motorcycle", side.section.front + 1.3
    count = int(rng.integers(2, 6))
    return [place(side, name, along + 1.3 * i, across, np.pi / 2 + rng.normal(0, 0.04), draw_size(name, rng)) for i in range(count)]


def barriers(side: Roadside, begin: float, count: int, rng: np.random.Generator, *, across: float | None = None) -> list[Standing]:
    """Barriers end to end, behind the kerb where it is not said how far `across`."""
    row, along, across = [], begin, side.section.kerb + 0.5 if across is None else across
    for _ in range(count):
        size = draw_size("barrier", rng)
        # in a bend their inner edges come together
        tight = min(side.stretch(along + ahead, across + edge) for ahead in (0.0, 2.4) for edge in (-0.4, 0.4))
        row.append(place(side, "barrier", along + size[1] / 2 / tight, across, np.pi / 2 + rng.normal(0, 0.02), size))
        along += (size[1] + 0.1) / tight
    return row


def _row_of(side: Roadside, closed: list[Span], class_name: str, count: int, rng: np.random.Generator) -> list[Standing]:
    """Barriers behind the kerb, or cones 1.5 to 3.5 m apart along it, where the kerb is free; they close it."""
    pitch = 2.5 if class_name == "barrier" else float(rng.uniform(1.5, 3.5))
    begin = float(side.kerb_begins + rng.uniform(2, 30))
    if not _is_open(closed, begin - 1, begin + pitch * count):
        return []
    closed.append((begin - 1, begin + pitch * count))
    if class_name == "barrier":
        return barriers(side, begin, count, rng)
    section = side.section
    across = (section.kerb if section.parking == "none" else section.parking_begins) + float(rng.uniform(0.45, 0.6))
    spots = [(begin + pitch * i, across + float(rng.normal(0, 0.05))) for i in range(count)]
    return [place(side, class_name, *spot, rng.uniform(-3, 3), draw_size(class_name, rng)) for spot in spots]


def construction_site(side: Roadside, begin: float, length: float, rng: np.random.Generator) -> list[Standing]:
    """A closed part of the parking strip, or a yard behind the sidewalk where there is none: barriers end to end along the lane, a
    slanting line of cones before, a machine, workers.

    A barrier's width is its long side, so it faces across the road.
    """
    site, section = [], side.section
    edge = section.parking_begins if section.parking != "none" else section.front + 0.2
    site += barriers(side, begin, int(length / 2.3) + 1, rng, across=edge + 0.35)
    for i in range(int(rng.integers(4, 8))):
        spot = begin - 2.2 - 1.6 * i, edge + 0.6 + min(0.45 * i, 1.35)
        site.append(place(side, "traffic_cone", *spot, rng.uniform(-3, 3), draw_size("traffic_cone", rng)))
    size = np.minimum(draw_size("construction_vehicle", rng), (6.0, 2.5, 3.0))
    site.append(place(side, "construction_vehicle", begin + length / 2, edge + 2.2, rng.normal(0, 0.02), size))
    site += waiting_people(side, begin + 0.3, int(rng.integers(1, 3)), rng, across=edge + 1.5)
    return site
