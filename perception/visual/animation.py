"""A drive as a GIF or an MP4, picture by picture."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from perception.core.errors import DataError, UsageError, require_package
from perception.core.files import atomic_write
from perception.visual.palette import CLASS_COLORS, OTHER, PAPER


def save_animation(images: Iterable[Image.Image], path: Path, *, fps: float = 4.0) -> int:
    """Write pictures of one size as .gif (pillow) or .mp4 (extra `viz`), completely or not at all. Returns their number.

    Raises UsageError for another suffix or a rate that is not positive, DataError where there is no picture or they differ in size.
    """
    if not fps > 0:
        raise UsageError(f"{path}: expected frames a second > 0, got {fps}")
    if path.suffix == ".gif":
        return _save_gif(_of_one_size(images, path), path, fps)
    if path.suffix == ".mp4":
        return _save_mp4(_of_one_size(images, path), path, fps)
    raise UsageError(f"{path}: expected a name ending in .gif or .mp4, got {path.suffix or 'no ending'}")


def _of_one_size(images: Iterable[Image.Image], path: Path) -> Iterator[Image.Image]:
    """The pictures as they come. Raises DataError at the first that is not as large as the first one."""
    size = None
    for image in images:
        size = size or image.size
        if image.size != size:
            got, expected = (f"{width} x {height}" for width, height in (image.size, size))
            raise DataError(f"{path}: expected pictures of one size, {expected}, got {got}")
        yield image


def _save_gif(images: Iterable[Image.Image], path: Path, fps: float) -> int:
    # Flat drawings in few inks: one palette of these inks for the whole film keeps colours the same from picture to picture.
    palette = _ink_palette()
    pages = [image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    if not pages:
        raise DataError(f"{path}: expected at least one picture, got none")
    # A GIF counts hundredths of seconds: rounding the times, not the steps, keeps the rate of the whole film.
    duration = (np.diff(np.round(np.arange(len(pages) + 1) * 100 / fps)) * 10).astype(int).tolist()
    with atomic_write(path) as file:
        pages[0].save(file, format="GIF", save_all=True, append_images=pages[1:], duration=duration, loop=0, optimize=False)
    return len(pages)


def _ink_palette() -> Image.Image:
    """Every ink of the pictures on paper, in steps of opacity, and greys."""
    paper = np.array(PAPER, dtype=np.float64)
    inks = [*CLASS_COLORS.values(), OTHER]
    shades = [paper + opacity * (np.array(ink) - paper) for ink in inks for opacity in (1.0, 0.8, 0.6, 0.45, 0.3, 0.15)]
    shades += [np.full(3, grey, dtype=np.float64) for grey in np.linspace(20, 255, 32)] + [paper]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.round(shades).astype(np.uint8).ravel().tolist())
    return palette


def _save_mp4(images: Iterable[Image.Image], path: Path, fps: float) -> int:
    ffmpeg = require_package("imageio_ffmpeg", extra="viz", why="writing MP4")
    count, writer = 0, None
    with tempfile.TemporaryDirectory(prefix="perception-") as folder:
        aside = Path(folder) / "drive.mp4"
        try:
            for image in images:
                image = image.crop((0, 0, image.width - image.width % 2, image.height - image.height % 2))  # H.264 wants even sides
                if writer is None:
                    options = {"codec": "libx264", "quality": 7, "macro_block_size": 1, "ffmpeg_log_level": "error"}
                    writer = ffmpeg.write_frames(str(aside), image.size, fps=fps, **options)
                    writer.send(None)
                writer.send(np.ascontiguousarray(image.convert("RGB")))
                count += 1
        finally:
            if writer is not None:
                writer.close()  # waits for ffmpeg, which would write on in the folder while it is removed
        if writer is None:
            raise DataError(f"{path}: expected at least one picture, got none")
        with atomic_write(path) as file:
            file.write(aside.read_bytes())
    return count
