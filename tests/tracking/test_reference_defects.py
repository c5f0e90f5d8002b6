"""The twelve defects of the published tracker, one test each: parity mode has it, the tracker proper has not.

The table: shared/reference/tracking.md, "Defects and limits of the reference".
"""

import copy
import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from perception.core import DataError
from perception.evaluation.submission import tracking_boxes
from tests.tracking.makers import (
    HALF_SECOND,
    START_US,
    UNKNOWN,
    columns_of,
    follow,
    frame_of,
    greedy,
    greedy_by_hand,
    one_car_driving,
    parity,
    random_drive,
    seen_ids,
)


def test_defect_1_an_empty_frame_ends_no_track():
    """Published: no detections at all, and every track dies, whatever max_age says."""
    frames = one_car_driving(missed=[3])
    assert follow(parity(max_age=3), frames)[-1].track_id.tolist() == [2]
    ours = follow(greedy(), frames)
    assert ours[-1].track_id.tolist() == [1]
    assert ours[3].coasted.tolist() == [True]
    assert ours[3].boxes.center[0, 0] == pytest.approx(15.0)  # 1.5 s at 10 m/s


@pytest.mark.parametrize("others", [[("barrier", 0, 0)], [("traffic_cone", 5, 5), ("construction_vehicle", 15, 0)]], ids=["one", "two"])
def test_defect_2_a_frame_of_untracked_classes_is_a_frame_without_detections(others):
    """Published: index error on an empty list. Parity mode treats it as an empty frame, which ends all tracks."""
    frames = one_car_driving(missed=[3])
    frames[3] = (frame_of(*others), frames[3][1])
    assert follow(parity(), frames)[-1].track_id.tolist() == [2]
    ours = follow(greedy(), frames)
    assert ours[3].coasted.tolist() == [True]
    assert ours[-1].track_id.tolist() == [1]


def test_defect_3_an_impossible_pairing_loses_no_track():
    """Published, Hungarian: the solver pairs a track with an impossible detection; undone, the track is neither matched nor coasted."""
    first, far_away = frame_of(("car", 0, 0)), frame_of(("car", 200, 0))
    frames = [(first, START_US), (far_away, START_US + HALF_SECOND)]
    assert follow(parity("hungarian", 3), frames)[-1].track_id.tolist() == [2]  # track 1 has vanished
    assert follow(parity("greedy", 3), frames)[-1].track_id.tolist() == [2, 1]
    ours = follow(greedy(), frames)[-1]
    assert ours.track_id.tolist() == [1, 2]
    assert ours.coasted.tolist() == [True, False]


def test_defect_4_matching_is_exact_however_far_the_origin_is():
    """Published, Hungarian: 1e18 as the cost of a forbidden pair eats the precision of all others, and matchings get worse."""
    rng = np.random.default_rng(0)
    worse = 0
    for _ in range(300):
        old, new = rng.uniform(0, 12, (rng.integers(2, 13), 2)), rng.uniform(0, 12, (rng.integers(2, 13), 2))
        tracker = parity("hungarian")
        tracker.update(frame_of(*(("car", *p) for p in old)), START_US)
        pairs = seen_ids(tracker.update(frame_of(*(("car", *p) for p in new)), START_US + HALF_SECOND))
        distance = np.linalg.norm(new[:, None] - old[None], axis=2)
        published = [distance[row, i - 1] for row, i in pairs.items() if i <= len(old)]
        allowed = np.where(distance > 4.0, 1e4, distance)
        best = [d for d in allowed[linear_sum_assignment(allowed)] if d < 1e4]
        worse += len(published) == len(best) and sum(published) > sum(best) + 1e-3
    assert worse >= 10

    for seed in range(100):  # ours is greedy: what is exact is that each takes the closest that is free
        rng = np.random.default_rng(seed)
        origin = np.array([1e5, -1e5])
        old, new = (origin + rng.uniform(0, 12, (rng.integers(2, 13), 2)) for _ in range(2))
        score = rng.random(len(new))
        tracker = greedy(gate=2.0)
        tracker.update(frame_of(*(("car", *p) for p in old)), START_US)
        now = START_US + HALF_SECOND
        pairs = seen_ids(tracker.update(frame_of(*(("car", *p, 0, 0, s) for p, s in zip(new, score, strict=True))), now))
        wanted = greedy_by_hand(
            [{"x": x, "y": y, "v": (0.0, 0.0), "label": 0, "score": s} for (x, y), s in zip(new, score, strict=True)],
            [{"x": x, "y": y, "v": (0.0, 0.0), "label": 0, "seen_us": START_US} for x, y in old],
            now_us=now, gate=[2.0], growth=0.25, horizon=1.0,
        )  # fmt: skip
        assert {row: i - 1 for row, i in pairs.items() if i <= len(old)} == wanted


def test_defect_5_the_confident_choose_first_wherever_they_are_listed():
    """Published: the order of the list decides, so that a poor duplicate listed earlier takes the track."""
    duplicates = frame_of(("car", 0.4, 0, 0, 0, 0.2), ("car", 0.5, 0, 0, 0, 0.9))
    frames = [(frame_of(("car", 0, 0)), START_US), (duplicates, START_US + HALF_SECOND)]
    assert seen_ids(follow(parity(), frames)[-1])[0] == 1
    assert seen_ids(follow(greedy(), frames)[-1])[1] == 1


def test_defect_6_coasting_moves_by_velocity_times_the_time_that_passed():
    """Published: a missed track repeats its last displacement; born in the first frame it stands still; its score is frozen."""
    car, bus = ("car", 0.0, 0.0, 10.0, 0.0, 0.8), ("bus", 90.0, 0.0)  # the bus keeps frames from being empty
    frames = [(frame_of(car, bus), START_US), (frame_of(bus), START_US + HALF_SECOND)]
    published, ours = follow(parity(), frames)[-1], follow(greedy(), frames)[-1]
    assert published.boxes.center[published.coasted, 0].tolist() == [0.0]
    assert ours.boxes.center[ours.coasted, 0] == pytest.approx([5.0])

    later = ("car", 5.0, 0.0, 10.0, 0.0, 0.8)
    frames = [(frame_of(car, bus), START_US), (frame_of(later, bus), START_US + HALF_SECOND), (frame_of(bus), START_US + 3 * HALF_SECOND)]
    published, ours = follow(parity(), frames), follow(greedy(), frames)
    assert published[-1].boxes.center[published[-1].coasted, 0] == pytest.approx([10.0])  # 5 m on, as in the step of 0.5 s before
    assert ours[-1].boxes.center[ours[-1].coasted, 0] == pytest.approx([15.0])  # 10 m on in 1.0 s
    assert published[-1].score[published[-1].coasted].tolist() == [0.8]
    assert ours[-1].score[ours[-1].coasted] == pytest.approx(0.5 * ours[1].score[ours[1].names == "car"])  # halves each second


def test_defect_7_gates_and_ages_are_of_seconds_not_of_frames():
    """Published: one distance limit and one number of frames, right for 2 frames a second alone."""
    # 0.1 s after a pedestrian was seen another stands 0.75 m beside: inside of 0.8 m for half a second, too far for a tenth of one.
    for step, is_same in ((HALF_SECOND, True), (HALF_SECOND // 5, False)):
        frames = [(frame_of(("pedestrian", 0, 0)), START_US), (frame_of(("pedestrian", 0.75, 0)), START_US + step)]
        assert seen_ids(follow(parity(), frames)[-1]) == {0: 1}
        assert (seen_ids(follow(greedy(), frames)[-1]) == {0: 1}) == is_same
    # One second without a detection: 1 frame in a row of 2 a second, 9 of 10 a second.
    for rate, missed, published in ((2.0, [3], 1), (10.0, range(6, 15), 2)):
        frames = one_car_driving(5.0, rate=rate, frames=20, missed=missed)
        frames = [(frame_of(*_rows(d), ("bus", 500, 0)), now) for d, now in frames]
        theirs, ours = follow(parity(), frames)[-1], follow(greedy(), frames)[-1]
        assert ours.track_id[ours.names == "car"].tolist() == [1]
        assert (theirs.track_id[theirs.names == "car"].tolist() == [1]) == (published == 1)


def _rows(detections) -> list[tuple]:
    b = detections.boxes
    return [(n, *c[:2], *v, s) for n, c, v, s in zip(detections.names, b.center, b.velocity, detections.score, strict=True)]


@pytest.mark.parametrize("make", [greedy, parity], ids=["greedy", "parity"])
def test_defect_8_what_was_returned_stays_as_it_was(make):
    """Published: the returned dictionaries are the live state. Parity mode does without this one: it would not be a value."""
    tracker, kept = make(), []
    for detections, now in random_drive(1, frames=12):
        tracks = tracker.update(detections, now)
        kept.append((tracks, copy.deepcopy(columns_of(tracks))))
    for tracks, before in kept:
        for name, column in columns_of(tracks).items():
            np.testing.assert_array_equal(column, before[name], err_msg=name)


def test_defect_9_ids_of_different_drives_differ_in_a_submission():
    """Published: ids restart in each scene and are unique only with it. Ours restart too; the submission puts the drive's name before."""
    for tracker in (parity(), greedy()):
        numbers, names = [], []
        for drive in ("scene-0103", "scene-0916"):
            tracker.reset()
            for step, (detections, now) in enumerate(one_car_driving(frames=2)):
                tracks = tracker.update(detections, now)
                numbers += tracks.track_id.tolist()
                names += [box["tracking_id"] for box in tracking_boxes(f"{drive}-{step}", tracks, prefix=drive + "-")]
        assert numbers == [1, 1, 1, 1]
        assert names == ["scene-0103-1", "scene-0103-1", "scene-0916-1", "scene-0916-1"]


def test_defect_10_an_unknown_velocity_hurts_nobody():
    """Published: NaN never matches; and once such a track coasts, no detection of any class matches while it lives."""
    car, bus, walker = ("car", 0, 0), ("bus", 50, 0), ("pedestrian", 20, 20, UNKNOWN, UNKNOWN)
    frames = [(frame_of(car, bus, *([walker] if i == 0 else [])), START_US + i * HALF_SECOND) for i in range(3)]
    assert seen_ids(follow(parity(), frames)[-1]) == {0: 4, 1: 5}  # both got new ids, for a pedestrian who left
    assert seen_ids(follow(greedy(), frames)[-1]) == {0: 1, 1: 2}

    frames = one_car_driving(3.0, known=False)
    assert [t.track_id[~t.coasted].tolist() for t in follow(parity(max_age=0), frames)] == [[i + 1] for i in range(8)]
    ours = follow(greedy(), frames)
    assert [t.track_id.tolist() for t in ours] == [[1]] * 8
    assert math.isnan(ours[0].boxes.velocity[0, 0])
    assert ours[1].boxes.velocity[0] == pytest.approx([3.0, 0.0])  # 1.5 m in 0.5 s


def test_defect_11_any_frame_may_be_the_first_and_time_never_runs_backwards():
    """Published: relies on the order of a table and on a flag at each scene's first frame; without it an unbound variable."""
    frames = one_car_driving()
    tracker = greedy()
    assert follow(tracker, frames[4:])[-1].track_id.tolist() == [1]  # from the middle of a drive
    with pytest.raises(DataError, match=r"expected timestamp_us >= .* sort the frames by time, or call reset"):
        tracker.update(*frames[0])
    tracker.reset()
    assert tracker.update(*frames[0]).track_id.tolist() == [1]


def test_defect_12_hits_count_over_the_life_of_a_track():
    """Published: `active` restarts at 1 after a miss."""
    frames = [
        (frame_of(("car", 0, 0), ("bus", 90, 0)) if i != 2 else frame_of(("bus", 90, 0)), START_US + i * HALF_SECOND) for i in range(4)
    ]
    published, ours = follow(parity(), frames), follow(greedy(), frames)
    assert [t.hits[t.names == "car"].tolist() for t in published] == [[1], [2], [0], [1]]
    assert [t.hits[t.names == "car"].tolist() for t in ours] == [[1], [2], [2], [3]]
