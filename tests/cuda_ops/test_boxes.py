"""Overlaps of boxes and points in boxes: against plain NumPy, against GEOS, against the recorded oracle."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cuda_ops
from cuda_ops import reference
from perception.core.boxes import Boxes3D
from tests.cuda_ops.rectangles import KINDS, iou_of_pairs, random_pairs

NAN, INF = float("nan"), float("inf")


def pair_iou(a, b):
    return cuda_ops.iou_bev(np.array([a], np.float64), np.array([b], np.float64))[0, 0]


def in_pieces(a, b, size=500):
    """iou_bev of row i with row i: the diagonals of small matrices."""
    return np.concatenate([np.diagonal(cuda_ops.iou_bev(a[i : i + size], b[i : i + size])) for i in range(0, len(a), size)])


def random_boxes(rng, count, spread=15.0):
    center = rng.uniform(-spread, spread, (count, 3)) * [1, 1, 0.1]
    return np.column_stack([center, rng.uniform(0.3, 8, (count, 3)), rng.uniform(-7, 7, count)])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        pytest.param([0, 0, 4, 2, 0], [1, 0, 4, 2, 0], 6 / 10, id="shifted by a quarter of its length"),
        pytest.param([0, 0, 4, 2, 0.7], [0, 0, 4, 2, 0.7], 1.0, id="identical"),
        pytest.param([0, 0, 4, 2, 0], [0, 0, 2, 1, 0], 2 / 8, id="nested"),
        pytest.param([0, 0, 4, 2, 0], [0, 0, 2, 4, 0], 4 / 12, id="cross"),
        pytest.param([0, 0, 2, 2, 0], [1, 1, 2, 2, 0], 1 / 7, id="corner in corner"),
        pytest.param([0, 0, 2, 2, 0], [0, 0, 2, 2, np.pi / 4], 8 * (2**0.5 - 1) / (8 - 8 * (2**0.5 - 1)), id="octagon"),
        pytest.param([0, 0, 4, 2, 0], [4, 0, 4, 2, 0], 0.0, id="touching along a side"),
        pytest.param([0, 0, 4, 2, 0], [4, 2, 4, 2, 0], 0.0, id="touching at a corner"),
        pytest.param([0, 0, 4, 2, 0], [2 + 2**0.5, 0, 2, 2, np.pi / 4], 0.0, id="vertex touches a side"),
        pytest.param([0, 0, 4, 2, 0.3], [4 * np.cos(0.3), 4 * np.sin(0.3), 4, 2, 0.3], 0.0, id="touching, turned"),
        pytest.param([0, 0, 4, 0.05, 0], [0, 0.059, 4, 0.05, 0], 0.0, id="thin, 9 mm apart"),
        pytest.param([0, 0, 10, 1, 0.5], [0, 0, 10, 1, -0.5], 1 / np.sin(1) / (20 - 1 / np.sin(1)), id="rhombus of two strips"),
        pytest.param([0, 0, 4, 2, 0], [0, 0, 4, 2, 1e7 * np.pi], 1.0, id="a yaw of many turns"),
        pytest.param([0, 0, 1e160, 1e160, 0], [0, 0, 1, 1, 0], 0.0, id="larger than arithmetic"),
        pytest.param([0, 0, 1e-4, 1e-4, 0], [5e-5, 0, 1e-4, 1e-4, 0], 1 / 3, id="a tenth of a millimetre"),
    ],
)
def test_iou_by_hand(a, b, iou):
    assert pair_iou(a, b) == pair_iou(b, a) == pytest.approx(iou, abs=1e-8 if abs(b[4]) > 1e5 else 1e-14)  # such a yaw is rounded to 4e-9
    if iou in (0.0, 1.0) and abs(b[4]) < 1e5:
        assert pair_iou(a, b) == iou


@pytest.mark.parametrize("yaw", [1e6, -3e9, 1e17, -1e300])
def test_yaw_of_any_size_is_taken_modulo_a_turn(yaw):
    assert pair_iou([0, 0, 4, 2, yaw], [1, 0, 4, 2, np.fmod(yaw, 2 * np.pi)]) == pair_iou([0, 0, 4, 2, yaw], [1, 0, 4, 2, yaw]) > 0.3


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_box_that_is_not_finite_overlaps_nothing(column, value):
    good, bad = np.array([[0, 0, 4, 2, 0.3]]), np.array([[0, 0, 4, 2, 0.3]])
    bad[0, column] = value
    for a, b in [(good, bad), (bad, good), (bad, bad)]:
        assert cuda_ops.iou_bev(a, b)[0, 0] == 0


@pytest.mark.parametrize("size", [(0, 2), (4, 0), (0, 0), (-4, 2), (4, -2), (-4, -2)])
def test_box_without_size_overlaps_nothing(size):
    bad, good = np.array([[0, 0, *size, 0.0]]), np.array([[0, 0, 4, 2, 0.0]])
    assert cuda_ops.iou_bev(bad, bad)[0, 0] == cuda_ops.iou_bev(bad, good)[0, 0] == cuda_ops.iou_bev(good, bad)[0, 0] == 0


def test_iou_equals_geos_on_random_pairs_of_every_kind():
    a, b = random_pairs(np.random.default_rng(11), 22_000)
    ours, geos = in_pieces(a, b), iou_of_pairs(a, b)
    worst = {kind: np.abs(ours - geos)[i :: len(KINDS)].max() for i, kind in enumerate(KINDS)}
    # Huge on tiny and far: the corners that GEOS gets are rounded to 1e-12 of the size. No kind comes near 1e-9.
    assert all(error < 1e-9 for error in worst.values()), worst
    assert worst["ordinary"] < 1e-12
    assert ours.max() == 1.0
    assert (ours[KINDS.index("the same") :: len(KINDS)] == 1.0).all()
    assert (ours[KINDS.index("touching") :: len(KINDS)] == 0.0).mean() > 0.9  # corners of turned ones are rounded: some truly overlap
    assert (ours[KINDS.index("touching") :: len(KINDS)] < 1e-13).all()


def test_both_orders_give_the_same_bits():
    a, b = random_pairs(np.random.default_rng(3), 1100)
    np.testing.assert_array_equal(cuda_ops.iou_bev(a, b), cuda_ops.iou_bev(b, a).T)
    same = cuda_ops.iou_bev(a, a)
    np.testing.assert_array_equal(same, same.T)
    assert (np.diag(same) == 1).all()


def test_iou_does_not_depend_on_the_origin():
    a, b = (np.round(boxes * 256) / 256 for boxes in random_pairs(np.random.default_rng(5), 550))  # so that the shift is exact
    a[:, 2:4], b[:, 2:4] = np.maximum(a[:, 2:4], 1 / 256), np.maximum(b[:, 2:4], 1 / 256)
    shift = [50_000, -50_000, 0, 0, 0]
    np.testing.assert_array_equal(cuda_ops.iou_bev(a + shift, b + shift), cuda_ops.iou_bev(a, b))


@pytest.mark.parametrize("function", ["iou_bev", "iou_3d"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_iou_equals_reference(function, dtype):
    rng = np.random.default_rng(7)
    a, b = random_boxes(rng, 25).astype(dtype), random_boxes(rng, 30).astype(dtype)
    b[:5] = a[:5]
    a[7, 3], a[8, 0], b[9, 6], b[10, 2], a[11, 5] = 0, NAN, INF, NAN, -1
    expected = getattr(reference, function)(a, b)
    assert (expected > 0).sum() > 20
    ours = getattr(cuda_ops, function)(a, b)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, expected, atol=1e-13)
    tensors = getattr(cuda_ops, function)(torch.from_numpy(a), torch.from_numpy(b))
    assert tensors.dtype == torch.float64
    np.testing.assert_array_equal(tensors.numpy(), ours)


def test_iou_of_five_and_seven_columns_agree():
    boxes = random_boxes(np.random.default_rng(8), 30)
    flat = boxes[:, [0, 1, 3, 4, 6]]
    expected = cuda_ops.iou_bev(boxes, boxes)
    for a, b in [(flat, flat), (boxes, flat), (flat, boxes)]:
        np.testing.assert_array_equal(cuda_ops.iou_bev(a, b), expected)


@pytest.mark.parametrize(
    ("z", "height", "iou"),
    [
        pytest.param(0, 2, 1.0, id="identical"),
        pytest.param(1, 2, 1 / 3, id="half a height up"),
        pytest.param(2, 2, 0.0, id="one on top of the other"),
        pytest.param(0.25, 1, 1 / 2, id="inside"),
        pytest.param(-1.5, 2, 0.5 / 3.5, id="below"),
        pytest.param(NAN, 2, 0.0, id="NaN"),
        pytest.param(0, 0, 0.0, id="flat"),
        pytest.param(0, -2, 0.0, id="negative height"),
    ],
)
def test_iou_3d_by_hand(z, height, iou):
    a, b = np.array([[3, 4, 0, 4, 2, 2, 0.4]]), np.array([[3, 4, z, 4, 2, height, 0.4]])
    assert cuda_ops.iou_3d(a, b)[0, 0] == cuda_ops.iou_3d(b, a)[0, 0] == pytest.approx(iou, abs=1e-15)


@settings(max_examples=200, deadline=None)
@given(
    numbers=st.lists(
        st.one_of(st.floats(-20, 20), st.sampled_from([0.0, 1.0, 2.0, NAN, INF, 1e-300, 1e300, -1e300])), min_size=14, max_size=14
    )
)
def test_iou_lies_between_0_and_1_whatever_comes(numbers):
    a, b = np.array(numbers[:7])[None], np.array(numbers[7:])[None]
    for function in (cuda_ops.iou_bev, cuda_ops.iou_3d):
        forth, back = function(a, b)[0, 0], function(b, a)[0, 0]
        assert 0 <= forth <= 1
        assert forth == back


@pytest.mark.shared
def test_recorded_pairs(shared: Path):
    recorded = np.load(shared / "fixtures/nms/rotated.npz")
    names = json.loads((shared / "fixtures/nms/meta.json").read_text())["cases"]["pairs"]["names"]
    # The recording's boxes are w, l, yaw of det3d: the same rectangle as length = w, width = l, heading = -yaw.
    a, b = (recorded[f"pairs/{side}"].astype(np.float64) * [1, 1, 1, 1, 1, 1, -1] for side in "ab")
    ours = np.diagonal(cuda_ops.iou_bev(a, b))
    # 1e-9 as its README says: the recording's own clipping works in the global frame.
    np.testing.assert_allclose(ours, recorded["pairs/iou_exact_f64"], rtol=0, atol=1e-9)
    for i, name in enumerate(names):
        if name.startswith(("touching", "gap", "zero", "NaN", "thin boxes 9 mm", "5 cm boxes")) or name.endswith("touches the side"):
            assert ours[i] == 0, name
    assert ours.max() == 1
    matrix = recorded["mixed_head/boxes"].astype(np.float64) * [1, 1, 1, 1, 1, 1, -1]
    np.testing.assert_allclose(cuda_ops.iou_bev(matrix, matrix), recorded["mixed_head/iou_exact_f64"], rtol=0, atol=1e-9)


def test_points_in_boxes_by_hand():
    boxes = np.array([[0, 0, 0, 4, 2, 2, 0], [1, 0, 0, 4, 2, 2, 0], [10, 10, 1, 2, 2, 2, np.pi / 4]])
    points = [
        [0, 0, 0],  # in the first two
        [3, 0, 0],  # on the front of the second
        [-2, -1, -1],  # on a corner of the first
        [-2.001, 0, 0],  # behind the first
        [0, 0, 1.001],  # above
        [11.4, 10, 1],  # near the tip of the third: its half diagonal is 1.414
        [11, 11, 1],  # inside of its bird's-eye bounds, outside of itself
    ]
    found = cuda_ops.points_in_boxes(np.array(points, np.float32), boxes)
    assert found.index.tolist() == [0, 1, 0, -1, -1, 2, -1]
    assert found.count.tolist() == [2, 2, 1]
    assert found.index.dtype == found.count.dtype == np.int32


@pytest.mark.parametrize("spread", [3, 15, 100])
@pytest.mark.parametrize("num_boxes", [1, 7, 60, 500])
def test_points_in_boxes_equals_reference_and_core(spread, num_boxes):
    rng = np.random.default_rng(num_boxes)
    boxes = random_boxes(rng, num_boxes, spread)
    points = rng.uniform(-1.1 * spread, 1.1 * spread, (4000, 5)).astype(np.float32)
    points[:, 2] *= 0.1
    points[::50, rng.integers(0, 3)] = NAN
    points[1::50, 1] = INF
    points[2::50, 0] = -INF
    expected = reference.points_in_boxes(points, boxes)
    found = cuda_ops.points_in_boxes(points, boxes)
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_array_equal(found.count, expected.count)
    finite = np.isfinite(points[:, :3]).all(axis=1)
    core = Boxes3D(boxes[:, :3], boxes[:, 3:6], boxes[:, 6], np.zeros((num_boxes, 2))).contains(points[finite].astype(np.float64))
    np.testing.assert_array_equal(found.count, core.sum(axis=1))
    np.testing.assert_array_equal(found.index[finite], np.where(core.any(axis=0), core.argmax(axis=0), -1))
    tensors = cuda_ops.points_in_boxes(torch.from_numpy(points), torch.from_numpy(boxes))
    np.testing.assert_array_equal(tensors.index.numpy(), found.index)
    np.testing.assert_array_equal(tensors.count.numpy(), found.count)


@pytest.mark.parametrize("num_boxes", [0, 1, 60, 700])
def test_points_lie_in_boxes_of_their_group_only(num_boxes):
    rng = np.random.default_rng(num_boxes)
    boxes, points = random_boxes(rng, num_boxes, 15), rng.uniform(-15, 15, (4000, 3)).astype(np.float32) * np.float32([1, 1, 0.1])
    groups = {"point_group": rng.integers(-2, 6, 4000), "box_group": rng.integers(-2, 6, num_boxes)}
    found, expected = cuda_ops.points_in_boxes(points, boxes, **groups), reference.points_in_boxes(points, boxes, **groups)
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_array_equal(found.count, expected.count)
    inside = Boxes3D(boxes[:, :3], boxes[:, 3:6], boxes[:, 6], np.zeros((num_boxes, 2))).contains(points.astype(np.float64))
    inside &= (groups["box_group"][:, None] == groups["point_group"]) & (groups["point_group"] >= 0)
    np.testing.assert_array_equal(found.count, inside.sum(axis=1))
    assert (found.index[groups["point_group"] < 0] == -1).all()
    tensors = {name: torch.from_numpy(group.astype(np.int32)) for name, group in groups.items()}
    again = cuda_ops.points_in_boxes(torch.from_numpy(points), torch.from_numpy(boxes), **tensors)
    np.testing.assert_array_equal(again.index.numpy(), found.index)
    np.testing.assert_array_equal(again.count.numpy(), found.count)


def test_points_on_borders_are_inside_wherever_the_grid_is_cut():
    rng = np.random.default_rng(4)
    boxes = np.column_stack([rng.integers(-40, 40, (80, 3)) / 4, rng.integers(1, 16, (80, 3)) / 2, np.zeros(80)])
    boxes[::3, 3:5] *= 4
    signs = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    for box in boxes:
        corners = (box[:3] + signs * box[3:6] / 2).astype(np.float32)
        found = cuda_ops.points_in_boxes(corners, boxes)
        expected = reference.points_in_boxes(corners, boxes)
        assert (found.index >= 0).all()
        np.testing.assert_array_equal(found.index, expected.index)
        np.testing.assert_array_equal(found.count, expected.count)


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param([50_000, 0, 0, 4, 2, 2, 0.1], id="far away"),
        pytest.param([0, 0, 0, 1e9, 1e9, 2, 0.1], id="huge"),
        pytest.param([1e300, -1e300, 0, 4, 2, 2, 0], id="beyond every grid"),
        pytest.param([0, 0, 0, 4, NAN, 2, 0], id="NaN"),
        pytest.param([0, 0, INF, 4, 2, 2, 0], id="infinite z"),
        pytest.param([0, 0, 0, 4, 2, 0, 0], id="flat"),
        pytest.param([0, 0, 0, -4, 2, 2, 0], id="negative"),
    ],
)
def test_odd_box_among_others(odd):
    rng = np.random.default_rng(2)
    boxes = random_boxes(rng, 40)
    boxes[20] = odd
    points = np.concatenate([rng.uniform(-15, 15, (2000, 3)) * [1, 1, 0.1], [[50_001, 0.5, 0.5]]]).astype(np.float32)
    found, expected = cuda_ops.points_in_boxes(points, boxes), reference.points_in_boxes(points, boxes)
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_array_equal(found.count, expected.count)


def test_empty():
    none, one = np.zeros((0, 7), np.float32), np.array([[0, 0, 0, 4, 2, 2, 0]], np.float32)
    for function in (cuda_ops.iou_bev, cuda_ops.iou_3d):
        assert function(none, one).shape == (0, 1)
        assert function(one, none).shape == (1, 0)
        assert function(none, none).shape == (0, 0)
    found = cuda_ops.points_in_boxes(np.zeros((3, 3), np.float32), none)
    assert (found.index.tolist(), found.count.tolist()) == ([-1, -1, -1], [])
    found = cuda_ops.points_in_boxes(np.zeros((0, 5), np.float32), one)
    assert (found.index.tolist(), found.count.tolist()) == ([], [0])


def test_arrays_that_are_not_contiguous():
    rng = np.random.default_rng(6)
    wide = random_boxes(rng, 40)
    boxes, strided = np.ascontiguousarray(wide[::2]), wide[::2]
    np.testing.assert_array_equal(cuda_ops.iou_bev(strided, np.asfortranarray(boxes)), cuda_ops.iou_bev(boxes, boxes))
    points = rng.uniform(-15, 15, (3000, 8)).astype(np.float32)
    np.testing.assert_array_equal(
        cuda_ops.points_in_boxes(points[::3, 1:5], boxes).index, cuda_ops.points_in_boxes(points[::3, 1:5].copy(), boxes).index
    )
    tensor = torch.from_numpy(points).T.contiguous().T
    np.testing.assert_array_equal(
        cuda_ops.points_in_boxes(tensor, torch.from_numpy(boxes)).index, cuda_ops.points_in_boxes(points, boxes).index
    )


def test_one_and_eight_threads_are_equal(threads):
    rng = np.random.default_rng(9)
    boxes, points = random_boxes(rng, 400, 40), rng.uniform(-40, 40, (100_000, 3)).astype(np.float32) * np.float32([1, 1, 0.1])
    results = []
    for count in (1, 8):
        threads(count)
        results.append((cuda_ops.iou_bev(boxes, boxes), cuda_ops.iou_3d(boxes, boxes), *cuda_ops.points_in_boxes(points, boxes)))
    for one, eight in zip(*results, strict=True):
        np.testing.assert_array_equal(one, eight)


ONE, POINTS = np.ones((1, 7)), np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: cuda_ops.iou_bev(np.zeros((2, 6)), ONE), r"boxes_a: expected shape .*got \(2, 6\)", id="columns"),
        pytest.param(lambda: cuda_ops.iou_bev(ONE, np.zeros(7)), r"boxes_b: expected shape .*got \(7,\)", id="one row"),
        pytest.param(lambda: cuda_ops.iou_3d(np.zeros((2, 5)), ONE), r"boxes_a: expected shape .*got \(2, 5\)", id="no height"),
        pytest.param(lambda: cuda_ops.iou_bev(ONE.astype(int), ONE), "boxes_a: expected dtype .*got int64", id="integers"),
        pytest.param(lambda: cuda_ops.points_in_boxes(np.zeros((2, 3)), ONE), "points: expected dtype .*got float64", id="points, dtype"),
        pytest.param(lambda: cuda_ops.points_in_boxes(POINTS[:, :2], ONE), r"points: expected .*got shape \(2, 2\)", id="x, y only"),
        pytest.param(
            lambda: cuda_ops.points_in_boxes(POINTS, ONE, box_group=np.zeros(1, np.int32)), "or neither, got one of them", id="one group"
        ),
        pytest.param(lambda: cuda_ops.points_in_boxes(POINTS, ONE[:, :5]), r"boxes: expected .*got \(1, 5\)", id="boxes without z"),
        pytest.param(lambda: cuda_ops.iou_bev(torch.zeros(2, 7), ONE), "boxes_b: expected a torch tensor .*got ndarray", id="mixed"),
    ],
)
def test_errors_say_expected_and_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()
