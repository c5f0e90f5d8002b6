"""How the body of an object is put together: parts in the object's frame, their surfaces, and what individuals draw."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cuda_ops import Kind, Primitives
from perception.drives.simulated.matter import SCENERY, Matter

Span = tuple[float, float]
Color = tuple[int, int, int]
THINNEST = 0.005  # metres; no part is thinner than that
BORDER = 1e-4  # metres that parts keep from the faces of the box, for float32


class Surface(NamedTuple):
    """What a lidar reads at normal incidence nearby (0..255), the colour in daylight, and how much it shines (see `Matter`)."""

    reflectivity: float
    color: Color = (128, 128, 128)
    gloss: float = 0.0

    def scaled(self, factor: float) -> "Surface":
        """Brighter or darker for the lidar and the eye."""
        red, green, blue = (min(int(c * factor), 255) for c in self.color)
        return Surface(min(max(self.reflectivity * factor, 0.5), 255.0), (red, green, blue), self.gloss)


PLATE = Surface(215.0, (235, 235, 225))
REFLECTOR = Surface(225.0, (200, 40, 30))


class Parts:
    """Collects the parts of one object: x forward, y left, z up from the middle of the box's bottom; metres.

    Each part is given by the spans (from, to) that its bottom fills along x, y and z; a number for y means (-y, y). Parts that would reach
    out of the object's box are moved inside, shrunk where they must be.
    """

    def __init__(self, size: np.ndarray) -> None:
        self.length, self.width, self.height = (float(s) for s in size)
        self._rows: list[tuple[float, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def box(
        self,
        x: Span,
        y: Span | float,
        z: Span,
        surface: Surface,
        *,
        taper: tuple[float, float, float] = (0.0, 0.0, 0.0),
        passes: float = 0.0,
        kind: Kind = Kind.BOX,
    ) -> None:
        """taper: metres a metre of height by which the front, the rear and the sides lean in; passes: the part's pass_chance."""
        right, left = y if isinstance(y, tuple) else (-y, y)
        middle_x, length, front, rear = self._fitted(x, taper[0], taper[1], z, (-self.length / 2, self.length / 2))
        middle_y, width, side, side = self._fitted((right, left), taper[2], taper[2], z, (-self.width / 2, self.width / 2))
        bottom, top = max(z[0], BORDER), min(z[1], self.height - BORDER)
        if top - bottom < THINNEST:
            bottom = min(max(bottom, BORDER), self.height - BORDER - THINNEST)
            top = bottom + THINNEST
        place = (kind, middle_x, middle_y, (bottom + top) / 2, length, width, top - bottom)
        row = (*place, front, rear, side, passes, surface.reflectivity, surface.gloss)
        self._rows.append((*row, *surface.color))

    @staticmethod
    def _fitted(span: Span, taper_high: float, taper_low: float, z: Span, border: Span) -> tuple[float, float, float, float]:
        """(middle, extent, both tapers) along one axis of a part, moved inside the border, and shrunk where it must be.

        Where a part leans out, its top is what has to fit.
        """
        height = max(z[1] - z[0], THINNEST)
        over_low, over_high = max(-taper_low * height, 0.0), max(-taper_high * height, 0.0)
        extent, room = max(span[1] - span[0], THINNEST), border[1] - border[0] - 2 * BORDER
        share = min(room / (extent + over_low + over_high), 1.0)
        extent, over_low, over_high = extent * share, over_low * share, over_high * share
        middle = (span[0] + span[1]) / 2
        middle = max(min(middle, border[1] - BORDER - extent / 2 - over_high), border[0] + BORDER + extent / 2 + over_low)
        return middle, extent, taper_high * share, taper_low * share

    def leaning(self, x: Span, y: Span | float, z: Span, surface: Surface, *, lean: float, passes: float = 0.0) -> None:
        """A bar whose top stands `lean` metres further ahead than its bottom: thighs, booms, forks."""
        slope = lean / max(z[1] - z[0], THINNEST)
        self.box(x, y, z, surface, taper=(-slope, slope, 0.0), passes=passes)

    def cylinder(self, x: Span, y: Span | float, z: Span, surface: Surface, *, passes: float = 0.0) -> None:
        self.box(x, y, z, surface, passes=passes, kind=Kind.CYLINDER)

    def ellipsoid(self, x: Span, y: Span | float, z: Span, surface: Surface, *, passes: float = 0.0) -> None:
        self.box(x, y, z, surface, passes=passes, kind=Kind.ELLIPSOID)

    def wheel(self, x: float, y: Span, radius: float, surface: Surface, *, passes: float = 0.0, bottom: float = 0.0) -> None:
        """A disc that stands along the heading."""
        self.ellipsoid((x - radius, x + radius), y, (bottom, bottom + 2 * radius), surface, passes=passes)

    def wheels(self, axles: tuple[float, ...], outside: float, radius: float, width: float, surface: Surface) -> None:
        """A pair of wheels on each axle; `outside` is how far from the middle their outer faces are."""
        for x in axles:
            self.wheel(x, (-outside, width - outside), radius, surface)
            self.wheel(x, (outside - width, outside), radius, surface)

    def tank(self, x: Span, half_width: float, z: Span, surface: Surface, *, taper: float = 0.15) -> None:
        """A lying vessel with eight sides: three boxes."""
        third = (z[1] - z[0]) / 3.4
        side = 0.75
        self.box(x, half_width - side * third, (z[0], z[0] + third), surface, taper=(0.0, 0.0, -side))
        self.box(x, half_width, (z[0] + third, z[1] - third), surface)
        self.box(x, half_width, (z[1] - third, z[1]), surface, taper=(taper, taper, side))

    def mirrored(self, x: Span, y: Span, z: Span, surface: Surface, **options: float) -> None:
        """Two boxes, at `y` to the left and to the right."""
        self.box(x, y, z, surface, passes=options.get("passes", 0.0))
        self.box(x, (-y[1], -y[0]), z, surface, passes=options.get("passes", 0.0))

    def joined(self, other: "Parts") -> "Parts":
        """These parts, then those of another object of this size."""
        both = Parts(np.array([self.length, self.width, self.height]))
        both._rows = self._rows + other._rows
        return both

    def matter(self) -> Matter:
        """The parts so far, owned by nobody."""
        return matter_of([self])


def matter_of(bodies: Sequence[Parts]) -> Matter:
    """The parts of all bodies, one body after the other, each in its own frame, owned by nobody. One table for all: a table for each body
    takes longer than the bodies."""
    table = np.array([row for body in bodies for row in body._rows], np.float32).reshape(-1, 16)
    count = len(table)
    nothing = np.zeros((count, 3), np.float32)
    shapes = Primitives(
        kind=table[:, 0].astype(np.int32),
        center=table[:, 1:4],
        size=table[:, 4:7],
        yaw=nothing[:, 0],
        taper=table[:, 7:10],
        normal=nothing,
        pass_chance=table[:, 10],
        extinction=nothing[:, 1],
        field=np.zeros((count, 3), np.int64),
        heights=np.zeros(0, np.float32),
    )
    return Matter(shapes, table[:, 11].copy(), table[:, 13:].astype(np.uint8), np.full(count, SCENERY, np.int32), table[:, 12].copy())


def pick(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """One name, as likely as its weight; one draw (`Generator.choice` costs more than a whole car)."""
    rest = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        rest -= weight
        if rest < 0:
            return name
    return next(reversed(weights))


def coat(rng: np.random.Generator, median: float, spread: float, limits: Span, *, gray: float = 0.6, gloss: float = 0.0) -> Surface:
    """Paint or cloth: log-normal reflectivity between the limits; what is bright for the lidar is mostly bright for the eye.

    gray   share of coats without hue
    gloss  how much it shines
    """
    reading = median * np.exp(spread * rng.normal())
    reading = float(min(max(reading, limits[0]), limits[1]))
    light = np.log(reading / limits[0]) / np.log(limits[1] / limits[0])  # 0 darkest .. 1 brightest
    value = float(np.clip(light + 0.15 * rng.normal(), 0.05, 1.0)) * 215 + 25
    hue, strength, has_hue = rng.random(), rng.uniform(0.25, 0.8), rng.random() >= gray
    if not has_hue:
        strength = 0.04
    wheel = [value * (1 - strength * min(max(abs((hue * 6 + shift) % 6 - 3) - 1, 0), 1)) for shift in (0, 4, 2)]
    return Surface(reading, (int(wheel[0]), int(wheel[1]), int(wheel[2])), gloss)


def rubber(rng: np.random.Generator) -> Surface:
    """Tyres with their rims."""
    reading = rng.uniform(2.0, 9.0)
    return Surface(reading, (38, 38, 42))


def glazing(rng: np.random.Generator, reading: Span = (2.0, 8.0)) -> Surface:
    """Panes and the posts between them."""
    return Surface(rng.uniform(*reading), (60, 72, 84))
