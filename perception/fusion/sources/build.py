"""Settings of a source of instances, and sources by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Tag

from perception.core.config import load_config, parse_config
from perception.core.errors import UsageError, nearest_hint
from perception.fusion.fused_cloud import VirtualPointsSettings
from perception.fusion.sources.detectron2 import Detectron2Instances, Detectron2Settings
from perception.fusion.sources.file import FileInstances, FileSettings
from perception.fusion.sources.simulated import SimulatedInstances, SimulatedSettings
from perception.fusion.sources.source import InstanceSource
from perception.fusion.sources.torchvision import TorchvisionInstances, TorchvisionSettings

INSTANCE_SOURCES: dict[str, Callable[[Any], InstanceSource]] = {
    "file": FileInstances,
    "simulated": SimulatedInstances,
    "torchvision": TorchvisionInstances,
    "detectron2": Detectron2Instances,
}
_FIRST = {"file": "path", "simulated": "path", "torchvision": "weights", "detectron2": "config"}  # what NAME:TEXT says


def _name(value: Any) -> Any:
    return value.get("name") if isinstance(value, dict) else getattr(value, "name", None)


class InstancesConfig(BaseModel, frozen=True, extra="forbid"):
    """Where instances come from, and how they become virtual points."""

    instances: Annotated[
        Annotated[FileSettings, Tag("file")]
        | Annotated[SimulatedSettings, Tag("simulated")]
        | Annotated[TorchvisionSettings, Tag("torchvision")]
        | Annotated[Detectron2Settings, Tag("detectron2")],
        Discriminator(_name),
    ]
    virtual_points: VirtualPointsSettings = VirtualPointsSettings()


def load_source_config(text: str, *, device: str = "cpu") -> InstancesConfig:
    """The settings in a YAML file (`instances: {name: ..., ...}`, and `virtual_points: {...}` if need be), or of a short text.

    text    a path that ends in .yaml; or `file:PATH`, `simulated:PATH`, `torchvision:WEIGHTS`, `detectron2:CONFIG,WEIGHTS`
    device  of networks, in settings made of a short text
    Raises UsageError for anything else, and as `load_config` does.
    """
    if text.endswith((".yaml", ".yml")) and text.partition(":")[0] not in INSTANCE_SOURCES:
        return load_config(Path(text), InstancesConfig)
    name, _, value = text.partition(":")
    if name not in INSTANCE_SOURCES or not value:
        known = list(INSTANCE_SOURCES)
        expected = "a YAML file, file:PATH, simulated:PATH, torchvision:WEIGHTS or detectron2:CONFIG,WEIGHTS"
        raise UsageError(f"instances: expected {expected}, got {text!r}{'' if name in known else nearest_hint(name, known)}")
    values: dict[str, Any] = {"name": name, _FIRST[name]: value}
    if name == "detectron2":
        values["config"], _, weights = value.partition(",")
        values |= {"weights": weights} if weights else {}
    if name in ("torchvision", "detectron2"):
        values["device"] = device
    return parse_config({"instances": values}, InstancesConfig, where=f"instances {text!r}")


def build_source(config: InstancesConfig | str) -> InstanceSource:
    """A source from its settings, or from a text as `load_source_config` takes it. Raises UsageError and DataError as sources do."""
    settings = (load_source_config(config) if isinstance(config, str) else config).instances
    return INSTANCE_SOURCES[settings.name](settings)
