"""Augmentation on a GPU: the same as on the CPU, a batch as its samples alone, and the host hardly ever waits."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from perception.core.classes import NUSCENES_DETECTION
from perception.detection.voxels import joined
from perception.training.augment import augment, augment_batch
from perception.training.object_bank import build_object_bank
from perception.training.pool import pooled, unpacked
from perception.training.targets import make_targets
from perception.training.virtual_points import as_read
from tests.training.feed_makers import numbered_clip
from tests.training.makers import small_settings
from tests.training.scenes import boxes_at, crowded, fused_sample, rng_of, sample_with, settings_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

MOVED = {"flip_x": 0.5, "flip_y": 0.5, "rotation": np.pi, "scale": (0.9, 1.1), "translation": (0.5, 0.5, 0.5), "height": 0.3, "tilt": 0.02}
OTHER_LIDAR = {
    "object_scale": (0.9, 1.1),
    "object_stretch": ((0.9, 1.1), (0.8, 1.0), (1.0, 1.2)),
    "object_drop": {"chance": 0.5},
    "sweeps": {"count": [1, 10]},
    "beams": {"chance": 1.0},
    "sector": {"chance": 1.0},
    "intensity": {},
    "bank": {"file": "bank", "counts": {"car": 5, "pedestrian": 5}, "clear_inside": True},
}
BY_POINT = {"point_drop": {"chance": 1.0}, "jitter": 0.01, "shuffle": True}
TENSORS = ("points", "boxes", "labels", "num_points", "origin")


def bank_on(device):
    bank = build_object_bank([crowded(1)], NUSCENES_DETECTION, "ego")
    return replace(bank, points=bank.points.to(device))


@pytest.mark.parametrize("values", [MOVED, OTHER_LIDAR, MOVED | OTHER_LIDAR], ids=["moved", "other lidar", "both"])
@pytest.mark.parametrize("seed", range(4))
def test_a_gpu_gives_the_sample_of_the_cpu(values, seed):
    sample, settings = crowded(seed), settings_of(**values)
    expected = augment(sample, settings, rng_of(seed), bank_on("cpu"))
    found = augment(sample.to("cuda"), settings, rng_of(seed), bank_on("cuda"))
    assert abs(len(found.points) - len(expected.points)) <= 2  # on the edge of a beam or a sector
    for name in TENSORS:
        assert getattr(found, name).is_cuda, name
    if len(found.points) == len(expected.points):
        torch.testing.assert_close(found.points.cpu(), expected.points, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.boxes.cpu(), expected.boxes, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert found.labels.tolist() == expected.labels.tolist()


def test_a_gpu_gives_the_sample_with_virtual_points_of_the_cpu():
    settings = settings_of(**MOVED, **{name: value for name, value in OTHER_LIDAR.items() if name not in ("bank", "beams", "sector")})
    expected = augment_batch([fused_sample(seed=seed) for seed in range(3)], settings, rngs_of(3))
    found = augment_batch([fused_sample(seed=seed).to("cuda") for seed in range(3)], settings, rngs_of(3))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.points.cpu(), theirs.points, rtol=1e-4, atol=1e-4)
        assert (mine.num_points.cpu() - theirs.num_points).abs().sum() <= 2  # on the border of a box
        assert torch.equal(as_read(mine.points).cpu(), as_read(mine.points.cpu()))


def test_the_generator_decides_on_a_gpu_too():
    sample, settings = crowded().to("cuda"), settings_of(**MOVED, **OTHER_LIDAR, **BY_POINT)
    found, again = (augment(sample, settings, rng_of(3), bank_on("cuda")) for _ in range(2))
    for name in TENSORS:
        torch.testing.assert_close(getattr(found, name), getattr(again, name), rtol=0, atol=0, equal_nan=True)


def batch_of(count, device):
    """Samples of many sizes, among them one without points."""
    samples = [crowded(seed, num_points=3000 + 1111 * seed, num_boxes=3 + 2 * seed) for seed in range(count - 1)]
    return [sample.to(device) for sample in [samples[0], sample_with([], boxes_at((5, 5, 0))), *samples[1:]]]


def rngs_of(count):
    return [np.random.default_rng([9, place]) for place in range(count)]


@pytest.mark.parametrize("values", [MOVED, OTHER_LIDAR, MOVED | OTHER_LIDAR | BY_POINT], ids=["moved", "other lidar", "everything"])
def test_a_batch_on_a_gpu_is_that_of_the_cpu(values):
    settings = settings_of(**values)
    expected = augment_batch(batch_of(8, "cpu"), settings, rngs_of(8), bank_on("cpu"))
    found = augment_batch(batch_of(8, "cuda"), settings, rngs_of(8), bank_on("cuda"))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.boxes.cpu(), theirs.boxes, rtol=1e-5, atol=1e-5, equal_nan=True)
        assert mine.labels.tolist() == theirs.labels.tolist()
        assert (mine.num_points.cpu() - theirs.num_points).abs().sum() <= 2  # on the border of a box
        # Random numbers are the same, so that only a point on the edge of a beam, a sector or a box may differ.
        assert abs(len(mine.points) - len(theirs.points)) <= 2
        if len(mine.points) == len(theirs.points):
            torch.testing.assert_close(mine.points.cpu(), theirs.points, rtol=1e-4, atol=1e-4)


def test_a_sample_is_the_same_whoever_is_in_the_batch():
    samples, settings, bank = batch_of(8, "cuda"), settings_of(**MOVED, **OTHER_LIDAR, **BY_POINT), bank_on("cuda")
    together = augment_batch(samples, settings, rngs_of(8), bank)
    for sample, rng, found in zip(samples, rngs_of(8), together, strict=True):
        alone = augment(sample, settings, rng, bank)
        for name in TENSORS:
            torch.testing.assert_close(getattr(alone, name), getattr(found, name), rtol=0, atol=0, equal_nan=True)
    clouds = [sample.points for sample in together]
    assert joined(clouds).data_ptr() == clouds[0].data_ptr()


def waits_of(work):
    """What the host waits for in a second run of some work."""
    work()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]


@pytest.mark.parametrize("is_pasted", [False, True])
def test_the_host_waits_twice_a_batch_and_once_more_for_a_bank(is_pasted):
    values = MOVED | OTHER_LIDAR | BY_POINT
    settings, bank = settings_of(**(values if is_pasted else values | {"bank": None})), bank_on("cuda")
    samples = batch_of(8, "cuda")
    waits = waits_of(lambda: augment_batch(samples, settings, rngs_of(8), bank))
    assert len(waits) <= 2 + is_pasted, waits  # points kept; how many are whose and which boxes stay; the scenes' boxes


def test_unpacking_and_targets_do_not_wait():
    clips = [pooled(numbered_clip(number), NUSCENES_DETECTION, "ego", torch.device("cuda")) for number in range(6)]
    assert waits_of(lambda: unpacked(clips)) == []
    samples, settings = unpacked(clips), small_settings()
    assert waits_of(lambda: make_targets(samples, settings)) == []
