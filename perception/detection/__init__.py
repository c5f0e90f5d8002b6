"""Detectors: points of one moment in, boxes out.

`Detector` is what a pipeline uses; the rest is what it is made of. Parts load when they are asked for: settings need no torch, layers no
pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.detection.attributes import attributes_of
    from perception.detection.build import build_decoder, build_network
    from perception.detection.center_point import CenterPoint
    from perception.detection.clock import Profile
    from perception.detection.config import DetectorConfig, load_detector_config, weights_beside
    from perception.detection.detector import Detector
    from perception.detection.weights import load_state, read_weights

_MODULES = {
    "CenterPoint": "center_point",
    "Detector": "detector",
    "DetectorConfig": "config",
    "Profile": "clock",
    "attributes_of": "attributes",
    "build_decoder": "build",
    "build_network": "build",
    "load_detector_config": "config",
    "load_state": "weights",
    "read_weights": "weights",
    "weights_beside": "config",
}
__all__ = [
    "CenterPoint",
    "Detector",
    "DetectorConfig",
    "Profile",
    "attributes_of",
    "build_decoder",
    "build_network",
    "load_detector_config",
    "load_state",
    "read_weights",
    "weights_beside",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"perception.detection.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'perception.detection' has no attribute {name!r}")
