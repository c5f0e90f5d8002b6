"""Broken recordings: every fault is one line that names the file; nothing is a traceback."""

import shutil
from typing import Any

import numpy as np
import pytest

from perception.core import DataError, PerceptionError
from perception.drives import NuScenes, accumulate_sweeps, open_drives
from tests.makers import Tables, lidar_rows, nuscenes_tables, write_nuscenes

VERSION = "v1.0-mini"
FRONT = "samples/LIDAR_TOP/1500000000500000.pcd.bin"  # of sample scene-0103-1
BETWEEN = "sweeps/LIDAR_TOP/1500000000250000.pcd.bin"  # the sweep before it


def change(table: str, row: int, **fields: Any) -> Tables:
    """The tables with fields of one row changed; None removes a field."""
    tables = nuscenes_tables()
    for field, value in fields.items():
        if value is None:
            del tables[table][row][field]
        else:
            tables[table][row][field] = value
    return tables


@pytest.mark.parametrize(
    ("table", "row", "fields", "message"),
    [
        pytest.param("scene", 0, {"log_token": "x"}, "token 't-scene-0103': log_token 'x' is not in log.json", id="scene's log"),
        pytest.param("sample", 1, {"scene_token": "x"}, "token 'scene-0103-1': scene_token 'x' is not in scene.json", id="sample's scene"),
        pytest.param(
            "sample_data", 2, {"sample_token": "x"}, "token 'd-LIDAR_TOP-.*': sample_token 'x' is not in sample.json", id="record's sample"
        ),
        pytest.param("sample_data", 2, {"ego_pose_token": "x"}, "token 'd-.*': ego_pose_token 'x' is not in ego_pose.json", id="pose"),
        pytest.param(
            "sample_data",
            2,
            {"calibrated_sensor_token": "x"},
            "token 'd-.*': calibrated_sensor_token 'x' is not in calibrated_sensor.json",
            id="calibration",
        ),
        pytest.param(
            "calibrated_sensor", 1, {"sensor_token": "x"}, "token 'cal-.*CAM_FRONT': sensor_token 'x' is not in sensor.json", id="sensor"
        ),
        pytest.param(
            "instance", 0, {"category_token": "x"}, "token 'i-vehicle.car-.*': category_token 'x' is not in category.json", id="category"
        ),
        pytest.param(
            "sample_annotation",
            1,
            {"sample_token": "x"},
            "token 'vehicle.car-.*-1': sample_token 'x' is not in sample",
            id="object's sample",
        ),
        pytest.param("sample_annotation", 1, {"instance_token": "x"}, "token .*: instance_token 'x' is not in instance", id="instance"),
        pytest.param(
            "sample_annotation", 1, {"attribute_tokens": ["x"]}, "token .*: attribute_tokens 'x' is not in attrib", id="attribute"
        ),
        pytest.param("sample_annotation", 1, {"visibility_token": "9"}, "token .*: visibility_token '9' is not in visib", id="visibility"),
        pytest.param("sample_annotation", 1, {"prev": "x"}, "token .*: prev 'x' is not in sample_annotation.json", id="annotation before"),
        pytest.param("sample_annotation", 1, {"next": "x"}, "token .*: next 'x' is not in sample_annotation.json", id="annotation after"),
    ],
)
def test_rows_that_point_nowhere_are_named(tmp_path, table, row, fields, message):
    write_nuscenes(tmp_path, change(table, row, **fields), sensor_files=False)
    with pytest.raises(DataError, match=rf"/{table}\.json: {message}"):
        NuScenes(tmp_path)


@pytest.mark.parametrize(
    ("table", "fields", "message"),
    [
        pytest.param("sample", {"timestamp": None}, "row 1 .token 'scene-0103-1'.: field 'timestamp' is missing", id="missing field"),
        pytest.param("sample", {"token": ""}, "row 1 .token ''.: token: expected a token, got ''", id="empty token"),
        pytest.param("sample", {"token": 3}, "row 1 .token 3.: token: expected a token, got 3", id="token is a number"),
        pytest.param("sample", {"timestamp": 1.5}, "timestamp: expected whole microseconds, 0 or more, got 1.5", id="time is a fraction"),
        pytest.param("sample", {"timestamp": True}, "timestamp: expected whole microseconds, 0 or more, got True", id="time is true"),
        pytest.param("sample", {"timestamp": -1}, "timestamp: expected whole microseconds, 0 or more, got -1", id="time before 1970"),
        pytest.param("sample", {"timestamp": 10**30}, r"timestamp: expected whole microseconds, 0 or more, got 1e\+30", id="time far away"),
        pytest.param("sample_data", {"is_key_frame": 1}, "is_key_frame: expected true or false, got 1", id="flag is a number"),
        pytest.param("sample_data", {"width": -1}, "width: expected a whole number of pixels, 0 or more, got -1", id="negative width"),
        pytest.param(
            "sample_annotation", {"num_lidar_pts": 2**31}, r"num_lidar_pts: expected a whole number below 2\^31", id="many points"
        ),
        pytest.param(
            "sample_annotation", {"translation": [1, 2]}, r"translation: expected 3 numbers, metres, got \[1, 2\]", id="two numbers"
        ),
        pytest.param("sample_annotation", {"translation": [1, "2", 3]}, "translation: expected 3 numbers, metres, got", id="a text inside"),
        pytest.param("sample_annotation", {"translation": [[1, 2, 3]]}, "translation: expected 3 numbers, metres, got", id="nested"),
        pytest.param("sample_annotation", {"translation": [1e300, 0, 0]}, "translation: expected 3 numbers, metres, got", id="too far"),
        pytest.param("sample_annotation", {"size": [1, 0, 1]}, r"row 1 .*: size: expected w, l, h > 0, got \[1, 0, 1\]", id="flat"),
        pytest.param("sample_annotation", {"rotation": [0, 0, 0, 0]}, "rotation: expected a quaternion .*, not all zero, got", id="object"),
        pytest.param("ego_pose", {"rotation": [0, 0, 0, 0]}, "rotation: expected a quaternion w x y z, not all zero, got", id="pose"),
        pytest.param("calibrated_sensor", {"rotation": [0, 0, 0]}, "rotation: expected a quaternion w x y z, not all", id="calibration"),
        pytest.param("calibrated_sensor", {"camera_intrinsic": [[1, 2], [3, 4]]}, "camera_intrinsic: expected 3 x 3 num", id="two by two"),
        pytest.param(
            "calibrated_sensor", {"camera_intrinsic": 0}, "camera_intrinsic: expected 3 x 3 numbers or an", id="zero for a matrix"
        ),
        pytest.param("sample_annotation", {"attribute_tokens": "a"}, "attribute_tokens: expected a list of tokens, got 'a'", id="no list"),
        pytest.param("sample_annotation", {"prev": 0}, "prev: expected text, got 0", id="number for a text"),
    ],
)
def test_values_that_do_not_fit_are_named_with_row_and_token(tmp_path, table, fields, message):
    write_nuscenes(tmp_path, change(table, 1, **fields), sensor_files=False)
    with pytest.raises(DataError, match=rf"/{table}\.json: row 1 \(token .*\): ") as error:
        NuScenes(tmp_path)
    assert error.match(message)


@pytest.mark.parametrize(
    "filename",
    [
        "/etc/passwd",
        "../secret.bin",
        "samples/../../x",
        "samples/..",
        "..",
        "",
        ".",
        "./.",
        "C:\\x",
        "C:x",
        "\\\\host\\x",
        "a\\..\\b",
        "a\0b",
        "a\nb",
    ],
    ids=repr,
)
def test_file_names_that_leave_the_dataroot_are_refused(tmp_path, filename):
    write_nuscenes(tmp_path, change("sample_data", 1, filename=filename), sensor_files=False)
    with pytest.raises(
        DataError, match=r"/sample_data\.json: row 1 \(token 'd-.*'\): filename: expected a path inside .*, got .*; refused"
    ) as error:
        NuScenes(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("filename", ["..a/b..", "a/...", "with space/ü.bin", "ab:c", "C"])
def test_odd_file_names_inside_are_taken(tmp_path, filename):
    write_nuscenes(tmp_path, change("sample_data", 0, filename=filename), sensor_files=False)
    dataset = NuScenes(tmp_path, cameras=False)
    assert dataset.lidar_path(0) == tmp_path / filename


@pytest.mark.parametrize("table", [name for name in nuscenes_tables() if name != "map"])
def test_a_token_that_comes_twice_is_named(tmp_path, table):
    tables = nuscenes_tables()
    twin = dict(tables[table][0])
    if table == "scene":
        twin["name"] = "another"
    tables[table].append(twin)
    write_nuscenes(tmp_path, tables, sensor_files=False)
    with pytest.raises(DataError, match=rf"/{table}\.json: token '{twin['token']}' comes 2 times, expected once"):
        NuScenes(tmp_path)


def test_a_token_that_comes_twice_among_very_many_is_named(tmp_path, monkeypatch):
    # Large tables are checked and joined a sixteenth at a time, by the last digit of the tokens.
    monkeypatch.setattr("perception.drives.nuscenes_tables._SPLIT_ABOVE", 1)
    plain = NuScenes(write_nuscenes(tmp_path / "sound", sensor_files=False)).drive("scene-0103")[1]
    assert plain.truth.instance.tolist() == ["i-vehicle.car-scene-0103", "i-human.pedestrian.child-scene-0103"]
    np.testing.assert_allclose(plain.truth.boxes.velocity, [[2, 0], [0, 1]])
    tables = nuscenes_tables()
    tables["ego_pose"].append(dict(tables["ego_pose"][3]))
    with pytest.raises(DataError, match=r"/ego_pose\.json: token 'pose-.*' comes 2 times, expected once"):
        NuScenes(write_nuscenes(tmp_path / "broken", tables, sensor_files=False))
    tables = change("sample_annotation", 2, prev="x")
    with pytest.raises(DataError, match=r"/sample_annotation\.json: token 'vehicle.car-scene-0103-2': prev 'x' is not in sample_annot"):
        NuScenes(write_nuscenes(tmp_path / "lost", tables, sensor_files=False))


def test_a_scene_name_that_comes_twice_is_named(tmp_path):
    write_nuscenes(tmp_path, change("scene", 1, name="scene-0103"), sensor_files=False)
    with pytest.raises(DataError, match=r"/scene\.json: name 'scene-0103' comes 2 times, expected once"):
        NuScenes(tmp_path)


@pytest.mark.parametrize("table", nuscenes_tables())
def test_a_missing_table_is_named(tmp_path, table):
    write_nuscenes(tmp_path, sensor_files=False)
    (tmp_path / VERSION / f"{table}.json").unlink()
    with pytest.raises(
        PerceptionError, match=r"sample\.json" if table == "sample" else rf"/{table}\.json: expected a table .* No such file"
    ):
        NuScenes(tmp_path, VERSION)


@pytest.mark.parametrize("table", [name for name in nuscenes_tables() if name not in ("map", "sample")])
def test_a_folder_in_the_place_of_a_table_is_named(tmp_path, table):
    write_nuscenes(tmp_path, sensor_files=False)
    (tmp_path / VERSION / f"{table}.json").unlink()
    (tmp_path / VERSION / f"{table}.json").mkdir()
    with pytest.raises(DataError, match=rf"/{table}\.json: expected a readable file, got Is a directory"):
        NuScenes(tmp_path, VERSION)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "expected an array of rows, .*, got an empty file", id="empty"),
        pytest.param(b"{}", "expected an array of rows, .*, got '{}'", id="no array"),
        pytest.param(b"[{}, 1]", "row 1: expected an object, got 1", id="a number for a row"),
        pytest.param(b'[{"token": "a"', "invalid JSON at byte 14: the file ends too early, it was cut short", id="cut short"),
        pytest.param(b'[{"token": "\xff"}]', "invalid JSON at byte 12: ", id="not UTF-8"),
        pytest.param(b"[" * 3000, "invalid JSON at byte 1025: depth limit exceeded", id="deep"),
    ],
)
@pytest.mark.parametrize("table", ["sensor", "ego_pose", "sample_annotation"])
def test_a_table_that_is_no_json_is_named_with_the_place(tmp_path, table, content, message):
    write_nuscenes(tmp_path, sensor_files=False)
    (tmp_path / VERSION / f"{table}.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"/{table}\.json: {message}"):
        NuScenes(tmp_path)


def test_a_sample_without_a_lidar_key_frame_is_named(tmp_path):
    dataset = NuScenes(write_nuscenes(tmp_path, change("sample_data", 2, is_key_frame=False), sensor_files=False))
    drive = dataset.drive("scene-0103")
    assert [drive[0].token] == ["scene-0103-0"]
    with pytest.raises(DataError, match=r"/sample_data\.json: sample 'scene-0103-1': expected a key frame of LIDAR_TOP, found none"):
        list(drive)


def test_a_version_without_the_lidar_is_refused(tmp_path):
    write_nuscenes(tmp_path, change("sensor", 0, channel="LIDAR\nSIDE"), sensor_files=False)
    with pytest.raises(DataError, match=r"/sensor\.json: expected a sensor LIDAR_TOP, got 'CAM_FRONT', 'LIDAR\\nSIDE'$"):
        NuScenes(tmp_path)


def test_a_missing_lidar_file_is_an_error_that_says_how_to_go_on(tmp_path):
    drive = NuScenes(write_nuscenes(tmp_path)).drive("scene-0103")
    (tmp_path / FRONT).unlink()
    assert [len(drive[0].cloud), len(drive[2].cloud)] == [5, 5]
    with pytest.raises(DataError, match=rf"{FRONT}: the lidar file of sample 'scene-0103-1' is missing; .*'skip' or 'empty' .* goes on"):
        _ = drive[1].cloud


@pytest.mark.parametrize("how", ["gone", "a file in the place of its folder"])
def test_skip_leaves_frames_without_lidar_out_and_counts_them(tmp_path, how):
    write_nuscenes(tmp_path)
    expected = ["scene-0103-0", "scene-0103-2"]
    if how == "gone":
        (tmp_path / FRONT).unlink()
    else:
        shutil.rmtree(tmp_path / "samples")
        (tmp_path / "samples").write_text("")
        expected = []
    dataset = NuScenes(tmp_path, on_missing="skip")
    drive = dataset.drive("scene-0103")
    assert [frame.token for frame in drive] == expected
    assert [len(frame.cloud) for frame in drive] == [5] * len(expected)  # a second time the count does not grow
    assert dataset.missing == set(drive.tokens) - set(expected)
    assert len(drive) == 3


def test_empty_gives_frames_without_lidar_no_points_and_counts_them(tmp_path):
    write_nuscenes(tmp_path)
    (tmp_path / FRONT).unlink()
    drives = open_drives(tmp_path, on_missing="empty")
    frames = [frame for drive in drives for frame in drive]
    assert [len(frame.cloud) for frame in frames] == [5, 0, 5, 5, 5, 5]
    assert frames[1].cloud.ring.shape == (0,)
    assert len(frames[1].truth) == 2
    assert drives[0].dataset.missing == {"scene-0103-1"}


@pytest.mark.parametrize("on_missing", ["error", "skip", "empty"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(lidar_rows().tobytes()[:-1], r"expected a multiple of 20 bytes .*, got 99; the file was cut short", id="cut short"),
        pytest.param(np.full((3, 5), np.nan, "<f4").tobytes(), "expected finite numbers, got 3 of 3 points without", id="NaN"),
        pytest.param(np.array([[0, 0, 0, 0, 1e30]], "<f4").tobytes(), "expected finite numbers, got 1 of 1 points without", id="far ring"),
    ],
)
def test_a_damaged_lidar_file_is_an_error_in_any_case(tmp_path, content, message, on_missing):
    write_nuscenes(tmp_path)
    (tmp_path / FRONT).write_bytes(content)
    drive = NuScenes(tmp_path, on_missing=on_missing).drive("scene-0103")
    with pytest.raises(DataError, match=f"{FRONT}: {message}"):
        _ = [frame.cloud for frame in drive]


def test_a_missing_sweep_is_an_error_that_says_how_to_go_on(tmp_path):
    frame = NuScenes(write_nuscenes(tmp_path)).drive("scene-0103")[1]
    (tmp_path / BETWEEN).unlink()
    assert len(frame.previous_sweeps(9)) == 2
    message = rf"{BETWEEN}: the lidar sweep 'd-LIDAR_TOP-1500000000250000' before sample 'scene-0103-1' is missing; .*--on-missing"
    with pytest.raises(DataError, match=message):
        accumulate_sweeps(frame, 2)


@pytest.mark.parametrize(
    ("on_missing", "times_oldest"),  # of the four sweeps asked for the drive has three
    [pytest.param("skip", 3, id="the oldest comes again for it"), pytest.param("empty", 2, id="it has no points")],
)
def test_a_missing_sweep_is_left_out_and_counted(tmp_path, on_missing, times_oldest):
    write_nuscenes(tmp_path)
    (tmp_path / BETWEEN).unlink()
    dataset = NuScenes(tmp_path, on_missing=on_missing)
    for _ in range(2):  # a second time the count does not grow
        got = accumulate_sweeps(dataset.drive("scene-0103")[1], 4).points
        np.testing.assert_array_equal(got[:, 4], [0] * 5 + [0.5] * 5 * times_oldest)
    assert dataset.missing_sweeps == {"d-LIDAR_TOP-1500000000250000"}
    assert dataset.missing == set()


def test_no_older_sweep_takes_the_place_of_a_missing_one(tmp_path):
    write_nuscenes(tmp_path)
    (tmp_path / FRONT).unlink()
    frame = NuScenes(tmp_path, on_missing="skip").drive("scene-0103")[2]
    assert frame.previous_sweeps(1) == []  # or key frames would be taken for sweeps where only those are there
    assert [sweep.timestamp_us for sweep in frame.previous_sweeps(2)] == [1_500_000_000_250_000]


@pytest.mark.parametrize("on_missing", ["error", "skip", "empty"])
def test_a_damaged_sweep_is_an_error_in_any_case(tmp_path, on_missing):
    write_nuscenes(tmp_path)
    (tmp_path / BETWEEN).write_bytes(lidar_rows().tobytes()[:-1])
    frame = NuScenes(tmp_path, on_missing=on_missing).drive("scene-0103")[1]
    with pytest.raises(DataError, match=f"{BETWEEN}: expected a multiple of 20 bytes .*, got 99; the file was cut short"):
        accumulate_sweeps(frame)


def test_lidar_names_that_the_system_refuses_are_named(tmp_path):
    long_name = "x" * 300
    write_nuscenes(tmp_path, change("sample_data", 2, filename=long_name), sensor_files=False)
    frame = list(NuScenes(tmp_path, on_missing="empty").drive("scene-0103"))[1]
    with pytest.raises(DataError, match=f"{long_name}: expected a readable lidar file, got File name too long"):
        _ = frame.cloud
    assert [f.token for f in NuScenes(tmp_path, on_missing="skip").drive("scene-0103")] == ["scene-0103-1"]  # the others' files are missing


def test_a_folder_in_the_place_of_a_lidar_file_is_named(tmp_path):
    write_nuscenes(tmp_path)
    (tmp_path / FRONT).unlink()
    (tmp_path / FRONT).mkdir()
    frame = NuScenes(tmp_path).drive("scene-0103")[1]
    with pytest.raises(DataError, match=f"{FRONT}: expected a readable lidar file, got Is a directory"):
        _ = frame.cloud


def test_images_that_cannot_be_read_are_named(tmp_path):
    write_nuscenes(tmp_path)
    cameras = [NuScenes(tmp_path).drive("scene-0103")[k].cameras["CAM_FRONT"] for k in range(3)]
    paths = sorted((tmp_path / "samples/CAM_FRONT").iterdir())
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    paths[2].write_bytes(b"no image")
    for camera, path, message in zip(
        cameras, paths, ["a readable image, got No such file", "an? .*image, got ", "a readable image, got cannot identify"], strict=False
    ):
        with pytest.raises(DataError, match=f"{path}: expected {message}"):
            _ = camera.image
