"""Bodies of people: walking, standing with bags or umbrellas, sitting, in wheel-chairs; and riders for cycles."""

from collections.abc import Sequence

import numpy as np

from perception.drives.simulated.parts import Parts, Surface, coat, pick, rubber


def _cloth(rng: np.random.Generator) -> Surface:
    return coat(rng, 20.0, 0.7, (3.0, 85.0), gray=0.45)


def _skin(rng: np.random.Generator) -> Surface:
    shade = rng.uniform(0.35, 1.0)
    return Surface(rng.uniform(15.0, 45.0), (int(225 * shade), int(180 * shade), int(150 * shade)))


def pedestrian(size: np.ndarray, rng: np.random.Generator, *, stride: float, is_sitting: bool) -> Parts:
    """A person of 7 to 10 parts. Everything is drawn before `stride` is used."""
    return _sitting(Parts(size), rng) if is_sitting else walking(size, rng, [stride])[0]


def walking(size: np.ndarray, rng: np.random.Generator, strides: Sequence[float]) -> list[Parts]:
    """One upright person in the poses of a walk: phases in radians, of which 0 stands."""
    parts = Parts(size)
    draw, h = rng.uniform, parts.height * rng.uniform(0.96, 0.995)
    trousers, jacket, skin, luggage = _cloth(rng), _cloth(rng), _skin(rng), _cloth(rng)
    # people do not grow as wide as their boxes, which hold swinging arms and bags: 0.38 to 0.54 m over both arms
    shoulder = min(draw(0.13, 0.19) * (h / 1.72) ** 0.7, parts.width * 0.44)
    depth = min(draw(0.09, 0.15) * (h / 1.72) ** 0.7, parts.length * 0.34)
    hip, neck, knee, arm = h * draw(0.46, 0.5), h * draw(0.82, 0.845), draw(0.05, 0.08), draw(0.035, 0.055)
    reach = min(draw(0.2, 0.36) * h / 1.72, parts.length / 2 - 0.08)
    wears_skirt = draw() < 0.12
    extra = pick(rng, {"none": 0.5, "backpack": 0.18, "bag": 0.18, "suitcase": 0.06, "umbrella": 0.04, "coat": 0.12})
    hand, umbrella = (1 if draw() < 0.5 else -1), draw(0.3, 0.45)
    parts.ellipsoid((-depth, depth), shoulder, (hip - 0.08 * h, neck + 0.02 * h), jacket)
    parts.cylinder((-depth * 0.9, depth * 0.9), shoulder * 0.95, (hip * 0.95, neck * 0.96), jacket)
    parts.ellipsoid((-0.11, 0.12), 0.095, (h * 0.84, h), skin)
    if wears_skirt or extra == "coat":
        parts.box((-depth, depth), shoulder * 0.9, (hip * 0.45, hip * 1.1), jacket, taper=(0.06, 0.06, 0.05))
    if extra == "backpack":
        parts.box((-depth - 0.2, -depth * 0.6), 0.15, (hip * 1.1, neck * 0.97), luggage)
    elif extra == "bag":
        y = hand * (shoulder + 0.05)
        parts.box((-0.16, 0.16), (y - 0.06, y + 0.06), (hip * 0.62, hip * 1.05), luggage)
    elif extra == "suitcase":
        y = hand * shoulder * 0.8
        parts.box((-parts.length / 2, -parts.length / 2 + 0.22), (y - 0.18, y + 0.18), (0.03, hip * 0.8), luggage)
    elif extra == "umbrella":
        parts.ellipsoid((-umbrella, umbrella), umbrella, (h * 0.9, parts.height), luggage, passes=0.2)
        parts.box((-0.012, 0.012), (hand * 0.2 - 0.012, hand * 0.2 + 0.012), (hip, h * 0.95), luggage)
    poses = []
    for stride in strides:
        pose = Parts(size)
        swing = float(np.sin(stride)) * reach
        for side in (-1, 1):  # right leg and left arm go ahead together
            foot, y = -side * swing, side * shoulder * 0.42
            pose.leaning((foot - knee, foot + knee), (y - knee, y + knee), (0.0, hip), trousers, lean=-foot)
            hand_x, y = side * swing * 0.75, side * (shoulder + 0.02)
            pose.leaning((hand_x - arm, hand_x + arm), (y - arm, y + arm), (hip * 0.93, neck * 0.98), jacket, lean=-hand_x)
        poses.append(pose.joined(parts))
    return poses


def _sitting(parts: Parts, rng: np.random.Generator) -> Parts:
    """On a low seat: the trunk behind, the knees ahead; one in four in a wheel-chair."""
    draw, h, half_length = rng.uniform, parts.height, parts.length / 2
    trousers, jacket, skin, frame = _cloth(rng), _cloth(rng), _skin(rng), rubber(rng)
    shoulder, depth = min(draw(0.14, 0.19), parts.width * 0.42), min(draw(0.1, 0.14), parts.length * 0.25)
    seat, back, has_wheels, lap = h * draw(0.3, 0.38), -half_length * draw(0.3, 0.5), draw() < 0.25, draw(0.065, 0.085)
    knee = min(half_length * 0.8, back + 0.5)
    for side in (-1, 1):
        y = side * shoulder * 0.5
        parts.box((back, knee), (y - lap, y + lap), (seat, seat + 2.2 * lap), trousers)
        parts.leaning((knee - lap, knee + lap), (y - lap, y + lap), (0.0, seat + lap), trousers, lean=-0.04)
        y = side * (shoulder + 0.02)
        parts.leaning((back + 0.16, back + 0.26), (y - 0.045, y + 0.045), (seat + 0.12, h * 0.76), jacket, lean=-0.16)
    parts.ellipsoid((back - depth, back + depth), shoulder, (seat - 0.05, h * 0.84), jacket)
    parts.cylinder((back - depth * 0.9, back + depth * 0.9), shoulder * 0.95, (seat, h * 0.76), jacket)
    parts.ellipsoid((back - 0.08, back + 0.13), 0.085, (h * 0.8, h), skin)
    if has_wheels:
        for side in (-1, 1):
            y = side * min(shoulder + 0.1, parts.width / 2 - 0.03)
            parts.wheel(back, (y - 0.03, y + 0.03), min(0.3, seat * 0.7), frame, passes=0.6)
        parts.box((back - depth - 0.06, back - depth), shoulder, (seat, h * 0.7), frame)
    return parts


def add_rider(parts: Parts, rng: np.random.Generator, saddle: tuple[float, float], grips: tuple[float, float], pedals: float) -> None:
    """Someone on a cycle, 7 parts: saddle and grips are (x, z) in metres, `pedals` the height of the feet."""
    draw, h = rng.uniform, parts.height * rng.uniform(0.97, 0.995)
    trousers, jacket, skin, is_helmet = _cloth(rng), _cloth(rng), _skin(rng), rng.random() < 0.5
    (x, z), shoulder, depth = saddle, draw(0.15, 0.2), draw(0.1, 0.15)
    neck, lean = max(h - 0.27, z + 0.35), draw(0.1, 0.35) * (grips[0] - x)
    feet, uneven = x + draw(0.2, 0.3), draw(0.0, 0.12)
    for side in (-1, 1):
        y = side * 0.13
        bottom = max(pedals + side * uneven, 0.02)
        parts.leaning((feet - 0.08, feet + 0.08), (y - 0.08, y + 0.08), (bottom, z + 0.05), trousers, lean=(x + 0.08 - feet))
        y, run = side * (shoulder + 0.02), x + lean - grips[0]
        parts.leaning((grips[0] - 0.05, grips[0] + 0.05), (y - 0.04, y + 0.04), (min(grips[1], neck - 0.1), neck - 0.03), jacket, lean=run)
    parts.leaning((x - depth, x + depth), shoulder * 0.85, (z, neck), jacket, lean=lean)
    parts.ellipsoid((x + lean - depth, x + lean + depth), shoulder, (neck - 0.3, neck + 0.05), jacket)
    head = Surface(jacket.reflectivity, (230, 230, 230)) if is_helmet else skin
    parts.ellipsoid((x + lean - 0.07, x + lean + 0.15), 0.09, (h - 0.27, h), head)
