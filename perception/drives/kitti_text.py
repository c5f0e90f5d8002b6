"""KITTI's text files: rows of fields separated by blanks, checked one by one; what is broken is named by file, line and field."""

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from perception.core.errors import DataError, shown

_MAX_BYTES = 64 << 20  # the longest real file (labels of one sequence) has 2 MB
_LARGEST = 1e12  # farther than any coordinate; squares and differences of what is smaller stay finite
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?", re.ASCII)


def read_bytes(path: Path, what: str, *, limit: int = _MAX_BYTES) -> bytes:
    """The content of a file; DataError where it is missing (`what` says what it is), cannot be read or is longer than `limit` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: expected {what}, found no file") from None
    except OSError as error:
        raise DataError(f"{path}: expected {what}, got {error.strerror or error}") from None
    if len(content) > limit:
        raise DataError(f"{path}: expected {what}, at most {limit >> 20} MiB, got more")
    return content


def read_rows(path: Path, what: str) -> list[list[str]]:
    """The fields of each line, the first line first; empty lines at the end are left out, one inside has no fields."""
    try:
        lines = read_bytes(path, what).decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected {what} in ASCII, got byte {error.object[error.start]:#04x} at {error.start}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.split() for line in lines]


def expect_fields(where: str, fields: Sequence[str], names: Sequence[str]) -> None:
    """DataError where a line has not one field for each of `names`."""
    if len(fields) != len(names):
        listed = " ".join(names) if len(names) <= 20 else f"{' '.join(names[:6])} ..."
        raise DataError(f"{where}: expected {len(names)} fields ({listed}), got {len(fields)}")


def to_number(where: str, name: str, text: str, *, low: float = -_LARGEST, high: float = _LARGEST) -> float:
    """A field as a float; DataError naming `where` and the field for what is no number of low..high (NaN and infinity are none)."""
    if _NUMBER.fullmatch(text):
        number = float(text)
        if low <= number <= high:
            return number
    within = "" if (low, high) == (-_LARGEST, _LARGEST) else f" in {low:g}..{high:g}"
    raise DataError(f"{where}: {name}: expected a number{within}, got {shown(text)}")


def to_numbers(where: str, name: str, texts: Sequence[str], count: int) -> list[float]:
    """`count` fields as floats; DataError as for `to_number`."""
    if len(texts) != count:
        raise DataError(f"{where}: {name}: expected {count} numbers, got {len(texts)}")
    return [to_number(where, f"{name}[{i}]", text) for i, text in enumerate(texts)]


def to_integer(where: str, name: str, text: str, *, low: int, high: int) -> int:
    """A field as an int; DataError naming `where` and the field for what is no whole number of low..high."""
    if _INTEGER.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    raise DataError(f"{where}: {name}: expected a whole number in {low}..{high}, got {shown(text)}")


def read_timestamps(path: Path) -> list[int]:
    """Microseconds of a `timestamps.txt`, one a frame: dates with nanoseconds, taken as UTC; digits below a microsecond are cut off.

    Raises DataError for a line that is no date or not after the line before.
    """
    times: list[int] = []
    for number, fields in enumerate(read_rows(path, "the times of the frames"), start=1):
        text = " ".join(fields)
        match = _TIME.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            moment = datetime.fromisoformat(f"{match[1]} {match[2]}").replace(tzinfo=timezone.utc)
        except ValueError:
            raise DataError(f"{path}: line {number}: expected a time as 2011-09-26 13:02:25.964389445, got {shown(text)}") from None
        time_us = int(moment.timestamp()) * 1_000_000 + int((match[3] or "0").ljust(9, "0")) // 1000
        if time_us < 0 or (times and time_us <= times[-1]):
            before = times[-1] if times else -1
            raise DataError(f"{path}: line {number}: expected a time after {before} us, got {time_us} us ({shown(text)})")
        times.append(time_us)
    return times
