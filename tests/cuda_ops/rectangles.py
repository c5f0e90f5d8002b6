"""Random boxes, and the same overlaps from GEOS: polygons and noding instead of sums over edges."""

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


def iou_of_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of row i of `a` with row i of `b`, both (N, 5)."""
    p, q = polygons(a, a[:, :2]), polygons(b, a[:, :2])
    # GEOS can answer 0 for nearly equal rectangles in one order and the truth in the other, and in rare cases 0 in both: such pairs are
    # asked again with the corners snapped to a grid, which is sound but rounds.
    shared = np.maximum(shapely.area(shapely.intersection(p, q)), shapely.area(shapely.intersection(q, p)))
    is_odd = (shared == 0) & (np.abs(a[:, :2] - b[:, :2]) < np.minimum(a[:, 2:4], b[:, 2:4]).min(axis=1, keepdims=True) / 2).all(axis=1)
    for i in np.flatnonzero(is_odd):
        shared[i] = shapely.intersection(p[i], q[i], grid_size=a[i, 2:4].min() * 1e-11).area
    return shared / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared)


def near_pairs(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(i, j, IoU) of the pairs i < j of (N, 5) boxes that are not clearly apart."""
    i, j = np.triu_indices(len(boxes), 1)
    radius = np.hypot(boxes[:, 2], boxes[:, 3]) / 2
    reach = radius[i] + radius[j]
    is_near = np.hypot(*(boxes[i, :2] - boxes[j, :2]).T) <= reach
    i, j, reach = i[is_near], j[is_near], reach[is_near]
    iou = iou_of_pairs(boxes[i], boxes[j])
    gap = shapely.distance(polygons(boxes[i], boxes[i, :2]), polygons(boxes[j], boxes[i, :2]))
    is_near = (iou > 0) | (gap < 1e-9 * reach)
    return i[is_near], j[is_near], iou[is_near]
