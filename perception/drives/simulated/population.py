"""Who is on the street at the start: road users on their routes, and the bodies (boxes) that they carry along."""

from dataclasses import dataclass, field

import numpy as np

from perception.drives.simulated import routes
from perception.drives.simulated.catalog import draw_size
from perception.drives.simulated.roads import BICYCLE_LANE, Plan
from perception.drives.simulated.routes import Route
from perception.drives.simulated.traffic import Movers

# class -> (share in the vehicle lanes, desired speed m/s, its standard deviation); "road_train" is a truck with a trailer
VEHICLES = {
    "car": (0.77, 9.5, 1.3),
    "truck": (0.08, 8.2, 0.8),
    "bus": (0.03, 7.5, 0.6),
    "road_train": (0.03, 7.5, 0.6),
    "motorcycle": (0.08, 9.8, 1.3),
    "bicycle": (0.01, 5.2, 0.6),
}
# the same where rare classes are wanted often
BALANCED = {"car": 0.42, "truck": 0.13, "bus": 0.11, "road_train": 0.14, "motorcycle": 0.12, "bicycle": 0.08}
CYCLES = {"bicycle": (4.8, 0.6), "motorcycle": (6.5, 0.6)}  # desired speeds in a bicycle lane
HITCH = 0.6  # metres between a truck and its trailer
GROUP_SIZES = (0.50, 0.27, 0.11, 0.06, 0.03, 0.02, 0.01)  # share of walking groups of 1, 2, ... people
UPSTREAM = {True: 190.0, False: 260.0}  # metres of lane that are filled before the crossing: with lights, and where traffic flows freely
DOWNSTREAM = 30.0  # ... and after it: during the warm-up they drive away


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

    routes: list[Route] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    length: list[float] = field(default_factory=list)
    s: list[float] = field(default_factory=list)
    desired: list[float] = field(default_factory=list)
    is_person: list[bool] = field(default_factory=list)

    def add(self, route: Route, parts: list[tuple[str, np.ndarray]], s: float, desired: float) -> None:
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

    def movers(self, *, has_lights: bool = True) -> Movers:
        desired, is_person = np.array(self.desired), np.array(self.is_person, bool)
        speed = desired * np.where(is_person, 1.0, 0.85)
        return Movers(self.routes, np.array(self.length), np.array(self.s), speed, desired, is_person, has_lights)


def populate(rng: np.random.Generator, plan: Plan, density: float, *, balanced: bool = False) -> Population:
    """Vehicles and cyclists in all lanes, then people on the sidewalks.

    balanced  more of the rare classes, fewer cars
    """
    population = Population()
    # some streets are full, some are empty
    traffic, crowd = density * rng.lognormal(0.0, 0.4), density * rng.lognormal(-0.15, 0.6)
    for arm in plan.arms:
        for lane in routes.lanes(plan, arm):
            _fill_lane(population, plan, arm, lane, rng, traffic * rng.lognormal(0.0, 0.3), balanced)
    for _ in range(rng.poisson(7.0 * len(plan.arms) * crowd)):
        _add_group(population, plan, rng)
    return population


def _fill_lane(population: Population, plan: Plan, arm: int, lane: int, rng: np.random.Generator, density: float, balanced: bool) -> None:
    """Queue up vehicles against the direction of travel: from the far end after the crossing to the far end before it.

    The way out of an arm from which nobody comes straight on is filled by those who turn.
    """
    ways = {movement: routes.vehicle_route(plan, arm, lane, movement) for movement in routes.movements(plan, arm, lane)}
    if not ways:
        return
    if "straight" in ways:
        straight = ways["straight"]
        clear = straight.crossing + DOWNSTREAM
        while clear > straight.crossing:  # on the way out; the crossing itself starts empty
            clear = _add_vehicle(population, plan, straight, lane, clear, rng, density, balanced, end=straight.crossing)
    clear = -1.0  # the rear of the vehicle ahead, in s
    if (arm, lane) == (0, 0):  # somebody has to carry the sensors: one car comes for sure, and in time
        clear = -float(rng.uniform(5, 60) if plan.has_lights else rng.uniform(120, 190))
        size = draw_size("car", rng)
        way = ways["straight"]
        population.add(way, [("car", size)], clear - size[0] / 2, min(rng.normal(*VEHICLES["car"][1:]), way.fastest))
        clear -= size[0]
    turns = [movement for movement in ways if movement != "straight"]
    while clear > -UPSTREAM[plan.has_lights]:
        movement = "straight"
        if turns and ("straight" not in ways or rng.random() < 0.33):
            movement = turns[int(rng.integers(len(turns)))]
        clear = _add_vehicle(population, plan, ways[movement], lane, clear, rng, density, balanced)


def _add_vehicle(
    population: Population,
    plan: Plan,
    route: Route,
    lane: int,
    clear: float,
    rng: np.random.Generator,
    density: float,
    balanced: bool,
    *,
    end: float = -np.inf,
) -> float:
    """One road user whose front is behind `clear`, unless its rear would be behind `end`; returns its rear."""
    is_turning = np.isfinite(route.slow)
    if lane == BICYCLE_LANE:
        kind = "bicycle" if rng.random() < (0.6 if balanced else 0.75) else "motorcycle"
        gap = 4.0 + rng.exponential((60 if balanced else 180) / density)
    else:
        names = list(VEHICLES)
        kind = str(rng.choice(names, p=[BALANCED[name] if balanced else VEHICLES[name][0] for name in names]))
        if is_turning and kind not in CYCLES:  # long vehicles would need the neighbouring lane
            kind = "car"
        gap = 4.0 + rng.exponential(62 / density)
    kinds = ("truck", "trailer") if kind == "road_train" else (kind,)
    parts = [(name, draw_size(name, rng)) for name in kinds]
    if lane != BICYCLE_LANE and not all(_fits(size, route, plan.section(route.entry // 3, -1).lane_width) for _, size in parts):
        kind = "car"
        parts = [(kind, draw_size(kind, rng))]
    mean, std = CYCLES[kind] if lane == BICYCLE_LANE else VEHICLES[kind][1:]
    length = sum(float(size[0]) for _, size in parts) + HITCH * (len(parts) - 1)
    front = clear - gap
    desired = min(max(rng.normal(mean, std), 0.6 * mean), route.fastest)
    if front - length > end:
        population.add(route, parts, front - length / 2, desired)
    return front - length


def _fits(size: np.ndarray, route: Route, lane_width: float) -> bool:
    """Whether a vehicle stays in its lane in the bends of a route, where its ends swing out."""
    radius = route.fastest**2 / 2.0
    return bool(size[1] + 2 * size[0] ** 2 / (8 * radius) <= lane_width)


def _add_group(population: Population, plan: Plan, rng: np.random.Generator) -> None:
    """People who walk together: rows of two, 0.85 m beside and 1.05 m behind each other; one by one where the sidewalk is narrow."""
    members = 1 + int(rng.choice(len(GROUP_SIZES), p=GROUP_SIZES))
    arm, direction = plan.arms[int(rng.integers(len(plan.arms)))], int(rng.choice([-1, 1]))
    patience, shift = rng.uniform(0.5, 1.8), rng.uniform(-1.2, 0.5)
    kind = rng.choice(["corner", "along", "zebra"], p=[0.4, 0.35, 0.25])
    other, opposite = plan.neighbour(arm, 1), (arm + 2) % 4
    if kind == "zebra" and not plan.zebras:
        kind = "corner"
    if kind == "along" and (opposite not in plan.arms or (other is not None and not plan.has_lights)):
        kind = "corner"
    if kind == "corner" and other is None:
        kind = "along"
    sections = [plan.section(arm, sign) for sign in (-1, 1)] if kind != "corner" else [plan.section(arm, 1), plan.section(other or 0, -1)]
    zebra = int(rng.integers(len(plan.zebras))) if kind == "zebra" else -1
    if kind == "zebra":
        sections = [plan.section(plan.zebras[zebra][0], sign) for sign in (-1, 1)]
    wide = min(section.front - section.furniture[1] for section in sections)
    # who walks against the route keeps to the other half of the sidewalk
    base = wide * (0.16 if direction > 0 else 0.55) + rng.uniform(0, 0.05 * wide)
    columns = 2 if wide > 3.3 else 1
    desired, start = max(rng.normal(1.35, 0.17), 0.8), rng.uniform(-95, 75)
    for member in range(members):
        row, column = divmod(member, columns)
        inside = base + 0.85 * column
        if kind == "corner":
            route = routes.walk_around_corner(plan, arm, inside, direction)
        elif kind == "along":
            route = routes.walk_along(plan, arm, inside, direction, patience)
        else:
            route = routes.walk_over_zebra(plan, zebra, inside, direction, shift + 0.85 * column, patience)
        s = start if start < 0 or not route.crossing else start + route.crossing + 5.0  # nobody starts on the road
        population.add(route, [("pedestrian", draw_size("pedestrian", rng))], min(s, -3.0) if s < 0 else s, desired)
        population.s[-1] -= 1.05 * row
