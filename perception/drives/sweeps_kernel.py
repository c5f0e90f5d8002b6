"""The inner loop of sweep accumulation, compiled by numba: one pass over the points of a sweep."""

import numpy as np
from numba import types

from perception.core.compiled import compiled

CLOSE = 1.0  # metres: half the side of the square around the lidar in which it sees the ego vehicle's own roof
_READ_ONLY = types.Array(types.float32, 2, "C", readonly=True)  # takes writable arrays too


@compiled(
    types.int64(_READ_ONLY, types.float64[:, ::1], types.float64, types.float32[:, ::1]),
    nogil=True,  # so that frames are accumulated in one thread while another works on the one before
)
def move_points(points: np.ndarray, a_to_b: np.ndarray, age: float, out: np.ndarray) -> int:
    """Write the points of frame a that are not on the roof, in frame b and with this age, to the first rows of `out`; returns how many.

    points, out  (N, 5) float32, (N or more, 5) float32, C order; `out` is other memory
    a_to_b       (4, 4) float64 homogeneous matrix
    Computed in float64 and rounded once, without fused operations: the same bits on every machine, which BLAS does not promise.
    """
    count = 0
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        if abs(x) < CLOSE and abs(y) < CLOSE:
            continue
        for axis in range(3):
            out[count, axis] = a_to_b[axis, 0] * x + a_to_b[axis, 1] * y + a_to_b[axis, 2] * z + a_to_b[axis, 3]
        out[count, 3] = points[i, 3]
        out[count, 4] = age
        count += 1
    return count
