"""Trees, bushes and hedges of a simulated street: leaves as volumes that stop some rays and let others through."""

from itertools import pairwise

import numpy as np

from perception.drives.simulated.pile import Frontage, Pile, surface_reading
from perception.drives.simulated.roads import Roadside

BARK = (88, 70, 54)


def tree(
    pile: Pile, x: float, y: float, height: float, rng: np.random.Generator, *, clear: float, scale: float = 1.0, reading: float = 34.0
) -> None:
    """A trunk, two boughs and a ragged crown of three to five ellipsoids that begins `clear` metres above the ground.

    scale    of the crown's width, 1 gives 3 - 6 m
    reading  median reflectivity of the leaves
    """
    reading = surface_reading(reading, rng, 0.35)
    pile.begin(x, y)
    pile.pole(x, y, -0.5, 0.012 * height + rng.uniform(0.05, 0.15), clear + 0.5 + 0.35 * (height - clear), reading=20.0, color=BARK)
    crown = height - clear
    extinction = float(np.exp(rng.uniform(np.log(0.5), np.log(3.0))))
    width = scale * rng.uniform(2.2, 3.6) * np.clip(crown / 5.0, 0.6, 1.3)
    for i in range(int(rng.integers(2, 5))):
        high = crown * rng.uniform(0.4, 0.7)
        low = clear + (0.0 if i == 0 else rng.uniform(0, crown - high))
        dx, dy = rng.normal(0, 0.3 * width, 2)
        size = width * rng.uniform(0.7, 1.25), width * rng.uniform(0.7, 1.25), high
        # leaves thin out upwards and outwards: the parts differ
        pile.leaves(x + dx, y + dy, low, size, rng.uniform(0, np.pi), reading=reading, extinction=extinction * rng.uniform(0.5, 1.6))


def kerb_tree(pile: Pile, side: Frontage, along: float, height: float, rng: np.random.Generator) -> None:
    """A slender tree between kerb and sidewalk whose crown was cut back on the side of the road and hangs over the sidewalk."""
    clear, width = rng.uniform(2.55, 3.2), rng.uniform(2.0, 3.2)
    reading, extinction = surface_reading(30, rng, 0.35), float(np.exp(rng.uniform(np.log(1.2), np.log(6.0))))
    x, y = side.at(along, side.furniture[1] - 0.4)
    pile.begin(x, y)
    pile.pole(x, y, -0.5, rng.uniform(0.07, 0.16), clear + 1.2, reading=20.0, color=BARK)
    for i in range(3):
        size = width * rng.uniform(0.8, 1.5), width * rng.uniform(0.8, 1.0), (height - clear) * rng.uniform(0.4, 0.75)
        low = clear + (0.0 if i == 0 else rng.uniform(0.0, height - clear - size[2]))
        x, y = side.at(along + rng.normal(0, 0.5), side.furniture[0] + 0.02 + size[1] / 2 + rng.uniform(0, 0.6))
        pile.leaves(x, y, low, size, side.yaw, reading=reading, extinction=extinction * rng.uniform(0.5, 1.6))


def avenue_tree(pile: Pile, side: Frontage, along: float, height: float, rng: np.random.Generator) -> None:
    """A wide crown high over the road and the sidewalk, on a stout trunk at the kerb."""
    clear = rng.uniform(4.35, 5.2)
    reading, extinction = surface_reading(34, rng, 0.35), float(np.exp(rng.uniform(np.log(0.4), np.log(2.0))))
    x, y = side.at(along, side.furniture[1] - 0.6)
    pile.begin(x, y)
    pile.pole(x, y, -0.5, rng.uniform(0.15, 0.35), clear + 1.8, reading=20.0, color=BARK)
    for i in range(3):
        size = rng.uniform(4, 8), rng.uniform(4, 8), (height - clear) * rng.uniform(0.45, 0.8)
        low = clear + (0.0 if i == 0 else rng.uniform(0.0, height - clear - size[2]))
        x, y = side.at(along + rng.normal(0, 1.8), side.furniture[1] + rng.normal(0, 1.8))
        pile.leaves(x, y, low, size, side.yaw, reading=reading, extinction=extinction * rng.uniform(0.5, 1.6))


def sapling(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """A young tree whose crown is hardly one, with growth at its foot and up to three stakes."""
    x, y = side.at(along, across)
    pile.begin(x, y)
    height, reading, extinction = rng.uniform(1.6, 3.4), surface_reading(26, rng, 0.4), rng.uniform(0.5, 6.0)
    pile.pole(x, y, -0.3, rng.uniform(0.02, 0.09), height, reading=20.0, color=BARK)
    for _ in range(int(rng.integers(0, 4))):
        u, v = rng.normal(0, 0.3, 2)
        pile.pole(x + u, y + v, -0.3, rng.uniform(0.02, 0.05), rng.uniform(0.8, 2.0), reading=22.0, color=BARK)
    if rng.random() < 0.7:
        width = rng.uniform(0.3, 1.3)
        pile.leaves(x, y, -0.1, (width, width * rng.uniform(0.6, 1.4), rng.uniform(0.3, 1.3)), reading=reading, extinction=extinction)
    if rng.random() < 0.5:
        width = rng.uniform(0.4, 1.6)
        size = width, width * rng.uniform(0.7, 1.3), rng.uniform(0.6, 1.6)
        pile.leaves(x, y, rng.uniform(0.7, 1.6), size, reading=reading, extinction=extinction * rng.uniform(0.3, 1.0))


def bush(pile: Pile, x: float, y: float, rng: np.random.Generator) -> None:
    """One to three dense ellipsoids on the ground."""
    reading, width = surface_reading(22, rng, 0.4), rng.uniform(0.8, 2.4)
    pile.begin(x, y)
    for _ in range(int(rng.integers(1, 4))):
        dx, dy = rng.normal(0, 0.3 * width, 2)
        size = width * rng.uniform(0.7, 1.2), width * rng.uniform(0.7, 1.2), width * rng.uniform(0.6, 1.2)
        pile.leaves(x + dx, y + dy, -0.25, size, reading=reading, extinction=rng.uniform(3, 12))


def hedge(
    pile: Pile,
    road: Roadside,
    begin: float,
    end: float,
    across: float,
    rng: np.random.Generator,
    *,
    largest: tuple[float, float] = (2.3, 1.1),
    wobble: float = 0.4,
) -> None:
    """A long box of leaves in pieces that follow the slope, with a ragged top; `largest` height and width.

    wobble  metres, one standard deviation of the step from piece to piece
    """
    height, width, extinction = rng.uniform(0.6, largest[0]), rng.uniform(0.6, largest[1]), rng.uniform(8, 25)
    reading = surface_reading(22, rng, 0.35)
    pieces = max(1, round((end - begin) / 8))
    edges = np.linspace(begin, end, pieces + 1).tolist()
    for a, b in pairwise(edges):
        across += wobble * float(rng.normal())
        middle = (a + b) / 2
        side = Frontage.of(road, middle)
        x, y = side.at(middle, across)
        pile.begin(x, y)
        size = (b - a) * road.stretch(middle, across), width, height * rng.uniform(0.75, 1.15) + 0.3
        pile.leaves(x, y, -0.3, size, side.yaw, reading=reading, extinction=extinction, is_box=True)
        x, y = side.at(rng.uniform(a, b), across)
        pile.leaves(x, y, height * 0.6, (1.8, width * 1.1, height * 0.7), side.yaw, reading=reading, extinction=extinction * 0.5)
