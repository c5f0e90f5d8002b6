"""The nearest point of the same group: how a pixel of an instance finds its lidar depth."""

from typing import Any, NamedTuple

from cuda_ops.arrays import expect_rows, space_of
from cuda_ops.dispatch import dispatch


class NearestInGroup(NamedTuple):
    """The nearest point of each query.

    index             (Q,) int32    row of the point, -1 where there is none
    squared_distance  (Q,) float64  to it, in squared units of the input; inf where there is none
    """

    index: Any
    squared_distance: Any


def nearest_in_group(queries: Any, query_group: Any, points: Any, point_group: Any) -> NearestInGroup:
    """For each query the nearest of the points that belong to its group.

    queries      (Q, 2) float32 or float64  x, y; for virtual points the column and row of a pixel
    query_group  (Q,) int32 or int64        group (instance) of each query, any number
    points       (P, 2) float32 or float64  in the axes and units of the queries
    point_group  (P,) int32 or int64
    Distances are dx * dx + dy * dy in float64, each operation rounded by itself, so the CPU and the GPU give the same bits and pixels with
    whole coordinates have exact distances. Equally near points: the lowest row. A query without a point in its group, or with a NaN or
    infinite coordinate: -1 and inf. A point with a NaN or infinite coordinate is never found. Finite numbers so large that the distance
    overflows are inf apart: of points that are all so far, the lowest row. Empty: no rows, or all -1.
    Meant for groups of up to some thousand points, which are searched whole. Raises ValueError for a wrong shape, dtype or device.

    Source: MVP's `add_virtual_mask`. It works in float32 on (column, row, 10,000 * instance), so that other instances lie beyond its limit
    of 3,000 pixels, and leaves the choice between equally near points open. Here groups are compared as numbers and there is no limit. For
    whole pixels of an image below 4,096 x 4,096 the order of distances is the same.
    """
    space_of("nearest_in_group", queries=queries, query_group=query_group, points=points, point_group=point_group)
    return NearestInGroup(*dispatch("nearest_in_group", _nearest_in_group, queries, query_group, points, point_group))


def _nearest_in_group(queries: Any, query_group: Any, points: Any, point_group: Any) -> tuple[Any, Any]:
    space = space_of("nearest_in_group", queries=queries, query_group=query_group, points=points, point_group=point_group)
    queries = space.take("queries", queries, ("Q", 2), "float64", "float32")
    points = space.take("points", points, ("P", 2), "float64", "float32")
    expect_rows("queries", len(queries))
    expect_rows("points", len(points))
    query_group = space.take("query_group", query_group, (len(queries),), "int64", "int32")
    point_group = space.take("point_group", point_group, (len(points),), "int64", "int32")
    index, squared_distance = space.empty((len(queries),), "int32"), space.empty((len(queries),), "float64")
    space.call("nearest_in_group", queries, query_group, len(queries), points, point_group, len(points), index, squared_distance)
    return index, squared_distance
