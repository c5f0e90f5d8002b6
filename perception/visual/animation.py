"""A drive as a GIF or an MP4, picture by picture."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from perception.core.errors import DataError, UsageError, require_package
from perception.core.files import atomic_write


def save_animation(images: Iterable[Image.Image], path: Path, *, fps: float = 4.0) -> int:
    """Write pictures of one size as .gif (pillow) or .mp4 (extra `viz`), completely or not at all. Returns their number.

    Raises UsageError for another suffix or a rate that is not positive, DataError where there is no picture.
    """
    if not fps > 0:
        raise UsageError(f"{path}: expected frames a second > 0, got {fps}")
    if path.suffix == ".gif":
        return _save_gif(images, path, fps)
    if path.suffix == ".mp4":
        return _save_mp4(images, path, fps)
    raise UsageError(f"{path}: expected a name ending in .gif or .mp4, got {path.suffix or 'no ending'}")


def _save_gif(images: Iterable[Image.Image], path: Path, fps: float) -> int:
    # The pictures are flat drawings: 64 colours, chosen once, keep them crisp and let equal areas of neighbours be left out.
    palette: Image.Image | None = None
    pages: list[Image.Image] = []
    for image in images:
        if palette is None:
            palette = image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        pages.append(image.quantize(palette=palette, dither=Image.Dither.NONE))
    if not pages:
        raise DataError(f"{path}: expected at least one picture, got none")
    with atomic_write(path) as file:
        pages[0].save(file, format="GIF", save_all=True, append_images=pages[1:], duration=round(1000 / fps), loop=0, optimize=False)
    return len(pages)


def _save_mp4(images: Iterable[Image.Image], path: Path, fps: float) -> int:
    ffmpeg = require_package("imageio_ffmpeg", extra="viz", why="writing MP4")
    count, writer = 0, None
    with tempfile.TemporaryDirectory(prefix="perception-") as folder:
        aside = Path(folder) / "drive.mp4"
        for image in images:
            image = image.crop((0, 0, image.width - image.width % 2, image.height - image.height % 2))  # noqa: PLW2901  H.264 wants even sides
            if writer is None:
                writer = ffmpeg.write_frames(str(aside), image.size, fps=fps, codec="libx264", quality=7, macro_block_size=1, ffmpeg_log_level="error")
                writer.send(None)
            writer.send(np.ascontiguousarray(image.convert("RGB")))
            count += 1
        if writer is None:
            raise DataError(f"{path}: expected at least one picture, got none")
        writer.close()
        with atomic_write(path) as file:
            file.write(aside.read_bytes())
    return count
