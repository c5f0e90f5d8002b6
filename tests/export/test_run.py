"""A run's folder read back: frames, tracks at any moment, and one line for what is no run."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import perception
from perception.core import NUSCENES_DETECTION, NUSCENES_TRACKING, Boxes3D, DataError, Detections, Tracks, Transform, UsageError
from perception.export import SCHEMA_VERSION, drive_file, drive_writer, open_run

NAN = float("nan")
START = 1_600_000_000_000_000


def tracks(*rows, **changes) -> Tracks:
    """Rows (track id, x, yaw) of cars."""
    count = len(rows)
    ids, x, yaw = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    columns = {
        "boxes": Boxes3D(
            np.column_stack([x, 0 * x, 0 * x + 1]), np.tile([4.0, 2.0, 1.5], (count, 1)), yaw, np.tile([2.0, 0.0], (count, 1))
        ),
        "label": np.full(count, NUSCENES_TRACKING.index("car")),
        "score": np.full(count, 0.5),
        "classes": NUSCENES_TRACKING,
        "track_id": ids.astype(np.int64),
        "age": np.zeros(count),
        "hits": np.ones(count, np.int64),
        "coasted": np.zeros(count, bool),
    }
    return Tracks(**{**columns, **changes})


def pose(frame: int) -> Transform:
    return Transform.from_yaw(0.2 * frame, (100.0 + 4 * frame, 50.0, 0.0))


def write_run(folder, drives, **changes):
    """`drives`: name -> [(time in us after START, Tracks), ...]; detections are one car a frame."""
    for name, frames in drives.items():
        files = [drive_writer(folder / kind / drive_file(name), kind, name, "0" * 16) for kind in ("detections", "tracks", "frames")]
        with files[0] as a, files[1] as b, files[2] as c:
            for i, (time, value) in enumerate(frames):
                boxes = Boxes3D([[float(i), 0, 1]], [[4.0, 2.0, 1.5]], [0.0], [[NAN, NAN]])
                a.add_objects(i, START + time, Detections(boxes, [9], [0.25], NUSCENES_DETECTION), pose(i))
                b.add_objects(i, START + time, value, pose(i))
                c.add_frame(i, START + time, f"{name}-{i}", pose(i))
    (folder / "run.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "drives": list(drives)} | changes))
    return open_run(folder)


HALF = 500_000


@pytest.fixture
def drive(tmp_path):
    """Frames at 0, 0.5, 1.0 (without tracks) and 1.5 s, then a hole until 3.5 s."""
    frames = [
        (0, tracks((1, 10.0, 3.0), (2, 0.0, 0.0), (3, 5.0, 0.0))),
        (HALF, tracks((2, 4.0, 1.0), (1, 12.0, -3.0), (4, 7.0, 0.0))),
        (2 * HALF, tracks()),
        (3 * HALF, tracks((2, 9.0, 0.0))),
        (7 * HALF, tracks((2, 20.0, 0.0))),
    ]
    return write_run(tmp_path, {"a": frames}).drive("a")


def test_frames_come_in_order_with_pose_token_and_tracks(drive):
    frames = list(drive)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.timestamp_us - START for frame in frames] == [0, HALF, 2 * HALF, 3 * HALF, 7 * HALF]
    assert [frame.token for frame in frames] == [f"a-{i}" for i in range(5)]
    assert [frame.tracks.track_id.tolist() for frame in frames] == [[1, 2, 3], [2, 1, 4], [], [2], [2]]
    np.testing.assert_allclose(frames[3].ego_to_global.matrix, pose(3).matrix, atol=1e-12)
    assert drive[-1].index == 4
    with pytest.raises(IndexError):
        drive[5]
    assert repr(drive) == "RunDrive(a, 5 frames)"
    assert repr(frames[2]) == f"RunFrame(2, t={START + 2 * HALF}, Tracks(0 objects, 0 coasted))"


def test_tracks_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(3)
    boxes = Boxes3D(
        rng.normal(0, 99, (4, 3)), rng.uniform(1, 9, (4, 3)), rng.uniform(-3, 3, 4), np.array([[1, 2], [NAN, NAN], [0, 0], [-3.5, 0.25]])
    )
    columns = {"coasted": [True, False, False, True], "age": [0, 1, 2, 3.5], "hits": [1, 2, 3, 4], "label": [0, 3, 6, 2]}
    value = tracks((1, 0, 0), (2, 0, 0), (3, 0, 0), (2**50, 0, 0), boxes=boxes, **columns)
    again = write_run(tmp_path, {"a": [(0, value)]}).drive("a")[0].tracks
    np.testing.assert_array_equal(again.boxes.center, boxes.center)
    np.testing.assert_array_equal(again.boxes.yaw, boxes.yaw)
    np.testing.assert_allclose(again.boxes.size, boxes.size, rtol=1e-7)  # float32 in the file
    np.testing.assert_allclose(again.boxes.velocity, boxes.velocity, rtol=1e-7)
    for name in ("track_id", "age", "hits", "coasted", "score"):
        np.testing.assert_array_equal(getattr(again, name), getattr(value, name))
    assert again.names.tolist() == value.names.tolist() == ["bicycle", "motorcycle", "truck", "car"]


def test_at_a_frames_own_time_its_tracks_are_given(drive):
    for frame in drive:
        at = drive.tracks_at(frame.timestamp_us)
        assert at.track_id.tolist() == frame.tracks.track_id.tolist()
        np.testing.assert_array_equal(at.boxes.center, frame.tracks.boxes.center)


def test_half_way_between_two_frames_positions_are_half_way(drive):
    at = drive.tracks_at(START + HALF // 2)
    assert at.track_id.tolist() == [1, 2]  # 3 has gone, 4 has not come yet
    np.testing.assert_allclose(at.boxes.center, [[11, 0, 1], [2, 0, 1]])
    at = drive.tracks_at(START + HALF // 5)
    np.testing.assert_allclose(at.boxes.center[:, 0], [10.4, 0.8])


def test_a_heading_turns_the_shorter_way_round(drive):
    # 3.0 to -3.0 rad is 0.283 rad through pi, not 6 rad through 0; half way is pi itself
    yaw = drive.tracks_at(START + HALF // 2).boxes.yaw
    assert abs(yaw[0]) == pytest.approx(np.pi)
    assert yaw[1] == pytest.approx(0.5)
    quarter = drive.tracks_at(START + HALF // 4).boxes.yaw[0]
    assert quarter == pytest.approx(3.0 + (2 * np.pi - 6.0) / 4)


def test_between_two_frames_scores_ages_and_velocities_are_mixed_and_coasting_shows(tmp_path):
    unknown = Boxes3D([[0, 0, 0], [0, 0, 0]], [[4, 2, 1]] * 2, [0, 0], [[NAN, NAN], [1.0, 0.0]])
    known = Boxes3D([[1, 0, 0], [1, 0, 0]], [[6, 2, 1]] * 2, [0, 0], [[2.0, 0.0], [3.0, 1.0]])
    before = tracks((1, 0, 0), (2, 0, 0), boxes=unknown, score=[0.25, 0.5], age=[1.0, 0.0], coasted=[False, True])
    after = tracks((1, 0, 0), (2, 0, 0), boxes=known, score=[0.75, 0.5], age=[1.5, 0.5], coasted=[True, False])
    at = write_run(tmp_path, {"a": [(0, before), (HALF, after)]}).drive("a").tracks_at(START + HALF // 2)
    assert at.score.tolist() == [0.5, 0.5]
    assert at.age.tolist() == [1.25, 0.25]
    assert at.boxes.size[:, 0].tolist() == [5.0, 5.0]
    assert at.boxes.velocity.tolist() == [[2.0, 0.0], [2.0, 0.5]]  # the later one's where the earlier one's is unknown
    assert at.coasted.tolist() == [True, True]  # in either frame
    lone = write_run(tmp_path / "seen", {"a": [(0, tracks((1, 0, 0))), (HALF, tracks((1, 1, 0)))]}).drive("a")
    assert lone.tracks_at(START + 1).coasted.tolist() == [False]


def test_next_to_an_empty_frame_there_are_no_tracks(drive):
    assert len(drive.tracks_at(START + HALF + 100)) == 0
    assert len(drive.tracks_at(START + 2 * HALF)) == 0


@pytest.mark.parametrize("time", [-1, 7 * HALF + 1])
def test_outside_of_the_drive_there_is_a_usage_error(drive, time):
    with pytest.raises(UsageError, match=f"drive a: expected a time in {START}..{START + 7 * HALF} us, got {START + time}"):
        drive.tracks_at(START + time)
    with pytest.raises(UsageError, match=f"drive a: expected a time in {START}..{START + 7 * HALF} us, got {START + time}"):
        drive.ego_to_global_at(START + time)


def test_a_pose_is_there_whenever_tracks_are(drive, tmp_path):
    with pytest.raises(UsageError, match=r"lies in a hole of 2\.00 s"):
        drive.ego_to_global_at(START + 4 * HALF)
    lone = write_run(tmp_path / "lone", {"a": [(5, tracks((1, 0, 0)))]}).drive("a")
    np.testing.assert_allclose(lone.ego_to_global_at(START + 5).matrix, pose(0).matrix, atol=1e-12)
    twice = write_run(tmp_path / "twice", {"a": [(0, tracks()), (0, tracks()), (100_000, tracks())]}).drive("a")
    np.testing.assert_allclose(twice.ego_to_global_at(START).matrix, pose(0).matrix, atol=1e-12)
    np.testing.assert_allclose(twice.ego_to_global_at(START + 50_000).translation, [106, 50, 0], atol=1e-9)


def test_attributes_and_numbers_of_points_come_back(tmp_path):
    attribute, count = np.array(["vehicle.moving", ""]), np.array([7, 3])
    value = tracks((1, 0.0, 0.0), (2, 9.0, 0.0), attribute=attribute, num_points=count)
    drive = write_run(tmp_path, {"a": [(0, value), (HALF, value), (2 * HALF, tracks((1, 0, 0)))]}).drive("a")
    found = drive[0].tracks
    assert found.attribute.tolist() == ["vehicle.moving", ""]
    assert found.num_points.tolist() == [7, 3]
    assert (drive[2].tracks.attribute, drive[2].tracks.num_points) == (None, None)
    between = drive.tracks_at(START + 1)  # they are of a moment
    assert (between.attribute, between.num_points) == (None, None)
    assert drive.detections_of(0).attribute is None


def test_files_of_a_later_version_may_have_more_columns_and_of_an_earlier_one_fewer(tmp_path):
    value = tracks((1, 0.0, 0.0))
    run = write_run(tmp_path, {"a": [(0, value)], "b": [(0, value)]})
    path = tmp_path / "tracks" / "a.parquet"
    table = pq.read_table(path).drop_columns(["attribute"])
    pq.write_table(table.append_column("later", pa.array([1.5])), path)
    assert run.table().num_rows == 2
    assert run.table().column_names == run.drive("b").tracks.column_names
    assert run.drive("a")[0].tracks.attribute is None


def test_in_a_hole_there_is_a_usage_error_at_its_ends_there_is_none(drive):
    with pytest.raises(UsageError, match=f"drive a: {START + 4 * HALF} us lies in a hole of 2.00 s, expected at most 1.0 s"):
        drive.tracks_at(START + 4 * HALF)
    assert len(drive.tracks_at(START + 7 * HALF)) == 1


def test_the_ego_pose_between_frames_is_interpolated(drive):
    half = drive.ego_to_global_at(START + HALF // 2)
    np.testing.assert_allclose(half.translation, [102, 50, 0])
    assert half.yaw == pytest.approx(0.1)
    np.testing.assert_allclose(drive.ego_to_global_at(START).matrix, pose(0).matrix, atol=1e-12)
    np.testing.assert_allclose(drive.ego_to_global_at(START + 7 * HALF).matrix, pose(4).matrix, atol=1e-12)


def test_detections_of_a_frame_come_back(drive):
    found = drive.detections_of(3)
    assert found.boxes.center.tolist() == [[3.0, 0.0, 1.0]]
    assert found.names.tolist() == ["barrier"]
    assert np.isnan(found.boxes.velocity).all()


@pytest.mark.parametrize("name", ["a/b", "../up", "..", "straße 7", "名前", "100%", "a\\b", "with space"])
def test_drives_of_any_name_stay_in_the_folder_and_come_back(tmp_path, name):
    folder = tmp_path / "deep" / "run"
    run = write_run(folder, {name: [(0, tracks((1, 2.0, 0.0)))], "other": [(0, tracks())]})
    assert [drive.name for drive in run] == [name, "other"]
    assert run.drive(name)[0].tracks.track_id.tolist() == [1]
    assert set(run.table("tracks")["drive"].to_pylist()) == {name}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(folder) for path in files)
    assert len(files) == 7  # 2 drives x 3 kinds, and run.json
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 3


def test_tables_hold_all_drives(tmp_path):
    run = write_run(tmp_path, {"a": [(0, tracks((1, 0, 0)))], "b": [(0, tracks((1, 0, 0), (2, 0, 0))), (HALF, tracks())]})
    assert len(run) == 2
    table = run.table()
    assert list(zip(table["drive"].to_pylist(), table["track_id"].to_pylist(), strict=True)) == [("a", 1), ("b", 1), ("b", 2)]
    assert run.table("frames").num_rows == 3
    assert run.table("detections").num_rows == 3
    assert repr(run) == f"Run({tmp_path}, 2 drives)"
    with pytest.raises(UsageError, match="table 'track': expected one of detections, tracks, frames; did you mean 'tracks'"):
        run.table("track")
    with pytest.raises(UsageError, match=f"{tmp_path}: no drive 'c', it has 2"):
        run.drive("c")


def test_a_run_without_drives_has_empty_tables(tmp_path):
    run = write_run(tmp_path, {})
    assert list(run) == []
    assert run.table("tracks").num_rows == 0


def test_plain_pyarrow_and_pandas_read_the_folder(tmp_path):
    pandas = pytest.importorskip("pandas")
    run = write_run(tmp_path, {"a": [(0, tracks((1, 0, 0)))], "b": [(0, tracks((7, 0, 0)))]})
    dataset = pq.read_table(tmp_path / "tracks")
    assert dataset["track_id"].to_pylist() == [1, 7]
    assert pandas.read_parquet(tmp_path / "tracks")["drive"].tolist() == ["a", "b"]
    assert run.table().to_pandas()["drive"].tolist() == ["a", "b"]


def test_a_run_opens_from_the_package_by_text_too(tmp_path):
    write_run(tmp_path, {"a": [(0, tracks())]})
    assert perception.open_run(str(tmp_path)).names == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "expected the folder of a finished run, got No such file or directory", id="missing"),
        pytest.param(b"{", "expected the folder of a finished run, got Expecting property name", id="cut short"),
        pytest.param(b"\xff", "expected the folder of a finished run, got 'utf-8' codec", id="no text"),
        pytest.param(b"[" * 100_000, "expected the folder of a finished run, got ", id="deep"),
        pytest.param(b"[]", "expected schema_version <= 1, got None", id="no object"),
        pytest.param(b'{"drives": []}', "expected schema_version <= 1, got None", id="no version"),
        pytest.param(b'{"schema_version": 2, "drives": []}', "expected schema_version <= 1, got 2; install a newer perception", id="newer"),
        pytest.param(b'{"schema_version": 1}', "drives: expected a list of names, got None", id="no drives"),
        pytest.param(b'{"schema_version": 1, "drives": [3]}', r"drives: expected a list of names, got \[3\]", id="a drive a number"),
    ],
)
def test_what_is_no_run_is_a_data_error(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(DataError, match=f"run.json: {message}"):
        open_run(tmp_path)


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def damage_other(path):
    pq.write_table(pa.table({"x": [1, 2]}), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda path: path.unlink(), "expected the (tracks|frames) of a run, found no such file", id="missing"),
        pytest.param(lambda path: path.write_bytes(b""), "expected a Parquet file of a run, got ", id="empty"),
        pytest.param(
            lambda path: path.write_bytes(b"no Parquet at all, but long enough"), "expected a Parquet file of a run, got ", id="other"
        ),
        pytest.param(damage_cut, "expected a Parquet file of a run, got ", id="cut short"),
        pytest.param(damage_other, "expected a Parquet file of a run, got one without the column", id="other columns"),
    ],
)
@pytest.mark.parametrize("kind", ["frames", "tracks"])
def test_a_damaged_table_is_a_data_error_that_names_it(tmp_path, kind, damage, message):
    run = write_run(tmp_path, {"a": [(0, tracks((1, 0, 0)))]})
    damage(tmp_path / kind / "a.parquet")
    with pytest.raises(DataError, match=rf"{kind}.a\.parquet: {message}") as error:
        print(run.drive("a")[0])
    assert "\n" not in str(error.value)


def test_a_changed_byte_is_no_crash(tmp_path):
    run = write_run(tmp_path, {"a": [(i * HALF, tracks((1, float(i), 0))) for i in range(5)]})
    path = tmp_path / "tracks" / "a.parquet"
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(sound)
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            for frame in run.drive("a"):
                assert len(frame.tracks) >= 0
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
