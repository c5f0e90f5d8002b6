"""Data makers: small recordings in code."""

import json
from pathlib import Path
from typing import Any

import numpy as np

Tables = dict[str, list[dict[str, Any]]]

LIDAR_ROTATION = [np.sqrt(0.5), 0.0, 0.0, -np.sqrt(0.5)]  # the lidar's x points right
CAMERA_ROTATION = [0.5, -0.5, 0.5, -0.5]  # x right, y down, z forward
INTRINSICS = [[100.0, 0.0, 80.0], [0.0, 100.0, 45.0], [0.0, 0.0, 1.0]]
FIRST_US, STEP_US = 1_500_000_000_000_000, 500_000


def nuscenes_tables(scenes: tuple[str, ...] = ("scene-0103", "scene-0916"), samples: int = 3) -> Tables:
    """The 13 tables of a version with lidar, one camera and a radar; tokens say what they name.

    Per scene: a car ahead that drives at 2 m/s along x (all samples), a walking child at 1 m/s along y (the first two samples),
    and an animal, which is no scored class, in the first sample. The ego drives at 4 m/s along x. The lidar has one sweep between
    the first two key frames.
    """
    tables: Tables = {
        "attribute": [{"token": f"a-{name}", "name": name} for name in ("vehicle.moving", "pedestrian.moving")],
        "category": [{"token": f"c-{name}", "name": name} for name in ("vehicle.car", "human.pedestrian.child", "animal")],
        "visibility": [{"token": str(i + 1), "level": level} for i, level in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"))],
        "sensor": [
            {"token": "s-LIDAR_TOP", "channel": "LIDAR_TOP", "modality": "lidar"},
            {"token": "s-CAM_FRONT", "channel": "CAM_FRONT", "modality": "camera"},
            {"token": "s-RADAR_FRONT", "channel": "RADAR_FRONT", "modality": "radar"},
        ],
        "log": [{"token": "log", "logfile": "n015", "vehicle": "n015", "date_captured": "2018-01-01", "location": "singapore"}],
        "map": [{"token": "map", "log_tokens": ["log"], "category": "semantic_prior", "filename": "maps/map.png"}],
        **{name: [] for name in ("calibrated_sensor", "ego_pose", "instance", "sample", "sample_annotation", "sample_data", "scene")},
    }
    for number, name in enumerate(scenes):
        _add_scene(tables, number, name, samples)
    return tables


def _add_scene(tables: Tables, number: int, name: str, samples: int) -> None:
    start_us = FIRST_US + number * 60_000_000
    tokens = [f"{name}-{k}" for k in range(samples)]
    tables["scene"].append(
        {"token": f"t-{name}", "name": name, "log_token": "log", "nbr_samples": samples, "description": ""}
        | {"first_sample_token": tokens[0], "last_sample_token": tokens[-1]}
    )
    for k, (token, before, after) in enumerate(_linked(tokens)):
        row = {"token": token, "timestamp": start_us + k * STEP_US, "prev": before, "next": after, "scene_token": f"t-{name}"}
        tables["sample"].append(row)
    for channel in ("LIDAR_TOP", "CAM_FRONT", "RADAR_FRONT"):
        _add_sensor(tables, name, channel, tokens, start_us)
    _add_object(tables, name, "vehicle.car", tokens, [10.0, 2.0, 0.8], [1.0, 0.0], "vehicle.moving")
    _add_object(tables, name, "human.pedestrian.child", tokens[:2], [5.0, -3.0, 0.6], [0.0, 0.5], "pedestrian.moving")
    _add_object(tables, name, "animal", tokens[:1], [7.0, 0.0, 0.2], [0.0, 0.0], "")


def _add_sensor(tables: Tables, scene: str, channel: str, samples: list[str], start_us: int) -> None:
    is_camera = channel.startswith("CAM")
    tables["calibrated_sensor"].append(
        {"token": f"cal-{scene}-{channel}", "sensor_token": f"s-{channel}", "translation": [1.0, 0.0, 1.8]}
        | {"rotation": CAMERA_ROTATION if is_camera else LIDAR_ROTATION, "camera_intrinsic": INTRINSICS if is_camera else []}
    )
    offset_us = {"LIDAR_TOP": 0, "CAM_FRONT": -20_000, "RADAR_FRONT": 7_000}[channel]
    moments = [(start_us + k * STEP_US + offset_us, token, True) for k, token in enumerate(samples)]
    if channel == "LIDAR_TOP":
        moments.insert(1, (start_us + 250_000, samples[1], False))
    tokens = [f"d-{channel}-{time_us}" for time_us, _, _ in moments]
    for (time_us, sample, is_key), (token, before, after) in zip(moments, _linked(tokens), strict=True):
        ending = {"LIDAR_TOP": "pcd.bin", "CAM_FRONT": "png", "RADAR_FRONT": "pcd"}[channel]
        tables["ego_pose"].append(
            {"token": f"pose-{token}", "timestamp": time_us, "rotation": [1.0, 0.0, 0.0, 0.0]}
            | {"translation": [4.0 * (time_us - start_us) * 1e-6, 0.0, 0.0]}
        )
        tables["sample_data"].append(
            {"token": token, "sample_token": sample, "ego_pose_token": f"pose-{token}", "calibrated_sensor_token": f"cal-{scene}-{channel}"}
            | {"timestamp": time_us, "fileformat": ending, "is_key_frame": is_key, "prev": before, "next": after}
            | {"height": 90 if is_camera else 0, "width": 160 if is_camera else 0}
            | {"filename": f"{'samples' if is_key else 'sweeps'}/{channel}/{time_us}.{ending}"}
        )


def _add_object(
    tables: Tables, scene: str, category: str, samples: list[str], center: list[float], step: list[float], attribute: str
) -> None:
    tokens = [f"{category}-{sample}" for sample in samples]
    tables["instance"].append(
        {"token": f"i-{category}-{scene}", "category_token": f"c-{category}", "nbr_annotations": len(tokens)}
        | {"first_annotation_token": tokens[0], "last_annotation_token": tokens[-1]}
    )
    for k, (token, before, after) in enumerate(_linked(tokens)):
        tables["sample_annotation"].append(
            {"token": token, "sample_token": samples[k], "instance_token": f"i-{category}-{scene}", "visibility_token": str(1 + k % 4)}
            | {"attribute_tokens": [f"a-{attribute}"] if attribute else [], "prev": before, "next": after}
            | {"translation": [center[0] + k * step[0], center[1] + k * step[1], center[2]], "size": [2.0, 4.5, 1.6]}
            | {"rotation": [np.cos(0.15), 0.0, 0.0, np.sin(0.15)], "num_lidar_pts": 10 + k, "num_radar_pts": 0}
        )


def _linked(tokens: list[str]) -> list[tuple[str, str, str]]:
    """Each token with the one before and after, "" at the ends."""
    return list(zip(tokens, ["", *tokens[:-1]], [*tokens[1:], ""], strict=True))


def write_nuscenes(
    root: Path,
    tables: Tables | None = None,
    *,
    version: str = "v1.0-mini",
    splits: dict[str, list[str]] | None = None,
    sensor_files: bool = True,
) -> Path:
    """Write a version under `root` (the default: `nuscenes_tables()`), with clouds of five points and grey images. Returns `root`."""
    tables = nuscenes_tables() if tables is None else tables
    (root / version).mkdir(parents=True, exist_ok=True)
    for name, rows in (tables | ({"splits": splits} if splits is not None else {})).items():
        (root / version / f"{name}.json").write_text(json.dumps(rows))
    if sensor_files:
        _write_sensor_files(root, tables)
    return root


def _write_sensor_files(root: Path, tables: Tables) -> None:
    from PIL import Image

    for row in tables["sample_data"]:
        path = root / row["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".pcd.bin"):
            path.write_bytes(lidar_rows().tobytes())
        elif path.suffix == ".png":
            Image.new("RGB", (160, 90), (10, 20, 30)).save(path)


def write_turning_drives(root: Path, *, num_records: int = 25, seed: int = 0) -> Path:
    """Two drives with a lidar record every 50 ms or so, each tenth a key frame, in files that the official devkit opens. Returns `root`.

    The ego climbs, turns and sways; the lidar is tilted, and mounted anew halfway. A fifth of the points is near the roof.
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    tables = nuscenes_tables(samples=(num_records + 9) // 10)
    is_lidar = {row["token"]: "LIDAR" in row["token"] for row in tables["sample_data"]}
    tables["ego_pose"] = [row for row in tables["ego_pose"] if not is_lidar[row["token"].removeprefix("pose-")]]
    tables["sample_data"] = [row for row in tables["sample_data"] if not is_lidar[row["token"]]]
    for scene in ("scene-0103", "scene-0916"):
        _add_turning_lidar(tables, scene, num_records, rng)
    order = rng.permutation(len(tables["sample_data"]))  # nobody promises that rows come in the order of time
    tables["sample_data"] = [tables["sample_data"][i] for i in order]
    write_nuscenes(root, tables, sensor_files=False)
    (root / "maps").mkdir()
    Image.new("L", (8, 8)).save(root / "maps/map.png")
    for row in tables["sample_data"]:
        if row["filename"].endswith(".pcd.bin"):
            count = int(rng.integers(80, 121))
            xyz = rng.normal(0, [20, 20, 2], (count, 3))
            xyz[: count // 5, :2] = rng.uniform(-1.5, 1.5, (count // 5, 2))
            path = root / row["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(np.column_stack([xyz, rng.integers(0, 256, count), rng.integers(0, 32, count)]).astype("<f4").tobytes())
    return root


def _add_turning_lidar(tables: Tables, scene: str, num_records: int, rng: np.random.Generator) -> None:
    samples = [row for row in tables["sample"] if row["scene_token"] == f"t-{scene}"]
    for mounting in (0, 1):
        quaternion = np.array(LIDAR_ROTATION) + rng.normal(0, 0.05, 4)
        row = {"token": f"lidar-{scene}-{mounting}", "sensor_token": "s-LIDAR_TOP", "camera_intrinsic": []}
        row |= {"translation": rng.normal([1, 0, 1.8], 0.1).tolist(), "rotation": (quaternion / np.linalg.norm(quaternion)).tolist()}
        tables["calibrated_sensor"].append(row)
    tokens = [f"d-{scene}-LIDAR-{k}" for k in range(num_records)]
    for k, (token, before, after) in enumerate(_linked(tokens)):
        is_key = k % 10 == 0
        time_us = samples[0]["timestamp"] + k * 50_000 + (0 if is_key else int(rng.integers(-3000, 3000)))
        roll, pitch, yaw = 0.02 * np.sin(k), 0.03 * np.cos(0.7 * k), 2 + 0.04 * k
        quaternion = np.array([np.cos(yaw / 2), roll, pitch, np.sin(yaw / 2)])
        tables["ego_pose"].append(
            {"token": f"pose-{token}", "timestamp": time_us, "rotation": (quaternion / np.linalg.norm(quaternion)).tolist()}
            | {"translation": [1000 + 0.5 * k * np.cos(yaw), 1500 + 0.5 * k * np.sin(yaw), 0.03 * k]}
        )
        tables["sample_data"].append(
            {"token": token, "sample_token": samples[k // 10]["token"], "ego_pose_token": f"pose-{token}", "height": 0, "width": 0}
            | {"calibrated_sensor_token": f"lidar-{scene}-{int(k > num_records // 2)}", "timestamp": time_us, "fileformat": "pcd.bin"}
            | {"is_key_frame": is_key, "prev": before, "next": after}
            | {"filename": f"{'samples' if is_key else 'sweeps'}/LIDAR_TOP/{scene}-{k:02d}.pcd.bin"}
        )


def lidar_rows(count: int = 5) -> np.ndarray:
    """(count, 5) float32 x, y, z, intensity, ring as a nuScenes lidar file holds them."""
    return np.column_stack([np.arange(count), np.ones(count), np.zeros(count), 10 * np.arange(count), np.arange(count)]).astype("<f4")
