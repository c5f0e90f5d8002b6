"""Boxes in the pictures of the cameras, and the pictures of a moment side by side."""

from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perception.core.detections import Detections, Tracks
from perception.core.errors import UsageError
from perception.core.frame import Camera
from perception.visual.palette import INK, PAPER, Color, class_color

# Rows of pictures as one looks round; cameras of other names come behind, in their order.
LAYOUT = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))
# corners of `Boxes3D.corners` that edges join: below, above, upright
EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)])
_NEAREST = 0.1  # metres before the camera at which edges are cut off
_FRONT = 0.28  # opacity of the face that looks along the heading
_OVERSAMPLING = 2


def camera_rows(names: Iterable[str]) -> list[list[str]]:
    """The rows in which `draw_cameras` lays the pictures of cameras out, at most three in each."""
    names = list(names)
    rows = [[name for name in row if name in names] for row in LAYOUT]
    others = [name for name in names if not any(name in row for row in rows)]
    return [row for row in [*rows, *(others[i : i + 3] for i in range(0, len(others), 3))] if row]


def draw_camera(
    camera: Camera,
    objects: Detections | Tracks | None = None,
    *,
    timestamp_us: int | None = None,
    width_px: int = 800,
    reach: float = 80.0,
) -> Image.Image:
    """A camera's picture, `width_px` wide, with the boxes of the objects that it may see.

    objects       in the global frame, drawn in the colour of their class from far to near, the front face filled; tracks with their id
    timestamp_us  the objects' own time: those with a velocity are moved to the picture's time
    reach         metres from the camera beyond which nothing is drawn
    The lines of a box that reaches behind the camera end before it. Raises DataError for a picture that cannot be read, UsageError for a
    width below 64.
    """
    if width_px < 64:
        raise UsageError(f"draw_camera: expected a width of at least 64 pixels, got {width_px}")
    source = Image.fromarray(camera.image)
    size = width_px, max(1, round(width_px * source.height / source.width))
    picture = source.resize((size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture, "RGBA")
    if objects is not None and len(objects):
        for i, corners in _in_sight(camera, objects, timestamp_us, reach):
            number = int(objects.track_id[i]) if isinstance(objects, Tracks) else None
            _draw_box(pen, camera, corners, picture.width / camera.size[0], class_color(str(objects.names[i])), number)
    label = f" {camera.name} "
    font = ImageFont.load_default(11 * _OVERSAMPLING)
    pen.rectangle(pen.textbbox((3, 3), label, font=font), fill=(*PAPER, 170))
    pen.text((3, 3), label, fill=INK, font=font)
    return picture.reduce(_OVERSAMPLING)


def draw_cameras(
    cameras: Mapping[str, Camera],
    objects: Detections | Tracks | None = None,
    *,
    timestamp_us: int | None = None,
    width_px: int = 1500,
    reach: float = 80.0,
) -> Image.Image:
    """The pictures of all cameras of a frame, three in a row: left, front, right above, behind the vehicle below; see `draw_camera`.

    width_px  of the whole. Without cameras UsageError.
    """
    if not cameras:
        raise UsageError("draw_cameras: expected a frame with cameras, got none")
    rows = camera_rows(cameras)
    across = max(len(row) for row in rows)
    each = width_px // across
    pictures = [
        [draw_camera(cameras[name], objects, timestamp_us=timestamp_us, width_px=each, reach=reach) for name in row] for row in rows
    ]
    heights = [max(picture.height for picture in row) for row in pictures]
    sheet = Image.new("RGB", (each * across, sum(heights)), PAPER)
    for k, row in enumerate(pictures):
        for i, picture in enumerate(row):
            sheet.paste(picture, (i * each, sum(heights[:k])))
    return sheet


def _in_sight(camera: Camera, objects: Detections | Tracks, timestamp_us: int | None, reach: float) -> list[tuple[int, np.ndarray]]:
    """Rows and corners (8, 3) in the camera frame of the boxes of which something may be in the picture, far ones first."""
    boxes = objects.boxes
    corners = boxes.corners
    if timestamp_us is not None:
        seconds = (camera.timestamp_us - timestamp_us) * 1e-6
        corners = corners + np.pad(np.nan_to_num(boxes.velocity) * seconds, ((0, 0), (0, 1)))[:, None]
    corners = (camera.ego_to_global @ camera.camera_to_ego).inverse().apply(corners.reshape(-1, 3)).reshape(-1, 8, 3)
    middle = corners.mean(axis=1)
    distance = np.linalg.norm(middle, axis=1)
    # A corner is outside of a side of the picture where its homogeneous pixel is; a box is where all of its corners are.
    x, y, z = np.moveaxis(corners @ camera.intrinsics.T, -1, 0)
    width, height = camera.size
    is_out = [(z < _NEAREST), (x < 0), (y < 0), (x > width * z), (y > height * z)]
    is_seen = (distance < reach) & ~np.any([side.all(axis=1) for side in is_out], axis=0)
    return [(int(i), corners[i]) for i in np.flatnonzero(is_seen)[np.argsort(-distance[is_seen], kind="stable")]]


def _draw_box(pen: ImageDraw.ImageDraw, camera: Camera, corners: np.ndarray, scale: float, color: Color, number: int | None) -> None:
    front = _clipped(corners[[0, 3, 7, 4]])
    if len(front) > 2:
        pen.polygon(_points(camera, front, scale), fill=(*color, round(255 * _FRONT)))
    lines = [_points(camera, line, scale) for line in (_cut(corners[edge]) for edge in EDGES) if line is not None]
    for ink, width in (((*PAPER, 110), 2.5), ((*color, 255), 1.5)):  # a pale rim: class colours are made for paper
        for line in lines:
            pen.line(line, fill=ink, width=round(width * _OVERSAMPLING))
    if number is not None and lines:
        x, y = min((point for line in lines for point in line), key=lambda point: point[1])
        font = ImageFont.load_default(10 * _OVERSAMPLING)
        pen.text((x, y), str(number), fill=color, font=font, anchor="mb", stroke_width=_OVERSAMPLING, stroke_fill=(*PAPER, 220))


def _points(camera: Camera, points: np.ndarray, scale: float) -> list[tuple[float, float]]:
    """Pixels of the drawn picture, kept within what pillow draws in reasonable time: far outside an edge is straight all the same."""
    pixels = np.clip(camera.project(points)[0] * scale, -1e5, 1e5)
    return [(float(x), float(y)) for x, y in pixels]


def _cut(line: np.ndarray) -> np.ndarray | None:
    """The part (2, 3) of a line that lies before the camera."""
    (z0, z1), near = line[:, 2], line[:, 2] >= _NEAREST
    if near.all():
        return line
    if not near.any():
        return None
    border = line[0] + (line[1] - line[0]) * ((_NEAREST - z0) / (z1 - z0))
    return np.array([border, line[1]] if near[1] else [line[0], border])


def _clipped(face: np.ndarray) -> np.ndarray:
    """The part (K, 3) of a convex face that lies before the camera (Sutherland and Hodgman 1974)."""
    kept = []
    for a, b in zip(face, np.roll(face, -1, axis=0), strict=True):
        if a[2] >= _NEAREST:
            kept.append(a)
        if (a[2] >= _NEAREST) != (b[2] >= _NEAREST):
            kept.append(a + (b - a) * ((_NEAREST - a[2]) / (b[2] - a[2])))
    return np.array(kept).reshape(-1, 3)
