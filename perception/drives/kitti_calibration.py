"""How the sensors of KITTI's car are mounted, from the calibration files of its raw recordings or of the tracking benchmark.

The ego frame is on the ground under the rear axle, in the middle of the car, with the axes of the inertial unit: its attitude is what
the recorded poses hold, and the files say how the lidar lies to it (Tr_imu_to_velo). No file says where the axle and the ground are;
KITTI's drawing of the car does: the lidar is 1.73 m above the ground, midway between the wheels (track 1.60 m, 0.80 to it), the inertial
unit 0.93 m above the ground and 0.05 m behind the rear axle (wheelbase 2.71 m = 0.81 from it to the lidar + 0.27 to camera 0 + 1.68 to the
front axle - 0.05). With the 0.81 m between the two the lidar is at x = 0.76, y = 0, z = 1.73 in the ego frame.
Sources: http://www.cvlibs.net/datasets/kitti/setup.php; Geiger et al., Vision meets Robotics (2013); readme of the raw development kit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.core.errors import DataError
from perception.core.transform import Transform
from perception.drives.kitti_text import expect_fields, read_rows, to_number, to_numbers

LIDAR_IN_EGO = (0.76, 0.0, 1.73)
LABELLED_CAMERA = "image_02"  # the left colour camera: what it sees is labelled
CAMERAS = ("image_00", "image_01", "image_02", "image_03")

# (width, height) of the rectified images of each recording day, by focal length: the tracking benchmark's files do not hold the size.
_SIZE_OF_FOCAL_LENGTH = {
    721.5377: (1242, 375),  # 2011_09_26
    707.0493: (1224, 370),  # 2011_09_28
    718.3351: (1238, 374),  # 2011_09_29
    707.0912: (1226, 370),  # 2011_09_30
    718.856: (1241, 376),  # 2011_10_03
}
_NEAR_A_ROTATION = 1e-3  # the files have seven digits; what is farther off is no rounding

Entries = dict[str, tuple[int, list[str]]]  # key -> number of its line, fields behind it


@dataclass(frozen=True, eq=False)
class Mounting:
    """One rectified camera.

    size           (width, height) pixels
    intrinsics     (3, 3) float64, pixels
    camera_to_ego  Transform
    """

    size: tuple[int, int]
    intrinsics: np.ndarray
    camera_to_ego: Transform


@dataclass(frozen=True, eq=False)
class Calibration:
    """Where the sensors are in the ego frame.

    lidar_to_ego, imu_to_ego  the inertial unit's axes are those of the ego frame
    rectified_to_ego  of the rectified camera 0, in which the tracking benchmark's labels and the odometry benchmark's poses are given
    cameras           channel (image_02, ...) -> Mounting
    """

    lidar_to_ego: Transform
    imu_to_ego: Transform
    rectified_to_ego: Transform
    cameras: dict[str, Mounting]


def read_tracking_calibration(path: Path) -> Calibration:
    """From `calib/0000.txt` of the tracking benchmark (R_rect, Tr_velo_cam, Tr_imu_velo; the object benchmark's names are taken too)."""
    entries = _read_entries(path)
    numbers = to_numbers(*_entry(path, entries, "R_rect", "R0_rect"), 9)
    rectify = _rigid(path, "R_rect", numbers, (0.0, 0.0, 0.0))
    lidar_to_camera = _rigid_rows(path, entries, "Tr_velo_cam", "Tr_velo_to_cam")
    imu_to_lidar = _rigid_rows(path, entries, "Tr_imu_velo", "Tr_imu_to_velo")
    projections = {f"image_0{i}": _projection(path, entries, f"P{i}") for i in range(4) if f"P{i}" in entries or i == 2}
    sizes = {camera: _size_of(intrinsics) for camera, (intrinsics, _) in projections.items()}
    return _calibration(rectify @ lidar_to_camera, imu_to_lidar, projections, sizes)


def read_raw_calibration(folder: Path) -> Calibration:
    """From `calib_cam_to_cam.txt`, `calib_velo_to_cam.txt` and `calib_imu_to_velo.txt` of a recording day's folder."""
    path = folder / "calib_cam_to_cam.txt"
    entries = _read_entries(path)
    rectify = _rigid(path, "R_rect_00", to_numbers(*_entry(path, entries, "R_rect_00"), 9), (0.0, 0.0, 0.0))
    projections, sizes = {}, {}
    for i in range(4):
        if i == 2 or f"P_rect_0{i}" in entries:
            projections[f"image_0{i}"] = _projection(path, entries, f"P_rect_0{i}")
            where, name, fields = _entry(path, entries, f"S_rect_0{i}")
            expect_fields(f"{where}: {name}", fields, ("width", "height"))
            width, height = (int(to_number(where, name, text, low=1, high=1e5)) for text in fields)
            sizes[f"image_0{i}"] = (width, height)
    lidar_to_camera, imu_to_lidar = (_read_rigid(folder / f"calib_{name}.txt") for name in ("velo_to_cam", "imu_to_velo"))
    return _calibration(rectify @ lidar_to_camera, imu_to_lidar, projections, sizes)


def _calibration(
    lidar_to_rectified: Transform,
    imu_to_lidar: Transform,
    projections: dict[str, tuple[np.ndarray, np.ndarray]],
    sizes: dict[str, tuple[int, int]],
) -> Calibration:
    lidar_to_ego = Transform(imu_to_lidar.rotation.T, np.array(LIDAR_IN_EGO))
    rectified_to_ego = lidar_to_ego @ lidar_to_rectified.inverse()
    cameras = {}
    for camera, (intrinsics, offset) in projections.items():
        rectified_to_camera = Transform(np.eye(3), offset)
        cameras[camera] = Mounting(sizes[camera], intrinsics, rectified_to_ego @ rectified_to_camera.inverse())
    return Calibration(lidar_to_ego, lidar_to_ego @ imu_to_lidar, rectified_to_ego, cameras)


def _read_entries(path: Path) -> Entries:
    """Lines `KEY: fields` (the tracking benchmark leaves the colon out here and there)."""
    entries: Entries = {}
    for number, fields in enumerate(read_rows(path, "a calibration file"), start=1):
        if not fields:
            continue
        key = fields[0].removesuffix(":")
        if key in entries:
            raise DataError(f"{path}: line {number}: {key[:40]!r} comes twice, first in line {entries[key][0]}")
        entries[key] = (number, fields[1:])
    return entries


def _entry(path: Path, entries: Entries, *names: str) -> tuple[str, str, list[str]]:
    """Where it stands, its name and its fields, of the entry that has one of `names`."""
    for name in names:
        if name in entries:
            number, fields = entries[name]
            return f"{path}: line {number}", name, fields
    raise DataError(f"{path}: expected a line {' or '.join(f'{name}:' for name in names)}, found none")


def _projection(path: Path, entries: Entries, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (3, 3) and the place (3,) of the rectified camera 0 in this camera's frame, of a 3 x 4 matrix K [I | t]."""
    where, name, fields = _entry(path, entries, name)
    matrix = np.array(to_numbers(where, name, fields, 12)).reshape(3, 4)
    intrinsics = matrix[:, :3]
    expected = [*intrinsics[0, 1:], intrinsics[1, 2]]  # skew and the principal point are free
    is_pinhole = (intrinsics[2] == (0, 0, 1)).all() and intrinsics[1, 0] == 0 and np.abs(expected).max() < 1e5
    if not is_pinhole or not (1 <= intrinsics[0, 0] <= 1e5 and 1 <= intrinsics[1, 1] <= 1e5):
        raise DataError(f"{where}: {name}: expected a pinhole camera f s cx . 0 f cy . 0 0 1 . in pixels, got {matrix.tolist()}")
    return intrinsics, np.linalg.solve(intrinsics, matrix[:, 3])


def _size_of(intrinsics: np.ndarray) -> tuple[int, int]:
    """The size of an image: of the recording day with this focal length, else twice the principal point."""
    for focal_length, size in _SIZE_OF_FOCAL_LENGTH.items():
        if abs(intrinsics[0, 0] - focal_length) < 1e-3:
            return size
    width, height = np.maximum(np.rint(2 * intrinsics[:2, 2]), 1).astype(int).tolist()
    return width, height


def _read_rigid(path: Path) -> Transform:
    """From a file with the lines R: (nine numbers) and T: (three)."""
    entries = _read_entries(path)
    return _rigid(path, "R", to_numbers(*_entry(path, entries, "R"), 9), to_numbers(*_entry(path, entries, "T"), 3))


def _rigid_rows(path: Path, entries: Entries, *names: str) -> Transform:
    """From a line with the rows of a 3 x 4 matrix."""
    where, name, fields = _entry(path, entries, *names)
    matrix = np.array(to_numbers(where, name, fields, 12)).reshape(3, 4)
    return nearest_rigid(f"{where}: {name}", matrix[:, :3], matrix[:, 3])


def _rigid(path: Path, name: str, rotation: list[float], translation: list[float] | tuple[float, ...]) -> Transform:
    return nearest_rigid(f"{path}: {name}", np.array(rotation).reshape(3, 3), np.array(translation))


def nearest_rigid(where: str, rotation: np.ndarray, translation: np.ndarray) -> Transform:
    """The transform whose rotation is nearest to a matrix with few digits; DataError where it is none."""
    left, scale, right = np.linalg.svd(rotation)
    if np.abs(scale - 1).max() > _NEAR_A_ROTATION or np.linalg.det(rotation) < 0:
        raise DataError(f"{where}: expected a rotation matrix, got {rotation.tolist()}")
    return Transform(left @ right, translation)
