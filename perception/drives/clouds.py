"""Files of lidar points: little-endian float32 numbers, row after row, without a header."""

import os
from pathlib import Path

import numpy as np

from perception.core.errors import DataError

_LARGEST = np.float32(2**31)  # farther than any coordinate, and what a ring number must stay below to be an integer


def read_rows(path: Path, columns: tuple[str, ...]) -> np.ndarray | None:
    """(N, len(columns)) float32 rows of a file, an array of the caller's own; None where there is no such file.

    columns  what a row holds, for the message
    Raises DataError for a file that cannot be read, is cut short, or holds NaN, infinity or numbers of 2^31 and more.
    """
    row_bytes = 4 * len(columns)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size % row_bytes:
                expected = f"expected a multiple of {row_bytes} bytes ({', '.join(columns)} float32)"
                raise DataError(f"{path}: {expected}, got {size}; the file was cut short, copy it again")
            rows = np.empty((size // row_bytes, len(columns)), "<f4")
            num_read = file.readinto(rows)  # type: ignore[arg-type]  # into the array: one copy less than read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path}: expected a readable lidar file, got {error.strerror or error}") from None
    if num_read != size:
        raise DataError(f"{path}: expected {size} bytes, got {num_read}; the file changed while it was read")
    # The extremes first, NaN among them if there is one: a test of each number takes ten times as long.
    if len(rows) and not (rows.min() > -_LARGEST and rows.max() < _LARGEST):
        is_sound = (np.abs(rows) < _LARGEST).all(axis=1)
        raise DataError(f"{path}: expected finite numbers, got {int((~is_sound).sum())} of {len(rows)} points without")
    return rows
