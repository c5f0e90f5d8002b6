"""Where instances come from."""

from perception.fusion.sources.build import INSTANCE_SOURCES, InstancesConfig, build_source, load_source_config
from perception.fusion.sources.source import InstanceSource

__all__ = ["INSTANCE_SOURCES", "InstanceSource", "InstancesConfig", "build_source", "load_source_config"]
