"""Weights into a detector: files of ours made for its settings, and what does not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from perception.core.errors import CheckpointError, UsageError
from perception.detection import Detector, weights_beside
from perception.detection import config as config_module
from perception.detection.build import build_network
from perception.detection.checkpoints import Metadata, save
from perception.detection.config import DetectorConfig
from tests.detection.small import LIDAR_TO_EGO, cloud, livened, small_config


def state_of(config: DetectorConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return livened(build_network(config.detector).state_dict())


def changed(config: DetectorConfig, **changes: Any) -> DetectorConfig:
    """The settings with others in some sections: `reader__name="x"` changes one."""
    values = config.model_dump(mode="json")
    for name, value in changes.items():
        *sections, last = name.split("__")
        section = values["detector"]
        for key in sections:
            section = section[key]
        section[last] = value
    return DetectorConfig.model_validate(values)


def written(path: Path, config: DetectorConfig, values: dict[str, Any] | None = None) -> Path:
    metadata = Metadata(
        config=values or config.model_dump(mode="json"),
        config_name="mine.yaml",
        layout="det3d",
        convention="",
        sparse="none",
        notes=(),
        source_name="in.pth",
        source_sha256="",
        source_says={},
        converter="0",
    )
    save(path, state_of(config), metadata)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "small.safetensors", small_config())


def test_a_file_gives_what_its_tensors_give(file):
    config = small_config()
    first = Detector.from_config(config, weights=file).detect(cloud(), LIDAR_TO_EGO)
    second = Detector.from_config(config, weights=state_of(config)).detect(cloud(), LIDAR_TO_EGO)
    assert len(first) > 3
    np.testing.assert_array_equal(first.boxes.center, second.boxes.center)
    np.testing.assert_array_equal(first.score, second.score)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """Settings with weights beside them, under their name."""
    (tmp_path / "mine.yaml").write_text(json.dumps(small_config().model_dump(mode="json")))  # JSON is YAML
    written(tmp_path / "mine.safetensors", small_config())
    return tmp_path / "mine.yaml"


def test_weights_beside_the_settings_are_taken_without_being_named(beside):
    assert weights_beside(beside) == beside.with_suffix(".safetensors")
    found, expected = (Detector.from_config(beside, weights=weights) for weights in (None, beside.with_suffix(".safetensors")))
    np.testing.assert_array_equal(found.detect(cloud(), LIDAR_TO_EGO).score, expected.detect(cloud(), LIDAR_TO_EGO).score)
    random = Detector.from_config(beside, seed=0).detect(cloud(), LIDAR_TO_EGO)  # a seed is a wish for others
    assert len(random) != len(found.detect(cloud(), LIDAR_TO_EGO))


def test_weights_of_a_model_that_comes_with_the_package_are_found_by_its_name(beside, monkeypatch):
    monkeypatch.setattr(config_module, "shipped_config", lambda name: beside.parent / name)
    assert weights_beside("mine") == beside.with_suffix(".safetensors")
    assert Detector.from_config("mine").config == small_config().detector
    assert weights_beside("other") is None


def test_where_no_weights_lie_beside_the_settings_the_message_says_what_to_give(beside):
    beside.with_suffix(".safetensors").unlink()
    assert weights_beside(beside) is None
    with pytest.raises(UsageError, match="expected either weights or a seed .* got neither; a file .safetensors beside the settings"):
        Detector.from_config(beside)
    with pytest.raises(UsageError, match="got neither"):
        Detector.from_config(small_config())  # settings without a file have no neighbours


@pytest.mark.parametrize(
    "changes",
    [
        {"sweeps": 3},
        {"decode__score_threshold": 0.3},
        {"decode__double_flip": True},
        {"decode__nms": {"name": "circle", "squared_radius": [1.0, 2.0, 3.0]}},
        {"reader__limit__max_voxels": 10, "reader__limit__max_voxels_training": 10},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_weights_do_not_depend_on_may_differ(file, changes):
    Detector.from_config(changed(small_config(), **changes), weights=file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # the same shapes, another network
        (
            {"grid__voxel_size": [0.8, 0.8, 8.0]},
            "expected weights for grid.voxel_size [0.8, 0.8, 8.0], got ones for [0.4, 0.4, 8.0]; the file was made for",
        ),
        (
            {"grid__lower": [-25.6, -25.6, -5], "grid__upper": [25.6, 25.6, 3]},
            "for grid.lower [-25.6, -25.6, -5.0], got ones for [-12.8, -12.8, -5.0]",
        ),
        ({"frame": "ego"}, "for frame ego, got ones for nuscenes_lidar"),
        ({"points": "waymo"}, "for points waymo, got ones for nuscenes"),
        ({"reader__limit__max_points": 7}, "for reader.limit.max_points 7, got ones for 5"),
        ({"head__tasks": [["pedestrian"], ["truck", "construction_vehicle"], ["car"]]}, "for head.tasks [['pedestrian'], ['truck'"),
        (
            {"neck__strides": [2, 1], "neck__up_strides": [1, 1]},
            "for neck.strides [2, 1], got ones for [1, 2]; neck.up_strides [1.0, 1.0], got",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_they_depend_on_is_told_in_one_line(file, changes, message):
    with pytest.raises(CheckpointError) as error:
        Detector.from_config(changed(small_config(), **changes), weights=file)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_other_readers_are_told_with_an_end(file):
    config = changed(small_config(), reader={"name": "dynamic_pillar", "channels": [8, 8]}, frame="ego", points="waymo")
    with pytest.raises(
        CheckpointError, match=r"for frame ego.*; points waymo.*; reader.name dynamic_pillar.*; and 3 more differ; the file"
    ):
        Detector.from_config(config, weights=file)


def test_settings_of_another_version_are_told(tmp_path):
    values = small_config().model_dump(mode="json")
    values["detector"]["reader"]["colour"] = "red"
    path = written(tmp_path / "other.safetensors", small_config(), values)
    with pytest.raises(
        CheckpointError, match=r"settings in its metadata are not those of this version \(detector.reader.*colour\); convert it"
    ):
        Detector.from_config(small_config(), weights=path)


def test_settings_that_came_later_have_their_defaults(tmp_path):
    """A file from before deformable heads and other points is one without."""
    values = small_config().model_dump(mode="json")
    del values["detector"]["points"], values["detector"]["head"]["deformable"], values["detector"]["reader"]["z_offset"]
    Detector.from_config(small_config(), weights=written(tmp_path / "older.safetensors", small_config(), values))


def test_tensors_that_do_not_fit_are_listed():
    wrong = state_of(small_config())
    wrong["head.mine"] = wrong.pop("head.shared.conv.bias")
    wrong["neck.ups.0.conv.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"missing head.shared.conv.bias\n  unexpected head.mine\n  neck.ups.0.conv.weight: expected"):
        Detector.from_config(small_config(), weights=wrong)


def test_files_that_are_none_of_ours(file, tmp_path):
    save_file(state_of(small_config()), tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match=r"plain.safetensors: expected a weight file of perception, got another one; convert it"):
        Detector.from_config(small_config(), weights=tmp_path / "plain.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"small.safetensors: expected a complete .safetensors file"):
        Detector.from_config(small_config(), weights=file)
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors: expected a weight file, got No such file"):
        Detector.from_config(small_config(), weights=str(tmp_path / "nothing.safetensors"))
