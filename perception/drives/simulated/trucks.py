"""Bodies of trucks, buses and trailers."""

import numpy as np

from perception.drives.simulated.cars import build_car
from perception.drives.simulated.parts import PLATE, REFLECTOR, Parts, Span, Surface, coat, glazing, pick, rubber

_STEEL = (75, 75, 78)


def _paint(rng: np.random.Generator) -> Surface:
    return coat(rng, 17.0, 0.75, (2.0, 60.0))


def _chassis(rng: np.random.Generator) -> Surface:
    return Surface(rng.uniform(2.0, 8.0), _STEEL)


def truck(size: np.ndarray, rng: np.random.Generator) -> Parts:
    """A box, flatbed, dump or tank truck, 13 to 18 parts; or a heavy pickup or van where the size allows it."""
    length, _, height = (float(s) for s in size)
    is_low = height < 2.15 and length < 7.0
    is_van = height < 2.95 and length < 7.4
    weights = {"pickup": 0.8 * is_low, "van": 0.35 * is_van, "box": 0.5, "flatbed": 0.13, "dump": 0.12, "tank": 0.07 * (length > 6)}
    cargo = pick(rng, weights)
    paint = _paint(rng)
    if cargo in ("pickup", "van"):
        return build_car(cargo, size, rng, paint)
    draw, parts, steel = rng.uniform, Parts(size), _chassis(rng)
    nose, tail, half = parts.length / 2 - draw(0.02, 0.08), -parts.length / 2 + draw(0.02, 0.08), parts.width / 2
    cab = min(draw(1.5, 2.2), parts.length * 0.38)
    cab_top = parts.height * (draw(0.74, 0.97) if cargo in ("box", "tank") else draw(0.93, 0.99))
    bonnet = draw(0.5, 0.9) if draw() < 0.35 else 0.0
    cab += 0.7 * bonnet
    _add_cab(parts, rng, paint, (nose - cab, nose), half * draw(0.88, 0.95), cab_top, bonnet=bonnet)
    floor, top, front = parts.height * draw(0.3, 0.38), parts.height - draw(0.01, 0.05), nose - cab - draw(0.06, 0.2)
    _add_load(parts, rng, cargo, (tail, front), half, (floor, top), is_high=False)
    parts.box((tail + 0.1, nose - 0.3), half * 0.4, (floor - 0.45, floor - 0.02), steel, taper=(0.0, 0.2, 0.0))
    radius = min(draw(0.4, 0.52), floor * 0.52)
    parts.wheels((nose - cab * 0.55, tail + parts.length * draw(0.16, 0.24)), half * 0.93, radius, 0.36, rubber(rng))
    if draw() < 0.5:
        parts.box((front - 1.4, front - 0.3), half * 0.88, (0.4, floor - 0.05), steel)  # fuel tank, tool boxes
    parts.box((tail - 0.02, tail + 0.02), 0.25, (floor - 0.2, floor - 0.08), PLATE)
    return parts


def _add_cab(parts: Parts, rng: np.random.Generator, paint: Surface, x: Span, half: float, top: float, *, bonnet: float) -> None:
    """6 parts: lower cab, glazed upper cab, roof, seats, mirrors. bonnet: metres of engine ahead of the windscreen, 0 for none."""
    draw, glass, passes = rng.uniform, glazing(rng), rng.uniform(0.55, 0.7)
    low, sill, roof, lean = draw(0.28, 0.42), top * draw(0.54, 0.64), top - draw(0.12, 0.3), draw(0.05, 0.5)
    seats = Surface(draw(3.0, 15.0), (70, 66, 62))
    parts.box(x, half, (low, sill), paint, taper=(draw(0.0, 0.12), 0.0, 0.02))
    front = x[1] - 0.08 - bonnet
    parts.box((x[0], front), half * 0.98, (sill, roof), glass, taper=(lean, 0.0, 0.08), passes=passes)
    front -= lean * (roof - sill)
    parts.box((x[0], front), half * 0.93, (roof, top), paint, taper=(0.5, 0.2, 0.2))
    parts.box((x[0] + 0.1, x[0] + 0.75), half * 0.8, (sill - 0.1, sill + (roof - sill) * 0.6), seats, passes=0.4)
    outside = parts.width / 2 - 0.01
    parts.mirrored((front - 0.3, front - 0.2), (half * 0.98, outside), (sill, sill + 0.35), Surface(4.0, (30, 30, 30)))


def _add_load(parts: Parts, rng: np.random.Generator, cargo: str, x: Span, half: float, z: Span, *, is_high: bool) -> None:
    """1 to 4 parts behind a cab or on a trailer. is_high: nothing else reaches the top of the box, so the load does."""
    draw, wall = rng.uniform, _paint(rng)
    tall = z[1] - z[0]
    if cargo == "box":
        wide = half * draw(0.93, 0.99)
        parts.box(x, wide, z, wall, taper=(draw(0.0, 0.08), 0.0, draw(0.0, 0.02)))
        parts.box((x[0] - 0.015, x[0] + 0.02), (-wide * 0.9, -wide * 0.9 + 0.12), (z[0] + 0.05, z[0] + 0.15), REFLECTOR)
    elif cargo == "tank":
        parts.tank((x[0] + 0.15, x[1]), half * draw(0.85, 0.95), (z[0], z[0] + tall * draw(0.8, 0.98)), wall)
    elif cargo == "dump":
        rim = z[0] + tall * draw(0.45, 0.8)
        parts.box(x, half * 0.92, (z[0] - 0.05, rim), wall, taper=(draw(-0.15, 0.1), draw(-0.2, 0.1), -0.05))
        parts.box((x[1] - 0.2, x[1]), half * 0.9, (rim, z[1]), wall)  # headboard over the cab
        if draw() < 0.4:  # a heap of earth
            parts.ellipsoid((x[0] + 0.2, x[1] - 0.2), half * 0.8, (rim - 0.4, rim + 0.3), Surface(draw(6.0, 25.0), (120, 95, 70)))
    else:
        deck = z[0] + draw(0.06, 0.18)
        parts.box(x, half * 0.97, (z[0] - 0.1, deck), wall)
        parts.box((x[1] - 0.08, x[1]), half * 0.93, (deck, deck + min(tall * 0.6, draw(0.5, 1.3))), wall, passes=draw(0.0, 0.6))
        if is_high or draw() < 0.65:  # what it carries
            cover, begin, end = coat(rng, 17.0, 0.8, (2.0, 80.0)), draw(0.0, 0.4), draw(0.6, 1.0)
            span, high = x[1] - 0.1 - x[0], deck + (z[1] - deck) * draw(0.9 if is_high else 0.2, 1.0)
            parts.box((x[0] + begin * span, x[0] + end * span), half * draw(0.5, 0.95), (deck, high), cover)
        elif draw() < 0.6:  # drop sides
            parts.mirrored((x[0], x[1]), (half * 0.93, half * 0.97), (deck, deck + min(0.45, tall)), wall)


def bus(size: np.ndarray, rng: np.random.Generator) -> Parts:
    """A rigid bus, or two halves with bellows between them where it is long: 13 to 18 parts."""
    draw, parts = rng.uniform, Parts(size)
    paint, roof_paint, glass, tyres = coat(rng, 11.0, 0.85, (1.5, 60.0), gray=0.4), _paint(rng), glazing(rng), rubber(rng)
    nose, tail = parts.length / 2 - draw(0.03, 0.12), -parts.length / 2 + draw(0.03, 0.1)
    half, low, top = parts.width / 2 * draw(0.88, 0.93), draw(0.28, 0.4), parts.height - draw(0.03, 0.12)
    sill, roof = top * draw(0.34, 0.44), top * draw(0.8, 0.89)
    passes, lean, seats = draw(0.64, 0.76), draw(0.02, 0.2), Surface(draw(3.0, 20.0), (60, 70, 110))
    is_bendy, joint = parts.length > draw(12.5, 15.0), draw(-0.12, 0.02) * parts.length
    halves = [(tail, joint - 0.6), (joint + 0.6, nose)] if is_bendy else [(tail, nose)]
    for rear, front in halves:
        is_first = front == nose
        parts.box((rear, front), half, (low, sill), paint, taper=(draw(0.0, 0.08), draw(0.0, 0.05), 0.0))
        parts.box((rear, front - 0.04), half * 0.985, (sill, roof), glass, taper=(lean * is_first, 0.03, 0.03), passes=passes)
        ahead = front - 0.04 - lean * is_first * (roof - sill)
        parts.box((rear + 0.02, ahead), half * 0.95, (roof, top), roof_paint, taper=(0.25, 0.1, 0.16))
        parts.box((rear + 0.8, front - 1.6), (half * 0.25, half * 0.85), (sill, sill + 0.35), seats, passes=0.55)
        parts.box((rear + 0.8, front - 1.6), (-half * 0.85, -half * 0.25), (sill, sill + 0.35), seats, passes=0.55)
    if is_bendy:
        parts.box((joint - 0.6, joint + 0.6), half * 0.9, (low, top * 0.95), Surface(draw(2.0, 6.0), (45, 45, 48)))
    axles = (nose - draw(2.2, 2.7), tail + draw(2.6, 3.3))
    if parts.length < 8:
        axles = (nose - 1.3, tail + 1.6)
    parts.wheels(axles, half - 0.02, draw(0.44, 0.52), 0.34, tyres)
    outside = parts.width / 2 - 0.01
    parts.mirrored((nose - 0.25, nose - 0.05), (half - 0.02, outside), (sill + 0.5, sill + 0.9), Surface(4.0, (30, 30, 30)))
    parts.box((tail - 0.02, tail + 0.02), 0.25, (0.6, 0.72), PLATE)
    return parts


def trailer(size: np.ndarray, rng: np.random.Generator) -> Parts:
    """A box, tank, flatbed or low loader without tractor, 9 to 15 parts; the low ones only where the size is."""
    draw, parts = rng.uniform, Parts(size)
    is_high = parts.height > 2.6
    kind = pick(rng, {"box": 0.65 * is_high + 0.1, "tank": 0.1, "flatbed": 0.2, "low loader": 0.12 + 0.2 * (not is_high)})
    nose, tail, half = parts.length / 2 - draw(0.02, 0.08), -parts.length / 2 + draw(0.02, 0.08), parts.width / 2
    steel, tyres, top = _chassis(rng), rubber(rng), parts.height - draw(0.01, 0.06)
    floor = min(draw(1.0, 1.25), parts.height * 0.4) if kind != "low loader" else min(draw(0.5, 0.7), parts.height * 0.35)
    cargo = "flatbed" if kind == "low loader" else kind
    _add_load(parts, rng, cargo, (tail, nose), half, (floor, top), is_high=is_high)
    parts.box((tail + 0.2, nose - 0.4), half * 0.38, (floor - min(0.35, floor * 0.5), floor), steel)
    radius = min(draw(0.42, 0.5), floor * 0.55)
    back = tail + parts.length * draw(0.14, 0.22)
    parts.wheels((back, back + 2 * radius + 0.2), half * 0.93, radius, 0.4, tyres)
    leg = nose - parts.length * draw(0.15, 0.25)
    parts.mirrored((leg - 0.08, leg + 0.08), (half * 0.5, half * 0.65), (0.0, floor), steel)
    parts.box((tail - 0.02, tail + 0.02), half * 0.8, (floor - 0.25, floor - 0.1), Surface(draw(30.0, 200.0), (200, 60, 50)))
    return parts
