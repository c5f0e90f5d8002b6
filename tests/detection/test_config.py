import pytest
from pydantic import ValidationError

from perception.core.errors import UsageError
from perception.detection.config import CenterPointSettings, load_detector_config, weights_beside
from tests.detection.small import small_config

_VOXEL, _VIRTUAL, _SECOND = 8_941_590, 8_948_502, 417_802
_DCN = 12 * (64 * 72 + 72 + 64 * 64 * 9)  # offsets and kernel
_DCN_OF_MMDET3D = 12 * (64 * 18 * 9 + 18 + 64 * 16 * 9)
_WAYMO = 2_695_312 + 4_576_768 + 295_104 + 191_627  # encoder and neck as published for nuScenes, shared convolution, five branches
PARAMETERS = {
    "centerpoint_pillar02": 5_988_998,
    "centerpoint_pillar02_circle": 5_988_998,
    "centerpoint_pillar02_dynamic": 5_989_030,
    "centerpoint_pillar02_mmdet3d": 5_982_854 + 37 * 64,  # it has no biases before normalisations of the head
    "centerpoint_pillar02_virtual": 5_989_350,
    "centerpoint_voxel0075": _VOXEL,
    "centerpoint_voxel0075_dcn": _VOXEL + _DCN,
    "centerpoint_voxel0075_dcn_flip": 9_440_118,
    "centerpoint_voxel0075_dcn_mmdet3d": _VOXEL + _DCN_OF_MMDET3D,
    "centerpoint_voxel0075_dynamic": _VOXEL,
    "centerpoint_voxel0075_flip": _VOXEL,
    "centerpoint_voxel0075_virtual": _VIRTUAL,
    "centerpoint_voxel0075_virtual_two_stage": _VIRTUAL + _SECOND,
    "centerpoint_voxel0100": _VOXEL,
    "centerpoint_waymo_voxel0100": _WAYMO,
    "centerpoint_waymo_voxel0100_two_stage": _WAYMO + 2560 * 256 - 330 * 256 + _SECOND - 2 * 257,  # 512 channels, no velocity
}
# The same network with another reader without weights or other decoding: these are all that differs.
VARIANTS = {
    ("centerpoint_pillar02", "centerpoint_pillar02_circle"): {"decode.nms"},
    ("centerpoint_pillar02", "centerpoint_pillar02_dynamic"): {"reader"},
    ("centerpoint_pillar02", "centerpoint_pillar02_mmdet3d"): {"reader"},
    ("centerpoint_voxel0075", "centerpoint_voxel0075_dcn"): {"head.deformable"},
    ("centerpoint_voxel0075", "centerpoint_voxel0075_dcn_mmdet3d"): {"head.deformable", "reader"},
    ("centerpoint_voxel0075", "centerpoint_voxel0075_dynamic"): {"reader"},
    ("centerpoint_voxel0075", "centerpoint_voxel0075_flip"): {"decode.double_flip"},
    ("centerpoint_voxel0075_dcn", "centerpoint_voxel0075_dcn_flip"): {"decode.double_flip"},
    ("centerpoint_voxel0075_dynamic", "centerpoint_voxel0075_virtual"): {"reader"},
    ("centerpoint_voxel0075_virtual", "centerpoint_voxel0075_virtual_two_stage"): {"second_stage"},
    ("centerpoint_waymo_voxel0100", "centerpoint_waymo_voxel0100_two_stage"): {"second_stage"},
}


def test_all_shipped_files_are_here():
    folder = load_detector_config.__globals__["shipped_config"]("centerpoint_pillar02.yaml").parent
    assert {path.stem for path in folder.glob("centerpoint_*.yaml")} == set(PARAMETERS)


@pytest.mark.parametrize(("pair", "sections"), VARIANTS.items(), ids=lambda value: value[1] if isinstance(value, tuple) else "")
def test_variants_differ_in_what_they_say(pair, sections):
    first, second = (load_detector_config(name).detector.model_dump() for name in pair)
    found = set()
    for name, value in first.items():
        if value != second[name]:
            nested = name in ("decode", "head")
            found |= {f"{name}.{key}" for key in value if value[key] != second[name][key]} if nested else {name}
    assert found == sections


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_shipped_networks_have_the_published_number_of_parameters(name, count):
    import torch

    from perception.detection.build import build_network

    with torch.device("meta"):
        network = build_network(load_detector_config(name).detector)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_the_compact_network_is_compact():
    import torch

    from perception.detection.build import build_network, grid_of

    settings = load_detector_config("compact").detector
    with torch.device("meta"):
        network = build_network(settings)
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 6e6  # bytes of half floats, as they are stored
    weights = weights_beside("compact")
    assert weights is not None
    assert weights.stat().st_size < 6e6
    assert max(grid_of(settings).cell_size) <= 0.6  # metres: of the maps, for people who walk side by side


def test_a_file_is_read_and_its_faults_are_named(tmp_path):
    text = (load_detector_config.__globals__["shipped_config"]("centerpoint_pillar02.yaml")).read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert load_detector_config(path) == load_detector_config("centerpoint_pillar02")
    path.write_text(text.replace("score_threshold", "score_treshold"))
    with pytest.raises(UsageError, match=r"mine.yaml: detector.decode.score_treshold: unknown key.*did you mean 'score_threshold'"):
        load_detector_config(path)
    path.write_text(text.replace("name: pillar", "name: pillars"))
    with pytest.raises(UsageError, match=r"detector.reader"):
        load_detector_config(path)
    with pytest.raises(UsageError, match="expected a configuration file"):
        load_detector_config("no_such_model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neck": {"up_strides": [1, 1]}}, "expected outputs of one size"),
        ({"neck": {"layers": [1]}}, "expected one entry a stage"),
        ({"neck": {"up_strides": [1, 3]}}, "expected 0.25, 0.5, 1, 2 or 4"),
        ({"head": {"tasks": [["car"], ["car"]]}}, "expected each class once, got car twice"),
        ({"head": {"deformable": {"offset_groups": 3}}}, "deformable.offset_groups: expected a divisor of shared_channels, 8, got 3"),
        ({"encoder_channels": [1, 2, 3, 4]}, "expected no encoder_channels with pillars"),
        ({"decode": {"nms": {"name": "circle", "squared_radius": [1.0]}}}, "expected one a task, 3, got 1"),
        ({"decode": {"iou_alpha": {"bus": 0.5}}, "head": {"iou": True}}, "iou_alpha: expected classes of head.tasks, car, .*, got bus"),
        (
            {"grid": {"upper": [6.4, 12.8, 3]}, "decode": {"double_flip": True}},
            "double_flip: expected a grid that mirroring leaves in place",
        ),
        ({"decode": {"iou_alpha": {"car": 0.5}}}, "iou_alpha: expected head.iou: true beside it"),
        ({"decode": {"groups": [["car"], ["bus"]]}}, "decode.groups: expected each class of head.tasks once, .*, got bus, car"),
        ({"head": {"tasks": [["car"], ["bus"]]}, "decode": {"groups": [["car", "bus"]]}}, r"one task of head.tasks, got \[car, bus\]"),
    ],
)
def test_relations_between_settings_are_checked(change, message):
    assert_refused(small_config().detector.model_dump(), change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neck": {"layers": [1]}}, "expected one entry a stage"),
        ({"neck": {"channels": [], "layers": [], "up_channels": []}}, "expected one entry a stage in each list, at least one"),
        ({"encoder": {"layers": [1]}}, "expected one entry a stage"),
        ({"reader": {"directions": 7}}, "multiple of 2"),
        ({"reader": {"bands": {"lower": 2, "upper": 1, "count": 3}}}, "upper: expected a height above lower, 2, got 1"),
        ({"points": "waymo"}, "expected nuscenes with the reader pillar_summary, .* got waymo"),
        ({"neck": {"name": "pyramids"}}, "pyramids"),
    ],
)
def test_relations_between_settings_of_sparse_pillars_are_checked(change, message):
    assert_refused(small_config("summary").detector.model_dump(), change, message)


def test_sparse_pillars_need_pillars():
    change = {"encoder": {"name": "sparse_pillar", "channels": [8], "layers": [1]}}
    assert_refused(small_config("voxel").detector.model_dump(), change, "encoder: expected none with a reader of voxels")


def test_a_grid_that_the_strides_do_not_divide_is_refused():
    from perception.detection.build import build_network, grid_of

    settings = small_config("summary").detector  # 64 pillars; encoder 2, two stages of the neck: 8
    assert (grid_of(settings).stride, grid_of(settings).divisor) == (2, 8)
    upper = settings.grid.model_copy(update={"upper": (14.4, 12.8, 3)})  # 68 pillars
    with pytest.raises(UsageError, match=r"expected a multiple of 8 voxels along x .* got 68"):
        build_network(settings.model_copy(update={"grid": upper}))


def assert_refused(values, change, message):
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(values[key], dict) else value
    with pytest.raises(ValidationError, match=message):
        CenterPointSettings.model_validate(values)
