"""Double flip as the published code computes it: merged maps and final boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perception.detection.build import build_decoder
from perception.detection.flip import merged_boxes, merged_maps, mirrored
from perception.detection.head import BRANCHES, HeadMaps, TaskMaps
from tests.conftest import SHARED
from tests.detection.published import assert_boxes, clouds_of, network_of, settings_of

pytestmark = pytest.mark.shared
PILLARS, FLIP = SHARED / "fixtures" / "pillars", SHARED / "fixtures" / "flip"
PUBLISHED = {"offset": "reg", "height": "height", "log_size": "dim", "heading": "rot", "velocity": "vel"}


@pytest.fixture(scope="module")
def arrays() -> Any:
    return np.load(FLIP / "flip.npz")


def settings(test: str) -> Any:
    meta = json.loads((PILLARS / "meta.json").read_text()) | {"test_cfg": json.loads((FLIP / "meta.json").read_text())["test_cfg"]}
    return settings_of(meta, test)


@torch.no_grad()
def test_the_four_views_give_the_published_voxels_and_maps(arrays):
    network = network_of(settings("rotate"), Path(PILLARS / "weights.npz"))
    with np.load(PILLARS / "pillars.npz") as pillars:
        clouds = mirrored(clouds_of(pillars))
    limit = network.reader.limit
    voxels = network.reader.voxelize(clouds, [limit.max_voxels, *[limit.max_voxels_training] * 3] * 2)
    np.testing.assert_array_equal(voxels.coords.numpy(), arrays["vox/coordinates"])
    np.testing.assert_array_equal(voxels.num_points.numpy(), arrays["vox/num_points"])
    maps = network.head(network.neck(network.encoder(network.reader(voxels))))
    for number, task in enumerate(maps.tasks):
        np.testing.assert_allclose(task.heatmap.numpy(), arrays[f"head/{number}/hm"], atol=1e-3)
        boxes = np.concatenate([arrays[f"head/{number}/{name}"] for name in PUBLISHED.values()], axis=1)
        np.testing.assert_allclose(task.boxes.numpy(), boxes, atol=1e-3)
    assert list(PUBLISHED) == list(BRANCHES)


def stored_maps(arrays: Any) -> HeadMaps:
    tasks = []
    for number in range(6):
        boxes = np.concatenate([arrays[f"head/{number}/{name}"] for name in PUBLISHED.values()], axis=1)
        tasks.append(TaskMaps(torch.from_numpy(arrays[f"head/{number}/hm"]), torch.from_numpy(boxes)))
    return HeadMaps(tasks[0].heatmap, tuple(tasks))


@pytest.mark.parametrize("test", ["rotate", "circle"])
def test_boxes_are_the_published_ones(arrays, test):
    boxes = merged_boxes(build_decoder(settings(test)), stored_maps(arrays))
    for sample in range(2):
        assert_boxes(boxes[sample], arrays, f"dec/{test}/{sample}", 1e-5)


def test_merged_maps_are_the_published_ones(arrays):
    for number, task in enumerate(stored_maps(arrays).tasks):
        merged = merged_maps(task)
        expected = arrays[f"merged/{number}/boxes"]  # x y z w l h vx vy r of each cell
        scores = merged.heatmap.flatten(2).transpose(1, 2).numpy()
        np.testing.assert_allclose(scores, arrays[f"merged/{number}/hm"], atol=1e-6)
        found = merged.boxes.flatten(2).transpose(1, 2).numpy()
        np.testing.assert_allclose(found[..., 3:6], expected[..., 3:6], rtol=1e-6)  # up to 764 km
        np.testing.assert_allclose(found[..., 8:], expected[..., 6:8], atol=1e-5)
        np.testing.assert_allclose(found[..., 2], expected[..., 2], atol=1e-6)
