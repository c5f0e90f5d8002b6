"""A real KITTI drive: boxes lie on the points they name, clouds line up by the poses, both layouts say the same."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from perception.core import Boxes3D
from perception.drives import open_drives
from perception.drives.kitti_poses import read_oxts_file
from perception.tracking import build_tracker

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def roots(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("kitti")
    subprocess.run([sys.executable, "-B", str(shared / "data/kitti-drive/unpack.py"), str(out)], check=True)
    return out


@pytest.fixture(scope="module")
def frames(roots):
    return list(open_drives(roots / "tracking")[0])


@pytest.fixture(scope="module")
def every_third(frames):
    """Every third frame with its cloud in the global frame."""
    return [(frame, frame.lidar_to_global.apply(frame.cloud.xyz)) for frame in frames[::3]]


@pytest.fixture(scope="module")
def raw(roots):
    return list(open_drives(roots / "raw")[0])


def share_of_good_frames(frames_with_points, change) -> float:
    """Share of the frames whose boxes within 35 m, after `change`, all hold points and fit them.

    To fit: of the points in the box and 0.5 m around it (1 m above, from 0.3 m above its bottom, where the road ends) 85 % are inside, and
    the highest one inside reaches 85 % of the height; both as means over the frame's boxes: objects stand beside each other, or hide.
    """
    good = []
    for frame, points in frames_with_points:
        boxes = change(frame.truth.boxes)
        distance = np.linalg.norm(boxes.center[:, :2] - frame.ego_to_global.translation[:2], axis=1)
        fits = [fit(boxes[i], points) for i in np.flatnonzero(distance < 35)]
        inside, reach = np.mean(fits, axis=0)
        good.append(min(fit[0] for fit in fits) > 0 and inside >= 0.85 and reach >= 0.85)
    return float(np.mean(good))


def fit(box, points) -> tuple[float, float]:
    bottom, height = box.center[0, 2] - box.size[0, 2] / 2, box.size[0, 2]
    near = points[(np.abs(points[:, :2] - box.center[0, :2]).max(axis=1) < 6) & (points[:, 2] > bottom + 0.3)]
    inside = near[box.contains(near)[0]]
    around = Boxes3D(box.center + np.array([0, 0, 0.5]), box.size + 1, box.yaw, box.velocity).contains(near)[0].sum()
    return len(inside) / max(around, 1), (inside[:, 2].max() - bottom) / height if len(inside) else 0.0


def test_true_boxes_lie_on_their_points(frames, every_third):
    assert sum(len(frame.truth) for frame in frames) == 256  # as the recording's own notes count them
    assert share_of_good_frames(every_third, lambda boxes: boxes) >= 0.95


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda boxes: replace(boxes, yaw=boxes.yaw + np.pi / 2), id="turned by 90 degrees"),
        *(
            pytest.param(lambda boxes, shift=shift: replace(boxes, center=boxes.center + shift), id=f"shifted by {shift} m")
            for shift in [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
        ),
    ],
)
def test_boxes_that_are_off_do_not(every_third, change):
    assert share_of_good_frames(every_third, change) < 0.25


def test_the_road_is_at_the_height_of_the_ego_frame(frames):
    """The road 4 to 9 m ahead is at z = 0 of the ego frame, within what slope and springs make of it."""
    heights = []
    for frame in frames[::10]:
        points = frame.lidar_to_ego.apply(frame.cloud.xyz)
        ring = points[(np.abs(points[:, 1]) < 3) & (points[:, 0] > 4) & (points[:, 0] < 9) & (np.abs(points[:, 2]) < 0.5)]
        heights.append(np.median(ring[:, 2]))
    assert np.abs(heights).max() < 0.08


def test_sensors_are_where_the_drawing_of_the_car_has_them(roots):
    """Only the lidar's place is taken from KITTI's drawing of the car; what the files say of the rest must agree with the drawing."""
    for layout in ("tracking", "raw"):
        calibration = open_drives(roots / layout)[0].calibration
        # camera 0: 0.27 m ahead of the lidar and 1.65 m high; it is 0.06 m beside the lidar's line by its calibration
        np.testing.assert_allclose(calibration.rectified_to_ego.translation[[0, 2]], [1.03, 1.65], atol=0.02)
        assert abs(calibration.rectified_to_ego.translation[1]) < 0.1
        np.testing.assert_allclose(calibration.imu_to_ego.translation, [-0.05, 0.32, 0.93], atol=0.02)
        np.testing.assert_allclose(calibration.imu_to_ego.rotation, np.eye(3), atol=1e-12)  # its axes are the car's
        right = calibration.cameras["image_03"].camera_to_ego.translation - calibration.cameras["image_02"].camera_to_ego.translation
        assert np.linalg.norm(right) == pytest.approx(0.53, abs=0.02)  # 0.54 m between left and right
        assert right[1] < -0.5  # to the right


@pytest.mark.parametrize("first", [0, 15, 30, 45, 60])
def test_clouds_line_up_by_the_poses(frames, first):
    """Half a second and about 2 m of driving apart, points of what stands still are much nearer to each other in the global frame."""
    clouds = []
    for frame in (frames[first], frames[first + 5]):
        points = frame.lidar_to_ego.apply(frame.cloud.xyz)
        distance = np.linalg.norm(points[:, :2], axis=1)
        points = points[(points[:, 2] > 0.4) & (distance > 3) & (distance < 40)]  # no road: it looks the same from everywhere
        moving = frame.truth.boxes.transformed(frame.ego_to_global.inverse())
        clouds.append((points[~replace(moving, size=moving.size + 1).contains(points).any(axis=0)], frame.ego_to_global))
    (here, here_to_global), (there, there_to_global) = clouds
    without = np.median(cKDTree(there).query(here)[0])
    with_poses = np.median(cKDTree(there_to_global.apply(there)).query(here_to_global.apply(here))[0])
    assert with_poses < 0.2  # the points of a turn lie about as far from each other at 20 m
    assert with_poses < 0.4 * without


def test_both_layouts_say_the_same(frames, raw):
    assert len(frames) == len(raw) == 80
    missing = 0
    for tracking, other in zip(frames, raw, strict=True):
        np.testing.assert_allclose(tracking.lidar_to_global.matrix, other.lidar_to_global.matrix, atol=1e-9)
        np.testing.assert_allclose(tracking.labelled_view.camera_to_ego.matrix, other.labelled_view.camera_to_ego.matrix, atol=1e-9)
        assert tracking.labelled_view.size == other.labelled_view.size == (1242, 375)
        distance = np.linalg.norm(tracking.truth.boxes.center[:, None] - other.truth.boxes.center[None], axis=2)
        nearest = distance.argmin(axis=1)
        assert distance.min(axis=1).max() < 0.03  # tracklets turn about the lidar's axis, labels about the camera's: 0.9 degrees apart
        same = other.truth[nearest]
        assert same.names.tolist() == tracking.truth.names.tolist()
        np.testing.assert_allclose(same.boxes.size, tracking.truth.boxes.size, atol=1e-5)
        np.testing.assert_allclose(np.exp(1j * same.boxes.yaw), np.exp(1j * tracking.truth.boxes.yaw), atol=1e-3)
        missing += len(other.truth) - len(tracking.truth)
    assert missing == 1  # a van that the image does not show any more


def test_velocities_are_those_of_the_objects(frames):
    """The cyclist and the van ahead keep the car's distance: about its speed; the parked car does not move."""
    speed = {}
    for frame in frames:
        for instance, value in zip(frame.truth.instance.tolist(), frame.truth.boxes.speed, strict=True):
            speed.setdefault(instance.rpartition("-")[2], []).append(value)
    median = {number: np.nanmedian(values) for number, values in speed.items()}
    ego = [np.linalg.norm(b.ego_to_global.translation - a.ego_to_global.translation) / 0.1 for a, b in itertools.pairwise(frames)]
    assert 3.5 < np.median(ego) < 5  # 4.3 m/s in the recording's notes
    assert abs(median["1"] - np.median(ego)) < 1  # cyclist
    assert median["3"] < 1  # the van that is passed, parked
    assert sum(np.isnan(values).sum() for values in speed.values()) == 0


def test_poses_seen_from_each_other_are_those_of_the_development_kit(roots, raw):
    drive = open_drives(roots / "raw")[0]
    packets = read_oxts_file(roots / "tracking/training/oxts/0000.txt")
    expected = convert_oxts_to_pose(packets)
    imu = [frame.ego_to_global @ drive.calibration.imu_to_ego for frame in raw]
    got = [(imu[0].inverse() @ pose).matrix for pose in imu]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    speed = [float(line.split()[8]) for line in (roots / "tracking/training/oxts/0000.txt").read_text().splitlines()]
    way = sum(np.linalg.norm(b.translation - a.translation) for a, b in itertools.pairwise(imu))
    seconds = (raw[-1].timestamp_us - raw[0].timestamp_us) * 1e-6
    # The unit's own speed, another of its outputs. Its positions are good to 0.3 to 0.45 m (pos_accuracy) and drift by that on the way.
    assert way == pytest.approx(np.mean(speed) * seconds, rel=0.05)


def convert_oxts_to_pose(packets) -> list[np.ndarray]:
    """4 x 4 matrices from each packet's unit into the first packet's: the raw development kit's formula, written out."""
    scale, radius = np.cos(packets[0, 0] * np.pi / 180), 6378137
    poses = []
    for lat, lon, alt, rx, ry, rz in packets:
        pose = np.eye(4)
        pose[:3, 3] = scale * lon * np.pi * radius / 180, scale * radius * np.log(np.tan((90 + lat) * np.pi / 360)), alt
        turn_x = [[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]]
        turn_y = [[np.cos(ry), 0, np.sin(ry)], [0, 1, 0], [-np.sin(ry), 0, np.cos(ry)]]
        turn_z = [[np.cos(rz), -np.sin(rz), 0], [np.sin(rz), np.cos(rz), 0], [0, 0, 1]]
        pose[:3, :3] = np.array(turn_z) @ turn_y @ turn_x
        poses.append(pose)
    return [np.linalg.inv(poses[0]) @ pose for pose in poses]


def test_labelled_objects_are_where_the_camera_looks(frames):
    """All but the van beside the car, whose middle is out of the image while its front is in it."""
    seen = total = 0
    for frame in frames:
        corners = frame.truth.boxes.corners.reshape(-1, 3)
        is_seen = frame.labelled_view.contains(frame.ego_to_global.inverse().apply(corners)).reshape(-1, 8).any(axis=1)
        seen, total = seen + int(is_seen.sum()), total + len(is_seen)
    assert seen / total > 0.9


def test_the_tracker_follows_the_true_objects(frames):
    """Fed with the truth the tracker gives each object one id, the drive long."""
    tracker = build_tracker()
    ids = {}
    for frame in frames:
        tracks = tracker.update(frame.truth, frame.timestamp_us)
        seen = tracks[~tracks.coasted]
        for instance, row in zip(frame.truth.instance[seen.detection_index].tolist(), seen.track_id.tolist(), strict=True):
            ids.setdefault(instance, set()).add(row)
    assert len(ids) == 6  # objects of the label file
    assert [len(found) for found in ids.values()] == [1] * 6
    assert len(set.union(*ids.values())) == 6
