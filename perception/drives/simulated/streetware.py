"""Street furniture of a simulated street: lamps, lights, signs, boards, shelters, kiosks, bins, benches, planters, posts, cabinets."""

from collections.abc import Callable

import numpy as np

from perception.drives.simulated.pile import Frontage, Pile, surface_reading
from perception.drives.simulated.plants import sapling
from perception.drives.simulated.roads import Roadside

METAL = (120, 124, 128)


def lamp(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """A pole of 6 - 9 m, an arm over the road and a head at its end."""
    height, reach, reading = rng.uniform(6, 9), rng.uniform(1.0, 2.5), surface_reading(28, rng, 0.4)
    x, y = side.at(along, across)
    pile.begin(x, y)
    pile.pole(x, y, -0.3, rng.uniform(0.06, 0.11), height + 0.3, reading=reading)
    x, y = side.at(along, across - reach / 2)
    pile.box(x, y, height - 0.15, (0.08, reach, 0.1), side.yaw, reading=reading)
    x, y = side.at(along, across - reach)
    pile.box(x, y, height - 0.2, (0.25, 0.7, 0.15), side.yaw, reading=reading)


def traffic_light(pile: Pile, side: Frontage, kerb: float, rng: np.random.Generator) -> None:
    """A mast at the corner with heads over the road and beside it, and a small plate of high reflectivity.

    kerb  metres along at which the other road's kerb is
    """
    along, across = kerb + 1.1 + rng.uniform(-0.2, 0.3), side.section.kerb + 1.1 + rng.uniform(-0.2, 0.3)
    reading = surface_reading(22, rng, 0.4)
    reach = rng.uniform(3.0, 6.0)
    x, y = side.at(along, across)
    pile.begin(x, y)
    pile.pole(x, y, -0.3, 0.1, 6.1, reading=reading)
    pile.box(x, y, 2.6, (0.35, 0.35, 1.0), side.yaw, reading=reading)
    x, y = side.at(along, across - reach / 2)
    pile.box(x, y, 5.6, (0.12, reach, 0.12), side.yaw, reading=reading)
    for share in (1.0, 0.55):
        x, y = side.at(along, across - share * reach)
        pile.box(x, y, 5.0, (0.3, 0.4, 1.05), side.yaw, reading=reading)
    x, y = side.at(along, across - 0.75 * reach)
    pile.box(x, y, 5.2, (0.04, 1.1, 0.6), side.yaw, reading=rng.uniform(150, 250), color=(40, 90, 170))


def sign(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """A thin post with a plate that looks along the road; seen from the front it blinds the lidar."""
    height, width = rng.uniform(2.2, 3.4), rng.uniform(0.4, 0.9)
    x, y = side.at(along, across + width / 2)
    pile.begin(x, y)
    pile.pole(x, y, -0.3, rng.uniform(0.03, 0.06), height + 0.3, reading=25.0, color=METAL)
    yaw = side.yaw + rng.normal(0, 0.15)
    pile.box(x, y, height - width, (0.03, width, width), yaw, reading=rng.uniform(200, 250), color=(220, 60, 50))


def footbridge(pile: Pile, side: Frontage, along: float, front: float, rng: np.random.Generator) -> None:
    """A deck across the road, 5.4 m up, with closed rails, on piers behind the sidewalks, the wider of which ends at `front`."""
    width, half, reading = rng.uniform(2.5, 4.0), front + 2.5, surface_reading(36, rng, 0.4)
    x, y = side.at(along, 0.0)
    pile.begin(x, y)
    pile.box(x, y, 5.4, (width, 2 * half, 0.6), side.yaw, reading=reading)
    for edge in (-width / 2, width / 2):
        pile.box(*side.at(along + edge, 0.0), 6.0, (0.08, 2 * half, 1.1), side.yaw, reading=reading, passing=0.3)
    for end in (-1, 1):
        pile.box(*side.at(along, end * (half - 1.0)), -2.5, (1.0, 1.0, 8.0), side.yaw, reading=reading)


def _shelter(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """A bus shelter: back of glass, roof, posts, bench."""
    length, back = rng.uniform(3, 5), side.furniture[1] - 0.1
    x, y = side.at(along, across)
    pile.begin(x, y)
    pile.box(*side.at(along, back), 0.2, (length, 0.06, 2.0), side.yaw, reading=30.0, passing=0.55)
    pile.box(*side.at(along, across + 0.05), 2.45, (length + 0.3, 1.4, 0.15), side.yaw, reading=35.0)
    for end in (-length / 2, length / 2):
        pile.pole(*side.at(along + end, back), -0.2, 0.05, 2.7, reading=30.0)
    pile.box(*side.at(along, back - 0.3), 0.4, (length * 0.7, 0.4, 0.08), side.yaw, reading=25.0)


def _advertising(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    x, y = side.at(along, across)
    pile.begin(x, y)
    if rng.random() < 0.5:
        pile.pole(x, y, -0.2, 0.6, rng.uniform(2.4, 3.0), reading=45.0, color=(180, 170, 150))
    else:
        pile.box(x, y, -0.2, (0.2, 1.3, 2.5), side.yaw, reading=45.0, color=(180, 170, 150))


def _kiosk(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    x, y = side.at(along, across)
    pile.begin(x, y)
    length = rng.uniform(1.6, 2.8)
    pile.box(x, y, -0.3, (length, 1.3, 2.6), side.yaw, reading=surface_reading(35, rng), color=(90, 120, 90))
    pile.box(x, y, 2.6, (length + 0.5, 1.6, 0.15), side.yaw, reading=30.0)


def _bin(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    x, y = side.at(along, across + rng.uniform(-0.4, 0.4))
    pile.begin(x, y)
    pile.pole(x, y, -0.2, rng.uniform(0.2, 0.32), rng.uniform(1.0, 1.3), reading=surface_reading(20, rng), color=(60, 80, 60))


def _bench(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    x, y = side.at(along, across)
    pile.begin(x, y)
    length = rng.uniform(1.4, 2.0)
    pile.box(x, y, 0.4, (length, 0.45, 0.06), side.yaw, reading=24.0, color=(120, 90, 60))
    pile.box(*side.at(along, across - 0.2), 0.5, (length, 0.05, 0.4), side.yaw, reading=24.0, color=(120, 90, 60), passing=0.2)
    for end in (-0.4 * length, 0.4 * length):
        pile.box(*side.at(along + end, across), -0.1, (0.08, 0.4, 0.5), side.yaw, reading=20.0)


def _planter(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    x, y = side.at(along, across)
    pile.begin(x, y)
    length = rng.uniform(0.7, 2.2)
    pile.box(x, y, -0.2, (length, 0.7, 0.75), side.yaw, reading=surface_reading(35, rng), color=(150, 140, 130))
    pile.leaves(x, y, 0.45, (length, 0.7, rng.uniform(0.4, 1.0)), side.yaw, reading=36.0, extinction=5.0)


def _posts(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """A row of posts alike: bollards near the kerb, thin stakes or stout pillars farther in; one may be a tall thin one, as of a sign."""
    kind = str(rng.choice(["bollards", "stakes", "pillars"], p=[0.6, 0.25, 0.15]))
    pitch, count, reading = rng.uniform(0.7, 3.0), int(rng.integers(3, 9)), surface_reading(24, rng)
    tall = int(rng.integers(count)) if rng.random() < 0.35 else -1
    radius, height = {
        "bollards": (rng.uniform(0.04, 0.1), rng.uniform(0.7, 1.2)),
        "stakes": (rng.uniform(0.025, 0.06), rng.uniform(1.2, 2.6)),
        "pillars": (rng.uniform(0.12, 0.25), rng.uniform(0.6, 1.4)),
    }[kind]
    if kind == "bollards" and rng.random() < 0.6:
        across = side.furniture[0] + 0.1 + radius
    for i in range(count):
        x, y = side.at(along + pitch * i, across)
        pile.begin(x, y)
        if i == tall:
            pile.pole(x, y, -0.2, rng.uniform(0.025, 0.06), rng.uniform(1.9, 3.2), reading=reading)
        else:
            pile.pole(x, y, -0.2, radius, height + 0.2, reading=reading)


def _pillar(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """What stands alone, slim and about as tall as people: a meter, a charger, a stele, a post box."""
    x, y = side.at(along, across + rng.uniform(-0.3, 0.3))
    pile.begin(x, y)
    height, reading, yaw = rng.uniform(1.0, 2.6), surface_reading(34, rng, 0.6), side.yaw + rng.normal(0, 0.2)
    if rng.random() < 0.25:
        pile.pole(x, y, -0.2, rng.uniform(0.1, 0.28), height + 0.2, reading=reading)
        return
    size = rng.uniform(0.2, 0.7), rng.uniform(0.15, 0.5)
    if height < 1.8 and rng.random() < 0.2:  # a stand for a notice: two boards that lean on each other
        lean = 0.5 * size[0] / (height + 0.05) * rng.uniform(0.7, 0.98)
        pile.box(x, y, -0.05, (*size, height + 0.05), yaw, reading=reading, taper=(lean, lean, 0.0))
        return
    is_on_post = height < 1.8 and rng.random() < 0.3
    if is_on_post:
        pile.pole(x, y, -0.2, rng.uniform(0.03, 0.07), height, reading=reading)
    pile.box(x, y, 0.55 * height if is_on_post else -0.2, (*size, 0.45 * height if is_on_post else height + 0.2), yaw, reading=reading)


def _board(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """A board for notices or a map on two posts, that looks along the street or across it."""
    width, low, high = rng.uniform(0.7, 2.2), rng.uniform(0.6, 1.1), rng.uniform(1.7, 2.4)
    looks_along, reading = rng.random() < 0.4, surface_reading(40, rng, 0.6)
    x, y = side.at(along, across)
    pile.begin(x, y)
    size = (0.06, width, high - low) if looks_along else (width, 0.06, high - low)
    pile.box(x, y, low, size, side.yaw, reading=reading, color=(190, 200, 200))
    for end in (-0.5 * width, 0.5 * width):
        x, y = side.at(along, across + end) if looks_along else side.at(along + end, across)
        pile.pole(x, y, -0.2, rng.uniform(0.025, 0.06), high + 0.25, reading=24.0, color=METAL)


def _bed(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """Shrubs or flowers on a low rim, up to the size of a van."""
    x, y = side.at(along, across)
    pile.begin(x, y)
    length, width, tall = rng.uniform(1.2, 7.0), rng.uniform(0.8, 2.4), rng.uniform(0.3, 1.9)
    if rng.random() < 0.5:
        pile.box(x, y, -0.3, (length + 0.2, width + 0.2, 0.3 + rng.uniform(0.1, 0.5)), side.yaw, reading=surface_reading(35, rng))
    reading, extinction = surface_reading(26, rng, 0.4), rng.uniform(2.0, 12.0)
    for _ in range(int(rng.integers(1, 5))):
        u, v = rng.uniform(-0.3, 0.3, 2)
        x, y = side.at(along + u * length, across + v * width)
        size = length * rng.uniform(0.3, 0.8), width * rng.uniform(0.5, 1.0), tall * rng.uniform(0.5, 1.1) + 0.2
        pile.leaves(x, y, -0.1, size, side.yaw + rng.normal(0, 0.2), reading=reading, extinction=extinction * rng.uniform(0.6, 1.5))


def _step(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    """A low block of stone, or a heap of earth with slanting sides."""
    x, y = side.at(along, across)
    pile.begin(x, y)
    length, width, tall = rng.uniform(0.6, 5.0), rng.uniform(0.4, 2.0), rng.uniform(0.15, 0.8)
    reading, lean = surface_reading(28, rng), rng.uniform(0.0, 0.8) if rng.random() < 0.5 else 0.0
    lean = min(lean, 0.45 * width / (tall + 0.3))
    pile.box(x, y, -0.3, (length, width, tall + 0.3), side.yaw + rng.normal(0, 0.1), reading=reading, taper=(lean, lean, lean))


def _cabinet(pile: Pile, side: Frontage, along: float, across: float, rng: np.random.Generator) -> None:
    x, y = side.at(along, across + 0.3)
    pile.begin(x, y)
    size = rng.uniform(0.6, 1.5), rng.uniform(0.35, 0.5), rng.uniform(1.1, 1.6)
    pile.box(x, y, -0.2, size, side.yaw, reading=surface_reading(40, rng), color=(160, 165, 160))


def _rail(pile: Pile, side: Frontage, along: float, _: float, rng: np.random.Generator) -> None:
    """A guard rail along the kerb that half of the rays pass."""
    length = rng.uniform(4, 10)
    x, y = side.at(along, side.furniture[0] + 0.12)
    pile.begin(x, y)
    pile.box(x, y, 0.1, (length, 0.05, 0.95), side.yaw, reading=25.0, passing=rng.uniform(0.4, 0.7))


Maker = Callable[[Pile, Frontage, float, float, np.random.Generator], None]
# name -> (maker, share)
PLACED: dict[str, tuple[Maker, float]] = {
    "shelter": (_shelter, 0.5),
    "advertising": (_advertising, 0.8),
    "kiosk": (_kiosk, 0.4),
    "bin": (_bin, 1.6),
    "bench": (_bench, 1.2),
    "planter": (_planter, 1.4),
    "posts": (_posts, 1.2),
    "pillar": (_pillar, 1.5),
    "board": (_board, 0.8),
    "sapling": (sapling, 0.8),
    "bed": (_bed, 1.2),
    "step": (_step, 0.8),
    "cabinet": (_cabinet, 1.2),
    "rail": (_rail, 0.7),
}


def put_down(
    pile: Pile, road: Roadside, count: int, along: tuple[float, float], across: tuple[float, float], rng: np.random.Generator
) -> None:
    """`count` things of `PLACED`, drawn by their shares, anywhere between these two places along and across; one in four near the last."""
    share, place = np.array([share for _, share in PLACED.values()]), np.inf
    for name in rng.choice(list(PLACED), size=count, p=share / share.sum()):
        is_near = rng.random() < 0.25
        place = place + rng.uniform(0.5, 1.6) if is_near and place + 1.6 < along[1] else rng.uniform(*along)
        PLACED[name][0](pile, Frontage.of(road, place), place, rng.uniform(*across), rng)
