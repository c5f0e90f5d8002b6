"""Upright boxes: overlap, and the points inside them."""

from typing import Any, NamedTuple

from cuda_ops.arrays import Space, expect_rows, space_of
from cuda_ops.dispatch import dispatch


class PointsInBoxes(NamedTuple):
    """Which points lie in which boxes.

    index  (N,) int32  the first box that holds the point, else -1
    count  (M,) int32  points inside each box; a point inside several boxes counts for each of them
    """

    index: Any
    count: Any


def iou_bev(boxes_a: Any, boxes_b: Any) -> Any:
    """Intersection over union of boxes seen from above, every one of `boxes_a` with every one of `boxes_b`.

    boxes_a  (N, 7) x, y, z, length, width, height, yaw or (N, 5) x, y, length, width, yaw; float32 or float64, metres and radians
    boxes_b  (M, 7) or (M, 5)
    Returns (N, M) float64. Exact clipping in float64 in the frame of one of the boxes: errors of some 1e-15, of thin
    boxes times length over width, anywhere in the world. Boxes that touch: 0. Identical ones: exactly 1, never above. A box with a NaN or
    infinite number or a size that is not above 0: 0 with everything, itself included. Both orders of the arguments give the same bits.
    z and height play no part. Empty: no rows or columns.
    Raises ValueError for a wrong shape, dtype or device.
    """
    space_of("iou_bev", boxes_a=boxes_a, boxes_b=boxes_b)
    return dispatch("iou_bev", _iou_bev, boxes_a, boxes_b)


def iou_3d(boxes_a: Any, boxes_b: Any) -> Any:
    """Intersection over union of the volumes of boxes, every one of `boxes_a` with every one of `boxes_b`.

    boxes_a  (N, 7) x, y, z (centre), length, width, height, yaw; float32 or float64, metres and radians
    boxes_b  (M, 7)
    Returns (N, M) float64; everything else as in `iou_bev`.
    """
    space_of("iou_3d", boxes_a=boxes_a, boxes_b=boxes_b)
    return dispatch("iou_3d", _iou_3d, boxes_a, boxes_b)


def points_in_boxes(points: Any, boxes: Any, *, point_group: Any = None, box_group: Any = None) -> PointsInBoxes:
    """For each point the first box that holds it, and for each box how many points it holds.

    points  (N, C) float32, C >= 3     x, y, z in metres in the frame of the boxes, then anything
    boxes   (M, 7) float32 or float64  x, y, z (centre), length, width, height, yaw
    point_group  (N,) int32 or int64   group (sample) of each point; a point lies in boxes of its own group only, below 0 in none.
                                       Numbers below 2^31 - 1: larger ones count as that one
    box_group    (M,) int32 or int64   of each box; both or neither. In any order, but quick on a GPU where neighbours have the same
    Borders belong to the box. A point with a NaN or infinite coordinate is in no box; a box with a NaN or infinite number or a size that
    is not above 0 holds nothing. Arithmetic is float64. Empty: index all -1, or count all 0.
    Raises ValueError for a wrong shape, dtype or device, and for groups of one side only. (OpenPCDet leaves the borders in x and y out, and
    adds 1 cm to the boxes on the CPU but not on the GPU.)
    """
    space_of("points_in_boxes", points=points, boxes=boxes, point_group=point_group, box_group=box_group)
    return PointsInBoxes(*dispatch("points_in_boxes", _points_in_boxes, points, boxes, point_group, box_group))


def take_boxes(space: Space, name: str, boxes: Any, columns: tuple[int, ...]) -> Any:
    """`boxes` as contiguous float64 rows of one of `columns` numbers."""
    boxes = space.take(name, boxes, ("N", " or ".join(map(str, columns))), "float64", "float32")
    if boxes.shape[1] not in columns:
        fields = {5: "x, y, length, width, yaw", 7: "x, y, z, length, width, height, yaw"}
        text = " or ".join(f"(N, {n}): {fields[n]}" for n in columns)
        raise ValueError(f"{name}: expected shape {text}, got {tuple(boxes.shape)}")
    expect_rows(name, len(boxes))
    return boxes


def _iou_bev(boxes_a: Any, boxes_b: Any) -> Any:
    space = space_of("iou_bev", boxes_a=boxes_a, boxes_b=boxes_b)
    a, b = take_boxes(space, "boxes_a", boxes_a, (5, 7)), take_boxes(space, "boxes_b", boxes_b, (5, 7))
    iou = space.empty((len(a), len(b)), "float64")
    space.call("iou_bev", a, *a.shape, b, *b.shape, iou)
    return iou


def _iou_3d(boxes_a: Any, boxes_b: Any) -> Any:
    space = space_of("iou_3d", boxes_a=boxes_a, boxes_b=boxes_b)
    a, b = take_boxes(space, "boxes_a", boxes_a, (7,)), take_boxes(space, "boxes_b", boxes_b, (7,))
    iou = space.empty((len(a), len(b)), "float64")
    space.call("iou_3d", a, len(a), b, len(b), iou)
    return iou


def _points_in_boxes(points: Any, boxes: Any, point_group: Any = None, box_group: Any = None) -> tuple[Any, Any]:
    space = space_of("points_in_boxes", points=points, boxes=boxes, point_group=point_group, box_group=box_group)
    if (point_group is None) != (box_group is None):
        raise ValueError("points_in_boxes: expected point_group and box_group, or neither, got one of them")
    points = space.take("points", points, ("N", "C"), "float32")
    if points.shape[1] < 3:
        raise ValueError(f"points: expected at least the columns x, y, z, got shape {tuple(points.shape)}")
    expect_rows("points", len(points))
    boxes = take_boxes(space, "boxes", boxes, (7,))
    if point_group is not None:
        point_group = space.take("point_group", point_group, (len(points),), "int32", "int64")
        box_group = space.take("box_group", box_group, (len(boxes),), "int32", "int64")
    index, count = space.empty((len(points),), "int32"), space.empty((len(boxes),), "int32")
    space.call("points_in_boxes", points, *points.shape, point_group, boxes, len(boxes), box_group, index, count)
    return index, count
