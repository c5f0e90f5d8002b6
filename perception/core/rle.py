"""Run-length coded masks of the COCO format: column after column, runs of background and object in turn, as a short text.

Source: the mask format of the public COCO data set (its "compressed RLE"). A count is written as groups of five bits, the lowest first,
each as one character from "0" on; 32 says that another group follows, the highest bit of the last group is the sign. From the fourth
count on the text holds the difference from the count two before.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from perception.core.errors import DataError, shown
from perception.core.expect import expect_array

MAX_PIXELS = 2**26  # of a mask that is decoded: 8192 x 8192
_GROUPS = 7  # 35 bits hold every difference between two counts of up to MAX_PIXELS


def encode_rle(mask: np.ndarray, *, size: tuple[int, int] | None = None, corner: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """A mask (h, w) bool as {"size": [h, w], "counts": text}.

    size    (rows, columns) of the whole image, where `mask` is a window of it and nothing outside of the window is set
    corner  (row, column) of the window's first pixel in the image
    Empty masks are one run of background; a mask without pixels has no runs. Raises DataError where shape or dtype do not fit, or the
    window reaches beyond the image.
    """
    mask = expect_array("encode_rle: mask", mask, (None, None), "bool")
    height, width = mask.shape if size is None else size
    (top, left), (rows, columns) = corner, mask.shape
    if not (0 <= top <= height - rows and 0 <= left <= width - columns):
        raise DataError(f"encode_rle: expected a window within {height} x {width} pixels, got {rows} x {columns} pixels at {corner}")
    padded = np.zeros((columns, rows + 2), np.int8)
    padded[:, 1:-1] = mask.T
    column, row = np.nonzero(np.diff(padded, axis=1))  # begin, end, begin, end, ... of the runs of each column
    borders = (column + left) * height + row + top
    # A run that ends at the foot of a column goes on where the next one begins at its head.
    goes_on = np.flatnonzero(borders[1:-1:2] == borders[2::2])
    borders = np.delete(borders, np.concatenate([2 * goes_on + 1, 2 * goes_on + 2]))
    return _coded(borders, height, width)


def decode_rle(rle: Mapping[str, Any], *, where: str = "rle") -> np.ndarray:
    """The mask (h, w) bool of {"size": [h, w], "counts": text, bytes or a list of run lengths}. Raises DataError as `rle_runs` does."""
    (height, width), runs = rle_runs(rle, where=where)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def rle_runs(rle: Mapping[str, Any], *, where: str = "rle") -> tuple[tuple[int, int], np.ndarray]:
    """(rows, columns) and the lengths (R,) int64 of background and object in turn, of a mask as `decode_rle` takes it.

    Runs of length 0 are allowed. Raises DataError, before anything large is made, where a field is missing, an image has more than
    MAX_PIXELS pixels, a character is none of the format, or the runs do not add up to h * w.
    """
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= set(rle):
        raise DataError(f"{where}: expected a mapping with size and counts, got {shown(rle)}")
    size, counts = rle["size"], rle["counts"]
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    if not is_pair or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and 0 <= n <= MAX_PIXELS for n in size):
        raise DataError(f"{where}: size: expected [rows, columns], got {shown(size)}")
    height, width = (int(n) for n in size)
    pixels = height * width
    if pixels > MAX_PIXELS:
        raise DataError(f"{where}: size: expected at most {MAX_PIXELS} pixels, got {height} x {width}")
    if not isinstance(counts, (str, bytes, list)):
        raise DataError(f"{where}: counts: expected text or a list of integers, got {shown(counts)}")
    # Longer than that, no mask of this size is; a text that is shorter takes no more room than a few times its own.
    longest = pixels + 1 if isinstance(counts, list) else _GROUPS * (pixels + 1)
    if len(counts) > longest:
        raise DataError(f"{where}: counts: expected at most {longest} entries for {height} x {width} pixels, got {len(counts)}")
    runs = _from_list(counts, where) if isinstance(counts, list) else _from_text(counts, where)
    if len(runs) and (runs.min() < 0 or runs.max() > pixels):
        row = int(np.flatnonzero((runs < 0) | (runs > pixels))[0])
        raise DataError(f"{where}: counts: expected runs of 0 to {pixels} pixels, got {runs[row]} in run {row}")
    if (total := int(runs.sum())) != pixels:
        raise DataError(f"{where}: counts: expected runs that add up to {height} x {width} = {pixels} pixels, got {total}")
    return (height, width), runs


def encode_runs(size: tuple[int, int], begin: np.ndarray, end: np.ndarray) -> dict[str, Any]:
    """A mask of `size` (rows, columns) whose pixels begin[i] to end[i] - 1, counted down column after column, are set.

    begin, end  (S,) int64, in any order; spans may overlap or touch. Raises DataError where one reaches beyond the image.
    """
    height, width = size
    begin, end = begin[end > begin], end[end > begin]
    if len(begin) and (begin.min() < 0 or end.max() > height * width):
        raise DataError(f"encode_runs: expected spans within {height * width} pixels, got {begin.min()} to {end.max()}")
    order = np.argsort(begin, kind="stable")
    begin, reach = begin[order], np.maximum.accumulate(end[order])
    is_first = np.ones(len(begin), bool)
    is_first[1:] = begin[1:] > reach[:-1]  # not reached by what came before
    first = np.flatnonzero(is_first)
    last = np.append(first[1:], len(begin))[: len(first)] - 1
    borders = np.column_stack([begin[first], reach[last]]).ravel()
    return _coded(borders, height, width)


def _coded(borders: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """The mask whose runs of background and object end at these pixels."""
    counts = np.diff(borders, prepend=0, append=height * width)
    if len(borders) and counts[-1] == 0:  # the last pixel is set
        counts = counts[:-1]
    return {"size": [int(height), int(width)], "counts": _to_text(counts if height * width else counts[:0])}


def _to_text(counts: np.ndarray) -> str:
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    shifted = values[:, None] >> (5 * np.arange(_GROUPS + 1))  # rounds down: negative ones end in -1
    group, rest = shifted[:, :-1] & 31, shifted[:, 1:]
    has_more = np.where(group & 16, rest != -1, rest != 0)
    is_written = np.ones(group.shape, bool)
    is_written[:, 1:] = np.logical_and.accumulate(has_more, axis=1)[:, :-1]
    return (group + 32 * has_more + 48)[is_written].astype(np.uint8).tobytes().decode("ascii")


def _from_text(text: str | bytes, where: str) -> np.ndarray:
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: counts: expected ASCII text, got {shown(text)}") from error
    code = np.frombuffer(raw, np.uint8).astype(np.int16) - 48
    if ((code < 0) | (code > 63)).any():
        row = int(np.flatnonzero((code < 0) | (code > 63))[0])
        raise DataError(f"{where}: counts: expected characters '0' to 'o', got {shown(chr(raw[row]))} at {row}")
    last = np.flatnonzero(code < 32)  # group of each count
    if len(code) and code[-1] >= 32:
        raise DataError(f"{where}: counts: expected a text that ends with a count, got one that is cut short")
    lengths = np.diff(last, prepend=-1)
    if len(lengths) and lengths.max() > _GROUPS:
        raise DataError(f"{where}: counts: expected at most {_GROUPS} characters a count, got {lengths.max()}")
    first = last - lengths + 1
    place = np.arange(len(code)) - np.repeat(first, lengths)
    parts = (code & 31).astype(np.int64) << (5 * place)
    values = np.add.reduceat(parts, first) if len(first) else np.zeros(0, np.int64)
    values -= np.where(code[last] & 16, np.int64(1) << (5 * lengths), 0)
    # A count is its own difference plus those of every second one before; the first one stands alone.
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values


def _from_list(counts: list[Any], where: str) -> np.ndarray:
    for i, n in enumerate(counts):
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or abs(n) > 2**40:
            raise DataError(f"{where}: counts: expected integers, got {shown(n)} in run {i}")
    return np.array(counts, np.int64).reshape(-1)
