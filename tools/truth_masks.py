"""Instance masks from true boxes, for recordings that have pictures and boxes but no masks.

A mask is what a box covers in the picture, more than its object does: what is seen past the object, or through its windows, is in it too.
"""

from collections.abc import Mapping

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from perception.core.detections import Detections
from perception.core.errors import DataError
from perception.core.frame import Camera, Frame
from perception.core.masks import PictureMasks
from perception.core.rle import encode_rle
from perception.fusion.calibration import in_order
from perception.visual.cameras import EDGES

_NEAREST = 0.1  # metres before the camera at which boxes are cut off


def truth_pictures(frame: Frame, min_points: int = 1) -> dict[str, PictureMasks]:
    """What each camera of a frame shows of its true objects, nearest first; the masks of a picture do not overlap.

    min_points  objects that fewer points of the lidar have hit are left out, where the recording counts them: most are hidden
    An object with a velocity is where it was at the picture's time. Raises DataError for a frame without truth or without cameras.
    """
    truth = frame.truth
    if truth is None or not frame.cameras:
        raise DataError(f"frame {frame.token}: expected {'true objects' if frame.cameras else 'cameras'} to make masks, got none")
    if truth.num_points is not None:
        truth = truth[truth.num_points >= min_points]
    cameras = frame.cameras
    return {name: _picture(cameras[name], truth, frame) for name in in_order(cameras)}


def _picture(camera: Camera, truth: Detections, frame: Frame) -> PictureMasks:
    seconds = (camera.timestamp_us - frame.timestamp_us) * 1e-6
    moved = np.pad(np.nan_to_num(truth.boxes.velocity) * seconds, ((0, 0), (0, 1)))
    corners = truth.boxes.corners + moved[:, None]
    corners = (camera.ego_to_global @ camera.camera_to_ego).inverse().apply(corners.reshape(-1, 3)).reshape(-1, 8, 3)
    width, height = camera.size
    is_free = np.ones((height, width), bool)
    rows, boxes, codes, areas = [], [], [], []
    for row in np.argsort(np.linalg.norm(corners.mean(axis=1), axis=1), kind="stable").tolist():
        window, (left, top) = _covered(_outline(corners[row], camera), camera.size)
        part = is_free[top : top + window.shape[0], left : left + window.shape[1]]
        window &= part  # what a nearer object hides
        part[window] = False
        if not window.any():
            continue
        columns, lines = np.flatnonzero(window.any(axis=0)) + left, np.flatnonzero(window.any(axis=1)) + top
        rows.append(row)
        boxes.append((columns[0], lines[0], columns[-1] + 1, lines[-1] + 1))
        codes.append(encode_rle(window, size=(height, width), corner=(top, left)))
        areas.append(int(window.sum()))
    names = truth.instance if truth.instance is not None else np.full(len(truth), "", np.str_)
    return PictureMasks(
        camera.token,
        frame.token,
        f"{camera.name}/{camera.timestamp_us}",
        camera.size,
        truth.label[rows],
        names[rows],
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(areas, np.int64),
        tuple(codes),
        classes=truth.classes,
    )


def _outline(corners: np.ndarray, camera: Camera) -> np.ndarray:
    """(K, 2) pixels around a box, in the order in which x turns towards y; none where it lies behind the camera.

    corners  (8, 3) in the camera frame
    """
    ends = corners[EDGES]  # (12, 2, 3)
    share = (_NEAREST - ends[:, 0, 2]) / np.where(ends[:, 1, 2] == ends[:, 0, 2], np.inf, ends[:, 1, 2] - ends[:, 0, 2])
    is_cut = (ends[..., 2] >= _NEAREST).sum(axis=1) == 1
    cut = ends[is_cut, 0] + share[is_cut, None] * (ends[is_cut, 1] - ends[is_cut, 0])
    cut[:, 2] = _NEAREST
    pixels = camera.project(np.concatenate([corners[corners[:, 2] >= _NEAREST], cut]))[0]
    try:
        hull: np.ndarray = pixels[ConvexHull(pixels).vertices]
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        return np.zeros((0, 2))
    return hull


def _covered(outline: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The window (h, w) bool of the pixels whose middle lies in a convex outline, and its first column and row in the picture."""
    if len(outline) == 0:
        return np.zeros((0, 0), bool), (0, 0)
    low = np.clip(np.floor(outline.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(outline.max(axis=0)), 0, size).astype(int)
    x, y = np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1])[:, None] + 0.5
    inside = np.ones((max(high[1] - low[1], 0), max(high[0] - low[0], 0)), bool)
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0
    return inside, (int(low[0]), int(low[1]))


def instance_rows(pictures: Mapping[str, PictureMasks], truth: Detections) -> dict[str, np.ndarray]:
    """Of each picture, the row of `truth` that each instance is; -1 for one that is not named there."""
    row_of = {} if truth.instance is None else {name: row for row, name in enumerate(truth.instance.tolist()) if name}
    return {name: np.array([row_of.get(one, -1) for one in shown.instance.tolist()], np.int64) for name, shown in pictures.items()}
