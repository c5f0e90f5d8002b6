import json

import pytest
import torch

from perception.detection.build import build_network
from perception.detection.config import CenterPointSettings, load_detector_config
from perception.detection.det3d_names import our_name, our_state
from tests.conftest import SHARED

CONFIGS = {
    "nusc_centerpoint_pp_02voxel_two_pfn_10sweep": "centerpoint_pillar02",
    "nusc_centerpoint_voxelnet_0075voxel_fix_bn_z": "centerpoint_voxel0075",
    "nusc_centerpoint_voxelnet_01voxel": "centerpoint_voxel0100",
    "nusc_centerpoint_pp_fix_bn_z_scale_virtual": "centerpoint_pillar02_virtual",
    "nusc_centerpoint_voxelnet_0075voxel_fix_bn_z_scale_virtual": "centerpoint_voxel0075_virtual",
    "nusc_two_stage_base_with_virtual": "centerpoint_voxel0075_virtual",
}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("reader.pfn_layers.1.norm.running_var", "reader.net.layers.1.norm.running_var"),
        ("backbone.conv1.1.conv2.bias", "encoder.stages.0.blocks.1.second.conv.bias"),
        ("backbone.conv4.3.bn1.weight", "encoder.stages.3.blocks.0.first.norm.weight"),
        ("backbone.conv2.0.weight", "encoder.stages.1.down.conv.weight"),
        ("neck.blocks.0.1.weight", "neck.stages.0.0.conv.weight"),
        ("neck.blocks.2.17.bias", "neck.stages.2.5.norm.bias"),
        ("neck.deblocks.1.0.weight", "neck.ups.1.conv.weight"),
        ("bbox_head.tasks.5.hm.3.bias", "head.tasks.5.heatmap.out.bias"),
        ("single_det.bbox_head.tasks.0.rot.1.weight", "head.tasks.0.heading.hidden.norm.weight"),
        ("roi_head.reg_layers.5.weight", "second_stage.box.hidden.1.norm.weight"),
        ("something.else", None),
    ],
)
def test_names(theirs, ours):
    assert our_name(theirs) == ours


@pytest.mark.shared
@pytest.mark.parametrize(("published", "ours"), CONFIGS.items())
def test_every_published_name_is_one_of_ours(published, ours):
    keys = json.loads((SHARED / "fixtures" / "checkpoints" / f"det3d-{published}.json").read_text())["keys"]
    state = our_state({name: torch.empty(info["shape"], device="meta") for name, info in keys.items()})
    values = load_detector_config(ours).detector.model_dump() | ({"second_stage": {}} if "two_stage" in published else {})
    own = build_network(CenterPointSettings.model_validate(values)).state_dict()
    missing = {name for name in own if name not in state}
    # the first stage of a file of two is frozen, and its counters are not stored
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not missing or "two_stage" in published
    assert set(state) <= set(own)
    assert all(state[name].shape == own[name].shape for name in state)
