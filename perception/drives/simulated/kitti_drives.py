"""Simulated scenes as sequences of KITTI's tracking benchmark: clouds at 10 Hz, calibration, inertial packets, labels.

The calibration is KITTI's without its small turns: the cameras look straight along the lidar's x axis, 0.27 m before and 0.08 m below it.
There are no pictures.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from perception.core import Boxes3D, Transform, UsageError
from perception.core.borders import CAMERA_TO_FORWARD, boxes_to_kitti, wrap_angle
from perception.core.files import write_bytes
from perception.drives.simulated.furniture import Standing
from perception.drives.simulated.parallel import map_scenes
from perception.drives.simulated.recording import scan_at
from perception.drives.simulated.rigs import KITTI_RIG, Rig
from perception.drives.simulated.street import FRAME_US, SimulatedScene
from perception.drives.simulated.visibility import visible_fraction

STEP_US = 100_000
SIZE, FOCAL, MIDDLE = (1242, 375), 721.5377, (609.5593, 172.854)  # of the rectified images
LIDAR_TO_CAMERA = Transform(CAMERA_TO_FORWARD.rotation.T, np.array([0.0, -0.08, -0.27]))
CAMERA_OFFSETS = (0.0, -0.54, 0.06, -0.48)  # metres from camera 0 to the four cameras' left: their place in camera 0's frame, negative
IMU_IN_LIDAR_AXES = np.array([-0.81, 0.32, -0.80])  # where the lidar's origin is seen from the inertial unit
LEAST_VISIBLE, LEAST_HEIGHT_PX = 0.1, 8.0  # of what is labelled
_EARTH_RADIUS, _LATITUDE, _LONGITUDE = 6378137.0, 49.0, 8.4


def write_kitti(root: Path, scenes: Sequence[SimulatedScene], *, split: str = "training", rig: Rig = KITTI_RIG, workers: int = 1) -> Path:
    """Write `scenes` as the sequences 0000, 0001, ... of `root/split` and give back that folder.

    rig      a lidar whose axes are x forward. The reader takes the ego frame to be 1.73 m below and 0.76 m behind the lidar, as on KITTI's
             car: that is where it is for KITTI_RIG
    workers  processes (see `parallel.map_scenes`)
    Frames are 0.1 s apart, from the first key frame to the last. Labelled is what the left colour camera sees, hidden things left out:
    Car, Van (cars above 1.88 m), Truck, Pedestrian, Person (who sits), Cyclist; other vehicles are Misc, whatever else is not labelled.
    Packets hold the recorded poses with their height; labels lie relative to the vehicle where the sensors see them.
    Files appear complete or not at all; the same scenes give the same bytes. Raises UsageError for a lidar with other axes, and for a
    folder with other sequences or more frames, which would not fit these.
    """
    if rig.model.forward_axis != "x":
        raise UsageError(f"write_kitti: expected a lidar whose x axis points forward, got {rig.name}; take {KITTI_RIG.name} or another one")
    folder = Path(root) / split
    _expect_nothing_else(folder, scenes)
    num_parts = max(-(-workers // max(len(scenes), 1)), 1)
    items = [(number, scene, part) for number, scene in enumerate(scenes) for part in range(num_parts)]
    lines = map_scenes(partial(_write_part, folder, rig, num_parts), items, workers)
    for number, scene in enumerate(scenes):
        labels = [line for part in lines[number * num_parts : (number + 1) * num_parts] for line in part]
        write_bytes(folder / f"calib/{number:04d}.txt", calibration_text(rig).encode())
        write_bytes(folder / f"oxts/{number:04d}.txt", _text(_packets(scene, rig)))
        write_bytes(folder / f"label_02/{number:04d}.txt", _text(labels))
    return folder


def _expect_nothing_else(folder: Path, scenes: Sequence[SimulatedScene]) -> None:
    """UsageError where clouds would stay that are not written now."""
    written = {f"{number:04d}/{frame:06d}.bin" for number, scene in enumerate(scenes) for frame in range(len(frame_seconds(scene)))}
    clouds = folder / "velodyne"
    found = sorted(str(path.relative_to(clouds)) for path in clouds.glob("*/*.bin"))
    if other := next((name for name in found if name not in written), None):
        raise UsageError(f"{clouds}: expected a folder without other sequences and frames, found {other}; take another one or remove it")


def frame_seconds(scene: SimulatedScene) -> np.ndarray:
    """(N,) seconds of the frames from the first key frame on."""
    return np.arange(1 + (len(scene) - 1) * FRAME_US // STEP_US) * (STEP_US / 1e6)


def calibration_text(rig: Rig) -> str:
    """`calib/0000.txt`, as the tracking benchmark has it."""
    projections = [[FOCAL, 0, MIDDLE[0], FOCAL * offset, 0, FOCAL, MIDDLE[1], 0, 0, 0, 1, 0] for offset in CAMERA_OFFSETS]
    entries = {f"P{i}:": np.array(row) for i, row in enumerate(projections)}
    entries["R_rect"] = np.eye(3)
    entries["Tr_velo_cam"] = LIDAR_TO_CAMERA.matrix[:3]
    entries["Tr_imu_velo"] = _imu_to_lidar(rig).matrix[:3]
    return "".join(f"{name} {' '.join(f'{v:.12e}' for v in values.ravel())}\n" for name, values in entries.items())


def _write_part(folder: Path, rig: Rig, num_parts: int, item: tuple[int, SimulatedScene, int]) -> list[str]:
    """The clouds of a part of a sequence; returns its labels."""
    number, scene, part = item
    seconds, lines = frame_seconds(scene), []
    for frame in np.array_split(np.arange(len(seconds)), num_parts)[part].tolist():
        turn, _ = scan_at(scene, int(scene.timestamps_us[0]) + frame * STEP_US, rig)
        points = turn.points[turn.is_return]
        if rig.model.intensity_top > 1:  # KITTI's intensities are 0..1
            points = points / np.array([1, 1, 1, rig.model.intensity_top], np.float32)
        write_bytes(folder / f"velodyne/{number:04d}/{frame:06d}.bin", points.astype("<f4").tobytes())
        lines += label_lines(scene, frame, float(seconds[frame]), rig)
    return lines


def label_lines(scene: SimulatedScene, frame: int, seconds: float, rig: Rig) -> list[str]:
    """Lines of `label_02` of a frame."""
    world = scene.world
    (ego_to_street,) = world.ego_to_street(np.array([seconds]))
    place, yaw, _ = world.places(seconds)
    near = [int(np.searchsorted((scene.timestamps_us - scene.timestamps_us[0]) / 1e6, seconds, side)) for side in ("left", "right")]
    near = [min(max(k - shift, 0), len(scene) - 1) for k, shift in zip(near, (0, 1), strict=True)]  # key frames after and before
    owners = world.owners
    rows = [i for i in np.flatnonzero(owners >= 0).tolist() if any(scene.objects[owners[i]].present[k] for k in near)]
    if not rows:
        return []
    size = np.array([world.sources[i].size for i in rows])
    boxes = Boxes3D(place[rows] + size * (0, 0, 0.5), size, yaw[rows], np.zeros((len(rows), 2)))
    footprints = np.column_stack([boxes.center[:, :2], size, boxes.yaw])
    visible = visible_fraction(footprints, ego_to_street.translation[:2])
    street_to_camera = LIDAR_TO_CAMERA @ (ego_to_street @ rig.lidar_to_ego).inverse()
    seen = boxes.transformed(CAMERA_TO_FORWARD @ street_to_camera)
    dimensions, location, turn = boxes_to_kitti(seen)
    lines = []
    for k, i in enumerate(rows):
        name = _type_of(scene, i)
        outline = _outline(CAMERA_TO_FORWARD.inverse().apply(seen.corners[k]))
        if name is None or outline is None or visible[k] < LEAST_VISIBLE:
            continue
        pixels, truncated = outline
        occluded = 0 if visible[k] >= 0.8 else 1 if visible[k] >= 0.4 else 2
        alpha = float(wrap_angle(turn[k] - np.arctan2(location[k, 0], location[k, 2])))
        numbers = [alpha, *pixels, *dimensions[k], *location[k], turn[k]]
        lines.append(f"{frame} {owners[i]} {name} {int(truncated)} {occluded} {' '.join(f'{v:.6f}' for v in numbers)}")
    return lines


def _outline(corners_camera: np.ndarray) -> tuple[list[float], bool] | None:
    """left, top, right, bottom in the image of camera 2, and whether the image cuts the box (8, 3); None for what it does not see."""
    x, y, z = (corners_camera + np.array([CAMERA_OFFSETS[2], 0, 0])).T
    if z.mean() < 0.5:
        return None
    z = np.maximum(z, 0.1)
    u, v = FOCAL * x / z + MIDDLE[0], FOCAL * y / z + MIDDLE[1]
    whole = np.array([u.min(), v.min(), u.max(), v.max()])
    inside = np.clip(whole, 0, (SIZE[0] - 1, SIZE[1] - 1) * 2)
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    if height < LEAST_HEIGHT_PX or width < 0.15 * (whole[2] - whole[0]):
        return None
    return inside.tolist(), bool((inside != whole).any())


def _type_of(scene: SimulatedScene, source_index: int) -> str | None:
    """KITTI's name of what a source is, None for what KITTI does not label."""
    source = scene.world.sources[source_index]
    if source.class_name == "car":
        return "Van" if source.size[2] > 1.88 else "Car"
    if source.class_name == "pedestrian":
        return "Person" if isinstance(source, Standing) and source.is_sitting else "Pedestrian"
    if source.class_name == "bicycle":
        return None if isinstance(source, Standing) else "Cyclist"
    names = {"truck": "Truck", "bus": "Misc", "trailer": "Misc", "construction_vehicle": "Misc", "motorcycle": "Misc"}
    return names.get(source.class_name)


def _imu_to_lidar(rig: Rig) -> Transform:
    """The inertial unit has the axes of the ego frame."""
    return Transform(rig.lidar_to_ego.rotation.T, IMU_IN_LIDAR_AXES)


def _packets(scene: SimulatedScene, rig: Rig) -> list[str]:
    """One inertial packet a frame: the reader's sums backwards. Accelerations and rates are 0."""
    world, errors = scene.world, replace(scene.world.errors, keeps_height=True)
    imu_to_ego = rig.lidar_to_ego @ _imu_to_lidar(rig)
    lines, origin = [], None
    seconds = frame_seconds(scene)
    speeds = world.ego_speed(seconds)
    for t, speed, pose in zip(seconds.tolist(), speeds.tolist(), world.ego_to_street(seconds), strict=True):
        imu = scene.street_to_global @ errors.recorded(pose, t) @ imu_to_ego
        origin = imu.translation if origin is None else origin
        east, north, up = (imu.translation - origin).tolist()
        scale = _EARTH_RADIUS * np.cos(np.radians(_LATITUDE))
        mercator = np.log(np.tan(np.radians(90 + _LATITUDE) / 2)) + north / scale
        latitude, longitude = np.degrees(2 * np.arctan(np.exp(mercator))) - 90, _LONGITUDE + np.degrees(east / scale)
        r = imu.rotation
        angles = np.arctan2(r[2, 1], r[2, 2]), np.arcsin(-r[2, 0]), np.arctan2(r[1, 0], r[0, 0])
        velocity = speed * np.sin(angles[2]), speed * np.cos(angles[2]), speed, 0.0, 0.0  # north, east, forward, left, up
        numbers = [latitude, longitude, 112.0 + up, *angles, *velocity, *[0.0] * 12, 0.05, 0.05]
        lines.append(" ".join([*(repr(float(v)) for v in numbers), "4 7 5 5 5"]))
    return lines


def _text(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()
