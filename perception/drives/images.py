"""Image files of recordings, decoded when asked for."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from perception.core.errors import DataError


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file. Raises DataError naming the file where it is missing or damaged."""
    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))


def read_image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the file's head. Raises DataError as `read_image` does."""
    with _opened(path) as image:
        return image.size


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except OSError as error:
        raise DataError(f"{path}: expected a readable image, got {error.strerror or error}") from None
    except (SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:  # what damaged files make pillow raise
        raise DataError(f"{path}: expected an image, got {error}") from None
