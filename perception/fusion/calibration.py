"""Where the cameras of a rig look, seen from the lidar at one moment."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from perception.core.errors import DataError
from perception.core.expect import expect_array
from perception.core.frame import Camera, Frame, Sweep
from perception.core.transform import Transform

# The order in which MVP looks at nuScenes' cameras; those of other rigs come behind, in their own order.
CAMERA_ORDER = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")


@dataclass(frozen=True, eq=False, repr=False)
class CameraView:
    """One picture as a turn of the lidar meets it.

    lidar_to_camera  points of the lidar frame in the camera frame (x right, y down, z forward), through both ego poses
    intrinsics       (3, 3) float64  pinhole matrix, pixels; its last row is 0, 0, 1
    size             (width, height) pixels
    """

    lidar_to_camera: Transform
    intrinsics: np.ndarray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        intrinsics = expect_array("CameraView.intrinsics", self.intrinsics, (3, 3), "float64", finite=True)
        if (intrinsics[2] != (0, 0, 1)).any() or intrinsics[0, 0] * intrinsics[1, 1] - intrinsics[0, 1] * intrinsics[1, 0] == 0:
            raise DataError(f"CameraView.intrinsics: expected a pinhole matrix that ends in 0, 0, 1, got {intrinsics.tolist()}")
        object.__setattr__(self, "intrinsics", intrinsics)

    @property
    def lidar_to_pixels(self) -> np.ndarray:
        """(3, 4) float64: of a point x, y, z, 1 in the lidar frame its column times depth, row times depth, and depth."""
        return self.intrinsics @ self.lidar_to_camera.matrix[:3]

    def __repr__(self) -> str:
        return f"CameraView({self.size[0]}x{self.size[1]})"


def camera_views(moment: Frame | Sweep, cameras: Mapping[str, Camera]) -> dict[str, CameraView]:
    """The cameras as the lidar at `moment` sees them, in MVP's order.

    Each picture has the pose of its own time: what stands still lines up although the vehicle drives on between picture and turn. What
    moves by itself does not.
    """
    lidar_to_global = moment.lidar_to_global
    views = {}
    for name in in_order(cameras):
        camera = cameras[name]
        camera_to_global = camera.ego_to_global @ camera.camera_to_ego
        views[name] = CameraView(camera_to_global.inverse() @ lidar_to_global, camera.intrinsics, camera.size)
    return views


def in_order(names: Iterable[str]) -> list[str]:
    """Names of cameras in MVP's order."""
    there = list(names)
    return [name for name in CAMERA_ORDER if name in there] + [name for name in there if name not in CAMERA_ORDER]
