"""What does not fit is told, all of it, and nothing is written."""

import math

import pytest
import torch

from perception.core.errors import CheckpointError, UsageError
from perception.detection.build import build_network
from perception.detection.checkpoints import convert
from perception.detection.config import DetectorConfig
from tests.detection.checkpoints.files import (
    SPCONV1,
    as_det3d,
    as_mmdet3d,
    as_openpcdet,
    as_two_stages,
    random_state,
    small_settings,
    with_sparse,
    without_hidden_biases,
    write_pth,
)
from tests.detection.checkpoints.way import converted

VOXELS, PILLARS, TWO_STAGES = small_settings(), small_settings(voxels=False), small_settings(second_stage=True)


def test_a_second_copy_of_the_head_that_differs_is_an_error(tmp_path):
    foreign = as_two_stages(as_det3d(random_state(TWO_STAGES)))
    foreign["bbox_head.shared_conv.0.weight"] = foreign["bbox_head.shared_conv.0.weight"] + 1
    with pytest.raises(CheckpointError, match=r"bbox_head.shared_conv.0.weight to be one tensor, got two"):
        converted(tmp_path, TWO_STAGES, foreign)


def test_everything_that_does_not_fit_is_told_at_once_and_nothing_is_written(tmp_path):
    foreign = as_det3d(random_state(VOXELS))
    del foreign["backbone.conv2.0.weight"], foreign["neck.blocks.1.4.weight"], foreign["neck.blocks.1.7.weight"]
    foreign["bbox_head.tasks.0.iou.0.weight"] = torch.ones(1)
    foreign["extra.thing"] = torch.ones(1)
    foreign["bbox_head.tasks.0.hm.3.bias"] = torch.ones(5)
    foreign["neck.deblocks.0.1.running_var"][2] = math.nan
    with pytest.raises(CheckpointError) as error:
        converted(tmp_path, VOXELS, foreign)
    text = str(error.value)
    assert "3 missing, 2 unexpected, 1 of wrong shape, 1 not finite or doubled" in text
    assert "  missing: encoder.stages.1.down.conv.weight\n" in text
    assert "  missing: neck.stages.*.*.conv (2)\n" in text
    assert "  unexpected: bbox_head.tasks.0.iou.0.weight\n" in text
    assert "  unexpected: extra.thing\n" in text
    assert "bbox_head.tasks.0.hm.3.bias: expected [1], got [5]" in text
    assert "neck.deblocks.0.1.running_var: not finite" in text
    assert not (tmp_path / "out.safetensors").exists()


def test_a_list_of_faults_has_an_end(tmp_path):
    foreign = as_det3d(random_state(PILLARS)) | {f"neck.odd{i}.x{i}y": torch.ones(1) for i in range(500)}
    with pytest.raises(CheckpointError, match=r"\.\.\. and 488 more groups of names") as error:
        converted(tmp_path, PILLARS, foreign)
    assert len(str(error.value).splitlines()) < 20


def test_a_deformable_head_on_one_side_only_is_named(tmp_path):
    plain, deformable = small_settings(voxels=False), small_settings(voxels=False, deformable={"offset_groups": 2})
    with pytest.raises(CheckpointError, match=r"the file has a deformable head \(DCN\), the network has none"):
        converted(tmp_path, plain, as_det3d(random_state(deformable)))
    with pytest.raises(CheckpointError, match=r"the network has a deformable head \(DCN\), the file has none"):
        converted(tmp_path, deformable, as_det3d(random_state(plain)))


def test_a_reader_that_the_code_base_has_not_is_an_error(tmp_path):
    """mmdetection3d's pillars of first points have names and shapes of dynamic ones, and compute something else."""
    hard, dynamic = small_settings(voxels=False), small_settings(voxels=False)
    hard["detector"]["reader"] |= {"channels": [8], "z_offset": True}
    dynamic["detector"]["reader"] = {"name": "dynamic_pillar", "channels": [8]}
    foreign = as_mmdet3d(as_det3d(without_hidden_biases(random_state(hard))))
    converted(tmp_path, hard, foreign)
    with pytest.raises(CheckpointError, match=r"in.pth: expected a reader that mmdet3d has, got dynamic_pillar"):
        converted(tmp_path, dynamic, foreign)


def test_two_names_of_one_tensor_are_an_error(tmp_path):
    foreign = as_det3d(random_state(VOXELS))
    foreign["backbone.middle_conv.0.weight"] = foreign["backbone.conv_input.0.weight"]
    with pytest.raises(CheckpointError, match=r"middle_conv.0.weight: backbone.conv_input.0.weight has the same meaning"):
        converted(tmp_path, VOXELS, foreign)


def test_another_width_is_told_by_shapes(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"of wrong shape: backbone.conv_input.0.weight: expected \[4, 3, 3, 3, 5\], got \[3, 3, 3, 3, 5\]"
    ):
        converted(tmp_path, VOXELS, as_det3d(random_state(small_settings(channels=(3, 6, 7, 8)))))


@pytest.mark.parametrize("layout", ["det3d", "openpcdet"])
def test_a_layout_that_is_not_the_files_is_an_error(layout, tmp_path):
    with pytest.raises(CheckpointError, match=f"expected the names of {layout}, got those of mmdet3d"):
        converted(tmp_path, PILLARS, as_mmdet3d(as_det3d(random_state(PILLARS))), layout=layout)


def test_names_of_no_layout_and_of_two_are_errors(tmp_path):
    with pytest.raises(CheckpointError, match="got none of them; first names"):
        converted(tmp_path, PILLARS, {"conv1.weight": torch.ones(1)})
    det3d = as_det3d(random_state(PILLARS))
    with pytest.raises(CheckpointError, match="got det3d and openpcdet"):
        converted(tmp_path, PILLARS, det3d | as_openpcdet(det3d))


def test_wrong_options_are_told(tmp_path):
    foreign = as_det3d(random_state(VOXELS))
    with pytest.raises(UsageError, match=r"--layout: expected one of auto, det3d, .* got 'openpcd'; did you mean 'openpcdet'"):
        converted(tmp_path, VOXELS, foreign, layout="openpcd")
    with pytest.raises(UsageError, match="--spconv: expected one of auto, 1, 2, got '3'"):
        converted(tmp_path, VOXELS, foreign, spconv="3")
    with pytest.raises(UsageError, match=r"ends in .safetensors"):
        convert(tmp_path / "in.pth", tmp_path / "out.pth", config="x")


def test_spconv_against_the_shapes_is_an_error(tmp_path):
    foreign = with_sparse(as_det3d(random_state(VOXELS)), SPCONV1)
    with pytest.raises(CheckpointError, match=r"expected sparse weights of spconv 2 \(--spconv\), got the shapes of spconv 1"):
        converted(tmp_path, VOXELS, foreign, spconv="2")


def test_without_a_config_those_that_fit_are_named(tmp_path):
    with torch.device("meta"):
        network = build_network(_shipped("centerpoint_voxel0075").detector)
    state = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in network.state_dict().items()}
    path = write_pth(tmp_path / "in.pth", as_det3d(state))
    with pytest.raises(UsageError, match=r"of the models in the package centerpoint_voxel0075, .*, centerpoint_voxel0100 fit"):
        convert(path, tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match=r"its shapes are those of --config centerpoint_voxel0075 or .* or centerpoint_voxel0100"):
        convert(path, tmp_path / "out.safetensors", config="centerpoint_pillar02")
    assert convert(path, tmp_path / "out.safetensors", config="centerpoint_voxel0100").metadata.config_name == "centerpoint_voxel0100"


def test_without_a_config_a_file_of_something_else_is_told_so(tmp_path):
    with pytest.raises(CheckpointError, match="got none of them; first names"):
        convert(write_pth(tmp_path / "in.pth", {"conv1.weight": torch.ones(1)}), tmp_path / "out.safetensors")


def test_without_a_config_a_small_model_fits_none(tmp_path):
    with pytest.raises(UsageError, match="no model in the package fits its shapes: write one"):
        convert(write_pth(tmp_path / "in.pth", as_det3d(random_state(PILLARS))), tmp_path / "out.safetensors")


def _shipped(name: str) -> DetectorConfig:
    from perception.detection.config import load_detector_config

    return load_detector_config(name)
