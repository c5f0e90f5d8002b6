"""Data makers: rigs of small cameras around a lidar, masks by their corners, and clouds that lie where pixels say."""

from collections.abc import Callable

import numpy as np

from perception.core import Camera, Frame, PointCloud, Sweep, Transform
from perception.fusion import CameraView, Instances

SIZE = (16, 12)  # width, height
INTRINSICS = np.array([[10.0, 0.0, 8.0], [0.0, 10.0, 6.0], [0.0, 0.0, 1.0]])
# The camera looks along the lidar's x; its x (right) is the lidar's -y, its y (down) the lidar's -z.
LIDAR_TO_CAMERA = Transform(np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]), np.zeros(3))
FIRST_US = 1_600_000_000_000_000


def box_mask(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(h, w) bool: columns x0 to x1 - 1, rows y0 to y1 - 1."""
    mask = np.zeros(size[::-1], bool)
    mask[y0:y1, x0:x1] = True
    return mask


def shown(*things: tuple[np.ndarray, int, float], size: tuple[int, int] = SIZE) -> Instances:
    """Instances of masks, labels and scores."""
    return Instances.from_masks([m for m, _, _ in things], [k for _, k, _ in things], [s for _, _, s in things], size)


def view(yaw: float = 0.0, size: tuple[int, int] = SIZE) -> CameraView:
    """A camera at the lidar's place that looks `yaw` radians to the left of its x."""
    return CameraView(LIDAR_TO_CAMERA @ Transform.from_yaw(-yaw), INTRINSICS, size)


def at_pixel(u: float, v: float, depth: float, intensity: float = 7.0) -> list[float]:
    """A point x, y, z, intensity, age that `view()` sees at a place of its picture, `depth` metres ahead."""
    return [depth, -(u - 8.0) / 10.0 * depth, -(v - 6.0) / 10.0 * depth, intensity, 0.0]


def cloud(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 5)


def camera(
    name: str = "CAM_FRONT",
    *,
    known_as: str | None = None,
    size: tuple[int, int] = SIZE,
    timestamp_us: int = FIRST_US,
    ego_to_global: Transform | None = None,
    read_image: Callable[[], np.ndarray] | None = None,
) -> Camera:
    """A camera at the lidar's place, which is the ego's: the picture is grey."""
    return Camera(
        name,
        f"token-{name}" if known_as is None else known_as,
        size,
        INTRINSICS,
        LIDAR_TO_CAMERA.inverse(),
        ego_to_global or Transform.identity(),
        timestamp_us,
        read_image or (lambda: np.full((size[1], size[0], 3), 90, np.uint8)),
    )


def frame(
    points: np.ndarray,
    cameras: dict[str, Camera] | None = None,
    *,
    sweeps: tuple[tuple[np.ndarray, Transform, int], ...] = (),
    ego_to_global: Transform | None = None,
    intensity_top: float = 255.0,
) -> Frame:
    """A frame whose lidar is the ego; sweeps are (points, ego_to_global, microseconds before the frame), nearest first."""
    identity = Transform.identity()
    before = [
        Sweep(f"sweep-{k}", FIRST_US - ago, identity, pose, lambda rows=rows: PointCloud(rows))
        for k, (rows, pose, ago) in enumerate(sweeps)
    ]
    return Frame(
        "frame",
        FIRST_US,
        identity,
        ego_to_global or identity,
        cameras or {},
        None,
        lambda: PointCloud(points),
        lambda count: before[:count],
        intensity_top=intensity_top,
    )
