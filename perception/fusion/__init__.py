"""2D instances of the cameras become virtual points of the lidar (MVP)."""

from perception.fusion.calibration import CameraView, camera_views
from perception.fusion.fused_cloud import FUSED_COLUMNS, VirtualPointsSettings, fused_cloud, fused_rows
from perception.fusion.instances import Instances
from perception.fusion.sources import INSTANCE_SOURCES, InstancesConfig, InstanceSource, build_source, load_source_config
from perception.fusion.virtual_points import MVP_CLASSES, VirtualPoints, virtual_points

__all__ = [
    "FUSED_COLUMNS",
    "INSTANCE_SOURCES",
    "MVP_CLASSES",
    "CameraView",
    "InstanceSource",
    "Instances",
    "InstancesConfig",
    "VirtualPoints",
    "VirtualPointsSettings",
    "build_source",
    "camera_views",
    "fused_cloud",
    "fused_rows",
    "load_source_config",
    "virtual_points",
]
