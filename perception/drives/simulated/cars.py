"""Bodies of cars: sedan, hatchback, estate, SUV, van, pickup, coupe."""

from dataclasses import dataclass

import numpy as np

from perception.drives.simulated.parts import PLATE, Parts, Span, Surface, coat, glazing, pick, rubber


@dataclass(frozen=True)
class _Style:
    """Ranges that individuals of one body style draw from.

    belt    lower edge of the windows, share of the height
    bonnet  height of the nose, share of the belt's
    front, rear  ends of the cabin at the belt, share of the length from the middle
    lean    metres a metre of height by which windscreen, rear window and sides lean in
    """

    belt: Span
    bonnet: Span
    front: Span
    rear: Span
    lean: tuple[Span, Span, Span]


_STYLES = {
    "sedan": _Style((0.56, 0.63), (0.72, 0.86), (0.15, 0.21), (-0.40, -0.33), ((1.1, 1.7), (0.9, 1.4), (0.25, 0.42))),
    "hatchback": _Style((0.54, 0.61), (0.74, 0.88), (0.18, 0.27), (-0.48, -0.44), ((1.0, 1.5), (0.3, 0.75), (0.2, 0.38))),
    "estate": _Style((0.55, 0.62), (0.72, 0.86), (0.14, 0.21), (-0.48, -0.45), ((1.1, 1.6), (0.25, 0.6), (0.22, 0.38))),
    "suv": _Style((0.55, 0.62), (0.76, 0.9), (0.15, 0.23), (-0.48, -0.45), ((0.8, 1.3), (0.15, 0.5), (0.18, 0.34))),
    "van": _Style((0.50, 0.57), (0.76, 0.9), (0.30, 0.38), (-0.49, -0.47), ((0.7, 1.1), (0.03, 0.2), (0.06, 0.2))),
    "pickup": _Style((0.56, 0.62), (0.80, 0.92), (0.12, 0.2), (-0.17, -0.08), ((0.8, 1.3), (0.05, 0.25), (0.2, 0.34))),
    "coupe": _Style((0.58, 0.65), (0.70, 0.84), (0.08, 0.15), (-0.42, -0.36), ((1.4, 1.9), (1.3, 2.0), (0.3, 0.5))),
}


def car(size: np.ndarray, rng: np.random.Generator) -> Parts:
    """A car of a style that fits its size, 14 parts."""
    style_name = pick(rng, _likely_styles(*(float(s) for s in size)))
    return build_car(style_name, size, rng, coat(rng, 13.0, 0.8, (1.2, 60.0), gloss=0.6))


def _likely_styles(length: float, width: float, height: float) -> dict[str, float]:
    """Style -> weight. Low cars are sedans and coupes, high ones vans; short ones have no boot."""
    if height > 1.88:
        return {"van": 0.62, "suv": 0.28, "pickup": 0.10 * (length > 4.9)}
    if height > 1.68:
        return {"suv": 0.55, "van": 0.22, "pickup": 0.2 * (length > 4.9 and width > 1.8), "estate": 0.1, "hatchback": 0.1}
    if length < 4.15:
        return {"hatchback": 0.85, "coupe": 0.06 * (height < 1.5), "suv": 0.12}
    return {"sedan": 0.48, "hatchback": 0.16, "estate": 0.18, "suv": 0.13 * (height > 1.55), "coupe": 0.1 * (height < 1.5)}


def build_car(style_name: str, size: np.ndarray, rng: np.random.Generator, paint: Surface) -> Parts:
    """A car of a given style and paint; heavy pickups are built so too."""
    draw, style, parts = rng.uniform, _STYLES[style_name], Parts(size)
    length, width, height = parts.length, parts.width, parts.height
    # boxes hold the mirrors too, and annotators leave some air
    half, top = width / 2 * draw(0.86, 0.94), height - draw(0.02, 0.09)
    nose, tail, low = length / 2 - draw(0.05, 0.16), -length / 2 + draw(0.05, 0.14), height * draw(0.14, 0.2)
    belt = top * draw(*style.belt)
    bonnet = belt * draw(*style.bonnet)
    front, rear = length * draw(*style.front), length * draw(*style.rear)
    lean_front, lean_rear, lean_side = (draw(*span) for span in style.lean)
    glass, passes, tyres, inside = glazing(rng, (1.0, 6.0)), draw(0.59, 0.72), rubber(rng), Surface(draw(3.0, 15.0), (70, 66, 62))
    rise = top - belt
    # a roof is at least 0.5 m long, however flat the windows would lie
    flat = min(1.0, (front - rear - 0.5) / ((lean_front + lean_rear) * rise))
    lean_front, lean_rear = lean_front * flat, lean_rear * flat
    roof, roof_half = (rear + lean_rear * rise, front - lean_front * rise), half * 0.96 - lean_side * rise
    back = rear - 0.02 if style_name == "pickup" else tail
    # seen from above the corners are round: the bumpers are narrower than the doors
    round_nose, round_tail, narrow = draw(0.12, 0.3), draw(0.06, 0.16), draw(0.8, 0.9)
    leans = (draw(0.05, 0.25), draw(0.02, 0.15), draw(0.02, 0.12))
    if style_name == "pickup":  # whose corners are square
        round_nose = round_tail = 0.0
    else:
        parts.box((tail, nose), half * narrow, (low, bonnet), paint, taper=leans)
    parts.box((tail + round_tail, nose - round_nose), half, (low, bonnet), paint, taper=leans)
    slope = max(nose - 0.06 - front, 0.02) / (belt - bonnet)
    parts.box((back + 0.03, nose - 0.06), half * 0.96, (bonnet, belt), paint, taper=(slope, draw(0.1, 0.4), 0.1))
    parts.box((rear, front), half * 0.96, (belt, top - 0.05), glass, taper=(lean_front, lean_rear, lean_side), passes=passes)
    parts.box(roof, roof_half, (top - 0.06, top), paint, taper=(1.0, 0.8, 0.8))
    axle = length * draw(0.28, 0.33)
    parts.wheels((axle, -axle), half - 0.01, min(draw(0.29, 0.34) * height / 1.55, 0.42), 0.26, tyres)
    for side in (-1, 1):
        y = sorted((side * (half - 0.02), side * (width / 2 - 0.01)))
        parts.box((front - 0.22, front - 0.1), (y[0], y[1]), (belt, belt + 0.13), paint)
    plate_z, is_panel = draw(0.3, 0.5) * belt + low, draw() < (0.4 if height < 2.1 else 0.9)
    if style_name == "pickup":
        wall = (half * 0.9, half * 0.99)
        parts.mirrored((tail + 0.02, back), wall, (bonnet, belt), paint)
        parts.box((tail, tail + 0.08), half * 0.9, (bonnet, belt), paint)
    else:
        seat = front - lean_front * rise * 0.7 - 0.45
        back_seat = max(rear + lean_rear * rise * 0.5, seat - 1.2)
        parts.box((min(back_seat, seat - 0.3), seat), half * 0.7, (belt - 0.02, belt + rise * draw(0.3, 0.45)), inside, passes=0.65)
        if style_name == "van" and is_panel:  # no windows behind the seats
            parts.box((rear - 0.01, seat - 0.35), half * 0.975, (belt, top - 0.03), paint, taper=(0.0, lean_rear, lean_side))
        else:
            parts.box((nose - 0.02, nose + 0.01), 0.25, (plate_z, plate_z + 0.11), PLATE)
    parts.box((tail - 0.01, tail + 0.02), 0.25, (plate_z + 0.1, plate_z + 0.21), PLATE)
    return parts
