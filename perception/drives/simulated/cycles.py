"""Bodies of bicycles and motorcycles, with or without rider."""

import numpy as np

from perception.drives.simulated.parts import PLATE, REFLECTOR, Parts, coat, pick, rubber
from perception.drives.simulated.people import add_rider


def bicycle(size: np.ndarray, rng: np.random.Generator, *, has_rider: bool) -> Parts:
    """8 to 9 parts, 7 more with rider. Spokes, and the air in the frame, let most rays pass."""
    draw, parts = rng.uniform, Parts(size)
    frame, tyres = coat(rng, 20.0, 0.8, (2.0, 90.0), gray=0.5), rubber(rng)
    half = parts.length / 2 - 0.01
    # without rider the handlebar is the highest part; a box with rider says little about the cycle
    bar = min(draw(0.98, 1.1), parts.height * 0.72) if has_rider else parts.height * draw(0.93, 0.99)
    radius = min(draw(0.31, 0.36), half * 0.42, bar * 0.4)
    spokes, has_basket, saddle = draw(0.45, 0.65), draw() < 0.45, bar * draw(0.84, 0.95)
    hub, rear = half - radius, radius - half
    reach = min(draw(0.24, 0.31), parts.width * 0.48)
    for x in (hub, rear):
        parts.wheel(x, (-0.045, 0.045), radius, tyres, passes=spokes)
    parts.box((rear * 0.55, hub * 0.45), 0.03, (radius * 0.7, saddle * 0.9), frame, taper=(-0.25, 0.1, 0.0), passes=0.4)
    parts.leaning((hub - 0.03, hub + 0.02), 0.025, (radius, bar - 0.03), frame, lean=-0.18)
    parts.box((hub - 0.24, hub - 0.16), reach, (bar - 0.07, bar), frame, passes=0.15)
    parts.box((rear * 0.5 - 0.02, rear * 0.5 + 0.02), 0.02, (saddle * 0.8, saddle), frame)
    parts.box((rear * 0.5 - 0.13, rear * 0.5 + 0.13), 0.07, (saddle - 0.06, saddle), tyres)
    parts.box((rear - 0.06, rear), 0.03, (2 * radius - 0.05, 2 * radius + 0.02), REFLECTOR)
    if has_basket:
        parts.box((hub - 0.15, hub + 0.15), 0.15, (bar - 0.3, bar - 0.07), frame, passes=0.5)
    if has_rider:
        add_rider(parts, rng, (rear * 0.5, saddle), (hub - 0.2, bar), 0.12)
    return parts


def motorcycle(size: np.ndarray, rng: np.random.Generator, *, has_rider: bool) -> Parts:
    """A motorcycle or a scooter: 9 to 12 parts, 7 more with rider."""
    draw, parts = rng.uniform, Parts(size)
    paint, tyres, engine = coat(rng, 17.0, 0.8, (2.0, 70.0)), rubber(rng), coat(rng, 9.0, 0.6, (2.0, 40.0), gray=1.0)
    half, style = parts.length / 2 - 0.01, pick(rng, {"scooter": 0.45, "naked": 0.35, "tourer": 0.2})
    bar = min(draw(0.98, 1.12), parts.height * 0.7) if has_rider else min(parts.height * draw(0.78, 0.95), 1.25)
    radius = min(draw(0.28, 0.34) if style != "scooter" else draw(0.2, 0.26), half * 0.4)
    saddle, thick, spokes = bar * draw(0.68, 0.76), draw(0.16, 0.22), draw(0.02, 0.15)
    hub, rear, reach = half - radius, radius - half, min(draw(0.34, 0.42), parts.width * 0.48)
    has_case, screen = draw() < 0.35, draw(0.4, 0.8)
    for x in (hub, rear):
        parts.wheel(x, (-0.09, 0.09), radius, tyres, passes=spokes)
    parts.leaning((hub - 0.05, hub + 0.05), 0.09, (radius, bar - 0.05), engine, lean=-0.28, passes=0.2)
    parts.box((hub - 0.36, hub - 0.28), reach, (bar - 0.07, bar), engine, passes=0.15)
    parts.mirrored((hub - 0.34, hub - 0.3), (reach - 0.14, reach), (bar + 0.06, bar + 0.16), tyres)
    if style == "scooter":
        parts.box((rear - 0.05, 0.0), thick, (radius, saddle - 0.05), paint, taper=(0.3, 0.1, 0.05))
        parts.box((-0.05, hub - 0.15), thick * 0.9, (radius * 0.7, radius * 1.1), paint)
        parts.leaning((hub - 0.22, hub - 0.08), thick * 1.2, (radius, bar - 0.1), paint, lean=-0.15)
    else:
        parts.box((rear * 0.45, hub * 0.5), thick * 0.9, (0.18, saddle - 0.1), engine, taper=(0.1, 0.0, 0.0), passes=0.15)
        parts.box((-0.02, hub * 0.62), thick, (saddle - 0.15, saddle + 0.13), paint, taper=(0.6, 0.6, 0.2))
        parts.box((rear - 0.15, 0.05), thick * 0.75, (saddle - 0.14, saddle), paint)
    if style == "tourer":  # a fairing with its screen
        top = min(bar + 0.25, parts.height)
        parts.leaning((hub - 0.15, hub + 0.1), thick * 1.3, (radius * 1.6, top), paint, lean=-0.3, passes=screen * 0.5)
    if has_case:
        parts.box((rear - 0.12, rear + 0.24), 0.2, (saddle - 0.08, min(saddle + 0.3, parts.height)), engine)
    parts.box((rear - 0.14, rear - 0.1), 0.1, (saddle - 0.25, saddle - 0.06), PLATE)
    if has_rider:
        add_rider(parts, rng, (rear * 0.35, saddle), (hub - 0.3, bar), 0.25)
    return parts
