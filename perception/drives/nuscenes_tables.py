"""The 13 JSON tables of a nuScenes version as typed columns, checked row by row; a bad row is named by table, row and token."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from perception.core.errors import DataError, shown
from perception.core.json_stream import iter_rows

pc: Any = pyarrow.compute  # its functions are made when it is imported, type checkers do not see them
Kind = Literal["token", "text", "first", "filename", "int", "pixels", "time", "bool", "position", "size", "rotation", "matrix"]
Columns = dict[str, Any]  # str kinds: pa.ChunkedArray; numbers: np.ndarray

TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map",
    "sample", "sample_annotation", "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip

# What is read of each table. `first`: the first token of a list, "" where it is empty. `matrix`: 3 x 3, NaN where the list is empty.
# `token` is not empty; `filename` stays inside of the dataroot.
FIELDS: dict[str, dict[str, Kind]] = {
    "attribute": {"token": "token", "name": "text"},
    "calibrated_sensor": {
        "token": "token", "sensor_token": "token", "translation": "position", "rotation": "rotation", "camera_intrinsic": "matrix"
    },
    "category": {"token": "token", "name": "text"},
    "ego_pose": {"token": "token", "translation": "position", "rotation": "rotation"},
    "instance": {"token": "token", "category_token": "token"},
    "log": {"token": "token", "logfile": "text", "location": "text"},
    "sample": {"token": "token", "timestamp": "time", "scene_token": "token"},
    "sample_annotation": {
        "token": "token", "sample_token": "token", "instance_token": "token", "visibility_token": "text", "attribute_tokens": "first",
        "translation": "position", "size": "size", "rotation": "rotation", "prev": "text", "next": "text", "num_lidar_pts": "int",
    },
    "sample_data": {
        "token": "token", "sample_token": "token", "ego_pose_token": "token", "calibrated_sensor_token": "token", "timestamp": "time",
        "is_key_frame": "bool", "height": "pixels", "width": "pixels", "filename": "filename",
    },
    "scene": {"token": "token", "name": "text", "log_token": "token"},
    "sensor": {"token": "token", "channel": "text", "modality": "text"},
    "visibility": {"token": "token", "level": "text"},
}  # fmt: skip


_EXPECTED: dict[Kind, str] = {
    "token": "a token",
    "text": "text",
    "first": "a list of tokens",
    "filename": "a path inside of the dataroot",
    "int": "a whole number below 2^31",
    "pixels": "a whole number of pixels, 0 or more",
    "time": "whole microseconds, 0 or more",
    "bool": "true or false",
    "position": "3 numbers, metres",
    "size": "w, l, h > 0",
    "rotation": "a quaternion w x y z, not all zero",
    "matrix": "3 x 3 numbers or an empty list",
}
_INT_RANGE: dict[Kind, tuple[int, int]] = {"int": (-(2**31), 2**31 - 1), "pixels": (0, 2**31 - 1), "time": (0, 2**53)}
_LARGEST = 1e12  # farther than any coordinate; squares and differences of what is smaller stay finite
_SMALLEST_NORM = 1e-6
# Absolute, a drive letter, a step up, no name at all, or control characters, which would break a line of a message.
_OUTSIDE = r"(^[./\\]*$|^[/\\]|^.:|(^|[/\\])\.\.([/\\]|$)|[\x00-\x1f\x7f])"
_SPLIT_ABOVE = 200_000
_BAD_VALUE = (KeyError, TypeError, ValueError, OverflowError, pa.ArrowException)


def read_table(folder: Path, table: str) -> Columns:
    """All rows of a table, as columns; tokens are checked to be different. DataError names table, row, token and field."""
    columns = concatenate_columns(list(iter_table(folder, table)))
    expect_distinct(folder, table, columns["token"])
    return columns


def iter_table(folder: Path, table: str, *, min_rows: int = 1) -> Iterator[Columns]:
    """The rows of a table as columns, `min_rows` or some thousands more at a time (the large tables do not fit otherwise)."""
    path = folder / f"{table}.json"
    pieces: list[Columns] = []
    num_rows = 0
    for first, rows in iter_rows(path):
        columns: Columns = {}
        for field, kind in FIELDS[table].items():
            try:
                columns[field] = _column([row[field] for row in rows], kind)
            except _BAD_VALUE:
                raise _first_bad_row(path, first, rows, field, kind) from None
        num_rows += len(rows)
        del rows  # before the next ones are parsed: as objects they are ten times as large
        pieces.append(columns)
        if num_rows >= min_rows:
            del columns
            yield concatenate_columns(pieces)
            release_memory()
            num_rows = 0
    if pieces:
        yield concatenate_columns(pieces)


def concatenate_columns(pieces: list[Columns]) -> Columns:
    """The rows of all pieces, one piece at least; the list is emptied, so that the memory is there once only."""
    columns: Columns = {}
    for name in list(pieces[0]):
        parts = [piece.pop(name) for piece in pieces]
        if isinstance(parts[0], np.ndarray):
            columns[name] = np.concatenate(parts)
        else:
            chunks = chain.from_iterable(part.chunks if isinstance(part, pa.ChunkedArray) else [part] for part in parts)
            columns[name] = pa.chunked_array(chunks, type=pa.string())
    pieces.clear()
    return columns


def release_memory() -> None:
    """Give freed memory back to the system, which Arrow and the C library like to keep: hundreds of megabytes with the large tables."""
    for pool in (pa.default_memory_pool(), pa.system_memory_pool()):  # releasing the system's pool trims the heap of malloc, NumPy's too
        pool.release_unused()


def expect_distinct(folder: Path, table: str, tokens: pa.ChunkedArray, field: str = "token") -> None:
    """DataError naming a token (or another field) that comes twice."""
    for mask in _masks(tokens, len(tokens)):
        some = tokens if mask is None else tokens.filter(mask)
        if pc.count_distinct(some).as_py() != len(some):
            counts = pc.value_counts(some)
            twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]
            times = twice["counts"].as_py()
            raise DataError(f"{folder / table}.json: {field} {shown(twice['values'].as_py())} comes {times} times, expected once")


def resolve(
    folder: Path, table: str, columns: Columns, field: str, target: str, targets: pa.ChunkedArray, *, may_be_empty: bool = False
) -> np.ndarray:
    """(N,) int64 row in table `target` of the token in each row's `field`; -1 for "" where that is allowed.

    Raises DataError for the first token that points nowhere.
    """
    index = index_in(columns[field], targets)
    bad = index < 0
    if may_be_empty and bad.any():
        bad &= ~pc.equal(columns[field], "").to_numpy()
    if bad.any():
        raise points_nowhere(folder, table, columns, field, target, int(bad.argmax()))
    return index


def points_nowhere(folder: Path, table: str, columns: Columns, field: str, target: str, row: int) -> DataError:
    """The error for a row whose `field` holds no token of `target`."""
    owner, token = columns["token"][row].as_py(), columns[field][row].as_py()
    return DataError(f"{folder / table}.json: token {shown(owner)}: {field} {shown(token)} is not in {target}.json")


def index_in(tokens: pa.ChunkedArray, targets: pa.ChunkedArray) -> np.ndarray:
    """(N,) int64 first row of each token in `targets`, -1 where it is not there."""
    index = np.full(len(tokens), -1, np.int64)
    # Arrow's hash table of 2.6 million tokens takes 300 MB and misses every processor cache; a sixteenth at a time does neither.
    for mask, target_mask in zip(_masks(tokens, len(targets)), _masks(targets, len(targets)), strict=True):
        if mask is None or target_mask is None:
            return pc.index_in(tokens, value_set=targets).fill_null(-1).to_numpy().astype(np.int64)
        rows, target_rows = (np.flatnonzero(m.to_numpy()) for m in (mask, target_mask))
        found = pc.index_in(tokens.filter(mask), value_set=targets.filter(target_mask)).fill_null(-1).to_numpy()
        index[rows[found >= 0]] = target_rows[found[found >= 0]]
    return index


def _masks(tokens: pa.ChunkedArray, size: int) -> Iterator[pa.ChunkedArray | None]:
    """One None for all at once where `size` is small; else masks that cut the tokens by their last character: 16 digits, and the rest."""
    if size < _SPLIT_ABOVE:
        yield None
        return
    rest = pc.equal(tokens, tokens)
    for digit in "0123456789abcdef":
        mask = pc.ends_with(tokens, digit)
        rest = pc.and_not(rest, mask)
        yield mask
    yield rest


def _column(values: list[Any], kind: Kind) -> Any:
    """Values of one field as a typed column; raises one of `_BAD_VALUE` where a value does not fit."""
    if kind in ("token", "text", "filename"):
        column = pa.array(values, type=pa.string())
        if column.null_count or (kind == "token" and pc.any(pc.equal(column, "")).as_py()):
            raise ValueError
        if kind == "filename" and pc.any(pc.match_substring_regex(column, _OUTSIDE)).as_py():
            raise ValueError
        return column
    if kind == "first":
        _expect_types(values, {list})
        return _column([value[0] if value else "" for value in values], "text")
    if kind == "bool":
        _expect_types(values, {bool})
        return np.array(values, dtype=bool)
    if kind in _INT_RANGE:
        _expect_types(values, {int})  # Arrow would take 1.5 for 1
        column = np.array(values, dtype=np.int64)
        low, high = _INT_RANGE[kind]
        if len(column) and (column.min() < low or column.max() > high):
            raise ValueError
        return column if kind == "time" else column.astype(np.int32)
    if kind == "matrix":
        return _floats([[[np.nan] * 3] * 3 if value == [] else value for value in values], (3, 3))
    column = _floats(values, (4,) if kind == "rotation" else (3,))
    if (kind == "size" and not (column > 0).all()) or (
        kind == "rotation" and not (np.abs(column).max(axis=1, initial=0) > _SMALLEST_NORM).all()
    ):
        raise ValueError
    return column


def _floats(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """(N, *shape) float64 of nested lists; flattened first, which takes half the time of NumPy's own way and is strict."""
    count = len(values)
    for length in shape:
        _expect_types(values, {list})
        if set(map(len, values)) - {length}:
            raise ValueError
        values = list(chain.from_iterable(values))
    _expect_types(values, {float, int})
    column = np.array(values, dtype=np.float64).reshape(count, *shape)
    if (np.abs(column) > _LARGEST).any():
        raise ValueError
    return column


def _expect_types(values: list[Any], types: set[type]) -> None:
    if not types.issuperset(map(type, values)):
        raise TypeError


def _first_bad_row(path: Path, first: int, rows: list[dict[str, Any]], field: str, kind: Kind) -> DataError:
    """The error for the first of `rows` whose `field` does not fit."""
    for i, row in enumerate(rows):
        where = f"{path}: row {first + i} (token {shown(row.get('token'))})"
        try:
            _column([row[field]], kind)
        except KeyError:
            return DataError(f"{where}: field {field!r} is missing")
        except _BAD_VALUE:
            refused = "; refused" if kind == "filename" else ""
            return DataError(f"{where}: {field}: expected {_EXPECTED[kind]}, got {shown(row[field])}{refused}")
    return DataError(f"{path}: rows {first}..{first + len(rows) - 1}: {field}: expected {_EXPECTED[kind]} in each row")
