"""The frame that a network was trained in, and how points get there and boxes back."""

import numpy as np

from perception.core.errors import UsageError
from perception.core.transform import Transform

# Where nuScenes has its lidar, on average of its cars: x right, y forward, above the roof.
NUSCENES_MOUNT = Transform.from_yaw(-np.pi / 2, (0.95, 0.0, 1.84))
_LARGEST_SHIFT = 0.3  # m
_LARGEST_TURN = np.radians(5.0)
FRAMES = ("nuscenes_lidar", "ego")


def network_mounting(frame: str, lidar_to_ego: Transform) -> tuple[Transform | None, Transform]:
    """lidar_to_network (None: the points stay as they are) and network_to_ego of a network trained in `frame`.

    ego             points are moved into the ego frame
    nuscenes_lidar  that of nuScenes' lidar. A lidar mounted like it (within 0.3 m and 5 degrees) stays in its own frame, as the published
                    networks saw it, tilt included; any other one is moved to where nuScenes has its lidar
    Raises UsageError for another frame.
    """
    if frame == "ego":
        return lidar_to_ego, Transform.identity()
    if frame != "nuscenes_lidar":
        raise UsageError(f"frame: expected one of {', '.join(FRAMES)}, got {frame!r}")
    difference = NUSCENES_MOUNT.inverse() @ lidar_to_ego
    turn = np.arccos(np.clip((np.trace(difference.rotation) - 1) / 2, -1, 1))
    if np.linalg.norm(difference.translation) <= _LARGEST_SHIFT and turn <= _LARGEST_TURN:
        return None, lidar_to_ego
    return difference, NUSCENES_MOUNT
