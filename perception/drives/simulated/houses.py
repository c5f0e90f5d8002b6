"""Houses with relief, garden walls and fences of a simulated street, part by part."""

from typing import Protocol

import numpy as np

from perception.drives.simulated.pile import Pile

FOUNDATION = 2.5  # metres that walls reach below the ground at their foot, for slopes


class Side(Protocol):
    """A side of the street that things are placed along: `along` metres from the crossing, `across` from the centre line."""

    def at(self, along: float, across: float) -> tuple[float, float]: ...

    @property
    def yaw(self) -> float: ...

    @property
    def outwards(self) -> float: ...


def surface_reading(median: float, rng: np.random.Generator, spread: float = 0.6) -> float:
    return float(np.clip(median * rng.lognormal(0, spread), 4, 150))


def house(pile: Pile, side: Side, begin: float, end: float, front: float, rng: np.random.Generator, *, is_low: bool) -> None:
    """A body from `begin` to `end` along the street, its front `front` metres from the centre line.

    Before the recessed wall lie bands between the storeys, pillars, sills, a door, and here and there balconies and a canopy;
    low houses have a roof that slopes.
    """
    length, depth = end - begin, float(rng.uniform(7, 14))
    height = float(rng.uniform(3.2, 7.5) if is_low else rng.uniform(6, 22))
    storey = float(rng.uniform(2.8, 3.6))
    wall, trim = surface_reading(26, rng), surface_reading(30, rng)
    color = tuple(int(c) for c in rng.integers(110, 215, 3))
    recess = float(rng.uniform(0.05, 0.3))
    pile.begin(*side.at((begin + end) / 2, front))

    def block(a: float, b: float, low: float, high: float, out: float, deep: float, reading: float, passing: float = 0.0) -> None:
        """From a to b along the street, low to high, from `out` metres before the front to `deep` metres behind it."""
        x, y = side.at((a + b) / 2, front + (deep - out) / 2)
        pile.box(x, y, low, (b - a, out + deep, high - low), side.yaw, reading=reading, color=color, passing=passing)

    block(begin, end, -FOUNDATION, height, -recess, depth, wall)
    block(begin, end, -FOUNDATION, float(rng.uniform(0.3, 0.9)), 0.02, recess + 0.1, trim)
    for level in np.arange(storey, min(height, 12.0), storey):
        block(begin, end, level - 0.9, level + float(rng.uniform(0.0, 0.7)), 0.0, recess + 0.1, trim)
    bays = max(1, int(length / rng.uniform(5.5, 9.5)))
    edges = np.linspace(begin, end, bays + 1)
    pillar, jut = float(rng.uniform(0.2, 0.7)), float(rng.uniform(0.02, 0.15))
    for edge in edges.tolist():
        block(max(edge - pillar, begin), min(edge + pillar, end), -FOUNDATION, height, jut, recess + 0.1, trim)
    for i in range(bays):
        a, b = edges[i] + 0.3 * (edges[1] - edges[0]), edges[i + 1] - 0.3 * (edges[1] - edges[0])
        what = rng.random()
        if what < 0.3:  # sill or air conditioner
            level = storey * int(rng.integers(0, 2)) + 0.9
            block(a, b, level, level + float(rng.uniform(0.1, 0.6)), float(rng.uniform(0.1, 0.35)), recess, trim)
        elif what < 0.5 and height > 1.9 * storey:  # balcony
            block(a - 0.3, b + 0.3, storey, storey + 0.18, 1.1, recess, trim)
            x, y = side.at((a + b) / 2, front - 1.1)
            pile.box(x, y, storey + 0.18, (b - a + 0.6, 0.05, 0.95), side.yaw, reading=trim, color=color, passing=0.4)
        elif what < 0.65:  # canopy, sign board
            block(a - 0.5, b + 0.5, 2.6, 2.6 + float(rng.uniform(0.15, 0.7)), float(rng.uniform(0.2, 1.0)), recess, surface_reading(28, rng))
    if is_low and rng.random() < 0.8:
        slope = float(rng.uniform(0.7, 1.6))  # metres in per metre of height
        x, y = side.at((begin + end) / 2, front + depth / 2)
        rise = (depth / 2 + 0.4) / slope * 0.95
        pile.box(x, y, height, (length + 0.8, depth + 0.8, rise), side.yaw, reading=surface_reading(22, rng), taper=(0.0, 0.0, slope))


def wall_line(
    pile: Pile, side: Side, begin: float, end: float, across: float, rng: np.random.Generator, *, is_fence: bool, tallest: float = 2.2
) -> None:
    """A garden wall with pillars, or a fence with posts that most rays pass, in pieces that follow the slope."""
    height, reading = float(rng.uniform(0.6, tallest)), surface_reading(20, rng)
    passing = float(rng.uniform(0.25, 0.6)) if is_fence else 0.0
    thickness = 0.05 if is_fence else float(rng.uniform(0.15, 0.3))
    pieces = max(1, round((end - begin) / 8))
    edges = np.linspace(begin, end, pieces + 1).tolist()
    for a, b in zip(edges, edges[1:], strict=False):
        x, y = side.at((a + b) / 2, across)
        pile.begin(x, y)
        pile.box(x, y, -0.6 if not is_fence else 0.05, (b - a, thickness, height + 0.6), side.yaw, reading=reading, passing=passing)
        x, y = side.at(a, across)
        pile.box(x, y, -0.6, (0.12 + thickness, 0.12 + thickness, height + 0.75), side.yaw, reading=reading)
