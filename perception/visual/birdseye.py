"""Bird's-eye pictures: one moment around the ego vehicle, or a whole drive."""

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from perception.core.boxes import Boxes3D
from perception.core.detections import Detections, Tracks
from perception.core.files import atomic_write
from perception.core.transform import Transform
from perception.visual.canvas import Canvas, View
from perception.visual.palette import INK, TRUTH, Color, class_color

_EGO_SIZE = (4.1, 1.8)  # metres, length and width of the drawn vehicle
_EGO_CENTER = 1.4  # metres ahead of the rear axle
_MOVING = 0.5  # m/s; slower objects get no velocity arrow
_ARROW_SECONDS = 1.0


def draw_birdseye(
    view: View,
    *,
    tracks: Tracks | None = None,
    detections: Detections | None = None,
    truth: Detections | None = None,
    ego_to_global: Transform | None = None,
    points: np.ndarray | None = None,
    trails: Mapping[int, np.ndarray] | None = None,
    title: str = "",
) -> Image.Image:
    """One moment from above. All boxes, trails and points are in the global frame.

    tracks      filled boxes in their class's colour with id, heading mark and where they will be in 1 s; coasted ones dashed
    detections  thin boxes, the fainter the lower the score
    truth       dashed dark boxes without filling
    points      (M, 3) metres, drawn as dots, darker the higher
    trails      track id -> (K, 2) positions, oldest first, as `TrailBuffer` collects them
    """
    canvas = Canvas(view)
    if points is not None:
        points = points[np.isfinite(points).all(axis=1)]
    if points is not None and len(points):
        shade = np.clip(215 - 35 * (points[:, 2] - np.median(points[:, 2])), 120, 225).astype(np.uint8)
        canvas.dots(view.to_pixels(points), np.repeat(shade[:, None], 3, axis=1))
    canvas.scale()
    canvas.legend(_legend(tracks, detections, truth))
    if ego_to_global is not None:
        draw_ego(canvas, ego_to_global)
    if detections is not None:
        for i in rows_in_view(view, detections.boxes):
            opacity = float(np.clip(detections.score[i], 0.15, 1.0))
            draw_box(canvas, detections.boxes[i], class_color(detections.names[i]), width=0.8, opacity=opacity)
    if truth is not None:
        for i in rows_in_view(view, truth.boxes):
            draw_box(canvas, truth.boxes[i], TRUTH, width=1.2, dashed=True)
    if tracks is not None:
        _draw_tracks(canvas, tracks, trails or {})
    frame = "ego frame: x forward is up" if view.is_ego else "global frame: y is up"
    return canvas.finish(title, f"faint line: where it was; dot: in {_ARROW_SECONDS:g} s; {frame}" if tracks is not None else frame)


def draw_drive(
    ego_positions: np.ndarray,
    paths: Mapping[int, tuple[str, np.ndarray]],
    *,
    title: str = "",
    size_px: int = 900,
    truth: Iterable[np.ndarray] = (),
) -> Image.Image:
    """A whole drive from above, global y up.

    ego_positions  (F, 2 or more) metres, global
    paths          track id -> (class name, positions (K, 2)), in time order
    truth          positions (K, 2) of each true object, drawn as dashed dark lines
    """
    parts = [np.asarray(ego_positions)[:, :2], *(path[:, :2] for _, path in paths.values())]
    view = View.fitting(np.concatenate(parts), size_px=size_px)
    canvas = Canvas(view)
    canvas.scale()
    names = [name for name, _ in paths.values()]
    entries = [(f"{name} ({names.count(name)})", class_color(name), "line") for name in sorted(set(names))]
    entries.append(("ego vehicle", INK, "line"))
    truth = list(truth)
    canvas.legend(entries + ([("truth", TRUTH, "dashed line")] if truth else []))
    for path in truth:
        if len(path) > 1:
            canvas.line(view.to_pixels(path), TRUTH, width=0.8, dashed=True, opacity=0.7)
    for name, path in paths.values():
        pixels = view.to_pixels(path)
        if len(path) > 1:
            canvas.line(pixels, class_color(name), width=1.6, opacity=0.8)
        canvas.polygon(_disc(pixels[-1], 2.2), class_color(name), opacity=1.0)
    if len(ego_positions):
        canvas.line(view.to_pixels(np.asarray(ego_positions)), INK, width=2.4)
        canvas.polygon(_disc(view.to_pixels(np.asarray(ego_positions)[-1]), 4), INK, opacity=1.0)
    for number, (name, path) in paths.items():
        if len(path) > 1:
            canvas.label(tuple(view.to_pixels(path[-1])), str(number), class_color(name), size=9)
    return canvas.finish(title, "global frame: y is up")


class TrailBuffer:
    """Where each track was during the last seconds."""

    def __init__(self, seconds: float = 3.0) -> None:
        self._seconds = seconds
        self._past: deque[tuple[int, np.ndarray, np.ndarray]] = deque()

    def push(self, timestamp_us: int, tracks: Tracks) -> None:
        """Add the tracks of a frame; what is older than the buffer's length is forgotten."""
        self._past.append((timestamp_us, tracks.track_id, tracks.boxes.center[:, :2]))
        while self._past[0][0] < timestamp_us - self._seconds * 1e6:
            self._past.popleft()

    def trails(self) -> dict[int, np.ndarray]:
        """Track id -> (K, 2) positions, oldest first."""
        paths: dict[int, list[np.ndarray]] = {}
        for _, ids, positions in self._past:
            for number, position in zip(ids.tolist(), positions, strict=True):
                paths.setdefault(number, []).append(position)
        return {number: np.array(path) for number, path in paths.items()}


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a PNG, completely or not at all."""
    with atomic_write(path) as file:
        image.save(file, format="PNG", optimize=True)


def _draw_tracks(canvas: Canvas, tracks: Tracks, trails: Mapping[int, np.ndarray]) -> None:
    view = canvas.view
    seen = rows_in_view(view, tracks.boxes)
    for i in seen:
        trail = trails.get(int(tracks.track_id[i]))
        if trail is not None and len(trail) > 1:
            pixels, color = view.to_pixels(trail), class_color(tracks.names[i])
            for k in range(1, len(pixels)):  # older pieces are fainter
                canvas.line(pixels[k - 1 : k + 1], color, width=1.4, opacity=0.15 + 0.5 * k / len(pixels))
    for i in seen:
        color = class_color(tracks.names[i])
        draw_box(
            canvas, tracks.boxes[i], color, width=1.5, dashed=bool(tracks.coasted[i]), fill=0.0 if tracks.coasted[i] else 0.3, arrow=True
        )
    for i in sorted(seen, key=lambda i: -tracks.score[i]):  # where labels would lie on each other, the surer track keeps its own
        center = view.to_pixels(tracks.boxes.center[i])
        canvas.label((float(center[0]), float(center[1])), str(int(tracks.track_id[i])), class_color(tracks.names[i]))


def draw_box(
    canvas: Canvas,
    box: Boxes3D,
    color: Color,
    *,
    width: float,
    opacity: float = 1.0,
    dashed: bool = False,
    fill: float = 0.0,
    arrow: bool = False,
) -> None:
    """One box: outline, a line from its middle to its front, and, with `arrow`, where it will be in a second."""
    view = canvas.view
    outline = view.to_pixels(box.corners[0, :4])
    if fill:
        canvas.polygon(outline, color, opacity=fill)
    canvas.line(np.concatenate([outline, outline[:1]]), color, width=width, opacity=opacity, dashed=dashed)
    center = box.center[0, :2]
    front = center + box.size[0, 0] / 2 * np.array([np.cos(box.yaw[0]), np.sin(box.yaw[0])])
    canvas.line(view.to_pixels(np.stack([center, front])), color, width=width, opacity=opacity)
    if arrow and box.speed[0] > _MOVING:  # False for an unknown velocity
        tip = center + box.velocity[0] * _ARROW_SECONDS
        canvas.line(view.to_pixels(np.stack([center, tip])), color, width=1.0, opacity=0.9)
        canvas.polygon(_disc(view.to_pixels(tip), 2.0), color, opacity=0.9)


def draw_ego(canvas: Canvas, ego_to_global: Transform) -> None:
    length, width = _EGO_SIZE
    rear, front, half = _EGO_CENTER - length / 2, _EGO_CENTER + length / 2, width / 2
    shape = np.array([[rear, -half, 0], [front - 1.0, -half, 0], [front, 0, 0], [front - 1.0, half, 0], [rear, half, 0]])
    canvas.polygon(canvas.view.to_pixels(ego_to_global.apply(shape)), INK, opacity=0.9)


def _legend(tracks: Tracks | None, detections: Detections | None, truth: Detections | None) -> list[tuple[str, Color, str]]:
    names = {name for objects in (tracks, detections) if objects is not None for name in objects.names.tolist()}
    entries = [(name, class_color(name), "box" if tracks is not None else "line") for name in sorted(names)]
    if tracks is not None and tracks.coasted.any():
        entries.append(("coasted (its class's colour)", class_color("car"), "dashed"))
    if truth is not None:
        entries.append(("truth", TRUTH, "truth"))
    return entries


def rows_in_view(view: View, boxes: Boxes3D) -> list[int]:
    """Rows of the boxes of which something may be in the picture, those across its border included."""
    if not len(boxes):
        return []
    pixels = view.to_pixels(boxes.corners[:, :4])
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    return np.flatnonzero(((high >= 0) & (low <= view.size_px)).all(axis=1)).tolist()


def _disc(center: np.ndarray, radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
