"""Detections, tracks and frames of one drive into Parquet files, frame by frame as they come."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perception.core.borders import wrap_angle
from perception.core.detections import Detections, Tracks
from perception.core.files import atomic_write
from perception.core.transform import Transform
from perception.export.schema import SCHEMA_VERSION, SCHEMAS

_ROWS_A_GROUP = 1 << 16
_FRAMES_A_GROUP = 1 << 10  # a frame's own row waits as Python objects, which take ten times as much memory


class DriveWriter:
    """Collects the rows of one drive's file. Made by `drive_writer`."""

    def __init__(self, kind: str, drive: str, config_hash: str, writer: pq.ParquetWriter) -> None:
        self.kind, self.drive, self.config_hash = kind, drive, config_hash
        self.num_rows = 0
        self._writer = writer
        self._pending: list[dict[str, Any]] = []
        self._num_pending = 0

    def add_objects(self, frame: int, timestamp_us: int, objects: Detections | Tracks, ego_to_global: Transform) -> None:
        """The objects of one frame; their boxes are in the global frame."""
        count = len(objects)
        if not count:
            return
        in_ego = objects.boxes.transformed(ego_to_global.inverse())
        columns: dict[str, Any] = {
            "frame": np.full(count, frame, np.int32),
            "timestamp_us": np.full(count, timestamp_us, np.int64),
            "class": objects.names,
            "score": objects.score,
            "length": objects.boxes.size[:, 0],
            "width": objects.boxes.size[:, 1],
            "height": objects.boxes.size[:, 2],
            "attribute": np.full(count, "") if objects.attribute is None else objects.attribute,
            "num_points": np.full(count, -1) if objects.num_points is None else objects.num_points,
        }
        for name, boxes in (("global", objects.boxes), ("ego", in_ego)):
            for i, axis in enumerate("xyz"):
                columns[f"{axis}_{name}"] = boxes.center[:, i]
            columns[f"yaw_{name}"] = wrap_angle(boxes.yaw)
            columns[f"vx_{name}"], columns[f"vy_{name}"] = boxes.velocity.T
        if isinstance(objects, Tracks):
            columns |= {name: getattr(objects, name) for name in ("track_id", "age", "hits", "coasted")}
        self._push(columns, count)

    def add_frame(self, frame: int, timestamp_us: int, token: str, ego_to_global: Transform) -> None:
        """The time and pose of one frame."""
        columns: dict[str, Any] = {"frame": [frame], "timestamp_us": [timestamp_us], "token": [token]}
        columns |= {f"ego_{axis}": [value] for axis, value in zip("xyz", ego_to_global.translation, strict=True)}
        columns |= {f"ego_q{axis}": [value] for axis, value in zip("wxyz", ego_to_global.quaternion, strict=True)}
        self._push(columns, 1)

    def flush(self) -> None:
        """Hand the collected rows to the file."""
        if not self._num_pending:
            return
        columns = {name: np.concatenate([part[name] for part in self._pending]) for name in self._pending[0]}
        schema = SCHEMAS[self.kind]
        constants = {"drive": self.drive, "config_hash": self.config_hash}
        arrays = []
        for field in schema:
            if field.name in constants:
                zeros = pa.array(np.zeros(self._num_pending, np.int32))
                arrays.append(pa.DictionaryArray.from_arrays(zeros, pa.array([constants[field.name]])))
            elif field.name == "schema_version":
                arrays.append(pa.array(np.full(self._num_pending, SCHEMA_VERSION, np.int16)))
            else:
                arrays.append(_to_arrow(columns[field.name], field))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        self._pending, self._num_pending = [], 0

    def _push(self, columns: dict[str, Any], count: int) -> None:
        self._pending.append(columns)
        self._num_pending += count
        self.num_rows += count
        if self._num_pending >= _ROWS_A_GROUP or len(self._pending) >= _FRAMES_A_GROUP:
            self.flush()


@contextlib.contextmanager
def drive_writer(path: Path, kind: str, drive: str, config_hash: str) -> Iterator[DriveWriter]:
    """A writer of one drive's `detections`, `tracks` or `frames` (kind); the file appears complete or not at all."""
    with atomic_write(path) as file, pq.ParquetWriter(file, SCHEMAS[kind], compression="zstd") as parquet:
        writer = DriveWriter(kind, drive, config_hash, parquet)
        yield writer
        writer.flush()


def _to_arrow(values: np.ndarray, field: pa.Field) -> pa.Array:
    """A column in the field's type; what stands for "unknown" in our values (NaN, "", -1) becomes null where the field may be null."""
    if pa.types.is_dictionary(field.type):
        return pa.array(values.tolist(), pa.string(), mask=(values == "") if field.nullable else None).dictionary_encode()
    mask = None
    if field.nullable:
        mask = np.isnan(values) if values.dtype.kind == "f" else values < 0
    return pa.array(values.tolist() if values.dtype.kind == "U" else values, mask=mask).cast(field.type)
