"""Training samples from simulated streets: ten sweeps in one cloud and the boxes around them, small files, many scenes."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from perception.core import NUSCENES_DETECTION, Boxes3D, DataError, Detections, PointCloud, Transform, UsageError
from perception.core.files import atomic_write
from perception.core.frame import Frame, Sweep
from perception.drives.simulated.parallel import map_scenes
from perception.drives.simulated.recording import count_points, readings, scan_at
from perception.drives.simulated.rigs import NUSCENES_RIG, Rig
from perception.drives.simulated.street import SimulatedScene, simulate_scene
from perception.drives.sweeps import accumulate_sweeps

NUM_SWEEPS = 10  # of a lidar at 20 Hz
CLIPS_A_SCENE = 8
_FRAMES_APART = 5  # key frames: 2.5 s, in which a street has changed
_STEP = 0.005  # metres between coordinates that a clip can hold: +-163 m in 16 bits
_LARGEST = 64 << 20  # bytes of a clip's file, far above any


@dataclass(frozen=True, eq=False)
class Clip:
    """One training sample.

    cloud         sweeps of half a second in the lidar frame of the key sweep, ages in seconds; coordinates in steps of 5 mm
    lidar_to_ego  how the lidar is mounted
    truth         objects in the EGO frame of the key sweep, with the returns of the key sweep within each box
    """

    cloud: PointCloud
    lidar_to_ego: Transform
    truth: Detections


def simulated_frame(scene: SimulatedScene, index: int, *, rig: Rig = NUSCENES_RIG, num_sweeps: int | None = None) -> Frame:
    """A key frame of a scene with its cloud and the sweeps before it, scanned at once and kept in memory.

    num_sweeps  in all, `rig.num_sweeps` where not given
    Intensities are 0..255, whatever scale the lidar's own recordings have.
    """
    key_us, step = int(scene.timestamps_us[index]), rig.sweep_us
    sweeps, counts = [], np.zeros(len(scene.objects), np.int64)
    for k in range(rig.num_sweeps if num_sweeps is None else num_sweeps):
        turn, ego_to_global = scan_at(scene, key_us - k * step, rig)
        points = np.zeros((int(turn.is_return.sum()), 5), np.float32)
        points[:, :3], points[:, 3] = turn.points[turn.is_return, :3], readings(rig, turn)[turn.is_return]
        cloud = PointCloud(points, turn.ring[turn.is_return].astype(np.int64))
        sweeps.append(Sweep(f"{scene.name}-{key_us - k * step}", key_us - k * step, rig.lidar_to_ego, ego_to_global, partial(_same, cloud)))
        if k == 0:
            counts = count_points(scene, index, turn, ego_to_global @ rig.lidar_to_ego)
    here = [i for i, thing in enumerate(scene.objects) if thing.present[index]]
    truth = scene.truth(index)
    truth = Detections(
        truth.boxes,
        truth.label,
        truth.score,
        truth.classes,
        attribute=truth.attribute,
        num_points=counts[here],
        instance=truth.instance,
    )
    key, *earlier = sweeps
    return Frame(
        token=key.token,
        timestamp_us=key_us,
        lidar_to_ego=rig.lidar_to_ego,
        ego_to_global=key.ego_to_global,
        cameras={},
        truth=truth,
        read_cloud=key.read_cloud,
        find_sweeps=lambda count: earlier[:count],
    )


def clip_frames(
    number: int, *, seed: int, density: float = 1.0, rig: Rig = NUSCENES_RIG, varies: bool = False, balanced: bool = False
) -> Iterator[Frame]:
    """The frames of `CLIPS_A_SCENE` clips of a seed, all from street `number`; arguments as of `write_clips`.

    Each is scanned when it is asked for, and depends on the arguments only. A clip holds `rig.num_sweeps` of its sweeps.
    """
    rng = np.random.default_rng([seed, number])
    crowd = density * 2.0 ** rng.uniform(-1, 1)
    num_frames = 1 + _FRAMES_APART * (CLIPS_A_SCENE - 1)
    scene = simulate_scene(f"clip-{number:06d}", rng, num_frames=num_frames, density=crowd, balanced=balanced)
    if varies:
        rig = rig.varied(np.random.default_rng([seed, number, 1]))
    for k in range(CLIPS_A_SCENE):
        yield simulated_frame(scene, k * _FRAMES_APART, rig=rig)


def write_clips(
    folder: Path,
    count: int,
    *,
    seed: int,
    density: float = 1.0,
    rig: Rig = NUSCENES_RIG,
    varies: bool = False,
    balanced: bool = False,
    workers: int = 1,
) -> list[Path]:
    """Simulate `count` clips into `folder/clip-000000.npz`, ..., eight from each street; the same seed gives the same bytes.

    density  of the streets, drawn between half and double of it; each depends on the seed and its own number only
    rig      the lidar
    varies   each street is seen from another vehicle (`Rig.varied`)
    balanced  the rare classes are frequent (`simulate_scene`)
    Raises UsageError for a folder that has clips which are not written now: who trains on a folder takes all in it.
    """
    others = sorted(path.name for path in Path(folder).glob("clip-*.npz") if path.name not in {f"clip-{i:06d}.npz" for i in range(count)})
    if others:
        raise UsageError(f"{folder}: expected a folder without other clips, found {others[0]}; take another one or remove it")
    numbers = range(-(-count // CLIPS_A_SCENE))
    write = partial(_write_scene, Path(folder), count, seed, density, rig, varies, balanced)
    return [path for paths in map_scenes(write, numbers, workers) for path in paths]


def write_clip(path: Path, frame: Frame, *, num_sweeps: int = NUM_SWEEPS) -> None:
    """One clip of `num_sweeps` sweeps from a frame that knows its truth and its earlier sweeps. Raises DataError for one without truth."""
    if frame.truth is None:
        raise DataError(f"frame {frame.token}: expected one with truth")
    points = accumulate_sweeps(frame, num_sweeps).points
    x, y, z = np.abs(points[:, :3]).T < (2**15 - 1) * _STEP
    if not (is_near := x & y & z).all():
        points = points[is_near]
    truth = frame.truth.transformed(frame.ego_to_global.inverse())
    boxes = truth.boxes
    arrays = {
        "place": np.round(points[:, :3] / _STEP).astype(np.int16),
        "intensity": np.clip(points[:, 3] * np.float32(255 / frame.intensity_top), 0, 255).astype(np.uint8),
        "age_ms": np.round(points[:, 4] * 1000).astype(np.uint16),
        "boxes": np.column_stack([boxes.center, boxes.size, boxes.yaw, boxes.velocity]).astype(np.float32),
        "label": truth.label.astype(np.int8),
        "num_points": (np.zeros(len(truth)) if truth.num_points is None else truth.num_points).astype(np.int32),
        "lidar_to_ego": frame.lidar_to_ego.matrix,
    }
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():  # np.savez would write the time of day into the file
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)


def read_clip(path: Path) -> Clip:
    """A clip from its file. Raises DataError for a file that is none."""
    wanted = {
        "place": (np.int16, 2),
        "intensity": (np.uint8, 1),
        "age_ms": (np.uint16, 1),
        "boxes": (np.float32, 2),
        "label": (np.int8, 1),
        "num_points": (np.int32, 1),
        "lidar_to_ego": (np.float64, 2),
    }
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: expected a clip of at most {_LARGEST >> 20} MiB, got {path.stat().st_size} bytes")
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
                raise DataError(f"{path}: expected a clip of at most {_LARGEST >> 20} MiB, got an archive of more")
            arrays = {name: np.lib.format.read_array(archive.open(f"{name}.npy"), allow_pickle=False) for name in wanted}
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        MemoryError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path}: expected a clip as `write_clips` makes it, got {error or type(error).__name__}") from None
    for name, (dtype, dimensions) in wanted.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != dimensions:
            got = f"{arrays[name].ndim}-dimensional {arrays[name].dtype}"
            raise DataError(f"{path}: {name}: expected {dimensions}-dimensional {np.dtype(dtype)}, got {got}")
    place, boxes = arrays["place"], arrays["boxes"].astype(np.float64)
    if place.shape != (len(arrays["intensity"]), 3) or boxes.shape != (len(arrays["label"]), 9) or arrays["lidar_to_ego"].shape != (4, 4):
        raise DataError(f"{path}: expected place (N, 3), boxes (M, 9) and lidar_to_ego (4, 4), got {place.shape}, {boxes.shape}")
    points = np.empty((len(place), 5), np.float32)
    points[:, :3], points[:, 3] = place * np.float32(_STEP), arrays["intensity"]
    points[:, 4] = arrays["age_ms"] / np.float32(1000)
    pose = arrays["lidar_to_ego"]
    try:
        truth = Detections(
            Boxes3D(boxes[:, :3], boxes[:, 3:6], boxes[:, 6], boxes[:, 7:]),
            arrays["label"].astype(np.int64),
            np.ones(len(boxes)),
            NUSCENES_DETECTION,
            num_points=arrays["num_points"].astype(np.int64),
        )
        return Clip(PointCloud(points), Transform(pose[:3, :3], pose[:3, 3]), truth)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _same(cloud: PointCloud) -> PointCloud:
    return cloud


def _write_scene(folder: Path, count: int, seed: int, density: float, rig: Rig, varies: bool, balanced: bool, number: int) -> list[Path]:
    frames = clip_frames(number, seed=seed, density=density, rig=rig, varies=varies, balanced=balanced)
    paths = []
    for k, frame in enumerate(islice(frames, count - number * CLIPS_A_SCENE)):
        paths.append(folder / f"clip-{number * CLIPS_A_SCENE + k:06d}.npz")
        write_clip(paths[-1], frame, num_sweeps=rig.num_sweeps)
    return paths
