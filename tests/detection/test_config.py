import pytest
from pydantic import ValidationError

from perception.core.errors import UsageError
from perception.detection.config import CenterPointSettings, load_detector_config
from tests.detection.small import small_config

PARAMETERS = {
    "centerpoint_pillar02": 5_988_998,
    "centerpoint_voxel0100": 8_941_590,
    "centerpoint_voxel0075": 8_941_590,
    "centerpoint_pillar02_virtual": 5_989_350,
    "centerpoint_voxel0075_virtual": 8_948_502,
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_shipped_networks_have_the_published_number_of_parameters(name, count):
    from perception.detection.build import build_network

    network = build_network(load_detector_config(name).detector)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_a_second_stage_has_the_published_number_of_parameters():
    from perception.detection.build import build_network

    values = load_detector_config("centerpoint_voxel0075_virtual").detector.model_dump() | {"second_stage": {}}
    network = build_network(CenterPointSettings.model_validate(values))
    assert sum(parameter.numel() for parameter in network.second_stage.parameters()) == 417_802


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
        ({"encoder_channels": [1, 2, 3, 4]}, "expected no encoder_channels with pillars"),
        ({"decode": {"nms": {"name": "circle", "squared_radius": [1.0]}}}, "expected one a task, 3, got 1"),
    ],
)
def test_relations_between_settings_are_checked(change, message):
    values = small_config().detector.model_dump()
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(values[key], dict) else value
    with pytest.raises(ValidationError, match=message):
        CenterPointSettings.model_validate(values)
