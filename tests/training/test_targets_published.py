"""Targets, losses and gradients as the published code computes them."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from perception.detection.build import grid_of
from perception.detection.config import CenterPointSettings
from perception.detection.head import HeadMaps, TaskMaps
from perception.training.loss_settings import LossSettings
from perception.training.losses import center_loss, object_counts, task_loss
from perception.training.sample import Sample
from perception.training.targets import TaskTargets, make_targets
from tests.conftest import SHARED

pytestmark = pytest.mark.shared
FOLDER = SHARED / "fixtures" / "targets_loss"
TASKS = 6
FROM_DET3D = [0, 1, 2, 3, 4, 5, 8, 9, 6, 7]  # det3d has velocity before heading
BRANCHES = {"reg": slice(0, 2), "height": slice(2, 3), "dim": slice(3, 6), "rot": slice(6, 8), "vel": slice(8, 10)}


class Oracle:
    """Settings, samples, raw maps and results of one of the two grids."""

    def __init__(self, name: str) -> None:
        self.meta = json.loads((FOLDER / "meta.json").read_text())[name]
        self.arrays: Any = np.load(FOLDER / f"{name}.npz")
        is_pillar, limit = name == "pillars", {"max_points": 5, "max_voxels": 100, "max_voxels_training": 100}
        stride = 2 if is_pillar else 1
        neck = {"layers": [0], "strides": [stride], "channels": [4], "up_strides": [1 / stride], "up_channels": [4]}
        self.settings = CenterPointSettings.model_validate(
            {
                "name": "centerpoint",
                "frame": "nuscenes_lidar",
                "grid": {"lower": self.meta["range"][:3], "upper": self.meta["range"][3:], "voxel_size": self.meta["voxel_size"]},
                "reader": {"name": "pillar", "channels": [4], "limit": limit} if is_pillar else {"name": "mean", "limit": limit},
                "encoder_channels": None if is_pillar else [4, 4, 4, 4],
                "neck": neck,
                "head": {"tasks": self.meta["tasks"]},
                "decode": {"center_lower": [-20, -20, -10], "center_upper": [20, 20, 10], "nms": {"name": "rotated"}},
            }
        )
        assert grid_of(self.settings).map_shape == tuple(self.meta["map_height_width"])
        self.samples = [self._sample(i) for i in (0, 1)]
        self.targets = make_targets(self.samples, self.settings)

    def _sample(self, i: int) -> Sample:
        boxes = torch.from_numpy(self.arrays[f"in/{i}/gt_boxes"])
        labels = torch.from_numpy(self.arrays[f"in/{i}/gt_classes"]).long() - 1
        return Sample(str(i), torch.zeros(0, 5), boxes, labels, torch.ones_like(labels), torch.zeros(3))

    def maps(self) -> tuple[HeadMaps, list[dict[str, torch.Tensor]]]:
        """Maps made of raw branches that want a gradient, and these by task."""
        raw = [
            {name: torch.from_numpy(self.arrays[f"head/{task}/{name}"]).requires_grad_() for name in (*BRANCHES, "hm")}
            for task in range(TASKS)
        ]
        tasks = [TaskMaps(task["hm"], torch.cat([task[name] for name in BRANCHES], dim=1)) for task in raw]
        return HeadMaps(torch.zeros(2, 1, *self.meta["map_height_width"]), tuple(tasks)), raw


@pytest.fixture(scope="module", params=["pillars", "voxel0075"])
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(request.param)


@pytest.mark.parametrize("task", range(TASKS))
def test_targets(oracle, task):
    found: TaskTargets = oracle.targets[task]
    for i in range(2):
        expected = {name: oracle.arrays[f"target/{i}/{task}/{name}"] for name in ("hm", "ind", "mask", "cat", "anno_box")}
        slots = found.index.shape[1]
        assert not expected["mask"][slots:].any()
        np.testing.assert_allclose(found.heatmap[i].numpy(), expected["hm"], rtol=0, atol=1e-6)
        assert found.index[i].tolist() == expected["ind"][:slots].tolist()
        assert found.mask[i].tolist() == expected["mask"][:slots].astype(bool).tolist()
        assert found.cat[i].tolist() == expected["cat"][:slots].tolist()
        np.testing.assert_allclose(found.values[i].numpy(), expected["anno_box"][:slots, FROM_DET3D], rtol=0, atol=1e-6)


def test_losses(oracle):
    maps, _ = oracle.maps()
    counts = object_counts(oracle.targets)
    for task in range(TASKS):
        found = task_loss(maps.tasks[task], oracle.targets[task], LossSettings(), counts[task])
        expected = {name: oracle.arrays[f"loss/{name}"][task] for name in ("loss", "hm_loss", "loc_loss", "loc_loss_elem", "num_positive")}
        assert counts[task] == expected["num_positive"]
        assert found.heatmap.item() == pytest.approx(expected["hm_loss"], rel=1e-5)
        np.testing.assert_allclose(found.boxes.detach().numpy(), expected["loc_loss_elem"][FROM_DET3D], rtol=1e-5)
    losses = center_loss(maps, oracle.targets)
    assert losses.total.item() == pytest.approx(float(oracle.arrays["loss/total"]), rel=1e-5)
    assert sum(part.item() for part in losses.parts.values()) == pytest.approx(losses.total.item(), rel=1e-6)


def test_gradients(oracle):
    maps, raw = oracle.maps()
    center_loss(maps, oracle.targets).total.backward()
    for task, branches in enumerate(raw):
        for name, tensor in branches.items():
            assert tensor.grad is not None
            if name == "hm":
                expected = oracle.arrays[f"grad/{task}/hm"]
            else:
                expected = np.zeros(tensor.shape, np.float32)
                expected.reshape(-1)[oracle.arrays[f"grad/{task}/{name}/index"]] = oracle.arrays[f"grad/{task}/{name}/value"]
            scale = np.abs(expected).max() + 1e-12
            np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-4, atol=1e-6 * scale)
