"""Simulated turns of a lidar against what geometry says: planes, walls, a moving sensor, the layouts of real recordings."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from cuda_ops import Primitives
from perception.core import Transform
from perception.drives.simulated import lidar
from perception.drives.simulated.lidar import beams, scan, sensor_poses, shine
from perception.drives.simulated.lidars import LIDARS, LidarModel
from perception.drives.simulated.matter import SCENERY, Matter

NUSCENES, KITTI = LIDARS["hdl32e_nuscenes"], LIDARS["hdl64e_kitti"]
GROUND = Matter.of(Primitives.planes([[0.0, 0, 0]], [[0.0, 0, 1]]), 60.0)
HEIGHT = 1.84


def turn(model: LidarModel, *matter: Matter, speed: float = 0.0, seed: int = 0, pieces: int = 6, device: str | None = None):
    """A turn ending at time 0 (or around it) of a sensor that drives along x, 1.84 m up."""
    knots = np.linspace(-0.3, 0.3, 5)
    yaw = 0.0 if model.forward_axis == "x" else -np.pi / 2
    poses = [Transform.from_yaw(yaw, (speed * t, 0.0, HEIGHT)) for t in knots]
    rng = np.random.default_rng(seed)
    return scan(model, lambda times: sensor_poses(times, knots, poses), lambda _: matter, 0.0, rng, num_pieces=pieces, device=device)


def wall(x: float, reflectivity: float = 60.0) -> Matter:
    """A wall across the x axis, 40 m wide."""
    return Matter.of(Primitives.boxes([[x + 0.5, 0, 5, 1, 40, 10, 0.0]]), reflectivity, owner=7)


@pytest.mark.parametrize("model", LIDARS.values(), ids=LIDARS)
def test_points_of_a_ring_lie_on_its_cone_and_on_the_ground(model):
    found = turn(model, GROUND)
    points, ring = found.points[found.is_return, :3].astype(np.float64), found.ring[found.is_return]
    assert len(points) > 100
    low = points[:, 2] < -1.0  # the strays are in the air
    assert low.mean() > 0.98
    up = points[low, 2] - model.origin_heights[ring[low]]
    rho = np.hypot(points[low, 0], points[low, 1])
    np.testing.assert_allclose(np.degrees(np.arctan2(up, rho)), model.elevations_deg[ring[low]], atol=0.02)
    off = np.abs(points[low, 2] + HEIGHT)
    assert np.median(off) < 0.02
    assert np.quantile(off, 0.99) < 0.15


def test_the_first_column_of_nuscenes_looks_left_and_the_next_ones_ahead():
    direction, _ = beams(NUSCENES)
    assert direction.shape == (1084, 32, 3)
    np.testing.assert_allclose(np.linalg.norm(direction, axis=2), 1, atol=1e-12)
    assert direction[0, 23, 0] < -0.98  # x is to the right
    assert direction[271, 23, 1] > 0.98  # a quarter turn later: ahead


def test_nuscenes_keeps_missing_returns_where_the_sensor_was():
    found = turn(NUSCENES, GROUND, speed=9.05)
    assert len(found.points) == 1084 * 32
    np.testing.assert_array_equal(found.ring, np.tile(np.arange(32), 1084))
    highest = found.points.reshape(1084, 32, 4)[:, 31]  # it sees the sky, and perhaps a drop of rain
    missing = highest[~found.is_return.reshape(1084, 32)[:, 31]]
    assert len(missing) > 1070
    np.testing.assert_allclose(missing[0, :3], [0, -9.05 * 0.05, 0], atol=2e-3)  # y is ahead: the sensor was 0.45 m behind
    np.testing.assert_allclose(missing[-1, :3], 0, atol=1e-5)
    assert np.diff(missing[:, 1]).min() > -1e-6


def test_a_wall_stays_straight_where_motion_is_compensated_and_bends_where_it_is_not():
    for model, axis, most in ((NUSCENES, 1, 0.03), (KITTI, 0, 10.0)):
        found = turn(model, GROUND, wall(12.0), speed=12.0)
        on_wall = found.owner == 7
        assert on_wall.sum() > 500
        ahead = found.points[on_wall, axis].astype(np.float64)
        spread = np.quantile(ahead, 0.95) - np.quantile(ahead, 0.05)
        assert spread < most
        if model is KITTI:
            assert spread > 0.1  # the wall takes some 60 degrees of a turn of 0.1 s
        else:
            assert abs(np.median(ahead) - 12.0) < 0.02


def test_kitti_is_stored_ring_by_ring_counter_clockwise_without_missing_returns():
    found = turn(KITTI, GROUND, wall(12.0))
    assert found.is_return.all()
    assert (np.diff(found.ring) >= 0).all()
    azimuth = np.degrees(np.arctan2(found.points[:, 1], found.points[:, 0])) % 360
    for ring in (10, 40):
        assert (np.diff(azimuth[found.ring == ring]) > -0.5).all()
    assert np.isclose(found.points[:, 3] * 100, np.round(found.points[:, 3] * 100), atol=1e-3).all()


def test_dark_surfaces_vanish_far_away_first():
    for distance, reflectivity, share in ((10.0, 8.0, 0.95), (60.0, 8.0, 0.15), (60.0, 60.0, 0.9)):
        found = turn(NUSCENES, wall(distance, reflectivity))
        direction, _ = beams(NUSCENES)
        reach = distance * direction[..., [0, 2]] / np.where(direction[..., 1:2] > 0.5, direction[..., 1:2], np.nan)
        aimed = ((np.abs(reach[..., 0]) < 19) & (reach[..., 1] > -HEIGHT + 0.5) & (reach[..., 1] < 7)).sum()
        got = (found.owner == 7).sum() / aimed
        assert got > share if share > 0.5 else got < share, (distance, reflectivity, got)


def test_owner_and_intensity_are_those_of_what_was_hit():
    found = turn(NUSCENES, GROUND, wall(12.0, 40.0))
    on_wall = found.owner == 7
    points = found.points[on_wall]
    assert (np.abs(points[:, 1] - 12.0) < 0.2).mean() > 0.98
    near = np.linalg.norm(points[:, :3], axis=1) < 14
    assert 28 < np.median(points[near, 3]) < 46
    assert set(np.unique(found.owner)) == {SCENERY, 7}


def test_the_sky_is_stored_with_the_number_of_its_ring_and_gaps_with_a_strong_one():
    found = turn(NUSCENES, GROUND, wall(12.0, 40.0))
    grid, is_return = found.points.reshape(1084, 32, 4), found.is_return.reshape(1084, 32)
    sky = grid[600:, 28:, 3]  # behind the sensor there is nothing
    assert (sky == NUSCENES.missing_readings[28:]).mean() > 0.99
    # one real sweep: of lone missing returns half hold a reading of 34 - 100, median 69; the rest the number of the ring
    gaps = grid[:, 3:20, 3][~is_return[:, 3:20]]
    assert len(gaps) > 50
    strong = gaps[gaps > 4]
    assert 0.5 < len(strong) / len(gaps) < 0.9
    assert 50 < np.median(strong) < 95


@pytest.mark.parametrize(
    ("distance", "real"),
    [pytest.param(10.0, 1.0, id="near"), pytest.param(22.0, 0.38, id="20 - 25 m read low on nuScenes"), pytest.param(60.0, 1.0, id="far")],
)
def test_readings_follow_the_gain_of_the_receiver(distance, real):
    found = turn(NUSCENES, wall(distance, 100.0))
    points = found.points[(found.owner == 7)]
    ahead = np.abs(points[:, 0]) < 0.3 * distance
    assert np.median(points[ahead, 3]) == pytest.approx(100 * real, rel=0.2)


def test_neighbours_read_nearly_the_same_and_stains_differ():
    # one real sweep, 3 - 10 m: 0.12 between neighbours (as one standard deviation of each), 0.74 in all with what surfaces differ
    found = turn(NUSCENES, GROUND)
    reading = np.log(np.maximum(found.points[:, 3], 1)).reshape(1084, 32)[:, 4]
    there = found.is_return.reshape(1084, 32)[:, 4]
    step = np.diff(reading)[there[1:] & there[:-1]]
    assert 1.4826 * np.median(np.abs(step)) / np.sqrt(2) < 0.2
    assert 0.3 < reading[there].std() < 0.6


def test_returns_are_lost_in_surfaces_and_at_edges_as_on_the_real_sweep():
    walls = [Matter.of(Primitives.boxes([[x + 0.5, 0, 5, 0.2, 1.5, 10, 0.0]]), 12.0) for x in (10.0, 15.0)]
    fence = [Matter.of(Primitives.boxes([[8.0, y, 2, 0.1, 0.3, 4, 0.0]]), 12.0) for y in np.arange(-12, 12, 0.8)]
    gaps, edges = [], []
    for seed in range(4):
        for matter, shares in (((GROUND, wall(14.0, 12.0)), gaps), ((wall(14.0, 40.0), *walls, *fence), edges)):
            found = turn(NUSCENES, *matter, seed=seed)
            there = found.is_return.reshape(1084, 32)
            distance = np.where(there, np.linalg.norm(found.points[:, :3], axis=1).reshape(1084, 32), np.inf)
            before, after = np.roll(distance, 1, axis=0), np.roll(distance, -1, axis=0)
            with np.errstate(invalid="ignore"):
                jump = np.abs(before - after)
            mine = np.isfinite(before) & np.isfinite(after) & (np.minimum(before, after) > 7) & (np.minimum(before, after) < 20)
            shares.append(1 - there[mine & ((jump < 0.3) if shares is gaps else (jump > 1))].mean())
    assert np.mean(gaps) == pytest.approx(0.015, abs=0.008)  # real: 0.5 % at 3 - 10 m, 2.0 % at 10 - 20
    assert np.mean(edges) == pytest.approx(0.16, abs=0.06)  # real: 0.18


def test_shining_surfaces_answer_only_where_they_face_the_lidar():
    cosine = np.array([1.0, 0.7, 0.1])
    np.testing.assert_array_equal(shine(cosine, np.zeros(3)), 1.0)
    np.testing.assert_allclose(shine(cosine, np.full(3, 0.6)), [1.0, 0.4 + 0.6 * 0.7**4, 0.4], atol=1e-3)
    shining = Matter.of(Primitives.boxes([[12.5, 0, 5, 1, 40, 10, 0.0]]), 40.0, owner=7, gloss=0.6)
    rough, smooth = (turn(NUSCENES, matter) for matter in (wall(12.0, 40.0), shining))
    for low, high, least, most in ((0, 3, 0.85, 1.05), (9, 11, 0.5, 0.75)):  # metres to the side: 0 .. 14 degrees, 37 .. 42
        medians = []
        for found in (smooth, rough):
            aside = np.abs(found.points[:, 0])
            medians.append(np.median(found.points[(found.owner == 7) & (aside >= low) & (aside < high), 3]))
        assert least < medians[0] / medians[1] < most


def test_a_beam_widens_what_is_thin_and_far_by_its_own_width():
    counts = []
    for width in (0.0, 0.16):
        model = replace(NUSCENES, beam_width_deg=width)
        pole = Matter.of(Primitives.boxes([[40.0, 0, 3, 0.4, 0.4, 9, 0.0]]), 60.0, owner=7)
        background = Matter.of(Primitives.boxes([[60.5, 0, 5, 1, 40, 30, 0.0]]), 90.0)
        counts.append(np.mean([(turn(model, pole, background, seed=seed).owner == 7).sum() for seed in range(12)]))
    # 0.57 degrees wide, then 0.73
    assert counts[1] / counts[0] == pytest.approx(1.28, abs=0.13)


def test_a_kitti_lidar_stores_weak_returns_as_zero_more_often_far_away():
    shares = []
    for distance in (12.0, 35.0, 65.0):
        found = turn(KITTI, wall(distance, 12.0))
        shares.append((found.points[found.owner == 7, 3] == 0).mean())
    assert 0.0 < shares[0] < 0.2 < shares[1] < 0.5 < shares[2] < 0.95


def test_the_same_seed_gives_the_same_turn_and_another_one_does_not():
    first, again, other = (turn(NUSCENES, GROUND, wall(12.0), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.points, again.points)
    assert (first.points != other.points).any()


def test_the_car_hides_what_the_model_says():
    found = turn(KITTI, GROUND)
    azimuth = np.degrees(np.arctan2(found.points[:, 1], found.points[:, 0])) % 360
    assert not ((found.ring >= 52) & (azimuth > 161) & (azimuth < 199)).any()
    assert ((found.ring < 40) & (azimuth > 161) & (azimuth < 199)).any()


def test_a_model_must_fit_its_beams():
    with pytest.raises(ValueError, match=r"LidarModel.origin_heights: expected \(2,\) like elevations_deg, got \(3,\)"):
        LidarModel("odd", np.array([0.0, 1.0]), 100, 10.0, origin_heights=np.zeros(3))


def test_what_stays_is_cast_against_once_and_what_moves_in_each_piece(monkeypatch):
    calls, cast_rays = [], lidar.cast_rays
    monkeypatch.setattr(lidar, "cast_rays", lambda rays, *rest, **limits: calls.append(len(rays)) or cast_rays(rays, *rest, **limits))
    moments = []

    def matter_at(time: float) -> tuple[Matter, ...]:
        moments.append(time)
        walls = [wall(12.0 + 100 * time)] if len(moments) != 2 else []
        return (GROUND, *walls)

    pose = Transform.from_yaw(-np.pi / 2, (0, 0, HEIGHT))
    found = scan(
        NUSCENES,
        lambda times: sensor_poses(times, np.array([-0.1, 0.1]), [pose, pose]),
        matter_at,
        0.0,
        np.random.default_rng(0),
        num_pieces=4,
    )
    assert calls == [1084 * 32] + [271 * 32] * 3
    np.testing.assert_allclose(np.diff(moments), 0.0125)
    columns = np.flatnonzero((found.owner == 7).reshape(1084, 32).any(axis=1))
    assert columns.min() < 271  # straight ahead is column 270: the wall of the second piece is missing
    assert columns.max() < 542


def test_a_table_that_comes_again_is_looked_at_again():
    pose, moments = Transform.from_yaw(-np.pi / 2, (0, 0, HEIGHT)), []

    def matter_at(time: float) -> tuple[Matter, ...]:
        moments.append(time)
        return (GROUND,) if len(moments) in (1, 3) else ()

    found = scan(
        NUSCENES,
        lambda times: sensor_poses(times, np.array([-0.1, 0.1]), [pose, pose]),
        matter_at,
        0.0,
        np.random.default_rng(0),
        num_pieces=4,
    )
    share = found.is_return.reshape(4, -1).mean(axis=1)
    assert (share[[0, 2]] > 0.3).all()
    assert (share[[1, 3]] < 0.01).all()


def test_rays_cast_on_a_device_give_the_same_bits():
    pytest.importorskip("torch")
    here, there = (turn(NUSCENES, GROUND, wall(12.0), speed=12.0, device=device) for device in (None, "cpu"))
    for name in ("points", "ring", "owner", "is_return"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))


def test_poses_between_poses_are_those_of_slerp():
    rng = np.random.default_rng(3)
    turns = Rotation.from_rotvec(np.cumsum(rng.normal(0, [[0.0], [1e-8], [0.01], [1.0], [2.0]], (5, 3)), axis=0))
    knots, times = np.array([0.0, 0.1, 0.25, 1.0, 1.5]), np.sort(np.append(rng.uniform(0, 1.5, 200), [0.0, 0.25, 1.5]))
    rotation, place = sensor_poses(times, knots, [Transform(r, (k, -k, 2.0)) for r, k in zip(turns.as_matrix(), knots, strict=True)])
    np.testing.assert_allclose(rotation, Slerp(knots, turns)(times).as_matrix(), atol=1e-9)
    np.testing.assert_allclose(place, np.stack([times, -times, np.full(len(times), 2.0)], axis=1), atol=1e-12)
    with pytest.raises(ValueError, match=r"sensor_poses: expected times from 0.0 to 1.5, those of the poses, got 0.0 to 1.6"):
        sensor_poses(np.array([0.0, 1.6]), knots, [Transform.identity()] * 5)
