"""The contract of a tracker, kept by every entry of TRACKERS in each of its modes."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from perception.core import NUSCENES_TRACKING, DataError, Transform
from perception.tracking import TRACKERS, GreedyTracker, ParityTracker, TrackerConfig, build_tracker, load_tracker_config
from tests.tracking.makers import (
    HALF_SECOND,
    NOTHING,
    START_US,
    UNKNOWN,
    assert_same_tracks,
    columns_of,
    follow,
    frame_of,
    one_car_driving,
    random_drive,
)

SHIPPED = load_tracker_config().tracker.model_dump()
MODES = {
    "greedy": {
        "shipped": SHIPPED,
        "few classes": {**SHIPPED, "gate": {"car": 2.0, "bus": 3.0}, "max_age": {"car": 1.0, "bus": 2.0}},
        "strict": {**SHIPPED, "min_hits": 3, "birth_score": 0.3},
        "parity": {"parity": True},
        "parity, Hungarian": {"parity": True, "assignment": "hungarian"},
        "parity, no coasting": {"parity": True, "max_age": 0},
    }
}


def test_every_tracker_is_under_contract():
    assert set(MODES) == set(TRACKERS)


@pytest.fixture(params=[(name, mode) for name, modes in MODES.items() for mode in modes], ids=" ".join)
def make(request):
    name, mode = request.param
    config = TrackerConfig.model_validate({"tracker": {"name": name, **MODES[name][mode]}})
    return lambda: TRACKERS[name](config.tracker)


def test_the_tracks_of_a_drive_hang_together(make):
    tracker, label_of, dead = make(), {}, set()
    alive: set[int] = set()
    for detections, now in [*random_drive(0, frames=20, objects=30), *((NOTHING, START_US + 10**8 + i) for i in range(2))]:
        tracks = tracker.update(detections, now)
        assert tracks.classes == tracker.classes
        assert set(tracks.classes) <= set(NUSCENES_TRACKING)
        ids = tracks.track_id.tolist()
        assert len(set(ids)) == len(ids)
        assert not dead & set(ids)  # an id does not come back from the dead
        dead |= alive - set(ids)
        alive = set(ids)
        for i, label in zip(ids, tracks.label.tolist(), strict=True):
            assert label_of.setdefault(i, label) == label
        assert ((tracks.detection_index < 0) == tracks.coasted).all()
        seen = tracks[~tracks.coasted]
        assert seen.names.tolist() == detections.names[seen.detection_index].tolist()
        np.testing.assert_array_equal(seen.boxes.center, detections.boxes.center[seen.detection_index])
        assert_same_tracks(replace(tracks, boxes=replace(tracks.boxes)), tracks)  # checked again: a valid value
    assert len(label_of) > 5


def test_a_steady_car_keeps_its_id(make):
    frames = [(d, now) for d, now in one_car_driving(10.0)]
    assert {i for tracks in follow(make(), frames) for i in tracks.track_id.tolist()} == {1}


def test_two_trackers_in_one_process_do_not_know_each_other(make):
    frames, others = random_drive(1), random_drive(2)
    alone = follow(make(), frames)
    one, two = make(), make()
    for (detections, now), (other, other_now), wanted in zip(frames, others, alone, strict=True):
        two.update(other, other_now)
        assert_same_tracks(one.update(detections, now), wanted)


def test_reset_begins_a_new_drive_at_any_time(make):
    tracker = make()
    first = follow(tracker, random_drive(1))
    tracker.reset()
    for one, two in zip(first, follow(tracker, random_drive(1)), strict=True):
        assert_same_tracks(one, two)


def test_neither_arguments_nor_earlier_results_are_written_into(make):
    tracker, kept = make(), []
    for detections, now in random_drive(3, frames=12):
        before = [copy.deepcopy(a) for a in (detections.boxes.center, detections.boxes.velocity, detections.label, detections.score)]
        tracks = tracker.update(detections, now)
        after = [detections.boxes.center, detections.boxes.velocity, detections.label, detections.score]
        for one, two in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, two)
        kept.append((tracks, copy.deepcopy(columns_of(tracks))))
        for column in columns_of(tracks).values():
            assert not any(np.shares_memory(column, array) for array in after)
    for tracks, columns in kept:
        for name, column in columns_of(tracks).items():
            np.testing.assert_array_equal(column, columns[name], err_msg=name)


def test_identity_poses_do(make):
    # A recording without poses: everything in the ego frame, which drives at 10 m/s past a parked car, towards one that drives as fast.
    tracker = make()
    for i in range(7):
        seen = frame_of(("car", 30 - 5.0 * i, 3, -10, 0, 0.9), ("car", 20, 0, 0, 0, 0.8)).transformed(Transform.identity())
        tracks = tracker.update(seen, START_US + i * HALF_SECOND)
    assert dict(zip(tracks.detection_index.tolist(), tracks.track_id.tolist(), strict=True)) == {0: 1, 1: 2}


def test_empty_frames_first_last_and_always(make):
    tracker = make()
    for i in range(3):
        tracks = tracker.update(NOTHING, START_US + i * HALF_SECOND)
        assert len(tracks) == 0
        assert tracks.boxes.center.shape == (0, 3)
        assert tracks.track_id.dtype == np.int64
        assert tracks.classes == tracker.classes


def test_untracked_classes_alone(make):
    tracker = make()
    for i in range(3):
        assert len(tracker.update(frame_of(("barrier", 0, 0), ("traffic_cone", 1, 1)), START_US + i * HALF_SECOND)) == 0


def test_two_thousand_detections_and_then_none(make):
    rows = [("car", 15.0 * (k % 50), 15.0 * (k // 50), 0, 0, 0.4 + k / 4000) for k in range(2000)]
    tracker = make()
    for i in range(3):
        tracks = tracker.update(frame_of(*rows), START_US + i * HALF_SECOND)
    assert len(set(tracks.track_id.tolist())) == len(tracks) == 2000
    tracks = tracker.update(NOTHING, START_US + 3 * HALF_SECOND)
    assert tracks.coasted.all()
    assert len(tracker.update(NOTHING, START_US + 100 * HALF_SECOND)) == 0


def test_one_frame_of_unknown_velocities_is_taken(make):
    tracker = make()
    tracks = tracker.update(frame_of(("car", 0, 0, UNKNOWN, UNKNOWN), ("bus", 40, 0)), START_US)
    assert set(tracks.track_id.tolist()) <= {1, 2}


def test_the_same_time_again_is_allowed(make):
    tracker = make()
    for _ in range(4):
        tracks = tracker.update(frame_of(("car", 0, 0)), START_US)
    assert tracks.track_id.tolist() == [1]


def test_time_does_not_run_backwards(make):
    tracker = make()
    before = follow(tracker, one_car_driving())[-1]
    with pytest.raises(
        DataError, match=rf"Tracker\.update: expected timestamp_us >= \d+, got {START_US}; sort the frames by time, or call reset"
    ):
        tracker.update(frame_of(("bus", 0, 0)), START_US)
    # and the refused frame has left no trace
    seen, now = one_car_driving(frames=9)[-1]
    after = tracker.update(seen, now)
    assert after.track_id.tolist() == before.track_id.tolist() == [1]
    assert after.names.tolist() == ["car"]
    tracker.reset()
    tracker.update(frame_of(("bus", 0, 0)), START_US)


@pytest.mark.parametrize(
    ("timestamp", "message"),
    [
        pytest.param(1.5, r"expected timestamp_us as an integer \(microseconds\), got 1.5", id="seconds"),
        pytest.param("1", r"expected timestamp_us as an integer \(microseconds\), got '1'", id="text"),
        pytest.param(None, r"expected timestamp_us as an integer \(microseconds\), got None", id="none"),
        pytest.param(-1, r"expected timestamp_us in 0..2\^63 - 1, got -1", id="before 1970"),
        pytest.param(2**63, r"expected timestamp_us in 0..2\^63 - 1, got 9223372036854775808", id="too large"),
    ],
)
def test_a_time_is_an_integer_of_microseconds(make, timestamp, message):
    with pytest.raises(DataError, match=r"Tracker\.update: " + message):
        make().update(frame_of(("car", 0, 0)), timestamp)


@pytest.mark.parametrize("wrong", [None, [], {"boxes": []}, frame_of(("car", 0, 0)).boxes], ids=["none", "list", "dict", "boxes"])
def test_only_detections_are_taken(make, wrong):
    with pytest.raises(DataError, match=rf"Tracker\.update: expected Detections, got {type(wrong).__name__}"):
        make().update(wrong, START_US)


def test_the_first_and_the_last_moment_there_are(make):
    tracker = make()
    tracker.update(frame_of(("car", 0, 0)), 0)
    assert 1 not in tracker.update(NOTHING, 2**63 - 1).track_id


def test_build_tracker_takes_a_config_a_path_or_nothing(tmp_path):
    assert isinstance(build_tracker(), GreedyTracker)
    path = tmp_path / "my.yaml"
    path.write_text("tracker: {name: greedy, parity: true, max_age: 1}\n")
    for given in (path, str(path), load_tracker_config(path)):
        tracker = build_tracker(given)
        assert isinstance(tracker, ParityTracker)
        assert tracker.config.max_age == 1
