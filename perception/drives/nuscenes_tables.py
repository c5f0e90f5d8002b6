"""The 13 JSON tables of a nuScenes version as typed columns, checked row by row; a bad row is named by table, row and token."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perception.core.errors import DataError
from perception.core.json_stream import iter_rows

Kind = Literal["token", "text", "first", "int", "bool", "vector3", "vector4", "matrix"]
Columns = dict[str, Any]  # str kinds: pa.ChunkedArray; numbers: np.ndarray

TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map",
    "sample", "sample_annotation", "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip

# What is read of each table. `first`: the first token of a list, "" where it is empty. `matrix`: 3 x 3, NaN where the list is empty.
FIELDS: dict[str, dict[str, Kind]] = {
    "attribute": {"token": "token", "name": "text"},
    "calibrated_sensor": {
        "token": "token", "sensor_token": "token", "translation": "vector3", "rotation": "vector4", "camera_intrinsic": "matrix"
    },
    "category": {"token": "token", "name": "text"},
    "ego_pose": {"token": "token", "translation": "vector3", "rotation": "vector4"},
    "instance": {"token": "token", "category_token": "token"},
    "log": {"token": "token", "logfile": "text", "location": "text"},
    "sample": {"token": "token", "timestamp": "int", "scene_token": "token"},
    "sample_annotation": {
        "token": "token", "sample_token": "token", "instance_token": "token", "visibility_token": "text", "attribute_tokens": "first",
        "translation": "vector3", "size": "vector3", "rotation": "vector4", "prev": "text", "next": "text", "num_lidar_pts": "int",
    },
    "sample_data": {
        "token": "token", "sample_token": "token", "ego_pose_token": "token", "calibrated_sensor_token": "token", "timestamp": "int",
        "is_key_frame": "bool", "height": "int", "width": "int", "filename": "text",
    },
    "scene": {"token": "token", "name": "text", "log_token": "token"},
    "sensor": {"token": "token", "channel": "text", "modality": "text"},
    "visibility": {"token": "token", "level": "text"},
}  # fmt: skip


def read_table(folder: Path, table: str) -> Columns:
    """All rows of a table, as columns; tokens are checked to be different. DataError names table, row, token and field."""
    pieces = list(iter_table(folder, table))
    columns: Columns = {}
    for name, kind in FIELDS[table].items():
        parts = [piece.pop(name) for piece in pieces]
        columns[name] = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else pa.chunked_array(parts, type=pa.string())
    expect_distinct(folder, table, columns["token"])
    return columns


def iter_table(folder: Path, table: str) -> Iterator[Columns]:
    """The rows of a table as columns, some thousands at a time (the large tables do not fit otherwise)."""
    path = folder / f"{table}.json"
    for first, rows in iter_rows(path):
        columns: Columns = {}
        for field, kind in FIELDS[table].items():
            try:
                columns[field] = _column([row[field] for row in rows], kind)
            except (KeyError, TypeError, ValueError, OverflowError, pa.ArrowException):
                raise _first_bad_row(path, first, rows, field, kind) from None
        yield columns


def expect_distinct(folder: Path, table: str, tokens: pa.ChunkedArray) -> None:
    """DataError naming a token that comes twice."""
    if pc.count_distinct(tokens).as_py() != len(tokens):
        counts = pc.value_counts(tokens)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]
        raise DataError(f"{folder / table}.json: token {twice['values'].as_py()!r} comes {twice['counts'].as_py()} times, expected once")


def resolve(folder: Path, table: str, columns: Columns, field: str, target: str, targets: pa.ChunkedArray, *, may_be_empty: bool = False) -> np.ndarray:
    """(N,) int64 row in table `target` of the token in each row's `field`; -1 for "" where that is allowed.

    Raises DataError for the first token that points nowhere.
    """
    tokens = columns[field]
    found = pc.index_in(tokens, value_set=targets).combine_chunks()
    index = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    bad = index < 0
    if may_be_empty and bad.any():
        bad &= ~pc.equal(tokens, "").combine_chunks().to_numpy(zero_copy_only=False)
    if bad.any():
        row = int(bad.argmax())
        owner = columns["token"][row].as_py()
        raise DataError(f"{folder / table}.json: token {owner!r}: {field} {tokens[row].as_py()!r} is not in {target}.json")
    return index


def _column(values: list[Any], kind: Kind) -> Any:
    """Values of one field as a typed column; raises one of the usual exceptions where a value does not fit."""
    if kind in ("token", "text"):
        column = pa.array(values, type=pa.string())
        if column.null_count or (kind == "token" and pc.any(pc.equal(column, "")).as_py()):
            raise ValueError
        return column
    if kind == "first":
        if not all(type(value) is list for value in values):
            raise TypeError
        return _column([value[0] if value else "" for value in values], "text")
    if kind == "int":
        column = pa.array(values, type=pa.int64())
        if column.null_count:
            raise ValueError
        return column.to_numpy()
    if kind == "bool":
        return pa.array(values, type=pa.bool_()).to_numpy(zero_copy_only=False).astype(bool)
    if kind == "matrix":
        values = [value or [[np.nan] * 3] * 3 for value in values]
    shape = {"vector3": (3,), "vector4": (4,), "matrix": (3, 3)}[kind]
    column = np.array(values, dtype=np.float64).reshape(len(values), *shape) if values else np.zeros((0, *shape))
    if kind != "matrix" and not np.isfinite(column).all():
        raise ValueError
    return column


def _first_bad_row(path: Path, first: int, rows: list[dict[str, Any]], field: str, kind: Kind) -> DataError:
    """The error for the first of `rows` whose `field` does not fit."""
    expected = {
        "token": "a token", "text": "text", "first": "a list of tokens", "int": "a whole number", "bool": "true or false",
        "vector3": "3 finite numbers", "vector4": "4 finite numbers", "matrix": "3 x 3 numbers or an empty list",
    }[kind]  # fmt: skip
    for i, row in enumerate(rows):
        try:
            _column([row[field]], kind)
        except KeyError:
            return DataError(f"{path}: row {first + i} (token {row.get('token')!r}): field {field!r} is missing")
        except (TypeError, ValueError, OverflowError, pa.ArrowException):
            got = repr(row[field])
            got = got if len(got) <= 60 else got[:57] + "..."
            return DataError(f"{path}: row {first + i} (token {row.get('token')!r}): {field}: expected {expected}, got {got}")
    return DataError(f"{path}: rows {first}..{first + len(rows) - 1}: {field}: expected {expected} in each row")
