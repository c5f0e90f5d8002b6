"""Houses with relief, garden walls and fences of a simulated street, part by part."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from perception.drives.simulated.pile import Color, Frontage, Pile, surface_reading
from perception.drives.simulated.roads import Roadside

FOUNDATION = 2.5  # metres that walls reach below the ground at their foot, for slopes


@dataclass(frozen=True)
class Facade:
    """A piece of a house's front: from `begin` to `end` along the street, `front` metres from the centre line, `height` metres high."""

    side: Frontage
    begin: float
    end: float
    front: float
    height: float
    depth: float
    storey: float
    trim: float
    color: Color

    def put(self, pile: Pile, a: float, b: float, low: float, high: float, out: float, deep: float, reading: float) -> None:
        """A block from a to b along the street, low to high, from `out` metres before the front to `deep` metres behind it."""
        x, y = self.side.at((a + b) / 2, self.front + (deep - out) / 2)
        pile.box(x, y, low, (b - a, out + deep, high - low), self.side.yaw, reading=reading, color=self.color)


def house(pile: Pile, side: Frontage, begin: float, end: float, front: float, rng: np.random.Generator, *, is_low: bool) -> None:
    """One to three pieces side by side, each with its own height and place of the front, `front` metres from the centre line or behind.

    Low houses have a roof that slopes.
    """
    length, depth = end - begin, float(rng.uniform(8, 14))
    height = float(rng.uniform(3.2, 7.5) if is_low else rng.uniform(6, 22))
    storey = float(rng.uniform(2.8, 3.6))
    wall, trim = surface_reading(33, rng), surface_reading(37, rng)
    light, warm, fresh = rng.integers(110, 215, 3).tolist()
    tint = (warm - 162) // 4, (fresh - 162) // 8
    color = light + tint[0], light + tint[1], light - tint[0]  # plaster and brick: warm or cold, hardly coloured
    pile.begin(*side.at((begin + end) / 2, front))
    pieces = int(rng.integers(1, 4)) if length > 14 else 1
    edges = np.linspace(begin, end, pieces + 1).tolist()
    main = int(rng.integers(pieces))
    for i in range(pieces):
        back = 0.0 if i == main else float(rng.choice([0.0, rng.uniform(0.4, 4.0)]))
        high = height if i == main else height * float(rng.uniform(0.45, 1.1))
        facade = Facade(side, edges[i], edges[i + 1], front + back, high, depth - back, storey, trim, color)
        _relief(pile, facade, wall, rng)
    if is_low and pieces == 1 and rng.random() < 0.8:
        slope = float(rng.uniform(0.7, 1.6))  # metres in per metre of height
        x, y = side.at((begin + end) / 2, front + depth / 2)
        rise = (depth / 2 + 0.4) / slope * 0.95
        pile.box(x, y, height, (length + 0.8, depth + 0.8, rise), side.yaw, reading=surface_reading(22, rng), taper=(0.0, 0.0, slope))


def _relief(pile: Pile, f: Facade, wall: float, rng: np.random.Generator) -> None:
    """The recessed wall, bands between the storeys, pillars, and in the bays porches, sills, balconies, canopies and sign boards."""
    recess = float(rng.choice([rng.uniform(0.05, 0.3), rng.uniform(0.8, 2.5)], p=[0.65, 0.35]))  # deep ones are arcades and loggias
    f.put(pile, f.begin, f.end, -FOUNDATION, f.height, -recess, f.depth, wall)
    for level in np.arange(f.storey, min(f.height, 7.0), f.storey).tolist():
        f.put(pile, f.begin, f.end, level - 0.9 * min(1.0, 0.3 / recess), level + float(rng.uniform(0.1, 0.5)), 0.0, recess + 0.1, f.trim)
    bays = max(1, int((f.end - f.begin) / rng.uniform(6.5, 13.0)))
    edges = np.linspace(f.begin, f.end, bays + 1).tolist()
    pillar, jut = float(rng.uniform(0.15, 0.5)), float(rng.uniform(0.02, 0.2))
    for edge in edges:
        f.put(pile, max(edge - pillar, f.begin), min(edge + pillar, f.end), -FOUNDATION, f.height, jut, recess + 0.1, f.trim)
    room = f.front - f.side.front  # nothing may reach over the sidewalk
    for left, right in pairwise(edges):
        a, b = left + 0.25 * (right - left), right - 0.25 * (right - left)
        what = rng.random()
        if what < 0.2:  # sill or air conditioner
            level = f.storey * int(rng.integers(0, 2)) + 0.9
            f.put(pile, a, b, level, level + float(rng.uniform(0.1, 0.7)), min(float(rng.uniform(0.1, 0.4)), room), recess, f.trim)
        elif what < 0.35 and f.height > 1.9 * f.storey:  # balcony with a closed rail
            f.put(pile, a - 0.3, b + 0.3, f.storey, f.storey + float(rng.uniform(0.2, 1.1)), 1.1, recess, f.trim)
        elif what < 0.5:  # canopy, sign board
            f.put(
                pile,
                a - 0.5,
                b + 0.5,
                2.6,
                2.6 + float(rng.uniform(0.15, 0.8)),
                float(rng.uniform(0.2, 1.2)),
                recess,
                surface_reading(28, rng),
            )
        elif what < 0.65 and room > 0.6:  # porch, steps, bay window, boxes
            out = float(rng.uniform(0.4, min(room, 2.5)))
            f.put(pile, a, b, -0.5, float(rng.choice([rng.uniform(0.4, 1.2), rng.uniform(2.2, 4.0)])), out, recess, f.trim)


def wall_line(
    pile: Pile,
    road: Roadside,
    begin: float,
    end: float,
    across: float,
    rng: np.random.Generator,
    *,
    is_fence: bool,
    tallest: float = 2.2,
    wobble: float = 0.3,
) -> None:
    """A garden wall with pillars, or a fence with posts that most rays pass, in pieces that follow the slope.

    wobble  metres, one standard deviation of the step from piece to piece
    """
    height, reading = float(rng.uniform(0.6, tallest)), surface_reading(20, rng)
    passing = float(rng.uniform(0.15, 0.5)) if is_fence else 0.0
    thickness = 0.05 if is_fence else float(rng.uniform(0.15, 0.3))
    pieces = max(1, round((end - begin) / 9))
    edges = np.linspace(begin, end, pieces + 1).tolist()
    for a, b in pairwise(edges):
        across += wobble * float(rng.normal())
        middle = (a + b) / 2
        side, long = Frontage.of(road, middle), (b - a) * road.stretch(middle, across)
        x, y = side.at(middle, across)
        pile.begin(x, y)
        pile.box(x, y, -0.6 if not is_fence else 0.05, (long, thickness, height + 0.6), side.yaw, reading=reading, passing=passing)
        x, y = side.at(a, across)
        pile.box(x, y, -0.6, (0.12 + thickness, 0.12 + thickness, height + 0.75), side.yaw, reading=reading)
