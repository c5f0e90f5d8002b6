"""A batch at once: each sample as if it were alone, and as many operations as for a smaller batch."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from perception.core import NUSCENES_DETECTION, Boxes3D, Detections, Transform
from perception.detection.voxels import joined
from perception.training.augment import augment, augment_batch
from perception.training.object_bank import build_object_bank
from perception.training.packed import pack
from perception.training.pool import pooled, unpacked
from perception.training.sample_batch import SampleBatch
from tests.training.scenes import boxes_at, crowded, rng_of, sample_with, settings_of

TENSORS = ("points", "boxes", "labels", "num_points", "origin")
PLACED = {"flip_x": 0.5, "flip_y": 0.5, "rotation": np.pi, "scale": (0.9, 1.1), "translation": (0.5, 0.5, 0.2), "tilt": 0.02}
EVERYTHING = PLACED | {
    "object_scale": (0.9, 1.1),
    "object_stretch": ((0.9, 1.1), (0.8, 1.0), (1.0, 1.2)),
    "object_drop": {"chance": 0.5},
    "sweeps": {"count": [1, 10], "key_only": 0.2},
    "beams": {"chance": 0.5},
    "point_drop": {"chance": 0.5},
    "sector": {"chance": 0.5},
    "intensity": {"zero": 0.2},
    "jitter": 0.01,
}
BANK = {"file": "bank", "counts": {"car": 4, "pedestrian": 4}, "clear_inside": True}


def mixed():
    """Eight samples of many sizes: one without points, one whose boxes are said to be empty, one with a point that is none."""
    samples = [crowded(seed, num_points=500 + 777 * seed, num_boxes=3 + seed, num_sweeps=1 + 3 * seed) for seed in range(4)]
    odd = crowded(7)
    odd.points[100, 1] = float("nan")
    uncounted = replace(samples[2], num_points=samples[2].num_points * 0)
    return [
        *samples[:2], sample_with([], boxes_at((5, 5, 0))), uncounted, sample_with([(1, 2, 3)]), odd,
        sample_with([(5, 5, 0.1, 7, 0)], boxes_at((5, 5, 0), (9, 9, 0))), samples[3],
    ]  # fmt: skip


def assert_same(one, other):
    assert one.token == other.token
    for name in TENSORS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)


@pytest.fixture(scope="module")
def bank():
    return build_object_bank([crowded(21), crowded(22)], NUSCENES_DETECTION, "ego")


@pytest.mark.parametrize(
    "values",
    [
        *({name: value} for name, value in EVERYTHING.items()),
        {"shuffle": True},
        {"min_points": 5},
        {"bank": BANK},
        EVERYTHING,
        EVERYTHING | {"bank": BANK, "shuffle": True, "min_points": 3},
    ],
    ids=lambda values: next(iter(values)) if len(values) == 1 else f"{len(values)} parts",
)
def test_a_sample_is_the_same_whoever_is_in_the_batch(values, bank):
    samples, settings = mixed(), settings_of(**values)
    for seed in range(3):
        together = augment_batch(samples, settings, [np.random.default_rng([seed, i]) for i in range(8)], bank)
        order = np.random.default_rng(seed).permutation(8)[:5]
        some = augment_batch([samples[i] for i in order], settings, [np.random.default_rng([seed, i]) for i in order], bank)
        for i, sample in enumerate(samples):
            assert_same(augment(sample, settings, np.random.default_rng([seed, i]), bank), together[i])
        for i, found in zip(order, some, strict=True):
            assert_same(found, together[i])


def test_the_given_samples_stay_and_what_is_found_is_not_theirs():
    samples = mixed()
    batch = SampleBatch.of([replace(sample, **{name: getattr(sample, name).clone() for name in TENSORS}) for sample in samples])
    given, before = batch.samples(), [sample.points.clone() for sample in samples]
    for values in ({}, EVERYTHING):
        for found in augment_batch(given, settings_of(**values), [rng_of(i) for i in range(8)]):
            found.points.zero_()
    for sample, points in zip(given, before, strict=True):
        torch.testing.assert_close(sample.points, points, rtol=0, atol=0, equal_nan=True)


def test_the_clouds_of_a_batch_lie_one_behind_the_other():
    found = augment_batch(mixed(), settings_of(**EVERYTHING), [rng_of(i) for i in range(8)])
    clouds = [sample.points for sample in found]
    together = joined(clouds)
    assert together.data_ptr() == clouds[0].data_ptr()
    torch.testing.assert_close(together, torch.cat(clouds), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("take", "is_copied"),
    [
        (lambda rows: [rows[:3], rows[3:3], rows[3:9]], False),
        (lambda rows: [rows[2:3], rows[3:7]], False),
        (lambda rows: [rows], False),
        (lambda rows: [rows[3:], rows[:3]], True),
        (lambda rows: [rows[:3], rows[4:]], True),
        (lambda rows: [rows[:3], rows[:3]], True),
        (lambda rows: [rows[:3, :2], rows[3:, :2]], True),
        (lambda rows: [rows[:3], rows.clone()[3:]], True),
        (lambda rows: [rows[:0], rows[1:4]], True),
    ],
)
def test_only_what_lies_apart_is_copied(take, is_copied):
    rows = torch.arange(50.0).view(10, 5)
    parts = take(rows)
    found = joined(parts)
    assert torch.equal(found, torch.cat(parts))
    assert (found.untyped_storage().data_ptr() != rows.untyped_storage().data_ptr()) == is_copied


class Counting(TorchDispatchMode):
    """Counts operations, those left out that only look at a tensor in another way."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


def clip(seed, *, num_points=2000):
    rng = rng_of(seed)
    points = np.column_stack([rng.uniform(-60, 60, (num_points, 2)), rng.uniform(-2, 2, num_points), rng.integers(0, 255, num_points)])
    points = np.column_stack([points, 0.05 * rng.integers(0, 10, num_points)]).astype(np.float32)
    count = 20 + seed % 7
    center = np.column_stack([rng.uniform(-60, 60, (count, 2)), np.zeros(count)])
    boxes = Boxes3D(center, np.tile([4.5, 2, 1.6], (count, 1)), rng.uniform(-3, 3, count), rng.normal(0, 3, (count, 2)))
    truth = Detections(boxes, rng.integers(0, 10, count), np.ones(count), NUSCENES_DETECTION, num_points=np.full(count, 9))
    mount = Transform.from_yaw(seed, (1.0, 0.1 * seed, 2.0))
    return pooled(pack(f"clip {seed}", points, mount, truth), NUSCENES_DETECTION, "ego", torch.device("cpu"))


def operations(num_samples, values, bank=None):
    clips = [clip(seed) for seed in range(num_samples)]
    rngs = [rng_of(seed) for seed in range(num_samples)]
    with Counting() as counting:
        found = augment_batch(unpacked(clips), settings_of(**values), rngs, bank)
        joined([sample.points for sample in found])
    return counting.counts


@pytest.mark.parametrize("is_pasted", [False, True])
def test_the_number_of_operations_is_that_of_a_smaller_batch(bank, is_pasted):
    values = EVERYTHING | ({"bank": BANK} if is_pasted else {})
    found = [operations(count, values, bank) for count in (16, 32)]
    assert found[0] == found[1]
    assert found[0].total() <= 200 + 25 * is_pasted
    # The host waits for the points kept; how many are each sample's, and which boxes stay, it hears in one.
    assert found[0]["aten::nonzero"] == 1
    assert found[0]["aten::_local_scalar_dense"] == found[0]["aten::masked_select"] == 0


def test_clips_unpacked_together_are_those_unpacked_alone():
    clips = [clip(0), clip(1, num_points=0), clip(2, num_points=777)]
    for one, found in zip(clips, unpacked(clips), strict=True):
        assert_same(one.sample(), found)
    together = [sample.points for sample in unpacked(clips)]
    assert joined(together).data_ptr() == together[0].data_ptr()
