"""The operators in plain NumPy: slow, obvious, and what every other body is measured against. NumPy arrays only; arguments and results as
in the functions of the same name in `cuda_ops`."""

import numpy as np

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
