"""The file of a training: which detector, on what data, how changed, judged by which losses, for how long."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, Field, model_validator

from perception.core.config import load_config, parse_config, shipped_config
from perception.core.errors import UsageError, shown
from perception.detection.config import CenterPointSettings, load_detector_config
from perception.training.augment_settings import AugmentSettings
from perception.training.data_settings import DataSettings, SimulationSettings
from perception.training.loop_settings import LoopSettings
from perception.training.loss_settings import LossSettings


def _detector(value: Any) -> Any:
    """The settings behind a name or a path."""
    return load_detector_config(value).detector if isinstance(value, str) else value


class TrainingConfig(BaseModel, frozen=True, extra="forbid"):
    """All that decides what comes out of a training."""

    detector: Annotated[CenterPointSettings, BeforeValidator(_detector)] = Field(
        description="its settings, their file, or the name of one that comes with the package"
    )
    data: DataSettings
    augment: AugmentSettings = Field(default_factory=lambda: AugmentSettings.model_validate({}))
    loss: LossSettings = LossSettings()
    loop: LoopSettings = Field(default_factory=lambda: LoopSettings.model_validate({}))

    @model_validator(mode="after")
    def _has_an_end(self) -> "TrainingConfig":
        source = getattr(self.data, "source", None)
        if self.loop.epochs is not None and isinstance(source, SimulationSettings):
            raise ValueError(f"loop.epochs: expected loop.steps or loop.minutes with streets that never end, got {self.loop.epochs} epochs")
        return self


class _WithoutData(TrainingConfig, frozen=True, extra="forbid"):
    """As it may stand in a file: the command line says where the samples are."""

    data: DataSettings | None = None  # pyright: ignore[reportIncompatibleVariableOverride]


def load_training_config(
    path: Path | str,
    *,
    data: Path | None = None,
    version: str | None = None,
    splits: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> TrainingConfig:
    """The configuration in a YAML file, or in the one of this name that comes with the package ("train_compact").

    data     a folder of drives or of clips, `version` and `splits` of it, in place of the file's source
    changes  "key=value" in place of what the file says: the key dotted (loop.batch_size=8), the value YAML
    Raises UsageError for a missing or broken file and for every key and value that does not fit.
    """
    path = Path(path)
    if not path.suffix and not path.exists() and (shipped := shipped_config(f"{path}.yaml")).is_file():
        path = shipped
    config = load_config(path, _WithoutData)
    settings = config.data
    if data is not None:
        settings = settings or DataSettings.model_validate({"source": {"name": "clips", "folder": data}})
        settings = settings.reading(data, version=version, splits=tuple(splits))
    elif version is not None or splits:
        given = ([] if version is None else [f"--version {version}"]) + [f"--split {split}" for split in splits]
        raise UsageError(f"{' '.join(given)}: expected --data beside it, got none")
    values = config.model_dump(mode="json") | {"data": None if settings is None else settings.model_dump(mode="json")}
    for change in changes:
        _change(values, change)
    if values["data"] is None:
        raise UsageError(f"{path}: data: expected where the samples come from, got nothing; give --data ROOT")
    return parse_config(values, TrainingConfig, where=f"{path} with {', '.join(changes)}" if changes else str(path))


def _change(values: dict[str, Any], change: str) -> None:
    """Set what "key=value" says. Keys that do not exist are made, for the model to refuse."""
    key, equals, text = change.partition("=")
    if not equals or not all(key.split(".")):
        raise UsageError(f"--set {change}: expected key=value, as in loop.batch_size=8")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UsageError(f"--set {change}: expected a value in YAML behind the =, got {shown(text)}") from None
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise UsageError(f"--set {change}: expected keys below {parent}, got {shown(values)}")
    values[last] = value
