"""The joined tables of a nuScenes version, built once and cached, then opened by memory map in milliseconds.

Trainval has 1.17 million annotations and 2.6 million sample_data rows in 2.4 GB of JSON. The index resolves every token to a row, puts the
ego pose beside each sensor record, sorts records by scene, channel and time, adds the velocity of each annotation, and keeps lidar and
cameras only. It lies in the XDG cache under the digest of the tables' content; a second key of path, size and time stamps of the files
finds the digest again without reading them.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from perception.core.errors import DataError
from perception.core.files import atomic_write, write_bytes
from perception.drives.nuscenes_tables import (
    TABLES,
    Columns,
    concatenate_columns,
    expect_distinct,
    index_in,
    iter_table,
    points_nowhere,
    read_table,
    release_memory,
    resolve,
)

FORMAT = 3  # raise with every change of what the index holds
_PARTS = ("names", "scene", "sample", "annotation", "instance", "record", "calibration")
_ROWS_AT_ONCE = 150_000  # of the large tables, while their tokens are looked up
_INDEX_NAME, _LEFTOVER_NAME = re.compile(r"[0-9a-f]{32}"), re.compile(r"\.[0-9a-f]{8}-.*\.partial")
_KEEP_UNUSED = 24 * 3600.0  # seconds; another process may be building or about to note an index
_MAX_VELOCITY_GAP = 1.5  # devkit NuScenes.box_velocity: seconds between neighbours, twice that for both sides
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class NuScenesIndex:
    """Memory-mapped columns of a version. Rows of one table name rows of another by number; -1 is "none".

    names        one row of lists of text: category, attribute, channel
    scene        token, name, log, location; first_sample, num_samples
    sample       by scene, then time: token, timestamp, scene; first_annotation, num_annotations; key_record (C,) one a channel
    annotation   by sample: token, instance, category, attribute, visibility (1..4, 0 none), translation (3,), size (3,) = w l h,
                 rotation (4,), velocity (3,) NaN unknown, num_lidar_pts
    record       sample_data of lidar and cameras by scene, channel, time: token, sample, channel, calibration, timestamp, is_key,
                 filename, width, height, ego_translation (3,), ego_rotation (4,)
    calibration  token, channel, translation (3,), rotation (4,), intrinsics (3, 3) NaN for lidars
    """

    tables: dict[str, pa.Table]

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """Names by number: of the columns `category`, `attribute` and `channel`."""
        return self.tables["names"].to_pylist()[0]

    def numbers(self, table: str, column: str) -> np.ndarray:
        """A numeric column as an array (N, ...) without copying."""
        key = f"{table}.{column}"
        if key not in self._arrays:
            self._arrays[key] = _to_numpy(self.tables[table].column(column))
        return self._arrays[key]

    def text(self, table: str, column: str, row: int) -> str:
        return self.tables[table].column(column)[int(row)].as_py()

    def texts(self, table: str, column: str, rows: slice | None = None) -> list[str]:
        values = self.tables[table].column(column)
        return (values if rows is None else values.slice(rows.start, rows.stop - rows.start)).to_pylist()

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def sample_row(self) -> dict[str, int]:
        """Sample token -> row."""
        return {token: row for row, token in enumerate(self.texts("sample", "token"))}

    @cached_property
    def scene_row(self) -> dict[str, int]:
        """Scene name -> row."""
        return {name: row for row, name in enumerate(self.texts("scene", "name"))}


def open_index(folder: Path, *, cache: Path | None = None, tell: Callable[[str], None] = log.info) -> NuScenesIndex:
    """The index of the version in `folder`, from the cache or built now.

    cache  folder for indices, default $XDG_CACHE_HOME/perception/nuscenes
    tell   receives one line before and after a build
    Raises DataError for tables that are missing, broken or contradict each other.
    """
    cache = cache or _cache_home() / "perception" / "nuscenes"
    signature = _signature(folder)
    note = cache / "seen" / f"{hashlib.blake2b(str(folder.resolve()).encode(), digest_size=16).hexdigest()}.json"
    digest = _known_digest(note, signature) or _digest(folder)
    index = _open(cache / digest)
    if index is None:
        tell(f"indexing {folder} (once)")
        start = time.monotonic()
        try:
            index = _store(cache / digest, _build(folder), lambda: _expect_unchanged(folder, signature))
        except OSError as error:  # a read-only home still reads data, only slower the next time
            tell(f"the index cannot be kept in {cache}: {error.strerror or error}")
        if index is None:
            index = NuScenesIndex(dict(_build(folder)))
            _expect_unchanged(folder, signature)
        tell(f"indexed {folder} in {time.monotonic() - start:.1f} s")
    try:
        if _known_digest(note, signature) != digest:
            write_bytes(note, json.dumps({"folder": str(folder.resolve()), "signature": signature, "digest": digest}).encode())
            _forget_unused(cache)
    except OSError:
        log.debug("no note at %s", note)
    return index


def _cache_home() -> Path:
    """$XDG_CACHE_HOME or ~/.cache; a folder for temporary files for a user without a home, as in some containers."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"perception-{os.getuid()}"


def _forget_unused(cache: Path) -> None:
    """Remove indices that no version folder has any more (trainval's takes half a gigabyte), and what a killed build left behind."""
    used = set()
    for note in (cache / "seen").glob("*.json"):
        try:
            seen = json.loads(note.read_bytes())
            if Path(seen["folder"]).is_dir():
                used.add(seen["digest"])
            else:
                note.unlink()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    for folder in cache.iterdir():
        # by name and content, for the folder may be one that the user keeps other things in
        is_index = _INDEX_NAME.fullmatch(folder.name) and folder.name not in used and (folder / "names.arrow").is_file()
        is_leftover = _LEFTOVER_NAME.fullmatch(folder.name)
        if (is_index or is_leftover) and time.time() - folder.stat().st_mtime > _KEEP_UNUSED:
            shutil.rmtree(folder, ignore_errors=True)


def _signature(folder: Path) -> list[list[Any]]:
    """What tells that no table changed since it was digested: size, times and file number, as git does."""
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the folder of a nuScenes version with its 13 tables, found none")
    signature = []
    for table in TABLES:
        try:
            stat = (folder / f"{table}.json").stat()
        except OSError as error:
            raise DataError(f"{folder / table}.json: expected a table of a nuScenes version, got {error.strerror}") from None
        signature.append([table, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    return signature


def _expect_unchanged(folder: Path, signature: list[list[Any]]) -> None:
    if _signature(folder) != signature:
        raise DataError(f"{folder}: expected tables at rest, they changed while they were read; try again when they are complete")


def _known_digest(note: Path, signature: list[list[Any]]) -> str | None:
    try:
        seen = json.loads(note.read_bytes())
        digest = seen["digest"] if seen["signature"] == signature else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return digest if isinstance(digest, str) and digest.isalnum() else None


def _digest(folder: Path) -> str:
    digest = hashlib.blake2b(f"format {FORMAT}".encode(), digest_size=16)
    for table in TABLES:
        digest.update(table.encode())
        path = folder / f"{table}.json"
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path}: expected a readable file, got {error.strerror or error}") from None
    return digest.hexdigest()


def _open(folder: Path) -> NuScenesIndex | None:
    """The stored index, or None where there is none or it is damaged."""
    try:
        tables = {part: pa.ipc.open_file(pa.memory_map(str(folder / f"{part}.arrow"))).read_all() for part in _PARTS}
        for part, table in tables.items():
            table.validate()
            if table.schema.metadata != _about(part, table.num_rows):
                return None
    except (OSError, ValueError, pa.ArrowException):
        return None
    return NuScenesIndex(tables)


def _store(folder: Path, parts: Iterator[tuple[str, pa.Table]], before_naming: Callable[[], None]) -> NuScenesIndex | None:
    """Write each part aside as it comes, then move all to `folder`, and open them there; another process may have been first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:8]}-", suffix=".partial", dir=folder.parent))
    try:
        for part, table in parts:
            schema = table.schema.with_metadata(_about(part, table.num_rows))
            with atomic_write(aside / f"{part}.arrow") as file, pa.ipc.new_file(file, schema) as writer:
                writer.write_table(table)
            del table  # on disk: its memory goes to the parts to come
            release_memory()
        before_naming()
        if (stored := _open(folder)) is not None:
            return stored
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one, if any
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _open(folder)


def _about(part: str, num_rows: int) -> dict[bytes, bytes]:
    """What is written with a part and must be found again."""
    return {b"part": part.encode(), b"format": str(FORMAT).encode(), b"rows": str(num_rows).encode()}


def _build(folder: Path) -> Iterator[tuple[str, pa.Table]]:
    """Read, check and join all tables; the parts of the index come one at a time, so that no two large ones need be in memory."""
    small = ("attribute", "calibrated_sensor", "category", "instance", "log", "scene", "sensor", "visibility")
    read = {table: read_table(folder, table) for table in small}
    scene, sample = _join_scenes(folder, read)
    calibration, channels = _join_calibrations(folder, read)
    if not channels:
        raise DataError(f"{folder / 'sensor.json'}: expected a lidar or a camera among the sensors, got neither")
    category = resolve(folder, "instance", read["instance"], "category_token", "category", read["category"]["token"])
    instance = {"token": read["instance"]["token"], "category": category.astype(np.int16)}

    annotation = _join_annotations(folder, read, sample, instance)
    counts = np.bincount(annotation["sample"], minlength=len(sample["token"]))
    sample["num_annotations"], sample["first_annotation"] = counts, np.cumsum(counts) - counts
    yield "annotation", _to_table(annotation)

    record = _join_records(folder, read["calibrated_sensor"], calibration, sample)
    key_record = np.full((len(sample["token"]), len(channels)), -1, np.int64)
    is_key = np.flatnonzero(record["is_key"])
    key_record[record["sample"][is_key], record["channel"][is_key]] = is_key
    sample["key_record"] = key_record
    yield "record", _to_table(record)

    for part, columns in {"scene": scene, "sample": sample, "instance": instance, "calibration": calibration}.items():
        yield part, _to_table(columns)
    names = {"category": read["category"]["name"].to_pylist(), "attribute": read["attribute"]["name"].to_pylist(), "channel": channels}
    yield "names", pa.table({name: pa.array([values], pa.list_(pa.string())) for name, values in names.items()})


def _join_scenes(folder: Path, read: dict[str, Columns]) -> tuple[Columns, Columns]:
    """Scenes, and their samples in the order of scenes and time."""
    scenes, samples = read["scene"], read_table(folder, "sample")
    log = resolve(folder, "scene", scenes, "log_token", "log", read["log"]["token"])
    of_scene = resolve(folder, "sample", samples, "scene_token", "scene", scenes["token"])
    expect_distinct(folder, "scene", scenes["name"], "name")
    counts = np.bincount(of_scene, minlength=len(log))
    scene = {
        "token": scenes["token"],
        "name": scenes["name"],
        "log": read["log"]["logfile"].take(pa.array(log)),
        "location": read["log"]["location"].take(pa.array(log)),
        "num_samples": counts,
        "first_sample": np.cumsum(counts) - counts,
    }
    order = np.lexsort((samples["timestamp"], of_scene))
    return scene, {"token": _take(samples["token"], order), "timestamp": samples["timestamp"][order], "scene": of_scene[order]}


def _join_calibrations(folder: Path, read: dict[str, Columns]) -> tuple[Columns, list[str]]:
    sensors, rows = read["sensor"], read["calibrated_sensor"]
    channels = sensors["channel"].to_pylist()
    usable = [modality in ("lidar", "camera") for modality in sensors["modality"].to_pylist()]
    names = sorted({channel for channel, use in zip(channels, usable, strict=True) if use})
    number = {name: i for i, name in enumerate(names)}
    channel_of_sensor = np.array([number[c] if use else -1 for c, use in zip(channels, usable, strict=True)], np.int16)
    sensor = resolve(folder, "calibrated_sensor", rows, "sensor_token", "sensor", sensors["token"])
    return {
        "token": rows["token"],
        "channel": channel_of_sensor[sensor],
        "translation": rows["translation"],
        "rotation": rows["rotation"],
        "intrinsics": rows["camera_intrinsic"],
    }, names


def _join_annotations(folder: Path, read: dict[str, Columns], sample: Columns, instance: Columns) -> Columns:
    table = "sample_annotation"
    levels = np.array([_visibility_level(text) for text in read["visibility"]["level"].to_pylist()] + [0], np.int8)
    pieces: list[Columns] = []
    for rows in iter_table(folder, table, min_rows=_ROWS_AT_ONCE):
        of_sample = resolve(folder, table, rows, "sample_token", "sample", sample["token"])
        of_instance = resolve(folder, table, rows, "instance_token", "instance", instance["token"])
        attribute = resolve(folder, table, rows, "attribute_tokens", "attribute", read["attribute"]["token"], may_be_empty=True)
        visibility = resolve(folder, table, rows, "visibility_token", "visibility", read["visibility"]["token"], may_be_empty=True)
        piece = {name: rows[name] for name in ("token", "prev", "next", "translation", "size", "rotation", "num_lidar_pts")}
        piece |= {"sample": of_sample.astype(np.int32), "instance": of_instance.astype(np.int32)}
        pieces.append(piece | {"attribute": attribute.astype(np.int16), "visibility": levels[visibility]})
    columns = concatenate_columns(pieces)
    release_memory()
    expect_distinct(folder, table, columns["token"])
    before, after = (resolve(folder, table, columns, side, table, columns["token"], may_be_empty=True) for side in ("prev", "next"))
    del columns["prev"], columns["next"]
    columns["velocity"] = annotation_velocity(columns["translation"], sample["timestamp"][columns["sample"]], before, after)
    columns["category"] = instance["category"][columns["instance"]]
    del before, after
    release_memory()
    order = np.argsort(columns["sample"], kind="stable")
    return _sorted(columns, order)


def annotation_velocity(translation: np.ndarray, timestamp_us: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(N, 3) m/s by central difference over an object's neighbouring annotations, one-sided at its ends.

    translation  (N, 3) metres, global; timestamp_us (N,) int64
    before       (N,) row of the same object's annotation before, -1 none; `after` likewise
    NaN for an object with no neighbour or with one farther than 1.5 s a side. Source: nuScenes devkit `NuScenes.box_velocity`.
    """
    rows = np.arange(len(translation))
    first, last = np.where(before >= 0, before, rows), np.where(after >= 0, after, rows)
    # The devkit subtracts float seconds, which are rounded to 0.2 us: done likewise, or velocities differ in the sixth decimal.
    elapsed = 1e-6 * timestamp_us[last] - 1e-6 * timestamp_us[first]
    limit = np.where((before >= 0) & (after >= 0), 2 * _MAX_VELOCITY_GAP, _MAX_VELOCITY_GAP)
    velocity = np.full(translation.shape, np.nan)
    known = (first != last) & (elapsed > 0) & (elapsed <= limit)
    velocity[known] = (translation[last[known]] - translation[first[known]]) / elapsed[known, None]
    return velocity


def _join_records(folder: Path, calibrated_sensor: Columns, calibration: Columns, sample: Columns) -> Columns:
    """sample_data of lidars and cameras with their ego poses, in the order scene, channel, time."""
    table = "sample_data"
    pieces: list[Columns] = []
    for rows in iter_table(folder, table, min_rows=_ROWS_AT_ONCE):
        of_calibration = resolve(folder, table, rows, "calibrated_sensor_token", "calibrated_sensor", calibrated_sensor["token"])
        of_sample = resolve(folder, table, rows, "sample_token", "sample", sample["token"])
        channel = calibration["channel"][of_calibration]
        piece = {name: rows[name] for name in ("token", "ego_pose_token", "filename", "timestamp", "width", "height")}
        piece |= {"is_key": rows["is_key_frame"], "calibration": of_calibration.astype(np.int32), "sample": of_sample.astype(np.int32)}
        piece["channel"] = channel
        keep = np.flatnonzero(channel >= 0)  # no radar: a sixth of trainval's bytes that nobody reads
        pieces.append({name: _take(column, keep) for name, column in piece.items()})
    columns = concatenate_columns(pieces)
    release_memory()
    expect_distinct(folder, table, columns["token"])
    columns["ego_translation"], columns["ego_rotation"] = _ego_poses(folder, columns)
    release_memory()
    order = np.lexsort((columns["timestamp"], columns["channel"], sample["scene"][columns["sample"]]))
    return _sorted(columns, order)


def _ego_poses(folder: Path, records: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Translation (N, 3) and rotation (N, 4) of the ego pose of each record, whose `ego_pose_token` is used up.

    The poses pass by in pieces, all of them would be more than the records.
    """
    num_records = len(records["token"])
    translation, rotation = np.full((num_records, 3), np.nan), np.full((num_records, 4), np.nan)
    rows, wanted = np.arange(num_records), records.pop("ego_pose_token")  # of the records that have no pose yet
    chunks: list[pa.Array] = []
    for poses in iter_table(folder, "ego_pose", min_rows=_ROWS_AT_ONCE):
        pose = index_in(wanted, poses["token"])
        is_found = pose >= 0
        translation[rows[is_found]] = poses["translation"][pose[is_found]]
        rotation[rows[is_found]] = poses["rotation"][pose[is_found]]
        rows, wanted = rows[~is_found], wanted.filter(pa.array(~is_found))
        chunks += poses["token"].chunks
    if len(rows):
        missing = {"token": records["token"].take(pa.array(rows[:1])), "ego_pose_token": wanted}
        raise points_nowhere(folder, "sample_data", missing, "ego_pose_token", "ego_pose", 0)
    expect_distinct(folder, "ego_pose", pa.chunked_array(chunks, type=pa.string()))
    return translation, rotation


def _sorted(columns: Columns, order: np.ndarray) -> Columns:
    """The columns with their rows in another order; `columns` is emptied on the way."""
    result = {}
    for name in list(columns):
        result[name] = _take(columns.pop(name), order)
        release_memory()
    return result


def _take(column: Any, rows: np.ndarray) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else column.take(pa.array(rows))


def _visibility_level(text: str) -> int:
    """1..4 of nuScenes' level names v0-40, v40-60, v60-80, v80-100; 0 for another name."""
    return {"v0-40": 1, "v40-60": 2, "v60-80": 3, "v80-100": 4}.get(text, 0)


def _to_table(columns: Columns) -> pa.Table:
    arrays = {}
    for name in list(columns):
        value = columns.pop(name)
        if isinstance(value, np.ndarray):
            flat = pa.array(np.ascontiguousarray(value).reshape(-1))
            for width in reversed(value.shape[1:]):
                flat = pa.FixedSizeListArray.from_arrays(flat, width)
            arrays[name] = flat
        else:
            arrays[name] = value.combine_chunks()
    return pa.table(arrays).combine_chunks()


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    # Not Arrow's own to_numpy: it imports pandas where there is one, which takes longer than all else that opening does.
    kind = np.dtype({"double": "float64"}.get(str(array.type), str(array.type)))
    content, rows = array.buffers()[1], slice(array.offset, array.offset + len(array))
    if content is None:
        return np.zeros(shape, kind)
    if kind == np.bool_:
        return np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")[rows].astype(np.bool_)
    return np.frombuffer(content, kind)[rows].reshape(shape)
