"""Non-maximum suppression: of boxes or centres that are the same thing, the one with the best score."""

import math
from typing import Any

from cuda_ops.arrays import Space, expect_rows, plain, space_of
from cuda_ops.boxes import take_boxes
from cuda_ops.dispatch import dispatch


def nms_bev(
    boxes: Any, scores: Any, iou_threshold: float, max_out: int | None = None, *, group: Any = None, fixed_capacity: bool = False
) -> Any:
    """Boxes that stay when, best score first, each kept box drops the later ones that overlap it from above by more than the threshold.

    boxes          (N, 7) x, y, z, length, width, height, yaw or (N, 5) x, y, length, width, yaw; float32 or float64
    scores         (N,) float32 or float64
    iou_threshold  0..1; a box is dropped when its IoU (as in `iou_bev`, float64) with a kept one is ABOVE it
    max_out        keep at most so many boxes; of each group, where there are groups; None: all
    group          (N,) int32 or int64  class, task or sample, any numbers: boxes of different groups do not drop each other
    fixed_capacity  give N rows, those behind the last kept one -1: on a GPU nothing then waits for a count
    Returns (K,) int64 rows in the order of their scores, highest first, equal ones by row. A box whose score is NaN is never kept. A box
    with a NaN, an infinite number or no size overlaps nothing, so it is kept. Empty: no rows. A limit on the boxes that go in
    (`nms_pre_max_size`) is the caller's business; the one on those that come out is the same here as a cut at the end.
    Raises ValueError for a wrong shape, dtype, device or number.
    """
    iou_threshold = plain(iou_threshold)
    _expect_number("nms_bev: iou_threshold", iou_threshold, 1)
    space_of("nms_bev", boxes=boxes, scores=scores, group=group)
    limits = (_expect_limit("nms_bev", max_out), group, fixed_capacity)
    return dispatch("nms_bev", _nms_bev, boxes, scores, float(iou_threshold), *limits)


def nms_circle(
    centers: Any,
    scores: Any,
    radius: float | None = None,
    max_out: int | None = None,
    *,
    squared_radius: float | None = None,
    group: Any = None,
    fixed_capacity: bool = False,
) -> Any:
    """Centres that stay when, best score first, each kept one drops the later ones that are no farther from it than a radius.

    centers         (N, C) float32 or float64, C >= 2  x, y in metres, then anything
    scores          (N,) float32 or float64
    radius          metres; a centre is dropped when its squared distance to a kept one, in float64, is AT MOST radius * radius
    squared_radius  the same in square metres, in place of `radius`: what det3d and mmdetection3d call `min_radius`, where the border
                    (squared distance 12, say) matters and no radius has exactly that square
    max_out, group, fixed_capacity, result, ties and NaN scores as in `nms_bev`. A centre with a NaN or infinite coordinate is near
                    nothing, so it is kept.
    Raises ValueError for a wrong shape, dtype, device or number. Source: CenterPoint's `circle_nms`.
    """
    if (radius is None) == (squared_radius is None):
        raise ValueError(f"nms_circle: expected one of radius and squared_radius, got {radius!r} and {squared_radius!r}")
    radius, squared_radius = plain(radius), plain(squared_radius)
    if radius is not None:
        _expect_number("nms_circle: radius", radius, 1e150)
        squared_radius = float(radius) * float(radius)
    _expect_number("nms_circle: squared_radius", squared_radius, 1e300)
    space_of("nms_circle", centers=centers, scores=scores, group=group)
    limits = (_expect_limit("nms_circle", max_out), group, fixed_capacity)
    return dispatch("nms_circle", _nms_circle, centers, scores, float(squared_radius or 0), *limits)


def _nms_bev(boxes: Any, scores: Any, iou_threshold: float, max_out: int | None, group: Any, fixed_capacity: bool) -> Any:
    space = space_of("nms_bev", boxes=boxes, scores=scores, group=group)
    boxes = take_boxes(space, "boxes", boxes, (5, 7))
    scores, group = _take_scores(space, len(boxes), scores, group)
    keep, num_kept = _room(space, len(boxes), fixed_capacity)
    space.call("nms_bev", boxes, *boxes.shape, scores, group, iou_threshold, -1 if max_out is None else max_out, keep, num_kept)
    return keep if fixed_capacity else keep[: space.numbers(num_kept)[0]]


def _nms_circle(centers: Any, scores: Any, squared_radius: float, max_out: int | None, group: Any, fixed_capacity: bool) -> Any:
    space = space_of("nms_circle", centers=centers, scores=scores, group=group)
    centers = space.take("centers", centers, ("N", "C"), "float64", "float32")
    if centers.shape[1] < 2:
        raise ValueError(f"centers: expected at least the columns x, y, got shape {tuple(centers.shape)}")
    expect_rows("centers", len(centers))
    scores, group = _take_scores(space, len(centers), scores, group)
    keep, num_kept = _room(space, len(centers), fixed_capacity)
    limits = (math.sqrt(squared_radius), squared_radius, -1 if max_out is None else max_out)
    space.call("nms_circle", centers, *centers.shape, scores, group, *limits, keep, num_kept)
    return keep if fixed_capacity else keep[: space.numbers(num_kept)[0]]


def _room(space: Space, count: int, fixed_capacity: bool) -> tuple[Any, Any]:
    """Room for the kept rows, filled where not all of it will be, and for their number."""
    keep = space.full((count,), -1, "int64") if fixed_capacity else space.empty((count,), "int64")
    return keep, space.zeros((1,), "int64")


def _take_scores(space: Space, count: int, scores: Any, group: Any) -> tuple[Any, Any]:
    scores = space.take("scores", scores, (count,), "float64", "float32")
    return scores, None if group is None else space.take("group", group, (count,), "int64", "int32")


def _expect_number(name: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ValueError(f"{name}: expected a number from 0 to {most:g}, got {value!r}")


def _expect_limit(operator: str, max_out: Any) -> int | None:
    max_out = plain(max_out)
    if max_out is not None and (isinstance(max_out, bool) or not isinstance(max_out, int) or not 0 <= max_out < 2**63):
        raise ValueError(f"{operator}: max_out: expected an integer from 0 or None, got {max_out!r}")
    return max_out
