"""Samples of a feature map between its cells."""

import math
import sys
from typing import Any

from cuda_ops.arrays import Space, space_of
from cuda_ops.dispatch import dispatch


def gather_bilinear(feature_map: Any, xy: Any, batch_index: Any = None) -> Any:
    """Features of a bird's-eye map at places between its cells, by bilinear interpolation.

    feature_map  (B, C, H, W) float32 or float64; float16; bfloat16 (torch)  as a network gives it, in any memory layout: nothing is copied,
                 and samples come fastest where the channels of a cell lie side by side (torch's channels_last)
    xy           (N, 2) float32 or float64  column and row, in cells: (metres - lower limit) / voxel size / stride. Whole numbers are
                 the values of a cell: there is no shift by half a cell, as in the published networks
    batch_index  (N,) int32 or int64        map of each place, 0..B - 1; may be left out where B is 1
    Returns (N, C) in the dtype of the map. Arithmetic is float32 (float64 for a float64 map; `xy` is converted to it), in the published
    order and without fused operations: the same bits on any number of threads and on the GPU.

    Places outside: the value is between the cells floor(x) and floor(x) + 1 of the rows floor(y) and floor(y) + 1. Where one of these is
    not on the map, the published code clamps the index but computes the weights from the clamped indices, which then cancel: it gives 0 but
    for rounding. Here it is exactly 0, also ON the last column and row (x = W - 1). The same for a NaN or infinite place and for a
    batch_index that does not exist. A NaN or infinite value in a map reaches every place that touches its cell, also with weight 0.
    Empty: no rows.

    Gradients (torch) flow to `feature_map` and to `xy`, once (there is no second derivative); places outside get and give 0. They are sums
    in a fixed order: of a cell over its places by row, of a place over its channels in 32 strands, in float64. The gradient of the map has
    the map's memory layout where that has no gaps or overlaps.
    Raises ValueError for a wrong shape, dtype or device.
    Source: CenterPoint's second stage (`bird_eye_view.py`, `bilinear_interpolate_torch`).
    """
    space_of("gather_bilinear", feature_map=feature_map, xy=xy, batch_index=batch_index)
    return dispatch("gather_bilinear", _gather_bilinear, feature_map, xy, batch_index)


def _gather_bilinear(feature_map: Any, xy: Any, batch_index: Any) -> Any:
    space = space_of("gather_bilinear", feature_map=feature_map, xy=xy, batch_index=batch_index)
    dtype, feature_map, strides, xy, batch_index = _take(space, feature_map, xy, batch_index)
    out = space.empty((len(xy), feature_map.shape[1]), dtype)
    space.call(f"gather_bilinear_{dtype}", feature_map, *feature_map.shape, *strides, xy, batch_index, len(xy), out)
    return out


def _gather_bilinear_gradient(gradient: Any, feature_map: Any, xy: Any, batch_index: Any, for_map: bool, for_xy: bool) -> tuple[Any, Any]:
    """What reaches the map and the places from `gradient` (N, C); torch only. What is not asked for is empty."""
    space = space_of("gather_bilinear_gradient", gradient=gradient, feature_map=feature_map, xy=xy, batch_index=batch_index)
    torch, xy_dtype = sys.modules["torch"], xy.dtype
    dtype, feature_map, strides, xy, batch_index = _take(space, feature_map, xy, batch_index)
    gradient = space.take("gradient", gradient, (len(xy), feature_map.shape[1]), dtype)
    to_map = torch.zeros_like(feature_map) if for_map else feature_map.new_empty((0,))
    to_xy = torch.empty_like(xy) if for_xy else xy.new_empty((0,))
    inputs = (gradient, feature_map, *feature_map.shape, *strides, xy, batch_index, len(xy))
    to_strides = to_map.stride() if for_map else (0, 0, 0, 0)
    space.call(f"gather_bilinear_gradient_{dtype}", *inputs, to_map if for_map else None, *to_strides, to_xy if for_xy else None)
    return to_map, to_xy.to(xy_dtype)


def _take(space: Space, feature_map: Any, xy: Any, batch_index: Any) -> tuple[str, Any, tuple[int, ...], Any, Any]:
    """The dtype of the map, the map where it lies, its strides, and the others as the bodies want them."""
    feature_map, strides = space.take_strided("feature_map", feature_map, ("B", "C", "H", "W"), "float32", "float64", "float16", "bfloat16")
    samples, _, height, width = feature_map.shape
    if math.prod((samples, height, width)) >= 2**31:
        raise ValueError(f"feature_map: expected fewer than 2^31 cells in the batch, got {samples} x {height} x {width}")
    dtype = str(feature_map.dtype).removeprefix("torch.")
    xy = space.take("xy", xy, ("N", 2), *(("float64", "float32") if dtype == "float64" else ("float32", "float64")))
    if len(xy) >= 2**29:
        raise ValueError(f"xy: expected fewer than 2^29 rows, got {len(xy)}; cut it into pieces")
    if batch_index is not None:
        batch_index = space.take("batch_index", batch_index, (len(xy),), "int32", "int64")
    elif samples != 1:
        raise ValueError(f"batch_index: expected the map of each row of xy, because feature_map has {samples} maps, got None")
    return dtype, feature_map, strides, xy, batch_index
