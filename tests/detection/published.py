"""The published models of the oracles: their settings as ours, and their weights under our names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perception.detection.build import build_network
from perception.detection.center_point import CenterPoint
from perception.detection.checkpoints.layouts import DET3D, OURS
from perception.detection.checkpoints.renames import renamed
from perception.detection.checkpoints.values import linear_from_conv
from perception.detection.config import CenterPointSettings


def settings_of(meta: dict[str, Any], test: str = "rotate", *, widths: tuple[int, ...] | None = None) -> CenterPointSettings:
    """Settings of a model from its oracle's meta.json; `test` names one of its test configurations."""
    model, voxels = meta["model"], meta["voxel_generator"]
    limit = {"max_points": voxels["max_points_in_voxel"], "max_voxels": voxels["max_voxel_num"][1]}
    limit["max_voxels_training"] = voxels["max_voxel_num"][0]
    is_pillar = model["reader"]["type"] == "PillarFeatureNet"
    if is_pillar:
        reader = {"name": "pillar", "channels": model["reader"]["num_filters"], "limit": limit}
    else:
        reader = {"name": "mean", "limit": limit}
    return CenterPointSettings.model_validate(
        {
            "name": "centerpoint",
            "frame": "nuscenes_lidar",
            "grid": {"lower": voxels["range"][:3], "upper": voxels["range"][3:], "voxel_size": voxels["voxel_size"]},
            "reader": reader,
            "encoder_channels": None if is_pillar else widths or meta["backbone_widths"],
            "neck": neck_of(model["neck"]),
            "head": head_of(model["bbox_head"], meta["head_conv"]),
            "decode": decode_of(meta["test_cfg"][test]),
        }
    )


def neck_of(neck: dict[str, Any]) -> dict[str, Any]:
    return {
        "layers": neck["layer_nums"],
        "strides": neck["ds_layer_strides"],
        "channels": neck["ds_num_filters"],
        "up_strides": neck["us_layer_strides"],
        "up_channels": neck["us_num_filters"],
    }


def head_of(head: dict[str, Any], branch_channels: int) -> dict[str, Any]:
    return {
        "tasks": [task["class_names"] for task in head["tasks"]],
        "shared_channels": head["share_conv_channel"],
        "branch_channels": branch_channels,
        "velocity": "vel" in head["common_heads"],
    }


def decode_of(test: dict[str, Any]) -> dict[str, Any]:
    limits, nms = test["post_center_limit_range"], test["nms"]
    if test.get("circular_nms"):
        kind = {"name": "circle", "squared_radius": test["min_radius"], "max_out": nms["nms_post_max_size"]}
    else:
        kind = {"name": "rotated", "iou_threshold": nms["nms_iou_threshold"], "max_in": nms["nms_pre_max_size"]}
        kind["max_out"] = nms["nms_post_max_size"]
    return {
        "score_threshold": test["score_threshold"],
        "center_lower": limits[:3],
        "center_upper": limits[3:],
        "nms": kind,
        "double_flip": test.get("double_flip", False),
    }


def our_state(det3d_state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Some weights of det3d under our names, by the converter's tables; `checkpoints/test_convert.py` checks these.

    Two-stage files call the first stage `single_det` and repeat its head; the copy is left out.
    """
    state = {}
    for name, tensor in det3d_state.items():
        if f"single_det.{name}" in det3d_state:
            continue
        ours = renamed(renamed(name.removeprefix("single_det."), DET3D.renames) or "", OURS)
        assert ours, name
        state[ours] = linear_from_conv(tensor)
    return state


def state_from(weights: Path) -> dict[str, torch.Tensor]:
    """The weights of an oracle under our names."""
    with np.load(weights) as file:
        return our_state({key.removeprefix("w/"): torch.from_numpy(file[key]) for key in file.files})


def network_of(settings: CenterPointSettings, weights: Path) -> CenterPoint:
    """The network in evaluation mode with the weights of an oracle, every one of which must be used."""
    network = build_network(settings)
    network.load_state_dict(state_from(weights), strict=True)
    return network.eval()


def clouds_of(arrays: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(arrays[f"points/{i}"]) for i in range(2)]


def assert_close(tensor: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Equal within an absolute tolerance, and of one shape."""
    assert tuple(tensor.shape) == expected.shape
    difference = np.abs(tensor.detach().numpy().astype(np.float64) - expected)
    assert difference.size == 0 or difference.max() <= tolerance, difference.max()


def assert_boxes(boxes: Any, arrays: Any, prefix: str, tolerance: float) -> None:
    """The same boxes in the same order. Sizes are exponentials, with random weights of hundreds of metres: theirs is relative above 1 m."""
    assert boxes.labels.tolist() == arrays[f"{prefix}/labels"].tolist()
    expected = arrays[f"{prefix}/boxes"]
    scale = np.ones_like(expected)
    scale[:, 3:6] = np.maximum(expected[:, 3:6], 1)
    assert_close(boxes.rows / torch.from_numpy(scale), expected / scale, tolerance)
    assert_close(boxes.scores, arrays[f"{prefix}/scores"], tolerance)
