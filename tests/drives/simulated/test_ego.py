"""The ego vehicle leans where forces push it and shakes a little; recorded poses drift, and truth and sensors agree on them."""

import numpy as np
import pytest

from perception.core import Transform
from perception.drives.simulated import simulate_scene
from perception.drives.simulated.ego import PITCH_OF_BRAKING, ROLL_OF_TURNING, PoseErrors, Sway, tilt


class Still:
    """A generator without randomness."""

    def normal(self, size):
        return np.zeros(size)


def sway(acceleration: float, yaw_rate: float, *, speed: float = 8.0, rng=None) -> Sway:
    t = np.arange(201) * 0.1
    push = np.where(t > 5, acceleration, 0.0)
    speeds = speed + np.concatenate([[0], np.cumsum((push[1:] + push[:-1]) / 2 * 0.1)])
    return Sway.of(0.0, speeds, yaw_rate * np.maximum(t - 5, 0), 0.1, rng or Still())


@pytest.mark.parametrize(
    ("acceleration", "yaw_rate", "pitch", "roll"),
    [
        pytest.param(0.0, 0.0, 0.0, 0.0, id="straight on"),
        pytest.param(-0.5, 0.0, 0.5 * PITCH_OF_BRAKING, 0.0, id="brakes: nose down"),
        pytest.param(1.0, 0.0, -PITCH_OF_BRAKING, 0.0, id="speeds up: nose up"),
        pytest.param(0.0, 0.25, 0.0, 2.0 * ROLL_OF_TURNING, id="to the left: left side up"),
        pytest.param(0.0, -0.25, 0.0, -2.0 * ROLL_OF_TURNING, id="to the right: left side down"),
    ],
)
def test_the_body_leans_against_what_pushes_it(acceleration, yaw_rate, pitch, roll):
    found = sway(acceleration, yaw_rate)
    np.testing.assert_allclose(found.at(np.array([1.0, 4.5])), 0, atol=1e-9)
    np.testing.assert_allclose(found.at(np.array([14.0]))[0], (pitch, roll), atol=2e-5)
    during = found.at(np.linspace(5, 8, 200))
    assert np.abs(during).max() <= 1.5 * max(abs(pitch), abs(roll), 1e-12)  # a damped spring swings over, once
    if pitch:
        assert np.abs(during[:, 0]).max() > 1.1 * abs(pitch)


def test_it_shakes_as_much_as_a_real_one_while_it_drives():
    driving, slow = (sway(0, 0, speed=speed, rng=np.random.default_rng(1)) for speed in (8.0, 0.5))
    lean = np.degrees(driving.lean)
    assert lean.std(axis=0) == pytest.approx((0.16, 0.16), rel=0.3)
    rate = (driving.at(np.arange(1, 19, 0.045)[1:]) - driving.at(np.arange(1, 19, 0.045)[:-1])) / 0.045
    # two real drives: 1.0 - 1.2 degrees a second over the 45 ms between the cameras' poses
    assert np.degrees(rate).std(axis=0) == pytest.approx((1.1, 1.1), rel=0.35)
    assert (slow.lean.std(axis=0) < 0.4 * driving.lean.std(axis=0)).all()


def test_recorded_poses_are_off_by_centimetres_and_drift_slowly():
    offs, steps = [], []
    for seed in range(60):
        errors = PoseErrors.draw(np.random.default_rng(seed))
        values = np.array([errors.at(t) for t in np.arange(0, 20, 0.5)])
        offs.append(values)
        steps.append(np.abs(np.diff(values, axis=0)))
    np.testing.assert_allclose(np.concatenate(offs).std(axis=0)[:2], 0.04, rtol=0.2)
    np.testing.assert_allclose(np.degrees(np.concatenate(offs).std(axis=0)[2:]), (0.04, 0.03, 0.03), rtol=0.2)
    # what stands shifts by under a centimetre from key frame to key frame on real drives
    assert np.concatenate(steps)[:, :2].std() < 0.012


def test_the_recorded_height_is_kept_or_zero():
    pose = Transform(tilt(0.03, -0.01), np.array([5.0, 6.0, 1.5]))
    for keeps, height in ((True, 1.5), (False, 0.0)):
        none = PoseErrors.draw(np.random.default_rng(0), scale=0.0, keeps_height=keeps)
        recorded = none.recorded(pose, 3.0)
        np.testing.assert_array_equal(recorded.translation, (5.0, 6.0, height))
        np.testing.assert_allclose(recorded.rotation, pose.rotation, atol=1e-12)


@pytest.fixture(scope="module")
def drives():
    return [
        simulate_scene("ego", np.random.default_rng(4), num_frames=8, **options)
        for options in ({}, {}, {"pose_errors": 0.0, "keeps_height": True})
    ]


def test_the_same_seed_gives_the_same_poses(drives):
    for first, again in zip(drives[0].ego_to_global, drives[1].ego_to_global, strict=True):
        np.testing.assert_array_equal(first.matrix, again.matrix)


def test_boxes_are_where_the_sensors_see_them_whatever_the_recorded_pose_says(drives):
    noisy, _, exact = drives
    assert [thing.token for thing in noisy.objects] == [thing.token for thing in exact.objects]
    for frame in range(len(noisy)):
        here, there = noisy.ego_to_global[frame], exact.ego_to_global[frame]
        assert here.translation[2] == 0
        assert 1e-4 < np.abs(here.translation - there.translation)[:2].max() < 0.3
        for first, second in zip(noisy.objects, exact.objects, strict=True):
            seen = [pose.inverse().apply(thing.center[frame]) for pose, thing in ((here, first), (there, second))]
            np.testing.assert_allclose(*seen, atol=1e-6)
            assert np.cos(first.yaw[frame] - here.yaw - second.yaw[frame] + there.yaw) > 1 - 1e-6


def test_without_errors_what_stands_stands_still(drives):
    still = [thing for thing in drives[2].objects if (thing.velocity == 0).all()]
    assert len(still) > 3
    for thing in still:
        np.testing.assert_allclose(thing.center, np.broadcast_to(thing.center[:1], thing.center.shape), atol=1e-6)


def test_attitudes_span_what_real_drives_span():
    angles = []
    for seed in range(12):
        scene = simulate_scene("ego", np.random.default_rng([9, seed]), num_frames=40)
        poses = scene.world.ego_to_street(np.arange(0, 20, 0.5))
        angles += [(np.arcsin(-p.rotation[2, 0]), np.arctan2(p.rotation[2, 1], p.rotation[2, 2])) for p in poses]
    pitch, roll = np.degrees(angles).T
    # two real drives: pitch -4.6 .. 2.6, roll -0.3 .. 1.9
    assert 0.4 < pitch.std() < 2.0
    assert 0.4 < roll.std() < 1.5
    assert 1.0 < np.abs(pitch).max() < 5.0
    assert 1.0 < np.abs(roll).max() < 4.0
