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
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perception.core.errors import DataError
from perception.core.files import write_bytes
from perception.drives.nuscenes_tables import TABLES, Columns, expect_distinct, iter_table, read_table, resolve

FORMAT = 1  # raise with every change of what the index holds
_PARTS = ("scene", "sample", "annotation", "instance", "record", "calibration")
_MAX_VELOCITY_GAP_US = 1_500_000  # devkit NuScenes.box_velocity: seconds between neighbours, twice that for both sides
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class NuScenesIndex:
    """Memory-mapped columns of a version. Rows of one table name rows of another by number; -1 is "none".

    names        lists of text: channels, categories, attributes
    scene        token, name, log, location; first_sample, num_samples
    sample       by scene, then time: token, timestamp, scene; first_annotation, num_annotations; key_record (C,) one a channel
    annotation   by sample: token, instance, category, attribute, visibility (1..4, 0 none), translation (3,), size (3,) = w l h,
                 rotation (4,), velocity (3,) NaN unknown, num_lidar_pts
    record       sample_data of lidar and cameras by scene, channel, time: token, sample, channel, calibration, timestamp, is_key,
                 filename, width, height, ego_translation (3,), ego_rotation (4,)
    calibration  token, channel, translation (3,), rotation (4,), intrinsics (3, 3) NaN for lidars
    """

    names: dict[str, list[str]]
    tables: dict[str, pa.Table]

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
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perception" / "nuscenes"
    signature = _signature(folder)
    note = cache / "seen" / f"{hashlib.blake2b(str(folder.resolve()).encode(), digest_size=16).hexdigest()}.json"
    digest = _known_digest(note, signature) or _digest(folder)
    index = _open(cache / digest)
    if index is None:
        tell(f"indexing {folder} (once)")
        start = time.monotonic()
        names, tables = _build(folder)
        index = NuScenesIndex(names, tables)
        try:
            index = _store(cache / digest, names, tables) or index
        except OSError as error:  # a read-only home still reads data, only slower the next time
            tell(f"the index cannot be kept in {cache}: {error.strerror or error}")
        tell(f"indexed {folder} in {time.monotonic() - start:.1f} s")
    try:
        if _known_digest(note, signature) != digest:
            write_bytes(note, json.dumps({"signature": signature, "digest": digest}).encode())
    except OSError:
        log.debug("no note at %s", note)
    return index


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


def _known_digest(note: Path, signature: list[list[Any]]) -> str | None:
    try:
        seen = json.loads(note.read_bytes())
        digest = seen["digest"] if seen["signature"] == signature else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) and digest.isalnum() else None


def _digest(folder: Path) -> str:
    digest = hashlib.blake2b(f"format {FORMAT}".encode(), digest_size=16)
    for table in TABLES:
        digest.update(table.encode())
        with (folder / f"{table}.json").open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _open(folder: Path) -> NuScenesIndex | None:
    """The stored index, or None where there is none or it is damaged."""
    try:
        names = json.loads((folder / "names.json").read_bytes())
        tables = {part: pa.ipc.open_file(pa.memory_map(str(folder / f"{part}.arrow"))).read_all() for part in _PARTS}
    except (OSError, ValueError, pa.ArrowException):
        return None
    return NuScenesIndex(names, tables)


def _store(folder: Path, names: dict[str, list[str]], tables: dict[str, pa.Table]) -> NuScenesIndex | None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:8]}-", suffix=".partial", dir=folder.parent))
    try:
        for part in _PARTS:
            with pa.OSFile(str(aside / f"{part}.arrow"), "wb") as file, pa.ipc.new_file(file, tables[part].schema) as writer:
                writer.write_table(tables[part])
        (aside / "names.json").write_text(json.dumps(names))
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one, if any
        aside.rename(folder)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not folder.is_dir():  # else another process was first
            raise
    return _open(folder)


def _build(folder: Path) -> tuple[dict[str, list[str]], dict[str, pa.Table]]:
    """Read, check and join all tables."""
    read = {t: read_table(folder, t) for t in ("attribute", "calibrated_sensor", "category", "instance", "log", "scene", "sensor", "visibility")}
    names = {"category": read["category"]["name"].to_pylist(), "attribute": read["attribute"]["name"].to_pylist()}
    calibration, names["channel"] = _join_calibrations(folder, read)
    scene_log = resolve(folder, "scene", read["scene"], "log_token", "log", read["log"]["token"])
    instance = {
        "token": read["instance"]["token"],
        "category": resolve(folder, "instance", read["instance"], "category_token", "category", read["category"]["token"]),
    }
    sample = _join_samples(folder, read["scene"])
    annotation = _join_annotations(folder, read, sample, instance)
    record = _join_records(folder, read["calibrated_sensor"], calibration, sample)

    num_samples = len(sample["token"])
    counts = np.bincount(annotation["sample"], minlength=num_samples)
    sample["num_annotations"], sample["first_annotation"] = counts, np.cumsum(counts) - counts
    key_record = np.full((num_samples, len(names["channel"])), -1, np.int64)
    is_key = np.flatnonzero(record["is_key"])
    key_record[record["sample"][is_key], record["channel"][is_key]] = is_key
    sample["key_record"] = key_record
    counts = np.bincount(sample["scene"], minlength=len(scene_log))
    scene = {
        "token": read["scene"]["token"],
        "name": read["scene"]["name"],
        "log": read["log"]["logfile"].take(scene_log),
        "location": read["log"]["location"].take(scene_log),
        "num_samples": counts,
        "first_sample": np.cumsum(counts) - counts,
    }
    if len(set(names_of := scene["name"].to_pylist())) != len(names_of):
        raise DataError(f"{folder}/scene.json: expected different scene names, got {len(names_of) - len(set(names_of))} repeated")
    parts = {"scene": scene, "sample": sample, "annotation": annotation, "instance": instance, "record": record, "calibration": calibration}
    return names, {name: _to_table(columns) for name, columns in parts.items()}


def _join_calibrations(folder: Path, read: dict[str, Columns]) -> tuple[Columns, list[str]]:
    sensors, rows = read["sensor"], read["calibrated_sensor"]
    channels = sensors["channel"].to_pylist()
    usable = [modality in ("lidar", "camera") for modality in sensors["modality"].to_pylist()]
    names = sorted({channel for channel, use in zip(channels, usable, strict=True) if use})
    number = {name: i for i, name in enumerate(names)}
    channel_of_sensor = np.array([number[c] if use else -1 for c, use in zip(channels, usable, strict=True)], np.int64)
    sensor = resolve(folder, "calibrated_sensor", rows, "sensor_token", "sensor", sensors["token"])
    return {
        "token": rows["token"],
        "channel": channel_of_sensor[sensor],
        "translation": rows["translation"],
        "rotation": _expect_rotations(folder, "calibrated_sensor", rows),
        "intrinsics": rows["camera_intrinsic"],
    }, names


def _join_samples(folder: Path, scenes: Columns) -> Columns:
    rows = read_table(folder, "sample")
    scene = resolve(folder, "sample", rows, "scene_token", "scene", scenes["token"])
    order = np.lexsort((rows["timestamp"], scene))
    return {"token": rows["token"].take(order), "timestamp": rows["timestamp"][order], "scene": scene[order]}


def _join_annotations(folder: Path, read: dict[str, Columns], sample: Columns, instance: Columns) -> Columns:
    table = "sample_annotation"
    rows = read_table(folder, table)
    of_sample = resolve(folder, table, rows, "sample_token", "sample", sample["token"])
    of_instance = resolve(folder, table, rows, "instance_token", "instance", instance["token"])
    attribute = resolve(folder, table, rows, "attribute_tokens", "attribute", read["attribute"]["token"], may_be_empty=True)
    visibility = resolve(folder, table, rows, "visibility_token", "visibility", read["visibility"]["token"], may_be_empty=True)
    before, after = (resolve(folder, table, rows, side, table, rows["token"], may_be_empty=True) for side in ("prev", "next"))
    if (rows["size"] <= 0).any():
        row = int((rows["size"] <= 0).any(axis=1).argmax())
        raise DataError(f"{folder / table}.json: token {rows['token'][row].as_py()!r}: size: expected w, l, h > 0, got {rows['size'][row].tolist()}")
    order = np.argsort(of_sample, kind="stable")
    levels = np.array([_visibility_level(text) for text in read["visibility"]["level"].to_pylist()] + [0], np.int64)
    return {
        "token": rows["token"].take(order),
        "sample": of_sample[order],
        "instance": of_instance[order],
        "category": instance["category"][of_instance[order]],
        "attribute": attribute[order],
        "visibility": levels[visibility[order]],
        "translation": rows["translation"][order],
        "size": rows["size"][order],
        "rotation": _expect_rotations(folder, table, rows)[order],
        "velocity": annotation_velocity(rows["translation"], sample["timestamp"][of_sample], before, after)[order],
        "num_lidar_pts": rows["num_lidar_pts"][order],
    }


def annotation_velocity(translation: np.ndarray, timestamp_us: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(N, 3) m/s by central difference over an object's neighbouring annotations, one-sided at its ends.

    translation  (N, 3) metres, global; timestamp_us (N,) int64
    before       (N,) row of the same object's annotation before, -1 none; `after` likewise
    NaN for an object with no neighbour or with one farther than 1.5 s a side. Source: nuScenes devkit `NuScenes.box_velocity`.
    """
    rows = np.arange(len(translation))
    first, last = np.where(before >= 0, before, rows), np.where(after >= 0, after, rows)
    elapsed_us = timestamp_us[last] - timestamp_us[first]
    limit = np.where((before >= 0) & (after >= 0), 2 * _MAX_VELOCITY_GAP_US, _MAX_VELOCITY_GAP_US)
    velocity = np.full(translation.shape, np.nan)
    known = (first != last) & (elapsed_us > 0) & (elapsed_us <= limit)
    velocity[known] = (translation[last[known]] - translation[first[known]]) / (elapsed_us[known, None] * 1e-6)
    return velocity


def _join_records(folder: Path, calibrated_sensor: Columns, calibration: Columns, sample: Columns) -> Columns:
    """sample_data of lidars and cameras with their ego poses, in the order scene, channel, time."""
    table = "sample_data"
    parts: list[Columns] = []
    for rows in iter_table(folder, table):
        of_calibration = resolve(folder, table, _chunked(rows), "calibrated_sensor_token", "calibrated_sensor", calibrated_sensor["token"])
        of_sample = resolve(folder, table, _chunked(rows), "sample_token", "sample", sample["token"])
        _expect_inside(folder, rows)
        keep = np.flatnonzero(calibration["channel"][of_calibration] >= 0)  # no radar: a sixth of trainval's bytes that nobody reads
        part = {name: rows[name].take(keep) for name in ("token", "ego_pose_token", "filename")}
        part |= {name: rows[name][keep] for name in ("timestamp", "is_key_frame")}
        part |= {name: rows[name][keep].astype(np.int32) for name in ("width", "height")}
        parts.append(part | {"calibration": of_calibration[keep].astype(np.int32), "sample": of_sample[keep].astype(np.int32)})
    columns: Columns = {}
    for name in list(parts[0]):
        values = [part.pop(name) for part in parts]
        columns[name] = np.concatenate(values) if isinstance(values[0], np.ndarray) else pa.chunked_array(values, type=pa.string())
    expect_distinct(folder, table, columns["token"])

    channel = calibration["channel"][columns["calibration"]].astype(np.int16)
    order = np.lexsort((columns["timestamp"], channel, sample["scene"][columns["sample"]]))
    poses = read_table(folder, "ego_pose")
    pose = resolve(folder, table, columns, "ego_pose_token", "ego_pose", poses["token"])[order]
    del columns["ego_pose_token"], poses["token"]
    return {
        "token": columns.pop("token").take(order),
        "filename": columns.pop("filename").take(order),
        "channel": channel[order],
        "is_key": columns["is_key_frame"][order],
        **{name: columns[name][order] for name in ("timestamp", "calibration", "sample", "width", "height")},
        "ego_translation": poses["translation"][pose],
        "ego_rotation": poses["rotation"][pose],
    }


def _expect_inside(folder: Path, rows: Columns) -> None:
    """Refuse file names that leave the dataroot."""
    outside = pc.match_substring_regex(rows["filename"], r"(^$|^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\x00)").to_numpy(zero_copy_only=False)
    if outside.any():
        row = int(outside.argmax())
        name, token = rows["filename"][row].as_py(), rows["token"][row].as_py()
        raise DataError(f"{folder}/sample_data.json: token {token!r}: filename {name!r} leaves the dataroot; refused")


def _expect_rotations(folder: Path, table: str, rows: Columns) -> np.ndarray:
    """The rotation column (N, 4), refused where a quaternion is zero."""
    zero = np.abs(rows["rotation"]).max(axis=1, initial=0) < 1e-8
    if zero.any():
        token = rows["token"][int(zero.argmax())].as_py()
        raise DataError(f"{folder / table}.json: token {token!r}: rotation: expected a quaternion w x y z, got all zero")
    return rows["rotation"]


def _visibility_level(text: str) -> int:
    """1..4 of nuScenes' level names v0-40, v40-60, v60-80, v80-100; 0 for another name."""
    return {"v0-40": 1, "v40-60": 2, "v60-80": 3, "v80-100": 4}.get(text, 0)


def _chunked(rows: Columns) -> Columns:
    return {name: pa.chunked_array([value]) if isinstance(value, pa.Array) else value for name, value in rows.items()}


def _to_table(columns: Columns) -> pa.Table:
    arrays = {}
    for name, value in columns.items():
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
    if pa.types.is_boolean(array.type):
        return array.to_numpy(zero_copy_only=False)
    return array.to_numpy().reshape(shape)
