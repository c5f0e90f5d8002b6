"""The inner loop of fusion, compiled by numba: which points of a cloud the cameras see within a mask."""

import numba
import numpy as np
from numba import types

_POINTS = types.Array(types.float32, 2, "A", readonly=True)  # takes any layout, and writable arrays too
_INT64 = types.int64[::1]


@numba.njit(cache=True, nogil=True)
def _larger(values: np.ndarray, capacity: int) -> np.ndarray:
    more = np.empty(capacity, values.dtype)
    more[: len(values)] = values
    return more


@numba.njit(
    types.Tuple((_INT64, _INT64, _INT64, types.float64[::1]))(
        _POINTS, types.float64[:, :, ::1], types.int64[:, ::1], _INT64, _INT64, _INT64, _INT64, _INT64
    ),
    cache=True,
    nogil=True,  # so that one thread fuses while another one works on the frame before
)
def find_members(
    points: np.ndarray,
    lidar_to_pixels: np.ndarray,
    size: np.ndarray,
    first_column: np.ndarray,
    column_begin: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    instance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each point in each camera that sees it within a mask: row of the point, piece of mask, row of the pixel, depth; ordered by point, then camera.

    See `perception.fusion.members`. In float64, without fused operations: the same bits on every machine.
    """
    capacity = max(1024, points.shape[0] // 4)
    point, piece, row = np.empty(capacity, np.int64), np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    depth = np.empty(capacity, np.float64)
    count = 0
    for i in range(points.shape[0]):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        for k in range(lidar_to_pixels.shape[0]):
            m = lidar_to_pixels[k]
            d = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
            if not d > 0:  # behind the camera, or NaN
                continue
            px = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
            # Quotients of two numbers compare as the numbers do: most points are out without a division.
            if not (px >= d and px < size[k, 0] * d):
                continue
            py = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
            if not (py >= d and py < size[k, 1] * d):
                continue
            u, v = np.int64(px / d), np.int64(py / d)
            if u >= size[k, 0] or v >= size[k, 1]:  # rounded up
                continue
            column = first_column[k] + u
            for s in range(column_begin[column], column_begin[column + 1]):
                if top[s] <= v and v < bottom[s]:
                    if count == capacity:
                        capacity *= 2
                        point, piece, row = _larger(point, capacity), _larger(piece, capacity), _larger(row, capacity)
                        depth = _larger(depth, capacity)
                    point[count], piece[count], row[count], depth[count] = i, s, v, d
                    count += 1
                    break
    return point[:count], piece[:count], row[:count], depth[:count]
