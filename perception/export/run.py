"""Reading a run's folder back: frames, tracks at any time, tables."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perception.core.borders import wrap_angle
from perception.core.boxes import Boxes3D
from perception.core.classes import NUSCENES_DETECTION, NUSCENES_TRACKING, ClassSet
from perception.core.detections import Detections, Tracks
from perception.core.errors import DataError, UsageError, nearest_hint
from perception.core.transform import Transform, interpolate_pose
from perception.export.schema import SCHEMA_VERSION, SCHEMAS, drive_file

MAX_GAP = 1.0  # seconds between two frames that `tracks_at` bridges


@dataclass(frozen=True, eq=False, repr=False)
class RunFrame:
    """One frame of a run: the ego pose, and the tracks in the global frame (`tracks.transformed(ego_to_global.inverse())` for ego)."""

    index: int
    token: str
    timestamp_us: int
    ego_to_global: Transform
    tracks: Tracks

    def __repr__(self) -> str:
        return f"RunFrame({self.index}, t={self.timestamp_us}, {self.tracks!r})"


def open_run(path: Path | str) -> "Run":
    """Open the folder that `perception track` or `perception run` wrote. DataError where it is none, or of a newer schema."""
    return Run(Path(path))


class Run:
    """The folder of one run: `for drive in run: for frame in drive: frame.tracks`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.info: dict[str, Any] = json.loads((path / "run.json").read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"{path / 'run.json'}: expected the folder of a finished run, got {getattr(error, 'strerror', None) or error}"
            ) from None
        version = self.info.get("schema_version") if isinstance(self.info, dict) else None
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise DataError(f"{path / 'run.json'}: expected schema_version <= {SCHEMA_VERSION}, got {version}; install a newer perception")
        drives = self.info.get("drives")
        if not isinstance(drives, list) or not all(isinstance(name, str) for name in drives):
            raise DataError(f"{path / 'run.json'}: drives: expected a list of names, got {drives!r}")
        self.names: list[str] = drives

    def drive(self, name: str) -> "RunDrive":
        """One drive by name."""
        if name not in self.names:
            raise UsageError(f"{self.path}: no drive {name!r}, it has {len(self.names)}{nearest_hint(name, self.names)}")
        return RunDrive(self.path, name)

    def table(self, kind: str = "tracks") -> pa.Table:
        """All rows of `detections`, `tracks` or `frames` of all drives, as an Arrow table (`.to_pandas()` for pandas)."""
        if kind not in SCHEMAS:
            raise UsageError(f"table {kind!r}: expected one of {', '.join(SCHEMAS)}{nearest_hint(kind, list(SCHEMAS))}")
        files = [self.path / kind / drive_file(name) for name in self.names]
        return pa.concat_tables([SCHEMAS[kind].empty_table(), *(_read(file, kind) for file in files)]).unify_dictionaries()

    def __iter__(self) -> Iterator["RunDrive"]:
        return (self.drive(name) for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Run({self.path}, {len(self)} drives)"


class RunDrive:
    """One drive of a run: its frames in time order, and its tracks at any moment between them."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        frames = _read(path / "frames" / drive_file(name), "frames")
        self.timestamps_us = frames["timestamp_us"].to_numpy()
        self._tokens = frames["token"].to_pylist()
        self._translation = np.stack([frames[f"ego_{axis}"].to_numpy() for axis in "xyz"], axis=1)
        self._rotation = np.stack([frames[f"ego_q{axis}"].to_numpy() for axis in "wxyz"], axis=1)

    @cached_property
    def tracks(self) -> pa.Table:
        """All rows of the drive's tracks, as an Arrow table."""
        return _read(self.path / "tracks" / drive_file(self.name), "tracks")

    @cached_property
    def detections(self) -> pa.Table:
        """All rows of the drive's detections, as an Arrow table."""
        return _read(self.path / "detections" / drive_file(self.name), "detections")

    def detections_of(self, index: int) -> Detections:
        """The detections of a frame, in the global frame."""
        rows = self._detection_rows(index)
        return Detections(**_objects(self.detections.slice(rows.start, rows.stop - rows.start), NUSCENES_DETECTION))

    def tracks_at(self, timestamp_us: int) -> Tracks:
        """The tracks at a time, in the global frame.

        At a frame's own time its tracks. Between two frames (at most 1 s apart) those that both have: position, size, score and age are
        linear between the two, yaw takes the shorter way round, velocity is that of the later frame where the earlier one's is unknown.
        `coasted` where either is; without attributes and numbers of points, which are of a moment. Outside of the drive, or in a larger
        hole: UsageError.
        """
        before, after, fraction = self._around(timestamp_us)
        return self[before].tracks if before == after else _between(self[before].tracks, self[after].tracks, fraction)

    def ego_to_global_at(self, timestamp_us: int) -> Transform:
        """The ego pose at a frame's own time, or at one between two frames as `tracks_at` has it. UsageError as there."""
        before, after, fraction = self._around(timestamp_us)
        return self._pose(before) if before == after else interpolate_pose(self._pose(before), self._pose(after), fraction)

    def __len__(self) -> int:
        return len(self.timestamps_us)

    def __getitem__(self, index: int) -> RunFrame:
        index = range(len(self))[index]
        start, stop = self._track_bounds[index], self._track_bounds[index + 1]
        tracks = _tracks(self.tracks.slice(start, stop - start))
        return RunFrame(index, self._tokens[index], int(self.timestamps_us[index]), self._pose(index), tracks)

    def __iter__(self) -> Iterator[RunFrame]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"RunDrive({self.name}, {len(self)} frames)"

    @cached_property
    def _track_bounds(self) -> np.ndarray:
        return np.searchsorted(self.tracks["frame"].to_numpy(), np.arange(len(self) + 1))

    @cached_property
    def _detection_bounds(self) -> np.ndarray:
        return np.searchsorted(self.detections["frame"].to_numpy(), np.arange(len(self) + 1))

    def _detection_rows(self, index: int) -> slice:
        index = range(len(self))[index]
        return slice(int(self._detection_bounds[index]), int(self._detection_bounds[index + 1]))

    def _around(self, timestamp_us: int) -> tuple[int, int, float]:
        """The frames before and after a time and where it lies between them, 0 to 1; the same frame twice at its own time."""
        after = int(np.searchsorted(self.timestamps_us, timestamp_us))
        if after < len(self) and self.timestamps_us[after] == timestamp_us:
            return after, after, 0.0
        if after in (0, len(self)):
            span = f"{self.timestamps_us[0]}..{self.timestamps_us[-1]}" if len(self) else "none"
            raise UsageError(f"drive {self.name}: expected a time in {span} us, got {timestamp_us}")
        gap = int(self.timestamps_us[after] - self.timestamps_us[after - 1])
        if gap > MAX_GAP * 1e6:
            raise UsageError(f"drive {self.name}: {timestamp_us} us lies in a hole of {gap / 1e6:.2f} s, expected at most {MAX_GAP} s")
        return after - 1, after, (timestamp_us - int(self.timestamps_us[after - 1])) / gap

    def _pose(self, index: int) -> Transform:
        return Transform.from_quaternion(self._rotation[index], self._translation[index])


def _read(path: Path, kind: str) -> pa.Table:
    """The columns of the schema in a file of `detections`, `tracks` or `frames` (kind): later versions may have added nullable ones."""
    if not path.is_file():
        hint = "; perception detect does not track, perception run does" if kind == "tracks" else ""
        raise DataError(f"{path}: expected the {kind} of a run, found no such file{hint}")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: expected a Parquet file of a run, got {str(error).splitlines()[0]}") from None
    for field in SCHEMAS[kind]:
        if field.name not in table.column_names:
            if not field.nullable:
                raise DataError(f"{path}: expected a Parquet file of a run, got one without the column {field.name!r}")
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(SCHEMAS[kind].names)


def _objects(table: pa.Table, known: ClassSet) -> dict[str, Any]:
    """What `Detections` and `Tracks` have in common, in the global frame; attributes and numbers of points None where no row has one."""
    names = table["class"].to_pylist()
    classes = known if all(name in known for name in names) else ClassSet(tuple(dict.fromkeys(names)))
    boxes = Boxes3D(
        np.stack([table[f"{axis}_global"].to_numpy() for axis in "xyz"], axis=1),
        np.stack([table[name].to_numpy().astype(np.float64) for name in ("length", "width", "height")], axis=1),
        table["yaw_global"].to_numpy(),
        np.stack([table[f"v{axis}_global"].to_numpy(zero_copy_only=False).astype(np.float64) for axis in "xy"], axis=1),
    )
    attribute, num_points = table["attribute"], table["num_points"]
    return {
        "boxes": boxes,
        "label": np.array([classes.index(name) for name in names], np.int64),
        "score": table["score"].to_numpy().astype(np.float64),
        "classes": classes,
        "attribute": None if attribute.null_count == len(table) else np.array([text or "" for text in attribute.to_pylist()], np.str_),
        "num_points": None if num_points.null_count == len(table) else num_points.fill_null(-1).to_numpy().astype(np.int64),
    }


def _tracks(table: pa.Table) -> Tracks:
    return Tracks(
        **_objects(table, NUSCENES_TRACKING),
        track_id=table["track_id"].to_numpy(),
        age=table["age"].to_numpy().astype(np.float64),
        hits=table["hits"].to_numpy().astype(np.int64),
        coasted=table["coasted"].to_numpy(zero_copy_only=False),
    )


def _between(before: Tracks, after: Tracks, fraction: float) -> Tracks:
    """The tracks that both frames have, at `fraction` of the way."""
    _ids, i, j = np.intersect1d(before.track_id, after.track_id, return_indices=True)
    a, b = before[i], after[j]

    def mix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return first + fraction * (second - first)

    velocity = np.where(np.isnan(a.boxes.velocity), b.boxes.velocity, mix(a.boxes.velocity, b.boxes.velocity))
    yaw = wrap_angle(a.boxes.yaw + fraction * wrap_angle(b.boxes.yaw - a.boxes.yaw))
    boxes = Boxes3D(mix(a.boxes.center, b.boxes.center), mix(a.boxes.size, b.boxes.size), yaw, velocity)
    return Tracks(boxes, a.label, mix(a.score, b.score), a.classes, a.track_id, mix(a.age, b.age), a.hits, a.coasted | b.coasted)
