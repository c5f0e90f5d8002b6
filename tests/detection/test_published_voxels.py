"""CenterPoint with voxels: every stage of the sparse encoder, the maps and the boxes as the published code computes them."""

import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from perception.detection.build import build_decoder
from perception.detection.center_point import CenterPoint
from perception.detection.encoders import SparseEncoder
from perception.detection.fold import folded
from perception.detection.head import BRANCHES
from perception.detection.sparse import SparseTensor
from perception.detection.voxels import VoxelFeatures
from tests.conftest import SHARED
from tests.detection.published import assert_boxes, assert_close, clouds_of, network_of, our_state, settings_of

pytestmark = pytest.mark.shared
FOLDER = SHARED / "fixtures" / "voxelnet"
TOLERANCE = 2e-3  # the oracle's own, for values up to about 30
PUBLISHED = {"offset": "reg", "height": "height", "log_size": "dim", "heading": "rot", "velocity": "vel"}


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return json.loads((FOLDER / "meta.json").read_text())


@pytest.fixture(scope="module")
def arrays() -> Any:
    return np.load(FOLDER / "voxelnet.npz")


@pytest.fixture(scope="module", params=["native", "dense", "native folded"])
def network(request: pytest.FixtureRequest, meta: dict[str, Any]) -> CenterPoint:
    network = network_of(settings_of(meta), FOLDER / "weights.npz")
    network.encoder.backend = request.param.split()[0]
    return folded(network) if "folded" in request.param else network


def assert_sparse(tensor: SparseTensor, indices: np.ndarray, features: np.ndarray, tolerance: float) -> None:
    """The same sites, compared in the order b, z, y, x, and their features."""
    order = np.lexsort(tensor.coords.numpy().T[::-1])
    np.testing.assert_array_equal(tensor.coords.numpy()[order], indices)
    assert_close(tensor.features[torch.from_numpy(order)], features, tolerance)


@torch.no_grad()
def test_reader(network, arrays):
    voxels = network.reader.voxelize(clouds_of(arrays))
    for name, ours in (("voxels", voxels.points), ("num_points", voxels.num_points), ("coordinates", voxels.coords)):
        np.testing.assert_array_equal(ours.numpy(), arrays[f"vox/{name}"])
    assert_close(network.reader(voxels).features, arrays["stage/vfe"], 1e-5)


@torch.no_grad()
def test_every_stage_of_the_encoder(network, arrays, meta):
    encoder = network.encoder
    voxels = network.reader(network.reader.voxelize(clouds_of(arrays)))
    x = encoder.stem(SparseTensor(voxels.features, voxels.coords, encoder.shape, 2, encoder.backend))
    found = {"conv_input": x}
    for number, stage in enumerate(encoder.stages, start=1):
        if stage.down is not None:
            x = stage.down(x)
            found[f"conv{number}_down"] = x
        for block in stage.blocks:
            x = block(x)
        found[f"conv{number}"] = x
    found["extra_conv"] = encoder.squeeze(x)
    assert set(found) == set(meta["sparse_shapes"])
    for name, tensor in found.items():
        assert list(tensor.shape) == meta["sparse_shapes"][name]
        assert_sparse(tensor, arrays[f"stage/{name}/indices"], arrays[f"stage/{name}/features"], TOLERANCE)
    for ours, name in zip(encoder.sparse_stages(voxels), ("conv1", "conv2", "conv3", "conv4", "extra_conv"), strict=True):
        torch.testing.assert_close(ours.features, found[name].features, rtol=0, atol=0)
    assert_close(encoder(voxels), arrays["stage/bev"], TOLERANCE)


@torch.no_grad()
def test_maps_and_boxes(network, arrays, meta):
    maps = network(clouds_of(arrays))
    assert_close(maps.shared, arrays["stage/shared"], TOLERANCE)
    for number, task in enumerate(maps.tasks):
        assert_close(task.heatmap, arrays[f"head/{number}/hm"], TOLERANCE)
        for name, branch in zip(BRANCHES, task.boxes.split(list(BRANCHES.values()), dim=1), strict=True):
            assert_close(branch, arrays[f"head/{number}/{PUBLISHED[name]}"], TOLERANCE)
    for test in ("rotate", "circle"):
        boxes = build_decoder(settings_of(meta, test)).from_maps(maps)
        for sample in range(2):
            assert_boxes(boxes[sample], arrays, f"dec/{test}/{sample}", TOLERANCE)


def recipe_weights(shapes: dict[str, list[int]], seed: int) -> dict[str, torch.Tensor]:
    """The weights that meta.json describes in `full_width_recipe`."""
    state = {}
    for key, shape in shapes.items():
        rng = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
        if key.endswith("running_mean"):
            value = 0.1 * rng.standard_normal(shape)
        elif key.endswith("running_var"):
            value = rng.uniform(0.5, 1.5, shape)
        elif key.endswith("num_batches_tracked"):
            value = np.zeros(shape)
        elif len(shape) == 1:
            value = rng.uniform(0.6, 1.4, shape) if key.endswith("weight") else 0.1 * rng.standard_normal(shape)
        else:
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(value, np.float32))
    return state


@torch.no_grad()
@pytest.mark.parametrize("is_folded", [False, True])
def test_encoder_of_full_width(meta, is_folded):
    arrays = np.load(FOLDER / "full_width_backbone.npz")
    state = recipe_weights(json.loads((FOLDER / "full_width_keys.json").read_text()), meta["full_width_recipe"]["seed"])
    for key in arrays.files:
        if key.startswith("probe/"):
            np.testing.assert_array_equal(state[key.removeprefix("probe/")].numpy().ravel()[:8], arrays[key])
    nx, ny, nz = arrays["in/shape"].tolist()
    encoder = SparseEncoder(5, (nz, ny, nx)).eval()
    state = our_state({f"backbone.{key}": value for key, value in state.items()})
    encoder.load_state_dict({key.removeprefix("encoder."): value for key, value in state.items()}, strict=True)
    encoder = folded(encoder) if is_folded else encoder
    voxels = VoxelFeatures(
        torch.from_numpy(arrays["in/features"]), torch.from_numpy(arrays["in/coordinates"]), int(arrays["stage/bev_shape"][0])
    )
    for number, tensor in enumerate(encoder.sparse_stages(voxels)[:4], start=1):
        order = np.lexsort(tensor.coords.numpy().T[::-1])
        np.testing.assert_array_equal(tensor.coords.numpy()[order], arrays[f"stage/conv{number}/indices"])
        features = tensor.features[torch.from_numpy(order)].numpy()
        np.testing.assert_allclose(
            features[arrays[f"stage/conv{number}/sample_rows"]], arrays[f"stage/conv{number}/sample_features"], atol=TOLERANCE
        )
        sums = arrays[f"stage/conv{number}/feature_sum_per_channel_f64"]
        np.testing.assert_allclose(features.astype(np.float64).sum(axis=0), sums, rtol=1e-4, atol=1e-2)
    bev = encoder(voxels)
    assert list(bev.shape) == arrays["stage/bev_shape"].tolist()
    b, y, x = arrays["stage/bev_nonzero_byx"].astype(int).T
    np.testing.assert_allclose(bev.numpy()[b, :, y, x], arrays["stage/bev_at_nonzero"], atol=TOLERANCE)
    assert int((bev.abs().sum(dim=1) > 0).sum()) == len(b)
