"""Rows of points reduced by voxel, with gradients: what networks on pillars and dynamic voxels stand on."""

import sys
from typing import Any, NamedTuple

import numpy as np

from cuda_ops.arrays import Space, expect_rows, space_of
from cuda_ops.dispatch import dispatch


class ScatterMax(NamedTuple):
    """The largest value of each voxel, column by column.

    values  (size, C) dtype of the input  0 where the voxel has no row
    argmax  (size, C) int32               row of the value, -1 where the voxel has no row
    """

    values: Any
    argmax: Any


class ScatterMean(NamedTuple):
    """The mean of each voxel, column by column.

    values  (size, C) dtype of the input  0 where the voxel has no row
    count   (size,) int32                 rows of the voxel
    """

    values: Any
    count: Any


def scatter_max(values: Any, index: Any, size: int) -> ScatterMax:
    """For each voxel and column the largest value among the voxel's rows, and the row that has it.

    values  (N, C) float32 or float64, N < 2^31
    index   (N,) int32 or int64  voxel of each row, as `voxel_of_point` of the voxelizations; -1, and any number outside of
                                 0..size - 1, leaves the row out
    size    number of voxels, 0 to 2^31 - 1
    Ties, and 0 beside -0, go to the lower row. NaN counts as larger than everything, as in torch's amax: the first NaN wins. Infinities are
    values like others. A voxel without rows: 0 and -1, as in the scatter layers of OpenPCDet and mmdetection3d. Empty inputs: no rows, or
    every voxel without rows.
    The gradient of a maximum goes to the row in `argmax` alone (torch's amax shares it among ties); rows left out get 0. Values and
    gradients have the same bits in every run, on any number of threads and on the GPU. Rows that are sorted by voxel already are quicker.
    Raises ValueError for a wrong shape, dtype, device or size.
    Source: DynamicScatter of mmdetection3d, scatter_max of torch_scatter.
    """
    return ScatterMax(*dispatch("scatter_max", _scatter_max, *_checked("scatter_max", values, index, size)))


def scatter_mean(values: Any, index: Any, size: int) -> ScatterMean:
    """For each voxel and column the mean of the voxel's rows.

    values, index, size  as in `scatter_max`
    Sums are taken in the dtype of the values, in the order of the rows: the same bits in every run, on any number of threads and on the
    GPU. (In float32 a sum of n rows of like sign is off by up to n * 6e-8 of itself, as with a plain loop.) NaN and infinities follow the
    arithmetic, in their voxel and column only. A voxel without rows: 0 and a count of 0.
    The gradient of a mean is shared equally by the voxel's rows; rows left out get 0. Speed and errors as in `scatter_max`.
    Source: DynamicScatter of mmdetection3d, scatter_mean of torch_scatter.
    """
    return ScatterMean(*dispatch("scatter_mean", _scatter_mean, *_checked("scatter_mean", values, index, size)))


def _checked(operator: str, values: Any, index: Any, size: Any) -> tuple[Any, Any, Any]:
    """The arguments; raises ValueError for mixed devices and for a size that is no integer. Its range is looked at in the body: while a
    call is traced, size may be a symbol (a number of voxels that only the data tell)."""
    space_of(operator, values=values, index=index)
    torch = sys.modules.get("torch")
    is_symbol = torch is not None and isinstance(size, torch.SymInt)
    if isinstance(size, bool) or not (is_symbol or isinstance(size, int | np.integer)):
        raise ValueError(f"{operator}: size: expected an integer from 0 to 2^31 - 1, got {size!r}")
    return values, index, int(size) if isinstance(size, np.integer) else size


def _take(operator: str, values: Any, index: Any, size: int) -> tuple[Space, Any, Any, str]:
    """Space, rows, index and the name of the rows' dtype."""
    space = space_of(operator, values=values, index=index)
    if not 0 <= size < 2**31:
        raise ValueError(f"{operator}: size: expected an integer from 0 to 2^31 - 1, got {size}")
    values, dtype = _take_floats(space, "values", values, ("N", "C"))
    expect_rows("values", len(values))
    return space, values, space.take("index", index, (len(values),), "int32", "int64"), dtype


def _take_floats(space: Space, name: str, values: Any, shape: tuple[int | str, ...]) -> tuple[Any, str]:
    """`values` contiguous in the dtype that they have, and its name."""
    dtypes = ("float64", "float32") if str(getattr(values, "dtype", "")).endswith("float64") else ("float32", "float64")
    return space.take(name, values, shape, *dtypes), dtypes[0]


def _scatter_max(values: Any, index: Any, size: int) -> tuple[Any, Any]:
    space, values, index, dtype = _take("scatter_max", values, index, size)
    shape = (size, values.shape[1])
    best, argmax = space.empty(shape, dtype), space.empty(shape, "int32")
    space.call(f"scatter_max_{dtype}", values, *values.shape, index, size, best, argmax)
    return best, argmax


def _scatter_mean(values: Any, index: Any, size: int) -> tuple[Any, Any]:
    space, values, index, dtype = _take("scatter_mean", values, index, size)
    mean, count = space.empty((size, values.shape[1]), dtype), space.empty((size,), "int32")
    space.call(f"scatter_mean_{dtype}", values, *values.shape, index, size, mean, count)
    return mean, count


def _scatter_max_grad(grad: Any, index: Any, argmax: Any) -> Any:
    """Gradient of the values of `_scatter_max`: row i takes grad[index[i], c] where argmax[index[i], c] is i. A gather, so that no two
    threads add to one number."""
    space = space_of("scatter_max_grad", grad=grad, index=index, argmax=argmax)
    grad, dtype = _take_floats(space, "grad", grad, ("size", "C"))
    index, argmax = space.take("index", index, ("N",), "int32", "int64"), space.take("argmax", argmax, tuple(grad.shape), "int32")
    grad_values = space.empty((len(index), grad.shape[1]), dtype)
    space.call(f"scatter_max_grad_{dtype}", grad, *grad.shape, index, len(index), argmax, grad_values)
    return grad_values


def _scatter_mean_grad(grad: Any, index: Any, count: Any) -> Any:
    """Gradient of the values of `_scatter_mean`: row i takes grad[index[i]] / count[index[i]]."""
    space = space_of("scatter_mean_grad", grad=grad, index=index, count=count)
    grad, dtype = _take_floats(space, "grad", grad, ("size", "C"))
    index, count = space.take("index", index, ("N",), "int32", "int64"), space.take("count", count, (len(grad),), "int32")
    grad_values = space.empty((len(index), grad.shape[1]), dtype)
    space.call(f"scatter_mean_grad_{dtype}", grad, *grad.shape, index, len(index), count, grad_values)
    return grad_values
