"""Clips on a device: integers in, the same cloud and boxes out in the network's frame."""

import numpy as np
import pytest
import torch

from perception.core import NUSCENES_DETECTION, Boxes3D, ClassSet, Detections, Transform
from perception.core.borders import boxes_from_det3d
from perception.detection.frames import NUSCENES_MOUNT
from perception.training.packed import pack
from perception.training.pool import ClipPool, pooled
from tests.training.feed_makers import MOUNT, numbered_clip

CLASSES = ClassSet(("pedestrian", "car"))


def truth_of(*names: str, num_points=None) -> Detections:
    """Objects 10 m ahead of each other, the first at x = 10, y = 1, that drive to their left at 2 m/s."""
    count = len(names)
    center = np.column_stack([10.0 * (1 + np.arange(count)), np.ones(count), np.full(count, 0.8)])
    boxes = Boxes3D(center, np.tile([4.0, 2.0, 1.6], (count, 1)), np.full(count, 0.3), np.tile([0.0, 2.0], (count, 1)))
    label = np.array([NUSCENES_DETECTION.index(name) for name in names], np.int64)
    return Detections(boxes, label, np.ones(count), NUSCENES_DETECTION, num_points=np.array(num_points or [5] * count, np.int64))


def on_cpu(clip, frame="ego"):
    return pooled(clip, CLASSES, frame, torch.device("cpu"))


def test_points_are_moved_into_the_ego_frame():
    # the lidar is 2 m up and 1 m ahead; its x points left, its y back
    rows = np.array([[10.0, 0, 0, 7, 0], [0, 3, -2, 255, 0.45], [-0.005, 0.005, 0, 0, 0.05]], np.float32)
    sample = on_cpu(pack("one", rows, MOUNT, truth_of())).sample()
    expected = [[1, 10, 2, 7, 0], [-2, 0, 0, 255, 0.45], [0.995, -0.005, 2, 0, 0.05]]
    torch.testing.assert_close(sample.points, torch.tensor(expected), atol=1e-6, rtol=0)
    assert sample.origin.tolist() == [1, 0, 2]


def test_packing_rounds_to_half_a_step():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(-160, 160, (500, 3)), rng.uniform(0, 255, 500), rng.uniform(0, 0.5, 500)]).astype(np.float32)
    sample = on_cpu(pack("one", rows, Transform.identity(), truth_of())).sample()
    torch.testing.assert_close(sample.points[:, :3], torch.from_numpy(rows[:, :3]), atol=0.0025 + 2e-5, rtol=0)  # and float32's at 160 m
    torch.testing.assert_close(sample.points[:, 3], torch.from_numpy(np.floor(rows[:, 3])), atol=0, rtol=0)
    torch.testing.assert_close(sample.points[:, 4], torch.from_numpy(rows[:, 4]), atol=0.0005 + 1e-7, rtol=0)


def test_what_is_out_of_reach_is_left_out():
    rows = np.zeros((5, 5), np.float32)
    rows[:, 0], rows[:, 3] = [3, 50, 170, np.nan, -50], [1, 2, 3, 4, 5]
    assert on_cpu(pack("one", rows, Transform.identity(), truth_of())).sample().points[:, 3].tolist() == [1, 2, 5]  # 170 m has no int16
    ahead = Transform(np.eye(3), np.array([2.0, 0, 0]))
    sample = on_cpu(pack("one", rows, ahead, truth_of(), reach=50)).sample()  # 5, 52 and -48 m from the vehicle
    assert sample.points[:, 3].tolist() == [1, 5]


def test_no_points_and_no_objects_make_an_empty_sample():
    sample = on_cpu(pack("none", np.zeros((0, 5), np.float32), MOUNT, Detections.empty(NUSCENES_DETECTION))).sample()
    assert sample.points.shape == (0, 5)
    assert sample.boxes.shape == (0, 9)
    assert sample.token == "none"  # noqa: S105


def test_truth_follows_the_network():
    """Objects of its classes with a return, in its frame and its order of labels."""
    truth = truth_of("car", "bus", "pedestrian", "car", num_points=[4, 9, 2, 0])
    rows = np.zeros((1, 5), np.float32)
    ego = on_cpu(pack("one", rows, NUSCENES_MOUNT, truth)).sample()
    assert ego.labels.tolist() == [1, 0]
    assert ego.num_points.tolist() == [4, 2]
    boxes = boxes_from_det3d(ego.boxes.double().numpy())
    np.testing.assert_allclose(boxes.center, [[10, 1, 0.8], [30, 1, 0.8]], atol=1e-6)
    np.testing.assert_allclose(boxes.yaw, 0.3, atol=1e-6)
    lidar = on_cpu(pack("one", rows, NUSCENES_MOUNT, truth), "nuscenes_lidar").sample()
    boxes = boxes_from_det3d(lidar.boxes.double().numpy())
    # x right, y forward, from 0.95 m ahead and 1.84 m up
    np.testing.assert_allclose(boxes.center, [[-1, 9.05, -1.04], [-1, 29.05, -1.04]], atol=1e-5)
    np.testing.assert_allclose(boxes.velocity, [[-2, 0], [-2, 0]], atol=1e-6)
    assert lidar.origin.tolist() == [0, 0, 0]


def test_autocast_leaves_places_alone():
    rows = np.column_stack([np.linspace(-100, 100, 50)] * 3 + [np.zeros((50, 2))]).astype(np.float32)
    clip = on_cpu(pack("one", rows, MOUNT, truth_of()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hasty = clip.sample().points
    assert torch.equal(hasty, clip.sample().points)
    assert hasty.dtype == torch.float32


def test_a_sample_that_is_written_into_leaves_the_pool_alone():
    pool = ClipPool(CLASSES, "ego", "cpu")
    pool.add(0, numbered_clip(0))
    first = pool[0].sample()
    before = first.points.clone(), first.boxes.clone()
    first.points.zero_()
    first.boxes.zero_()
    assert torch.equal(pool[0].sample().points, before[0])
    assert torch.equal(pool[0].sample().boxes, before[1])


def test_the_pool_keeps_the_newest():
    pool = ClipPool(CLASSES, "ego", "cpu")
    for number in (3, 4, 8):
        pool.add(number, numbered_clip(number))
    pool.drop_before(4)
    assert list(pool) == [4, 8]
    assert 3 not in pool
    with pytest.raises(ValueError, match="expected a number above 8, the newest clip's, got 8"):
        pool.add(8, numbered_clip(8))
    pool.clear()
    assert len(pool) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or a torch without CUDA")
def test_a_gpu_unpacks_what_the_cpu_does():
    device = torch.device("cuda")
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(-160, 160, (5000, 3)), rng.uniform(0, 255, 5000), rng.uniform(0, 0.5, 5000)]).astype(np.float32)
    clip = pack("one", rows, MOUNT, truth_of("car", "pedestrian"))
    cpu, gpu = on_cpu(clip).sample(), pooled(clip, CLASSES, "ego", device).sample()
    for name in ("points", "boxes", "labels", "num_points", "origin"):
        here, there = getattr(cpu, name), getattr(gpu, name)
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), here, atol=2e-5, rtol=0)  # fused multiply-adds round once less
