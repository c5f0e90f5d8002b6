"""Simulated drives: a street with its truth, a lidar and cameras that record it, and a detector that errs like a real one."""

from perception.drives.simulated.detector import DetectorNoise, simulate_detections
from perception.drives.simulated.kitti_drives import write_kitti
from perception.drives.simulated.street import SimulatedObject, SimulatedScene, simulate_scene, simulate_scenes
from perception.drives.simulated.tables import write_nuscenes

__all__ = [
    "DetectorNoise",
    "SimulatedObject",
    "SimulatedScene",
    "simulate_detections",
    "simulate_scene",
    "simulate_scenes",
    "write_kitti",
    "write_nuscenes",
]
