"""Where KITTI's car was: poses of the ego frame from the inertial unit's packets (oxts) or from poses of the odometry benchmark."""

from pathlib import Path

import numpy as np

from perception.core.errors import DataError
from perception.core.transform import Transform
from perception.drives.kitti_calibration import Calibration, nearest_rigid
from perception.drives.kitti_text import expect_fields, read_rows, to_number, to_numbers

_EARTH_RADIUS = 6378137.0  # metres, as in the raw development kit
_MAX_LATITUDE = 85.0  # where maps in the Mercator projection end
OXTS_FIELDS = (
    "lat", "lon", "alt", "roll", "pitch", "yaw", "vn", "ve", "vf", "vl", "vu", "ax", "ay", "az", "af", "al", "au", "wx", "wy", "wz",
    "wf", "wl", "wu", "pos_accuracy", "vel_accuracy", "navstat", "numsats", "posmode", "velmode", "orimode",
)  # fmt: skip


def read_oxts_file(path: Path) -> np.ndarray:
    """(N, 6) latitude and longitude in degrees, altitude in metres, roll, pitch, yaw in radians: one packet a line."""
    return _packets([(f"{path}: line {number}", fields) for number, fields in enumerate(read_rows(path, "inertial packets"), start=1)])


def read_oxts_folder(folder: Path, count: int) -> np.ndarray:
    """(count, 6) as of `read_oxts_file`, from the files 0000000000.txt, ... of one packet each."""
    packets = []
    for number in range(count):
        path = folder / f"{number:010d}.txt"
        rows = read_rows(path, f"the inertial packet of frame {number} of {count}")
        if len(rows) != 1:
            raise DataError(f"{path}: expected one line, got {len(rows)}")
        packets.append((f"{path}: line 1", rows[0]))
    return _packets(packets)


def _packets(lines: list[tuple[str, list[str]]]) -> np.ndarray:
    packets = np.zeros((len(lines), 6))
    for i, (where, fields) in enumerate(lines):
        expect_fields(where, fields, OXTS_FIELDS)
        packets[i, 0] = to_number(where, "lat", fields[0], low=-_MAX_LATITUDE, high=_MAX_LATITUDE)
        packets[i, 1] = to_number(where, "lon", fields[1], low=-180, high=180)
        packets[i, 2] = to_number(where, "alt", fields[2], low=-1e5, high=1e5)
        packets[i, 3:] = [to_number(where, name, text, low=-10, high=10) for name, text in zip(OXTS_FIELDS[3:6], fields[3:6], strict=True)]
    return packets


def poses_from_oxts(packets: np.ndarray, imu_to_ego: Transform) -> list[Transform]:
    """ego_to_global of each packet (N, 6): x east, y north, z up, from where the ego frame was at the first packet.

    Positions are in the Mercator projection, scaled to metres at the first packet's latitude; yaw 0 is east. One pose seen from another is
    the same as of the raw development kit's `convertOxtsToPose`, whose global axes are those of the (tilted) first pose instead.
    """
    if not len(packets):
        return []
    latitude, longitude, altitude, *angles = packets.T
    scale = np.cos(np.radians(latitude[0]))
    east = scale * _EARTH_RADIUS * np.radians(longitude - longitude[0])
    north = scale * _EARTH_RADIUS * np.log(np.tan(np.radians(90 + latitude) / 2))
    position = np.stack([east, north - north[0], altitude - altitude[0]], axis=1)  # (N, 3)
    ego_to_imu = imu_to_ego.inverse()
    poses = [Transform(_rotation(*angle), place) @ ego_to_imu for angle, place in zip(np.stack(angles, axis=1), position, strict=True)]
    origin = poses[0].translation
    return [Transform(pose.rotation, pose.translation - origin) for pose in poses]


def _rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """(3, 3): first roll about x, then pitch about y, then yaw about z."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def read_odometry_poses(path: Path, calibration: Calibration) -> list[Transform]:
    """ego_to_global of each line of an odometry file: twelve numbers, the rows of a 3 x 4 matrix from camera 0 into the first camera 0.

    The global frame is the ego frame of the first line: such files do not say where up is.
    """
    poses = []
    for number, fields in enumerate(read_rows(path, "poses"), start=1):
        where = f"{path}: line {number}"
        matrix = np.array(to_numbers(where, "pose", fields, 12)).reshape(3, 4)
        poses.append(nearest_rigid(f"{where}: pose", matrix[:, :3], matrix[:, 3]))
    camera_to_ego, ego_to_camera = calibration.rectified_to_ego, calibration.rectified_to_ego.inverse()
    return [camera_to_ego @ poses[0].inverse() @ pose @ ego_to_camera for pose in poses]
