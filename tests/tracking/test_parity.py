"""The published tracker, id for id: against the oracle, and what parity mode does where the published code has nothing to say."""

import numpy as np
import pytest

from perception.core import DataError
from tests.tracking.makers import (
    HALF_SECOND,
    NOTHING,
    START_US,
    UNKNOWN,
    Fixture,
    follow,
    frame_of,
    greedy,
    identity_changes,
    one_car_driving,
    parity,
    seen_ids,
)


@pytest.fixture(scope="module")
def oracle(shared):
    return Fixture(shared / "fixtures" / "tracker")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "assignment", "max_age"),
    [
        ("greedy_age0", "greedy", 0),
        ("greedy_age0", "greedy", 1),
        ("greedy_age3", "greedy", 3),
        ("hungarian_age0", "hungarian", 0),
        ("hungarian_age0", "hungarian", 1),
        ("hungarian_age3", "hungarian", 3),
    ],
)
def test_parity_gives_the_published_trackers_rows(oracle, monkeypatch, file, assignment, max_age):
    # The oracle's times are us / 1e6. `pub_test.py` multiplies by 1e-6, as parity mode does: 1 ulp of 1.5e9 s is 2.4e-7 s, which at
    # 27 m/s moves ct by more than the oracle's 1e-6 m. Here the oracle's own times are wanted.
    monkeypatch.setattr("perception.tracking.parity.seconds", lambda us: us / 1e6)
    expected = oracle.expected(file)
    tracker = parity(assignment, max_age)
    last_seen: dict[int, int] = {}
    num_rows = 0
    for frame in range(oracle.num_frames):
        if oracle.is_first(frame):
            tracker.reset()
            last_seen = {}
        tracks = tracker.update(oracle.detections(frame), oracle.timestamp_us(frame))
        source = oracle.rows(frame)
        last_seen |= {track_id: int(source[row]) for row, track_id in seen_ids(tracks).items()}
        wanted = expected["frame"] == frame
        num_rows += int(wanted.sum())
        assert tracks.track_id.tolist() == expected["tracking_id"][wanted].tolist(), frame
        assert tracks.hits.tolist() == expected["active"][wanted].tolist(), frame
        assert tracks.age.tolist() == expected["age"][wanted].tolist(), frame
        assert [last_seen[i] for i in tracks.track_id.tolist()] == expected["det_index"][wanted].tolist(), frame
        assert tracks.score.tolist() == expected["score"][wanted].tolist(), frame
        assert tracks.coasted.tolist() == (expected["active"][wanted] == 0).tolist(), frame
        np.testing.assert_allclose(tracks.boxes.center[:, :2], expected["ct"][wanted].reshape(-1, 2), atol=1e-6, rtol=0)
    assert num_rows == len(expected["frame"]) > 2900


@pytest.mark.shared
def test_the_tracker_proper_changes_fewer_ids_of_true_objects_than_the_published_one(oracle):
    reference = oracle.expected("greedy_age3")
    is_seen = reference["active"] > 0
    published = identity_changes(
        (oracle.scene(frame), int(oracle.true_object[row]), int(track_id))
        for frame, row, track_id in zip(*(reference[name][is_seen] for name in ("frame", "det_index", "tracking_id")), strict=True)
    )
    assert published == (100, 2488)  # as the fixture's meta.json counts them: the counter counts right

    ours = []
    tracker = greedy()
    for frame in range(oracle.num_frames):
        if oracle.is_first(frame):
            tracker.reset()
        source = oracle.rows(frame)
        pairs = seen_ids(tracker.update(oracle.detections(frame), oracle.timestamp_us(frame)))
        ours += [(oracle.scene(frame), int(oracle.true_object[source[row]]), track_id) for row, track_id in sorted(pairs.items())]
    changes, seen = identity_changes(ours)
    assert seen == 2488
    assert changes <= 80


def test_ids_count_from_one_again_after_reset():
    tracker = parity()
    assert follow(tracker, one_car_driving())[-1].track_id.tolist() == [1]
    assert tracker.update(frame_of(("car", 500, 0)), START_US + 10 * HALF_SECOND).track_id.tolist() == [2, 1]
    tracker.reset()
    assert tracker.update(frame_of(("bus", 0, 0)), START_US).track_id.tolist() == [1]


def test_matched_tracks_come_first_then_new_ones_then_coasted_ones():
    tracker = parity()
    tracker.update(frame_of(("car", 0, 0), ("car", 50, 0), ("bus", 90, 0)), START_US)
    tracks = tracker.update(frame_of(("car", 300, 0), ("bus", 90, 0), ("car", 0, 0)), START_US + HALF_SECOND)
    assert tracks.track_id.tolist() == [3, 1, 4, 2]
    assert tracks.detection_index.tolist() == [1, 2, 0, -1]
    assert tracks.coasted.tolist() == [False, False, False, True]
    assert tracks.hits.tolist() == [2, 2, 1, 0]
    assert tracks.age.tolist() == [1, 1, 1, 2]  # frames, as published


@pytest.mark.parametrize("max_age", [0, 1])
def test_max_age_one_is_max_age_zero(max_age):
    tracker = parity(max_age=max_age)
    tracker.update(frame_of(("car", 0, 0)), START_US)
    assert tracker.update(frame_of(("bus", 0, 0)), START_US + HALF_SECOND).names.tolist() == ["bus"]


def test_max_age_three_bridges_two_missed_frames_and_not_three():
    other = ("bus", 90.0, 0.0)  # keeps the frames from being empty, which would end all tracks
    for missed, ids in ((2, {1}), (3, {3})):
        tracker = parity()
        tracker.update(frame_of(("car", 0, 0), other), START_US)
        for i in range(missed):
            tracker.update(frame_of(other), START_US + (i + 1) * HALF_SECOND)
        tracks = tracker.update(frame_of(("car", 0, 0), other), START_US + (missed + 1) * HALF_SECOND)
        assert set(tracks.track_id[tracks.names == "car"].tolist()) == ids


def test_a_frame_of_untracked_classes_ends_all_tracks_like_an_empty_one():
    for nothing in (NOTHING, frame_of(("barrier", 0, 0), ("traffic_cone", 1, 0))):
        tracker = parity()
        tracker.update(frame_of(("car", 0, 0)), START_US)
        assert len(tracker.update(nothing, START_US + HALF_SECOND)) == 0
        assert tracker.update(frame_of(("car", 0, 0)), START_US + 2 * HALF_SECOND).track_id.tolist() == [2]


def test_a_coasted_track_of_unknown_velocity_is_shown_where_it_was_seen():
    tracker = parity()
    tracker.update(frame_of(("car", 3, 4, UNKNOWN, UNKNOWN)), START_US)
    tracks = tracker.update(frame_of(("bus", 90, 0)), START_US + HALF_SECOND)
    assert tracks.boxes.center[tracks.coasted, :2].tolist() == [[3, 4]]


@pytest.mark.parametrize("velocity", [np.inf, 1e300, -np.inf])
def test_absurd_velocities_match_nothing_and_raise_nothing(velocity):
    for assignment in ("greedy", "hungarian"):
        tracker = parity(assignment)
        tracker.update(frame_of(("car", 0, 0)), START_US)
        tracks = tracker.update(frame_of(("car", 0, 0, velocity, 0)), START_US + HALF_SECOND)
        assert 2 in tracks.track_id


def test_hungarian_mode_says_that_it_cannot_take_unknown_velocities():
    tracker = parity("hungarian")
    tracker.update(frame_of(("car", 0, 0)), START_US)
    with pytest.raises(
        DataError, match=r"ParityTracker.update: expected known velocities, got NaN; .* use assignment: greedy, or parity: false"
    ):
        tracker.update(frame_of(("car", 0, 0, UNKNOWN, UNKNOWN)), START_US + HALF_SECOND)
