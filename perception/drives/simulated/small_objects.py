"""Bodies of traffic cones and barriers."""

import numpy as np

from perception.drives.simulated.parts import REFLECTOR, Parts, Surface, coat, pick

_ORANGE = (235, 95, 25)


def traffic_cone(size: np.ndarray, rng: np.random.Generator) -> Parts:
    """A foot, a steep pyramid and none to two reflecting sleeves; or a drum on a foot."""
    draw, parts = rng.uniform, Parts(size)
    half, top = min(parts.length, parts.width) / 2, parts.height * draw(0.95, 1.0)
    rubber, foot = Surface(draw(12.0, 40.0), _ORANGE), Surface(draw(4.0, 20.0), (45, 45, 48))
    kind, wide, tip, sleeves = pick(rng, {"cone": 0.9, "drum": 0.1}), draw(0.5, 0.66), draw(0.025, 0.04), draw()
    sleeve, thick = Surface(draw(90.0, 230.0), (235, 235, 235)), draw(0.03, 0.06)
    parts.box((-parts.length * 0.48, parts.length * 0.48), parts.width * 0.48, (0.0, thick), foot)
    if kind == "drum":
        radius = half * 0.55
        parts.cylinder((-radius, radius), radius, (thick, top), rubber)
        parts.cylinder((-radius * 1.02, radius * 1.02), radius * 1.02, (top * 0.62, top * 0.78), sleeve)
        return parts
    radius = half * wide
    lean = (radius - tip) / (top - thick)
    parts.box((-radius, radius), radius, (thick, top), rubber, taper=(lean, lean, lean))
    for low, high, is_there in ((0.62, 0.8, sleeves < 0.8), (0.36, 0.5, sleeves < 0.4)):
        if is_there:
            wide_low = radius - lean * (low * top - thick) + 0.006
            parts.box((-wide_low, wide_low), wide_low, (low * top, high * top), sleeve, taper=(lean, lean, lean))
    return parts


def barrier(size: np.ndarray, rng: np.random.Generator) -> Parts:
    """Concrete with a wide foot, water-filled plastic, or a fence that most rays pass; the long side lies along y."""
    draw, parts = rng.uniform, Parts(size)
    half, side, top = parts.length / 2, parts.width / 2 * draw(0.96, 0.995), parts.height * draw(0.93, 1.0)
    kind = pick(rng, {"jersey": 0.4, "plastic": 0.25, "fence": 0.2, "boards": 0.15})
    foot = half * draw(0.8, 0.98)
    if kind == "jersey":
        concrete, neck = coat(rng, 11.0, 0.6, (3.0, 60.0), gray=1.0), draw(0.22, 0.36)
        thin = foot * draw(0.28, 0.42)
        lean = (foot - thin * 1.35) / (top * neck)
        parts.box((-foot, foot), side, (0.0, top * neck), concrete, taper=(lean * 0.5, lean * 0.5, 0.0))
        body = foot - lean * 0.5 * top * neck
        slope = (body - thin) / (top * (1 - neck))
        parts.box((-body, body), side, (top * neck, top), concrete, taper=(slope, slope, 0.02))
        parts.box((-thin * 1.3, thin * 1.3), (-0.05, 0.05), (top * 0.85, top * 0.92), REFLECTOR)
    elif kind == "plastic":
        color = [_ORANGE, (225, 225, 225), (200, 40, 35), (240, 200, 40)][int(draw() * 4)]
        plastic, slope = Surface(coat(rng, 16.0, 0.7, (4.0, 75.0)).reflectivity, color), draw(0.1, 0.3)
        parts.box((-foot, foot), side, (0.0, top * 0.45), plastic, taper=(slope, slope, 0.0))
        thin = foot - slope * top * 0.45
        parts.box((-thin, thin), side, (top * 0.45, top * 0.6), plastic, taper=(0.6, 0.6, 0.0))
        thin -= 0.09 * top
        parts.box((-thin, thin), side * 0.97, (top * 0.6, top), plastic, taper=(0.05, 0.05, 0.05))
    elif kind == "fence":
        steel, mesh = coat(rng, 14.0, 0.7, (3.0, 60.0), gray=1.0), draw(0.55, 0.75)
        parts.box((-0.015, 0.015), side, (0.15, top), steel, passes=mesh)
        parts.box((-0.025, 0.025), side, (top - 0.06, top), steel)
        parts.box((-0.025, 0.025), side, (0.12, 0.18), steel)
        for y in (-side + 0.03, side - 0.03):
            parts.box((-0.025, 0.025), (y - 0.025, y + 0.025), (0.0, top), steel)
            parts.box((-foot, foot), (y - 0.06, y + 0.06), (0.0, 0.08), steel)
    else:
        board, post = Surface(draw(25.0, 160.0), (235, 90, 60)), coat(rng, 14.0, 0.6, (3.0, 60.0), gray=1.0)
        for low, high in ((0.78, 1.0), (0.42, 0.64)):
            parts.box((-0.03, 0.03), side, (top * low, top * high), board)
        for y in (-side * 0.8, side * 0.8):
            parts.box((-0.05, 0.05), (y - 0.04, y + 0.04), (0.0, top), post)
            parts.box((-foot, foot), (y - 0.1, y + 0.1), (0.0, 0.1), post)
    return parts
