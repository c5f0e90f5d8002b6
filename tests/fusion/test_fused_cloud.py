"""Sweeps fused with instances: the real points are those of accumulation, the others follow the same rules."""

import numpy as np
import pytest

from perception.core import NUSCENES_DETECTION, DataError, PointCloud, Transform, UsageError
from perception.drives import accumulate_sweeps
from perception.fusion import MVP_CLASSES, VirtualPointsSettings, camera_views, fused_cloud
from perception.fusion.calibration import in_order
from tests.fusion.makers import FIRST_US, SIZE, at_pixel, box_mask, camera, cloud, frame, shown

pytest.importorskip("torch")
WHOLE = np.ones(SIZE[::-1], bool)
REAL, PAINTED, VIRTUAL = 1, 0, -1


def kinds(rows):
    return rows[:, 14].astype(int).tolist()


def test_a_frame_of_one_sweep():
    """Two points, one of them in the mask of a bus: column 3 is the intensity of the real and "is a car" of the others."""
    rows = fused_cloud(
        frame(cloud(at_pixel(4.5, 4.5, 10.0), at_pixel(14.5, 4.5, 9.0, intensity=99)), {"CAM_FRONT": camera()}),
        {"CAM_FRONT": shown((box_mask(3, 3, 6, 6), NUSCENES_DETECTION.index("bus"), 0.5))},
        num_sweeps=1,
        settings=VirtualPointsSettings(num=3),
    )
    assert kinds(rows) == [REAL, REAL, PAINTED, VIRTUAL, VIRTUAL, VIRTUAL]
    assert rows[:2, 3].tolist() == [7, 99]
    assert (rows[:2, 4:15] == 1).all()
    assert np.flatnonzero(rows[2, 3:13]).tolist() == [MVP_CLASSES.index("bus")] == np.flatnonzero(rows[4, 3:13]).tolist()
    assert rows[2:, 13].tolist() == [0.5] * 4
    np.testing.assert_array_equal(rows[2, :3], rows[0, :3])
    assert (rows[3:, 0] == 10).all()
    assert (rows[:, 15] == 0).all()


def three_sweeps(count=2, **options):
    """A vehicle at 2 m/s along x; a thing that stands 8 m before it, and a point on the roof."""
    rows = [cloud(at_pixel(8.5, 6.5, 8.0 + 0.1 * k), [0.3, 0.2, -1.0, 3, 0], at_pixel(2.5, 3.5, 5.0 + k)) for k in range(count + 1)]
    sweeps = tuple((rows[k], Transform.from_yaw(0, (-0.1 * k, 0, 0)), 50_000 * k) for k in range(1, count + 1))
    return frame(rows[0], {"CAM_FRONT": camera(timestamp_us=FIRST_US)}, sweeps=sweeps, **options)


@pytest.mark.parametrize("num_sweeps", [1, 2, 3, 5])
@pytest.mark.parametrize("repeat_oldest", [True, False])
@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("within", [None, 0.06])
def test_real_points_are_those_of_accumulation(num_sweeps, repeat_oldest, count, within):
    moment = three_sweeps(count, ego_to_global=Transform.from_yaw(0.3, (0.01, 0.2, 0)))
    instances = {"CAM_FRONT": shown((WHOLE, 0, 1.0))}
    rows = fused_cloud(moment, instances, num_sweeps, VirtualPointsSettings(num=5), repeat_oldest=repeat_oldest, within=within)
    real = rows[rows[:, 14] == REAL]
    expected = accumulate_sweeps(moment, num_sweeps, repeat_oldest=repeat_oldest, within=within).points
    np.testing.assert_array_equal(real[:, [0, 1, 2, 3, 15]], expected)


def test_order_ages_and_what_stands_still_lines_up():
    rows = fused_cloud(three_sweeps(), {"CAM_FRONT": shown((box_mask(8, 6, 9, 7), 0, 1.0))}, 3, VirtualPointsSettings(num=2))
    one = [REAL] * 3 + [PAINTED] + [VIRTUAL] * 2
    without_roof = one[1:]
    assert kinds(rows) == one + without_roof * 2
    np.testing.assert_allclose(rows[:, 15], [0] * 6 + [0.05] * 5 + [0.1] * 5, atol=1e-7)
    np.testing.assert_allclose(rows[rows[:, 14] == PAINTED, 0], 8, atol=1e-6)  # seen from where the vehicle was, moved to where it is
    # Its pixel too: the picture of the key frame meets each sweep through both poses, so the pixel is the thing's own in each of them.
    virtual = rows[rows[:, 14] == VIRTUAL]
    np.testing.assert_allclose(virtual[:, :3], np.tile(at_pixel(8, 6, 8.0)[:3], (6, 1)), atol=1e-6)


def test_painted_and_virtual_points_near_the_lidar_are_left_out_of_all_but_the_key_sweep():
    near = cloud([0.9, 0.0, 0.0, 1, 0], at_pixel(9.5, 7.5, 0.95))
    moment = frame(near, {"CAM_FRONT": camera()}, sweeps=((near, Transform.identity(), 50_000),))
    rows = fused_cloud(moment, {"CAM_FRONT": shown((WHOLE, 0, 1.0))}, 2, VirtualPointsSettings(num=200))
    assert sorted(set(kinds(rows[rows[:, 15] == 0]))) == [VIRTUAL, PAINTED, REAL]
    assert len(rows[rows[:, 15] > 0]) == 0
    rows = fused_cloud(frame(near, {"CAM_FRONT": camera()}), {"CAM_FRONT": shown((WHOLE, 0, 1.0))}, 2)
    assert len(rows) == 2 + 2 + 50  # the key sweep's repetition is empty


def test_sweeps_go_without_instances_on_request():
    instances = {"CAM_FRONT": shown((WHOLE, 0, 1.0))}
    rows = fused_cloud(three_sweeps(), instances, 3, VirtualPointsSettings(num=2, sweeps="key_only"))
    assert set(kinds(rows[rows[:, 15] > 0])) == {REAL}
    assert set(kinds(rows[rows[:, 15] == 0])) == {REAL, PAINTED, VIRTUAL}


def test_each_sweep_has_a_draw_of_its_own_and_the_same_in_every_run():
    points = cloud(at_pixel(8.5, 6.5, 8.0))
    moment = frame(points, {"CAM_FRONT": camera()}, sweeps=((points, Transform.identity(), 50_000),))
    instances = {"CAM_FRONT": shown((WHOLE, 0, 1.0))}
    first, again = (fused_cloud(moment, instances, 2, VirtualPointsSettings(num=20)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    made = first[first[:, 14] == VIRTUAL]
    assert (made[:20, :3] != made[20:, :3]).any()
    other = fused_cloud(moment, instances, 2, VirtualPointsSettings(num=20, seed=1))
    assert (other != first).any()


def test_scores_below_the_limit_and_intensities_of_another_scale():
    moment = frame(cloud(at_pixel(8.5, 6.5, 8.0, intensity=0.5)), {"CAM_FRONT": camera()}, intensity_top=1.0)
    instances = {"CAM_FRONT": shown((box_mask(2, 2, 14, 10), 0, 0.3), (WHOLE, 1, 0.6))}
    rows = fused_cloud(moment, instances, 1, VirtualPointsSettings(num=4, min_score=0.5))
    assert rows[0, 3] == 127.5
    assert set(rows[1:, 13].tolist()) == {np.float32(0.6)}
    assert (moment.cloud.points[:, 3] == 0.5).all()


def test_pictures_meet_a_cloud_through_both_ego_poses():
    """The vehicle drives 1 m between turn and picture: what was 9 m before the lidar is 8 m before the camera."""
    ahead = camera(ego_to_global=Transform.from_yaw(0, (1.0, 0, 0)))
    view = camera_views(frame(cloud()), {"CAM_FRONT": ahead})["CAM_FRONT"]
    np.testing.assert_allclose(view.lidar_to_camera.apply([9.0, 0, 0]), [0, 0, 8], atol=1e-12)


def test_cameras_count_in_the_published_order():
    names = ["CAM_BACK", "left", "CAM_FRONT_LEFT", "CAM_FRONT", "back"]
    assert in_order(names) == ["CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT", "left", "back"]


def test_errors_are_named():
    with pytest.raises(UsageError, match=r"num_sweeps: expected 1 or more, the key sweep included, got 0"):
        fused_cloud(frame(cloud()), {}, 0)
    with pytest.raises(DataError, match=r"instances of CAM_BACK: expected one of the calibrated cameras \(none\)"):
        fused_cloud(frame(cloud()), {"CAM_BACK": shown((WHOLE, 0, 1.0))}, 1)
    broken = frame(cloud(), {"CAM_FRONT": camera(size=(32, 24))})
    with pytest.raises(DataError, match=r"expected masks of 32 x 24 pixels"):
        fused_cloud(broken, {"CAM_FRONT": shown((WHOLE, 0, 1.0))}, 1)
    assert len(fused_cloud(frame(np.zeros((0, 5), np.float32)), {}, 3)) == 0
    assert isinstance(frame(cloud()).cloud, PointCloud)
