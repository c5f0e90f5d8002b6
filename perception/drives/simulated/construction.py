"""Bodies of construction vehicles: excavator, wheel loader, roller, forklift."""

import numpy as np

from perception.drives.simulated.parts import Parts, Span, Surface, coat, glazing, pick, rubber

_YELLOWS = ((235, 180, 30), (240, 140, 30), (215, 60, 40), (225, 225, 220), (90, 140, 70))
_STEEL = (80, 78, 75)


def construction_vehicle(size: np.ndarray, rng: np.random.Generator) -> Parts:
    """11 to 17 parts; a forklift only where it is small."""
    is_small = float(size[0]) < 4.6 and float(size[1]) < 2.5
    kind = pick(rng, {"excavator": 0.4, "wheel loader": 0.3, "roller": 0.15, "forklift": 0.4 * is_small})
    build = {"excavator": _excavator, "wheel loader": _wheel_loader, "roller": _roller, "forklift": _forklift}[kind]
    color = _YELLOWS[min(int(rng.random() * 7) % 5, 4)]
    paint = Surface(coat(rng, 17.0, 0.7, (3.0, 60.0)).reflectivity, color)
    parts = Parts(size)
    build(parts, rng, paint, Surface(rng.uniform(4.0, 14.0), _STEEL))
    return parts


def _add_cab(parts: Parts, rng: np.random.Generator, paint: Surface, x: Span, y: Span, z: Span) -> None:
    """3 parts: glass all round, a roof, a seat with its driver."""
    slim, draw = 0.08 * (y[1] - y[0]), rng.uniform
    roof = z[1] - min(0.12, 0.1 * (z[1] - z[0]))
    parts.box(x, y, (z[0], roof), glazing(rng), taper=(0.12, 0.02, 0.05), passes=draw(0.6, 0.75))
    parts.box((x[0], x[1] - 0.05), (y[0] + slim, y[1] - slim), (roof, z[1]), paint, taper=(0.3, 0.3, 0.3))
    middle, back = (y[0] + y[1]) / 2, x[0] + 0.15
    parts.ellipsoid(
        (back, back + 0.4), (middle - 0.25, middle + 0.25), (z[0], z[0] + 0.8 * (roof - z[0])), Surface(draw(5.0, 40.0), (90, 80, 60))
    )


def _excavator(parts: Parts, rng: np.random.Generator, paint: Surface, steel: Surface) -> None:
    """Two tracks, a house with counterweight and cab, boom, arm and bucket ahead."""
    draw, half, h = rng.uniform, parts.width / 2, parts.height
    tail = -parts.length / 2 + 0.03
    body = min(parts.length * draw(0.5, 0.62), 4.2)  # tracks and house; the arm reaches on
    track, belt, deck = h * draw(0.24, 0.3), half * draw(0.42, 0.52), h * draw(0.33, 0.38)
    for y in ((half - belt, half), (-half, belt - half)):
        parts.box((tail + 0.15 * body, tail + 0.85 * body), y, (0.0, track), steel, taper=(-0.35, -0.35, 0.0))
    parts.box((tail + 0.3 * body, tail + 0.7 * body), half * 0.6, (track * 0.6, deck), steel)
    house = deck + h * draw(0.24, 0.32)
    parts.box((tail, tail + body * 0.62), half * 0.92, (deck, house), paint, taper=(0.05, 0.12, 0.06))
    front = tail + body * draw(0.92, 1.0)
    parts.box((tail + body * 0.6, front), (-half * 0.88, half * 0.1), (deck, deck + 0.12 * h), paint)
    _add_cab(parts, rng, paint, (front - 1.35, front), (half * 0.05, half * 0.9), (deck, h * draw(0.93, 0.99)))
    foot, reach, bar = front - 0.5, parts.length / 2 - 0.2, min(0.2, half * 0.2)
    y = (-bar - half * 0.15, bar - half * 0.15)
    elbow, height = foot + (reach - foot) * draw(0.45, 0.65), h * draw(0.8, 0.99)
    parts.leaning((foot - 0.2, foot + 0.22), y, (deck, height), paint, lean=elbow - foot)
    tip = h * draw(0.1, 0.3)
    parts.leaning((reach - 0.3, reach - 0.02), y, (tip, height), paint, lean=elbow + 0.05 - reach)
    parts.box((reach - 0.55, reach + 0.15), (y[0] - 0.3, y[1] + 0.3), (max(tip - 0.45, 0.0), tip + 0.3), steel, taper=(0.3, 0.4, 0.0))


def _wheel_loader(parts: Parts, rng: np.random.Generator, paint: Surface, steel: Surface) -> None:
    """Four high wheels, engine behind, cab in the middle, a bucket on two arms ahead."""
    draw, half, h = rng.uniform, parts.width / 2, parts.height
    nose, tail = parts.length / 2 - 0.02, -parts.length / 2 + 0.03
    radius, bucket = min(h * draw(0.22, 0.27), parts.length * 0.14), min(draw(0.7, 1.0), parts.length * 0.2)
    front, rear = nose - bucket - radius * 1.1, tail + parts.length * 0.2
    deck, bonnet = radius * 1.0, h * draw(0.5, 0.6)
    parts.wheels((front, rear), half * 0.95, radius, half * 0.42, rubber(rng))
    parts.box((tail, rear + radius * 1.2), half * 0.55, (deck * 0.7, bonnet), paint, taper=(0.0, 0.15, 0.05))
    parts.box((rear, front + radius * 0.6), half * 0.42, (deck * 0.8, deck * 1.6), steel)
    middle = (front + rear) / 2
    _add_cab(parts, rng, paint, (middle - 0.75, middle + 0.6), (-half * 0.5, half * 0.5), (deck * 1.5, h * draw(0.95, 0.995)))
    lift, low = draw(0.0, 0.35) * h, nose - bucket * 0.8
    for y in ((half * 0.25, half * 0.4), (-half * 0.4, -half * 0.25)):
        parts.leaning((low - 0.2, low), y, (lift + 0.2, bonnet), paint, lean=front - radius - low + 0.1)
    parts.box((nose - bucket, nose - bucket * 0.25), half * 0.98, (lift, lift + draw(0.7, 1.0)), steel, taper=(-0.2, -0.05, 0.0))


def _roller(parts: Parts, rng: np.random.Generator, paint: Surface, steel: Surface) -> None:
    """A drum ahead, a drum or two wheels behind, a roof on four posts."""
    draw, half, h = rng.uniform, parts.width / 2, parts.height
    nose, tail = parts.length / 2 - 0.03, -parts.length / 2 + 0.03
    radius, wide = min(h * draw(0.24, 0.29), parts.length * 0.2), half * draw(0.85, 0.97)
    front, rear, deck = nose - radius, tail + radius, h * draw(0.4, 0.48)
    drums = [front, rear] if draw() < 0.5 else [front]
    for x in drums:  # a drum with eight sides: wide, so an ellipsoid would be far too thin at its ends
        cut = radius * 0.6
        parts.box((x - cut, x + cut), wide, (0.0, radius * 0.6), steel, taper=(-0.65, -0.65, 0.0))
        parts.box((x - radius, x + radius), wide, (radius * 0.6, radius * 1.4), steel)
        parts.box((x - radius, x + radius), wide, (radius * 1.4, radius * 2), steel, taper=(0.65, 0.65, 0.0))
    if len(drums) == 1:
        parts.wheels((rear,), wide, radius, half * 0.5, rubber(rng))
    parts.box((rear - radius * 0.3, front - radius * 1.05), half * 0.8, (radius * 0.9, deck), paint, taper=(0.1, 0.1, 0.0))
    parts.box((tail, rear + radius), half * 0.72, (radius * 1.5, deck * 1.15), paint, taper=(0.0, 0.3, 0.1))
    back, ahead, y = -parts.length * 0.18, parts.length * 0.12, half * 0.62
    for x in (back, ahead):
        parts.mirrored((x - 0.04, x + 0.04), (y - 0.08, y), (deck, h * 0.95), steel)
    parts.box((back - 0.15, ahead + 0.15), half * 0.72, (h * 0.94, h * 0.99), paint)
    parts.ellipsoid((back + 0.15, back + 0.55), 0.24, (deck, deck + min(1.0, (h - deck) * 0.75)), Surface(draw(8.0, 60.0), (220, 120, 40)))


def _forklift(parts: Parts, rng: np.random.Generator, paint: Surface, steel: Surface) -> None:
    """A heavy rear, a guard over the seat, a mast and two forks ahead."""
    draw, half, h = rng.uniform, parts.width / 2, parts.height
    nose, tail = parts.length / 2 - 0.02, -parts.length / 2 + 0.03
    mast = nose - min(draw(0.9, 1.2), parts.length * 0.32)
    radius, deck = min(draw(0.26, 0.36), h * 0.16), h * draw(0.4, 0.48)
    parts.wheels((mast - radius - 0.1, tail + radius + 0.15), half * 0.9, radius, 0.28, rubber(rng))
    parts.box((tail, mast - 0.3), half * 0.8, (0.15, deck), paint, taper=(0.3, 0.15, 0.05))
    for y in (half * 0.45, -half * 0.45):
        parts.box((mast - 0.14, mast), (y - 0.07, y + 0.07), (0.05, h * 0.99), steel)
        parts.box((mast, nose), (y * 0.7 - 0.06, y * 0.7 + 0.06), (draw(0.05, 0.3), 0.36), steel)
    parts.box((mast, mast + 0.06), half * 0.7, (0.1, draw(0.6, 1.1)), steel, passes=0.5)
    back, ahead, roof = tail + 0.25 * (mast - tail), mast - 0.3, h * draw(0.86, 0.97)
    for x in (back, ahead):
        parts.mirrored((x - 0.04, x + 0.04), (half * 0.64, half * 0.72), (deck, roof), steel)
    parts.box((back - 0.1, ahead + 0.1), half * 0.74, (roof - 0.05, roof), steel, passes=0.3)
    seat = (back + ahead) / 2
    parts.ellipsoid((seat - 0.25, seat + 0.15), 0.24, (deck - 0.1, min(deck + 0.95, roof)), Surface(draw(8.0, 60.0), (200, 110, 40)))
