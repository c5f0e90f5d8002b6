import numpy as np
import pytest

from perception.core import NUSCENES_ATTRIBUTES, NUSCENES_DETECTION
from perception.drives.simulated import DetectorNoise, simulate_detections, simulate_scenes
from perception.drives.simulated.detector import RECALL

PERFECT = DetectorNoise(
    recall=dict.fromkeys(RECALL, 1.0),
    burst_chance=0,
    center=0,
    center_per_metre=0,
    size=0,
    yaw=0,
    flip_chance=0,
    velocity=0,
    velocity_share=0,
    velocity_gross_chance=0,
    duplicate_chance=0,
    false_alarms=0,
    ghosts=0,
)


@pytest.fixture(scope="module")
def scene():
    return simulate_scenes(1, seed=2)[0]


def nearest(detections, truth):
    """For each true object the closest detection of its class: index and distance in the ground plane (inf: none)."""
    distance = np.linalg.norm(truth.boxes.center[:, None, :2] - detections.boxes.center[None, :, :2], axis=2)
    distance[truth.label[:, None] != detections.label[None]] = np.inf
    return distance.argmin(axis=1), distance.min(axis=1)


def test_without_noise_what_is_near_and_visible_is_found_where_it_is(scene):
    found = simulate_detections(scene, np.random.default_rng(0), PERFECT)
    ego = [pose.translation for pose in scene.ego_to_global]
    missed = total = 0
    for frame, detections in enumerate(found):
        truth = scene.truth(frame)
        visible = np.array([t.visibility[frame] for t in scene.objects if t.present[frame]])
        near = np.linalg.norm(truth.boxes.center - ego[frame], axis=1) < 20
        index, distance = nearest(detections, truth)
        is_found = distance < 1e-6
        missed, total = missed + (~is_found & near & (visible > 0.9)).sum(), total + (near & (visible > 0.9)).sum()
        np.testing.assert_allclose(detections.boxes.velocity[index[is_found]], truth.boxes.velocity[is_found], atol=1e-9)
        assert len(detections) <= len(truth)
    assert total > 150
    assert missed < 0.06 * total  # distance alone costs the smallest objects up to 2 - 5 %


def test_misses_come_in_bursts(scene):
    noise = DetectorNoise(false_alarms=0, ghosts=0, duplicate_chance=0)
    found = simulate_detections(scene, np.random.default_rng(1), noise)
    hit = np.full((len(scene.objects), len(scene)), np.nan)
    rows = {thing.token: i for i, thing in enumerate(scene.objects)}
    for frame, detections in enumerate(found):
        truth = scene.truth(frame)
        near = np.linalg.norm(truth.boxes.center - scene.ego_to_global[frame].translation, axis=1) < 50
        assert truth.instance is not None
        hit[[rows[name] for name in truth.instance[near]], frame] = nearest(detections, truth)[1][near] < 1.5
    before, now = hit[:, :-1], hit[:, 1:]
    both = np.isfinite(before) & np.isfinite(now)
    assert 0.05 < (now[both] == 0).mean() < 0.6
    assert (now[both & (before == 0)] == 0).mean() > 1.5 * (now[both] == 0).mean()


def test_scores_tell_good_boxes_from_false_alarms(scene):
    good, bad = [], []
    for frame, detections in enumerate(simulate_detections(scene, np.random.default_rng(2))):
        truth = scene.truth(frame)
        distance = np.linalg.norm(truth.boxes.center[:, None, :2] - detections.boxes.center[None, :, :2], axis=2)
        distance[truth.label[:, None] != detections.label[None]] = np.inf
        is_true = distance.min(axis=0) < 1.0
        good += detections.score[is_true].tolist()
        bad += detections.score[~is_true].tolist()
    assert np.median(good) > 0.4 > 0.25 > np.median(bad)
    assert len(bad) > 5 * len(scene)


def test_velocity_errors_are_small_but_for_a_few(scene):
    noise = DetectorNoise(false_alarms=0, ghosts=0, duplicate_chance=0)
    errors = []
    for frame, detections in enumerate(simulate_detections(scene, np.random.default_rng(3), noise)):
        truth = scene.truth(frame)
        index, distance = nearest(detections, truth)
        ok = distance < 0.5
        errors += np.hypot(*(detections.boxes.velocity[index[ok]] - truth.boxes.velocity[ok]).T).tolist()
    assert 0.15 < np.median(errors) < 0.4
    assert 0.01 < (np.array(errors) > 1.5).mean() < 0.06


def test_every_frame_is_valid_sorted_and_within_range(scene):
    found = simulate_detections(scene, np.random.default_rng(4))
    assert len(found) == len(scene)
    for pose, detections in zip(scene.ego_to_global, found, strict=True):
        assert detections.classes == NUSCENES_DETECTION
        assert (np.diff(detections.score) <= 0).all()
        assert ((detections.score > 0) & (detections.score < 1)).all()
        assert detections.attribute is not None
        assert set(detections.attribute) <= {*NUSCENES_ATTRIBUTES, ""}
        away = np.hypot(*(detections.boxes.center - pose.translation)[:, :2].T)
        assert away.max() < 55


def test_the_same_seed_gives_the_same_detections(scene):
    one, other = (simulate_detections(scene, np.random.default_rng(5)) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.boxes.center, b.boxes.center)
        np.testing.assert_array_equal(a.score, b.score)
