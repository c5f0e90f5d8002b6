"""Foreign weights into ours, and back by hand: each layout is written from one random network, independently of the converter's tables."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from perception.core.errors import CheckpointError
from perception.detection.build import build_network
from perception.detection.config import DetectorConfig
from tests.detection.checkpoints.files import (
    SPCONV1,
    SPCONV20,
    as_det3d,
    as_mmdet3d,
    as_openpcdet,
    as_two_stages,
    random_state,
    small_settings,
    with_older_names,
    with_sparse,
    without_hidden_biases,
)
from tests.detection.checkpoints.way import assert_equal, converted

VOXELS, PILLARS, TWO_STAGES = small_settings(), small_settings(voxels=False), small_settings(second_stage=True)
DEFORMABLE = small_settings(voxels=False, deformable={"offset_groups": 2})
DEFORMABLE_3 = small_settings(voxels=False, deformable={"groups": 3, "offset_groups": 1, "offset_kernel": 3, "relu": False})


def prefixed(state):
    return {f"module.{name}": value for name, value in state.items()}


def wrapped(state):
    return {"state_dict": state, "meta": {"epoch": 20}}


@pytest.mark.parametrize("settings", [VOXELS, PILLARS], ids=["voxels", "pillars"])
@pytest.mark.parametrize(
    ("write", "layout"),
    [
        pytest.param(as_det3d, "det3d", id="det3d"),
        pytest.param(lambda state: with_older_names(as_det3d(state)), "det3d", id="det3d, older names"),
        pytest.param(lambda state: with_sparse(as_det3d(state), SPCONV1), "det3d", id="det3d, spconv 1"),
        pytest.param(lambda state: with_sparse(as_det3d(state), SPCONV20), "det3d", id="det3d, spconv 2.0"),
        pytest.param(
            lambda state: prefixed(with_sparse(with_older_names(as_det3d(state)), SPCONV1)), "det3d", id="det3d, oldest, parallel"
        ),
        pytest.param(lambda state: wrapped(as_det3d(state)), "det3d", id="det3d, wrapped"),
        pytest.param(lambda state: {"model_state": as_openpcdet(as_det3d(state))}, "openpcdet", id="openpcdet"),
        pytest.param(lambda state: with_sparse(as_openpcdet(as_det3d(state)), SPCONV1), "openpcdet", id="openpcdet, spconv 1"),
    ],
)
def test_layouts_give_the_same_weights(settings, write, layout, tmp_path):
    state = random_state(settings)
    got, metadata = converted(tmp_path, settings, write(state))
    assert_equal(got, state)
    assert metadata.layout == layout


def test_deformable_heads_of_det3d(tmp_path):
    state = random_state(DEFORMABLE)
    foreign = as_det3d(state)
    assert foreign["bbox_head.tasks.1.feature_adapt_reg.conv_offset.weight"].shape == (36, 6, 1, 1)
    assert {"bbox_head.tasks.0.cls_head.1.bias", "bbox_head.tasks.1.task_head.rot.3.bias"} < set(foreign)
    got, _ = converted(tmp_path, DEFORMABLE, foreign)
    assert_equal(got, state)


@pytest.mark.parametrize("version", ["1.1.0", "0.17.1"])
def test_deformable_heads_of_mmdet3d(version, tmp_path):
    state = without_hidden_biases(random_state(DEFORMABLE_3))
    foreign = as_mmdet3d(as_det3d(state), old=version < "1")
    assert foreign["pts_bbox_head.task_heads.1.feature_adapt_cls.weight"].shape == (6, 2, 3, 3)
    assert foreign["pts_bbox_head.task_heads.1.feature_adapt_cls.conv_offset.bias"].shape == (18,)
    assert {"pts_bbox_head.task_heads.0.cls_head.0.bn.bias", "pts_bbox_head.task_heads.0.task_head.dim.1.bias"} < set(foreign)
    got, _ = converted(tmp_path, DEFORMABLE_3, {"state_dict": foreign, "meta": {"mmdet3d_version": version}})
    assert_equal(got, state)


@pytest.mark.parametrize("settings", [VOXELS, PILLARS], ids=["voxels", "pillars"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), SPCONV1], ids=["spconv 2", "mmcv"])
@pytest.mark.parametrize(
    ("meta", "asked", "is_old"),
    [
        pytest.param({"mmdet3d_version": "1.1.0"}, "auto", False, id="1.1"),
        pytest.param({"mmdet3d_version": "1.0.0rc4"}, "auto", False, id="1.0rc"),
        pytest.param({"mmengine_version": "0.7.0"}, "mmdet3d", False, id="mmengine"),
        pytest.param({"mmdet3d_version": "0.17.1"}, "auto", True, id="0.17"),
        pytest.param({"mmdet3d_version": "0.17.1"}, "mmdet3d", True, id="0.17, version not asked for"),
        pytest.param({}, "mmdet3d-0", True, id="old as asked"),
        pytest.param({}, "auto", False, id="silent"),
    ],
)
def test_mmdet3d_of_both_conventions_gives_the_same_weights(settings, order, meta, asked, is_old, tmp_path):
    state = without_hidden_biases(random_state(settings))
    foreign = {"state_dict": with_sparse(as_mmdet3d(as_det3d(state), old=is_old), order), "meta": meta}
    got, metadata = converted(tmp_path, settings, foreign, layout=asked)
    assert_equal(got, state)
    assert metadata.layout == ("mmdet3d-0" if is_old else "mmdet3d")
    num_hidden = 2 * 6 + 1 + (16 if "encoder_channels" in settings["detector"] else 0)
    assert f"{num_hidden} biases that the file lacks are zeros" in metadata.notes
    assert any("does not say its version" in note for note in metadata.notes) == (not meta and asked == "auto")


def without_counters(state):
    return {
        n: torch.zeros_like(v) if n.endswith("num_batches_tracked") and not n.startswith("second_stage.") else v for n, v in state.items()
    }


@pytest.mark.parametrize("prefix", [False, True])
def test_two_stages_come_together(prefix, tmp_path):
    state = without_counters(random_state(TWO_STAGES))
    foreign = as_two_stages(as_det3d(state))
    got, metadata = converted(tmp_path, TWO_STAGES, prefixed(foreign) if prefix else foreign)
    assert_equal(got, state)
    assert any("two stages; " in note for note in metadata.notes)


def test_safetensors_are_converted_too(tmp_path):
    state = random_state(PILLARS)
    save_file(as_openpcdet(as_det3d(state)), tmp_path / "in.safetensors")
    got, _ = converted(tmp_path, PILLARS, tmp_path / "in.safetensors")
    assert_equal(got, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, tmp_path):
    state = random_state(PILLARS)
    state = {name: value.to(dtype).float() if value.is_floating_point() else value for name, value in state.items()}
    foreign = {name: value.to(dtype) if value.is_floating_point() else value for name, value in as_det3d(state).items()}
    got, _ = converted(tmp_path, PILLARS, foreign)
    assert_equal(got, state)


def test_counters_that_a_file_lacks_are_zeros(tmp_path):
    state = random_state(VOXELS)
    foreign = {name: value for name, value in as_det3d(state).items() if not name.endswith("num_batches_tracked")}
    got, _ = converted(tmp_path, VOXELS, foreign)
    expected = {n: torch.zeros_like(v) if n.endswith("num_batches_tracked") else v for n, v in state.items()}
    assert_equal(got, expected)


# What heads mean, by each code base's own decoder: l, w and yaw (counter-clockwise, of the length axis).
def det3d_box(dim, rot):
    r = math.atan2(rot[0], rot[1])
    return math.exp(dim[1]), math.exp(dim[0]), -r - math.pi / 2


def openpcdet_box(dim, rot):
    return math.exp(dim[0]), math.exp(dim[1]), math.atan2(rot[1], rot[0])


def mmdet3d_box(dim, rot):
    return math.exp(dim[0]), math.exp(dim[1]), math.atan2(rot[0], rot[1])


@pytest.mark.parametrize(
    ("write", "box", "layout"),
    [
        pytest.param(as_openpcdet, openpcdet_box, "auto", id="openpcdet"),
        pytest.param(as_mmdet3d, mmdet3d_box, "auto", id="mmdet3d"),
        pytest.param(as_mmdet3d, det3d_box, "mmdet3d-0", id="mmdet3d before 1.0"),
    ],
)
def test_converted_heads_decode_to_the_same_box(write, box, layout, tmp_path):
    names = {"openpcdet": "dense_head.heads_list.1.{}.1.{}", "mmdet3d": "pts_bbox_head.task_heads.1.{}.1.{}"}[write.__name__[3:]]
    foreign = write(as_det3d(random_state(PILLARS, seed=3)))
    got, _ = converted(tmp_path, PILLARS, foreign, layout=layout)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        features = torch.randn((1, 3, 3, 3), generator=generator)

        def at_cell(state, name, branch, features=features):
            return F.conv2d(features, state[name.format(branch, "weight")], state[name.format(branch, "bias")]).flatten().tolist()

        theirs = box(at_cell(foreign, names, "dim"), at_cell(foreign, names, "rot"))
        ours = det3d_box(at_cell(got, "head.tasks.1.{}.out.{}", "log_size"), at_cell(got, "head.tasks.1.{}.out.{}", "heading"))
        assert ours[:2] == pytest.approx(theirs[:2], rel=1e-5)
        assert math.cos(ours[2] - theirs[2]) == pytest.approx(1, abs=1e-6)


def test_up_sampling_by_one_of_openpcdet_is_transposed_even_where_its_shape_is_square(tmp_path):
    settings = small_settings(voxels=False)
    settings["detector"]["neck"]["up_channels"] = [5, 11]  # 5 to 5: the shape is silent
    foreign = as_openpcdet(as_det3d(random_state(settings)))
    got, _ = converted(tmp_path, settings, foreign)
    x = torch.randn(1, 5, 4, 4)
    theirs = F.conv_transpose2d(x, foreign["backbone_2d.deblocks.0.0.weight"])
    torch.testing.assert_close(F.conv2d(x, got["neck.ups.0.conv.weight"]), theirs)


# Sparse weights whose layers have as many inputs as outputs: the shape is silent between spconv 1 and the native layout of 2.0.
SQUARE = small_settings(channels=(5, 5, 5, 5))


def test_spconv_is_asked_for_where_shapes_are_silent(tmp_path):
    state = random_state(SQUARE)
    foreign = with_sparse(as_det3d(state), SPCONV1)
    with pytest.raises(CheckpointError, match=r"cannot tell .* say which: --spconv 1 or --spconv 2"):
        converted(tmp_path, SQUARE, foreign)
    assert_equal(converted(tmp_path, SQUARE, foreign, spconv="1")[0], state)
    foreign = with_sparse(as_det3d(state), SPCONV20)
    assert_equal(converted(tmp_path, SQUARE, foreign, spconv="2")[0], state)
    assert_equal(converted(tmp_path, SQUARE, as_det3d(state))[0], state)  # the layout of 2.2 shows in any shape


def test_metadata_tell_where_the_numbers_come_from(tmp_path):
    import hashlib

    foreign = {
        "state_dict": with_sparse(as_det3d(random_state(VOXELS)), SPCONV1),
        "meta": {"epoch": 20},
        "optimizer": {"lr": np.float64(1)},
    }
    _, metadata = converted(tmp_path, VOXELS, foreign)
    assert metadata.source_sha256 == hashlib.sha256((tmp_path / "in.pth").read_bytes()).hexdigest()
    assert metadata.source_name == "in.pth"
    assert metadata.source_says == {"meta.epoch": "20"}
    assert metadata.sparse == "spconv 1 (kz, ky, kx, in, out)"
    assert "spconv 1 (kz, ky, kx, in, out): by the shape of backbone.conv_input.0.weight, [3, 3, 3, 5, 4]" in metadata.notes
    assert "not opened: numpy.dtype" in metadata.notes
    assert DetectorConfig.model_validate(metadata.config) == DetectorConfig.model_validate(VOXELS)
    assert json.dumps(metadata.config)
    assert str(tmp_path) not in str(metadata)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    foreign = as_openpcdet(as_det3d(random_state(VOXELS)))
    converted(tmp_path, VOXELS, foreign)
    first = (tmp_path / "out.safetensors").read_bytes()
    converted(tmp_path, VOXELS, foreign)
    assert (tmp_path / "out.safetensors").read_bytes() == first


def test_loaded_weights_are_taken_strictly_by_the_network(tmp_path):
    got, metadata = converted(tmp_path, VOXELS, as_det3d(random_state(VOXELS)))
    network = build_network(DetectorConfig.model_validate(metadata.config).detector)
    assert str(network.load_state_dict(got, strict=True)) == "<All keys matched successfully>"
