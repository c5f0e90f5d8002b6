"""Values that cross the borders of rooms, in one convention.

::

            x forward
            ^                     ego and global frames: ISO 8855 / REP-103
            |   yaw: counter-     x forward, y left, z up; right-handed; metres, radians, m/s
            |   clockwise from x  ego origin: on the ground under the rear axle (nuScenes ego)
   y left <-+                     size = (length along the heading, width, height); centre = middle of the box
            z up, towards you     time: integer microseconds (timestamp_us); differences in float seconds

A lidar cloud stays in its own sensor frame as recorded; `Frame.lidar_to_ego` says how it is mounted. Detectors answer in the ego
frame; trackers, evaluators and exporters work in the global frame. Only `core.borders` knows other conventions.
A transform named `a_to_b` maps points of `a` into `b`.
"""

from perception.core.boxes import Boxes3D
from perception.core.classes import NUSCENES_ATTRIBUTES, NUSCENES_DETECTION, NUSCENES_TRACKING, ClassSet
from perception.core.detections import Detections, Tracks
from perception.core.errors import CheckpointError, DataError, MissingPackage, PerceptionError, UsageError
from perception.core.files import atomic_write
from perception.core.frame import Camera, Drive, Frame, LabelledView, Sweep
from perception.core.pointcloud import PointCloud
from perception.core.rows import concatenate
from perception.core.transform import Transform, interpolate_pose

__all__ = [
    "NUSCENES_ATTRIBUTES",
    "NUSCENES_DETECTION",
    "NUSCENES_TRACKING",
    "Boxes3D",
    "Camera",
    "CheckpointError",
    "ClassSet",
    "DataError",
    "Detections",
    "Drive",
    "Frame",
    "LabelledView",
    "MissingPackage",
    "PerceptionError",
    "PointCloud",
    "Sweep",
    "Tracks",
    "Transform",
    "UsageError",
    "atomic_write",
    "concatenate",
    "interpolate_pose",
]
