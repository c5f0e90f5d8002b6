from pathlib import Path

import pytest

from perception.core.errors import UsageError
from perception.detection.config import load_detector_config
from perception.training.config import TrainingConfig, load_training_config
from perception.training.data_settings import ClipsSettings, DrivesSettings

TEXT = "detector: compact\nloop: {steps: 5, batch_size: 2}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(TEXT)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/clip-000000.npz").write_bytes(b"")
    return tmp_path / "small.yaml"


def test_the_detector_is_a_name_a_path_or_its_settings(file):
    expected = load_detector_config("compact").detector
    config = load_training_config(file, data=file.parent / "clips")
    assert config.detector == expected
    assert isinstance(config.data.source, ClipsSettings)
    assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config  # what is written beside the weights can be read


def test_data_of_the_command_line_is_a_folder_of_drives_too(file):
    config = load_training_config(file, data=file.parent, splits=("train", "val"))
    assert isinstance(config.data.source, DrivesSettings)
    assert config.data.source.folders[0].splits == ("train", "val")


def test_the_shipped_configuration_loads_by_its_name():
    assert load_training_config("train_compact").detector.frame == "ego"


def test_single_values_may_be_changed(file):
    changes = ["loop.batch_size=8", "loop.optimizer.peak_rate=2e-3", "augment.bank={file: b.safetensors, counts: {car: 2}}"]
    config = load_training_config(file, data=file.parent / "clips", changes=[*changes, "augment.bank.rate=0.5"])
    assert (config.loop.batch_size, config.loop.optimizer.peak_rate, config.loop.steps) == (8, 2e-3, 5)
    assert config.augment.bank is not None
    assert (config.augment.bank.rate, config.augment.bank.counts) == (0.5, {"car": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param("loop.batch_siez=8", "loop.batch_siez: unknown key.*did you mean 'batch_size'", id="unknown key"),
        pytest.param("loop.batch_size=none", "loop.batch_size: Input should be a valid integer", id="wrong value"),
        pytest.param("loop.batch_size", "expected key=value", id="no value"),
        pytest.param("loop..steps=1", "expected key=value", id="empty key"),
        pytest.param("loop.steps.more=1", "expected keys below steps, got 5", id="below a number"),
        pytest.param("loop.steps=[1", "expected a value in YAML", id="broken YAML"),
        pytest.param("loop.epochs=3", "expected steps or epochs, got 5 steps and 3", id="two ends"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(file, change, message):
    with pytest.raises(UsageError, match=message):
        load_training_config(file, data=file.parent / "clips", changes=[change])


def test_samples_must_come_from_somewhere(file):
    with pytest.raises(UsageError, match="data: expected where the samples come from, got nothing; give --data ROOT"):
        load_training_config(file)
    with pytest.raises(UsageError, match=r"^--split train --split val: expected --data beside it"):
        load_training_config(file, splits=("train", "val"))
    with pytest.raises(UsageError, match=r"^--version v1\.0-mini: expected --data beside it"):
        load_training_config(file, version="v1.0-mini")


def test_streets_that_never_end_have_no_epochs():
    with pytest.raises(
        UsageError, match=r"loop\.epochs: expected loop\.steps or loop\.minutes with streets that never end, got 3\.0 epochs"
    ):
        load_training_config("train_compact", changes=["loop.epochs=3"])


def test_a_detector_that_is_not_there_is_told(tmp_path):
    (tmp_path / "small.yaml").write_text("detector: compakt\n")
    with pytest.raises(UsageError, match="compakt: expected a configuration file"):
        load_training_config(tmp_path / "small.yaml", data=tmp_path)
