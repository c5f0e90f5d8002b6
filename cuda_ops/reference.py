"""The operators in plain NumPy: slow, obvious, and what every other body is measured against. NumPy arrays only; arguments and results as
in the functions of the same name in `cuda_ops`."""

import numpy as np

from cuda_ops.boxes import PointsInBoxes
from cuda_ops.grid import Grid
from cuda_ops.nearest import NearestInGroup
from cuda_ops.primitives import Kind, Primitives
from cuda_ops.rays import Hits
from cuda_ops.scatter import ScatterMax, ScatterMean
from cuda_ops.sparse import SparseIndices
from cuda_ops.voxelize import HardVoxels, MeanVoxels


def cells_of_points(points: np.ndarray, grid: Grid, batch_index: np.ndarray | None, batch_size: int) -> list[tuple[int, ...] | str]:
    """For each point its cell (batch, z, y, x), or "outside", or "not finite"."""
    lower, size = np.asarray(grid.lower, np.float32), np.asarray(grid.voxel_size, np.float32)
    cells: list[tuple[int, ...] | str] = []
    for i, point in enumerate(points):
        batch = 0 if batch_index is None else int(batch_index[i])
        if not np.isfinite(point[:3]).all():
            cells.append("not finite")
            continue
        with np.errstate(over="ignore"):
            x, y, z = np.floor((point[:3] - lower) / size)
        depth, height, width = grid.shape
        is_inside = 0 <= x < width and 0 <= y < height and 0 <= z < depth and 0 <= batch < batch_size
        cells.append((batch, int(z), int(y), int(x)) if is_inside else "outside")
    return cells


def voxelize_hard(
    points: np.ndarray, grid: Grid, max_points: int, max_voxels: int, *, batch_index: np.ndarray | None = None, batch_size: int = 1
) -> HardVoxels:
    """The loop of det3d's `points_to_voxel`, with the points that fall away counted."""
    row_of_cell: dict[tuple[int, ...], int] = {}
    voxels, num_points, index = [], [], np.full(len(points), -1, np.int32)
    refused: set[tuple[int, ...]] = set()
    cells = cells_of_points(points, grid, batch_index, batch_size)
    num_points_over = 0
    for i, cell in enumerate(cells):
        if isinstance(cell, str):
            continue
        if cell not in row_of_cell:
            if len(row_of_cell) == max_voxels:
                refused.add(cell)
                num_points_over += 1
                continue
            row_of_cell[cell] = len(row_of_cell)
            voxels.append(np.zeros((max_points, points.shape[1]), np.float32))
            num_points.append(0)
        row = row_of_cell[cell]
        if num_points[row] == max_points:
            num_points_over += 1
            continue
        voxels[row][num_points[row]] = points[i]
        num_points[row] += 1
        index[i] = row
    counters = np.array([len(voxels), cells.count("outside"), cells.count("not finite"), len(refused), num_points_over])
    coords = np.array(list(row_of_cell), np.int32).reshape(-1, 4)[:, 0 if batch_index is not None else 1 :]
    stacked = np.array(voxels, np.float32).reshape(-1, max_points, points.shape[1])
    return HardVoxels(stacked, coords, np.array(num_points, np.int32), counters, index)


def voxelize_mean(
    points: np.ndarray, grid: Grid, *, batch_index: np.ndarray | None = None, batch_size: int = 1, max_voxels: int | None = None
) -> MeanVoxels:
    """Means in float32, summed in the order of the points; cells in ascending order."""
    cells = cells_of_points(points, grid, batch_index, batch_size)
    found = sorted({cell for cell in cells if not isinstance(cell, str)})
    kept = found[:max_voxels]
    row_of_cell = {cell: row for row, cell in enumerate(kept)}
    sums = np.zeros((len(kept), points.shape[1]), np.float32)
    num_points, index = np.zeros(len(kept), np.int32), np.full(len(points), -1, np.int32)
    for i, cell in enumerate(cells):
        if isinstance(cell, str) or cell not in row_of_cell:
            continue
        index[i] = row = row_of_cell[cell]
        sums[row] = sums[row] + points[i] if num_points[row] else points[i]
        num_points[row] += 1
    num_inside = sum(not isinstance(cell, str) for cell in cells)
    lost = [len(found) - len(kept), num_inside - int(num_points.sum())]
    counters = np.array([len(kept), cells.count("outside"), cells.count("not finite"), *lost])
    coords = np.array(kept, np.int32).reshape(-1, 4)[:, 0 if batch_index is not None else 1 :]
    return MeanVoxels(sums / np.maximum(num_points, 1)[:, None].astype(np.float32), coords, num_points, counters, index)


def is_box(box: np.ndarray) -> bool:
    """Whether a row of 5 or 7 numbers is a box from above: finite, length and width above 0 (z and height play no part)."""
    x, y, length, width, yaw = box[[0, 1, 3, 4, 6] if len(box) == 7 else [0, 1, 2, 3, 4]]
    return bool(np.isfinite([x, y, length, width, yaw]).all() and length > 0 and width > 0)


def corners_bev(box: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(4, 2) corners of a box, counter-clockwise, relative to `origin`."""
    length, width = box[3:5] if len(box) == 7 else box[2:4]
    c, s = np.cos(box[-1]), np.sin(box[-1])
    signs = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]])
    return signs * [length / 2, width / 2] @ np.array([[c, s], [-s, c]]) + (box[:2] - origin)


def polygon_area(corners: np.ndarray) -> float:
    """Shoelace formula about the first corner; above 0 for counter-clockwise corners."""
    x, y = (corners - corners[:1]).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2 if len(x) > 2 else 0.0


def intersection_bev(a: np.ndarray, b: np.ndarray) -> float:
    """Area that two boxes share: b's corners cut off along each side of a (Sutherland and Hodgman)."""
    fence, inside = corners_bev(a, a[:2]), list(corners_bev(b, a[:2]))
    for start, end in zip(fence, np.roll(fence, -1, axis=0), strict=True):
        side = end - start
        depth = [side[0] * (p - start)[1] - side[1] * (p - start)[0] for p in inside]  # above 0: on the inner side
        cut: list[np.ndarray] = []
        for k, (point, here) in enumerate(zip(inside, depth, strict=True)):
            before = depth[k - 1]
            if (here > 0) != (before > 0):
                cut.append(inside[k - 1] + (point - inside[k - 1]) * (before / (before - here)))
            if here > 0:
                cut.append(point)
        inside = cut
    return max(polygon_area(np.array(inside)), 0.0) if inside else 0.0


def iou_bev(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Every pair by itself."""
    boxes_a, boxes_b = np.asarray(boxes_a, np.float64), np.asarray(boxes_b, np.float64)
    iou = np.zeros((len(boxes_a), len(boxes_b)))
    for i, a in enumerate(boxes_a):
        for j, b in enumerate(boxes_b):
            if is_box(a) and is_box(b):
                area_a, area_b = (polygon_area(corners_bev(box, box[:2])) for box in (a, b))
                shared = min(intersection_bev(a, b), area_a, area_b)
                iou[i, j] = shared / (area_a + area_b - shared)
    return iou


def iou_3d(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Shared area times shared height."""
    boxes_a, boxes_b = np.asarray(boxes_a, np.float64), np.asarray(boxes_b, np.float64)
    iou = np.zeros((len(boxes_a), len(boxes_b)))
    for i, a in enumerate(boxes_a):
        for j, b in enumerate(boxes_b):
            if is_box(a) and is_box(b) and np.isfinite([a[2], a[5], b[2], b[5]]).all() and min(a[5], b[5]) > 0:
                top, bottom = min(a[5] / 2, b[2] - a[2] + b[5] / 2), max(-a[5] / 2, b[2] - a[2] - b[5] / 2)
                volume_a, volume_b = np.prod(a[3:6]), np.prod(b[3:6])
                shared = min(intersection_bev(a, b) * max(top - bottom, 0.0), volume_a, volume_b)
                iou[i, j] = shared / (volume_a + volume_b - shared)
    return iou


def keep_best(drops: np.ndarray, scores: np.ndarray, max_out: int | None, group: np.ndarray | None) -> np.ndarray:
    """Rows kept, best score first, when a kept row i drops a later row j of its group where drops[i, j]."""
    group = np.zeros(len(scores), np.int64) if group is None else group
    kept: list[int] = []
    for row in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        rivals = [k for k in kept if group[k] == group[row]]
        if not np.isnan(scores[row]) and not any(drops[k, row] for k in rivals) and (max_out is None or len(rivals) < max_out):
            kept.append(int(row))
    return np.array(kept, np.int64)


def nms_bev(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, max_out: int | None = None, *, group: np.ndarray | None = None
) -> np.ndarray:
    """All overlaps first, then the loop."""
    return keep_best(iou_bev(boxes, boxes) > iou_threshold, scores, max_out, group)


def nms_circle(
    centers: np.ndarray,
    scores: np.ndarray,
    radius: float | None = None,
    max_out: int | None = None,
    *,
    squared_radius: float | None = None,
    group: np.ndarray | None = None,
) -> np.ndarray:
    """All squared distances first, then the loop."""
    x, y = np.asarray(centers, np.float64)[:, :2].T
    limit = squared_radius if radius is None else radius * radius
    with np.errstate(invalid="ignore", over="ignore"):
        squared_distance = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    return keep_best(squared_distance <= limit, scores, max_out, group)


def points_in_boxes(
    points: np.ndarray, boxes: np.ndarray, *, point_group: np.ndarray | None = None, box_group: np.ndarray | None = None
) -> PointsInBoxes:
    """Every point with every box."""
    points, boxes = np.asarray(points, np.float64), np.asarray(boxes, np.float64)
    index, count = np.full(len(points), -1, np.int32), np.zeros(len(boxes), np.int32)
    for b in range(len(boxes) - 1, -1, -1):  # backwards, so that the first box writes last
        x, y, z, length, width, height, yaw = boxes[b]
        if not np.isfinite(boxes[b]).all() or min(length, width, height) <= 0:
            continue
        dx, dy = points[:, 0] - x, points[:, 1] - y
        with np.errstate(invalid="ignore"):
            along, across = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
        is_inside = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2) & (np.abs(points[:, 2] - z) <= height / 2)
        if point_group is not None and box_group is not None:
            is_inside &= (point_group == box_group[b]) & (point_group >= 0)
        index[is_inside] = b
        count[b] = is_inside.sum()
    return PointsInBoxes(index, count)


def cast_rays(
    origins: np.ndarray,
    directions: np.ndarray,
    primitives: Primitives,
    *,
    seed: int = 0,
    min_range: float = 0.0,
    max_range: float | np.ndarray = np.inf,
) -> Hits:
    """Every ray against every primitive, without a search: half spaces, the quadratic formula, all triangles of a height field."""
    num_rays = len(origins)
    best, normals, index = np.full(num_rays, np.inf, np.float32), np.zeros((num_rays, 3), np.float32), np.full(num_rays, -1, np.int32)
    low, high = np.float32(min_range), np.broadcast_to(np.asarray(max_range, np.float32), num_rays)
    with np.errstate(all="ignore"):
        ways = directions.astype(np.float64) / np.linalg.norm(directions.astype(np.float64), axis=1, keepdims=True)
        for i in range(num_rays):
            if not (np.isfinite(origins[i]).all() and np.isfinite(ways[i]).all()):
                continue
            for j in range(len(primitives)):
                distance, normal = _distance_to(primitives, j, origins[i].astype(np.float64), ways[i], float(low), (seed, i))
                rounded = np.float32(distance)
                if not (low <= rounded <= high[i] and rounded < best[i]) or _chance(seed, i, j, 1) < primitives.pass_chance[j]:
                    continue
                facing = normal if normal @ ways[i] <= 0 else -normal
                best[i], index[i], normals[i] = rounded, j, facing
    return Hits(best, normals, index)


def _distance_to(
    table: Primitives, j: int, origin: np.ndarray, way: np.ndarray, min_range: float, draw: tuple[int, int]
) -> tuple[float, np.ndarray]:
    """How far a ray gets to row j of `table`, inf where it misses it, and the normal there."""
    kind, yaw = Kind(table.kind[j]), float(table.yaw[j])
    nothing = np.inf, np.zeros(3)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])  # its own axes into the world's
    o, d = turn.T @ (origin - table.center[j]), turn.T @ way
    if kind == Kind.PLANE:
        normal = table.normal[j].astype(np.float64)
        normal /= np.linalg.norm(normal)
        return (normal @ (table.center[j] - origin)) / (normal @ way), normal
    if kind == Kind.HEIGHT_FIELD:
        distance, normal = _distance_to_triangles(_triangles(table, j), o, d, min_range)
        return distance, turn @ normal
    half = table.size[j].astype(np.float64) / 2
    if kind in (Kind.BOX, Kind.BOX_VOLUME):
        (a, b, c), (front, rear, side) = half, table.taper[j].astype(np.float64)
        across = np.array([[0, 0, 1], [0, 0, -1], [1, 0, front], [-1, 0, rear], [0, 1, side], [0, -1, side]])  # inside: across @ p <= limit
        pieces = [_inside_faces(across, np.array([c, c, a - front * c, a - rear * c, b - side * c, b - side * c]), o, d)]
    elif kind == Kind.CYLINDER:
        ends = _inside_faces(np.array([[0, 0, 1.0], [0, 0, -1]]), half[[2, 2]], o, d)
        pieces = [ends, _inside_round(np.array([half[0], half[1], np.inf]), o, d)]
    else:
        pieces = [_inside_round(half, o, d)]
    enter, normal = max(((piece[0], piece[2]) for piece in pieces), key=lambda pair: pair[0])
    leave = min(piece[1] for piece in pieces)
    if not enter <= leave:
        return nothing
    if kind in (Kind.BOX_VOLUME, Kind.ELLIPSOID_VOLUME):
        distance = max(enter, min_range) - np.log(_chance(*draw, j, 2)) / np.float64(table.extinction[j])
        return (distance, np.zeros(3)) if distance <= leave else nothing
    return enter, turn @ (normal / np.linalg.norm(normal))


def _inside_faces(across: np.ndarray, limit: np.ndarray, o: np.ndarray, d: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Where a ray enters and leaves the points p with across @ p <= limit, and the normal of the face it enters by."""
    gap, speed = limit - across @ o, across @ d
    if ((speed == 0) & (gap < 0)).any():
        return np.inf, -np.inf, across[0]
    t = gap / speed
    enter = np.where(speed < 0, t, -np.inf)
    return float(enter.max()), float(np.where(speed > 0, t, np.inf).min()), across[int(enter.argmax())]


def _inside_round(half: np.ndarray, o: np.ndarray, d: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The same for a quadric of the given half axes (inf: a cylinder along that axis)."""
    e, w = o / half, d / half
    a, b, c = w @ w, e @ w, e @ e - 1
    if a == 0:
        return (-np.inf, np.inf, d) if c <= 0 else (np.inf, -np.inf, d)
    if b * b - a * c < 0:
        return np.inf, -np.inf, d
    enter, leave = (-b - np.sqrt(b * b - a * c)) / a, (-b + np.sqrt(b * b - a * c)) / a
    return float(enter), float(leave), (e + enter * w) / half


def _triangles(table: Primitives, j: int) -> np.ndarray:
    """(T, 3, 3) corners of a height field in its own axes, a level rim round its border included."""
    first, rows, columns = (int(n) for n in table.field[j])
    x, y = np.arange(columns) * np.float64(table.size[j, 0]), np.arange(rows) * np.float64(table.size[j, 1])
    rim = 2.5e-7 * (np.abs(table.center[j, :2].astype(np.float64)).sum() + x[-1] + y[-1])
    x, y = np.r_[-rim, x, x[-1] + rim], np.r_[-rim, y, y[-1] + rim]
    z = np.pad(table.heights[first : first + rows * columns].reshape(rows, columns), 1, mode="edge")
    points = np.stack([*np.meshgrid(x, y), z], axis=-1)
    p00, p10, p01, p11 = points[:-1, :-1], points[:-1, 1:], points[1:, :-1], points[1:, 1:]
    return np.stack([np.stack([p00, p10, p11], axis=2), np.stack([p00, p11, p01], axis=2)], axis=2).reshape(-1, 3, 3)


def _distance_to_triangles(corners: np.ndarray, o: np.ndarray, d: np.ndarray, min_range: float) -> tuple[float, np.ndarray]:
    """Moeller and Trumbore's test, all triangles at once."""
    along, up = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p, s = np.cross(d, up), o - corners[:, 0]
    q = np.cross(s, along)
    scale = 1 / (along * p).sum(axis=1)
    u, v, t = (s * p).sum(axis=1) * scale, q @ d * scale, (up * q).sum(axis=1) * scale
    edge = 1e-9  # an edge belongs to both triangles
    t = np.where((u >= -edge) & (v >= -edge) & (u + v <= 1 + edge) & (t >= min_range), t, np.inf)
    first = int(t.argmin())
    normal = np.cross(along[first], up[first])
    return float(t[first]), normal / np.linalg.norm(normal)


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


def _chance(seed: int, ray: int, primitive: int, stream: int) -> float:
    """Even in (0, 1): 1 whether the ray passes the primitive, 2 its free path there."""
    step = 0x9E3779B97F4A7C15
    bits = _mix((seed + step) % 2**64)
    bits = _mix((bits + ray * step) % 2**64)
    bits = _mix((bits + (4 * primitive + stream) * step) % 2**64)
    return ((bits >> 12) + 0.5) / 2**52


def sparse_indices(
    coords: np.ndarray,
    grid: tuple[int, int, int],
    kernel_size: tuple[int, int, int],
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int] = (0, 0, 0),
    *,
    submanifold: bool = False,
    batch_size: int = 1,
) -> SparseIndices:
    """Every output site asks at every tap whether there is an input; all sizes along z, y, x."""
    if submanifold:
        padding = (kernel_size[0] // 2, kernel_size[1] // 2, kernel_size[2] // 2)
    shape = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(grid, kernel_size, stride, padding, strict=True))
    taps = list(np.ndindex(*kernel_size))
    row_of_site: dict[tuple[int, ...], int] = {}
    num_outside = num_duplicates = 0
    for row, site in enumerate(map(tuple, coords.tolist())):
        batch, *place = site if len(site) == 4 else (0, *site)
        if set(site) == {-1}:
            continue
        if not (0 <= batch < batch_size and all(0 <= c < n for c, n in zip(place, grid, strict=True))):
            num_outside += 1
        elif (batch, *place) in row_of_site:
            num_duplicates += 1
        else:
            row_of_site[(batch, *place)] = row
    outputs = {}  # place of each output and the row it gets
    if submanifold:
        outputs = row_of_site
    else:
        for batch, *place in row_of_site:
            for tap in taps:
                shifted = [c + p - k for c, p, k in zip(place, padding, tap, strict=True)]
                site = [c // s for c, s in zip(shifted, stride, strict=True)]
                if all(c % s == 0 and 0 <= o < n for c, o, s, n in zip(shifted, site, stride, shape, strict=True)):
                    outputs[(batch, *site)] = -1
        outputs = {site: row for row, site in enumerate(sorted(outputs))}
    table = np.full((len(coords) if submanifold else len(outputs), len(taps)), -1, np.int32)
    for (batch, *place), row in outputs.items():
        for k, tap in enumerate(taps):
            looked_at = [o * s - p + t for o, s, p, t in zip(place, stride, padding, tap, strict=True)]
            table[row, k] = row_of_site.get((batch, *looked_at), -1)
    out_coords = coords if submanifold else np.array(list(outputs), np.int32).reshape(-1, 4)[:, 4 - coords.shape[1] :]
    counters = np.array([len(table), num_outside, num_duplicates, 0])
    return SparseIndices(out_coords, table, shape, counters)  # type: ignore[arg-type]


def scatter_max(values: np.ndarray, index: np.ndarray, size: int) -> ScatterMax:
    """Row by row, number by number."""
    best, argmax = np.zeros((size, values.shape[1]), values.dtype), np.full((size, values.shape[1]), -1, np.int32)
    for row, voxel in enumerate(index):
        for c in range(values.shape[1] if 0 <= voxel < size else 0):
            value, old = values[row, c], best[voxel, c]
            if argmax[voxel, c] == -1 or value > old or (np.isnan(value) and not np.isnan(old)):
                best[voxel, c], argmax[voxel, c] = value, row
    return ScatterMax(best, argmax)


def scatter_mean(values: np.ndarray, index: np.ndarray, size: int) -> ScatterMean:
    """Sums row by row in the dtype of the values."""
    sums, count = np.zeros((size, values.shape[1]), values.dtype), np.zeros(size, np.int32)
    with np.errstate(invalid="ignore", over="ignore"):
        for row, voxel in enumerate(index):
            if 0 <= voxel < size:
                sums[voxel] = sums[voxel] + values[row] if count[voxel] else values[row]
                count[voxel] += 1
        return ScatterMean(sums / np.maximum(count, 1)[:, None].astype(values.dtype), count)


def nearest_in_group(queries: np.ndarray, query_group: np.ndarray, points: np.ndarray, point_group: np.ndarray) -> NearestInGroup:
    """Every query with every point."""
    index, squared_distance = np.full(len(queries), -1, np.int32), np.full(len(queries), np.inf)
    for i, (x, y) in enumerate(queries.astype(np.float64)):
        for row, (u, v) in enumerate(points.astype(np.float64)):
            if query_group[i] != point_group[row] or not np.isfinite([x, y, u, v]).all():
                continue
            with np.errstate(over="ignore"):
                squared = (x - u) * (x - u) + (y - v) * (y - v)
            if index[i] < 0 or squared < squared_distance[i]:
                index[i], squared_distance[i] = row, squared
    return NearestInGroup(index, squared_distance)


def gather_bilinear(feature_map: np.ndarray, xy: np.ndarray, batch_index: np.ndarray | None = None) -> np.ndarray:
    """Point by point, in the arithmetic and the order of `bilinear_interpolate_torch`."""
    samples, channels, height, width = feature_map.shape
    number = np.float64 if feature_map.dtype == np.float64 else np.float32
    out = np.zeros((len(xy), channels), feature_map.dtype)
    for i, (x, y) in enumerate(xy.astype(number)):
        sample = 0 if batch_index is None else int(batch_index[i])
        if not (x >= 0 and y >= 0 and np.floor(x) + 1 < width and np.floor(y) + 1 < height and 0 <= sample < samples):
            continue
        x0, y0 = int(x), int(y)
        x1, y1 = x0 + 1, y0 + 1
        a, b, c, d = (feature_map[sample, :, row, column].astype(number) for column in (x0, x1) for row in (y0, y1))
        u0, u1, v0, v1 = number(x0), number(x1), number(y0), number(y1)
        out[i] = a * ((u1 - x) * (v1 - y)) + b * ((u1 - x) * (y - v0)) + c * ((x - u0) * (v1 - y)) + d * ((x - u0) * (y - v0))
    return out


def transpose_table(table: np.ndarray, num_inputs: int) -> np.ndarray:
    """Each entry to its place on the other side."""
    transposed = np.full((num_inputs, table.shape[1]), -1, np.int32)
    for output, k in zip(*np.nonzero(table >= 0), strict=True):
        transposed[table[output, k], k] = output
    return transposed


def sparse_conv(
    features: np.ndarray,
    weight: np.ndarray,
    table: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """The sum of its definition, in the dtype of the features."""
    matrices = weight.reshape(len(weight), table.shape[1], features.shape[1])
    out = np.zeros((len(table), len(weight)), features.dtype)
    for row, neighbours in zip(out, table, strict=True):
        for k, neighbour in enumerate(neighbours):
            if neighbour >= 0:
                row += matrices[:, k] @ features[neighbour]
    out = out + (0 if bias is None else bias) + (0 if residual is None else residual)
    return np.where(out < 0, 0, out) if relu else out


def sparse_conv_weight_gradient(features: np.ndarray, gradient: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of an output and its neighbour adds an outer product to the weight of its offset."""
    to_weight = np.zeros((gradient.shape[1], table.shape[1], features.shape[1]), features.dtype)
    for output, k in zip(*np.nonzero(table >= 0), strict=True):
        to_weight[:, k] += np.outer(gradient[output], features[table[output, k]])
    return to_weight, gradient.sum(axis=0)
