"""Small detectors and clouds in code."""

from typing import Any

import numpy as np
import torch

from perception.core.transform import Transform
from perception.detection.config import DetectorConfig
from perception.detection.pillar_readers import PillarReader
from perception.detection.voxels import HardVoxels

LIDAR_TO_EGO = Transform.from_yaw(-np.pi / 2, (0.94, 0.0, 1.84))
TASKS = [["car"], ["truck", "construction_vehicle"], ["pedestrian"]]


def small_config(kind: str = "pillar", **decode: Any) -> DetectorConfig:
    """A narrow network: 12.8 m around in pillars of 0.4 m ("pillar", "summary"), or 6.4 m in voxels of 0.1 m ("voxel").

    decode  changes its settings
    """
    limit = {"max_points": 5, "max_voxels": 800, "max_voxels_training": 500}
    is_pillar = kind != "voxel"
    side = 12.8 if is_pillar else 6.4
    size = [0.4, 0.4, 8.0] if is_pillar else [0.1, 0.1, 0.2]
    values: dict[str, Any] = {
        "name": "centerpoint",
        "frame": "nuscenes_lidar",
        "sweeps": 1,
        "grid": {"lower": [-side, -side, -5], "upper": [side, side, 3], "voxel_size": size},
        "reader": {"name": "pillar", "channels": [8, 8], "limit": limit} if is_pillar else {"name": "mean", "limit": limit},
        "encoder_channels": None if is_pillar else [4, 6, 8, 10],
        "neck": {"layers": [1, 1], "strides": [1, 2], "channels": [8, 12], "up_strides": [1, 2], "up_channels": [8, 8]},
        "head": {"tasks": TASKS, "shared_channels": 8, "branch_channels": 8},
        "decode": {
            "score_threshold": 0.1,
            "center_lower": [-20, -20, -10],
            "center_upper": [20, 20, 10],
            "nms": {"name": "rotated", "max_in": 50, "max_out": 10},
        }
        | decode,
    }
    if kind == "summary":
        values |= {
            "reader": {"name": "pillar_summary", "channels": 8, "directions": 10, "bands": {"lower": 0, "upper": 2, "count": 4}},
            "encoder": {"name": "sparse_pillar", "channels": [8, 8], "layers": [1, 1]},
            "neck": {"name": "pyramid", "channels": [8, 12], "layers": [1, 1], "up_channels": [8, 8]},
        }
    return DetectorConfig.model_validate({"detector": values})


def cloud(count: int = 3000, *, seed: int = 0, spread: float = 6.0) -> np.ndarray:
    """(N, 5) float32 points around the lidar."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, [spread, spread, 1], (count, 3))
    return np.column_stack([xyz, rng.integers(0, 256, count), rng.integers(0, 2, count) * 0.05]).astype(np.float32)


def padded_rows(reader: PillarReader, voxels: HardVoxels) -> torch.Tensor:
    """The reader's rows put into the published form: (M, slots, C), zeros in unused slots."""
    rows, pillar, _ = reader.rows(voxels)
    padded = rows.new_zeros((*voxels.points.shape[:2], rows.shape[1]))
    slot = torch.arange(len(pillar)) - torch.searchsorted(pillar, pillar)
    padded[pillar, slot] = rows
    return padded


def livened(state: dict[str, torch.Tensor], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random statistics in the place of those of an untrained normalisation, which does nothing."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: tensor.clone() for name, tensor in state.items()}
    for name, tensor in state.items():
        if name.endswith(("running_mean", "norm.bias")):
            tensor.normal_(0, 0.3, generator=generator)
        elif name.endswith(("running_var", "norm.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
    return state
