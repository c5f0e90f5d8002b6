"""CenterPoint with pillars, stage by stage and from points to boxes, as the published code computes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perception.detection.build import build_decoder
from perception.detection.center_point import CenterPoint
from perception.detection.fold import folded
from perception.detection.head import BRANCHES
from tests.detection.published import assert_boxes, assert_close, clouds_of, network_of, settings_of
from tests.detection.small import padded_rows

pytestmark = pytest.mark.shared
BRANCH_OF = {"offset": "reg", "height": "height", "log_size": "dim", "heading": "rot", "velocity": "vel"}


@pytest.fixture(scope="module")
def folder() -> Path:
    from tests.conftest import SHARED

    return SHARED / "fixtures" / "pillars"


@pytest.fixture(scope="module")
def meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text())


@pytest.fixture(scope="module")
def arrays(folder: Path) -> Any:
    return np.load(folder / "pillars.npz")


@pytest.fixture(scope="module", params=[False, True], ids=["as trained", "folded"])
def network(request: pytest.FixtureRequest, folder: Path, meta: dict[str, Any]) -> CenterPoint:
    network = network_of(settings_of(meta), folder / "weights.npz")
    return folded(network) if request.param else network


def test_voxels_are_the_published_ones_bit_for_bit(network, arrays):
    voxels = network.reader.voxelize(clouds_of(arrays))
    for name, ours in (("voxels", voxels.points), ("num_points", voxels.num_points), ("coordinates", voxels.coords)):
        np.testing.assert_array_equal(ours.numpy(), arrays[f"vox/{name}"])


@torch.no_grad()
def test_reader_gives_the_published_features(network, arrays):
    voxels = network.reader.voxelize(clouds_of(arrays))
    sample = arrays["stage/pillar_sample_index"]
    assert_close(padded_rows(network.reader, voxels)[sample], arrays["stage/pfn_in_sample"], 1e-4)
    assert_close(network.reader(voxels).features, arrays["stage/pfn_out"], 1e-4)


@torch.no_grad()
def test_maps_are_the_published_ones(network, arrays):
    clouds = clouds_of(arrays)
    bev = network.encoder(network.reader(network.reader.voxelize(clouds)))
    assert_close(bev[0, 0], arrays["stage/canvas_0_ch0"], 1e-4)
    assert_close(bev[1, 5], arrays["stage/canvas_1_ch5"], 1e-4)
    stages = bev
    for number, stage in enumerate(network.neck.stages):
        stages = stage(stages)
        assert_close(stages[:, :3], arrays[f"stage/neck_block{number}_ch0_3"], 1e-3)
    neck = network.neck(bev)
    assert_close(neck, arrays["stage/neck_out"], 1e-3)
    maps = network.head(neck)
    assert_close(maps.shared, arrays["stage/shared"], 1e-3)
    for number, task in enumerate(maps.tasks):
        assert_close(task.heatmap, arrays[f"head/{number}/hm"], 1e-3)
        for name, branch in zip(BRANCHES, task.boxes.split(list(BRANCHES.values()), dim=1), strict=True):
            assert_close(branch, arrays[f"head/{number}/{BRANCH_OF[name]}"], 1e-3)


@torch.no_grad()
@pytest.mark.parametrize("test", ["rotate", "rotate_small", "circle", "circle_small"])
def test_boxes_are_the_published_ones_in_the_same_order(network, arrays, meta, test):
    boxes = build_decoder(settings_of(meta, test)).from_maps(network(clouds_of(arrays)))
    for sample in range(2):
        assert_boxes(boxes[sample], arrays, f"dec/{test}/{sample}", 1e-3)
