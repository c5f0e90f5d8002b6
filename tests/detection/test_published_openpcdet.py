"""OpenPCDet's CenterPoint, full width, with its weights: readers, encoder, maps and final boxes."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from perception.core.borders import boxes_from_det3d, boxes_from_openpcdet
from perception.detection.build import build_decoder, build_network
from perception.detection.config import CenterPointSettings, load_detector_config
from perception.detection.fold import folded
from tests.conftest import SHARED
from tests.detection.openpcdet_weights import openpcdet_state
from tests.detection.published import assert_close

pytestmark = pytest.mark.shared
FOLDER = SHARED / "fixtures" / "openpcdet"
OURS = {"cbgs_voxel0075_res3d_centerpoint": "centerpoint_voxel0075", "cbgs_dyn_pp_centerpoint": "centerpoint_pillar02_dynamic"}


class Oracle:
    def __init__(self, name: str, is_folded: bool) -> None:
        self.arrays: Any = np.load(FOLDER / f"{name}.npz")
        meta = json.loads((FOLDER / "meta.json").read_text())[name]
        values = load_detector_config(OURS[name]).detector.model_dump()
        values["grid"] = {"lower": meta["pc_range"][:3], "upper": meta["pc_range"][3:], "voxel_size": meta["voxel_size"]}
        self.is_pillar = "pp" in name
        self.settings = CenterPointSettings.model_validate(values)
        network = build_network(self.settings)
        network.load_state_dict(openpcdet_state(SHARED, name), strict=True)
        self.network = folded(network) if is_folded else network.eval()
        self.clouds = [torch.from_numpy(self.arrays[f"points_{i}"]) for i in range(2)]


@pytest.fixture(scope="module", params=[(name, is_folded) for name in OURS for is_folded in (False, True)], ids=str)
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(*request.param)


@torch.no_grad()
def test_reader(oracle):
    voxels = oracle.network.reader(oracle.network.reader.voxelize(oracle.clouds))
    order = np.arange(len(voxels.coords))
    if oracle.is_pillar:  # there by batch, x, y; here by batch, y, x
        order = np.lexsort(voxels.coords.numpy()[:, [2, 3, 0]].T)
    order = order[: len(voxels.coords)]
    np.testing.assert_array_equal(voxels.coords.numpy()[order], oracle.arrays["vfe_coords_bzyx"])
    assert_close(voxels.features[torch.from_numpy(order)][::5], oracle.arrays["vfe_features_every_5th"], 1e-3)


@torch.no_grad()
def test_sites_of_the_encoder(oracle):
    if oracle.is_pillar:
        pytest.skip("pillars have no sparse encoder")
    voxels = oracle.network.reader(oracle.network.reader.voxelize(oracle.clouds))
    stages = oracle.network.encoder.sparse_stages(voxels)
    for number, stage in enumerate(stages[:4], start=1):
        assert len(stage.coords) == int(oracle.arrays[f"x_conv{number}_n_sites"])
        features = stage.features.numpy().astype(np.float64)
        np.testing.assert_allclose(features.mean(axis=0), oracle.arrays[f"x_conv{number}_channel_mean"], atol=1e-3)
        np.testing.assert_allclose(features.std(axis=0, ddof=1), oracle.arrays[f"x_conv{number}_channel_std"], atol=1e-3)
    np.testing.assert_array_equal(stages[-1].coords.numpy(), oracle.arrays["encoded_indices_bzyx"])
    assert_close(stages[-1].features[::4], oracle.arrays["encoded_features_every_4th_site"], 1e-3)


@torch.no_grad()
def test_maps(oracle):
    network, arrays = oracle.network, oracle.arrays
    bev = network.encoder(network.reader(network.reader.voxelize(oracle.clouds)))
    assert list(bev.shape) == arrays["spatial_features_shape"].tolist()
    assert_close(bev[0, ::16], arrays["spatial_features_every_16th_channel_sample0"], 1e-3)
    neck = network.neck(bev)
    assert list(neck.shape) == arrays["spatial_features_2d_shape"].tolist()
    assert_close(neck[:, ::32], arrays["spatial_features_2d_every_32nd_channel"], 1e-3)
    maps = network.head(neck)
    assert_close(maps.shared[:, ::8], arrays["shared_conv_every_8th_channel"], 1e-3)
    for number, task in enumerate(maps.tasks):
        step = 1 if number in (0, 1, 5) else 4
        assert_close(task.heatmap[0], arrays[f"head{number}_hm"], 1e-3)
        offset, height, size, heading, velocity = task.boxes[0, :, ::step, ::step].split([2, 1, 3, 2, 2])
        ours = {"center": offset, "center_z": height, "dim": size[[1, 0, 2]], "rot": -heading, "vel": velocity}
        for name, branch in ours.items():
            assert_close(branch, arrays[f"head{number}_{name}"], 1e-3)


@torch.no_grad()
def test_final_boxes_and_their_order(oracle):
    decoder = build_decoder(oracle.settings)
    for sample, found in enumerate(decoder.from_maps(oracle.network(oracle.clouds))):
        rows, scores = oracle.arrays[f"final{sample}_pred_boxes"], oracle.arrays[f"final{sample}_pred_scores"]
        order = with_ties_swapped(found.rows.numpy(), rows, scores)
        ours, theirs = boxes_from_det3d(found.rows.numpy()[order]), boxes_from_openpcdet(rows)
        assert (found.labels.numpy()[order] + 1).tolist() == oracle.arrays[f"final{sample}_pred_labels"].tolist()
        np.testing.assert_allclose(found.scores, scores, rtol=0, atol=1e-3)
        for name in ("center", "size", "velocity"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-3)
        turn = np.abs(ours.yaw - theirs.yaw)
        assert np.minimum(turn, 2 * np.pi - turn).max() < 1e-3


def with_ties_swapped(ours: np.ndarray, theirs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The order of our boxes, in which one pair of neighbours may change places: one whose published scores differ by 5e-7 only."""
    order = np.arange(len(ours))
    is_other = np.abs(ours[:, 0] - theirs[:, 0]) > 1e-3
    if is_other.any():
        first, second = np.flatnonzero(is_other)
        assert second == first + 1
        assert abs(scores[first] - scores[second]) < 1e-6
        order[[first, second]] = second, first
    return order
