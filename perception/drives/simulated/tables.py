"""Simulated scenes as a nuScenes version: thirteen tables, splits and a map mask that the official devkit opens and evaluates on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from perception.core import NUSCENES_DETECTION, Transform, UsageError
from perception.core.files import inside, write_bytes
from perception.core.masks import PictureMasks, write_masks
from perception.drives.nuscenes import find_versions
from perception.drives.simulated.camera import visibility_level
from perception.drives.simulated.catalog import (
    ATTRIBUTES,
    CATEGORIES,
    CATEGORY_OF_CLASS,
    SENSORS,
    VISIBILITY_LEVELS,
    Sensor,
    token,
)
from perception.drives.simulated.map_mask import drivable_png
from perception.drives.simulated.recording import Recording, SensorFile, record_scenes
from perception.drives.simulated.rigs import NUSCENES_RIG, Rig
from perception.drives.simulated.street import SimulatedScene

Rows = list[dict[str, Any]]
LIDAR = SENSORS[0]
LOCATION = "boston-seaport"  # the devkit knows maps of four places only
# returns of a fully visible box at distance d are about this times width * height / d**2 (32 beams, one sweep)
POINTS_AT_1M = 3200.0


def write_nuscenes(
    root: Path,
    scenes: Sequence[SimulatedScene],
    *,
    version: str,
    splits: Mapping[str, Sequence[str]],
    lidar: bool = False,
    rig: Rig = NUSCENES_RIG,
    cameras: bool = False,
    workers: int = 1,
) -> Path:
    """Write `scenes` as the nuScenes version `root/version` and give back that folder.

    splits   split name -> scene names, for `splits.json`; the devkit reads its own lists instead where a name is one of the official splits
    lidar    record the lidar: key sweeps into `samples`, those between them into `sweeps`; num_lidar_pts counts their returns. Without it
             each sample has one LIDAR_TOP sample_data whose file is named but not written, and num_lidar_pts is an estimate
    rig      the lidar and its place, in the tables as LIDAR_TOP
    cameras  record six pictures a key frame as well, and into `root/masks/<scene>.json` what they show of each object (see `read_masks`);
             visibility is then the share of an object's pixels that nothing hides, else an estimate from the boxes before it
    workers  processes that record (see `parallel.map_scenes`)
    Tokens depend on the scenes' names and the version only; the same scenes give the same bytes.
    Files appear complete or not at all. Raises UsageError for a split with unknown scenes, or scenes of the same name.
    """
    names = [scene.name for scene in scenes]
    if len(set(names)) != len(names):
        raise UsageError(f"write_nuscenes: expected different scene names, got {names}")
    for split, members in splits.items():
        unknown = sorted(set(members) - set(names))
        if unknown:
            raise UsageError(f"write_nuscenes: split {split!r}: expected scenes of {names}, got {unknown}")
    folder = inside(Path(root), version, where="write_nuscenes: version")
    if lidar and (others := [name for name in find_versions(Path(root)) if name != version]):
        raise UsageError(
            f"{root}: expected a folder without other versions, whose files have the same names, found {others[0]}; take another folder"
        )
    recordings: Sequence[Recording | None] = (
        record_scenes(Path(root), scenes, rig=rig, cameras=cameras, workers=workers) if lidar else [None] * len(scenes)
    )
    tables = fixed_tables(cameras=lidar and cameras)
    for scene, recording in zip(scenes, recordings, strict=True):
        for name, rows in scene_tables(scene, version, recording, rig=rig).items():
            tables[name] += rows
        if recording and recording.masks:
            path = inside(Path(root) / "masks", f"{scene.name}.json", where="write_nuscenes: scene name")
            write_masks(path, picture_masks(scene, version, recording), info={"description": f"simulated street {scene.name}, {version}"})
        tables["map"].append(map_record(version, scene.name))
        write_bytes(Path(root) / tables["map"][-1]["filename"], drivable_png(scene.world.terrain.plan, scene.street_to_global))
    for name, rows in tables.items():
        write_bytes(folder / f"{name}.json", orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY))
    write_bytes(folder / "splits.json", orjson.dumps({name: list(members) for name, members in splits.items()}))
    return folder


def fixed_tables(*, cameras: bool = False) -> dict[str, Rows]:
    """All tables: those that no scene changes are filled, the others empty."""
    sensors = [sensor for sensor in SENSORS if sensor is LIDAR or (cameras and sensor.modality == "camera")]
    tables: dict[str, Rows] = {
        "attribute": [{"token": _attribute_token(name), "name": name, "description": ""} for name in ATTRIBUTES],
        "category": [{"token": _category_token(name), "name": name, "description": ""} for name in CATEGORIES],
        "sensor": [{"token": token("sensor", s.channel), "channel": s.channel, "modality": s.modality} for s in sensors],
        "visibility": [{"token": level, "level": name, "description": name} for level, name in VISIBILITY_LEVELS.items()],
    }
    empty = ("calibrated_sensor", "ego_pose", "instance", "log", "map", "sample", "sample_annotation", "sample_data", "scene")
    return tables | {name: [] for name in empty}


def scene_tables(scene: SimulatedScene, version: str, recording: Recording | None = None, *, rig: Rig = NUSCENES_RIG) -> dict[str, Rows]:
    """The rows that one scene adds to each table."""
    samples = [token(version, scene.name, "sample", i) for i in range(len(scene))]
    log, scene_token = token(version, scene.name, "log"), token(version, scene.name, "scene")
    log_name = f"simulated-{scene.name}"
    files = recording.files if recording else _named_files(scene, log_name)
    channels = list(dict.fromkeys(file.channel for file in files))
    tables: dict[str, Rows] = {
        "log": [{"token": log, "logfile": log_name, "vehicle": "simulated", "date_captured": "2020-09-13", "location": LOCATION}],
        "scene": [
            {"token": scene_token, "log_token": log, "nbr_samples": len(samples), "first_sample_token": samples[0]}
            | {"last_sample_token": samples[-1], "name": scene.name, "description": "simulated street"}
        ],
        "sample": [
            {"token": name, "timestamp": time, **link, "scene_token": scene_token}
            for name, time, link in zip(samples, scene.timestamps_us.tolist(), _links(samples), strict=True)
        ],
        "calibrated_sensor": [_calibration(version, scene.name, sensor, rig) for sensor in SENSORS if sensor.channel in channels],
        "ego_pose": [],
        "sample_data": [],
    }
    for channel in channels:
        mine = [file for file in files if file.channel == channel]
        names = [token(version, scene.name, channel, file.timestamp_us) for file in mine]
        calibration = token(version, scene.name, "calibrated_sensor", channel)
        for file, name, link in zip(mine, names, _links(names), strict=True):
            pose, size = file.ego_to_global, {"height": file.size[1], "width": file.size[0]}
            tables["ego_pose"].append(
                {"token": name, "timestamp": file.timestamp_us}
                | {"rotation": pose.quaternion.tolist(), "translation": pose.translation.tolist()}
            )
            tables["sample_data"].append(
                {"token": name, "sample_token": samples[file.frame], "ego_pose_token": name, "calibrated_sensor_token": calibration}
                | {"timestamp": file.timestamp_us, "fileformat": "jpg" if file.filename.endswith(".jpg") else "pcd"}
                | {"is_key_frame": file.is_key, **size, "filename": file.filename, **link}
            )
    return tables | annotation_tables(scene, samples, recording)


def _named_files(scene: SimulatedScene, log_name: str) -> list[SensorFile]:
    """The key sweeps' files where nothing is recorded."""
    return [
        SensorFile(LIDAR.channel, time, f"samples/{LIDAR.channel}/{log_name}__{LIDAR.channel}__{time}.pcd.bin", frame, True, pose)
        for frame, (time, pose) in enumerate(zip(scene.timestamps_us.tolist(), scene.ego_to_global, strict=True))
    ]


def _calibration(version: str, scene: str, sensor: Sensor, rig: Rig) -> dict[str, Any]:
    place = rig.lidar_to_ego if sensor is LIDAR else Transform.from_quaternion(sensor.rotation, sensor.translation)
    names = {"token": token(version, scene, "calibrated_sensor", sensor.channel), "sensor_token": token("sensor", sensor.channel)}
    mounting = {"translation": place.translation.tolist(), "rotation": place.quaternion.tolist()}
    return names | mounting | {"camera_intrinsic": sensor.intrinsic_matrix}


def annotation_tables(scene: SimulatedScene, samples: list[str], recording: Recording | None = None) -> dict[str, Rows]:
    """`instance` and `sample_annotation` rows: every object that is present in some frame, its annotations linked in time."""
    instances: Rows = []
    annotations: Rows = []
    ego = np.array([pose.translation for pose in scene.ego_to_global])
    for row, thing in enumerate(scene.objects):
        frames = np.flatnonzero(thing.present)
        if not len(frames):
            continue
        tokens = [token(thing.token, "annotation", i) for i in frames]
        instances.append(
            {"token": thing.token, "category_token": _category_token(CATEGORY_OF_CLASS[thing.class_name]), "nbr_annotations": len(tokens)}
            | {"first_annotation_token": tokens[0], "last_annotation_token": tokens[-1]}
        )
        distance = np.linalg.norm(thing.center - ego, axis=1)
        if recording:
            points = np.array([counts[row] for counts in recording.num_points])
        else:
            points = lidar_points(thing.class_name, thing.size, distance, thing.visibility, key=thing.token)
        seen = np.array([share[row] for share in recording.visibility]) if recording and recording.visibility else thing.visibility
        level = visibility_level(seen)
        half = thing.yaw / 2
        rotation = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1)
        for i, name, link in zip(frames.tolist(), tokens, _links(tokens), strict=True):
            attribute = str(thing.attribute[i])
            annotations.append(
                {"token": name, "sample_token": samples[i], "instance_token": thing.token, "visibility_token": level[i]}
                | {"attribute_tokens": [_attribute_token(attribute)] if attribute else [], "translation": thing.center[i].tolist()}
                | {"size": thing.size[[1, 0, 2]].tolist(), "rotation": rotation[i].tolist(), **link}
                | {"num_lidar_pts": int(points[i]), "num_radar_pts": 0}
            )
    return {"instance": instances, "sample_annotation": annotations}


def picture_masks(scene: SimulatedScene, version: str, recording: Recording) -> list[PictureMasks]:
    """What each picture shows of the scene's objects, in the order of the files."""
    found = []
    for file in recording.files:
        if (masks := recording.masks.get(file.filename)) is None:
            continue
        things = [scene.objects[mask.owner] for mask in masks]
        found.append(
            PictureMasks(
                token=token(version, scene.name, file.channel, file.timestamp_us),
                sample=token(version, scene.name, "sample", file.frame),
                file_name=file.filename,
                size=file.size,
                label=np.array([NUSCENES_DETECTION.index(thing.class_name) for thing in things], np.int64),
                instance=np.array([thing.token for thing in things], np.str_),
                box=np.array([mask.box for mask in masks], np.int64).reshape(-1, 4),
                area=np.array([mask.pixels for mask in masks], np.int64),
                rle=tuple(mask.rle for mask in masks),
            )
        )
    return found


def lidar_points(class_name: str, size: np.ndarray, distance: np.ndarray, visibility: np.ndarray, *, key: str) -> np.ndarray:
    """(F,) int64 returns that a 32-beam lidar would have inside of a box, estimated; deterministic by `key`.

    size (3,) metres; distance (F,) metres; visibility (F,) 0..1. At least 1 where a twentieth of the object is visible.
    """
    fill = {"pedestrian": 0.9, "bicycle": 0.5, "motorcycle": 0.5}.get(class_name, 1.0)
    width = np.sqrt(size[0] * size[1])  # seen from anywhere
    expected = POINTS_AT_1M * fill * width * size[2] * visibility / np.maximum(distance, 3.0) ** 2
    rng = np.random.default_rng(int(key[:16], 16))
    points = np.round(expected * np.exp(rng.normal(0, 0.35, len(distance)))).astype(np.int64)
    return np.maximum(points, (visibility > 0.05).astype(np.int64))


def map_record(version: str, scene: str) -> dict[str, Any]:
    """The mask of one scene's log: each drives on a street of its own."""
    name = token(version, scene, "map")
    return {"category": "semantic_prior", "token": name, "filename": f"maps/{name}.png", "log_tokens": [token(version, scene, "log")]}


def _links(tokens: list[str]) -> list[dict[str, str]]:
    """prev and next of each token of a chain, "" at its ends."""
    return [{"prev": before, "next": after} for before, after in zip(["", *tokens[:-1]], [*tokens[1:], ""], strict=True)]


def _attribute_token(name: str) -> str:
    return token("attribute", name)


def _category_token(name: str) -> str:
    return token("category", name)
