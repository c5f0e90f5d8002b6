"""The contract of every kind of recording, and the one door to them."""

import itertools

import numpy as np
import pytest

from perception.core import DataError, Drive, Frame, PointCloud, Transform, UsageError
from perception.drives import DATASETS, kind_of, open_drives
from tests.drives.kitti_maker import DATE, DRIVE, write_kitti_raw, write_kitti_tracking
from tests.makers import write_nuscenes

MAKERS = {"nuscenes": write_nuscenes, "kitti": write_kitti_tracking}  # a small recording of each kind, with its sensor files


@pytest.fixture(params=DATASETS)
def drives(request, tmp_path):
    return DATASETS[request.param](MAKERS[request.param](tmp_path / "data"), version=None, split=None)


def test_every_dataset_gives_drives_of_different_names(drives):
    assert drives
    assert all(isinstance(drive, Drive) for drive in drives)
    assert len({drive.name for drive in drives}) == len(drives)


def test_every_drive_gives_its_frames_in_time_order_by_iteration_and_by_number(drives):
    for drive in drives:
        frames = list(drive)
        assert len(frames) == len(drive) > 0
        assert all(isinstance(frame, Frame) for frame in frames)
        assert [frame.token for frame in frames] == [drive[i].token for i in range(len(drive))]
        assert drive[-1].token == frames[-1].token
        assert all(a.timestamp_us < b.timestamp_us for a, b in itertools.pairwise(frames))
        with pytest.raises(IndexError):
            drive[len(drive)]


def test_every_frame_has_poses_and_a_cloud_in_the_lidar_frame(drives):
    frame = drives[0][0]
    assert isinstance(frame.lidar_to_ego, Transform)
    assert isinstance(frame.cloud, PointCloud)
    assert len(frame.cloud)
    np.testing.assert_array_equal(frame.cloud.points[:, 4], 0)  # age of the key sweep
    np.testing.assert_allclose(frame.lidar_to_global.matrix, frame.ego_to_global.matrix @ frame.lidar_to_ego.matrix)


def test_every_frame_has_its_earlier_sweeps_nearest_first(drives):
    for drive in drives:
        assert drive[0].previous_sweeps(0) == []
        frame = drive[-1]
        sweeps = frame.previous_sweeps(2)
        assert len(sweeps) == min(2, len(drive) - 1)  # key frames are sweeps of later ones
        assert all(a.timestamp_us > b.timestamp_us for a, b in itertools.pairwise([frame, *sweeps]))
        assert all(len(sweep.cloud) for sweep in sweeps)


def test_the_door_opens_what_the_dataset_opens(tmp_path):
    root = write_nuscenes(tmp_path / "data", splits={"mine": ["scene-0916"]})
    assert [drive.name for drive in open_drives(root)] == ["scene-0103", "scene-0916"]
    assert [drive.name for drive in open_drives(str(root), split="mine")] == ["scene-0916"]
    assert open_drives(root, truth=False)[0][0].truth is None
    with pytest.raises(UsageError, match="did you mean 'mine'"):
        open_drives(root, split="mien")


@pytest.mark.parametrize(
    ("kind", "write", "names"),
    [
        pytest.param("nuscenes", write_nuscenes, ["scene-0103", "scene-0916"], id="nuScenes"),
        pytest.param("kitti", write_kitti_tracking, ["training-0000", "training-0001"], id="KITTI tracking"),
        pytest.param("kitti", write_kitti_raw, [DRIVE], id="KITTI raw"),
    ],
)
def test_the_door_tells_recordings_apart_by_what_is_in_the_folder(tmp_path, kind, write, names):
    root = write(tmp_path / "data")
    assert kind_of(root) == kind
    assert [drive.name for drive in open_drives(root)] == names


def test_an_unknown_folder_is_no_recording(tmp_path):
    with pytest.raises(DataError, match="nowhere: expected the folder of a data set, found none"):
        open_drives(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"expected nuScenes \(v1\.0-mini/sample\.json, \.\.\.\) or KITTI \(.*\), found neither"):
        open_drives(tmp_path)


@pytest.mark.parametrize("part", [DATE, f"{DATE}/{DRIVE}", f"{DATE}/{DRIVE}/velodyne_points"])
def test_a_part_of_a_kitti_folder_is_answered_with_the_folder_to_give(tmp_path, part):
    root = write_kitti_raw(tmp_path / "data")
    with pytest.raises(UsageError, match=rf"expected .* there, got a part of it; give {root}$"):
        open_drives(root / part)


def test_kitti_has_no_versions(tmp_path):
    with pytest.raises(UsageError, match=r"version 'v1\.0-mini': a KITTI data set has no versions"):
        open_drives(write_kitti_raw(tmp_path / "data"), version="v1.0-mini")
