"""Random boxes, and the same overlaps from GEOS (polygons and noding instead of sums over edges) and to 60 digits."""

from decimal import Decimal, localcontext

import numpy as np
import shapely

# Ordinary sizes, and what breaks geometry: touching, nested, nearly the same, thin, tiny, huge, far from the origin.
KINDS = (
    "ordinary",
    "touching",
    "nested",
    "nearly the same",
    "the same",
    "turned by a quarter",
    "thin",
    "tiny",
    "huge",
    "tiny on huge",
    "far",
    "thin, side by side",
)


def random_pairs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two times (count, 5) boxes x, y, length, width, yaw, most of which overlap; the kinds in turn."""
    a = np.column_stack(
        [rng.uniform(-50, 50, (count, 2)), rng.uniform(0.3, 12, count), rng.uniform(0.3, 4, count), rng.uniform(-7, 7, count)]
    )
    b = a.copy()
    reach = np.hypot(a[:, 2], a[:, 3])
    angle = rng.uniform(-np.pi, np.pi, count)
    b[:, :2] += (rng.uniform(0, 1.1, count) * reach / 2)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    b[:, 2:4] = np.column_stack([rng.uniform(0.3, 12, count), rng.uniform(0.3, 4, count)])
    b[:, 4] = rng.uniform(-7, 7, count)
    kind = np.array(KINDS)[np.arange(count) % len(KINDS)]

    def rows(name: str) -> np.ndarray:
        return np.flatnonzero(kind == name)

    i = rows("touching")  # side by side along the heading
    a[i, :4], a[i, 4] = np.round(a[i, :4] * 4 + 0.5) / 4, rng.choice([0, np.pi / 2, 0.3], len(i))
    b[i] = a[i]
    b[i, 2] = np.round(b[i, 2] * 8 + 0.5) / 8
    step = (a[i, 2] + b[i, 2]) / 2
    b[i, 0], b[i, 1] = a[i, 0] + step * np.cos(a[i, 4]), a[i, 1] + step * np.sin(a[i, 4])
    i = rows("nested")
    b[i] = a[i]
    b[i, 2:4] *= rng.uniform(0.1, 1, (len(i), 2))
    b[i, 4] += rng.choice([0, np.pi, 1e-3, 0.1], len(i))
    i = rows("nearly the same")
    b[i] = a[i] + rng.choice([1e-12, 1e-9, 1e-6, 1e-3], (len(i), 1)) * rng.normal(size=(len(i), 5))
    i = rows("the same")
    b[i] = a[i]
    i = rows("turned by a quarter")  # the same rectangle in other words, or the cross
    b[i] = a[i]
    b[i, 4] += np.pi / 2
    swapped = i[::2]
    b[swapped, 2:4] = a[swapped, 3:1:-1]
    i = rows("thin")
    a[i, 3], b[i, 3] = rng.uniform(0.01, 0.1, (2, len(i)))
    i = rows("tiny")
    a[i, :2], b[i, :2] = 0, (b[i, :2] - a[i, :2]) * 1e-4
    a[i, 2:4] *= 1e-4
    b[i, 2:4] *= 1e-4
    i = rows("huge")
    a[i, :4] *= 1e4
    b[i, :4] *= 1e4
    i = rows("tiny on huge")
    a[i, 2:4] *= 1e3
    b[i, :2] = a[i, :2] + rng.uniform(-0.5, 0.5, (len(i), 2)) * a[i, 2:4]
    b[i, 2:4] *= 1e-2
    i = rows("far")
    offset = rng.choice([-5e4, 5e4], (len(i), 2))
    a[i, :2] += offset
    b[i, :2] += offset
    i = rows("thin, side by side")  # along their whole length, from far inside to just touching
    a[i, 3] = 10 ** rng.uniform(-4, 0, len(i))
    b[i, 2:4] = a[i, 2:4] * rng.uniform(0.3, 2, (len(i), 2))
    b[i, 4] = a[i, 4] + rng.choice([0, 1e-12, 1e-6, np.pi], len(i))
    along = a[i, 2] * rng.uniform(-0.5, 0.5, len(i))
    across = (a[i, 3] + b[i, 3]) / 2 * rng.choice([0, 0.3, 0.9, 1 - 1e-12, 1], len(i))
    c, s = np.cos(a[i, 4]), np.sin(a[i, 4])
    b[i, 0], b[i, 1] = a[i, 0] + c * along - s * across, a[i, 1] + s * along + c * across
    return a, b


def bev(boxes: np.ndarray) -> np.ndarray:
    """(N, 7) or (N, 5) as (N, 5) float64."""
    return np.asarray(boxes, np.float64)[:, [0, 1, 3, 4, 6] if boxes.shape[1] == 7 else [0, 1, 2, 3, 4]]


def polygons(boxes: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Boxes as shapely polygons relative to `origin` (N, 2)."""
    x, y = (boxes[:, :2] - origin).T[:, :, None]
    half_length, half_width = boxes[:, 2:4].T[:, :, None] / 2
    c, s = np.cos(boxes[:, 4:]), np.sin(boxes[:, 4:])
    along, across = half_length * [1, 1, -1, -1], half_width * [-1, 1, 1, -1]
    return shapely.polygons(np.stack([x + c * along - s * across, y + s * along + c * across], axis=-1))


def gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far apart row i of `a` and of `b` lie along the one of their four axes where it is most, in metres; below 0 they overlap."""
    gap = np.full(len(a), -np.inf)
    for one, other in ((a, b), (b, a)):
        dx, dy, turn = other[:, 0] - one[:, 0], other[:, 1] - one[:, 1], other[:, 4] - one[:, 4]
        c, s = np.cos(one[:, 4]), np.sin(one[:, 4])
        side, cross = np.abs(np.cos(turn)), np.abs(np.sin(turn))
        along = np.abs(c * dx + s * dy) - (one[:, 2] + side * other[:, 2] + cross * other[:, 3]) / 2
        across = np.abs(c * dy - s * dx) - (one[:, 3] + cross * other[:, 2] + side * other[:, 3]) / 2
        gap = np.maximum(gap, np.maximum(along, across))
    return gap


def iou_of_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of row i of `a` with row i of `b`, both (N, 5)."""
    shared = shapely.area(shapely.intersection(polygons(a, a[:, :2]), polygons(b, a[:, :2])))
    iou = shared / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared)
    # GEOS can answer 0 for nearly equal rectangles, and a whole one for rectangles that only touch. Both show in how deep they overlap.
    depth, size = -gaps(a, b), np.minimum(np.hypot(a[:, 2], a[:, 3]), np.hypot(b[:, 2], b[:, 3]))
    is_odd = np.where(shared == 0, depth > 1e-9 * size, shared > (np.maximum(depth, 0) + 1e-9 * size) * size)
    for i in np.flatnonzero(is_odd):
        iou[i] = exact_iou(a[i], b[i])
    return iou


def near_pairs(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(i, j, IoU) of the pairs i < j of (N, 5) boxes that are not clearly apart."""
    i, j = np.triu_indices(len(boxes), 1)
    reach = (np.hypot(boxes[i, 2], boxes[i, 3]) + np.hypot(boxes[j, 2], boxes[j, 3])) / 2
    is_near = gaps(boxes[i], boxes[j]) <= 1e-9 * reach
    i, j = i[is_near], j[is_near]
    return i, j, iou_of_pairs(boxes[i], boxes[j])


# ---- to 60 digits ----


def exact_iou(a: np.ndarray, b: np.ndarray) -> Decimal:
    """IoU of two boxes (5,) as the real numbers that their float64 stand for, to 60 digits; exact where sums and products are short.

    Sines and cosines from their series, b's corners cut off along each side of a (Sutherland and Hodgman).
    """
    with localcontext() as context:
        context.prec = 80
        fence, inside = _exact_corners(a, a), _exact_corners(b, a)
        for (x0, y0), (x1, y1) in zip(fence, fence[1:] + fence[:1], strict=True):
            depth = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in inside]
            cut = []
            for k, ((x, y), here) in enumerate(zip(inside, depth, strict=True)):
                (last_x, last_y), before = inside[k - 1], depth[k - 1]
                if (here > 0) != (before > 0):
                    part = before / (before - here)
                    cut.append((last_x + (x - last_x) * part, last_y + (y - last_y) * part))
                if here > 0:
                    cut.append((x, y))
            inside = cut
        shared = sum((inside[k - 1][0] * y - x * inside[k - 1][1] for k, (x, y) in enumerate(inside)), Decimal(0)) / 2
        area_a, area_b = (Decimal(float(box[2])) * Decimal(float(box[3])) for box in (a, b))
        return shared / (area_a + area_b - shared)


def error_bound(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The error of `iou_bev` that is allowed for rows of `a` with rows of `b`: some 1e-15, times length over width of thin boxes."""
    reach = (np.hypot(a[:, 2], a[:, 3]) + np.hypot(b[:, 2], b[:, 3])) / 2
    return 2e-15 * np.maximum(reach / np.minimum(a[:, 2:4], b[:, 2:4]).min(axis=1), 1)


def _exact_corners(box: np.ndarray, origin: np.ndarray) -> list[tuple[Decimal, Decimal]]:
    x, y, length, width, yaw = (Decimal(float(number)) for number in box)
    x, y = x - Decimal(float(origin[0])), y - Decimal(float(origin[1]))
    s, c = _sine_cosine(yaw)
    ends = [(length / 2, -width / 2), (length / 2, width / 2), (-length / 2, width / 2), (-length / 2, -width / 2)]
    return [(x + c * along - s * across, y + s * along + c * across) for along, across in ends]


def _sine_cosine(angle: Decimal) -> tuple[Decimal, Decimal]:
    """For angles of a few turns."""
    term, order, sums = Decimal(1), 0, [Decimal(1), Decimal(0)]  # of the even terms, of the odd terms
    while abs(term) > Decimal("1e-75"):
        order += 1
        term = term * angle / order
        sums[order % 2] += -term if order % 4 > 1 else term
    return sums[1], sums[0]
