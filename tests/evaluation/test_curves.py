"""Curves of found and false objects: cases by eye, what must not depend on anything, and the devkit's own figures."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.core import NUSCENES_DETECTION, Boxes3D, DataError, Detections
from perception.evaluation import Curve, average_precisions, judge, overlapping, within
from perception.evaluation.curves import distances, heading_error, of_classes, of_hits, overlap_of_pairs, velocity_error


def objects(*rows, names="car", num_points=None, velocity=(0.0, 0.0)):
    """Objects of 4 x 2 x 1.5 m at (x, y) with score and yaw: rows of x, y, score, yaw, as far as they are given."""
    full = np.array([[*row, *(0.0, 0.0, 1.0, 0.0)[len(row) :]] for row in rows], np.float64).reshape(-1, 4)
    count = len(full)
    names = [names] * count if isinstance(names, str) else names
    boxes = Boxes3D(
        np.column_stack([full[:, :2], np.ones(count)]), np.tile([4.0, 2.0, 1.5], (count, 1)), full[:, 3], np.tile(velocity, (count, 1))
    )
    label = np.array([NUSCENES_DETECTION.index(name) for name in names], np.int64)
    points = None if num_points is None else np.array(num_points, np.int64)
    return Detections(boxes, label, full[:, 2], NUSCENES_DETECTION, num_points=points)


def none():
    return Detections.empty(NUSCENES_DETECTION)


def test_the_best_detection_chooses_first_and_the_second_one_of_an_object_is_false():
    truth = objects((10, 0))
    outcome = judge(objects((10.5, 0, 0.3), (11.5, 0, 0.8)), truth, within(2.0))
    assert outcome.match.tolist() == [-1, 0]  # the second is farther off but surer
    assert outcome.is_hit.tolist() == [False, True]
    assert outcome.is_false.tolist() == outcome.is_double.tolist() == [True, False]
    assert not judge(objects((20, 0)), truth, within(2.0)).is_double.any()  # false, but no second one


def test_a_detection_takes_the_nearest_free_object():
    truth = objects((10, 0), (11.5, 0))
    outcome = judge(objects((10.9, 0, 0.9), (10.8, 0, 0.5)), truth, within(2.0))
    assert outcome.match.tolist() == [1, 0]  # 0.6 m to the second beats 0.9 m to the first; what is left is the first


@pytest.mark.parametrize(
    ("x", "is_hit"),
    [pytest.param(11.99, True, id="just within"), pytest.param(12.0, False, id="the border is too far, as in the devkit")],
)
def test_centres_match_below_the_distance(x, is_hit):
    assert judge(objects((x, 0)), objects((10, 0)), within(2.0)).is_hit.tolist() == [is_hit]


def test_height_has_no_part_in_the_distance():
    found = objects((10, 0))
    high = replace(found, boxes=Boxes3D(found.boxes.center + np.array([0, 0, 50]), found.boxes.size, found.boxes.yaw, found.boxes.velocity))
    assert judge(high, objects((10, 0)), within(2.0)).is_hit.tolist() == [True]


def test_boxes_match_by_their_overlap_from_above():
    truth = objects((10, 0))
    found = objects((11, 0, 0.9))  # 3 m of 4 m shared: 6 / (8 + 8 - 6) = 0.6
    assert judge(found, truth, overlapping(0.59)).is_hit.tolist() == [True]
    assert judge(found, truth, overlapping(0.61)).is_false.tolist() == [True]
    assert overlap_of_pairs(found.boxes, truth.boxes) == pytest.approx([0.6])
    turned = objects((10, 0, 0.9, np.pi / 2))  # a cross: 2 x 2 shared, 4 / 12
    assert overlap_of_pairs(turned.boxes, truth.boxes) == pytest.approx([1 / 3])


def test_who_finds_an_object_that_is_not_wanted_is_neither_right_nor_wrong():
    truth = objects((10, 0), (20, 0))
    outcome = judge(objects((10, 0, 0.9), (20, 0, 0.8), (20.5, 0, 0.7)), truth, within(2.0), is_wanted=np.array([True, False]))
    assert outcome.is_hit.tolist() == [True, False, False]
    assert outcome.is_false.tolist() == [False, False, True]  # but a second one is false
    assert Curve([outcome]).wanted == 1
    assert len(Curve([outcome]).points) == 2


def test_the_nearest_object_counts_even_if_a_wanted_one_is_in_reach():
    truth = objects((10, 0), (11, 0))
    outcome = judge(objects((10.9, 0)), truth, within(2.0), is_wanted=np.array([True, False]))
    assert outcome.match.tolist() == [1]
    assert not outcome.is_hit.any()
    assert not outcome.is_false.any()


def test_where_the_truth_is_not_complete_nothing_is_false_but_hits_count():
    outcome = judge(objects((10, 0), (30, 0)), objects((10, 0)), within(2.0), is_judged=np.zeros(2, bool))
    assert outcome.is_hit.tolist() == [True, False]
    assert outcome.is_false.tolist() == [False, False]


def test_empty_frames():
    assert Curve([]).points == []
    assert math.isnan(Curve([]).average_precision)
    nothing = Curve([judge(none(), none(), within(2.0))])
    assert (nothing.frames, nothing.wanted, nothing.points) == (1, 0, [])
    assert nothing.at_recall(0.5) is None
    assert nothing.at_false(3) is None
    missed = Curve([judge(none(), objects((10, 0)), overlapping(0.3))])
    assert (missed.wanted, missed.average_precision, missed.at_count(1)) == (1, 0.0, None)
    assert missed.average_error([np.zeros(0)]) == 1.0
    wrong = Curve([judge(objects((10, 0, 0.5)), none(), overlapping(0.3))])
    assert [(p.threshold, p.found, p.false) for p in wrong.points] == [(0.5, 0, 1)]
    assert math.isnan(wrong.at_threshold(0.1).recall)
    assert math.isnan(wrong.average_error([np.zeros(1)]))


def two_frames():
    """Wanted objects: 2 + 2. By score: hit .9, false .8, hit .7, hit .6 and false .6, false .2."""
    first = judge(objects((10, 0, 0.9), (30, 0, 0.8), (20, 0, 0.6), (40, 0, 0.2)), objects((10, 0), (20, 0)), within(2.0))
    second = judge(objects((10, 0, 0.7), (30, 0, 0.6)), objects((10, 0), (20, 0)), within(2.0))
    return [first, second]


def test_a_curve_counts_by_threshold():
    curve = Curve(two_frames())
    assert [(p.threshold, p.found, p.false) for p in curve.points] == [(0.9, 1, 0), (0.8, 1, 1), (0.7, 2, 1), (0.6, 3, 2), (0.2, 3, 3)]
    point = curve.at_threshold(0.65)  # 0.9, 0.8 and 0.7
    assert (point.threshold, point.found, point.false, point.wanted, point.frames) == (0.65, 2, 1, 4, 2)
    assert (point.recall, point.precision, point.false_a_frame) == (0.5, pytest.approx(2 / 3), 0.5)
    assert curve.at_threshold(0.6).found == 3  # the threshold itself is reported
    assert curve.at_threshold(0.95).found == 0


def test_the_highest_threshold_that_finds_enough():
    curve = Curve(two_frames())
    assert curve.at_count(2).threshold == 0.7
    assert curve.at_count(3).threshold == 0.6
    assert curve.at_count(4) is None
    assert curve.at_recall(0.75).threshold == 0.6  # 3 of 4
    assert curve.at_recall(0.76) is None
    assert curve.at_recall(0.5).threshold == 0.7


def test_the_lowest_threshold_with_few_false_ones():
    curve = Curve(two_frames())
    assert curve.at_false(0.5).threshold == 0.7  # one in two frames
    assert curve.at_false(1.0).threshold == 0.6
    assert curve.at_false(0.0).threshold == 0.9
    assert Curve([judge(objects((5, 5)), none(), within(1.0))]).at_false(0.5) is None


def test_what_is_missed_at_a_threshold():
    first, _ = two_frames()
    assert first.missed(0.6).tolist() == [False, False]
    assert first.missed(0.61).tolist() == [False, True]
    unwanted = judge(none(), objects((10, 0)), within(2.0), is_wanted=np.array([False]))
    assert unwanted.missed(0).tolist() == [False]


def test_errors_of_hits():
    found = objects((10, 0, 0.9, 3.0), (20, 0, 0.8, 1.0), (50, 0, 0.7), velocity=(3.0, 4.0))
    truth = objects((10, 0, 1, -3.0), (20, 0, 1, 1.0 + np.pi))
    outcome = judge(found, truth, within(2.0))
    heading = of_hits(outcome, heading_error)
    assert heading[:2] == pytest.approx([2 * np.pi - 6, np.pi])
    assert np.isnan(heading[2])
    assert of_hits(outcome, velocity_error)[:2] == pytest.approx([5, 5])
    assert np.isnan(of_hits(judge(found, none(), within(2.0)), velocity_error)).all()


def test_errors_of_other_frames_are_refused():
    with pytest.raises(DataError, match="expected errors of 2 frames, got 1"):
        Curve(two_frames()).average_error([np.zeros(4)])


def test_classes_are_chosen_by_name():
    mixed = objects((3, 4), (6, 8), (0, 1), names=["car", "bus", "pedestrian"])
    assert of_classes(mixed, ["bus", "car"]).names.tolist() == ["car", "bus"]
    assert distances(mixed) == pytest.approx([5, 10, 1])


def random_frames(rng, *, num_frames=6):
    """(found, truth) of cars and pedestrians: near ones, shifted ones, false ones; all scores differ."""
    frames = []
    for _ in range(num_frames):
        count = int(rng.integers(0, 14))
        center = rng.uniform(-45, 45, (count, 2))
        names = rng.choice(["car", "pedestrian"], count).tolist()
        truth = objects(*center, names=names, num_points=rng.integers(0, 3, count), velocity=rng.normal(0, 3, 2))
        kept = np.flatnonzero(rng.random(count) < 0.8)
        false = int(rng.integers(0, 6))
        places = np.concatenate([center[kept] + rng.normal(0, 0.4, (len(kept), 2)), rng.uniform(-60, 60, (false, 2))])
        rows = np.column_stack([places, rng.random(len(places)), rng.uniform(-3, 3, len(places))])
        all_names = [names[i] for i in kept] + rng.choice(["car", "pedestrian"], false).tolist()
        frames.append((objects(*rows, names=all_names, velocity=rng.normal(0, 3, 2)), truth))
    return frames


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_a_curve_is_what_matching_at_each_threshold_gives(seed):
    frames = random_frames(np.random.default_rng(seed), num_frames=3)
    for near in (within(2.0), overlapping(0.1)):
        curve = Curve([judge(found, truth, near) for found, truth in frames])
        for point in curve.points:
            outcomes = [judge(found[found.score >= point.threshold], truth, near) for found, truth in frames]
            assert sum(int(outcome.is_hit.sum()) for outcome in outcomes) == point.found
            assert sum(int(outcome.is_false.sum()) for outcome in outcomes) == point.false


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_the_order_of_rows_and_frames_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    frames = random_frames(rng, num_frames=3)
    shuffled = [(found[rng.permutation(len(found))], truth[rng.permutation(len(truth))]) for found, truth in frames[::-1]]
    one, other = (Curve([judge(*pair, within(2.0)) for pair in pairs]) for pairs in (frames, shuffled))
    assert one.points == other.points
    np.testing.assert_equal(one.average_precision, other.average_precision)


def eval_boxes(frames, kind, *, name, limit):
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    boxes = EvalBoxes()
    for number, pair in enumerate(frames):
        chosen = of_classes(pair[kind], [name])
        chosen = chosen[distances(chosen) < limit]
        if kind == 1:
            chosen = chosen[chosen.num_points > 0]
        rows = [
            DetectionBox(
                sample_token=str(number),
                translation=tuple(center),
                size=(2, 4, 1.5),
                rotation=(np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)),
                velocity=tuple(velocity),
                detection_name=name,
                detection_score=float(score),
            )
            for center, yaw, velocity, score in zip(chosen.boxes.center, chosen.boxes.yaw, chosen.boxes.velocity, chosen.score, strict=True)
        ]
        boxes.add_boxes(str(number), rows)
    return boxes


@pytest.mark.parametrize("seed", range(6))
def test_precision_and_errors_are_those_of_the_devkit(seed):
    algo = pytest.importorskip("nuscenes.eval.detection.algo")
    from nuscenes.eval.common.utils import center_distance

    frames = random_frames(np.random.default_rng(seed), num_frames=5 + 10 * (seed % 2))
    ours = average_precisions(frames)
    assert set(ours) == {"car", "pedestrian"}
    for name, limit in (("car", 50.0), ("pedestrian", 40.0)):
        truth, found = (eval_boxes(frames, kind, name=name, limit=limit) for kind in (1, 0))
        by_distance = [algo.accumulate(truth, found, name, center_distance, metres) for metres in (0.5, 1.0, 2.0, 4.0)]
        assert ours[name] == pytest.approx(np.mean([algo.calc_ap(data, 0.1, 0.1) for data in by_distance]), abs=1e-12)
        kept = [(of_classes(a, [name]), of_classes(b, [name])) for a, b in frames]
        kept = [(a[distances(a) < limit], b[(distances(b) < limit) & (b.num_points > 0)]) for a, b in kept]
        outcomes = [judge(*pair, within(2.0)) for pair in kept]
        for error, key in ((velocity_error, "vel_err"), (heading_error, "orient_err")):
            own = Curve(outcomes).average_error([of_hits(outcome, error) for outcome in outcomes])
            assert own == pytest.approx(algo.calc_tp(by_distance[2], 0.1, key), abs=1e-9)


def test_errors_that_are_not_known_are_left_out_as_the_devkit_does():
    algo = pytest.importorskip("nuscenes.eval.detection.algo")
    from nuscenes.eval.common.utils import center_distance

    frames = random_frames(np.random.default_rng(11), num_frames=12)
    frames = [(found, truth) for found, truth in frames if len(truth)]
    found, truth = max(frames, key=lambda pair: len(pair[0]))  # the surest ones have no true velocity
    unknown = replace(truth.boxes, velocity=np.full((len(truth), 2), np.nan))
    frames.append((replace(found, score=found.score + 1), replace(truth, boxes=unknown)))
    kept = [(of_classes(a, ["car"]), of_classes(b, ["car"])) for a, b in frames]
    kept = [(a[distances(a) < 50], b[(distances(b) < 50) & (b.num_points > 0)]) for a, b in kept]
    outcomes = [judge(*pair, within(2.0)) for pair in kept]
    errors = [of_hits(outcome, velocity_error) for outcome in outcomes]
    assert any((np.isnan(e) & o.is_hit).any() for e, o in zip(errors, outcomes, strict=True))
    truth, found = (eval_boxes(frames, kind, name="car", limit=50.0) for kind in (1, 0))
    devkit = algo.calc_tp(algo.accumulate(truth, found, "car", center_distance, 2.0), 0.1, "vel_err")
    assert Curve(outcomes).average_error(errors) == pytest.approx(devkit, abs=1e-9)
    assert math.isnan(Curve(outcomes).average_error([np.full(len(e), np.nan) for e in errors]))
