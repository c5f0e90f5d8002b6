"""Samples made in code."""

from dataclasses import replace

import numpy as np
import torch

from perception.core.borders import boxes_from_det3d, boxes_to_det3d
from perception.core.boxes import Boxes3D
from perception.training.augment_settings import AugmentSettings
from perception.training.sample import Sample
from perception.training.virtual_points import KIND, RETURN


def settings_of(**values):
    return AugmentSettings.model_validate(values)


def rng_of(seed=0):
    return np.random.default_rng(seed)


def boxes_at(*centers, size=(4.0, 2.0, 1.5), yaw=0.3, velocity=(3.0, -1.0)):
    """det3d rows of boxes of one size (length, width, height)."""
    count = len(centers)
    boxes = Boxes3D(np.array(centers, float).reshape(-1, 3), np.tile(size, (count, 1)), np.full(count, yaw), np.tile(velocity, (count, 1)))
    return torch.from_numpy(boxes_to_det3d(boxes).astype(np.float32))


def sample_with(points=(), boxes=None, labels=None, origin=(0.0, 0.0, 0.0), num_points=7):
    """points: (N, 5), or rows of x, y, z and perhaps intensity and age."""
    rows = torch.zeros(len(points), 5)
    for i, point in enumerate(points):
        rows[i, : len(point)] = torch.as_tensor(point)
    boxes = boxes_at() if boxes is None else boxes
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return Sample("sample-1", rows, boxes, labels, torch.full((len(boxes),), num_points), torch.tensor(origin))


def in_boxes(points, rows):
    """(M, N) bool by `Boxes3D.contains`, which is tested by itself."""
    return boxes_from_det3d(rows.double().numpy()).contains(points[:, :3].double().numpy())


def crowded(seed=0, *, num_points=4000, num_boxes=12, num_sweeps=10):
    """Boxes of many sizes in a random cloud, sweeps 0.05 s apart."""
    rng = rng_of(seed)
    points = rng.normal(0, [12, 12, 1, 0, 0], (num_points, 5))
    points[:, 3], points[:, 4] = rng.integers(0, 256, num_points), 0.05 * rng.integers(0, num_sweeps, num_points)
    rows = np.column_stack([
        rng.uniform(-20, 20, (num_boxes, 2)), rng.uniform(-1, 1, num_boxes), rng.uniform(0.5, 6, (num_boxes, 3)),
        rng.normal(0, 3, (num_boxes, 2)), rng.uniform(-3, 3, num_boxes),
    ])  # fmt: skip
    boxes = torch.from_numpy(rows.astype(np.float32))
    return sample_with(points.astype(np.float32), boxes, rng.integers(0, 10, num_boxes).tolist(), origin=(0.5, 0.2, 1.8))


def fused_sample(count=400, seed=0):
    """A crowded sample with virtual columns, a third of its points of each kind, each with columns that show which it is."""
    plain = crowded(seed, num_points=count)
    kind = torch.arange(count) % 3 - 1
    columns = torch.rand(count, 11, generator=torch.Generator().manual_seed(seed))
    columns[:, KIND - 5] = kind
    columns[kind == RETURN, :-1] = 1
    points = torch.cat([plain.points, columns], dim=1)
    points[kind != RETURN, 3] = (torch.arange(count)[kind != RETURN] % 2).float()  # is a car, or not
    return replace(plain, points=points)
