"""Overlap, suppression and containment on a GPU: the bits of the CPU, twice."""

import numpy as np
import pytest

import cuda_ops

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu


def crowd(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and groups with copies, ties, what is no box, and a place 50 km away."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(-20, 20, (count, 3)) + np.where(rng.random((count, 1)) < 0.1, 50_000, 0)
    boxes = np.column_stack([center, rng.uniform(0.2, 5, (count, 3)), rng.uniform(-7, 7, count)])
    boxes[::7] = boxes[:1]
    boxes[rng.random(count) < 0.02, rng.integers(0, 7)] = np.nan
    boxes[rng.random(count) < 0.02, 3] = 0
    scores = rng.integers(0, 50, count) / 50
    scores[rng.random(count) < 0.05] = np.nan
    return boxes, scores, rng.integers(-3, 3, count)


def on_both(function, device, *arrays, **options):
    """The result of the CPU and two of the GPU, as lists of arrays."""
    tensors = [torch.from_numpy(array) for array in arrays]
    group = options.pop("group", None)
    results = []
    for place in ("cpu", device, device):
        if group is not None:
            options["group"] = torch.from_numpy(group).to(place)
        result = function(*[tensor.to(place) for tensor in tensors], **options)
        results.append([part.cpu().numpy() for part in (result if isinstance(result, tuple) else (result,))])
    return results


def assert_all_equal(results) -> None:
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000, 20_000])
@pytest.mark.parametrize("max_out", [None, 5])
@pytest.mark.parametrize("is_grouped", [False, True])
def test_suppression(cuda_device, count, max_out, is_grouped):
    boxes, scores, group = crowd(count, count)
    options = {"max_out": max_out, "group": group if is_grouped else None}
    assert_all_equal(on_both(cuda_ops.nms_bev, cuda_device, boxes, scores, iou_threshold=0.2, **options))
    assert_all_equal(on_both(cuda_ops.nms_circle, cuda_device, boxes[:, :2].copy(), scores, radius=1.0, **options))


def test_overlap_of_pairs(cuda_device):
    boxes, _, _ = crowd(600, 1)
    others, _, _ = crowd(500, 1)
    assert_all_equal(on_both(cuda_ops.iou_bev, cuda_device, boxes, others))
    assert_all_equal(on_both(cuda_ops.iou_3d, cuda_device, boxes, others))


def test_points_in_boxes(cuda_device):
    boxes, _, _ = crowd(200, 2)
    points = np.random.default_rng(3).uniform(-25, 25, (50_000, 4)).astype(np.float32)
    points[::100, 1] = np.nan
    assert_all_equal(on_both(cuda_ops.points_in_boxes, cuda_device, points, boxes))


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("count", [0, 1, 300, 2000])
def test_points_in_boxes_of_their_group(cuda_device, count, is_sorted):
    rng = np.random.default_rng(count)
    boxes, _, _ = crowd(count, count)
    points = rng.uniform(-25, 25, (50_000, 4)).astype(np.float32)
    point_group, box_group = rng.integers(-1, 8, len(points)), rng.integers(-1, 8, count)
    if is_sorted:
        point_group.sort()
        box_group.sort()

    def grouped(points, boxes, point_group, box_group):
        return cuda_ops.points_in_boxes(points, boxes, point_group=point_group, box_group=box_group)

    assert_all_equal(on_both(grouped, cuda_device, points, boxes, point_group.astype(np.int32), box_group.astype(np.int32)))
