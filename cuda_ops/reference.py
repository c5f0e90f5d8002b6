"""The operators in plain NumPy: slow, obvious, and what every other body is measured against. NumPy arrays only; arguments and results as
in the functions of the same name in `cuda_ops`."""

import numpy as np

from cuda_ops.boxes import PointsInBoxes
from cuda_ops.grid import Grid
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


def points_in_boxes(points: np.ndarray, boxes: np.ndarray) -> PointsInBoxes:
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
        index[is_inside] = b
        count[b] = is_inside.sum()
    return PointsInBoxes(index, count)
