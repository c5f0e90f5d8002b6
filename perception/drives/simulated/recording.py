"""What the sensors of the rig store of a simulated scene: lidar sweeps at 20 Hz, pictures at the key frames, and what they hit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cuda_ops import points_in_boxes
from perception.core import Boxes3D, Transform
from perception.core.files import write_bytes
from perception.drives.simulated.camera import CAMERAS, camera_time_us, camera_to_ego, render
from perception.drives.simulated.catalog import SENSORS
from perception.drives.simulated.lidar import Turn, scan, sensor_poses
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.parallel import map_scenes
from perception.drives.simulated.rigs import NUSCENES_RIG, Rig
from perception.drives.simulated.street import SimulatedScene

LIDAR = SENSORS[0]
_CHANNELS = [sensor.channel for sensor in SENSORS]
_KNOTS = 3  # poses within a turn, between which the sensor moves evenly: what leans on springs at 1.2 Hz is met to 0.003 degrees


@dataclass(frozen=True)
class SensorFile:
    """One file of a sensor.

    channel        name of the sensor
    timestamp_us   int
    filename       below the data root
    frame          the key frame that it belongs to, or that follows it
    is_key         whether it belongs to the key frame
    ego_to_global  pose of the ego vehicle at the time stamp
    size           (width, height) of a picture, (0, 0) of a sweep
    """

    channel: str
    timestamp_us: int
    filename: str
    frame: int
    is_key: bool
    ego_to_global: Transform
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Recording:
    """All files of a scene, each channel in the order of time, and for each key frame the returns (objects,) within every object's box."""

    files: list[SensorFile]
    num_points: list[np.ndarray]


def record_scenes(
    root: Path, scenes: Sequence[SimulatedScene], *, rig: Rig = NUSCENES_RIG, cameras: bool = False, workers: int = 1
) -> list[Recording]:
    """Record scenes into `root/samples` and `root/sweeps`: every sweep from half a second before the first key frame to the last one, and
    with `cameras` the pictures of the key frames.

    rig      the lidar; files hold its readings of 0..255, whatever its own recordings make of them
    workers  processes; where there are more than scenes, they share the frames of each (see `map_scenes`)
    Files appear complete or not at all; the same scenes give the same bytes.
    """
    num_parts = max(-(-workers // max(len(scenes), 1)), 1)
    items = [(scene, part) for scene in scenes for part in range(num_parts)]
    found = map_scenes(partial(_record_part, root, rig, cameras, num_parts), items, workers)
    recordings = []
    for first in range(0, len(found), num_parts):
        parts = found[first : first + num_parts]
        files = sorted((file for part in parts for file in part.files), key=lambda file: (_CHANNELS.index(file.channel), file.timestamp_us))
        recordings.append(Recording(files, [count for part in parts for count in part.num_points]))
    return recordings


def _record_part(root: Path, rig: Rig, cameras: bool, num_parts: int, item: tuple[SimulatedScene, int]) -> Recording:
    """Record the `part`-th of so many parts of a scene: key frames that follow each other, each with the sweeps before it."""
    scene, part = item
    frames = np.array_split(np.arange(len(scene)), num_parts)[part].tolist()
    files, num_points = [], []
    for time_us, frame, is_key in sweep_times(scene.timestamps_us, rig.sweep_us):
        if frame not in frames:
            continue
        turn, ego_to_global = scan_at(scene, time_us, rig)
        folder = "samples" if is_key else "sweeps"
        name = f"{folder}/{LIDAR.channel}/simulated-{scene.name}__{LIDAR.channel}__{time_us}.pcd.bin"
        rows = np.column_stack([turn.points[:, :3], readings(rig, turn), turn.ring]).astype("<f4")
        write_bytes(Path(root) / name, rows.tobytes())
        files.append(SensorFile(LIDAR.channel, time_us, name, frame, is_key, ego_to_global))
        if is_key:
            num_points.append(count_points(scene, frame, turn, ego_to_global @ rig.lidar_to_ego))
    for frame in frames if cameras else []:
        files += _pictures(root, scene, frame)
    return Recording(files, num_points)


def scan_at(
    scene: SimulatedScene, time_us: int, rig: Rig = NUSCENES_RIG, *, num_pieces: int = 6, device: str | None = None
) -> tuple[Turn, Transform]:
    """The lidar's turn with a time stamp, and the recorded pose of the ego vehicle then; `num_pieces` and `device` as `scan` has them."""
    seconds = (time_us - int(scene.timestamps_us[0])) / 1e6
    rng = np.random.default_rng([scene.world.seed, time_us])
    matter_at = partial(scene.world.matter_at, with_ego=False)
    turn = scan(
        rig.model, partial(_lidar_at, scene, rig), matter_at, seconds, rng, num_pieces=num_pieces, own=rig.own_returns, device=device
    )
    return turn, scene.ego_to_global_at(seconds)


def readings(rig: Rig, turn: Turn) -> np.ndarray:
    """(N,) float32 intensities of a turn as 0..255, the same for all lidars."""
    return turn.points[:, 3] / np.float32(rig.model.intensity_scale)


def sweep_times(timestamps_us: np.ndarray, step: int = NUSCENES_RIG.sweep_us) -> list[tuple[int, int, bool]]:
    """(time stamp, key frame, is key) of every sweep: turns of about `step` microseconds from each key frame to the next, ten at 20 Hz,
    and those of half a second before the first."""
    first = int(timestamps_us[0])
    times = [(first - step * k, 0, False) for k in range(round(500_000 / step), 0, -1)] + [(first, 0, True)]
    for frame in range(1, len(timestamps_us)):
        begin, end = int(timestamps_us[frame - 1]), int(timestamps_us[frame])
        count = max(round((end - begin) / step), 1)
        times += [(begin + (end - begin) * k // count, frame, False) for k in range(1, count)] + [(end, frame, True)]
    return times


def count_points(scene: SimulatedScene, frame: int, turn: Turn, lidar_to_global: Transform) -> np.ndarray:
    """(objects,) int64 returns of a key sweep within the box of each object of the scene, 0 for those that are not there."""
    counts = np.zeros(len(scene.objects), np.int64)
    here = [i for i, thing in enumerate(scene.objects) if thing.present[frame]]
    if here:
        things = [scene.objects[i] for i in here]
        center, yaw = (np.array([getattr(thing, name)[frame] for thing in things]) for name in ("center", "yaw"))
        boxes = Boxes3D(center, np.array([thing.size for thing in things]), yaw, np.zeros((len(here), 2)))
        points = lidar_to_global.apply(turn.points[turn.is_return, :3].astype(np.float64))
        origin = lidar_to_global.translation  # float32 has a millimetre only nearby
        rows = np.column_stack([boxes.center - origin, boxes.size, boxes.yaw])
        counts[here] = points_in_boxes((points - origin).astype(np.float32), rows).count
    return counts


def _pictures(root: Path, scene: SimulatedScene, frame: int) -> list[SensorFile]:
    files = []
    for camera in CAMERAS:
        time_us = camera_time_us(camera, int(scene.timestamps_us[frame]))
        seconds = (time_us - int(scene.timestamps_us[0])) / 1e6
        (ego_to_street,) = scene.world.ego_to_street(np.array([seconds]))
        still, moving = scene.world.matter_at(seconds)
        picture = render(
            Matter.concatenate(still, moving), ego_to_street @ camera_to_ego(camera), np.array(camera.intrinsic_matrix), seed=frame
        )
        name = f"samples/{camera.channel}/simulated-{scene.name}__{camera.channel}__{time_us}.jpg"
        write_bytes(Path(root) / name, picture.jpeg())
        size = (picture.image.shape[1], picture.image.shape[0])
        files.append(SensorFile(camera.channel, time_us, name, frame, True, scene.ego_to_global_at(seconds), size))
    return files


def _lidar_at(scene: SimulatedScene, rig: Rig, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    knots = np.linspace(seconds.min() - 1e-4, seconds.max() + 1e-4, _KNOTS)
    return sensor_poses(seconds, knots, [pose @ rig.lidar_to_ego for pose in scene.world.ego_to_street(knots)])
