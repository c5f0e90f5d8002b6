"""What stands along the simulated street and belongs to no object: houses, walls, hedges, trees, lamps, signs, benches, far blocks."""

import numpy as np

from perception.core import UsageError
from perception.drives.simulated.houses import house, wall_line
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.pile import Frontage, Pile
from perception.drives.simulated.plants import avenue_tree, bush, hedge, kerb_tree, tree
from perception.drives.simulated.roads import Lot, Roadside
from perception.drives.simulated.streetware import footbridge, lamp, put_down, sign, traffic_light
from perception.drives.simulated.terrain import Terrain

STYLES = {"town": 0.68, "gardens": 0.18, "park": 0.12, "open": 0.02}  # share of the frontages


def build_scenery(
    rng: np.random.Generator, terrain: Terrain, density: float = 1.0, *, radius: float = 110.0, keep_clear: np.ndarray | None = None
) -> Matter:
    """Everything beside the roads of one scene, in the street frame, on the ground of `terrain`.

    density     1 is a usual street; trees and furniture scale with it
    radius      metres from the middle of the crossing up to which the street is lined; far blocks and trees stand a little beyond
    keep_clear  (K, 3) circles x, y, radius in which nothing is put: where objects stand that are no part of the plan
    Roads, parking strips, walking bands and the ways over the zebra crossings stay free (`pile.blocks_the_way`).
    600 - 1,000 shapes at the defaults. Raises UsageError for a density or radius that is not above 0.
    """
    if not (density > 0 and radius > 0):
        raise UsageError(f"build_scenery: expected density > 0 and radius > 0, got {density} and {radius}")
    plan, pile = terrain.plan, Pile()
    styles = rng.choice(list(STYLES), size=(4, 2), p=list(STYLES.values()))
    for arm in plan.arms:
        for i, road in enumerate((Roadside(plan, arm, -1), Roadside(plan, arm, 1))):
            corner = plan.corner(arm, road.sign)
            first = 0.2
            if corner is not None:
                # the corner plot belongs to arms 0 and 2; the other frontage begins behind it
                first = corner.front + (0.4 if arm % 2 == 0 else rng.uniform(14, 20))
                if plan.has_lights:
                    traffic_light(pile, Frontage.of(road, 0.0), corner.kerb, rng)
            line_kerb(pile, road, density, radius, rng)
            line_front(pile, road, str(styles[arm, i]), first, density, radius, rng)
    for lot in plan.lots:
        road = Roadside(plan, lot.arm, lot.sign)
        edge_of_lot(pile, road, lot, rng)
        near = road.section.sidewalk_end + 1.0  # what would stand in a car is refused
        put_down(pile, road, rng.poisson(5 * density), (lot.begin, lot.end), (near, near + lot.depth - 2.0), rng)
    if rng.random() < 0.3:
        arm, along = plan.arms[int(rng.integers(len(plan.arms)))], rng.uniform(35, 90)
        footbridge(pile, Frontage.of(Roadside(plan, arm, 1), along), along, max(plan.section(arm, sign).front for sign in (-1, 1)), rng)
    fill_background(pile, density, radius, rng)
    return pile.matter(plan, terrain.height, np.zeros((0, 3)) if keep_clear is None else keep_clear)


def line_kerb(pile: Pile, road: Roadside, density: float, radius: float, rng: np.random.Generator) -> None:
    """What stands between the kerb and the walking band: lamps, perhaps trees and something that keeps people off the road, furniture."""
    inner, outer = road.section.furniture
    middle = (inner + outer) / 2
    spacing, along = rng.uniform(22, 35), road.sidewalk_begins + rng.uniform(0, 12)
    while along < radius:
        lamp(pile, Frontage.of(road, along), along, inner + 0.3, rng)
        along += spacing
    row_of_trees(pile, road, density, radius, rng)
    if rng.random() < 0.35:
        line_of_pieces(pile, road, radius, rng)
    for _ in range(rng.poisson(3 * density)):
        along = rng.uniform(road.sidewalk_begins, radius)
        sign(pile, Frontage.of(road, along), along, rng.uniform(inner + 0.1, middle), rng)
    put_down(pile, road, rng.poisson(7 * density), (road.sidewalk_begins, radius), (middle, middle), rng)


def row_of_trees(pile: Pile, road: Roadside, density: float, radius: float, rng: np.random.Generator) -> None:
    """Slender trees cut back from the road, wide crowns high over it, or none."""
    row = str(rng.choice(["slender", "avenue", "none"], p=[0.35, 0.52, 0.13]))
    if row == "none":
        return
    plant, tallest = (kerb_tree, 9.0) if row == "slender" else (avenue_tree, 15.0)
    spacing, along, height = rng.uniform(10, 18), road.sidewalk_begins + rng.uniform(2, 12), rng.uniform(0.65, 1.0) * tallest
    while along < radius:
        if rng.random() < 0.85 * min(density, 1.15):
            plant(pile, Frontage.of(road, along), along, height * rng.uniform(0.85, 1.2), rng)
        along += spacing * rng.uniform(0.8, 1.3)


def line_of_pieces(pile: Pile, road: Roadside, radius: float, rng: np.random.Generator) -> None:
    """What keeps people off the road: hedges, low walls or railings, with gaps."""
    kind = str(rng.choice(["hedge", "fence", "wall"], p=[0.38, 0.1, 0.52]))
    (inner, outer), along = road.section.furniture, road.sidewalk_begins + rng.uniform(0, 4)
    while along < radius:
        length = rng.uniform(6, 30)
        if rng.random() < 0.85:
            end, across = min(along + length, radius), (inner + outer) / 2 + rng.uniform(-0.2, 0.2) * (outer - inner - 1.0)
            if kind == "hedge":
                hedge(pile, road, along, end, across, rng, largest=(1.3, 1.0), wobble=0.08)
            else:
                wall_line(pile, road, along, end, across, rng, is_fence=kind == "fence", tallest=1.3, wobble=0.05)
        along += length + rng.uniform(1.5, 4)


def line_front(pile: Pile, road: Roadside, style: str, first: float, density: float, radius: float, rng: np.random.Generator) -> None:
    """Plots from the corner outwards: a house, a garden or a green, each with what stands before it."""
    along, edge_of_walk = first, road.section.front
    setback = {"town": rng.uniform(0.2, 2.0), "gardens": rng.uniform(5, 12), "park": 14.0, "open": 16.0}[style]
    while along < radius:
        length = rng.uniform(12, 30) if style == "town" else rng.uniform(12, 26)
        gap = rng.choice([0.0, rng.uniform(2, 7)], p=[0.75, 0.25]) if style == "town" else rng.uniform(4, 14)
        front = edge_of_walk + setback + rng.uniform(0, 2.0 if style == "town" else 4.0)
        middle = along + length / 2
        side = Frontage.of(road, middle)
        kind = style if rng.random() < 0.8 else str(rng.choice(list(STYLES)))
        if kind == "town" or (kind == "gardens" and rng.random() < 0.75):
            house(pile, side, along, along + length, front, rng, is_low=kind == "gardens")
        if front > edge_of_walk + 2.5 and rng.random() < 0.7:
            edge = edge_of_walk + rng.uniform(0.3, 1.2)
            boundary = str(rng.choice(["hedge", "fence", "wall"], p=[0.5, 0.16, 0.34]))
            part = along + length * rng.uniform(0.6, 1.0)
            if boundary == "hedge":
                hedge(pile, road, along, part, edge + 0.4, rng)
            else:
                wall_line(pile, road, along, part, edge, rng, is_fence=boundary == "fence")
        if front > edge_of_walk + 1.2:
            deepest = min(front - 0.4, edge_of_walk + 12.0)
            put_down(pile, road, rng.poisson(0.9 * density), (along, along + length + gap), (edge_of_walk + 0.4, deepest), rng)
        if front > edge_of_walk + 4.0:
            number = {"town": 0.3, "gardens": 1.8, "park": 4.5, "open": 2.0}[kind]
            for _ in range(rng.poisson(number * density)):
                depth = rng.uniform(1.8, max(front - edge_of_walk - 1.0, 2.0)) if kind != "park" else rng.uniform(1.5, 25.0)
                x, y = side.at(along + rng.uniform(0, length + gap), edge_of_walk + depth)
                if rng.random() < 0.62:
                    tree(pile, x, y, rng.uniform(4.5, 12), rng, clear=rng.uniform(0.8, 2.6))
                else:
                    bush(pile, x, y, rng)
        along += length + gap


def edge_of_lot(pile: Pile, road: Roadside, lot: Lot, rng: np.random.Generator) -> None:
    """What parts a parking lot from the sidewalk, most of its length: a hedge, a low wall or a fence."""
    kind, end = str(rng.choice(["hedge", "wall", "fence", "nothing"], p=[0.4, 0.25, 0.15, 0.2])), lot.begin + (lot.end - lot.begin) * 0.8
    if kind == "hedge":
        hedge(pile, road, lot.begin, end, road.section.front + 0.75, rng, largest=(1.5, 0.9), wobble=0.05)
    elif kind != "nothing":
        wall_line(pile, road, lot.begin, end, road.section.front + 0.7, rng, is_fence=kind == "fence", tallest=1.4, wobble=0.05)


def fill_background(pile: Pile, density: float, radius: float, rng: np.random.Generator) -> None:
    """Trees in groups and large blocks behind the first row, to be seen through the gaps and above the roofs."""
    for q in range(4):
        for _ in range(rng.poisson(3.5 * density)):
            x, y = _in_quadrant(rng.uniform(40, radius + 15, 2), q)
            for _ in range(int(rng.integers(1, 4))):
                dx, dy = rng.normal(0, 5, 2)
                tree(pile, x + dx, y + dy, rng.uniform(8, 18), rng, clear=rng.uniform(1.5, 4.0), scale=1.5, reading=38.0)
        for _ in range(rng.poisson(10 * density)):
            x, y = _in_quadrant(rng.uniform(40, radius + 20, 2), q)
            pile.begin(x, y)
            size = rng.uniform(8, 26), rng.uniform(8, 20), rng.uniform(6, 30) + 3
            pile.box(x, y, -3.0, size, rng.choice([0.0, rng.uniform(0, np.pi)]), reading=float(np.clip(45 * rng.lognormal(0, 0.5), 8, 120)))


def _in_quadrant(place: np.ndarray, q: int) -> tuple[float, float]:
    """A place (x, y) > 0 moved into quadrant q: 0 is x < 0, y < 0, the others follow counter-clockwise."""
    x, y = place.tolist()
    return ((-x, -y), (y, -x), (x, y), (-y, x))[q]
