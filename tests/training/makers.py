"""Samples and settings to train on, in code."""

from collections.abc import Sequence
from typing import Any

import torch

from perception.detection.config import CenterPointSettings
from perception.training.sample import Sample
from tests.detection.small import small_config

CAR, TRUCK, CONSTRUCTION, PEDESTRIAN = range(4)  # labels of `small_settings`


def small_settings(**head: Any) -> CenterPointSettings:
    """Three tasks over 12.8 m around the lidar in cells of 0.8 m: maps of 32 x 32. `head` changes its settings."""
    settings = small_config().detector
    values = settings.model_dump() | {"head": settings.head.model_dump() | head}
    values["neck"] |= {"strides": [2, 2], "up_strides": [1, 2]}
    return CenterPointSettings.model_validate(values)


def box(
    x: float, y: float, *, z: float = 0.0, size: Sequence[float] = (2.0, 4.0, 1.5), velocity: Sequence[float] = (0.0, 0.0), r: float = 0.0
) -> list[float]:
    """A row of det3d's; size is width, length, height."""
    return [x, y, z, *size, *velocity, r]


def sample(*objects: tuple[int, list[float]], num_points: Sequence[int] | None = None) -> Sample:
    """A sample without points, of labels and boxes; each box with 10 returns unless told."""
    boxes = torch.tensor([row for _, row in objects]).reshape(-1, 9)
    labels = torch.tensor([label for label, _ in objects], dtype=torch.int64)
    counts = torch.tensor([10] * len(objects) if num_points is None else num_points, dtype=torch.int64)
    return Sample("a sample", torch.zeros(0, 5), boxes, labels, counts, torch.zeros(3))
