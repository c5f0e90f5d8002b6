"""Who is on the street at the start: road users on their routes, and the bodies (boxes) that they carry along."""

from dataclasses import dataclass, field

import numpy as np

from perception.drives.simulated import roads
from perception.drives.simulated.catalog import draw_size
from perception.drives.simulated.traffic import Movers

# class -> (share in the vehicle lanes, desired speed m/s, its standard deviation); "road_train" is a truck with a trailer
VEHICLES = {
    "car": (0.81, 9.5, 1.3),
    "truck": (0.08, 8.2, 0.8),
    "bus": (0.03, 7.5, 0.6),
    "road_train": (0.03, 7.5, 0.6),
    "motorcycle": (0.05, 9.8, 1.3),
}
HITCH = 0.6  # metres between a truck and its trailer
GROUP_SIZES = (0.46, 0.30, 0.13, 0.07, 0.04)  # share of walking groups of 1, 2, ... people
UPSTREAM, DOWNSTREAM = 190.0, 120.0  # metres of lane that are filled before and after the crossing


@dataclass(frozen=True, eq=False)
class Body:
    """A box that a road user carries: `offset` metres in front of the road user's middle; size (3,) l w h."""

    mover: int
    offset: float
    class_name: str
    size: np.ndarray


@dataclass
class Population:
    """Road users while they are being drawn; `movers()` is the finished value."""

    routes: list[roads.Route] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    length: list[float] = field(default_factory=list)
    s: list[float] = field(default_factory=list)
    desired: list[float] = field(default_factory=list)
    is_person: list[bool] = field(default_factory=list)

    def add(self, route: roads.Route, parts: list[tuple[str, np.ndarray]], s: float, desired: float) -> None:
        """One road user whose middle is at `s`; parts (class name, size) from front to back, `HITCH` metres apart."""
        length = sum(float(size[0]) for _, size in parts) + HITCH * (len(parts) - 1)
        offset = length / 2
        for class_name, size in parts:
            self.bodies.append(Body(len(self.routes), offset - float(size[0]) / 2, class_name, size))
            offset -= float(size[0]) + HITCH
        self.routes.append(route)
        self.length.append(length)
        self.s.append(s)
        self.desired.append(desired)
        self.is_person.append(parts[0][0] == "pedestrian")

    def movers(self) -> Movers:
        desired, is_person = np.array(self.desired), np.array(self.is_person)
        return Movers(self.routes, np.array(self.length), np.array(self.s), desired * np.where(is_person, 1.0, 0.85), desired, is_person)


def populate(rng: np.random.Generator, density: float) -> Population:
    """Vehicles and cyclists in all lanes, then people on the sidewalks."""
    population = Population()
    for arm in range(4):
        for lane in range(3):
            _fill_lane(population, arm, lane, rng, density)
    for _ in range(rng.poisson(14 * density)):
        _add_group(population, rng)
    return population


def _fill_lane(population: Population, arm: int, lane: int, rng: np.random.Generator, density: float) -> None:
    """Queue up vehicles against the direction of travel: from the far end after the crossing to the far end before it."""
    straight = roads.vehicle_route(arm, lane, "straight")
    clear = -1.0  # the rear of the vehicle ahead, in s
    clear_after = straight.crossing + DOWNSTREAM
    while clear_after > straight.crossing + 8.0:  # on the way out; the crossing itself starts empty
        clear_after = _add_vehicle(population, straight, lane, clear_after, rng, density)
    while clear > -UPSTREAM:
        movement = "straight"
        if lane != roads.BICYCLE_LANE and rng.random() < 0.33:
            movement = ("left", "right")[lane]
        clear = _add_vehicle(population, roads.vehicle_route(arm, lane, movement), lane, clear, rng, density)


def _add_vehicle(population: Population, route: roads.Route, lane: int, clear: float, rng: np.random.Generator, density: float) -> float:
    """One road user whose front is behind `clear`; returns its rear."""
    is_turning = np.isfinite(route.slow)
    if lane == roads.BICYCLE_LANE:
        kind, mean, std = ("bicycle", 4.8, 0.6) if rng.random() < 0.75 else ("motorcycle", 6.5, 0.6)
        gap = 4.0 + rng.exponential(220 / density)
    else:
        names = list(VEHICLES)
        kind = str(rng.choice(names, p=[VEHICLES[name][0] for name in names]))
        if is_turning and kind != "motorcycle":  # long vehicles would need the neighbouring lane
            kind = "car"
        _, mean, std = VEHICLES[kind]
        gap = 5.0 + rng.exponential(85 / density)
    kinds = ("truck", "trailer") if kind == "road_train" else (kind,)
    parts = [(name, draw_size(name, rng)) for name in kinds]
    length = sum(float(size[0]) for _, size in parts) + HITCH * (len(parts) - 1)
    front = clear - gap
    population.add(route, parts, front - length / 2, max(rng.normal(mean, std), 0.6 * mean))
    return front - length


def _add_group(population: Population, rng: np.random.Generator) -> None:
    """People who walk together: rows of two, 0.85 m beside and 1.05 m behind each other."""
    members = 1 + int(rng.choice(len(GROUP_SIZES), p=GROUP_SIZES))
    kind = rng.choice(["corner", "across", "zebra"], p=[0.4, 0.35, 0.25])
    arm, direction = int(rng.integers(4)), int(rng.choice([-1, 1]))
    base, patience, shift = rng.uniform(*roads.SIDEWALK[direction]), rng.uniform(0, 1.5), rng.uniform(-1.2, 0.5)
    desired, start = max(rng.normal(1.35, 0.17), 0.8), rng.uniform(-95, 75)
    for member in range(members):
        row, column = divmod(member, 2)
        offset = base + 0.85 * column
        if kind == "corner":
            route = roads.walk_around_corner(arm, offset, direction)
        elif kind == "across":
            route = roads.walk_across(arm, offset, direction, patience)
        else:
            route = roads.walk_over_zebra(arm % 2, offset, direction, shift + 0.85 * column, patience)
        s = start if start < 0 else start + route.crossing + 5.0  # nobody starts on the road
        population.add(route, [("pedestrian", draw_size("pedestrian", rng))], min(s, -3.0) if s < 0 else s, desired)
        population.s[-1] -= 1.05 * row
