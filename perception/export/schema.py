"""The Arrow schemas of a run's files: one row an object and frame (detections, tracks), one row a frame (frames).

Global frame: fixed to the world. Ego frame: x forward, y left, z up, origin on the ground under the rear axle, at the row's own time. Every
field's unit, frame, meaning and null rule stand in its metadata; `describe(TRACKS)` prints them.
"""

from urllib.parse import quote

import pyarrow as pa

from perception.core.errors import DataError

SCHEMA_VERSION = 1  # raised when a field changes its meaning or goes; new nullable fields do not raise it

_NAME = pa.dictionary(pa.int32(), pa.string())


def _field(name: str, kind: pa.DataType, unit: str, frame: str, meaning: str, null: str = "never") -> pa.Field:
    return pa.field(name, kind, nullable=null != "never", metadata={"unit": unit, "frame": frame, "meaning": meaning, "null": null})


_WHERE = [
    _field("drive", _NAME, "", "", "name of the drive (nuScenes: scene)"),
    _field("frame", pa.int32(), "", "", "number of the frame in its drive, from 0"),
    _field("timestamp_us", pa.int64(), "us", "", "time of the frame, microseconds since 1970"),
]
_OBJECT = [
    _field("class", _NAME, "", "", "class name"),
    _field("score", pa.float32(), "0..1", "", "confidence; for tracks the tracking score"),
    _field("x_global", pa.float64(), "m", "global", "centre of the box"),
    _field("y_global", pa.float64(), "m", "global", "centre of the box"),
    _field("z_global", pa.float64(), "m", "global", "centre of the box (not its bottom)"),
    _field("length", pa.float32(), "m", "box", "along the heading"),
    _field("width", pa.float32(), "m", "box", "across the heading"),
    _field("height", pa.float32(), "m", "box", "upwards"),
    _field("yaw_global", pa.float64(), "rad", "global", "heading, counter-clockwise from x, -pi to pi"),
    _field("vx_global", pa.float32(), "m/s", "global", "velocity over ground", "unknown velocity"),
    _field("vy_global", pa.float32(), "m/s", "global", "velocity over ground", "unknown velocity"),
    _field("x_ego", pa.float64(), "m", "ego", "centre of the box"),
    _field("y_ego", pa.float64(), "m", "ego", "centre of the box"),
    _field("z_ego", pa.float64(), "m", "ego", "centre of the box (not its bottom)"),
    _field("yaw_ego", pa.float64(), "rad", "ego", "heading, counter-clockwise from x forward, -pi to pi"),
    _field("vx_ego", pa.float32(), "m/s", "ego axes", "velocity over ground (the ego's own motion is not subtracted)", "unknown velocity"),
    _field("vy_ego", pa.float32(), "m/s", "ego axes", "velocity over ground (the ego's own motion is not subtracted)", "unknown velocity"),
]
_TRACK = [
    _field("track_id", pa.int64(), "", "", "number of the track, unique within its drive"),
    _field("age", pa.float32(), "s", "", "since the first detection of the track"),
    _field("hits", pa.int32(), "", "", "detections over the life of the track"),
    _field("coasted", pa.bool_(), "", "", "predicted from earlier frames, not seen in this one"),
]
_ORIGIN = [
    _field("attribute", _NAME, "", "", "nuScenes attribute", "no attribute, or coasted"),
    _field("num_points", pa.int32(), "", "", "lidar points inside of the box", "not counted, or coasted"),
    _field("config_hash", _NAME, "", "", "first 16 hex digits of the BLAKE2b hash of the resolved configuration in run.json"),
    _field("schema_version", pa.int16(), "", "", "version of this schema"),
]
DETECTIONS = pa.schema([*_WHERE, *_OBJECT, *_ORIGIN])
TRACKS = pa.schema([*_WHERE, *_TRACK, *_OBJECT, *_ORIGIN])
FRAMES = pa.schema(
    [
        *_WHERE,
        _field("token", pa.string(), "", "", "the recording's own name of the frame (nuScenes: sample token)"),
        _field("ego_x", pa.float64(), "m", "global", "ego origin"),
        _field("ego_y", pa.float64(), "m", "global", "ego origin"),
        _field("ego_z", pa.float64(), "m", "global", "ego origin"),
        _field("ego_qw", pa.float64(), "", "ego to global", "unit quaternion of the ego's attitude"),
        _field("ego_qx", pa.float64(), "", "ego to global", "unit quaternion of the ego's attitude"),
        _field("ego_qy", pa.float64(), "", "ego to global", "unit quaternion of the ego's attitude"),
        _field("ego_qz", pa.float64(), "", "ego to global", "unit quaternion of the ego's attitude"),
    ]
)
SCHEMAS = {"detections": DETECTIONS, "tracks": TRACKS, "frames": FRAMES}


def drive_file(drive: str) -> str:
    """The file name of a drive's Parquet files: its name, with what could leave the folder or upset a file system written as %XX."""
    name = quote(drive, safe="")
    if not drive or len(name) > 200:
        raise DataError(f"drive {drive[:40]!r}...: expected a name of 1 to 200 characters for its files, got {len(name)}")
    return f"{name}.parquet"


def describe(schema: pa.Schema) -> str:
    """The schema as a Markdown table: field, type, unit, frame, meaning, when it is null."""
    lines = ["| field | type | unit | frame | meaning | null |", "|---|---|---|---|---|---|"]
    for field in schema:
        kind = "string (dictionary)" if pa.types.is_dictionary(field.type) else str(field.type)
        about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        lines.append(f"| `{field.name}` | {kind} | {about['unit']} | {about['frame']} | {about['meaning']} | {about['null']} |")
    return "\n".join(lines)
