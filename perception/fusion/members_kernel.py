"""The inner loop of fusion, compiled by numba: which points of a cloud the cameras see within a mask."""

import numpy as np
from numba import types

from perception.core.compiled import compiled

_POINTS = types.Array(types.float32, 2, "A", readonly=True)  # takes any layout, and writable arrays too
_INT64, _FLOAT64 = types.int64[::1], types.float64[::1]
_BLOCK = 512  # points at a time, so that what is known of them stays in the nearest cache


@compiled(nogil=True, error_model="numpy")
def _look(
    m: np.ndarray, width: float, height: float, length: int, x: np.ndarray, y: np.ndarray, z: np.ndarray, is_seen: np.ndarray
) -> None:
    """Which points a camera sees. Without branches and divisions, so that it works on several points at a time.

    Quotients of two numbers compare as the numbers do: px / d >= 1 where px >= d.
    """
    a, b, c, e = m[0, 0], m[0, 1], m[0, 2], m[0, 3]
    f, g, h, i = m[1, 0], m[1, 1], m[1, 2], m[1, 3]
    o, p, q, r = m[2, 0], m[2, 1], m[2, 2], m[2, 3]
    for j in range(length):
        d = o * x[j] + p * y[j] + q * z[j] + r
        px, py = a * x[j] + b * y[j] + c * z[j] + e, f * x[j] + g * y[j] + h * z[j] + i
        is_seen[j] = (d > 0) & (px >= d) & (px < width * d) & (py >= d) & (py < height * d)  # none of it for NaN


@compiled(
    types.int64(
        _POINTS,
        types.float64[:, :, ::1],
        types.int64[:, ::1],
        _INT64,
        _INT64,
        _INT64,
        _INT64,
        _INT64,
        _INT64,
        _INT64,
        _FLOAT64,
    ),
    error_model="numpy",  # no test for a division by zero: depths are above it
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
    point: np.ndarray,
    piece: np.ndarray,
    row: np.ndarray,
    depth: np.ndarray,
) -> int:
    """Each point in each camera that sees it within a mask, ordered by point, then camera; returns how many there are.

    point, piece, row, depth  are written to: row of the point, piece of a mask, row of the pixel, depth. Where there are more than these
                              have room for, the first ones are written
    The rest as in `perception.fusion.members`. In float64, without fused operations: the same bits on every machine.
    """
    capacity, num_cameras, m = len(point), lidar_to_pixels.shape[0], lidar_to_pixels
    x, y, z = np.empty(_BLOCK, np.float64), np.empty(_BLOCK, np.float64), np.empty(_BLOCK, np.float64)
    is_seen = np.empty((num_cameras, _BLOCK), np.bool_)
    count = 0
    for start in range(0, points.shape[0], _BLOCK):
        length = min(_BLOCK, points.shape[0] - start)
        for j in range(length):
            x[j], y[j], z[j] = points[start + j, 0], points[start + j, 1], points[start + j, 2]
        for k in range(num_cameras):
            _look(m[k], float(size[k, 0]), float(size[k, 1]), length, x, y, z, is_seen[k])
        for j in range(length):
            for k in range(num_cameras):
                if not is_seen[k, j]:
                    continue
                d = m[k, 2, 0] * x[j] + m[k, 2, 1] * y[j] + m[k, 2, 2] * z[j] + m[k, 2, 3]
                u = np.int64((m[k, 0, 0] * x[j] + m[k, 0, 1] * y[j] + m[k, 0, 2] * z[j] + m[k, 0, 3]) / d)
                v = np.int64((m[k, 1, 0] * x[j] + m[k, 1, 1] * y[j] + m[k, 1, 2] * z[j] + m[k, 1, 3]) / d)
                if u >= size[k, 0] or v >= size[k, 1]:  # rounded up
                    continue
                column = first_column[k] + u
                for s in range(column_begin[column], column_begin[column + 1]):
                    if top[s] <= v and v < bottom[s]:
                        if count < capacity:
                            point[count], piece[count], row[count], depth[count] = start + j, s, v, d
                        count += 1
                        break
    return count
