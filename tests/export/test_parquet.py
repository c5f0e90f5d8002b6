"""What planners read: every column against an independent computation, unknown as null, and files that other tools open."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from perception.core import NUSCENES_DETECTION, NUSCENES_TRACKING, Boxes3D, DataError, Detections, Tracks, Transform
from perception.export import DETECTIONS, FRAMES, SCHEMA_VERSION, SCHEMAS, TRACKS, describe, drive_file, drive_writer, parquet

NAN = float("nan")
EGO = Transform.from_quaternion(Rotation.from_euler("zyx", [2.1, 0.02, -0.03]).as_quat()[[3, 0, 1, 2]], (600.0, 1600.0, 2.0))


def objects(kind=Detections, count: int = 7, **changes):
    rng = np.random.default_rng(0)
    boxes = Boxes3D(
        EGO.apply(rng.normal(0, 30, (count, 3))),
        rng.uniform(0.5, 8, (count, 3)),
        rng.uniform(-9, 9, count),  # more than one turn
        rng.normal(0, 6, (count, 2)),
    )
    columns = {"boxes": boxes, "label": np.arange(count) % 7, "score": rng.random(count), "classes": NUSCENES_DETECTION}
    if kind is Tracks:
        columns |= {"classes": NUSCENES_TRACKING, "track_id": np.arange(count) + 2**40, "age": np.arange(count) / 2}
        columns |= {"hits": np.arange(count) + 1, "coasted": np.arange(count) % 2 == 1}
    return kind(**{**columns, **changes})


def written(tmp_path, kind, *values, drive="scene-0103"):
    path = tmp_path / "file.parquet"
    with drive_writer(path, kind, drive, "0123456789abcdef") as writer:
        for frame, value in enumerate(values):
            writer.add_objects(frame, 1_000_000 + 500_000 * frame, value, EGO)
    return pq.read_table(path)


@pytest.mark.parametrize(("kind", "maker"), [("detections", Detections), ("tracks", Tracks)])
def test_a_file_has_the_documented_schema_and_its_metadata(tmp_path, kind, maker):
    table = written(tmp_path, kind, objects(maker))
    assert table.schema.equals(SCHEMAS[kind])
    assert table.schema.field("vx_ego").metadata == SCHEMAS[kind].field("vx_ego").metadata
    assert table.schema.field("vx_ego").metadata[b"unit"] == b"m/s"
    assert set(table["schema_version"].to_pylist()) == {SCHEMA_VERSION}
    assert set(table["config_hash"].to_pylist()) == {"0123456789abcdef"}
    assert set(table["drive"].to_pylist()) == {"scene-0103"}
    metadata = pq.read_metadata(tmp_path / "file.parquet")
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_global_columns_are_the_values(tmp_path):
    value = objects()
    table = written(tmp_path, "detections", value[:3], value[3:])
    assert table["frame"].to_pylist() == [0, 0, 0, 1, 1, 1, 1]
    assert table["timestamp_us"].to_pylist() == [1_000_000] * 3 + [1_500_000] * 4
    assert table["class"].to_pylist() == value.names.tolist()
    np.testing.assert_array_equal(np.stack([table[f"{a}_global"] for a in "xyz"], axis=1), value.boxes.center)
    np.testing.assert_array_equal(np.stack([table[n] for n in ("length", "width", "height")], axis=1), value.boxes.size.astype(np.float32))
    np.testing.assert_array_equal(np.stack([table[f"v{a}_global"] for a in "xy"], axis=1), value.boxes.velocity.astype(np.float32))
    np.testing.assert_array_equal(table["score"].to_numpy(), value.score.astype(np.float32))
    yaw = table["yaw_global"].to_numpy()
    assert np.abs(yaw).max() <= np.pi
    np.testing.assert_allclose(np.exp(1j * yaw), np.exp(1j * value.boxes.yaw), atol=1e-12)


def test_ego_columns_agree_with_scipy(tmp_path):
    value = objects()
    table = written(tmp_path, "detections", value)
    turn = Rotation.from_quat(EGO.quaternion[[1, 2, 3, 0]]).inv()
    center = turn.apply(value.boxes.center - EGO.translation)
    np.testing.assert_allclose(np.stack([table[f"{a}_ego"] for a in "xyz"], axis=1), center, atol=1e-9)
    heading = turn.apply(np.stack([np.cos(value.boxes.yaw), np.sin(value.boxes.yaw), 0 * value.boxes.yaw], axis=1))
    np.testing.assert_allclose(table["yaw_ego"], np.arctan2(heading[:, 1], heading[:, 0]), atol=1e-9)
    # over ground, turned into the ego's axes: nothing of the ego's own motion is subtracted
    velocity = turn.apply(np.column_stack([value.boxes.velocity, np.zeros(7)]))[:, :2]
    np.testing.assert_allclose(np.stack([table[f"v{a}_ego"] for a in "xy"], axis=1), velocity, rtol=1e-6, atol=1e-6)


def test_an_object_ahead_and_to_the_left_has_positive_x_and_y(tmp_path):
    ego = Transform.from_yaw(np.pi / 2, (100, 200, 0))  # looks along global y
    boxes = Boxes3D([[95.0, 210.0, 1.0]], [[4.0, 2.0, 1.5]], [np.pi / 2], [[0.0, 3.0]])
    value = Detections(boxes, [0], [0.5], NUSCENES_DETECTION)
    with drive_writer(tmp_path / "f", "detections", "d", "0") as writer:
        writer.add_objects(0, 0, value, ego)
    row = pq.read_table(tmp_path / "f").to_pylist()[0]
    found = [row[name] for name in ("x_ego", "y_ego", "z_ego", "yaw_ego", "vx_ego", "vy_ego")]
    np.testing.assert_allclose(found, [10, 5, 1, 0, 3, 0], atol=1e-6)


def test_tracks_have_their_own_columns(tmp_path):
    table = written(tmp_path, "tracks", objects(Tracks))
    assert table["track_id"].to_pylist() == [2**40 + i for i in range(7)]
    assert table["age"].to_pylist() == [i / 2 for i in range(7)]
    assert table["hits"].to_pylist() == list(range(1, 8))
    assert table["coasted"].to_pylist() == [False, True, False, True, False, True, False]


def test_what_is_unknown_is_null_and_nothing_else_is(tmp_path):
    velocity = np.array([[1.0, 2.0], [NAN, NAN], [0.0, 0.0]])
    base = objects(count=3)
    boxes = Boxes3D(base.boxes.center, base.boxes.size, base.boxes.yaw, velocity)
    value = objects(count=3, boxes=boxes, attribute=np.array(["vehicle.moving", "", "vehicle.parked"]), num_points=np.array([0, -1, 12]))
    table = written(tmp_path, "detections", value)
    assert table["attribute"].to_pylist() == ["vehicle.moving", None, "vehicle.parked"]
    assert table["num_points"].to_pylist() == [0, None, 12]
    for name in ("vx_global", "vy_global", "vx_ego", "vy_ego"):
        assert table[name].is_null().to_pylist() == [False, True, False]
        assert not any(v != v for v in table[name].to_pylist() if v is not None)
    assert {field.name for field in DETECTIONS if field.nullable} == {
        "vx_global", "vy_global", "vx_ego", "vy_ego", "attribute", "num_points"
    }  # fmt: skip
    assert all(table[field.name].null_count == 0 for field in DETECTIONS if not field.nullable)


def test_values_without_attributes_and_points_have_nulls(tmp_path):
    table = written(tmp_path, "detections", objects(), objects(attribute=np.array(["vehicle.moving"] * 7), num_points=np.full(7, 3)))
    assert table["attribute"].to_pylist() == [None] * 7 + ["vehicle.moving"] * 7
    assert table["num_points"].to_pylist() == [None] * 7 + [3] * 7


def test_frames_without_objects_add_no_rows_and_a_drive_without_any_has_a_file(tmp_path):
    assert written(tmp_path, "tracks", Tracks.empty(NUSCENES_TRACKING), objects(Tracks, 1))["frame"].to_pylist() == [1]
    table = written(tmp_path, "detections")
    assert table.num_rows == 0
    assert table.schema.equals(DETECTIONS)


def test_frames_hold_time_and_pose(tmp_path):
    with drive_writer(tmp_path / "f", "frames", "d", "0") as writer:
        writer.add_frame(0, 1_600_000_000_000_000, "token", EGO)
    table = pq.read_table(tmp_path / "f")
    assert table.schema.equals(FRAMES)
    row = table.to_pylist()[0]
    assert (row["frame"], row["timestamp_us"], row["token"], row["drive"]) == (0, 1_600_000_000_000_000, "token", "d")
    assert [row[f"ego_{a}"] for a in "xyz"] == [600.0, 1600.0, 2.0]
    rotation = Rotation.from_quat([row[f"ego_q{a}"] for a in "xyzw"])
    np.testing.assert_allclose(rotation.as_matrix(), EGO.rotation, atol=1e-12)


def test_groups_of_rows_do_not_change_the_rows(tmp_path, monkeypatch):
    values = [objects(count=n) for n in (3, 5, 1, 7, 2)]
    whole = written(tmp_path, "detections", *values)
    monkeypatch.setattr(parquet, "_ROWS_A_GROUP", 4)
    pieces = written(tmp_path, "detections", *values)
    assert pq.read_metadata(tmp_path / "file.parquet").num_row_groups > 2
    assert pieces.to_pylist() == whole.to_pylist()


def test_pandas_reads_a_file(tmp_path):
    pandas = pytest.importorskip("pandas")
    written(tmp_path, "tracks", objects(Tracks))
    frame = pandas.read_parquet(tmp_path / "file.parquet")
    assert list(frame.columns) == TRACKS.names
    assert frame.loc[frame["class"] == "car", "length"].gt(0).all()
    assert frame["attribute"].isna().all()


def test_a_failure_leaves_no_file(tmp_path):
    def fail():
        with drive_writer(tmp_path / "f", "detections", "d", "0") as writer:
            writer.add_objects(0, 0, objects(), EGO)
            raise DataError("the drive ended")

    with pytest.raises(DataError, match="the drive ended"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "drive", ["scene-0103", "a/b", "../../etc/passwd", "..", ".", "straße 7", "%2e%2e", "a\\b", "C:x", "名前", "x" * 190]
)
def test_a_drives_file_stays_in_its_folder(tmp_path, drive):
    name = drive_file(drive)
    assert "/" not in name
    assert "\\" not in name
    assert name.endswith(".parquet")
    path = tmp_path / name
    path.write_text("")
    assert path.resolve().parent == tmp_path.resolve()
    assert list(tmp_path.iterdir()) == [path]


def test_different_drives_have_different_files():
    drives = ["a/b", "a%2Fb", "a_b", "a b", "a%20b", "A/b"]
    assert len({drive_file(drive) for drive in drives}) == len(drives)


@pytest.mark.parametrize("drive", ["", "x" * 201, "名" * 30])
def test_a_name_that_makes_no_file_is_refused(drive):
    with pytest.raises(DataError, match="expected a name of 1 to 200 characters for its files, got"):
        drive_file(drive)


def test_the_description_has_a_line_a_field():
    lines = describe(TRACKS).splitlines()
    assert lines[0] == "| field | type | unit | frame | meaning | null |"
    assert len(lines) == 2 + len(TRACKS)
    assert "| `num_points` | int32 |  |  | lidar points inside of the box | not counted, or coasted |" in lines
    assert all(field.metadata[b"meaning"] for schema in SCHEMAS.values() for field in schema)
    assert pa.types.is_dictionary(TRACKS.field("class").type)
