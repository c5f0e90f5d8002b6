"""Points into voxels."""

import math
from typing import Any, NamedTuple

from cuda_ops.arrays import Space, expect_rows, plain, space_of
from cuda_ops.dispatch import dispatch
from cuda_ops.grid import Grid


class HardVoxels(NamedTuple):
    """Voxels that hold the first points that fell into them.

    voxels          (M, P, C) float32  the points, zeros behind the last one
    coords          (M, 3) int32       cell along z, y, x; (M, 4) with the batch index in front where one was given
    num_points      (M,) int32         points kept of each voxel, 1..P
    counters        (5,) int64         see `num_outside` and its neighbours
    voxel_of_point  (N,) int32         row of the voxel that kept the point, else -1; None where it was not asked for
    """

    voxels: Any
    coords: Any
    num_points: Any
    counters: Any
    voxel_of_point: Any = None

    num_voxels = property(lambda self: int(self.counters[0]), doc="Voxels kept: M, or fewer where the result has a fixed capacity.")
    num_outside = property(lambda self: int(self.counters[1]), doc="Points left out because they lie outside of the grid or the batch.")
    num_not_finite = property(lambda self: int(self.counters[2]), doc="Points left out because x, y or z is NaN or infinite.")
    num_voxels_over = property(lambda self: int(self.counters[3]), doc="Voxels that were not opened because of max_voxels.")
    num_points_over = property(lambda self: int(self.counters[4]), doc="Points inside the grid left out because of a limit.")


class MeanVoxels(NamedTuple):
    """Voxels with the mean of all their points.

    features        (M, C) float32  mean of every column
    coords          (M, 3) int32    cell along z, y, x; (M, 4) with the batch index in front where one was given
    num_points      (M,) int32      points of each voxel
    counters        (5,) int64      see `HardVoxels`
    voxel_of_point  (N,) int32      row of the point's voxel, else -1; None where it was not asked for
    """

    features: Any
    coords: Any
    num_points: Any
    counters: Any
    voxel_of_point: Any = None

    num_voxels = HardVoxels.num_voxels
    num_outside = HardVoxels.num_outside
    num_not_finite = HardVoxels.num_not_finite
    num_voxels_over = HardVoxels.num_voxels_over
    num_points_over = HardVoxels.num_points_over


def voxelize_hard(
    points: Any,
    grid: Grid,
    max_points: int,
    max_voxels: int,
    *,
    batch_index: Any = None,
    batch_size: int = 1,
    with_index: bool = False,
    fixed_capacity: bool = False,
) -> HardVoxels:
    """Sort points into voxels that keep their first `max_points` points; the first `max_voxels` voxels to appear are kept.

    points          (N, C) float32, C >= 3  x, y, z in metres in the frame of the grid, then anything
    batch_index     (N,) int32 or int64     sample of each point, 0..batch_size - 1; max_voxels then counts over the whole batch
    with_index      fill `voxel_of_point`
    fixed_capacity  give max_voxels rows, those behind `num_voxels` with coords -1 and the rest 0: on a GPU nothing then waits for a count
    Voxels come in the order of their first points, points in the order given. A cell is floor((x - lower) / size) in float32. Points
    outside the grid and points with a NaN or infinite coordinate are left out and counted; NaN in other columns stays. Empty: no rows.
    Raises ValueError for a wrong shape, dtype, device or number. Source: VoxelNet section 2.1; det3d `points_to_voxel`.
    """
    max_points, max_voxels, batch_size = plain(max_points), plain(max_voxels), plain(batch_size)
    _expect_positive("voxelize_hard", max_points=max_points, max_voxels=max_voxels, batch_size=batch_size)
    space_of("voxelize_hard", points=points, batch_index=batch_index)
    limits = (max_points, max_voxels, with_index, fixed_capacity)
    *found, index = dispatch(
        "voxelize_hard", _voxelize_hard, points, batch_index, grid.lower, grid.voxel_size, grid.shape, batch_size, *limits
    )
    voxels, coords, num_points, counters = found
    return HardVoxels(voxels, coords, num_points, counters, index if with_index else None)


def voxelize_mean(
    points: Any,
    grid: Grid,
    *,
    batch_index: Any = None,
    batch_size: int = 1,
    max_voxels: int | None = None,
    with_index: bool = False,
    fixed_capacity: bool = False,
) -> MeanVoxels:
    """Sort points into voxels and take the mean of each: every point counts.

    points          (N, C) float32, C >= 3  x, y, z in metres in the frame of the grid, then anything
    batch_index     (N,) int32 or int64     sample of each point, 0..batch_size - 1
    max_voxels      keep only the first so many voxels in the order below (None: all); the others are counted
    with_index      fill `voxel_of_point`
    fixed_capacity  give max_voxels rows, those behind `num_voxels` with coords -1 and the rest 0: on a GPU nothing then waits for a count
    Voxels come by linear index: batch, then z, then y, then x. Sums are float32 in the order of the points: the same bits in every run,
    on any number of threads and on the GPU. Cells, points left out and errors as in `voxelize_hard`.
    Source: the dynamic voxel encoders of OpenPCDet and det3d (which keeps points on the upper limit, in cells outside of the grid).
    """
    max_voxels, batch_size = plain(max_voxels), plain(batch_size)
    _expect_positive("voxelize_mean", batch_size=batch_size, max_voxels=1 if max_voxels is None else max_voxels)
    if fixed_capacity and max_voxels is None:
        raise ValueError("voxelize_mean: max_voxels: expected a number with fixed_capacity, got None")
    space_of("voxelize_mean", points=points, batch_index=batch_index)
    limits = (max_voxels, with_index, fixed_capacity)
    *found, index = dispatch(
        "voxelize_mean", _voxelize_mean, points, batch_index, grid.lower, grid.voxel_size, grid.shape, batch_size, *limits
    )
    features, coords, num_points, counters = found
    return MeanVoxels(features, coords, num_points, counters, index if with_index else None)


def _voxelize_hard(
    points: Any,
    batch_index: Any,
    lower: list[float],
    voxel_size: list[float],
    shape: list[int],
    batch_size: int,
    max_points: int,
    max_voxels: int,
    with_index: bool,
    fixed_capacity: bool,
) -> tuple[Any, ...]:
    space, points, batch_index = _take(points, batch_index, "voxelize_hard", shape, batch_size)
    count, columns = points.shape
    rows = max_voxels if fixed_capacity else min(max_voxels, count)
    coord_columns = 3 if batch_index is None else 4
    voxels, coords, num_points = _rows(space, rows, (max_points, columns), coord_columns, fixed_capacity)
    index = space.empty((count if with_index else 0,), "int32")
    counters = space.zeros((5,), "int64")
    grid = (*lower, *voxel_size, *shape[::-1], batch_size)
    outputs = (voxels, coords, num_points, index if with_index else None, counters)
    space.call("voxelize_hard", points, count, columns, batch_index, *grid, max_points, rows, coord_columns, *outputs)
    kept = rows if fixed_capacity else space.numbers(counters)[0]
    return voxels[:kept], coords[:kept], num_points[:kept], counters, index


def _voxelize_mean(
    points: Any,
    batch_index: Any,
    lower: list[float],
    voxel_size: list[float],
    shape: list[int],
    batch_size: int,
    max_voxels: int | None,
    with_index: bool,
    fixed_capacity: bool,
) -> tuple[Any, ...]:
    space, points, batch_index = _take(points, batch_index, "voxelize_mean", shape, batch_size)
    count, columns = points.shape
    rows = max_voxels if fixed_capacity and max_voxels else min(max_voxels or count, count)
    coord_columns = 3 if batch_index is None else 4
    features, coords, num_points = _rows(space, rows, (columns,), coord_columns, fixed_capacity)
    index = space.empty((count if with_index else 0,), "int32")
    counters = space.zeros((5,), "int64")
    grid = (*lower, *voxel_size, *shape[::-1], batch_size)
    outputs = (features, coords, num_points, index if with_index else None, counters)
    space.call("voxelize_mean", points, count, columns, batch_index, *grid, rows, coord_columns, *outputs)
    kept = rows if fixed_capacity else space.numbers(counters)[0]
    return features[:kept], coords[:kept], num_points[:kept], counters, index


def _take(points: Any, batch_index: Any, operator: str, shape: list[int], batch_size: int) -> tuple[Space, Any, Any]:
    space = space_of(operator, points=points, batch_index=batch_index)
    points = space.take("points", points, ("N", "C"), "float32")
    if points.shape[1] < 3:
        raise ValueError(f"points: expected at least the columns x, y, z, got shape {tuple(points.shape)}")
    expect_rows("points", len(points))
    if math.prod(shape) * batch_size >= 2**62:
        raise ValueError(f"{operator}: grid: expected fewer than 2^62 cells in the batch, got {math.prod(shape) * batch_size:.3g}")
    if batch_index is not None:
        batch_index = space.take("batch_index", batch_index, (len(points),), "int32", "int64")
    return space, points, batch_index


def _rows(space: Space, rows: int, tail: tuple[int, ...], coord_columns: int, fixed_capacity: bool) -> tuple[Any, Any, Any]:
    """Room for values, coords and num_points; what a fixed capacity may leave free is filled."""
    if fixed_capacity:
        values, num_points = space.zeros((rows, *tail), "float32"), space.zeros((rows,), "int32")
        return values, space.full((rows, coord_columns), -1, "int32"), num_points
    return space.empty((rows, *tail), "float32"), space.empty((rows, coord_columns), "int32"), space.empty((rows,), "int32")


def _expect_positive(operator: str, **numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            raise ValueError(f"{operator}: {name}: expected an integer from 1 to 2^31 - 1, got {value!r}")
