"""The second stage as the published code computes it: first boxes, features at five points, refined boxes and scores."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from perception.detection.build import build_decoder, grid_of
from perception.detection.config import CenterPointSettings
from perception.detection.decode import Boxes
from perception.detection.fold import folded
from perception.detection.head import CenterHead
from perception.detection.second_stage import SecondStage, box_points, point_features, refined
from tests.conftest import SHARED
from tests.detection.published import assert_close, decode_of, head_of, neck_of, state_from

pytestmark = pytest.mark.shared
FOLDER = SHARED / "fixtures" / "two_stage"
RANGES = {
    "nusc": ([-9.6, -7.2, -5.0], [9.6, 7.2, 3.0], [0.075, 0.075, 0.2]),
    "waymo": ([-9.6, -6.4, -2.0], [9.6, 6.4, 4.0], [0.1, 0.1, 0.15]),
}


class Oracle:
    """Settings, parts with their weights, and arrays of one of the two models."""

    def __init__(self, name: str) -> None:
        meta = json.loads((FOLDER / "meta.json").read_text())[name]
        self.arrays: Any = np.load(FOLDER / f"{name}.npz")
        model, first = meta["model"], meta["model"]["first_stage_cfg"]
        lower, upper, size = RANGES[name]
        fc = model["roi_head"]["model_cfg"]
        second = {"shared": fc["SHARED_FC"], "score": fc["CLS_FC"], "box": fc["REG_FC"]}
        second |= {"features": "head" if name == "nusc" else "neck", "with_box": name == "nusc"}
        self.settings = CenterPointSettings.model_validate(
            {
                "name": "centerpoint",
                "frame": "nuscenes_lidar",
                "grid": {"lower": lower, "upper": upper, "voxel_size": size},
                "reader": {"name": "dynamic_mean"},
                "encoder_channels": [4, 4, 4, 4],
                "neck": neck_of(first["neck"]),
                "head": head_of(first["bbox_head"], meta["head_conv"]),
                "decode": decode_of(meta["test_cfg"]),
                "second_stage": second,
            }
        )
        head = self.settings.head
        self.head = CenterHead(20, [len(t) for t in head.tasks], shared_channels=16, branch_channels=12, velocity=head.velocity)
        channels = 16 if name == "nusc" else 20
        options = {"shared": fc["SHARED_FC"], "score": fc["CLS_FC"], "box": fc["REG_FC"]}
        self.second = SecondStage(channels, velocity=head.velocity, with_box=name == "nusc", **options)
        state = state_from(FOLDER / f"{name}_weights.npz")
        for part, module in (("head", self.head), ("second_stage", self.second)):
            module.load_state_dict({k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}, strict=True)
            module.eval()
        assert all(key.startswith(("head.", "second_stage.")) for key in state)
        self.decoder, self.grid = build_decoder(self.settings), grid_of(self.settings)

    def boxes(self, prefix: str) -> list[Boxes]:
        result = []
        for i in range(3):
            rows, scores, labels = (torch.from_numpy(self.arrays[f"{prefix}/{i}/{name}"]) for name in ("boxes", "scores", "labels"))
            result.append(Boxes(with_velocity(rows), scores, labels))
        return result


def with_velocity(rows: torch.Tensor) -> torch.Tensor:
    """Rows without velocity, x y z w l h r, as rows with one of 0."""
    return rows if rows.shape[1] == 9 else torch.cat([rows[:, :6], torch.zeros(len(rows), 2), rows[:, 6:]], dim=1)


@pytest.fixture(scope="module", params=["nusc", "waymo"])
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(request.param)


@torch.no_grad()
def test_first_stage(oracle):
    maps = oracle.head(torch.from_numpy(oracle.arrays["in/neck_out"]))
    for found, expected in zip(oracle.decoder.from_maps(maps), oracle.boxes("first"), strict=True):
        assert found.labels.tolist() == expected.labels.tolist()
        assert_close(found.rows, expected.rows.numpy(), 1e-4)
        assert_close(found.scores, expected.scores.numpy(), 1e-5)


def test_points_and_features(oracle):
    feature_map = torch.from_numpy(oracle.arrays["stage/bev_feature_nhwc"]).permute(0, 3, 1, 2)
    boxes = oracle.boxes("first")
    features = point_features(feature_map, boxes, oracle.grid)
    for i in range(3):
        points = box_points(boxes[i].rows).transpose(0, 1).reshape(-1, 2)  # all centres, then all points of each side
        assert_close(points, oracle.arrays[f"stage/points/{i}"][:, :2], 1e-5)
        assert_close(features[i], oracle.arrays[f"stage/features/{i}"], 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("is_folded", [False, True])
def test_refined_boxes_and_scores(oracle, is_folded):
    stage = folded(oracle.second) if is_folded else oracle.second
    feature_map = torch.from_numpy(oracle.arrays["stage/bev_feature_nhwc"]).permute(0, 3, 1, 2)
    for found, expected in zip(refined(stage, feature_map, oracle.boxes("first"), oracle.grid), oracle.boxes("out"), strict=True):
        assert found.labels.tolist() == expected.labels.tolist()
        assert_close(found.rows, expected.rows.numpy(), 1e-4)
        assert_close(found.scores, expected.scores.numpy(), 1e-4)
