"""Augmentation on a GPU: what does not hang on single points is the same as on the CPU, and the host hardly ever waits."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from perception.core.classes import NUSCENES_DETECTION
from perception.training.augment import augment
from perception.training.object_bank import build_object_bank
from tests.training.scenes import crowded, rng_of, settings_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

MOVED = {"flip_x": 0.5, "flip_y": 0.5, "rotation": np.pi, "scale": (0.9, 1.1), "translation": (0.5, 0.5, 0.5), "height": 0.3, "tilt": 0.02}
OTHER_LIDAR = {
    "object_scale": (0.9, 1.1),
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


def test_the_generator_decides_on_a_gpu_too():
    sample, settings = crowded().to("cuda"), settings_of(**MOVED, **OTHER_LIDAR, **BY_POINT)
    found, again = (augment(sample, settings, rng_of(3), bank_on("cuda")) for _ in range(2))
    for name in TENSORS:
        torch.testing.assert_close(getattr(found, name), getattr(again, name), rtol=0, atol=0, equal_nan=True)


def test_the_host_waits_three_times_a_sample():
    sample, settings, bank = crowded().to("cuda"), settings_of(**MOVED, **OTHER_LIDAR, **BY_POINT), bank_on("cuda")
    augment(sample, settings, rng_of(3), bank)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            augment(sample, settings, rng_of(3), bank)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    assert len(waits) <= 3, [str(warning.message) for warning in waits]  # the scene's boxes for the bank, points kept, boxes kept
