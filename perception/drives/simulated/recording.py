"""What the sensors of the rig store of a simulated scene: lidar sweeps at 20 Hz, pictures at the key frames, and what they hit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from cuda_ops import points_in_boxes
from perception.core import Boxes3D, Transform
from perception.core.files import write_bytes
from perception.drives.simulated.camera import InstanceMask
from perception.drives.simulated.catalog import SENSORS
from perception.drives.simulated.lidar import Turn, scan, sensor_poses, turn_of
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.parallel import map_scenes
from perception.drives.simulated.pictures import take_pictures
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
    """All files of a scene, and what they show.

    files       each channel in the order of time
    num_points  for each key frame the returns (objects,) within every object's box
    visibility  for each key frame the share (objects,) that pictures show, see `take_pictures`; empty without cameras
    masks       file name of a picture -> what it shows of each object
    """

    files: list[SensorFile]
    num_points: list[np.ndarray]
    visibility: list[np.ndarray] = field(default_factory=list)
    masks: dict[str, list[InstanceMask]] = field(default_factory=dict)


def record_scenes(
    root: Path, scenes: Sequence[SimulatedScene], *, rig: Rig = NUSCENES_RIG, cameras: bool = False, workers: int = 1
) -> list[Recording]:
    """Record scenes into `root/samples` and `root/sweeps`: every sweep from half a second before the first key frame to the last one, and
    with `cameras` the pictures of the key frames.

    rig      the lidar; files hold intensities of 0..255, whatever scale its own recordings have
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
        num_points, visibility = ([values for part in parts for values in getattr(part, name)] for name in ("num_points", "visibility"))
        masks = {name: found for part in parts for name, found in part.masks.items()}
        recordings.append(Recording(files, num_points, visibility, masks))
    return recordings


def _record_part(root: Path, rig: Rig, cameras: bool, num_parts: int, item: tuple[SimulatedScene, int]) -> Recording:
    """Record the `part`-th of so many parts of a scene: key frames that follow each other, each with the sweeps before it."""
    scene, part = item
    frames = np.array_split(np.arange(len(scene)), num_parts)[part].tolist()
    recording = Recording([], [])
    for time_us, frame, is_key in sweep_times(scene.timestamps_us, rig.sweep_us):
        if frame not in frames:
            continue
        turn, ego_to_global = scan_at(scene, time_us, rig)
        folder = "samples" if is_key else "sweeps"
        name = f"{folder}/{LIDAR.channel}/simulated-{scene.name}__{LIDAR.channel}__{time_us}.pcd.bin"
        rows = np.column_stack([turn.points[:, :3], readings(rig, turn), turn.ring]).astype("<f4")
        write_bytes(Path(root) / name, rows.tobytes())
        recording.files.append(SensorFile(LIDAR.channel, time_us, name, frame, is_key, ego_to_global))
        if is_key:
            recording.num_points.append(count_points(scene, frame, turn, ego_to_global @ rig.lidar_to_ego))
    for frame in frames if cameras else []:
        _record_pictures(root, scene, frame, recording)
    return recording


def scan_at(
    scene: SimulatedScene, time_us: int, rig: Rig = NUSCENES_RIG, *, num_pieces: int = 2, device: str | None = None
) -> tuple[Turn, Transform]:
    """The lidar's turn with a time stamp, and the recorded pose of the ego vehicle then; `num_pieces` and `device` as `scan` has them."""
    seconds = (time_us - int(scene.timestamps_us[0])) / 1e6
    rng = np.random.default_rng([scene.world.seed, time_us])
    begin, end = turn_of(rig.model, seconds)
    knots = np.linspace(begin - 1e-4, end + 1e-4, _KNOTS)
    *poses, pose = scene.world.ego_to_street(np.append(knots, seconds))
    sensor_to_street = [pose @ rig.lidar_to_ego for pose in poses]
    matter_at = _Passed(scene, rig, seconds, num_pieces, sensor_to_street[_KNOTS // 2])
    turn = scan(
        rig.model,
        partial(sensor_poses, pose_times=knots, poses=sensor_to_street),
        matter_at,
        seconds,
        rng,
        num_pieces=num_pieces,
        own=rig.own_returns,
        device=device,
    )
    return turn, scene.street_to_global @ scene.world.errors.recorded(pose, seconds)


class _Passed:
    """What there is for a piece of a turn, each thing where it is as the beams pass it: called with the middle of the piece.

    A piece may be long, then: only what reaches over its end is met in two places, as by a real lidar. Where things are seen from is the
    place of the sensor in the middle of the turn, from where nothing shifts by more than its width.
    """

    def __init__(self, scene: SimulatedScene, rig: Rig, time_stamp: float, num_pieces: int, sensor_to_street: Transform) -> None:
        self.world, self.model, self.num_pieces = scene.world, rig.model, num_pieces
        self.begin, end = turn_of(rig.model, time_stamp)
        self.middle = (self.begin + end) / 2
        place, _, _ = self.world.places(self.middle)
        right, forward, _ = sensor_to_street.inverse().apply(place).T
        if rig.model.forward_axis == "x":
            right, forward = -forward, right
        turned = np.degrees(np.arctan2(-right, forward)) - rig.model.start_deg
        self.share = turned * (-1 if rig.model.turns_clockwise else 1) / 360  # of the turn, give or take whole ones

    def __call__(self, seconds: float) -> tuple[Matter, Matter]:
        share = (seconds - self.begin) / self.model.turn_seconds
        ahead = (self.share - share + 0.5) % 1.0 - 0.5  # turns until it is passed, or since
        half = 0.5 / self.num_pieces
        times = seconds + np.clip(ahead, -half, half) * self.model.turn_seconds
        return self.world.matter_placed(self.world.places(times), self.middle)


def readings(rig: Rig, turn: Turn) -> np.ndarray:
    """(N,) float32 intensities of a turn on the scale 0..255, whatever that of the lidar's own recordings is."""
    return turn.points[:, 3] * np.float32(255 / rig.model.intensity_top)


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


def _record_pictures(root: Path, scene: SimulatedScene, frame: int, recording: Recording) -> None:
    """Write the pictures of a key frame and add what they show to `recording`."""
    pictures, visibility = take_pictures(scene, frame)
    recording.visibility.append(visibility)
    for picture in pictures:
        channel, time_us = picture.camera.channel, picture.timestamp_us
        name = f"samples/{channel}/simulated-{scene.name}__{channel}__{time_us}.jpg"
        write_bytes(Path(root) / name, picture.shown.jpeg())
        height, width = picture.shown.owner.shape
        pose = scene.ego_to_global_at(picture.seconds)
        recording.files.append(SensorFile(channel, time_us, name, frame, True, pose, (width, height)))
        recording.masks[name] = picture.masks
