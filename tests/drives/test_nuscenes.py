"""nuScenes frames: by eye on a small version in code, and against the official devkit on every annotation of the real ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from nuscenes.eval.common.utils import quaternion_yaw
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes as Devkit
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import transform_matrix
from nuscenes.utils.splits import create_splits_scenes
from PIL import Image
from pyquaternion import Quaternion

from perception.core import NUSCENES_DETECTION, DataError, Drive, UsageError
from perception.drives import NuScenes, open_drives
from perception.drives.nuscenes import CATEGORY_TO_CLASS, find_versions, official_splits
from perception.drives.nuscenes_index import annotation_velocity
from tests.drives.devkit import expect_agreement
from tests.makers import FIRST_US, INTRINSICS, lidar_rows, nuscenes_tables, write_nuscenes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_nuscenes(tmp_path_factory.mktemp("nuscenes"))


def test_a_frame_by_eye(root):
    drive = NuScenes(root).drive("scene-0103")
    assert isinstance(drive, Drive)
    assert repr(drive) == "NuScenesDrive(scene-0103, 3 frames)"
    assert [frame.token for frame in drive] == drive.tokens == ["scene-0103-0", "scene-0103-1", "scene-0103-2"]
    frame = drive[1]
    assert (frame.token, frame.timestamp_us) == ("scene-0103-1", FIRST_US + 500_000)
    np.testing.assert_allclose(frame.ego_to_global.translation, [2, 0, 0])  # 4 m/s for half a second
    np.testing.assert_allclose(frame.lidar_to_global.apply([[0, 1, 0]]), [[4, 0, 1.8]], atol=1e-12)  # 1 m ahead of a lidar at x = 1 m

    camera = frame.cameras["CAM_FRONT"]
    assert list(frame.cameras) == ["CAM_FRONT"]  # no lidar, no radar
    assert (camera.size, camera.timestamp_us) == ((160, 90), FIRST_US + 480_000)
    np.testing.assert_array_equal(camera.intrinsics, INTRINSICS)
    np.testing.assert_allclose(camera.ego_to_global.translation, [1.92, 0, 0])  # 20 ms before the lidar
    np.testing.assert_allclose(camera.camera_to_ego.apply([[0, 0, 10]]), [[11, 0, 1.8]], atol=1e-12)  # z looks ahead
    np.testing.assert_array_equal(camera.image[0, 0], [10, 20, 30])
    assert camera.image.shape == (90, 160, 3)

    truth = frame.truth  # the animal is in the first frame, and no class
    assert truth.names.tolist() == ["car", "pedestrian"]
    assert truth.instance.tolist() == ["i-vehicle.car-scene-0103", "i-human.pedestrian.child-scene-0103"]
    assert truth.attribute.tolist() == ["vehicle.moving", "pedestrian.moving"]
    assert truth.visibility.tolist() == [2, 2]
    assert truth.num_points.tolist() == [11, 11]
    assert truth.score.tolist() == [1, 1]
    np.testing.assert_allclose(truth.boxes.center, [[11, 2, 0.8], [5, -2.5, 0.6]])  # second sample: one step on
    np.testing.assert_allclose(truth.boxes.size, [[4.5, 2, 1.6]] * 2)  # the table has w, l, h
    np.testing.assert_allclose(truth.boxes.yaw, [0.3, 0.3])
    np.testing.assert_allclose(truth.boxes.velocity, [[2, 0], [0, 1]])
    assert len(drive[0].truth) == 2
    assert len(drive[2].truth) == 1


def test_the_cloud_is_read_when_asked_for_with_rings_and_no_age(root):
    frame = NuScenes(root).drive("scene-0916")[0]
    expected = lidar_rows()
    np.testing.assert_array_equal(frame.cloud.points[:, :4], expected[:, :4])
    np.testing.assert_array_equal(frame.cloud.points[:, 4], 0)
    np.testing.assert_array_equal(frame.cloud.ring, expected[:, 4])
    assert frame.cloud.points.flags.writeable


def test_earlier_sweeps_come_nearest_first_and_stay_in_their_scene(root):
    drive = NuScenes(root).drive("scene-0916")
    last = drive[2]
    sweeps = last.previous_sweeps(9)
    start = FIRST_US + 60_000_000
    assert [sweep.timestamp_us - start for sweep in sweeps] == [500_000, 250_000, 0]  # key frames are sweeps of later ones
    assert [sweep.token for sweep in sweeps] == [f"d-LIDAR_TOP-{sweep.timestamp_us}" for sweep in sweeps]
    np.testing.assert_allclose([sweep.ego_to_global.translation[0] for sweep in sweeps], [2, 1, 0])  # 4 m/s
    np.testing.assert_array_equal(sweeps[0].lidar_to_ego.matrix, last.lidar_to_ego.matrix)
    np.testing.assert_array_equal(sweeps[1].cloud.points[:, :4], lidar_rows()[:, :4])
    np.testing.assert_array_equal(sweeps[1].cloud.ring, lidar_rows()[:, 4])
    assert [len(frame.previous_sweeps(9)) for frame in drive] == [0, 2, 3]
    assert [len(last.previous_sweeps(count)) for count in range(5)] == [0, 1, 2, 3, 3]
    assert drive[0].previous_sweeps(1) == []  # the rows before are another scene's


def test_the_first_record_of_a_version_with_a_lidar_alone_has_no_earlier_sweep(tmp_path):
    tables = nuscenes_tables(("scene-0103",))
    tables["sample_data"] = [row for row in tables["sample_data"] if "LIDAR" in row["filename"]]
    drive = NuScenes(write_nuscenes(tmp_path, tables)).drives()[0]
    assert [len(frame.previous_sweeps(9)) for frame in drive] == [0, 2, 3]


def test_cameras_and_truth_can_be_left_out(root):
    frame = NuScenes(root, cameras=False, truth=False).drive("scene-0103")[0]
    assert frame.cameras == {}
    assert frame.truth is None


def test_a_version_without_annotations_has_no_truth(tmp_path):
    tables = nuscenes_tables() | {"sample_annotation": [], "instance": []}
    frame = NuScenes(write_nuscenes(tmp_path, tables, version="v1.0-test"), "v1.0-test").drives()[0][0]
    assert frame.truth is None


def test_a_sample_without_objects_has_an_empty_truth(tmp_path):
    tables = nuscenes_tables()
    tables["sample_annotation"] = [row for row in tables["sample_annotation"] if not row["sample_token"].endswith("0103-0")]
    for row in tables["sample_annotation"]:
        row["prev"] = row["next"] = ""
    truth = NuScenes(write_nuscenes(tmp_path, tables)).drive("scene-0103")[0].truth
    assert len(truth) == 0
    assert truth.classes is NUSCENES_DETECTION
    assert truth.attribute.shape == truth.instance.shape == (0,)


def test_samples_come_in_the_order_of_time_whatever_the_order_of_rows(tmp_path):
    tables = nuscenes_tables()
    tables = {name: rows[::-1] for name, rows in tables.items()}
    dataset = NuScenes(write_nuscenes(tmp_path, tables))
    assert dataset.scene_names == ["scene-0916", "scene-0103"]
    drive = dataset.drive("scene-0103")
    assert drive.tokens == ["scene-0103-0", "scene-0103-1", "scene-0103-2"]
    assert drive[1].truth.names.tolist() == ["pedestrian", "car"]  # objects keep the table's order
    np.testing.assert_allclose(drive[1].truth.boxes.velocity, [[0, 1], [2, 0]])


def test_frames_are_found_by_token(root):
    dataset = NuScenes(root)
    assert dataset.frame("scene-0916-2").timestamp_us == FIRST_US + 61_000_000
    with pytest.raises(UsageError, match=r"sample 'x': not in v1\.0-mini"):
        dataset.frame("x")
    with pytest.raises(UsageError, match=r"scene 'scene-0104': not in v1\.0-mini; did you mean 'scene-0103'"):
        dataset.drive("scene-0104")
    with pytest.raises(IndexError):
        dataset.drive("scene-0103")[3]


@pytest.mark.parametrize(
    ("gaps", "expected"),  # seconds before and after; the object moves 1 m a row
    [
        pytest.param((0.5, 0.5), 2.0, id="central"),  # 2 m in 1 s
        pytest.param((None, 0.5), 2.0, id="first"),  # 1 m in 0.5 s
        pytest.param((0.5, None), 2.0, id="last"),
        pytest.param((None, None), np.nan, id="alone"),
        pytest.param((1.0, 2.0), 2 / 3, id="both sides share 3 s"),
        pytest.param((1.0, 2.1), np.nan, id="3.1 s on both sides"),
        pytest.param((None, 1.5), 1 / 1.5, id="1.5 s on one side"),
        pytest.param((None, 1.51), np.nan, id="more on one side"),
        pytest.param((-0.5, 0.0), np.nan, id="time goes back"),
        pytest.param((0.0, 0.0), np.nan, id="no time passes"),
    ],
)
def test_velocity_follows_the_devkits_rule(gaps, expected):
    before, after = gaps
    time_us = (np.array([5 - (before or 0), 5, 5 + (after or 0)]) * 1e6).astype(np.int64)
    neighbours = np.array([-1, -1 if before is None else 0, -1]), np.array([-1, -1 if after is None else 2, -1])
    got = annotation_velocity(np.arange(3)[:, None] * [1.0, 0.0, 0.0], time_us, *neighbours)
    np.testing.assert_allclose(got[1], [expected, 0 * expected, 0 * expected])
    assert np.isnan(got[[0, 2]]).all()


def test_splits_official_custom_and_unknown(tmp_path):
    splits = {"mine": ["scene-0916", "scene-0103", "scene-0916"], "lost": ["scene-0103", "scene-9999"], "val": ["scene-0103"]}
    dataset = NuScenes(write_nuscenes(tmp_path, splits=splits, sensor_files=False))
    assert dataset.split("mini_val") == ["scene-0103", "scene-0916"]
    assert dataset.split("mine") == ["scene-0103", "scene-0916"]  # each once, in the order of the scene table
    assert dataset.split("val") == ["scene-0103"]  # of its own: the official one belongs to another version
    assert [drive.name for drive in dataset.drives("mine")] == ["scene-0103", "scene-0916"]
    assert [drive.name for drive in dataset.drives()] == ["scene-0103", "scene-0916"]
    assert [drive.name for drive in open_drives(tmp_path, split="val")] == ["scene-0103"]
    with pytest.raises(DataError, match=r"v1\.0-mini: split 'lost': 1 of its 2 scenes are not in scene\.json, first 'scene-9999'"):
        dataset.split("lost")
    with pytest.raises(DataError, match=r"v1\.0-mini: split 'mini_train': 8 of its 8 scenes are not in scene\.json, first 'scene-0061'"):
        dataset.split("mini_train")
    with pytest.raises(UsageError, match=r"split 'train' belongs to a version v1\.0-trainval, got v1\.0-mini"):
        dataset.split("train")
    with pytest.raises(UsageError, match=r"split 'test' belongs to a version v1\.0-test, got v1\.0-mini"):
        dataset.split("test")
    with pytest.raises(UsageError, match=r"split 'mini_vla': expected one of 'lost', 'mine', .*; did you mean 'mini_val'\?"):
        dataset.split("mini_vla")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"{", r"/splits\.json: invalid JSON: ", id="cut short"),
        pytest.param(b"\xff", r"/splits\.json: invalid JSON: ", id="not UTF-8"),
        pytest.param(b"[" * 100_000, r"/splits\.json: invalid JSON: ", id="deep"),
        pytest.param(b"[]", r"/splits\.json: expected \{split: \[scene names\]\}", id="a list"),
        pytest.param(b'{"a": "scene-0103"}', r"/splits\.json: expected \{split: \[scene names\]\}", id="a text for a list"),
    ],
)
def test_broken_custom_splits_are_named(tmp_path, content, message):
    dataset = NuScenes(write_nuscenes(tmp_path, sensor_files=False))
    (tmp_path / "v1.0-mini/splits.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        dataset.split("mini_val")


def test_official_splits_are_the_devkits():
    theirs = create_splits_scenes()
    ours = official_splits()
    assert {name: sorted(scenes) for name, scenes in ours.items()} == {name: sorted(theirs[name]) for name in ours}
    assert {"train", "val", "test", "mini_train", "mini_val"} <= ours.keys()


def test_categories_are_mapped_as_by_the_devkit():
    names = set(CATEGORY_TO_CLASS) | {"animal", "human.pedestrian.stroller", "vehicle.emergency.police", "static_object.bicycle_rack"}
    assert {name: CATEGORY_TO_CLASS.get(name) for name in names} == {name: category_to_detection_name(name) for name in names}


def test_the_only_version_is_found_and_a_choice_is_asked_for(tmp_path):
    write_nuscenes(tmp_path, version="my-version", sensor_files=False)
    assert NuScenes(tmp_path).version == "my-version"
    write_nuscenes(tmp_path, version="v1.0-mini", sensor_files=False)
    assert find_versions(tmp_path) == ["my-version", "v1.0-mini"]
    with pytest.raises(UsageError, match=r"expected a version folder .*, found my-version, v1\.0-mini: choose one with --version"):
        NuScenes(tmp_path)
    with pytest.raises(UsageError, match=r"version 'v1\.0-mimi': .*, found my-version, v1\.0-mini; did you mean 'v1\.0-mini'"):
        NuScenes(tmp_path, "v1.0-mimi")


@pytest.mark.parametrize("version", [None, "v1.0-mini"])
def test_a_version_given_as_the_dataroot_is_explained(root, monkeypatch, version):
    with pytest.raises(UsageError, match=rf"v1\.0-mini: .*got a version's own folder; give the one above it: {root}$"):
        NuScenes(root / "v1.0-mini", version)
    monkeypatch.chdir(root / "v1.0-mini")
    with pytest.raises(UsageError, match=f"give the one above it: {root}$"):
        NuScenes(".", version)


def test_a_dataroot_without_versions_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"expected a version folder .*, found none"):
        NuScenes(tmp_path)
    with pytest.raises(DataError, match=r"none: expected the folder of a nuScenes data set, found none"):
        NuScenes(tmp_path / "none")
    with pytest.raises(UsageError, match=r"version 'v1\.0-mini': expected a folder with sample\.json, found no version there"):
        NuScenes(tmp_path, "v1.0-mini")


# The devkit as the judge, on real recordings.


@pytest.fixture(scope="module", params=["mini-val", "frame"])
def pair(request, shared, tmp_path_factory):
    """Our reader and the devkit, of the same version."""
    root, version = shared / f"data/nuscenes-{request.param}", {"mini-val": "v1.0-mini", "frame": "v1.0-frame"}[request.param]
    return NuScenes(root, version, cache=tmp_path_factory.mktemp("index")), Devkit(version, str(root), verbose=False)


@pytest.mark.shared
def test_every_annotation_is_the_devkits(pair):
    ours, devkit = pair
    index = ours.index
    tokens = index.texts("annotation", "token")
    assert len(tokens) == len(devkit.sample_annotation) == {"v1.0-mini": 4514, "v1.0-frame": 69}[ours.version]
    theirs = [devkit.get("sample_annotation", token) for token in tokens]
    for name, key in (("translation", "translation"), ("size", "size"), ("rotation", "rotation"), ("num_lidar_pts", "num_lidar_pts")):
        np.testing.assert_array_equal(index.numbers("annotation", name), [row[key] for row in theirs])
    velocity = [devkit.box_velocity(token) for token in tokens]
    np.testing.assert_allclose(index.numbers("annotation", "velocity"), velocity, rtol=0, atol=1e-6)
    if ours.version == "v1.0-mini":
        assert np.isfinite(velocity).all(axis=1).sum() > 4000
    sample = index.texts("sample", "token")
    assert [sample[row] for row in index.numbers("annotation", "sample")] == [row["sample_token"] for row in theirs]


@pytest.mark.shared
def test_every_true_object_is_the_devkits(pair):
    ours, devkit = pair
    count = 0
    for drive in ours.drives():
        for frame in drive:
            truth = frame.truth
            sample = devkit.get("sample", frame.token)
            theirs = [devkit.get("sample_annotation", token) for token in sample["anns"]]
            theirs = [row for row in theirs if category_to_detection_name(row["category_name"])]
            assert truth.names.tolist() == [category_to_detection_name(row["category_name"]) for row in theirs]
            assert truth.instance.tolist() == [row["instance_token"] for row in theirs]
            assert truth.num_points.tolist() == [row["num_lidar_pts"] for row in theirs]
            attributes = [[devkit.get("attribute", token)["name"] for token in row["attribute_tokens"]] for row in theirs]
            assert truth.attribute.tolist() == [names[0] if names else "" for names in attributes]
            assert truth.visibility.tolist() == [int(row["visibility_token"] or 0) for row in theirs]
            np.testing.assert_allclose(truth.boxes.center, [row["translation"] for row in theirs], rtol=0, atol=1e-6)
            np.testing.assert_allclose(truth.boxes.size[:, [1, 0, 2]], [row["size"] for row in theirs], rtol=0, atol=1e-6)
            yaw = [quaternion_yaw(Quaternion(row["rotation"])) for row in theirs]
            np.testing.assert_allclose(np.exp(1j * truth.boxes.yaw), np.exp(1j * np.array(yaw)), rtol=0, atol=1e-6)
            velocity = [devkit.box_velocity(row["token"])[:2] for row in theirs]
            np.testing.assert_allclose(truth.boxes.velocity, velocity, rtol=0, atol=1e-6)
            count += len(truth)
    assert count == {"v1.0-mini": 4441, "v1.0-frame": 69}[ours.version]  # the rest are bicycle racks, debris and the like


@pytest.mark.shared
def test_every_pose_and_calibration_is_the_devkits(pair):
    ours, devkit = pair
    tokens = []
    for scene, drive in zip(devkit.scene, ours.drives(), strict=True):
        assert drive.name == scene["name"]
        for frame in drive:
            tokens.append(frame.token)
            sample = devkit.get("sample", frame.token)
            assert frame.timestamp_us == sample["timestamp"]
            assert list(frame.cameras) == sorted(channel for channel in sample["data"] if channel.startswith("CAM"))
            for channel, token in sample["data"].items():
                record = devkit.get("sample_data", token)
                calibration = devkit.get("calibrated_sensor", record["calibrated_sensor_token"])
                pose = devkit.get("ego_pose", record["ego_pose_token"])
                mounting = transform_matrix(calibration["translation"], Quaternion(calibration["rotation"]))
                place = transform_matrix(pose["translation"], Quaternion(pose["rotation"]))
                if channel == "LIDAR_TOP":
                    np.testing.assert_allclose(frame.lidar_to_ego.matrix, mounting, rtol=0, atol=1e-6)
                    np.testing.assert_allclose(frame.ego_to_global.matrix, place, rtol=0, atol=1e-6)
                    continue
                camera = frame.cameras[channel]
                np.testing.assert_allclose(camera.camera_to_ego.matrix, mounting, rtol=0, atol=1e-6)
                np.testing.assert_allclose(camera.ego_to_global.matrix, place, rtol=0, atol=1e-6)
                np.testing.assert_array_equal(camera.intrinsics, calibration["camera_intrinsic"])
                assert (camera.token, camera.timestamp_us) == (token, record["timestamp"])
                assert camera.size == (record["width"], record["height"])
    assert sorted(tokens) == sorted(row["token"] for row in devkit.sample)


@pytest.mark.shared
def test_boxes_in_every_sensor_their_points_and_velocities_are_the_devkits(shared):
    root = shared / "data/nuscenes-frame"
    num_boxes, channels = expect_agreement(NuScenes(root), Devkit("v1.0-frame", str(root), verbose=False))
    assert (num_boxes, len(channels)) == (69, 7)


@pytest.mark.shared
def test_points_rings_and_pixels_are_those_of_the_files(shared):
    root = shared / "data/nuscenes-frame"
    devkit = Devkit("v1.0-frame", str(root), verbose=False)
    frame = NuScenes(root).drives("frame")[0][0]
    data = devkit.get("sample", frame.token)["data"]
    path = devkit.get_sample_data_path(data["LIDAR_TOP"])
    cloud = frame.cloud
    np.testing.assert_array_equal(cloud.points[:, :4], LidarPointCloud.from_file(path).points.T)
    np.testing.assert_array_equal(cloud.ring, np.fromfile(path, np.float32).reshape(-1, 5)[:, 4])
    assert len(cloud) == 34_688
    assert (cloud.ring.min(), cloud.ring.max()) == (0, 31)
    for name, camera in frame.cameras.items():
        assert camera.size == (1600, 900)
        np.testing.assert_array_equal(camera.image, np.asarray(Image.open(devkit.get_sample_data_path(data[name]))))
    assert len(frame.cameras) == 6


@pytest.mark.shared
def test_points_lie_in_the_true_boxes_as_often_as_annotated(shared):
    # Boxes and cloud fit together. The recording's README says that counting with the devkit gives num_lidar_pts exactly.
    frame = NuScenes(shared / "data/nuscenes-frame").drives()[0][0]
    counted = frame.truth.boxes.contains(frame.lidar_to_global.apply(frame.cloud.xyz)).sum(axis=1)
    np.testing.assert_array_equal(counted, frame.truth.num_points)


@pytest.mark.shared
def test_the_recordings_velocities_are_unknown_in_a_single_frame(shared):
    frame = NuScenes(shared / "data/nuscenes-frame").drives()[0][0]
    assert np.isnan(frame.truth.boxes.velocity).all()
    assert len(json.loads((shared / "data/nuscenes-frame/velocities.json").read_bytes())) >= 1


def test_the_dataroot_may_be_text(root):
    assert NuScenes(str(root)).dataroot == Path(root)


def test_the_files_of_a_drives_clouds_are_known_sweeps_included(tmp_path):
    drives = NuScenes(write_nuscenes(tmp_path)).drives()
    for drive, start in zip(drives, (FIRST_US, FIRST_US + 60_000_000), strict=True):
        names = [path.relative_to(tmp_path).as_posix() for path in drive.lidar_paths]
        expected = [("samples", 0), ("sweeps", 250_000), ("samples", 500_000), ("samples", 1_000_000)]
        assert names == [f"{folder}/LIDAR_TOP/{start + offset}.pcd.bin" for folder, offset in expected]


def test_sweeps_before_the_first_key_frame_are_among_the_files(tmp_path):
    tables = nuscenes_tables()
    early = next(row for row in tables["sample_data"] if "sweeps/LIDAR" in row["filename"])  # of scene-0103, now before all others
    early |= {"timestamp": FIRST_US - 50_000, "filename": f"sweeps/LIDAR_TOP/{FIRST_US - 50_000}.pcd.bin", "sample_token": "scene-0103-0"}
    drive, other = NuScenes(write_nuscenes(tmp_path, tables)).drives()
    paths = [path.relative_to(tmp_path).as_posix() for path in drive.lidar_paths]
    assert paths[0] == early["filename"]
    assert len(paths) == 4
    assert [sweep.token for sweep in drive[0].previous_sweeps(9)] == [early["token"]]
    assert len(other.lidar_paths) == 4


@pytest.mark.parametrize("modalities", [[], ["radar"]])
def test_a_version_without_lidar_and_camera_is_refused_in_one_line(tmp_path, modalities):
    tables = nuscenes_tables()
    tables["sensor"] = [row for row in tables["sensor"] if row["modality"] in modalities]
    kept = {row["token"] for row in tables["sensor"]}
    tables["calibrated_sensor"] = [row for row in tables["calibrated_sensor"] if row["sensor_token"] in kept]
    kept = {row["token"] for row in tables["calibrated_sensor"]}
    tables["sample_data"] = [row for row in tables["sample_data"] if row["calibrated_sensor_token"] in kept]
    with pytest.raises(DataError, match=r"sensor\.json: expected a lidar or a camera among the sensors, got neither"):
        NuScenes(write_nuscenes(tmp_path, tables, sensor_files=False))
