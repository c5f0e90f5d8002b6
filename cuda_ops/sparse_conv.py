"""The arithmetic of sparse convolutions: sums over the neighbours that a table names. Who the neighbours are is decided elsewhere."""

import importlib
import math
import sys
from typing import Any

from cuda_ops.arrays import Space, expect_rows, plain, space_of
from cuda_ops.dispatch import dispatch


def transpose_table(table: Any, num_inputs: int) -> Any:
    """The table of a convolution from the side of its inputs.

    table       (M, K) int32  for each output row and kernel offset the input row, or a negative number for none
    num_inputs  rows of the input, N
    Returns (N, K) int32: for each input row and offset the output row that it goes to, or -1. It is the table of the gradient with respect
    to the features. For a submanifold convolution it is `table` with its columns in reverse order.
    An input row may stand only once at an offset, as in every table that a convolution gives. On the CPU, one that stands twice, or that is
    not below N, is a ValueError. On a GPU, where a check would have to wait for the device, rows from N on count as none, and which of two
    stays is undefined. Empty: no rows, or all -1. Raises ValueError for a wrong shape, dtype or device.
    """
    space_of("transpose_table", table=table)
    return dispatch("transpose_table", _transpose_table, table, plain(num_inputs))


def sparse_conv(
    features: Any, weight: Any, table: Any, *, bias: Any = None, residual: Any = None, relu: bool = False, transposed: Any = None
) -> Any:
    """A sparse convolution: for each output row the sum over its neighbours of weight times features.

    features    (N, C_in) float32 or float64; on a GPU also float16 and bfloat16  one row for each input site
    weight      (C_out, KZ, KY, KX, C_in)  in the dtype of the features, the layout of spconv 2
    table       (M, K) int32, K = KZ * KY * KX  for each output row and kernel offset k = (kz * KY + ky) * KX + kx the input row, or a
                negative number for none; an input row stands at most once at an offset
    bias        (C_out,) or None     added to each row
    residual    (M, C_out) or None   added after the bias
    relu        numbers below 0 become 0 in the end; NaN stays NaN
    transposed  (N, K) int32 or None  `transpose_table(table, N)` where it is known; otherwise the gradient works it out
    Returns (M, C_out): row o is sum over k of weight[:, k] @ features[table[o, k]], in the dtype of the features.

    Each sum runs offset by offset and channel by channel: in float32 (float64 for float64) on the CPU, with fused multiply-add where the
    processor has it, so that two processors may differ in the last bits; the same bits in every run and on any number of threads. On a GPU
    sums are float32 without tf32, blocks of channels at a time: the same bits in every run, not those of the CPU. The kernels there are
    Triton's; where Triton is not installed, and for float64, plain torch does the same offset by offset, several times slower.
    NaN and infinities reach the rows whose neighbours have them and no others. Empty: without inputs, or neighbours, bias and residual
    alone. Differentiable with respect to features, weight, bias and residual, twice.
    Raises ValueError for a wrong shape, dtype or device and, on the CPU, for an input row from N on; on a GPU that counts as none.
    """
    space_of("sparse_conv", features=features, weight=weight, table=table, bias=bias, residual=residual, transposed=transposed)
    return dispatch("sparse_conv", _sparse_conv, features, weight, table, bias, residual, transposed, relu)


def sparse_conv_weight_gradient(features: Any, gradient: Any, table: Any) -> tuple[Any, Any]:
    """What the weight and the bias of a sparse convolution get from the gradient of its output.

    features  (N, C_in)   the input of the convolution, see `sparse_conv`
    gradient  (M, C_out)  of the output, before the ReLU; in the dtype of the features
    table     (M, K) int32
    Returns the gradient of the weight (C_out, K, C_in), the sum over o of gradient[o] times features[table[o, k]], and of the bias
    (C_out,). Rows are summed in blocks whose borders depend on their number alone: the same bits in every run and on any number of threads.
    Errors and everything else as in `sparse_conv`.
    """
    space_of("sparse_conv_weight_gradient", features=features, gradient=gradient, table=table)
    return dispatch("sparse_conv_weight_gradient", _sparse_conv_weight_gradient, features, gradient, table)


def _transpose_table(table: Any, num_inputs: int) -> Any:
    space = space_of("transpose_table", table=table)
    if isinstance(num_inputs, bool) or not isinstance(num_inputs, int) or not 0 <= num_inputs < 2**31:
        raise ValueError(f"transpose_table: num_inputs: expected an integer from 0 to 2^31 - 1, got {num_inputs!r}")
    table = _take_table(space, "table", table, ("M", "K"))
    transposed = space.empty((num_inputs, table.shape[1]), "int32")
    space.call("transpose_table", table, *table.shape, num_inputs, transposed)
    return transposed


def _sparse_conv(features: Any, weight: Any, table: Any, bias: Any, residual: Any, transposed: Any, relu: bool) -> Any:
    space = space_of("sparse_conv", features=features, weight=weight, table=table, bias=bias, residual=residual, transposed=transposed)
    dtype, features = _take_features(space, features)
    weight = space.take("weight", weight, ("C_out", "KZ", "KY", "KX", features.shape[1]), dtype)
    rows, offsets, channels = len(features), math.prod(weight.shape[1:4]), len(weight)
    _expect_offsets(offsets)
    table = _take_table(space, "table", table, ("M", offsets))
    bias = None if bias is None else space.take("bias", bias, (channels,), dtype)
    residual = None if residual is None else space.take("residual", residual, (len(table), channels), dtype)
    if transposed is not None:
        _take_table(space, "transposed", transposed, (rows, offsets))
    if space.on_gpu:
        matrices = weight.reshape(channels, offsets, features.shape[1])
        return _run_on_gpu("sparse_conv", space, features, matrices, table, bias, residual, relu)
    out = space.empty((len(table), channels), dtype)
    sizes = (channels, offsets)
    space.call(f"sparse_conv_{dtype}", features, *features.shape, weight, *sizes, table, len(table), bias, residual, relu, out)
    return out


def _sparse_conv_weight_gradient(features: Any, gradient: Any, table: Any) -> tuple[Any, Any]:
    space = space_of("sparse_conv_weight_gradient", features=features, gradient=gradient, table=table)
    dtype, features = _take_features(space, features)
    table = _take_table(space, "table", table, ("M", "K"))
    rows, offsets = table.shape
    _expect_offsets(offsets)
    gradient = space.take("gradient", gradient, (rows, "C_out"), dtype)
    channels = gradient.shape[1]
    if space.on_gpu:
        return _run_on_gpu("sparse_conv_weight_gradient", space, features, gradient, table)
    to_weight, to_bias = space.empty((channels, offsets, features.shape[1]), dtype), space.empty((channels,), dtype)
    sizes = (channels, offsets)
    space.call(f"sparse_conv_weight_gradient_{dtype}", features, *features.shape, gradient, *sizes, table, rows, to_weight, to_bias)
    return to_weight, to_bias


def _take_features(space: Space, features: Any) -> tuple[str, Any]:
    dtypes = ("float32", "float64", "float16", "bfloat16") if space.on_gpu else ("float32", "float64")
    given = str(getattr(features, "dtype", "")).removeprefix("torch.")
    features = space.take("features", features, ("N", "C_in"), *([given] if given in dtypes else dtypes))
    expect_rows("features", len(features))
    return str(features.dtype).removeprefix("torch."), features


def _expect_offsets(offsets: int) -> None:
    if offsets < 1:
        raise ValueError("weight, table: expected a kernel of at least one cell, got none")


def _take_table(space: Space, name: str, table: Any, shape: tuple[int | str, ...]) -> Any:
    table = space.take(name, table, shape, "int32")
    expect_rows(name, len(table))
    return table


def _run_on_gpu(name: str, space: Any, features: Any, *arguments: Any) -> Any:
    with sys.modules["torch"].cuda.device(space.device):
        return getattr(_kernels(features), name)(features, *arguments)


def _kernels(features: Any) -> Any:
    """The module of the Triton kernels, or that of plain torch where Triton is missing and for float64."""
    if features.element_size() < 8:
        try:
            return importlib.import_module("cuda_ops.sparse_triton")
        except ImportError:
            pass
    return importlib.import_module("cuda_ops.sparse_torch")
