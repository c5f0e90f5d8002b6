"""The greedy tracker: births, lives and deaths that can be checked by eye; then laws that hold for any drive."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.core import NUSCENES_DETECTION, ClassSet, Detections, Transform, concatenate
from tests.tracking.makers import (
    HALF_SECOND,
    NOTHING,
    START_US,
    UNKNOWN,
    assert_same_tracks,
    columns_of,
    crossing_pedestrians,
    follow,
    frame_of,
    greedy,
    one_car_driving,
    random_drive,
    seen_ids,
)


def one_track(tracks):
    assert len(tracks) == 1
    return tracks


# --- births, lives, deaths


def test_a_moving_car_is_one_track():
    for i, tracks in enumerate(follow(greedy(), one_car_driving(10.0))):
        one_track(tracks)
        assert tracks.track_id.tolist() == [1]
        assert tracks.names.tolist() == ["car"]
        assert tracks.hits.tolist() == [i + 1]
        assert tracks.age.tolist() == [pytest.approx(i / 2)]  # seconds since the first detection
        assert tracks.detection_index.tolist() == [0]
        assert tracks.boxes.center[0].tolist() == [5.0 * i, 0.0, 1.0]
        assert tracks.boxes.size[0].tolist() == [4.5, 1.9, 1.6]


def test_ids_count_in_the_order_of_score_then_of_the_list():
    tracks = greedy().update(frame_of(("car", 0, 0, 0, 0, 0.3), ("bus", 50, 0, 0, 0, 0.7), ("car", 90, 0, 0, 0, 0.3)), START_US)
    assert tracks.track_id.tolist() == [1, 2, 3]
    assert tracks.names.tolist() == ["bus", "car", "car"]
    assert tracks.detection_index.tolist() == [1, 0, 2]


def test_many_equal_scores_keep_the_order_of_the_list():
    rows = [("car", 20.0 * k, 0, 0, 0, (0.5, 0.25)[k % 2]) for k in range(300)]
    tracks = greedy().update(frame_of(*rows), START_US)
    assert tracks.detection_index.tolist() == [*range(0, 300, 2), *range(1, 300, 2)]
    assert tracks.track_id.tolist() == list(range(1, 301))


@pytest.mark.parametrize("rate", [2.0, 10.0, 20.0])
@pytest.mark.parametrize("speed", [0.0, 1.5, 10.0, 30.0])
def test_a_car_keeps_its_id_at_any_rate_and_speed(rate, speed):
    tracks = follow(greedy(), one_car_driving(speed, rate=rate, frames=20))[-1]
    assert tracks.track_id.tolist() == [1]
    assert tracks.hits.tolist() == [20]


@pytest.mark.parametrize("acceleration", [0.0, 3.0, -4.0], ids=["steady", "speeding up", "braking"])
def test_a_car_is_found_again_after_a_gap_of_two_frames(acceleration):
    tracks = follow(greedy(), one_car_driving(14.0, acceleration=acceleration, missed=[4, 5]))
    assert [t.track_id.tolist() for t in tracks] == [[1]] * 8
    assert [t.coasted.tolist() for t in tracks] == [[i in (4, 5)] for i in range(8)]
    x = [t.boxes.center[0, 0] for t in tracks]
    speed = 14.0 + 1.5 * acceleration  # as measured in frame 3
    assert x[4] - x[3] == pytest.approx(0.5 * speed)
    assert x[5] - x[3] == pytest.approx(1.0 * speed)


def test_the_velocity_is_used_forwards():
    # Two cars 5 m apart, the rear one moves on to where the front one was: only by velocity is it known who is who.
    first = frame_of(("car", 0, 0, 10, 0, 0.9), ("car", 5, 0, 10, 0, 0.8))
    second = frame_of(("car", 5, 0, 10, 0, 0.9), ("car", 10, 0, 10, 0, 0.8))
    assert seen_ids(follow(greedy(), [(first, START_US), (second, START_US + HALF_SECOND)])[-1]) == {0: 1, 1: 2}


@pytest.mark.parametrize("gap", [0.5, 0.3, 0.0])
@pytest.mark.parametrize("rate", [2.0, 10.0])
def test_crossing_pedestrians_keep_their_ids(gap, rate):
    for tracks in follow(greedy(), crossing_pedestrians(gap=gap, rate=rate, frames=13 if rate == 2.0 else 61)):
        assert seen_ids(tracks) == {0: 1, 1: 2}


@pytest.mark.parametrize(("rate", "missed"), [(2.0, 3), (10.0, 15), (20.0, 30)])
def test_a_track_ends_after_max_age_in_seconds_whatever_the_rate(rate, missed):
    # `missed` frames are 1.5 s
    step = round(1e6 / rate)
    for max_age, is_alive in ((missed / rate + 0.001, True), (missed / rate - 0.001, False)):
        tracker = greedy(max_age=max_age)
        tracker.update(frame_of(("car", 0, 0)), START_US)
        for i in range(1, missed):
            assert tracker.update(NOTHING, START_US + i * step).coasted.tolist() == [True]
        assert len(tracker.update(NOTHING, START_US + missed * step)) == is_alive


def test_max_age_itself_is_still_alive():
    tracker = greedy(max_age=1.5)
    tracker.update(frame_of(("car", 0, 0)), START_US)
    assert len(tracker.update(NOTHING, START_US + 1_500_000)) == 1
    assert len(tracker.update(NOTHING, START_US + 1_500_001)) == 0


def test_max_age_and_gate_are_of_the_class():
    settings = greedy().config.model_dump()
    tracker = greedy(max_age={**settings["max_age"], "bus": 5.0}, gate={**settings["gate"], "bus": 6.0})
    tracker.update(frame_of(("car", 0, 0), ("bus", 50, 0)), START_US)
    tracks = tracker.update(frame_of(("car", 5, 0), ("bus", 55, 0)), START_US + HALF_SECOND)
    assert tracks.names[tracks.hits == 2].tolist() == ["bus"]
    tracks = tracker.update(NOTHING, START_US + 7 * HALF_SECOND)
    assert tracks.names.tolist() == ["bus"]


def test_a_dead_id_does_not_come_back():
    tracker = greedy()
    tracker.update(frame_of(("car", 0, 0)), START_US)
    assert tracker.update(frame_of(("car", 0, 0)), START_US + 60_000_000).track_id.tolist() == [2]


@pytest.mark.parametrize("gap_us", [1_750_001, 5_000_000, 3_600_000_000, 10**15])
def test_a_gap_of_seconds_ends_all_tracks(gap_us):
    tracker = greedy()
    tracker.update(frame_of(("car", 0, 0), ("bus", 50, 0)), START_US)
    assert len(tracker.update(NOTHING, START_US + gap_us)) == 0
    tracks = tracker.update(frame_of(("car", 0, 0)), START_US + gap_us)
    assert tracks.track_id.tolist() == [3]
    assert tracks.age.tolist() == [0.0]


def test_a_gate_grows_with_the_elapsed_time():
    # A car gate of 2 m: 1.5 m that is error of position, 0.5 m for each half second. After 0.1 s 1.6 m, after 0.5 s 2.0 m.
    for step, offset, is_same in ((100_000, 1.55, True), (100_000, 1.65, False), (500_000, 1.95, True), (500_000, 2.05, False)):
        tracker = greedy()
        tracker.update(frame_of(("car", 0, 0)), START_US)
        assert (seen_ids(tracker.update(frame_of(("car", 0, offset)), START_US + step)) == {0: 1}) == is_same


def test_a_weak_detection_starts_no_track_but_extends_one():
    tracker = greedy(birth_score=0.4)
    assert len(tracker.update(frame_of(("car", 0, 0, 0, 0, 0.39)), START_US)) == 0
    assert tracker.update(frame_of(("car", 0, 0, 0, 0, 0.4)), START_US + HALF_SECOND).track_id.tolist() == [1]
    tracks = one_track(tracker.update(frame_of(("car", 0.5, 0, 0, 0, 0.1)), START_US + 2 * HALF_SECOND))
    assert tracks.hits.tolist() == [2]
    assert tracks.boxes.center[0, 0] == 0.5


def test_a_track_is_reported_from_its_second_detection_on_where_min_hits_is_two():
    tracker = greedy(min_hits=2)
    frames = one_car_driving(missed=[2])
    frames[0] = (frame_of(("car", 0, 0, 10, 0, 0.9), ("bus", 80, 0)), frames[0][1])  # a bus that is seen once
    tracks = follow(tracker, frames)
    assert [t.track_id.tolist() for t in tracks] == [[]] + [[1]] * 7
    assert [t.hits.tolist() for t in tracks[1:4]] == [[2], [2], [3]]
    assert tracks[2].coasted.tolist() == [True]
    assert tracks[1].age[0] == pytest.approx(0.5)  # counted from the first detection, reported or not
    assert all(name == "car" for t in tracks for name in t.names)


def test_a_score_grows_with_the_detections_and_decays_while_there_are_none():
    frames = one_car_driving(0.0, missed=[3, 4])
    score = [t.score[0] for t in follow(greedy(first_confidence=0.5, coast_decay=0.25), frames)]
    # 0.9 times 1/2, 3/4, 7/8; then a quarter for each second; then 15/16
    assert score[:6] == pytest.approx([0.45, 0.675, 0.7875, 0.7875 * 0.5, 0.7875 * 0.25, 0.9 * 15 / 16])
    score = [t.score[0] for t in follow(greedy(first_confidence=1.0, coast_decay=1.0), frames)]
    assert score == [0.9] * 8


def test_an_object_of_another_class_at_the_same_place_is_another_track():
    tracker = greedy()
    tracker.update(frame_of(("car", 0, 0)), START_US)
    tracks = tracker.update(frame_of(("truck", 0, 0)), START_US + HALF_SECOND)
    assert tracks.names.tolist() == ["car", "truck"]
    assert tracks.coasted.tolist() == [True, False]


def test_classes_without_a_gate_are_not_tracked():
    tracker = greedy(gate={"bus": 2.0, "car": 2.0}, max_age={"car": 1.0, "bus": 1.0})
    assert tracker.classes == ClassSet(("bus", "car"))
    tracks = tracker.update(frame_of(("pedestrian", 0, 0), ("car", 9, 9), ("barrier", 1, 1)), START_US)
    assert tracks.names.tolist() == ["car"]
    assert tracks.detection_index.tolist() == [1]


def test_detections_may_come_with_other_classes_each_time():
    tracker = greedy()
    tracker.update(frame_of(("car", 0, 0)), START_US)
    boxes = frame_of(("car", 0, 0)).boxes
    for i, classes in enumerate((ClassSet(("bus", "car")), ClassSet(("tree", "car", "bus")), NUSCENES_DETECTION)):
        seen = Detections(boxes, [classes.index("car")], [0.9], classes)
        assert seen_ids(tracker.update(seen, START_US + (i + 1) * HALF_SECOND)) == {0: 1}
    assert len(tracker.update(Detections(boxes, [0], [0.9], ClassSet(("tree",))), START_US + 4 * HALF_SECOND)) == 1


# --- what comes with a track


def test_attributes_and_points_are_those_of_the_detection_and_nothing_while_coasting():
    seen = frame_of(("car", 0, 0), ("bus", 50, 0), attribute=["vehicle.parked", "vehicle.moving"], num_points=[7, 9])
    tracker = greedy()
    tracks = tracker.update(seen, START_US)
    assert tracks.attribute.tolist() == ["vehicle.parked", "vehicle.moving"]
    assert tracks.num_points.tolist() == [7, 9]
    tracks = tracker.update(seen[1], START_US + HALF_SECOND)
    assert tracks.attribute.tolist() == ["", "vehicle.moving"]
    assert tracks.num_points.tolist() == [-1, 9]
    tracks = tracker.update(seen[:0], START_US + HALF_SECOND)
    assert tracks.attribute.tolist() == ["", ""]
    assert tracks.num_points.tolist() == [-1, -1]
    assert tracks.attribute.dtype.kind == "U"
    tracks = tracker.update(replace(seen, attribute=None, num_points=None), START_US + HALF_SECOND)
    assert tracks.attribute is tracks.num_points is None


def test_columns_are_valid_values_of_their_own_memory():
    tracker = greedy(min_hits=2)
    for detections, now in random_drive(5, unknown=0.2):
        tracks = tracker.update(detections, now)
        assert_same_tracks(replace(tracks, boxes=replace(tracks.boxes)), tracks)  # what checks at construction would have changed
        for name, column in columns_of(tracks).items():
            assert column.dtype == columns_of(replace(tracks))[name].dtype
            assert not np.shares_memory(column, tracker._numbers)
            assert not np.shares_memory(column, tracker._whole)
    assert "coasted" in repr(tracks)
    assert len(concatenate([tracks, tracks[:1]])) == len(tracks) + 1


# --- unknown velocities


def test_an_unknown_velocity_becomes_what_the_track_did():
    tracks = follow(greedy(), one_car_driving(2.0, known=False, missed=[3]))
    assert np.isnan(tracks[0].boxes.velocity).all()
    for i in range(1, 8):
        assert tracks[i].track_id.tolist() == [1]
        assert tracks[i].boxes.velocity[0] == pytest.approx([2.0, 0.0])
        assert tracks[i].boxes.center[0, 0] == pytest.approx(2.0 * i / 2)


def test_a_track_that_was_never_measured_stands_while_it_coasts():
    tracker = greedy()
    tracker.update(frame_of(("car", 3, 4, UNKNOWN, UNKNOWN)), START_US)
    tracks = tracker.update(NOTHING, START_US + HALF_SECOND)
    assert tracks.boxes.center[0, :2].tolist() == [3, 4]
    assert np.isnan(tracks.boxes.velocity).all()


@pytest.mark.parametrize("velocity", [(np.inf, 0.0), (0.0, -np.inf), (1e300, 1.0), (UNKNOWN, 1.0), (1.0, UNKNOWN)], ids=str)
def test_a_velocity_that_cannot_be_is_unknown(velocity):
    tracker = greedy()
    assert np.isnan(tracker.update(frame_of(("car", 0, 0, *velocity)), START_US).boxes.velocity).all()
    tracks = tracker.update(frame_of(("car", 1, 0, *velocity)), START_US + HALF_SECOND)
    assert tracks.track_id.tolist() == [1]
    assert tracks.boxes.velocity.tolist() == [pytest.approx([2.0, 0.0])]
    assert tracker.update(NOTHING, START_US + 2 * HALF_SECOND).boxes.center[0, 0] == pytest.approx(2.0)


def test_a_displacement_over_a_moment_is_no_velocity():
    # Two sensors 1 ms apart that disagree by 0.3 m: not 300 m/s.
    tracker = greedy()
    tracker.update(frame_of(("car", 0, 0, UNKNOWN, UNKNOWN)), START_US)
    tracker.update(frame_of(("car", 1, 0, UNKNOWN, UNKNOWN)), START_US + HALF_SECOND)
    tracks = tracker.update(frame_of(("car", 1.3, 0, UNKNOWN, UNKNOWN)), START_US + HALF_SECOND + 1000)
    assert tracks.boxes.velocity[0].tolist() == [pytest.approx(2.0), 0.0]


# --- time


def test_the_same_time_again_is_a_second_look():
    tracker = greedy()
    tracker.update(frame_of(("car", 0, 0, 10, 0)), START_US)
    tracks = tracker.update(frame_of(("car", 0.2, 0, 10, 0), ("bus", 50, 0)), START_US)
    assert tracks.track_id.tolist() == [1, 2]
    assert tracks.hits.tolist() == [2, 1]
    assert tracks.age.tolist() == [0, 0]
    tracks = tracker.update(NOTHING, START_US)
    assert tracks.coasted.tolist() == [True, True]
    assert tracks.boxes.center[:, 0].tolist() == [0.2, 50]  # no time has passed
    assert not np.isnan(tracks.score).any()


def test_timestamps_may_be_numpy_integers_of_any_type():
    for kind in (np.int64, np.uint64, int):
        tracks = follow(greedy(), [(d, kind(now)) for d, now in one_car_driving()])[-1]
        assert tracks.track_id.tolist() == [1]
        assert tracks.age[0] == pytest.approx(3.5)


def test_arrays_of_other_layout_and_without_the_right_to_write_are_taken():
    detections = frame_of(("car", 0, 0, 1, 2), ("bus", 20, 0, 3, 4), ("car", 40, 0, 5, 6))
    wanted = greedy().update(detections, START_US)
    boxes = detections.boxes
    columns = [np.asfortranarray(boxes.center), boxes.size[:, ::-1].copy()[:, ::-1], np.repeat(boxes.yaw, 2)[::2], boxes.velocity]
    for column in columns:
        column.flags.writeable = False
    assert_same_tracks(greedy().update(replace(detections, boxes=type(boxes)(*columns)), START_US), wanted)


# --- laws


drives = st.builds(
    random_drive,
    st.integers(0, 2**32),
    objects=st.integers(0, 25),
    unknown=st.sampled_from([0.0, 0.2, 1.0]),
    extent=st.sampled_from([10.0, 40.0]),
)
quick = settings(max_examples=40, deadline=None)


def assert_same_ids(one, two):
    assert one.track_id.tolist() == two.track_id.tolist()
    assert one.coasted.tolist() == two.coasted.tolist()
    assert one.hits.tolist() == two.hits.tolist()


@quick
@given(drives, st.floats(-3.14, 3.14), st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.floats(-1e3, 1e3)))
def test_the_choice_of_the_global_frame_changes_nothing(frames, yaw, origin):
    a_to_b = Transform.from_yaw(yaw, origin)
    here = follow(greedy(), frames)
    there = follow(greedy(), [(d.transformed(a_to_b), now) for d, now in frames])
    for one, two in zip(here, there, strict=True):
        assert_same_ids(one, two)
        # 1e5 m carries 1.5e-11 m of rounding; a velocity from positions divides it by 0.1 s
        np.testing.assert_allclose(two.boxes.center, one.boxes.transformed(a_to_b).center, atol=1e-8, rtol=0)
        np.testing.assert_allclose(two.boxes.velocity, one.boxes.transformed(a_to_b).velocity, atol=1e-8, rtol=0)
        np.testing.assert_array_equal(two.score, one.score)


@quick
@given(drives, st.integers(0, 10**15))
def test_when_the_clock_was_started_changes_nothing(frames, start_us):
    for one, two in zip(follow(greedy(), frames), follow(greedy(), [(d, now - START_US + start_us) for d, now in frames]), strict=True):
        assert_same_tracks(one, two)


@quick
@given(drives, st.integers(0, 2**32))
def test_the_order_of_the_list_changes_nothing_where_scores_differ(frames, seed):
    rng = np.random.default_rng(seed)
    shuffled, orders = [], []
    for detections, now in frames:
        orders.append(rng.permutation(len(detections)))
        shuffled.append((detections[orders[-1]], now))
    for one, two, order in zip(follow(greedy(), frames), follow(greedy(), shuffled), orders, strict=True):
        assert_same_ids(one, two)
        source = [int(order[row]) if row >= 0 else -1 for row in two.detection_index]
        assert source == one.detection_index.tolist()
        np.testing.assert_array_equal(one.boxes.center, two.boxes.center)


@quick
@given(drives)
def test_what_is_far_away_or_of_another_class_changes_nothing_here(frames):
    frames = [(d[np.isin(d.names, ["car", "pedestrian", "barrier"])], now) for d, now in frames]
    more = []
    for i, (d, now) in enumerate(frames):
        strangers = frame_of(("truck", 0, 0, 3, 0, 0.001), ("car", 5e4 + i, 0, 2, 0, 0.002), ("bus", -9, 3, UNKNOWN, 0, 0.003))
        more.append((concatenate([d, strangers]), now))
    rename: dict[int, int] = {}
    for one, two in zip(follow(greedy(), frames), follow(greedy(), more), strict=True):
        ours = two[np.isin(two.names, ["car", "pedestrian"]) & (two.boxes.center[:, 0] < 1e4)]
        np.testing.assert_array_equal(ours.boxes.center, one.boxes.center)
        assert ours.hits.tolist() == one.hits.tolist()
        for a, b in zip(one.track_id.tolist(), ours.track_id.tolist(), strict=True):
            assert rename.setdefault(a, b) == b


@quick
@given(drives)
def test_two_runs_are_identical(frames):
    tracker = greedy()
    first = follow(tracker, frames)
    tracker.reset()
    for one, again, other in zip(first, follow(tracker, frames), follow(greedy(), frames), strict=True):
        assert_same_tracks(one, again)
        assert_same_tracks(one, other)


@quick
@given(drives)
def test_each_detection_belongs_to_one_track(frames):
    for (detections, _), tracks in zip(frames, follow(greedy(), frames), strict=True):
        tracked = np.flatnonzero(np.isin(detections.names, list(tracks.classes)))
        assert sorted(seen_ids(tracks)) == tracked.tolist()  # birth_score 0: all of them
        seen = tracks[~tracks.coasted]
        np.testing.assert_array_equal(seen.boxes.center, detections.boxes.center[seen.detection_index])
        assert seen.names.tolist() == detections.names[seen.detection_index].tolist()


# --- many


def test_two_thousand_detections_grow_the_state():
    rng = np.random.default_rng(0)
    place = rng.permutation(2000)
    tracker = greedy()
    for i in range(4):
        rows = [("car", 20.0 * (k % 50) + 2.0 * i, 20.0 * (k // 50), 4.0, 0.0, 0.1 + k / 4000) for k in place]
        tracks = tracker.update(frame_of(*rows), START_US + i * HALF_SECOND)
        assert len(tracks) == 2000
        # the most confident, k = 1999, is born first
        assert {row: 2000 - int(place[row]) for row in range(2000)} == seen_ids(tracks)
    assert tracks.hits.tolist() == [4] * 2000
    tracker.update(NOTHING, START_US + 4 * HALF_SECOND)
    assert len(tracker.update(NOTHING, START_US + 60 * HALF_SECOND)) == 0
    assert tracker.update(frame_of(("car", 0, 0)), START_US + 60 * HALF_SECOND).track_id.tolist() == [2001]
