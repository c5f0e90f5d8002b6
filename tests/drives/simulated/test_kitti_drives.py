"""Simulated drives in KITTI's layout, read back with the reader of real ones and laid beside the scene they came from."""

import numpy as np
import pytest

from cuda_ops import points_in_boxes
from perception.core import NUSCENES_DETECTION, UsageError
from perception.drives import open_drives
from perception.drives.simulated import simulate_scene, write_kitti
from perception.drives.simulated.kitti_drives import frame_seconds
from perception.drives.simulated.rigs import KITTI_RIG, NUSCENES_RIG, RIGS

KNOWN = ("car", "truck", "pedestrian", "bicycle")  # of what KITTI labels


@pytest.fixture(scope="module")
def scene():
    return simulate_scene("kitti", np.random.default_rng(6), num_frames=2, density=1.5)


@pytest.fixture(scope="module")
def root(tmp_path_factory, scene):
    folder = tmp_path_factory.mktemp("kitti")
    assert write_kitti(folder, [scene]) == folder / "training"
    return folder


@pytest.fixture(scope="module")
def frames(root):
    (drive,) = open_drives(root)
    assert drive.name == "training-0000"
    return list(drive)


def in_ego_frame(scene, frame: int):
    """What the scene says about its first key frame, in the ego frame."""
    return scene.truth(frame).transformed(scene.ego_to_global[frame].inverse())


def test_ten_frames_a_second_from_the_first_key_frame_to_the_last(frames, scene):
    assert len(frames) == 6
    np.testing.assert_allclose(frame_seconds(scene), np.arange(6) * 0.1)
    assert [frame.timestamp_us for frame in frames] == [0, 100_000, 200_000, 300_000, 400_000, 500_000]
    for frame in frames:
        np.testing.assert_allclose(frame.lidar_to_ego.matrix, KITTI_RIG.lidar_to_ego.matrix, atol=1e-9)


def test_boxes_of_the_first_frame_are_the_truth_of_the_scene_to_a_millimetre(frames, scene):
    truth = in_ego_frame(scene, 0)
    read = frames[0].truth.transformed(frames[0].ego_to_global.inverse())
    assert len(read) >= 3
    for i in range(len(read)):
        number = int(str(read.instance[i]).rpartition("-")[2])
        k = [thing.token for thing in scene.objects if thing.present[0]].index(scene.objects[number].token)
        np.testing.assert_allclose(read.boxes.center[i], truth.boxes.center[k], atol=1e-3)
        np.testing.assert_allclose(read.boxes.size[i], truth.boxes.size[k], atol=1e-3)
        assert np.cos(read.boxes.yaw[i] - truth.boxes.yaw[k]) > np.cos(1e-3)
        assert read.label[i] == truth.label[k]


def test_what_moves_is_labelled_where_it_is_in_every_frame(frames, scene):
    compared = 0
    for frame, seconds in zip(frames, frame_seconds(scene), strict=True):
        place, _, _ = scene.world.places(float(seconds))
        (ego_to_street,) = scene.world.ego_to_street(np.array([seconds]))
        seen = frame.truth.transformed(frame.ego_to_global.inverse())
        for name, center, size in zip(seen.instance, seen.boxes.center, seen.boxes.size, strict=True):
            source = np.flatnonzero(scene.world.owners == int(str(name).rpartition("-")[2]))[0]
            middle = place[source] + (0, 0, size[2] / 2)
            np.testing.assert_allclose(center, ego_to_street.inverse().apply(middle), atol=1e-3)
            compared += 1
    assert compared > 10


def test_all_that_the_camera_sees_is_labelled_and_nothing_else(frames, scene):
    things = [thing for thing in scene.objects if thing.present[0]]
    truth, view = in_ego_frame(scene, 0), frames[0].labelled_view
    labelled = {int(str(name).rpartition("-")[2]) for name in frames[0].truth.instance}
    assert (truth.boxes.center[[things.index(scene.objects[i]) for i in labelled], 0] > 0).all()
    is_shown = view.contains(truth.boxes.center)
    assert 0 < is_shown.sum() < len(things)
    for thing, shown, label in zip(things, is_shown, truth.label, strict=True):
        name, number = NUSCENES_DETECTION.names[label], scene.objects.index(thing)
        if shown and name in KNOWN and thing.visibility[0] > 0.12 and thing.attribute[0] != "cycle.without_rider":
            assert number in labelled, name
        if not shown and thing.size[0] < 1:
            assert number not in labelled
    assert {NUSCENES_DETECTION.names[label] for label in frames[0].truth.label} <= set(KNOWN)


def test_points_lie_in_the_boxes_and_on_the_road(frames):
    for frame in frames[::5]:
        truth = frame.truth.transformed(frame.lidar_to_global.inverse())
        rows = np.column_stack([truth.boxes.center, truth.boxes.size, truth.boxes.yaw]).astype(np.float32)
        near = np.hypot(*truth.boxes.center[:, :2].T) < 35
        counts = points_in_boxes(frame.cloud.points[:, :3].copy(), rows).count
        assert (counts[near] > 0).mean() > 0.9
        road = frame.cloud.points[np.abs(frame.cloud.points[:, 1]) < 2]
        height = frame.lidar_to_ego.apply(road[road[:, 0] < 12, :3].astype(np.float64))[:, 2]
        assert abs(np.median(height)) < 0.1


def test_clouds_are_stored_as_kitti_stores_them(frames):
    points = frames[0].cloud.points
    assert 100_000 < len(points) < 137_600
    assert points[:, 3].max() <= 2.55
    assert 0.02 < (points[:, 3] == 0).mean() < 0.35  # weak returns are kept
    np.testing.assert_allclose(points[:, 3] * 100, np.round(points[:, 3] * 100), atol=1e-3)


@pytest.mark.parametrize("pose_errors", [0.0, 1.0])
def test_poses_are_the_recorded_ones_with_their_height(tmp_path, pose_errors):
    scene = simulate_scene("poses", np.random.default_rng(8), num_frames=3, pose_errors=pose_errors, keeps_height=True)
    write_kitti(tmp_path, [scene], rig=RIGS["vlp16"])
    (drive,) = open_drives(tmp_path)
    poses = [frame.ego_to_global for frame in drive]
    shift = drive[0].lidar_to_ego @ RIGS["vlp16"].lidar_to_ego.inverse()  # the reader's ego frame is KITTI's
    for pose, seconds in zip(poses, frame_seconds(scene), strict=True):
        step = poses[0].inverse() @ pose
        expected = shift @ scene.ego_to_global_at(0.0).inverse() @ scene.ego_to_global_at(float(seconds)) @ shift.inverse()
        # Mercator's scale is that of the first latitude: a millionth a metre
        np.testing.assert_allclose(step.matrix, expected.matrix, atol=1e-3)
    assert np.abs(poses[-1].translation[:2]).max() > 1  # it drives
    yaw = scene.ego_to_global_at(0.0).yaw
    assert np.cos(poses[0].yaw - yaw) > 1 - 1e-9  # x is east in both


def test_writing_twice_gives_the_same_bytes_with_any_number_of_processes(root, scene, tmp_path):
    write_kitti(tmp_path, [scene], workers=2)
    names = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert len(names) == 6 + 3
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((root / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_a_lidar_with_other_axes_is_an_error(scene, tmp_path):
    with pytest.raises(UsageError, match="expected a lidar whose x axis points forward, got hdl32e_nuscenes"):
        write_kitti(tmp_path, [scene], rig=NUSCENES_RIG)


def test_intensities_of_other_lidars_are_on_kittis_scale(scene, tmp_path):
    write_kitti(tmp_path, [scene], rig=RIGS["vlp16"])
    (drive,) = open_drives(tmp_path)
    intensity = drive[0].cloud.points[:, 3]
    assert 0.1 < intensity.max() <= 1
    assert 0.01 < np.median(intensity) < 0.3


def test_clouds_of_an_earlier_longer_drive_do_not_stay(scene, tmp_path):
    old = tmp_path / "training/velodyne/0000/000099.bin"
    old.parent.mkdir(parents=True)
    old.touch()
    with pytest.raises(UsageError, match=r"expected a folder without other sequences and frames, found 0000/000099\.bin"):
        write_kitti(tmp_path, [scene])
    assert list(tmp_path.rglob("*.bin")) == [old]
