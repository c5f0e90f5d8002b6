"""What a detector found, missed and made up at one moment, from above."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from perception.core.detections import Detections
from perception.core.transform import Transform
from perception.visual.birdseye import draw_box, draw_ego, rows_in_view
from perception.visual.canvas import Canvas, View
from perception.visual.palette import TRUTH, Color

# Told apart by their strokes where colours are not: thin, filled, dashed and thick.
HIT: Color = (0, 130, 100)
FALSE: Color = (200, 20, 45)
MISSED: Color = (225, 110, 0)
NEITHER: Color = (140, 140, 140)


@dataclass(frozen=True, eq=False)
class Judged:
    """The objects of one moment, or of a group of classes at it, in the ego frame; any of them may be empty.

    hits     detections of wanted true objects
    false    detections of nothing
    neither  detections that do not count
    missed   wanted true objects without a detection
    truth    the other true objects
    """

    hits: Detections
    false: Detections
    neither: Detections
    missed: Detections
    truth: Detections


def draw_outcomes(
    groups: Sequence[Judged], points: np.ndarray, *, radius: float = 50.0, title: str = "", size_px: int = 900
) -> Image.Image:
    """One moment around the ego vehicle, x forward up; false ones with class and score, missed ones with class and number of returns.

    groups  of classes that are judged apart
    points  (M, 3) metres, ego frame, drawn as dots, darker the higher
    """
    view = View.around_ego(Transform.identity(), radius=radius, size_px=size_px)
    canvas = Canvas(view)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points):
        shade = np.clip(205 - 35 * (points[:, 2] - np.median(points[:, 2])), 90, 215).astype(np.uint8)
        canvas.dots(view.to_pixels(points), np.repeat(shade[:, None], 3, axis=1))
    canvas.scale()
    kinds: list[tuple[str, Color, str]] = [
        ("found", HIT, "line"),
        ("false", FALSE, "box"),
        ("missed", MISSED, "dashed"),
        ("does not count", NEITHER, "line"),
        ("truth", TRUTH, "truth"),
    ]
    counts = [sum(len(getattr(group, name)) for group in groups) for name in ("hits", "false", "missed", "neither", "truth")]
    canvas.legend([(f"{name} ({count})", color, kind) for (name, color, kind), count in zip(kinds, counts, strict=True)])
    draw_ego(canvas, Transform.identity())
    for group in groups:
        _boxes(canvas, group.truth, TRUTH, width=0.8, dashed=True)
        _boxes(canvas, group.neither, NEITHER, width=0.8)
        _boxes(canvas, group.hits, HIT, width=1.2)
        _boxes(canvas, group.missed, MISSED, width=2.5, dashed=True)
        _boxes(canvas, group.false, FALSE, width=2.0, fill=0.3)
    for group in groups:  # names last, so that no box lies on them
        for i in rows_in_view(view, group.false.boxes):
            _name(canvas, group.false, i, f"{group.false.names[i]} {group.false.score[i]:.2f}", FALSE)
        for i in rows_in_view(view, group.missed.boxes):
            count = group.missed.num_points
            _name(canvas, group.missed, i, str(group.missed.names[i]) + ("" if count is None else f", {count[i]} returns"), MISSED)
    return canvas.finish(title, "ego frame: x forward is up")


def _boxes(canvas: Canvas, objects: Detections, color: Color, *, width: float, dashed: bool = False, fill: float = 0.0) -> None:
    for i in rows_in_view(canvas.view, objects.boxes):
        draw_box(canvas, objects.boxes[i], color, width=width, dashed=dashed, fill=fill)


def _name(canvas: Canvas, objects: Detections, row: int, text: str, color: Color) -> None:
    x, y = canvas.view.to_pixels(objects.boxes.center[row])
    canvas.label((float(x), float(y)), text, color, size=10)
