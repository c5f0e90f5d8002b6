"""Every published layout, full size, with random weights: names and shapes as the code bases' own modules have them."""

import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from perception.detection.build import build_network
from perception.detection.checkpoints import convert, load
from perception.detection.config import DetectorConfig, load_detector_config
from tests.conftest import SHARED
from tests.detection.checkpoints.files import SPCONV1, with_older_names, with_sparse, write_config, write_pth
from tests.detection.openpcdet_weights import recipe_state
from tests.detection.published import assert_close

pytestmark = pytest.mark.shared
FOLDER = SHARED / "fixtures" / "checkpoints"
# Configuration in the package; more than one where they are the same network with other readers without weights, or other decoding.
MODELS = {
    "det3d-nusc_centerpoint_pp_02voxel_two_pfn_10sweep": "centerpoint_pillar02",
    "det3d-nusc_centerpoint_pp_fix_bn_z_scale": "centerpoint_pillar02",
    "det3d-nusc_centerpoint_pp_fix_bn_z_scale_virtual": "centerpoint_pillar02_virtual",
    "det3d-nusc_centerpoint_voxelnet_0075voxel_dcn": "centerpoint_voxel0075_dcn",
    "det3d-nusc_centerpoint_voxelnet_0075voxel_fix_bn_z": "centerpoint_voxel0075",
    "det3d-nusc_centerpoint_voxelnet_0075voxel_fix_bn_z_scale": "centerpoint_voxel0075_dynamic",
    "det3d-nusc_centerpoint_voxelnet_0075voxel_fix_bn_z_scale_virtual": "centerpoint_voxel0075_virtual",
    "det3d-nusc_centerpoint_voxelnet_01voxel": "centerpoint_voxel0100",
    "det3d-nusc_two_stage_base_with_virtual": "centerpoint_voxel0075_virtual_two_stage",
    "det3d-waymo_centerpoint_voxelnet_two_stage_bev_5point_ft_6epoch_freeze": "centerpoint_waymo_voxel0100_two_stage",
    "openpcdet-cbgs_voxel0075_res3d_centerpoint": "centerpoint_voxel0075",
    "openpcdet-cbgs_voxel01_res3d_centerpoint": "centerpoint_voxel0100",
    "openpcdet-cbgs_dyn_pp_centerpoint": "centerpoint_pillar02_dynamic",
    "mmdet3d-centerpoint_voxel0075_second_secfpn": "centerpoint_voxel0075",
    "mmdet3d-centerpoint_voxel01_second_secfpn": "centerpoint_voxel0100",
    "mmdet3d-centerpoint_pillar02_second_secfpn": "centerpoint_pillar02_mmdet3d",
}
NO_BIAS = 53  # convolutions of mmdetection3d's voxel model without one, where the others have it


def keys_of(name: str) -> dict[str, list[int]]:
    keys = json.loads((FOLDER / f"{name}.json").read_text())["keys"]
    return {key: value["shape"] if isinstance(value, dict) else value for key, value in keys.items()}


def random_weights(keys: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Different numbers for each name; a name under `single_det.` and its copy have the same."""
    state = {}
    for key, shape in keys.items():
        generator = np.random.default_rng(zlib.crc32(key.removeprefix("single_det.").encode()))
        is_count = key.endswith("num_batches_tracked") or key == "global_step"
        state[key] = torch.full(shape, 5) if is_count else torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
    return state


def converted(state: dict[str, torch.Tensor], name: str, tmp_path: Any, **options: Any) -> tuple[dict[str, torch.Tensor], Any]:
    wrapper = {"det3d": "state_dict", "openpcdet": "model_state", "mmdet3d": "state_dict"}[name.split("-")[0]]
    source = write_pth(tmp_path / "in.pth", {wrapper: state})
    done = convert(source, tmp_path / "out.safetensors", config=MODELS[name], **options)
    return load(tmp_path / "out.safetensors")[0], done


def test_all_files_have_a_model():
    there = {path.stem for path in FOLDER.glob("*-*.json")} - {"key-maps"}
    assert there == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_every_name_finds_its_place(name, tmp_path):
    state = random_weights(keys_of(name))
    got, done = converted(state, name, tmp_path)
    config = DetectorConfig.model_validate(done.metadata.config)
    with torch.device("meta"):
        network = build_network(config.detector)
    network.load_state_dict(got, strict=True, assign=True)
    parameters = sum(value.numel() for value in network.parameters())
    assert done.num_parameters == parameters
    file = json.loads((FOLDER / f"{name}.json").read_text())
    stated = file["parameters"] + sum(
        int(np.prod(entry["shape"]))  # weights and biases of a frozen normalisation do not count as parameters there
        for key, entry in file["keys"].items()
        if key.startswith("single_det.") and key.endswith((".weight", ".bias")) and entry["kind"] == "buffer"
    )
    zeros = sum(value.numel() for key, value in got.items() if key.endswith("bias") and not value.any())
    assert parameters - zeros == stated
    if name.startswith("mmdet3d-centerpoint_voxel"):
        assert f"{NO_BIAS} biases that the file lacks are zeros" in done.metadata.notes
    # Each number of the file is in the result as often as in the file, up to its sign; counters and copies apart.
    kept = {key: value for key, value in state.items() if value.is_floating_point()}
    kept = {key: value for key, value in kept.items() if not (key.startswith("bbox_head.") and f"single_det.{key}" in kept)}
    theirs = np.sort(np.abs(np.concatenate([value.flatten() for value in kept.values()])))
    ours = np.concatenate([value.flatten() for value in got.values() if value.is_floating_point()])
    ours = np.sort(np.abs(ours))
    np.testing.assert_array_equal(ours[len(ours) - len(theirs) :], theirs)
    assert not ours[: len(ours) - len(theirs)].any()


@pytest.mark.parametrize("name", ["det3d-nusc_centerpoint_voxelnet_01voxel", "openpcdet-cbgs_voxel0075_res3d_centerpoint"])
def test_files_of_spconv_1_give_the_same(name, tmp_path):
    state = random_weights(keys_of(name))
    expected, _ = converted(state, name, tmp_path)
    older = with_sparse(state, SPCONV1)
    if name.startswith("det3d"):
        entries = json.loads((FOLDER / f"{name}.json").read_text())["keys"]
        stated = {key: entry["shape_spconv1"] for key, entry in entries.items() if "shape_spconv1" in entry}
        assert {key: list(older[key].shape) for key in stated} == stated
        older = {f"module.{key}": value for key, value in with_older_names(older).items()}
    got, done = converted(older, name, tmp_path)
    assert done.metadata.sparse.startswith("spconv 1 ")
    assert all(torch.equal(got[key], value) for key, value in expected.items())


@pytest.mark.parametrize("peer", ["openpcdet-cbgs_voxel0075_res3d_centerpoint", "mmdet3d-centerpoint_voxel0075_second_secfpn"])
def test_names_go_where_the_published_maps_say(peer, tmp_path):
    """The same numbers under a peer's name and under det3d's end at the same place, but where the meaning differs."""
    names = json.loads((FOLDER / "key-maps.json").read_text())[f"{peer.split('-')[0]}_voxel0075"]
    state = random_weights(keys_of(peer))
    got, _ = converted(state, peer, tmp_path)
    det3d = "det3d-nusc_centerpoint_voxelnet_0075voxel_fix_bn_z"
    under_det3d = {key: torch.zeros(shape) for key, shape in keys_of(det3d).items()}
    under_det3d |= {theirs: state[key].reshape(under_det3d[theirs].shape) for key, theirs in names.items()}
    counts = {key: value.long() for key, value in under_det3d.items() if key.endswith("num_batches_tracked")}
    expected, _ = converted(under_det3d | counts, det3d, tmp_path)
    other = {name for name in expected if not torch.equal(got[name], expected[name])}
    changed = {
        f"head.tasks.{task}.{branch}.out.{leaf}" for task in range(6) for branch in ("heading", "log_size") for leaf in ("weight", "bias")
    }
    assert other == changed | ({"neck.ups.0.conv.weight"} if peer.startswith("openpcdet") else set())


@pytest.mark.parametrize("name", ["cbgs_voxel0075_res3d_centerpoint", "cbgs_dyn_pp_centerpoint"])
@torch.no_grad()
def test_converted_openpcdet_weights_give_openpcdets_maps(name, tmp_path):
    """From a .pth file to the maps that OpenPCDet itself computed from the same weights."""
    folder = SHARED / "fixtures" / "openpcdet"
    arrays, meta = np.load(folder / f"{name}.npz"), json.loads((folder / "meta.json").read_text())[name]
    values = load_detector_config(MODELS[f"openpcdet-{name}"]).model_dump(mode="json")
    values["detector"]["grid"] = {"lower": meta["pc_range"][:3], "upper": meta["pc_range"][3:], "voxel_size": meta["voxel_size"]}
    recipe = json.loads((folder / "meta.json").read_text())["weights_recipe"]
    weights = recipe_state(keys_of(f"openpcdet-{name}"), recipe["seed"], meta["weight_multipliers"])
    weights = {key: value.long() if key.endswith("num_batches_tracked") else value for key, value in weights.items()}
    source = write_pth(tmp_path / "in.pth", {"model_state": weights, "epoch": 20})
    convert(source, tmp_path / "out.safetensors", config=write_config(tmp_path / "model.yaml", values))
    state, metadata = load(tmp_path / "out.safetensors")
    network = build_network(DetectorConfig.model_validate(metadata.config).detector).eval()
    network.load_state_dict(state, strict=True)
    maps = network([torch.from_numpy(arrays[f"points_{i}"]) for i in range(2)])
    for number, task in enumerate(maps.tasks):
        step = 1 if number in (0, 1, 5) else 4
        assert_close(task.heatmap[0], arrays[f"head{number}_hm"], 1e-3)
        offset, height, size, heading, velocity = task.boxes[0, :, ::step, ::step].split([2, 1, 3, 2, 2])
        ours = {"center": offset, "center_z": height, "dim": size[[1, 0, 2]], "rot": -heading, "vel": velocity}
        for branch, found in ours.items():
            assert_close(found, arrays[f"head{number}_{branch}"], 1e-3)
