"""The ground of a street as height fields, one per surface: roads, sidewalks, verges and the paint on the roads.

Bends are laid out in pieces that each lie along the tangent in their middle. Where two fields overlap, one of them runs under the other.
All that is laid is cut into tiles: a ray walks over the cells of a field from where it comes below the highest of them, and within a tile
the ground is nearly level.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from cuda_ops import Kind, Primitives
from perception.drives.simulated.matter import SCENERY, Matter
from perception.drives.simulated.roads import CORNER_RADIUS, REACH, CrossSection, Plan

EXTENT = 200.0  # metres from the middle of the crossing in x and y
PAINT_HEIGHT = 0.004
OVERLAP = 0.1  # fields of different cell sizes run under each other, so that no ray finds a crack
UNDER = 0.03  # metres by which a field dips where it runs under another one
SAGITTA = 0.04  # metres that a bend may be off the tangent of its piece
PAINTED = 100.0  # metres along the arms as far as there are lines
TILE = 12.5  # metres, the longest side of a tile: half and double of it are slower to cast against
_TOGETHER = 8192  # heights worked out at once: temporaries stay in the processor's cache
_VERGE_CELL = 1.25  # metres: half of the distance between the knots of its roughness
COLORS = {"asphalt": (70, 70, 74), "sidewalk": (150, 146, 138), "verge": (92, 108, 62), "paint": (225, 225, 220)}
MEDIAN_READING = {"asphalt": 32.0, "sidewalk": 48.0, "verge": 32.0, "paint": 170.0}  # at normal incidence

Place = Callable[[np.ndarray, np.ndarray, CrossSection], np.ndarray]  # metres at places (x, y) of the street frame, in their shape


class Ground(Protocol):
    """What is known about the heights of a street: `road` goes on level under the sidewalks, `ground` is what is seen."""

    @property
    def plan(self) -> Plan: ...
    @property
    def surfaces(self) -> "Surfaces": ...
    def road(self, x: np.ndarray, y: np.ndarray, places: CrossSection) -> np.ndarray: ...
    def ground(self, x: np.ndarray, y: np.ndarray, places: CrossSection) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Surfaces:
    """What the grounds of a scene read at normal incidence, 0..255.

    asphalt   (5,)  of arms 0 - 3 and of the crossing
    sidewalk  (4,)  by quadrant; quadrant q lies counter-clockwise of arm q, so 0 is x < 0, y < 0
    verge     (4,)  by quadrant
    paint     of the markings
    """

    asphalt: np.ndarray
    sidewalk: np.ndarray
    verge: np.ndarray
    paint: float

    @staticmethod
    def draw(rng: np.random.Generator, source: Sequence[int] = (0, 1, 2, 3)) -> "Surfaces":
        """source  for each quadrant the one that it is like."""

        def reading(name: str, spread: float, count: int) -> np.ndarray:
            return np.clip(MEDIAN_READING[name] * rng.lognormal(0, spread, count), 2, 160)

        # one town, one asphalt: the arms differ less than the scenes
        asphalt = reading("asphalt", 0.3, 1) * rng.lognormal(0, 0.2, 5)
        like = list(source)
        return Surfaces(asphalt, reading("sidewalk", 0.35, 4)[like], reading("verge", 0.4, 4)[like], float(reading("paint", 0.3, 1)[0]))

    @staticmethod
    def usual() -> "Surfaces":
        """The median of each."""
        m = MEDIAN_READING
        return Surfaces(np.full(5, m["asphalt"]), np.full(4, m["sidewalk"]), np.full(4, m["verge"]), m["paint"])


@dataclass(frozen=True)
class Piece:
    """A rectangle along an arm: `middle` along it, `half` its half length for places `across` 0, of which the outermost ones need more."""

    middle: float
    half: float
    curvature: float

    def half_length(self, across: Sequence[float]) -> float:
        """Half the length of a rectangle over `across` (from, to) that leaves no wedge open to the next piece."""
        return self.half * max(1.0, *(1 + self.curvature * c for c in across))


def pieces(plan: Plan, arm: int, begin: float, end: float) -> Iterator[Piece]:
    """Cuts the stretch of an arm from `begin` to `end` into straights and short parts of its bend."""
    bend = plan.bends[arm]
    cuts = [begin, end] if bend is None else [begin, *np.clip([bend.begin, bend.end], begin, end).tolist(), end]
    for i, (a, b) in enumerate(pairwise(cuts)):
        if b - a < 1e-6:
            continue
        if bend is None or i != 1:
            yield Piece((a + b) / 2, (b - a) / 2, 0.0)
            continue
        longest = 2 * np.sqrt(2 * SAGITTA * bend.radius) * 0.9  # the outer edge bends less, but is longer
        edges = np.linspace(a, b, int(np.ceil((b - a) / longest)) + 1).tolist()
        turn = (edges[1] - edges[0]) * abs(bend.curvature)
        half = np.tan(turn / 2) / abs(bend.curvature)
        for low, high in pairwise(edges):
            yield Piece((low + high) / 2, float(half), bend.curvature)


class Sheet(NamedTuple):
    """A rectangle of ground: heights `place` over shape = (columns, rows) places from a corner (x, y, yaw of the first side) on, `size`
    metres along its sides, and what it reflects."""

    place: Place
    corner: tuple[float, float, float]
    size: tuple[float, float]
    shape: tuple[int, int]
    reflectivity: float
    surface: str


def laid(ground: Ground) -> Matter:
    """Verges, roads, kerbs with sidewalks, and the paint on the roads."""
    return _matter_of(ground.plan, [*grounds(ground), *markings(ground)])


def grounds(ground: Ground) -> list[Sheet]:
    """The verges up to `EXTENT`, over them roads, kerbs and sidewalks as far as `REACH` along the arms."""
    plan, s = ground.plan, ground.surfaces
    parts: list[Sheet] = []
    below_pavement, over_road = _below_pavement(ground), _over_road(ground)
    for q, (x, y) in enumerate(((-1, -1), (1, -1), (1, 1), (-1, 1))):
        (x0, x1), (y0, y1) = sorted((0.0, x * EXTENT)), sorted((0.0, y * EXTENT))
        cell = (_VERGE_CELL, _VERGE_CELL)
        parts.append(_field(below_pavement, (x0, y0, 0.0), (x1 - x0, y1 - y0), cell, s.verge[q], "verge"))
    reach = {q: _corner_reach(plan, q) for q in plan.corners}
    if plan.corners:
        # towards arms 0 - 3; round the corners where there is an arm
        west, south, east, north = (plan.section(arm + 1, 1).kerb + CORNER_RADIUS * (arm in plan.arms or arm % 2 == 0) for arm in range(4))
        parts.append(_field(ground.road, (-west, -south, 0.0), (west + east, north + south), (1.0, 1.0), s.asphalt[4], "asphalt"))
    for arm in plan.arms:
        right, left = plan.section(arm, -1), plan.section(arm, 1)
        width = (-right.kerb - OVERLAP, left.kerb + OVERLAP)
        first = plan.section(arm + 1, 1).kerb if plan.corners else 0.0
        parts += _along(plan, arm, ground.road, (max(first - OVERLAP, 0.0), REACH), width, (2.0, 1.0), s.asphalt[arm], "asphalt")
        for sign, section in ((-1, right), (1, left)):
            q = arm if sign < 0 else (arm - 1) % 4
            begin = reach[q][arm] if q in reach else 0.0
            for a, b, cell in (
                (section.kerb - UNDER, section.kerb + 0.24, 0.045),
                (section.kerb + 0.2, section.sidewalk_end + OVERLAP, 1.0),
            ):
                across = (sign * a, sign * b) if sign > 0 else (sign * b, sign * a)
                parts += _along(plan, arm, over_road, (begin, REACH), across, (2.0, cell), s.sidewalk[q], "sidewalk")
    for q in plan.corners:
        parts.append(_corner(plan, over_road, q, s.sidewalk[q]))
    for lot in plan.lots:
        inner = plan.section(lot.arm, lot.sign).sidewalk_end
        across = sorted((lot.sign * inner, lot.sign * (inner + lot.depth)))
        parts += _along(
            plan, lot.arm, ground.ground, (lot.begin, lot.end), (across[0], across[1]), (1.0, 1.0), s.asphalt[lot.arm], "asphalt"
        )
    return parts


def markings(ground: Ground) -> list[Sheet]:
    """Centre, lane and edge lines, stop lines, the people's crossing at the lights and zebra stripes."""
    plan, paint = ground.plan, _raised(ground.road, PAINT_HEIGHT)
    parts: list[Sheet] = []
    for arm in plan.arms:
        right, left, stop = plan.section(arm, -1), plan.section(arm, 1), plan.stop(arm)
        lines = [(stop, PAINTED, y - 0.07, y + 0.07) for y in (-0.12, 0.12)]
        for sign, section in ((-1, right), (1, left)):
            edge = sign * section.lane_width * len(section.lanes)
            if section.parking != "none" or section.bicycle is not None:
                lines.append((stop, PAINTED, edge - 0.07, edge + 0.07))
            for i in range(1, len(section.lanes)):
                y = sign * i * section.lane_width
                lines += [(s, s + 3.0, y - 0.06, y + 0.06) for s in np.arange(stop + 2, 90, 9.0).tolist()]
            if section.parking == "perpendicular":
                bays = np.arange(stop + 6.0, 70.0, 2.8).tolist()
                lines += [(s, s + 0.1, *sorted((sign * section.parking_begins, sign * (section.kerb - 0.1)))) for s in bays]
        if plan.corners:
            if plan.has_lights or arm % 2 == 1:
                lines.append((stop, stop + 0.4, -right.lane_width * len(right.lanes), -0.2))
            if plan.has_lights:
                lines += [(stop - 1.35 - 3 * i, stop - 1.2 - 3 * i, -right.kerb + 0.4, left.kerb - 0.4) for i in (0, 1)]
        for on, along in plan.zebras:
            if on == arm:
                stripes = 1.05 * np.arange(-np.floor((right.kerb - 0.65) / 1.05), np.floor((left.kerb - 0.65) / 1.05) + 1)
                lines += [(along - 2.0, along + 2.0, y - 0.25, y + 0.25) for y in stripes.tolist()]
        for begin, end, low, high in lines:
            parts += _along(plan, arm, paint, (begin, end), (low, high), (2.0, 2.0), ground.surfaces.paint, "paint")
    return parts


def _below_pavement(ground: Ground) -> Place:
    """The ground, but deep under the pavement, where roads, sidewalks and parking lots are laid over it."""
    plan = ground.plan

    def height(x: np.ndarray, y: np.ndarray, places: CrossSection) -> np.ndarray:
        depth = np.clip(-places.beyond, 0.0, 1.0)
        for lot in plan.lots:
            along, across = plan.locate(lot.arm, x, y)
            back = lot.sign * across - plan.section(lot.arm, lot.sign).sidewalk_end
            edge = np.minimum(np.minimum(along - lot.begin, lot.end - along), np.minimum(back, lot.depth - back))
            depth = np.maximum(depth, np.clip(edge, 0.0, 1.0))
        return ground.ground(x, y, places) - 0.4 * depth

    return height


def _over_road(ground: Ground) -> Place:
    """The ground, but a little under the roads."""

    def height(x: np.ndarray, y: np.ndarray, places: CrossSection) -> np.ndarray:
        return ground.ground(x, y, places) - UNDER * np.clip(-places.from_kerb / UNDER, 0.0, 1.0)

    return height


def _raised(place: Place, metres: float) -> Place:
    return lambda x, y, places: place(x, y, places) + metres


def _corner_reach(plan: Plan, q: int) -> dict[int, float]:
    """How far along each of its two arms the round kerb of a corner goes."""
    arm, other = q, (q + 1) % 4
    return {arm: plan.section(other, 1).kerb + CORNER_RADIUS, other: plan.section(arm, -1).kerb + CORNER_RADIUS}


def _corner(plan: Plan, place: Place, q: int, reflectivity: float) -> Sheet:
    """The sidewalk at the round kerb of a corner, in fine cells."""
    arm, other = q, (q + 1) % 4
    side, kerb = CORNER_RADIUS + OVERLAP, plan.section(arm, -1).kerb
    # the field's first axis leads out of the crossing along the arm; its second one is to the left of that, away from the road
    x, y, yaw = (float(value) for value in plan.at(arm, plan.section(other, 1).kerb, -kerb))
    return _field(place, (x, y, yaw + np.pi), (side, side), (0.1, 0.1), reflectivity, "sidewalk")


def _along(
    plan: Plan,
    arm: int,
    place: Place,
    along: tuple[float, float],
    across: tuple[float, float],
    cell: tuple[float, float],
    reflectivity: float,
    surface: str,
) -> list[Sheet]:
    """The ground over a strip of an arm: `along` (from, to), `across` (from, to); cells no larger than `cell` along and across."""
    parts = []
    for piece in pieces(plan, arm, *along):
        low, high = across
        if piece.curvature:
            low, high = low - SAGITTA * (cell[1] < 1), high + SAGITTA * (cell[1] < 1)
        half = piece.half_length(across)
        x, y, yaw = (float(value) for value in plan.at(arm, piece.middle, 0.0))
        # outward is against the traffic: `across` high comes first to the right of who drives outwards
        ux, uy = -np.cos(yaw), -np.sin(yaw)
        corner = x - half * ux + high * uy, y - half * uy - high * ux
        parts.append(_field(place, (*corner, yaw + np.pi), (2 * half, high - low), cell, reflectivity, surface))
    return parts


def _field(
    place: Place,
    corner: tuple[float, float, float],
    size: tuple[float, float],
    largest_cell: tuple[float, float],
    reflectivity: float,
    surface: str,
) -> Sheet:
    """The ground over a rectangle: its corner x, y and the yaw of its first side, its size; cells no larger than `largest_cell`."""
    x0, y0, yaw = corner
    columns, rows = (max(1, int(np.ceil(length / longest - 1e-9))) + 1 for length, longest in zip(size, largest_cell, strict=True))
    return Sheet(place, (x0, y0, (yaw + np.pi) % (2 * np.pi) - np.pi), size, (columns, rows), float(reflectivity), surface)


def _matter_of(plan: Plan, sheets: Sequence[Sheet]) -> Matter:
    """The sheets in their order, each as its tiles.

    Heights of many are worked out together: hundreds of small arrays take ten times as long.
    """
    places = list(dict.fromkeys(sheet.place for sheet in sheets))
    order = sorted(range(len(sheets)), key=lambda i: places.index(sheets[i].place))
    grids = [_grid(sheets[i]) for i in order]
    x, y = (np.concatenate([grid[axis].ravel() for grid in grids]) for axis in (0, 1))
    heights, begin = np.empty(len(x), np.float32), 0
    ends = np.cumsum([grid.shape[1] * grid.shape[2] for grid in grids])
    for place in places:
        end = int(max(ends[k] for k, i in enumerate(order) if sheets[i].place == place))
        for first in range(begin, end, _TOGETHER):
            rows = slice(first, min(first + _TOGETHER, end))
            heights[rows] = place(x[rows], y[rows], CrossSection.of(plan, x[rows], y[rows]))
        begin = end
    of_sheet = {i: part.reshape(grid.shape[1:]) for i, grid, part in zip(order, grids, np.split(heights, ends[:-1]), strict=True)}
    tiles, numbers = zip(*[tile for i, sheet in enumerate(sheets) for tile in _tiles(i, sheet, of_sheet[i])], strict=True)
    x, y, yaw, cell_x, cell_y, rows, columns, number = np.array(numbers).T
    count, zero = len(tiles), np.zeros((len(tiles), 3), np.float32)
    reflectivity, color = np.array([sheet.reflectivity for sheet in sheets]), np.array([COLORS[sheet.surface] for sheet in sheets])
    number = number.astype(int)
    first = np.cumsum([0, *[tile.size for tile in tiles[:-1]]])
    shapes = Primitives(
        kind=np.full(count, Kind.HEIGHT_FIELD, np.int32),
        center=np.column_stack([x, y, 0 * x]).astype(np.float32),
        size=np.column_stack([cell_x, cell_y, 0 * x]).astype(np.float32),
        yaw=yaw.astype(np.float32),
        taper=zero,
        normal=zero,
        pass_chance=zero[:, 0],
        extinction=zero[:, 0],
        field=np.column_stack([first, rows, columns]).astype(np.int64),
        heights=np.concatenate([tile.ravel() for tile in tiles]),
    )
    return Matter.of(shapes, reflectivity[number], color[number], SCENERY)


def _grid(sheet: Sheet) -> np.ndarray:
    """x and y (2, rows, columns) of the heights of a sheet."""
    (x0, y0, yaw), (columns, rows) = sheet.corner, sheet.shape
    u, v = np.arange(columns) * (sheet.size[0] / (columns - 1)), np.arange(rows)[:, None] * (sheet.size[1] / (rows - 1))
    cos, sin = np.cos(yaw), np.sin(yaw)
    grid = np.empty((2, rows, columns))
    np.add(x0 + cos * u, -sin * v, out=grid[0])
    np.add(y0 + sin * u, cos * v, out=grid[1])
    return grid


def _cuts(length: float, count: int) -> Iterator[tuple[int, int]]:
    """From which to which of `count` heights along a side each tile goes."""
    parts = min(int(np.ceil(length / TILE)), count - 1)
    return pairwise([k * (count - 1) // parts for k in range(parts + 1)])


def _tiles(number: int, sheet: Sheet, heights: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[float, ...]]]:
    """Heights of each tile, neighbours sharing those of their border, and its x, y, yaw, cell along x and y, rows, columns and `number`."""
    (x0, y0, yaw), (columns, rows) = sheet.corner, sheet.shape
    cell_x, cell_y, cos, sin = sheet.size[0] / (columns - 1), sheet.size[1] / (rows - 1), np.cos(yaw), np.sin(yaw)
    across = list(_cuts(sheet.size[0], columns))
    for low, high in _cuts(sheet.size[1], rows):
        for left, right in across:
            u, v = left * cell_x, low * cell_y
            place = x0 + cos * u - sin * v, y0 + sin * u + cos * v, yaw
            yield heights[low : high + 1, left : right + 1], (*place, cell_x, cell_y, high + 1 - low, right + 1 - left, number)
