"""The ground of a street as height fields, one per surface: roads, sidewalks, verges and the paint on the roads."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cuda_ops import Primitives
from perception.drives.simulated import roads
from perception.drives.simulated.matter import Matter

EXTENT = 200.0  # metres from the middle of the crossing in x and y
SIDEWALK_END = 18.0
PAINT_HEIGHT = 0.004
OVERLAP = 0.1  # fields of different cell sizes run under each other, so that no ray finds a crack
COLORS = {"asphalt": (70, 70, 74), "sidewalk": (150, 146, 138), "verge": (92, 108, 62), "paint": (225, 225, 220)}
MEDIAN_READING = {"asphalt": 32.0, "sidewalk": 48.0, "verge": 32.0, "paint": 170.0}  # at normal incidence

Height = Callable[[np.ndarray, np.ndarray], np.ndarray]  # metres at places (x, y) of the street frame, in their shape


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
    def draw(rng: np.random.Generator) -> "Surfaces":
        def reading(name: str, spread: float, count: int) -> np.ndarray:
            return np.clip(MEDIAN_READING[name] * rng.lognormal(0, spread, count), 2, 160)

        # one town, one asphalt: the arms differ less than the scenes
        asphalt = reading("asphalt", 0.3, 1) * rng.lognormal(0, 0.2, 5)
        return Surfaces(asphalt, reading("sidewalk", 0.35, 4), reading("verge", 0.4, 4), float(reading("paint", 0.3, 1)[0]))

    @staticmethod
    def usual() -> "Surfaces":
        """The median of each."""
        m = MEDIAN_READING
        return Surfaces(np.full(5, m["asphalt"]), np.full(4, m["sidewalk"]), np.full(4, m["verge"]), m["paint"])


def grounds(height: Height, surfaces: Surfaces) -> list[Matter]:
    """Roads, corners and strips of sidewalk, verges: together they cover the plane up to `EXTENT`."""
    k, e, end = roads.KERB, EXTENT, SIDEWALK_END
    parts = [_field(height, (-k, k, -k, k), (1.0, 1.0), surfaces.asphalt[4], "asphalt")]
    for arm in range(4):
        road = _turned((-e, -k + OVERLAP, -k, k), arm)
        parts.append(_field(height, road, _cell(2.0, 1.0, arm), surfaces.asphalt[arm], "asphalt"))
        # quadrant `arm` lies counter-clockwise of the arm: below it for arm 0
        q = arm
        parts.append(_field(height, _turned((-end, -k, -end, -k), q), (0.075, 0.075), surfaces.sidewalk[q], "sidewalk"))
        parts.append(_field(height, _turned((-e, -end + OVERLAP, -end, -k), q), _cell(2.0, 0.075, q), surfaces.sidewalk[q], "sidewalk"))
        parts.append(_field(height, _turned((-end, -k, -e, -end + OVERLAP), q), _cell(0.075, 2.0, q), surfaces.sidewalk[q], "sidewalk"))
        parts.append(_field(height, _turned((-e, -end, -e, -end), q), (1.0, 1.0), surfaces.verge[q], "verge"))
    return parts


def markings(height: Height, surfaces: Surfaces) -> list[Matter]:
    """Centre, lane and edge lines, stop lines, the people's crossing at the lights and zebra stripes."""
    stop, lane_line, edge_line = roads.STOP_LINE, 3.5, 7.0
    parts = []
    for arm in range(4):
        lines = [(-100.0, -stop, y - 0.07, y + 0.07) for y in (-0.12, 0.12, -edge_line, edge_line)]
        lines.append((-stop - 0.4, -stop, -edge_line, -0.2))
        lines += [(-stop + 1.2 + 3 * i, -stop + 1.35 + 3 * i, -roads.KERB + 0.4, roads.KERB - 0.4) for i in (0, 1)]
        lines += [(-s - 3.0, -s, y - 0.06, y + 0.06) for s in np.arange(stop + 2, 90, 9.0) for y in (-lane_line, lane_line)]
        if arm in roads.ZEBRA_ARMS:
            lines += [(-roads.ZEBRA - 2.0, -roads.ZEBRA + 2.0, y - 0.25, y + 0.25) for y in np.arange(-10.5, 10.6, 1.05)]
        for line in lines:
            parts.append(_field(height, _turned(line, arm), (2.0, 2.0), surfaces.paint, "paint", above=PAINT_HEIGHT))
    return parts


def _cell(along: float, across: float, arm: int) -> tuple[float, float]:
    """Cell size in x and y of a field drawn for arm 0 and turned to `arm`."""
    return (along, across) if arm % 2 == 0 else (across, along)


def _turned(rectangle: tuple[float, float, float, float], arm: int) -> tuple[float, float, float, float]:
    """x from - to, y from - to, drawn for arm 0, at `arm`."""
    corners = roads.turned(np.reshape(rectangle, (2, 2)).T, arm)
    (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return x0, x1, y0, y1


def _field(
    height: Height,
    rectangle: tuple[float, float, float, float],
    largest_cell: tuple[float, float],
    reflectivity: float,
    surface: str,
    above: float = 0.0,
) -> Matter:
    """The ground over a rectangle (x from - to, y from - to), its cells no larger than `largest_cell`."""
    x0, x1, y0, y1 = rectangle
    columns, rows = (max(1, int(np.ceil((b - a) / c - 1e-9))) + 1 for a, b, c in ((x0, x1, largest_cell[0]), (y0, y1, largest_cell[1])))
    x, y = np.meshgrid(np.linspace(x0, x1, columns), np.linspace(y0, y1, rows))
    cell = (x1 - x0) / (columns - 1), (y1 - y0) / (rows - 1)
    shape = Primitives.height_field(height(x, y).astype(np.float32), (x0, y0, above), cell)
    return Matter.of(shape, reflectivity, COLORS[surface])
