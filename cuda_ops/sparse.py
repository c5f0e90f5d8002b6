"""Which rows meet in a sparse convolution: the sites of its outputs, and for each of them the inputs under the kernel."""

import math
from typing import Any, NamedTuple

import numpy as np

from cuda_ops.arrays import Space, expect_rows, plain, space_of
from cuda_ops.dispatch import dispatch
from cuda_ops.grid import Grid

_MOST_CELLS = 2**62
_MOST_CELLS_ON_GPU = 2**34  # a bit and half a bit each: 3 GiB
_MOST_WIDTH = 2**22  # the CPU keeps a row of cells at hand


class SparseIndices(NamedTuple):
    """The sites of a sparse convolution's outputs and what they look at.

    coords    (M, 4) int32  batch, z, y, x of each output; (M, 3) without the batch where the inputs came without
    table     (M, K) int32  row of the input under tap k = (kz * kernel_y + ky) * kernel_x + kx, else -1; K = kernel_z * kernel_y * kernel_x
    shape     (z, y, x)     cells of the output grid
    counters  (4,) int64    see `num_outputs` and its neighbours
    """

    coords: Any
    table: Any
    shape: tuple[int, int, int]
    counters: Any

    num_outputs = property(lambda self: int(self.counters[0]), doc="Outputs: M, or fewer where the result has a capacity.")
    num_outside = property(lambda self: int(self.counters[1]), doc="Inputs left out because they lie outside of the grid or the batch.")
    num_duplicates = property(lambda self: int(self.counters[2]), doc="Inputs left out because an earlier row has the same site.")
    num_outputs_over = property(lambda self: int(self.counters[3]), doc="Outputs left out because of the capacity.")


def sparse_indices(
    coords: Any,
    grid: Grid | tuple[int, int, int],
    kernel_size: int | tuple[int, int, int],
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    *,
    submanifold: bool = False,
    batch_size: int = 1,
    capacity: int | None = None,
) -> SparseIndices:
    """Outputs of a sparse convolution and the table of inputs that each of them sums over.

    coords       (N, 4) int32  batch, z, y, x of the inputs, in any order; or (N, 3) z, y, x. A row of -1 is no site: it is passed over
    grid         cells of the input along z, y, x, or a `Grid`; fewer than 2^22 along x, on a GPU fewer than 2^34 in the whole batch
    kernel_size, stride, padding  along z, y, x, or one number for all three
    submanifold  outputs only where there are inputs, in the rows of the inputs; the kernel is odd and centred; no stride, no padding
    capacity     rows of the result (not with submanifold): those behind `num_outputs` are -1, what does not fit is counted; on a GPU
                 nothing then waits for a count. None: as many rows as there are outputs
    Without submanifold there is an output wherever the kernel touches an input, and outputs come by linear index: batch, then z, then y,
    then x. Of several inputs at one site the first counts; with submanifold the rows of the others stay empty (-1). All is exact, the same
    on any number of threads and on the GPU. Empty: no rows.
    Raises ValueError for a wrong shape, dtype, device or number. Source: the rules of Graham et al. 2018 (submanifold sparse convolutional
    networks); the table is by output, not by pair as in spconv, so that sums need no atomics.
    """
    shape = _three("grid", grid.shape if isinstance(grid, Grid) else grid, 1)
    kernel = _three("kernel_size", kernel_size, 1)
    steps, margin = _three("stride", stride, 1), _three("padding", padding, 0)
    if submanifold:
        if any(k % 2 == 0 for k in kernel) or steps != [1, 1, 1] or margin != [0, 0, 0] or capacity is not None:
            raise ValueError(
                "sparse_indices: expected, with submanifold, an odd kernel_size and no stride, padding or capacity, "
                f"got kernel_size={kernel_size}, stride={stride}, padding={padding}, capacity={capacity}"
            )
        margin = [k // 2 for k in kernel]
    out = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, steps, margin, strict=True)]
    if min(out) < 1:
        raise ValueError(f"sparse_indices: grid: expected at least kernel_size - 2 * padding cells, got {tuple(shape)}: no output fits")
    batch_size, capacity = plain(batch_size), plain(capacity)
    for name, value, least in (("batch_size", batch_size, 1), ("capacity", 0 if capacity is None else capacity, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
            raise ValueError(f"sparse_indices: {name}: expected an integer from {least} to 2^31 - 1, got {value!r}")
    space_of("sparse_indices", coords=coords)
    axes = [*shape, *kernel, *steps, *margin]
    out_coords, table, counters = dispatch("sparse_indices", _sparse_indices, coords, batch_size, axes, submanifold, capacity)
    return SparseIndices(out_coords, table, (out[0], out[1], out[2]), counters)


def _sparse_indices(coords: Any, batch_size: int, axes: list[int], submanifold: bool, capacity: int | None) -> tuple[Any, Any, Any]:
    """axes: cells, kernel, stride and padding, each along z, y, x."""
    space = space_of("sparse_indices", coords=coords)
    coords = space.take("coords", coords, ("N", "3 or 4"), "int32", "int64")
    count, columns = coords.shape
    if columns not in (3, 4):
        raise ValueError(f"coords: expected shape (N, 4): batch, z, y, x or (N, 3): z, y, x, got {tuple(coords.shape)}")
    expect_rows("coords", count)
    shape, kernel, stride, padding = axes[:3], axes[3:6], axes[6:9], axes[9:]
    out = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding, strict=True)]
    _expect_cells(space, shape, out, batch_size)
    taps, counters = math.prod(kernel), space.zeros((4,), "int64")
    geometry = (coords, count, columns, batch_size, *axes)
    if submanifold:
        table = space.empty((count, taps), "int32")
        space.call("sparse_table", *geometry, None, count, None, table, counters)
        out_coords = space.empty((count, columns), "int32")
        out_coords[:] = coords  # a copy: what is registered with torch must not give back its argument
        return out_coords, table, counters
    # An input is seen through at most ceil(kernel / stride) taps along each axis.
    most = count * math.prod(-(-k // s) for k, s in zip(kernel, stride, strict=True))
    rows = min(most, batch_size * math.prod(out)) if capacity is None else capacity
    expect_rows("sparse_indices: outputs", rows)
    cells = space.empty((rows,), "int64")
    space.call("sparse_outputs", *geometry, rows, cells, counters)
    if capacity is None:
        rows = space.numbers(counters)[0]
    out_coords, table = space.empty((rows, columns), "int32"), space.empty((rows, taps), "int32")
    space.call("sparse_table", *geometry, cells, rows, out_coords, table, counters)
    return out_coords, table, counters


def _expect_cells(space: Space, shape: list[int], out: list[int], batch_size: int) -> None:
    cells, most = batch_size * max(math.prod(shape), math.prod(out)), _MOST_CELLS_ON_GPU if space.on_gpu else _MOST_CELLS
    if cells >= most:
        raise ValueError(f"sparse_indices: grid: expected fewer than 2^{most.bit_length() - 1} cells in the batch, got {cells:.3g}")
    width = max(shape[2], out[2])
    if width >= _MOST_WIDTH:
        raise ValueError(f"sparse_indices: grid: expected fewer than 2^22 cells along x, got {width}")


def _three(name: str, value: Any, least: int) -> list[int]:
    value = plain(value)
    numbers = [plain(n) for n in value] if isinstance(value, list | tuple | np.ndarray) else [value] * 3
    if len(numbers) != 3 or any(isinstance(n, bool) or not isinstance(n, int) or not least <= n < 2**31 for n in numbers):
        raise ValueError(f"sparse_indices: {name}: expected integers from {least} along z, y, x, got {value}")
    return numbers
