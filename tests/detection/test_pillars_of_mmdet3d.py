"""Pillars as mmdetection3d computes them, written out slot by slot from its `PillarFeatureNet` (legacy=False, one layer)."""

import numpy as np
import pytest
import torch

from cuda_ops import Grid
from perception.detection.build import build_network
from perception.detection.config import load_detector_config
from perception.detection.fold import folded
from perception.detection.pillar_readers import PillarReader
from perception.detection.readers import VoxelLimit

LOWER, SIZE, SLOTS = np.array([-2.0, -1.0, -5.0]), np.array([0.5, 0.5, 8.0]), 4


def by_definition(cloud: np.ndarray, weight: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Features by cell (y, x): the first points of each pillar, zeros in unused slots, a linear layer, ReLU, maximum of ALL slots."""
    pillars: dict[tuple[int, int], list[np.ndarray]] = {}
    for point in cloud.astype(np.float64):
        x, y, _ = np.floor((point[:3] - LOWER) / SIZE).astype(int)
        slots = pillars.setdefault((y, x), [])
        if len(slots) < SLOTS:
            slots.append(point)
    found = {}
    for (y, x), points in pillars.items():
        mean = np.mean([point[:3] for point in points], axis=0)
        middle = np.array([x, y, 0]) * SIZE + SIZE / 2 + LOWER
        rows = np.zeros((SLOTS, 11))
        for row, point in zip(rows, points, strict=False):
            row[:] = [*point, *(point[:3] - mean), *(point[:3] - middle)]
        found[y, x] = np.maximum(rows @ weight.T * scale + shift, 0).max(axis=0)
    return found


@torch.no_grad()
@pytest.mark.parametrize("is_folded", [False, True])
def test_features_are_those_of_all_slots(is_folded):
    rng = np.random.default_rng(0)
    cloud = rng.uniform([-2, -1, -5, 0, 0], [2, 1, 3, 255, 0.5], (60, 5)).astype(np.float32)
    reader = PillarReader(Grid(tuple(LOWER), (2, 1, 3), tuple(SIZE)), VoxelLimit(SLOTS, 99, 99), (6,), z_offset=True).eval()
    (layer,) = reader.net.layers
    torch.manual_seed(0)
    for tensor in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean):
        tensor.normal_()
    scale = (layer.norm.weight / torch.sqrt(layer.norm.running_var + 1e-3)).numpy()
    shift = layer.norm.bias.numpy() - layer.norm.running_mean.numpy() * scale
    expected = by_definition(cloud, layer.linear.weight.numpy(), scale, shift)
    reader = folded(reader) if is_folded else reader
    voxels = reader.voxelize([torch.from_numpy(cloud)])
    assert {1, 2, 3, 4} <= set(voxels.num_points.tolist())  # full pillars, in which no slot is unused, and others
    found = reader(voxels)
    assert len(found.coords) == len(expected)
    for (_, _, y, x), features in zip(found.coords.tolist(), found.features, strict=True):
        np.testing.assert_allclose(features, expected[y, x], rtol=1e-4, atol=1e-4)


def test_the_shipped_file_has_this_reader():
    with torch.device("meta"):
        reader = build_network(load_detector_config("centerpoint_pillar02_mmdet3d").detector).reader
    assert isinstance(reader, PillarReader)
    assert (reader.num_axes, reader.limit) == (3, VoxelLimit(20, 30_000, 40_000))
    assert [tuple(layer.linear.weight.shape) for layer in reader.net.layers] == [(64, 11)]
