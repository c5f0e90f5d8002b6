"""Non-maximum suppression: against plain NumPy, against true overlaps on thousands of random sets, against the recorded oracle."""

import json
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import spatial

import cuda_ops
from cuda_ops import reference
from tests.cuda_ops.rectangles import bev, error_bound, exact_iou, iou_of_pairs, near_pairs, random_pairs

SEEDS = st.integers(0, 2**32 - 1)
NAN, INF = float("nan"), float("inf")
CLEAR = 1e-9  # GEOS' IoU is not trusted nearer to the threshold than this: it is worked out to 60 digits


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def crowd(rng, count, spread=20.0):
    """Boxes in clumps, a few of each thing, as a detector gives them; scores with ties."""
    num_things = max(count // 5, 1)
    thing = rng.integers(0, num_things, count)
    center = rng.uniform(-spread, spread, (num_things, 2))[thing] + rng.normal(0, 0.5, (count, 2))
    size = rng.uniform([0.5, 0.5, 1], [6, 3, 2], (num_things, 3))[thing] * rng.uniform(0.9, 1.1, (count, 3))
    yaw = rng.uniform(-7, 7, num_things)[thing] + rng.normal(0, 0.1, count)
    return np.column_stack([center, rng.uniform(-2, 2, count), size, yaw]), np.round(rng.uniform(0, 1, count), rng.integers(1, 9))


class Truth(NamedTuple):
    """Which pairs overlap by more than the threshold, and for which of them either answer is right: see `error_bound`."""

    is_above: np.ndarray
    is_free: np.ndarray
    num_exact: int  # pairs so near to the threshold that GEOS could not decide


def truth_of_pairs(a, b, iou, threshold) -> Truth:
    """By GEOS where it is clear, else to 60 digits; an IoU that equals the threshold exactly is not above it, and not free."""
    is_above, is_free = iou > threshold, np.zeros(len(iou), bool)
    near = np.flatnonzero(np.abs(iou - threshold) <= CLEAR)
    for i, bound in zip(near, error_bound(a[near], b[near]), strict=True):
        beyond = exact_iou(a[i], b[i]) - Decimal(threshold)
        is_above[i], is_free[i] = beyond > 0, 0 < abs(beyond) <= bound
    return Truth(is_above, is_free, len(near))


def drops(a, b, threshold) -> bool:
    """Our decision on a pair alone."""
    return len(cuda_ops.nms_bev(np.stack([a, b]), np.array([1.0, 0.5]), threshold)) == 1


def greedy(boxes, scores, threshold):
    """The loop over the true overlaps; our own decisions where either is right. Also the pairs decided to 60 digits and those free."""
    i, j, iou = near_pairs(boxes)
    truth = truth_of_pairs(boxes[i], boxes[j], iou, threshold)
    for k in np.flatnonzero(truth.is_free):
        truth.is_above[k] = drops(boxes[i[k]], boxes[j[k]], threshold)
    neighbours: list[list[int]] = [[] for _ in boxes]
    for a, b in zip(i[truth.is_above], j[truth.is_above], strict=True):
        neighbours[a].append(b)
        neighbours[b].append(a)
    dropped, kept = np.zeros(len(boxes), bool), []
    for row in np.argsort(-scores, kind="stable"):
        if not dropped[row]:
            kept.append(row)
            dropped[neighbours[row]] = True
    return kept, truth.num_exact, int(truth.is_free.sum())


def check_random_sets(seed, num_sets, most):
    """Sets of every kind, up to `most` boxes: how many were compared, pairs decided to 60 digits, pairs where either answer is right."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(3, int)
    for case in range(num_sets):
        count = int(rng.integers(2, most))
        if case % 2:
            boxes, scores = crowd(rng, count, rng.uniform(1, 20))
            boxes = bev(boxes)
        else:  # touching, nested, tiny, huge, far: all in one set
            boxes = np.concatenate(random_pairs(rng, (count + 1) // 2))
            scores = np.round(rng.uniform(0, 1, len(boxes)), 2)
        threshold = float(rng.choice([0, 0.01, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, rng.uniform(0, 1)]))
        expected, num_exact, num_free = greedy(boxes, scores, threshold)
        np.testing.assert_array_equal(cuda_ops.nms_bev(boxes, scores, threshold), expected, err_msg=f"seed {seed}, set {case}")
        counts += [1, num_exact, num_free]
    return counts


def check_random_pairs(seed, count):
    """Two boxes at a time as groups of one call; the same counts."""
    rng = np.random.default_rng(seed)
    a, b = random_pairs(rng, count)
    threshold = float(rng.choice([0, 0.05, 0.2, 0.5, 0.7]))
    scores, group = np.round(rng.uniform(0, 1, 2 * count), 1), np.tile(np.arange(count), 2)
    truth = truth_of_pairs(a, b, iou_of_pairs(a, b), threshold)
    is_kept = np.zeros(2 * count, bool)
    is_kept[cuda_ops.nms_bev(np.concatenate([a, b]), scores, threshold, group=group)] = True
    second_is_better = scores[count:] > scores[:count]
    expected = np.concatenate([~second_is_better | ~truth.is_above, second_is_better | ~truth.is_above])
    free = np.tile(truth.is_free, 2)
    np.testing.assert_array_equal(is_kept[~free], expected[~free])
    assert (is_kept[:count] | is_kept[count:]).all()
    return np.array([count, truth.num_exact, truth.is_free.sum()])


def test_100_000_random_pairs_have_no_difference():
    compared, num_exact, num_free = np.sum([check_random_pairs(seed, 13_200) for seed in range(8)], axis=0)
    assert compared - num_free >= 100_000
    assert num_exact > 1000
    assert num_free < compared * 0.04  # turned boxes that touch but for rounding, at the threshold 0


def test_2000_random_sets_have_no_difference():
    compared, num_exact, num_free = check_random_sets(1, 2000, 50)
    assert compared == 2000
    assert num_exact > 500
    assert num_free < num_exact


@pytest.mark.slow
def test_2000_large_random_sets_have_no_difference():
    assert check_random_sets(2, 2000, 160)[0] == 2000


def test_decisions_are_right_down_to_the_error_that_is_documented():
    a, b = random_pairs(np.random.default_rng(4), 1200)
    bound, decided = error_bound(a, b), 0
    for i in range(len(a)):
        exact = exact_iou(a[i], b[i])
        for threshold, is_above in ((float(exact) - 1.1 * bound[i] - 1e-16, True), (float(exact) + 1.1 * bound[i] + 1e-16, False)):
            if 0 <= threshold <= 1:
                assert drops(a[i], b[i], threshold) == drops(b[i], a[i], threshold) == is_above, (a[i], b[i], threshold)
                decided += 1
    assert decided > 1500


@pytest.mark.parametrize(
    ("second", "iou"),
    [
        pytest.param([0, 0, 4, 1], 1 / 2, id="half as wide, inside"),
        pytest.param([-1, 0.5, 2, 1], 1 / 4, id="in a corner"),
        pytest.param([1.25, 0, 1.5, 2], 3 / 8, id="at the front, inside"),
        pytest.param([0.5, 0, 3, 2], 3 / 4, id="most of it"),
        pytest.param([0, 0, 1, 8], 1 / 7, id="cross; no double is a seventh"),
        pytest.param([2.4, 0, 4, 2], 1 / 4, id="a shift that is no double"),
        pytest.param([4 / 3, 0, 4, 2], 1 / 2, id="a third, no double either"),
        pytest.param([4, 0, 4, 2], 0, id="touching"),
        pytest.param([4, 2, 4, 2], 0, id="touching at a corner"),
    ],
)
@pytest.mark.parametrize("scale", [1, 2.0**-14, 2.0**14])
@pytest.mark.parametrize("place", [(0, 0), (2.0**15, -(2.0**16))], ids=["here", "far away"])
def test_an_iou_at_the_threshold_stays(second, iou, scale, place):
    """In binary fractions everything is exact: what equals the threshold stays, one step of a double lower and it is dropped."""
    a, b = (np.array([*row, 0], float) * [scale, scale, scale, scale, 1] + [*place, 0, 0, 0] for row in ([0, 0, 4, 2], second))
    exact = exact_iou(a, b)
    if exact == Decimal(iou):
        assert not drops(a, b, iou)
        assert not drops(b, a, iou)
    for threshold in (iou + 1e-12, iou - 1e-12):  # beside it every box is decided, representable or not
        if threshold >= 0 and abs(exact - Decimal(iou)) < 1e-13:
            assert drops(a, b, threshold) == drops(b, a, threshold) == (exact > threshold)
    if iou and exact == Decimal(iou):
        assert drops(a, b, float(np.nextafter(iou, 0)))


@pytest.mark.parametrize("count", [12_000, 20_000])  # on a GPU, above and below what is put in order by comparing all
def test_many_items_are_those_of_their_groups_alone(count):
    rng = np.random.default_rng(count)
    boxes, scores = crowd(rng, count, 150)
    scores[rng.random(count) < 0.01] = NAN
    group = rng.integers(-20, 20, count)
    for function, limit in ((cuda_ops.nms_bev, 0.2), (cuda_ops.nms_circle, 1.0)):
        rows = [np.flatnonzero(group == number) for number in range(-20, 20)]
        alone = np.concatenate([r[function(boxes[r], scores[r], limit, 50)] for r in rows])
        np.testing.assert_array_equal(function(boxes, scores, limit, 50, group=group), alone[np.lexsort((alone, -scores[alone]))])


@pytest.mark.parametrize("spread", [20, 80])  # most are dropped, or kept
@pytest.mark.parametrize("count", [9_000, 17_000])
def test_one_crowd_of_thousands_equals_a_loop_over_neighbours(count, spread):
    rng = np.random.default_rng(count)
    centers, scores = rng.uniform(-spread, spread, (count, 2)), rng.uniform(0, 1, count)
    neighbours = spatial.cKDTree(centers).query_ball_point(centers, 1.0)
    dropped, kept = np.zeros(count, bool), []
    for row in np.argsort(-scores, kind="stable"):
        if not dropped[row]:
            kept.append(row)
            dropped[neighbours[row]] = True
    np.testing.assert_array_equal(cuda_ops.nms_circle(centers, scores, 1.0), kept)


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        pytest.param(0.5, [0], id="IoU above the threshold"),
        pytest.param(0.6, [0, 1], id="IoU equal to the threshold stays"),
        pytest.param(0.7, [0, 1], id="IoU below"),
    ],
)
def test_threshold_is_strict(threshold, kept):
    boxes = np.array([[0, 0, 4, 2, 0], [1, 0, 4, 2, 0]], np.float64)  # they share 6 of 10
    assert cuda_ops.iou_bev(boxes, boxes)[0, 1] == 0.6
    assert cuda_ops.nms_bev(boxes, np.array([0.9, 0.8]), threshold).tolist() == kept


def test_dropped_box_drops_nothing():
    row = np.array([[0, 0, 4, 2, 0], [1.5, 0, 4, 2, 0], [3, 0, 4, 2, 0]], np.float64)  # neighbours share 5 of 11, the outer ones 2 of 14
    assert cuda_ops.nms_bev(row, np.array([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 2]
    assert cuda_ops.nms_bev(row, np.array([0.8, 0.9, 0.7]), 0.4).tolist() == [1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_order_of_scores_and_ties(dtype):
    boxes = np.column_stack([10.0 * np.arange(9), np.zeros(9), np.full(9, 4.0), np.full(9, 2.0), np.zeros(9)])
    scores = np.array([0.5, -0.0, INF, 0.5, 0.0, -1e-30, -INF, NAN, 0.7], dtype)
    assert cuda_ops.nms_bev(boxes, scores, 0.5).tolist() == [2, 8, 0, 3, 1, 4, 5, 6]
    assert cuda_ops.nms_circle(boxes[:, :2], scores, 1.0).tolist() == [2, 8, 0, 3, 1, 4, 5, 6]
    assert cuda_ops.nms_bev(np.repeat(boxes[:1], 9, axis=0), scores, 0.5).tolist() == [2]
    assert cuda_ops.nms_bev(np.repeat(boxes[:1], 3, axis=0), np.full(3, 0.5, dtype), 0.5).tolist() == [0]


def test_scores_that_differ_only_in_float64():
    boxes = np.array([[x, 0, 4, 2, 0] for x in (0, 0, 50, 50)], np.float64)
    scores = np.array([0.1, 0.1 + 1e-12, -0.1, -0.1 - 1e-12])
    assert cuda_ops.nms_bev(boxes, scores, 0.5).tolist() == [1, 2]
    assert cuda_ops.nms_bev(boxes, scores.astype(np.float32), 0.5).tolist() == [0, 2]


def test_box_that_is_none_is_kept_and_drops_nothing():
    boxes = np.array([[0, 0, 4, 2, 0]] * 5, np.float64)
    boxes[1, 0], boxes[2, 2], boxes[3, 4] = NAN, 0, INF
    assert cuda_ops.nms_bev(boxes, np.array([0.1, 0.9, 0.8, 0.7, 0.6]), 0.2).tolist() == [1, 2, 3, 4]


def test_groups_do_not_drop_each_other_and_count_for_themselves():
    boxes = np.array([[0, 0, 4, 2, 0]] * 3 + [[20, 0, 4, 2, 0], [40, 0, 4, 2, 0]], np.float64)
    scores, group = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([7, -(2**40), 7, 7, 7])
    assert cuda_ops.nms_bev(boxes, scores, 0.2, group=group).tolist() == [0, 1, 3, 4]
    assert cuda_ops.nms_bev(boxes, scores, 0.2, 2, group=group).tolist() == [0, 1, 3]
    assert cuda_ops.nms_bev(boxes, scores, 0.2, 1, group=group).tolist() == [0, 1]
    assert cuda_ops.nms_bev(boxes, scores, 0.2, 1).tolist() == [0]
    assert cuda_ops.nms_bev(boxes, scores, 0.2, 0).tolist() == cuda_ops.nms_bev(boxes, scores, 0.2, 0, group=group).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), count=st.integers(0, 35), max_out=st.one_of(st.none(), st.integers(0, 20)), num_groups=st.integers(0, 4)
)
def test_nms_equals_reference(seed, count, max_out, num_groups):
    rng = np.random.default_rng(seed)
    boxes, scores = crowd(rng, count, 8)
    scores[rng.random(count) < 0.05] = NAN
    boxes[rng.random(count) < 0.03, rng.integers(0, 7)] = NAN
    group = rng.integers(0, num_groups, count) if num_groups else None
    threshold = float(rng.uniform(0, 0.8))
    ours = cuda_ops.nms_bev(boxes, scores, threshold, max_out, group=group)
    np.testing.assert_array_equal(ours, reference.nms_bev(boxes, scores, threshold, max_out, group=group))
    tensors = [None if a is None else torch.from_numpy(a) for a in (boxes, scores, group)]
    np.testing.assert_array_equal(cuda_ops.nms_bev(*tensors[:2], threshold, max_out, group=tensors[2]).numpy(), ours)
    radius = float(rng.choice([0, 0.5, 2, 30]))
    ours = cuda_ops.nms_circle(boxes[:, :2], scores, radius, max_out, group=group)
    np.testing.assert_array_equal(ours, reference.nms_circle(boxes[:, :2], scores, radius, max_out, group=group))
    circle = cuda_ops.nms_circle(tensors[0][:, :2], tensors[1], radius, max_out, group=tensors[2])
    np.testing.assert_array_equal(circle.numpy(), ours)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 80))
def test_kept_boxes_are_apart_and_dropped_ones_have_a_better_neighbour(seed, count):
    boxes, scores = crowd(np.random.default_rng(seed), count, 10)
    kept = cuda_ops.nms_bev(boxes, scores, 0.3)
    iou = cuda_ops.iou_bev(boxes, boxes)
    assert (iou[np.ix_(kept, kept)] <= 0.3).sum() == len(kept) * (len(kept) - 1)
    for row in set(range(count)) - set(kept.tolist()):
        rivals = kept[(iou[kept, row] > 0.3)]
        assert any(scores[k] > scores[row] or (scores[k] == scores[row] and k < row) for k in rivals)
    again = cuda_ops.nms_bev(boxes[kept], scores[kept], 0.3)
    np.testing.assert_array_equal(again, np.arange(len(kept)))


@pytest.mark.parametrize("spread", [5, 50, 5000])
def test_large_sets_equal_the_loop_over_all_overlaps(spread):
    """Sizes from pedestrians to a field of many cells: items that reach into more cells than the grid takes."""
    rng = np.random.default_rng(spread)
    boxes, scores = crowd(rng, 1500, spread)
    boxes[rng.random(1500) < 0.02, 3:5] *= 40
    boxes[rng.random(1500) < 0.02, 3:5] *= 0.01
    group = rng.integers(0, 3, 1500)
    for threshold in (0.0, 0.2, 0.5):
        drops = cuda_ops.iou_bev(boxes, boxes) > threshold
        np.testing.assert_array_equal(cuda_ops.nms_bev(boxes, scores, threshold), reference.keep_best(drops, scores, None, None))
        grouped = cuda_ops.nms_bev(boxes, scores, threshold, 50, group=group)
        np.testing.assert_array_equal(grouped, reference.keep_best(drops, scores, 50, group))
    for radius in (0.0, 0.3, 4.0, 100.0):
        ours = cuda_ops.nms_circle(boxes, scores, radius, group=group)
        np.testing.assert_array_equal(ours, reference.nms_circle(boxes, scores, radius, group=group))


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        pytest.param({"radius": 2.0}, [0, 2], id="distance equal to the radius"),
        pytest.param({"radius": 1.999}, [0, 1, 2], id="just below"),
        pytest.param({"squared_radius": 4}, [0, 2], id="squared distance equal to the value"),
        pytest.param({"squared_radius": 3.999}, [0, 1, 2], id="squared, just below"),
        pytest.param({"radius": 0}, [0, 1, 2], id="only the same place"),
    ],
)
def test_circle_includes_its_border(limit, kept):
    centers = np.array([[0, 0], [2, 0], [0, 2.001], [0, 0]], np.float32)
    assert cuda_ops.nms_circle(centers, np.array([0.9, 0.8, 0.7, 0.6], np.float32), **limit).tolist() == kept


def test_squared_radius_is_exact_where_no_radius_has_that_square():
    centers, scores = np.array([[0, 0], [1, 3]], np.float32), np.array([0.9, 0.8], np.float32)  # 1 + 9 = 10
    assert cuda_ops.nms_circle(centers, scores, squared_radius=10).tolist() == [0]
    assert cuda_ops.nms_circle(centers + np.float32(50_000), scores, squared_radius=10).tolist() == [0]
    assert cuda_ops.nms_circle(centers, scores, squared_radius=np.nextafter(10, 0).item()).tolist() == [0, 1]


def test_centers_that_are_not_finite_are_kept():
    centers = np.array([[0, 0], [NAN, 0], [INF, INF], [INF, INF], [0, 1]], np.float64)
    assert cuda_ops.nms_circle(centers, np.array([0.9, 0.8, 0.7, 0.6, 0.5]), 2.0).tolist() == [0, 1, 2, 3]


@pytest.mark.shared
def test_recorded_rotated_sets(shared: Path):
    recorded = np.load(shared / "fixtures/nms/rotated.npz")
    meta = json.loads((shared / "fixtures/nms/meta.json").read_text())
    for name in ("random", "pre_and_post_limit", "threshold_07", "small", "mixed_head", "ties", "one", "empty"):
        case = meta["cases"][name]
        scores, keep = recorded[f"{name}/scores"], recorded[f"{name}/keep_exact"]
        # Recorded are w, l, yaw of det3d: the same rectangle as length = w, width = l, heading = -yaw.
        boxes = recorded[f"{name}/boxes"] * np.float32([1, 1, 1, 1, 1, 1, -1])
        best = np.argsort(-scores, kind="stable")[: case.get("pre_max")]
        ours = best[
            cuda_ops.nms_bev(boxes[best], scores[best], case.get("iou_threshold", meta["nms"]["nms_iou_threshold"]), case.get("post_max"))
        ]
        np.testing.assert_array_equal(ours, keep, err_msg=name)


@pytest.mark.shared
def test_recorded_circles(shared: Path):
    recorded = np.load(shared / "fixtures/nms/circle.npz")
    cases = json.loads((shared / "fixtures/nms/meta.json").read_text())["cases"]
    names = sorted({key.rsplit("/", 1)[0] for key in recorded.files})
    assert len(names) == 12
    for name in names:
        rows = recorded[f"{name}/xy_score"]
        ours = cuda_ops.nms_circle(rows[:, :2], rows[:, 2], None, cases[name].get("post_max"), squared_radius=cases[name]["min_radius"])
        np.testing.assert_array_equal(ours, recorded[f"{name}/keep_stable"], err_msg=name)


@pytest.mark.shared
def test_recorded_heads_in_one_call(shared: Path):
    """All circle sets with the value 4 at once, as groups: the same rows as one by one."""
    recorded = np.load(shared / "fixtures/nms/circle.npz")
    parts = [recorded[f"circle/task{task}/xy_score"] for task in range(6)]
    rows, group = np.concatenate(parts), np.repeat(np.arange(6), [len(p) for p in parts])
    together = cuda_ops.nms_circle(rows[:, :2], rows[:, 2], 2.0, 83, group=group)
    start = 0
    for task, part in enumerate(parts):
        alone = cuda_ops.nms_circle(part[:, :2], part[:, 2], 2.0, 83)
        np.testing.assert_array_equal(together[group[together] == task] - start, alone)
        start += len(part)


def test_empty_and_one():
    none = np.zeros((0, 7), np.float32)
    for kept in (cuda_ops.nms_bev(none, np.zeros(0, np.float32), 0.2), cuda_ops.nms_circle(none, np.zeros(0, np.float32), 1.0)):
        assert kept.shape == (0,)
        assert kept.dtype == np.int64
    assert cuda_ops.nms_bev(none + 1, np.zeros(0), 0.2, group=np.zeros(0, np.int32)).tolist() == []
    assert cuda_ops.nms_bev(np.ones((1, 7)), np.zeros(1), 0.2).tolist() == [0]
    assert cuda_ops.nms_bev(np.ones((2, 7)), np.full(2, NAN), 0.2).tolist() == []


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_fixed_capacity_gives_the_same_and_then_none(kind):
    boxes, scores = crowd(np.random.default_rng(4), 300)
    scores[::7] = NAN  # rows that are no boxes
    group = np.arange(300) % 3
    for nms, limit in ((cuda_ops.nms_bev, 0.2), (cuda_ops.nms_circle, 2.0)):
        kept = nms(boxes, scores, limit, 12, group=group)
        fixed = np.asarray(nms(kind(boxes), kind(scores), limit, 12, group=kind(group), fixed_capacity=True))
        assert fixed.shape == (300,)
        np.testing.assert_array_equal(fixed[: len(kept)], kept)
        assert (fixed[len(kept) :] == -1).all()
        assert nms(boxes[:0], scores[:0], limit, fixed_capacity=True).shape == (0,)


@pytest.mark.gpu
def test_a_cuda_graph_holds_both_of_fixed_capacity(cuda_device):
    rng = np.random.default_rng(5)
    crowds = [crowd(rng, 500) for _ in range(2)]
    boxes, scores = (torch.from_numpy(array).to(cuda_device) for array in crowds[0])
    group = torch.arange(500, device=cuda_device) % 4

    def run():
        return cuda_ops.nms_bev(boxes, scores, 0.2, 9, group=group, fixed_capacity=True), cuda_ops.nms_circle(
            boxes, scores, 2.0, fixed_capacity=True
        )

    run()  # before the capture: what is loaded on first use
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    for number in (1, 0, 1):
        for tensor, array in zip((boxes, scores), crowds[number], strict=True):
            tensor.copy_(torch.from_numpy(array))
        graph.replay()
        expected = (
            cuda_ops.nms_bev(*crowds[number], 0.2, 9, group=np.arange(500) % 4),
            cuda_ops.nms_circle(*crowds[number], 2.0),
        )
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours[ours >= 0].cpu().numpy(), theirs)


def test_arrays_that_are_not_contiguous():
    boxes, scores = crowd(np.random.default_rng(3), 200)
    expected = cuda_ops.nms_bev(boxes[::2].copy(), scores[::2].copy(), 0.2)
    np.testing.assert_array_equal(cuda_ops.nms_bev(boxes[::2], scores[::2], 0.2), expected)
    np.testing.assert_array_equal(cuda_ops.nms_bev(torch.from_numpy(boxes)[::2], torch.from_numpy(scores)[::2], 0.2).numpy(), expected)


def test_one_and_eight_threads_are_equal(threads):
    boxes, scores = crowd(np.random.default_rng(9), 3000, 60)
    results = []
    for count in (1, 8):
        threads(count)
        results.append((cuda_ops.nms_bev(boxes, scores, 0.2), cuda_ops.nms_circle(boxes, scores, 2.0)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


BOXES, SCORES = np.ones((2, 7)), np.ones(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: cuda_ops.nms_bev(np.ones((2, 6)), SCORES, 0.2), r"boxes: expected shape .*got \(2, 6\)", id="columns"),
        pytest.param(lambda: cuda_ops.nms_bev(BOXES, np.ones(3), 0.2), r"scores: expected shape \(2,\), got \(3,\)", id="scores"),
        pytest.param(lambda: cuda_ops.nms_bev(BOXES, np.ones(2, int), 0.2), "scores: expected dtype .*got int64", id="dtype"),
        pytest.param(lambda: cuda_ops.nms_bev(BOXES, SCORES, 1.2), "iou_threshold: expected a number from 0 to 1, got 1.2", id="above 1"),
        pytest.param(lambda: cuda_ops.nms_bev(BOXES, SCORES, NAN), "iou_threshold: expected a number .*got nan", id="NaN"),
        pytest.param(lambda: cuda_ops.nms_bev(BOXES, SCORES, 0.2, -1), "max_out: expected an integer .*got -1", id="max_out"),
        pytest.param(
            lambda: cuda_ops.nms_bev(BOXES, SCORES, 0.2, group=np.ones(3, int)), r"group: expected shape \(2,\), got \(3,\)", id="group"
        ),
        pytest.param(lambda: cuda_ops.nms_bev(BOXES, SCORES, 0.2, group=np.ones(2)), "group: expected dtype .*got float64", id="floats"),
        pytest.param(lambda: cuda_ops.nms_circle(BOXES, SCORES), "expected one of .*got None and None", id="no radius"),
        pytest.param(lambda: cuda_ops.nms_circle(BOXES, SCORES, 2, squared_radius=4), "expected one of .*got 2 and 4", id="two radii"),
        pytest.param(lambda: cuda_ops.nms_circle(BOXES, SCORES, -1), "radius: expected a number from 0 .*got -1", id="negative"),
        pytest.param(lambda: cuda_ops.nms_circle(BOXES, SCORES, INF), "radius: expected a number from 0 .*got inf", id="infinite"),
        pytest.param(lambda: cuda_ops.nms_circle(np.ones((2, 1)), SCORES, 1), r"centers: expected .*got shape \(2, 1\)", id="x only"),
        pytest.param(lambda: cuda_ops.nms_bev(torch.ones(2, 7), SCORES, 0.2), "scores: expected a torch tensor .*got ndarray", id="mixed"),
    ],
)
def test_errors_say_expected_and_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()
