"""The contract of every kind of recording, and the one door to them."""

import itertools

import numpy as np
import pytest

from perception.core import Drive, Frame, PointCloud, Transform, UsageError
from perception.drives import DATASETS, open_drives
from tests.makers import write_nuscenes

MAKERS = {"nuscenes": write_nuscenes}  # a small recording of each kind, with its sensor files


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
