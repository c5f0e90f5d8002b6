"""A piece of paper with metres on it: where a point of the global frame lies in the picture, and the strokes that pictures are made of."""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perception.core.errors import UsageError
from perception.core.transform import Transform
from perception.visual.palette import FAINT, INK, PAPER, Color

_OVERSAMPLING = 2  # drawn twice as large, then shrunk: pillow's lines have no antialiasing
HEADER_PX = 34
_LEGEND_PX = 34  # right of the metres on the left edge


@dataclass(frozen=True, eq=False)
class View:
    """What part of the world a picture shows, seen from above.

    center   (2,) x, y in the global frame, metres: the middle of the picture, and the zero of the metres on its edges
    up       radians: the global direction that points up in the picture
    extent   metres from the middle to an edge
    size_px  pixels of a side of the square
    is_ego   the metres on the edges are those of the ego frame (x up, y to the left) instead of the global one (y up, x to the right)
    """

    center: tuple[float, float]
    up: float
    extent: float
    size_px: int = 900
    is_ego: bool = False

    def __post_init__(self) -> None:
        if not (self.extent > 0 and np.isfinite(self.extent) and np.isfinite(self.up) and np.isfinite(self.center).all()):
            raise UsageError(f"View: expected a finite centre and direction, and extent > 0, got {self.center}, {self.up}, {self.extent}")
        if not 200 <= self.size_px <= 4000:
            raise UsageError(f"View.size_px: expected 200..4000, got {self.size_px}")

    @classmethod
    def around_ego(cls, ego_to_global: Transform, *, radius: float = 50.0, size_px: int = 900) -> "View":
        """The ego vehicle in the middle, its x axis (forward) up."""
        x, y, _z = ego_to_global.translation
        return cls((float(x), float(y)), ego_to_global.yaw, radius, size_px, is_ego=True)

    @classmethod
    def fitting(cls, points: np.ndarray, *, size_px: int = 900) -> "View":
        """All points (N, 2 or more) of the global frame, global y up."""
        if not len(points):
            return cls((0.0, 0.0), np.pi / 2, 10.0, size_px)
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        middle = (low + high) / 2
        return cls((float(middle[0]), float(middle[1])), np.pi / 2, float(max((high - low).max() / 2 * 1.08, 5.0)), size_px)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels, x right and y down, of points (..., 2 or more) of the global frame."""
        offset = np.asarray(points, dtype=np.float64)[..., :2] - self.center
        forward = np.array([np.cos(self.up), np.sin(self.up)])
        left = np.array([-forward[1], forward[0]])
        scale = self.size_px / (2 * self.extent)
        return np.stack([self.size_px / 2 - offset @ left * scale, self.size_px / 2 - offset @ forward * scale], axis=-1)

    def sees(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool: which points (N, 2 or more) lie in the picture."""
        pixels = self.to_pixels(points)
        return ((pixels >= 0) & (pixels <= self.size_px)).all(axis=-1)


class Canvas:
    """Draws in pixels of the finished picture; `finish` gives it, with a header line above the map."""

    def __init__(self, view: View) -> None:
        self.view = view
        side = view.size_px * _OVERSAMPLING
        self._image = Image.new("RGB", (side, side + HEADER_PX * _OVERSAMPLING), PAPER)
        self._map = Image.new("RGB", (side, side), PAPER)
        self.taken: list[tuple[float, float, float, float]] = []  # where text stands already

    @cached_property
    def _pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self._map, "RGBA")

    def line(self, points: np.ndarray, color: Color, *, width: float = 1.0, opacity: float = 1.0, dashed: bool = False) -> None:
        """A polyline through pixels (K, 2)."""
        points = np.asarray(points) * _OVERSAMPLING
        ink = (*color, round(255 * opacity))
        stroke = max(1, round(width * _OVERSAMPLING))
        if not dashed:
            self._pen.line([tuple(p) for p in points.tolist()], fill=ink, width=stroke, joint="curve")
            return
        on, off = 5.0 * _OVERSAMPLING, 4.0 * _OVERSAMPLING
        for a, b in pairwise(points):
            length = float(np.hypot(*(b - a)))
            for start in np.arange(0.0, length, on + off)[:2000]:
                piece = [a + (b - a) * t / length for t in (start, min(start + on, length))]
                self._pen.line([tuple(p) for p in np.array(piece).tolist()], fill=ink, width=stroke)

    def polygon(self, points: np.ndarray, color: Color, *, opacity: float) -> None:
        """A filled polygon of pixels (K, 2)."""
        self._pen.polygon([tuple(p) for p in (np.asarray(points) * _OVERSAMPLING).tolist()], fill=(*color, round(255 * opacity)))

    def dots(self, points: np.ndarray, colors: np.ndarray) -> None:
        """Dots at pixels (M, 2), of colours (M, 3) uint8, under everything drawn later."""
        at = np.floor(np.asarray(points) * _OVERSAMPLING).astype(np.int64)
        side = self.view.size_px * _OVERSAMPLING
        inside = ((at >= 0) & (at < side - 1)).all(axis=1)
        pixels = np.array(self._map)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            pixels[at[inside, 1] + dy, at[inside, 0] + dx] = colors[inside]
        self._map.paste(Image.fromarray(pixels))

    def text(self, at: tuple[float, float], text: str, color: Color, *, size: float = 11, anchor: str = "mm", halo: bool = True) -> None:
        """Text at a pixel; anchor as pillow names it (mm: middle, la: left top, ...)."""
        font = _font(size * _OVERSAMPLING)
        place = (at[0] * _OVERSAMPLING, at[1] * _OVERSAMPLING)
        self._pen.text(
            place, text, fill=color, font=font, anchor=anchor, stroke_width=2 * _OVERSAMPLING if halo else 0, stroke_fill=(*PAPER, 220)
        )

    def label(self, at: tuple[float, float], text: str, color: Color, *, size: float = 10) -> None:
        """Text near a pixel, at the first of eight places around it that is still free; left out where none is."""
        width, height = self.text_size(text, size)
        for dx, dy in ((1, -1), (1, 1), (-1, -1), (-1, 1), (0, -1.6), (0, 1.6), (1.4, 0), (-1.4, 0)):
            x, y = at[0] + dx * (width / 2 + 7), at[1] + dy * (height / 2 + 6)
            box = (x - width / 2 - 1, y - height / 2 - 1, x + width / 2 + 1, y + height / 2 + 1)
            side = self.view.size_px
            if (
                min(box) < 0
                or max(box) > side
                or any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self.taken)
            ):
                continue
            self.taken.append(box)
            self.text((x, y), text, color, size=size)
            return

    def text_size(self, text: str, size: float) -> tuple[float, float]:
        """Width and height of a text in pixels."""
        left, top, right, bottom = self._pen.textbbox((0, 0), text, font=_font(size * _OVERSAMPLING))
        return (right - left) / _OVERSAMPLING, (bottom - top) / _OVERSAMPLING

    def scale(self) -> None:
        """Faint lines, metres along the edges (zero in the middle) and a scale bar."""
        view, side = self.view, self.view.size_px
        step = nice_step(view.extent / 3)
        per_metre = side / (2 * view.extent)
        count = int(view.extent // step)
        for k in range(-count, count + 1):
            at = side / 2 + k * step * per_metre
            self.line(np.array([[at, 0], [at, side]]), FAINT, width=0.5)
            self.line(np.array([[0, at], [side, at]]), FAINT, width=0.5)
            if k and abs(k * step) < 0.95 * view.extent:
                across = -k * step if view.is_ego else k * step  # y of the ego frame grows to the left
                self.text((at, side - 10), f"{across:g}", INK, size=9)
                self.text((4, at), f"{-k * step:g}", INK, size=9, anchor="lm")
        for at, name, anchor in (
            ((4, side / 2), "x" if view.is_ego else "y", "lm"),
            ((side / 2, side - 10), "y" if view.is_ego else "x", "mm"),
        ):
            self.text(at, f"{name} [m]", INK, size=9, anchor=anchor)
        length = step * per_metre
        x, y = side - 24 - length, side - 40
        self.line(np.array([[x, y], [x + length, y]]), INK, width=3)
        for end in (x, x + length):
            self.line(np.array([[end, y - 5], [end, y + 5]]), INK, width=1.5)
        self.text((x + length / 2, y - 12), f"{step:g} m", INK, size=12)
        self.taken.append((x - 10, y - 22, side, side))

    def legend(self, entries: list[tuple[str, Color, str]]) -> None:
        """Names with their strokes, top left; kind is box, dashed, truth, line or dashed line."""
        if not entries:
            return
        width = max(self.text_size(name, 11)[0] for name, _, _ in entries) + 44
        height = 18 * len(entries) + 10
        left = _LEGEND_PX
        self.polygon(np.array([[left, 8], [left + width, 8], [left + width, 8 + height], [left, 8 + height]]), PAPER, opacity=0.88)
        self.taken.append((left, 8, left + width, 8 + height))
        for i, (name, color, kind) in enumerate(entries):
            y = 22 + 18 * i
            frame = np.array([[left + 8, y - 5], [left + 28, y - 5], [left + 28, y + 5], [left + 8, y + 5], [left + 8, y - 5]])
            if kind == "box":
                self.polygon(frame, color, opacity=0.35)
            if kind in ("line", "dashed line"):
                self.line(np.array([[left + 8, y], [left + 28, y]]), color, width=2, dashed=kind == "dashed line")
            else:
                self.line(frame, color, width=1.5, dashed=kind in ("dashed", "truth"))
            self.text((left + 36, y), name, INK, size=11, anchor="lm", halo=False)

    def finish(self, title: str, caption: str) -> Image.Image:
        """The picture: header line, map, frame."""
        side = self.view.size_px
        self.line(np.array([[0, 0], [side - 1, 0], [side - 1, side - 1], [0, side - 1], [0, 0]]), INK, width=1)
        self._image.paste(self._map, (0, HEADER_PX * _OVERSAMPLING))
        pen = ImageDraw.Draw(self._image)
        middle = HEADER_PX * _OVERSAMPLING / 2
        room = side - self.text_size(caption, 11)[0] - 30
        while title and self.text_size(title, 14)[0] > room:
            title = title[:-2].rstrip("…") + "…" if len(title) > 2 else ""
        pen.text((8 * _OVERSAMPLING, middle), title, fill=INK, font=_font(14 * _OVERSAMPLING), anchor="lm")
        pen.text(((side - 8) * _OVERSAMPLING, middle), caption, fill=INK, font=_font(11 * _OVERSAMPLING), anchor="rm")
        return self._image.reduce(_OVERSAMPLING)


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # unpacked anew at each call


def nice_step(rough: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... (and their tenths) that is not above `rough`."""
    power = 10.0 ** np.floor(np.log10(rough))
    return float(max(factor * power for factor in (1, 2, 5) if factor * power <= rough * (1 + 1e-9)))
