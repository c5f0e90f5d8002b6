"""Rigs: what of the carrying vehicle the lidar sees, how it is mounted, and recordings with another lidar than nuScenes'."""

import numpy as np
import pytest

from perception.core import UsageError
from perception.drives import NuScenes, accumulate_sweeps
from perception.drives.simulated import simulate_scenes, write_nuscenes
from perception.drives.simulated.clips import read_clip, simulated_frame, write_clips
from perception.drives.simulated.lidar import scan
from perception.drives.simulated.lidars import LIDARS
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.rigs import KITTI_RIG, NUSCENES_RIG, RIGS, rig_of

# Rays of rings 0, 1, ... that end on the vehicle, of 1,084; counted on one real sweep of nuScenes.
REAL_OWN = (740, 667, 619, 558, 507, 412, 331, 162, 39, 34, 24, 0)


@pytest.fixture(scope="module")
def scenes():
    return simulate_scenes(1, seed=3, num_frames=2)


def test_every_model_has_a_rig_that_looks_ahead_and_stands_on_the_roof():
    assert set(RIGS) == set(LIDARS)
    for rig in RIGS.values():
        forward = rig.lidar_to_ego.rotate(np.array([0.0, 1.0, 0.0] if rig.model.forward_axis == "y" else [1.0, 0.0, 0.0]))
        assert forward[0] > 0.998  # and not turned by more than 3 degrees
        assert -0.05 <= forward[2] < 0.005  # the nose points down, if anywhere
        assert 1.7 < rig.lidar_to_ego.translation[2] < 1.9


def test_the_vehicle_takes_as_many_rays_of_each_ring_as_the_real_one():
    own = NUSCENES_RIG.own_returns
    assert own is not None
    assert own.distance.min() > 0.5
    pose = np.eye(3), np.zeros(3)
    turn = scan(
        NUSCENES_RIG.model,
        lambda times: tuple(np.broadcast_to(part, (len(times), *part.shape)) for part in pose),
        lambda _: (Matter.concatenate(),),
        0.0,
        np.random.default_rng(0),
        own=own,
    )
    distance = np.linalg.norm(turn.points[:, :3], axis=1)
    found = np.bincount(turn.ring[(distance > 0) & (distance < 2.6)], minlength=32)
    np.testing.assert_allclose(found[:12], REAL_OWN, atol=100)
    assert found.sum() == pytest.approx(sum(REAL_OWN), rel=0.1)
    assert found[12:].sum() < 40  # strays
    ahead = np.abs((NUSCENES_RIG.model.azimuths_deg() + 180) % 360 - 180) < 25
    bonnet = own.distance[ahead][:, 4:7]
    assert ((bonnet > 1.7) & (bonnet < 2.4)).sum() > 100  # seen between the cameras
    assert KITTI_RIG.own_returns is None


def test_own_returns_stay_where_they_are_while_the_vehicle_moves(scenes):
    clouds = [simulated_frame(scenes[0], index, num_sweeps=1).cloud for index in (0, 1)]
    for cloud in clouds:
        # the compensation of the sweep moves them by no more than the vehicle goes in it
        near = np.linalg.norm(cloud.points[:, :3], axis=1) < 1.4
        assert 3000 < near.sum() < 4600
        assert cloud.points[near, 2].min() > -0.75
        assert cloud.points[near, 2].max() < -0.15


def test_another_vehicle_is_a_little_higher_or_lower_and_tilted():
    first, again, other = (NUSCENES_RIG.varied(np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.lidar_to_ego.matrix, again.lidar_to_ego.matrix)
    step = first.lidar_to_ego.inverse() @ other.lidar_to_ego
    assert 1e-3 < np.abs(step.translation).max() < 0.35
    assert 1e-3 < np.arccos((np.trace(step.rotation) - 1) / 2) < np.radians(3)


def test_an_unknown_lidar_is_an_error():
    with pytest.raises(UsageError, match=r"lidar 'vlp61': expected one of hdl32e_nuscenes, .*; did you mean 'vlp16'\?"):
        rig_of("vlp61")


def test_a_drive_with_another_lidar_is_a_nuscenes_drive_too(scenes, tmp_path):
    rig = rig_of("vlp16")
    write_nuscenes(tmp_path, scenes, version="v1.0-other", splits={}, lidar=True, rig=rig)
    frame = NuScenes(tmp_path, "v1.0-other").drives()[0][1]
    np.testing.assert_allclose(frame.lidar_to_ego.matrix, rig.lidar_to_ego.matrix, atol=1e-6)
    cloud = frame.cloud
    assert set(np.unique(cloud.ring)) == set(range(16))
    assert len(cloud) < 1800 * 16  # missing returns are left out
    assert [round((frame.timestamp_us - sweep.timestamp_us) / 1e5) for sweep in frame.previous_sweeps(4)] == [1, 2, 3, 4]
    road = cloud.points[(np.hypot(cloud.points[:, 0], cloud.points[:, 1]) < 9) & (cloud.points[:, 2] < -1.4)]
    height = frame.lidar_to_ego.apply(road[:, :3].astype(np.float64))[:, 2]
    assert abs(np.median(height)) < 0.15  # the road is under the wheels
    assert 1 <= np.median(cloud.points[:, 3]) <= 60


def test_clips_of_a_kitti_lidar_hold_half_a_second_and_readings_up_to_255(tmp_path):
    first, second = (
        write_clips(tmp_path / name, 1, seed=5, rig=KITTI_RIG, varies=varies)[0] for name, varies in (("a", False), ("b", True))
    )
    clip, other = read_clip(first), read_clip(second)
    np.testing.assert_allclose(np.unique(clip.cloud.points[:, 4]), np.arange(5) * KITTI_RIG.sweep_us / 1e6, atol=6e-4)
    assert np.quantile(clip.cloud.points[:, 3], 0.95) > 20
    np.testing.assert_allclose(clip.lidar_to_ego.matrix, KITTI_RIG.lidar_to_ego.matrix)
    assert np.abs(other.lidar_to_ego.matrix - clip.lidar_to_ego.matrix).max() > 1e-3


def test_a_simulated_frame_has_the_sweeps_of_its_lidar(scenes):
    frame = simulated_frame(scenes[0], 1, rig=KITTI_RIG, num_sweeps=2)
    assert len(frame.previous_sweeps(9)) == 1
    assert len(accumulate_sweeps(frame, 2)) > 1.7 * len(frame.cloud)
    assert 100_000 < len(frame.cloud) < 137_600
