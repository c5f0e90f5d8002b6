"""Frames and clips as samples: in the network's frame, with the truth that is complete, counted where the recording does not count."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from cuda_ops import points_in_boxes
from perception.core import DataError, UsageError
from perception.drives import NuScenes, open_drives
from perception.drives.simulated.clips import write_clip
from perception.training.data_settings import ClipsSettings, DrivesSettings
from perception.training.packed import LabelledCloud, PackedClip
from perception.training.sources import ClipFiles, DriveFrames, labelled_cloud, open_source
from tests.drives.kitti_maker import write_kitti_raw, write_kitti_tracking
from tests.makers import lidar_rows, nuscenes_tables, write_nuscenes

SEEN_ROWS = np.array([  # lidar frame of KITTI's rig, 0.76 m ahead of and 1.73 m above the ego frame's origin
    [9.5, 2.0, -0.9, 0.50],  # on the car at x = 10 m, y = 2 m
    [9.0, 2.1, -0.7, 0.25],
    [4.0, -2.9, -0.8, 0.125],  # on the cyclist at x = 5 m, y = -3 m
    [29.0, 8.0, 0.0, 1.0],  # on the tram, which is no object here
    [20.0, -18.0, -1.5, 0.5],  # 18 m to the right at a depth of 19.7 m: the image ends at 15.8 m
    [-9.0, 2.0, -0.9, 0.5],  # behind
], np.float32)  # fmt: skip


def source_of(*folders, frame="ego", sweeps=1, **options) -> DriveFrames:
    settings = DrivesSettings.model_validate({"name": "drives", "folders": [{"root": folder, **options} for folder in folders]})
    source = open_source(settings, frame=frame, sweeps=sweeps)
    assert isinstance(source, DriveFrames)
    return source


def in_boxes(cloud: LabelledCloud) -> np.ndarray:
    boxes = cloud.truth.boxes
    rows = np.column_stack([boxes.center, boxes.size, boxes.yaw])
    return points_in_boxes(np.ascontiguousarray(cloud.points[cloud.points[:, 4] == 0, :3]), rows).count


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory):
    return write_nuscenes(tmp_path_factory.mktemp("nuscenes"), splits={"mine": ["scene-0916"]})


@pytest.fixture(scope="module", params=["tracking", "raw"])
def kitti(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    write_kitti_tracking(root, sequences=("0000",)) if request.param == "tracking" else write_kitti_raw(root)
    for path in root.rglob("*.bin"):
        path.write_bytes(SEEN_ROWS.astype("<f4").tobytes())
    return root


def test_a_nuscenes_frame_by_eye(nuscenes):
    source = source_of(nuscenes)
    assert len(source) == 6  # two scenes of three frames
    cloud = source(1)
    assert cloud.token == "scene-0103-1"  # noqa: S105
    # The lidar, at x = 1, z = 1.8, has x right, y forward: rows i, 1, 0 lie 1 m ahead of it, i to the right.
    np.testing.assert_allclose(cloud.points[:, :3], [[2, -i, 1.8] for i in range(5)], atol=1e-6)
    assert cloud.points[:, 3].tolist() == lidar_rows()[:, 3].tolist()
    assert cloud.points[:, 4].tolist() == [0] * 5
    np.testing.assert_allclose(cloud.origin, [1, 0, 1.8], atol=1e-12)
    assert cloud.truth.names.tolist() == ["car", "pedestrian"]
    assert cloud.truth.num_points.tolist() == [11, 11]  # of the table: the whole cloud is used
    np.testing.assert_allclose(cloud.truth.boxes.center, [[9, 2, 0.8], [3, -2.5, 0.6]])  # the ego frame is 2 m on
    np.testing.assert_allclose(cloud.truth.boxes.velocity, [[2, 0], [0, 1]], atol=1e-12)


def test_earlier_sweeps_have_their_age(nuscenes):
    cloud = source_of(nuscenes, sweeps=2)(1)
    assert len(cloud.points) > 5
    assert cloud.points[5:, 4].min() > 0


def test_the_network_may_live_in_the_lidar_frame(nuscenes):
    ego, lidar = source_of(nuscenes)(1), source_of(nuscenes, frame="nuscenes_lidar")(1)
    np.testing.assert_array_equal(lidar.points[:, :3], lidar_rows()[:, :3])
    assert lidar.origin.tolist() == [0, 0, 0]
    np.testing.assert_allclose(lidar.truth.boxes.center[0], [-2, 8, -1], atol=1e-9)  # 9 - 1 m ahead, 2 m to the left, 0.8 - 1.8 m up
    np.testing.assert_allclose(lidar.truth.boxes.velocity[0], [0, 2], atol=1e-9)
    assert ego.truth.label.tolist() == lidar.truth.label.tolist()


def test_splits_choose_drives(nuscenes):
    assert [source_of(nuscenes, splits=["mine"])(i).token for i in range(3)] == [f"scene-0916-{i}" for i in range(3)]
    assert len(source_of(nuscenes, splits=["mine", "mine"])) == 3  # a drive comes once
    assert len(source_of(nuscenes, nuscenes)) == 12
    with pytest.raises(UsageError, match=r"split 'mien'.*did you mean 'mine'"):
        len(source_of(nuscenes, splits=["mien"]))


def test_a_frame_whose_file_is_missing(tmp_path):
    root = write_nuscenes(tmp_path)
    NuScenes(root).lidar_path(1).unlink()
    with pytest.raises(DataError, match="is missing"):
        [source_of(root)(i) for i in range(6)]
    assert len(source_of(root, on_missing="skip")) == 5


def test_what_has_no_truth_is_no_sample(tmp_path):
    tables = nuscenes_tables()
    tables["sample_annotation"].clear()
    for root in (write_nuscenes(tmp_path / "a", tables), write_kitti_tracking(tmp_path / "b", labels=False)):
        with pytest.raises(UsageError, match="expected frames with truth to train on, found none"):
            len(source_of(root))
    assert len(source_of(tmp_path / "a", write_kitti_raw(tmp_path / "c"))) == 3  # others still are


def test_of_kitti_only_the_labelled_view_is_used(kitti):
    cloud = source_of(kitti)(0)
    expected = SEEN_ROWS[:4, :3] + [0.76, 0, 1.73]
    np.testing.assert_allclose(cloud.points[:, :3], expected, atol=0.01)
    np.testing.assert_allclose(cloud.points[:, 3], [127.5, 63.75, 31.875, 255])  # 0..1 becomes 0..255
    assert cloud.truth.names.tolist() == ["car", "bicycle"]
    assert cloud.truth.num_points.tolist() == [2, 1]
    assert np.isnan(cloud.truth.boxes.velocity).all()


def test_returns_of_earlier_sweeps_are_not_counted(kitti):
    for number in (0, 1):  # where the drive begins, the key sweep comes again, with age 0
        cloud = source_of(kitti, sweeps=3)(number)
        assert cloud.truth.num_points.tolist() == [2, 1]
        assert len(cloud.points) > 4


def test_sweeps_keep_to_the_window_of_the_network(kitti):
    """Ten frames a second: two of five lie within 0.15 s, and where the drive begins the key sweep is not repeated."""
    settings = DrivesSettings.model_validate({"name": "drives", "folders": [{"root": kitti}]})
    source = open_source(settings, frame="ego", sweeps=5, window=0.15)
    found = [source(number) for number in (0, 1)]
    assert [np.unique(np.rint(10 * cloud.points[:, 4])).tolist() for cloud in found] == [[0], [0, 1]]
    np.testing.assert_array_equal(found[0].points, source_of(kitti, sweeps=1)(0).points)


def test_a_folder_may_have_a_number_of_sweeps_of_its_own(kitti):
    settings = DrivesSettings.model_validate({"name": "drives", "folders": [{"root": kitti, "sweeps": 1}]})
    own = open_source(settings, frame="ego", sweeps=3)(1)
    assert isinstance(own, LabelledCloud)
    np.testing.assert_array_equal(own.points, source_of(kitti, sweeps=1)(1).points)
    assert len(own.points) < len(source_of(kitti, sweeps=3)(1).points)


def test_a_frame_without_truth_is_refused(nuscenes):
    record = open_drives(nuscenes, truth=False)[0][0]
    with pytest.raises(DataError, match="frame scene-0103-0: expected one with truth"):
        labelled_cloud(record, frame="ego", sweeps=1)


def test_class_names_are_those_of_objects_that_were_met(tmp_path):
    tables = nuscenes_tables()
    for row in tables["sample_annotation"]:
        if "child" in row["instance_token"]:
            row["num_lidar_pts"] = 0
    names = list(source_of(write_nuscenes(tmp_path, tables)).class_names())
    assert len(names) == 6
    assert all(found == ["car"] for found in names)


def test_a_source_travels_without_what_is_open(nuscenes):
    source = source_of(nuscenes)
    first = source(0)
    again = pickle.loads(pickle.dumps(source))  # noqa: S301  our own
    assert "_frames" not in vars(again)
    np.testing.assert_array_equal(again(0).points, first.points)


@pytest.fixture(scope="module")
def clips(tmp_path_factory, nuscenes):
    """A folder with a clip of each frame of a small version."""
    folder = tmp_path_factory.mktemp("clips")
    frames = [frame for drive in open_drives(nuscenes) for frame in drive]
    for number, frame in enumerate(frames):
        write_clip(folder / f"clip-{number:06d}.npz", frame, num_sweeps=1)
    return folder


def test_clips_of_a_folder_are_the_frames(clips, nuscenes):
    source = open_source(ClipsSettings(name="clips", folder=clips, class_balanced=False), frame="ego", sweeps=10)
    assert isinstance(source, ClipFiles)
    assert len(source) == 6
    clip, frame = source(1), source_of(nuscenes)(1)
    assert isinstance(clip, PackedClip)
    assert clip.token == str(clips / "clip-000001.npz")
    np.testing.assert_allclose(clip.truth.boxes.center, frame.truth.boxes.center, atol=1e-6)
    assert clip.data.tolist()[-5:] == [0, 10, 20, 30, 40]  # intensities
    assert list(source.class_names()) == list(source_of(nuscenes).class_names())


def test_a_folder_without_clips_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"expected clips \(clip-000000.npz, ...\), found none"):
        len(ClipFiles(tmp_path))


def test_reading_needs_no_torch():
    """A worker that loads torch takes seconds longer to start and a quarter of a gigabyte more."""
    modules = ", ".join(f"perception.training.{name}" for name in ("sources", "simulation", "workers"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.shared
def test_the_real_nuscenes_frame(shared):
    source = source_of(shared / "data/nuscenes-frame", version="v1.0-frame", splits=["frame"])
    assert len(source) == 1
    cloud = source(0)
    assert len(cloud.points) == 34_688
    counted = in_boxes(cloud)
    assert cloud.truth.num_points.sum() > 500
    # Boxes lean with the map in the table and are upright on the vehicle here: the border of a box moves by a centimetre or two.
    assert np.abs(counted - cloud.truth.num_points).sum() < 0.05 * cloud.truth.num_points.sum()
    ground = cloud.points[np.hypot(cloud.points[:, 0] - 5, cloud.points[:, 1]) < 2]
    assert abs(np.median(ground[:, 2])) < 0.15  # the road ahead of the vehicle is at z = 0 of the ego frame


@pytest.mark.shared
def test_the_real_kitti_drive(shared, tmp_path):
    subprocess.run([sys.executable, "-B", str(shared / "data/kitti-drive/unpack.py"), str(tmp_path), "--layout", "tracking"], check=True)
    source = source_of(tmp_path / "tracking")
    assert len(source) == 80
    for number in (0, 40, 79):
        cloud = source(number)
        angle = np.degrees(np.arctan2(cloud.points[:, 1], cloud.points[:, 0] - 1.03))
        assert np.abs(angle).max() < 46  # the camera sees +-40 degrees or so
        assert 10_000 < len(cloud.points) < 30_000  # of 123,000
        assert 0 < cloud.points[:, 3].max() <= 255
        near = cloud.truth.boxes.center[:, 0] < 35
        assert near.any()
        assert (cloud.truth.num_points[near] > 0).all()  # as the data's own description says
        assert set(cloud.truth.names) <= {"car", "bicycle", "pedestrian"}
