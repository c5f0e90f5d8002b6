"""Generated nuScenes tables of any size, for benchmarks: `python tools/generate_tables.py /tmp/tables --scenes 850`.

850 scenes imitate the official trainval set: 34,149 samples, about 1.17 million annotations of 64 thousand instances, 2.6 million
sample_data rows and as many ego poses, in the official text format (`json.dump(..., indent=0)`). Objects are plausible one by one
(sizes, speeds, distances), not a street: they may overlap. Sensor files are named, not written. Splits are `generated_train` and
`generated_val` (the last 150 scenes). One scene is in memory at a time. `--detections PATH` adds a submission for `generated_val`.
"""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import typer

from perception.cli.main import report_errors
from perception.core.classes import CATEGORY_TO_CLASS
from perception.drives.simulated.catalog import (
    ATTRIBUTES,
    CATEGORIES,
    SENSORS,
    SIZES,
    VISIBILITY_LEVELS,
    attribute_name,
    token,
)

TRAIN_SCENES, VAL_SCENES, LOCATIONS = 700, 150, ("boston-seaport", "singapore-hollandvillage", "singapore-onenorth", "singapore-queenstown")
# As json.dump(..., indent=0) writes them; the official files look the same.
ROWS = {
    "sample": ("token", "timestamp:%d", "prev", "next", "scene_token"),
    "sample_data": (
        *("token", "sample_token", "ego_pose_token", "calibrated_sensor_token", "timestamp:%d", "fileformat", "is_key_frame:%s"),
        *("height:%d", "width:%d", "filename", "prev", "next"),
    ),
    "ego_pose": ("token", "timestamp:%d", "rotation:[4]", "translation:[3]"),
    "calibrated_sensor": ("token", "sensor_token", "translation:[3]", "rotation:[4]", "camera_intrinsic:%s"),
    "instance": ("token", "category_token", "nbr_annotations:%d", "first_annotation_token", "last_annotation_token"),
    "sample_annotation": (
        *("token", "sample_token", "instance_token", "visibility_token", "attribute_tokens:%s"),
        *("translation:[3]", "size:[3]", "rotation:[4]", "prev", "next", "num_lidar_pts:%d", "num_radar_pts:%d"),
    ),
    "scene": ("token", "log_token", "nbr_samples:%d", "first_sample_token", "last_sample_token", "name", "description"),
}
DETECTION_ROW = (
    '{"sample_token": "%s", "translation": [%r, %r, %r], "size": [%r, %r, %r], "rotation": [%r, 0.0, 0.0, %r], "velocity": [%r, %r], '
    '"detection_name": "%s", "detection_score": %r, "attribute_name": "%s"}'
)


def row_template(fields: Iterable[str]) -> str:
    """The %-template of one row; a field is `name` (text), `name:%d` (as it says) or `name:[3]` (a list of 3 floats)."""
    lines = []
    for name, _, kind in (text.partition(":") for text in fields):
        value = kind or '"%s"'
        if kind.startswith("["):
            value = "[\n" + ",\n".join(["%r"] * int(kind[1:-1])) + "\n]"
        lines.append(f'"{name}": {value}')
    return "{\n" + ",\n".join(lines) + "\n}"


@dataclass
class Table:
    """One JSON array that grows on disk."""

    file: TextIO
    template: str
    num_rows: int = 0

    def write(self, *columns: Iterable[Any]) -> None:
        """Add one row per entry of the columns, which are the template's placeholders in order."""
        rows = list(map(self.template.__mod__, zip(*columns, strict=True)))
        if rows:
            self.file.write((",\n" if self.num_rows else "[\n") + ",\n".join(rows))
            self.num_rows += len(rows)

    def close(self) -> None:
        self.file.write("\n]" if self.num_rows else "[]")
        self.file.close()


@dataclass
class Ego:
    """The ego vehicle's path through a scene: gentle curves and a varying speed, on a grid of 20 ms; `at` reads it anywhere.

    grid_s (G,) seconds from the first key frame; x, y, yaw (G,)
    """

    grid_s: np.ndarray
    x: np.ndarray
    y: np.ndarray
    yaw: np.ndarray

    @classmethod
    def drawn(cls, duration_s: float, rng: np.random.Generator) -> "Ego":
        grid = np.arange(-0.5, duration_s + 0.5, 0.02)
        speed = np.maximum(rng.uniform(0, 9) + rng.uniform(0, 3) * np.sin(rng.uniform(0.1, 0.5) * grid + rng.uniform(0, 6)), 0)
        yaw = rng.uniform(-np.pi, np.pi) + rng.normal(0, 0.5) * np.sin(rng.uniform(0.05, 0.3) * grid + rng.uniform(0, 6))
        start = rng.uniform(300, 1700, 2)
        return cls(grid, start[0] + np.cumsum(speed * np.cos(yaw)) * 0.02, start[1] + np.cumsum(speed * np.sin(yaw)) * 0.02, yaw)

    def at(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y, yaw at times (N,)."""
        return tuple(np.interp(seconds, self.grid_s, column) for column in (self.x, self.y, self.yaw))  # type: ignore[return-value]


@dataclass
class Annotations:
    """A scene's annotations, ordered by instance, then time; A rows.

    instance (A,), frame (A,) indices; center, size (A, 3); yaw (A,); velocity (A, 2); category (I,) names; attribute (A,) names
    """

    instance: np.ndarray
    frame: np.ndarray
    center: np.ndarray
    size: np.ndarray
    yaw: np.ndarray
    velocity: np.ndarray
    distance: np.ndarray
    category: list[str]
    attribute: list[str]


@dataclass
class Scene:
    """What the writers of one scene share."""

    index: int
    rng: np.random.Generator
    time_us: np.ndarray
    sample_token: list[str]
    ego: Ego
    scene_token: str = field(init=False)

    def __post_init__(self) -> None:
        self.scene_token = token("scene", self.index)


def random_tokens(count: int, rng: np.random.Generator) -> list[str]:
    digits = rng.bytes(16 * count).hex()
    return [digits[i : i + 32] for i in range(0, 32 * count, 32)]


def linked(tokens: list[str]) -> tuple[list[str], list[str]]:
    """prev and next of a chain of tokens, "" at its ends."""
    return ["", *tokens[:-1]], [*tokens[1:], ""]


def num_samples(scene: int, num_scenes: int) -> int:
    """40 or 41, so that 850 scenes have the official 34,149 samples and the last 150 of them 6,019."""
    first_val = num_scenes - VAL_SCENES
    place, long_ones, out_of = (scene - first_val, 19, VAL_SCENES) if scene >= first_val else (scene, 130, TRAIN_SCENES)
    return 40 + (place + 1) * long_ones // out_of - place * long_ones // out_of


def quaternion_columns(yaw: np.ndarray) -> tuple[list[float], list[float]]:
    """w and z (N,) of turns about z."""
    return np.cos(yaw / 2).tolist(), np.sin(yaw / 2).tolist()


def drawn_scene(index: int, num_scenes: int, seed: int) -> Scene:
    rng = np.random.default_rng([seed, index])
    frames = num_samples(index, num_scenes)
    start_us = 1_530_000_000_000_000 + index * 60_000_000
    time_us = start_us + 500_000 * np.arange(frames) + rng.integers(-3_000, 3_001, frames)
    return Scene(index, rng, time_us, random_tokens(frames, rng), Ego.drawn(frames * 0.5, rng))


def sensor_times(key_us: np.ndarray, rate_hz: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Times (N,) int64 of a sensor that has a key frame at each of `key_us` (F,), and whether each is a key frame (N,)."""
    steps = np.diff(np.round(np.arange(len(key_us)) * rate_hz / 2).astype(int))  # sweeps from one key frame to the next
    position = np.concatenate([k + np.arange(n) / n for k, n in enumerate(steps)] + [np.array([len(key_us) - 1.0])])
    is_key = position == np.floor(position)
    times = np.interp(position, np.arange(len(key_us)), key_us - key_us[0]) + np.where(is_key, 0, rng.normal(0, 400, len(position)))
    return key_us[0] + times.astype(np.int64), is_key


def write_sensors(scene: Scene, tables: dict[str, Table], log: dict[str, Any]) -> None:
    """The scene's calibrations, sample_data and ego poses of all sensors."""
    rng = scene.rng
    for sensor in SENSORS:
        calibration = token("calibrated_sensor", scene.index, sensor.channel)
        intrinsics = json.dumps(sensor.intrinsic_matrix, indent=0)
        numbers = ([value] for value in (*sensor.translation, *sensor.rotation))
        tables["calibrated_sensor"].write([calibration], [token("sensor", sensor.channel)], *numbers, [intrinsics])
        times, is_key = sensor_times(scene.time_us + sensor.offset_us, sensor.rate_hz, rng)
        count = len(times)
        tokens = random_tokens(count, rng)
        nearest = np.clip(np.round((times - scene.time_us[0] - sensor.offset_us) / 500_000).astype(int), 0, len(scene.time_us) - 1)
        nearest[is_key] = np.arange(len(scene.time_us))
        names = [
            f"{'samples' if key else 'sweeps'}/{sensor.channel}/{log['logfile']}__{sensor.channel}__{t}{sensor.file_ending}"
            for key, t in zip(is_key.tolist(), times.tolist(), strict=True)
        ]
        height, width = (900, 1600) if sensor.modality == "camera" else (0, 0)
        tables["sample_data"].write(
            *(tokens, [scene.sample_token[i] for i in nearest.tolist()], tokens, [calibration] * count, times.tolist()),
            *([sensor.file_format] * count, ["true" if key else "false" for key in is_key.tolist()], [height] * count, [width] * count),
            *(names, *linked(tokens)),
        )
        write_ego_poses(scene, tables["ego_pose"], tokens, times)


def write_ego_poses(scene: Scene, table: Table, tokens: list[str], times: np.ndarray) -> None:
    """One pose per sample_data, with its token; roll and pitch sway within a degree."""
    seconds = (times - scene.time_us[0]) / 1e6
    x, y, yaw = scene.ego.at(seconds)
    rotation = np.stack([np.cos(yaw / 2), 0.006 * np.sin(0.9 * seconds), 0.008 * np.cos(1.3 * seconds), np.sin(yaw / 2)])
    rotation /= np.linalg.norm(rotation, axis=0)
    table.write(tokens, times.tolist(), *rotation.tolist(), x.tolist(), y.tolist(), [0.0] * len(tokens))


def drawn_annotations(scene: Scene) -> Annotations:
    """Objects around the ego vehicle: about 76 a scene, each present for some frames, still or driving straight on."""
    rng, frames = scene.rng, len(scene.time_us)
    count = max(int(rng.gamma(3.0, 76.6 / 3.0)), 1)
    weight = np.array(list(CATEGORIES.values()), dtype=np.float64)
    kinds = rng.choice(len(CATEGORIES), count, p=weight / weight.sum())
    category = [list(CATEGORIES)[k] for k in kinds]
    classes = [CATEGORY_TO_CLASS.get(name, "traffic_cone") for name in category]
    length = np.clip(np.round(rng.gamma(1.5, 13.0, count)).astype(int), 1, frames)
    first = np.floor(rng.random(count) * (frames - length + 1)).astype(int)
    instance = np.repeat(np.arange(count), length)
    frame = np.arange(len(instance)) - np.repeat(np.cumsum(length) - length, length) + first[instance]
    seconds = (scene.time_us - scene.time_us[0]) / 1e6
    middle = seconds[first + length // 2]
    ego_x, ego_y, ego_yaw = scene.ego.at(middle)
    angle, radius = rng.uniform(-np.pi, np.pi, count), 3 + 57 * np.sqrt(rng.random(count))
    yaw = ego_yaw + rng.choice([0, np.pi, np.pi / 2, -np.pi / 2], count, p=[0.36, 0.27, 0.2, 0.17]) + rng.normal(0, 0.1, count)
    top_speed = np.array([{"pedestrian": 1.5, "traffic_cone": 0, "barrier": 0, "trailer": 0}.get(name, 9.0) for name in classes])
    speed = np.where(rng.random(count) < np.where(top_speed == 1.5, 0.7, 0.3), top_speed * rng.uniform(0.3, 1.0, count), 0.0)
    velocity = speed[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    anchor = np.stack([ego_x + radius * np.cos(angle), ego_y + radius * np.sin(angle)], axis=1)
    mean, std = (np.array([SIZES[name][k] for name in classes]) for k in (0, 1))
    size = mean + std * np.clip(rng.normal(size=(count, 3)), -2, 2)
    flat = anchor[instance] + velocity[instance] * (seconds[frame] - middle[instance])[:, None]
    center = np.column_stack([flat, (size[:, 2] / 2 + rng.normal(0, 0.3, count))[instance]])
    attribute = [attribute_name(name, v, parked=k % 3 > 0) for k, (name, v) in enumerate(zip(classes, speed, strict=True))]
    distance = np.hypot(center[:, 0] - scene.ego.at(seconds[frame])[0], center[:, 1] - scene.ego.at(seconds[frame])[1])
    return Annotations(
        instance, frame, center, size[instance], yaw[instance], velocity[instance], distance, category, [attribute[i] for i in instance]
    )


def write_annotations(scene: Scene, rows: Annotations, tables: dict[str, Table]) -> None:
    rng, count = scene.rng, len(rows.frame)
    tokens, instance_tokens = random_tokens(count, rng), random_tokens(len(rows.category), rng)
    starts = np.searchsorted(rows.instance, np.arange(len(rows.category) + 1))
    previous, following = linked(tokens)
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        previous[start] = following[end - 1] = ""
    tables["instance"].write(
        *(instance_tokens, [token("category", name) for name in rows.category], np.diff(starts).tolist()),
        *([tokens[s] for s in starts[:-1]], [tokens[e - 1] for e in starts[1:]]),
    )
    lists = {name: f'[\n"{token("attribute", name)}"\n]' for name in ATTRIBUTES} | {"": "[]"}
    points = rng.poisson(np.minimum(4000 * rows.size[:, 1] * rows.size[:, 2] / np.maximum(rows.distance, 3) ** 2, 3000))
    w, z = quaternion_columns(rows.yaw)
    tables["sample_annotation"].write(
        *(tokens, [scene.sample_token[f] for f in rows.frame.tolist()], [instance_tokens[i] for i in rows.instance.tolist()]),
        *(rng.choice(list("1234"), count, p=[0.2, 0.1, 0.15, 0.55]).tolist(), [lists[name] for name in rows.attribute]),
        *(*rows.center.round(3).T.tolist(), *rows.size[:, [1, 0, 2]].round(3).T.tolist(), w, [0.0] * count, [0.0] * count, z),
        *(previous, following, points.tolist(), rng.poisson(points / 20).tolist()),
    )


def write_detections(scene: Scene, rows: Annotations, file: TextIO, *, is_first: bool) -> int:
    """The scene's samples of a submission: nine in ten true objects moved a little, the rest false alarms. Returns the number of boxes."""
    rng, written = scene.rng, 0
    row_class = np.array([CATEGORY_TO_CLASS.get(name, "") for name in rows.category])[rows.instance]
    for frame, sample_token in enumerate(scene.sample_token):
        true = np.flatnonzero((rows.frame == frame) & (row_class != "") & (rows.distance < 58) & (rng.random(len(row_class)) < 0.9))[:190]
        count, n = int(rng.integers(max(185, len(true)), 201)), len(true)
        names = [*row_class[true].tolist(), *rng.choice(list(SIZES), count - n).tolist()]
        ego_x, ego_y, _ = scene.ego.at(np.array([(scene.time_us[frame] - scene.time_us[0]) / 1e6]))
        center = np.column_stack([rng.uniform(-50, 50, (count, 2)) + np.column_stack([ego_x, ego_y]), rng.normal(0.9, 0.3, count)])
        center[:n] = rows.center[true] + rng.normal(0, 0.25, (n, 3))
        size = np.array([SIZES[name][0] for name in names])[:, [1, 0, 2]] * rng.uniform(0.9, 1.1, (count, 3))
        yaw, velocity = rng.uniform(-np.pi, np.pi, count), rng.normal(0, 0.4, (count, 2))
        yaw[:n], velocity[:n] = rows.yaw[true] + rng.normal(0, 0.1, n), rows.velocity[true] + rng.normal(0, 0.3, (n, 2))
        score = np.concatenate([rng.beta(5, 3, n), rng.beta(1.2, 8, count - n)])
        attributes = [attribute_name(name, v) for name, v in zip(names, np.hypot(*velocity.T).tolist(), strict=True)]
        columns = [
            *center.round(4).T.tolist(),
            *size.round(4).T.tolist(),
            *(a.round(12).tolist() for a in (np.cos(yaw / 2), np.sin(yaw / 2))),
        ]
        columns += [*velocity.round(4).T.tolist(), names, score.round(6).tolist(), attributes]
        boxes = ", ".join(map(DETECTION_ROW.__mod__, zip([sample_token] * count, *columns, strict=True)))
        file.write(f'{"" if is_first and frame == 0 else ", "}"{sample_token}": [{boxes}]')
        written += count
    return written


def log_records(num_scenes: int) -> list[dict[str, Any]]:
    """One log per 12.5 scenes, as in the official set (68 for 850)."""
    logs = []
    for i in range(max(num_scenes * 68 // 850, 1)):
        day, vehicle = f"2018-{1 + i // 28 % 12:02d}-{1 + i % 28:02d}", "n008" if i % 2 else "n015"
        name = f"{vehicle}-{day}-11-{i % 60:02d}-00+0800"
        logs.append({"token": token("log", i), "logfile": name, "vehicle": vehicle, "date_captured": day, "location": LOCATIONS[i % 4]})
    return logs


def write_small_tables(root: Path, folder: Path, logs: list[dict[str, Any]], scene_names: list[str]) -> None:
    """The tables whose size does not depend on the drive, the map masks and the splits."""
    from PIL import Image

    maps = []
    for place in LOCATIONS:
        tokens = [log["token"] for log in logs if log["location"] == place]
        filename = f"maps/{token('map', place)}.png"
        maps.append({"category": "semantic_prior", "token": token("map", place), "filename": filename, "log_tokens": tokens})
        (root / "maps").mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 255).save(root / filename)
    tables = {
        "attribute": [{"token": token("attribute", name), "name": name, "description": ""} for name in ATTRIBUTES],
        "category": [{"token": token("category", name), "name": name, "description": ""} for name in CATEGORIES],
        "sensor": [{"token": token("sensor", s.channel), "channel": s.channel, "modality": s.modality} for s in SENSORS],
        "visibility": [{"description": "", "token": level, "level": name} for level, name in VISIBILITY_LEVELS.items()],
        "log": logs,
        "map": maps,
        "splits": {"generated_train": scene_names[:-VAL_SCENES], "generated_val": scene_names[-VAL_SCENES:]},
    }
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))


def write_scene(scene: Scene, tables: dict[str, Table], log: dict[str, Any]) -> Annotations:
    """All rows of one scene; gives back its annotations."""
    count, tokens = len(scene.time_us), scene.sample_token
    name = f"scene-{scene.index + 1:04d}"
    ends = [tokens[0]], [tokens[-1]]
    tables["scene"].write([scene.scene_token], [log["token"]], [count], *ends, [name], ["generated"])
    tables["sample"].write(tokens, scene.time_us.tolist(), *linked(tokens), [scene.scene_token] * count)
    write_sensors(scene, tables, log)
    annotations = drawn_annotations(scene)
    write_annotations(scene, annotations, tables)
    return annotations


def generate(
    root: Path, *, scenes: int = 850, seed: int = 0, version: str = "v1.0-trainval", detections: Path | None = None
) -> dict[str, int]:
    """Write the tables under `root/version`, and the submission where asked for. Returns the number of rows of each."""
    folder = root / version
    folder.mkdir(parents=True, exist_ok=True)
    logs = log_records(scenes)
    write_small_tables(root, folder, logs, [f"scene-{i + 1:04d}" for i in range(scenes)])
    buffer = 1 << 20
    tables = {name: Table((folder / f"{name}.json").open("w", buffering=buffer), row_template(fields)) for name, fields in ROWS.items()}
    submission = detections.open("w", buffering=buffer) if detections else None
    if submission:
        flags = ", ".join(
            f'"use_{name}": {"true" if name == "lidar" else "false"}' for name in ("camera", "lidar", "radar", "map", "external")
        )
        submission.write(f'{{"meta": {{{flags}}}, "results": {{')
    boxes, first_val = 0, max(scenes - VAL_SCENES, 0)
    for index in range(scenes):
        scene = drawn_scene(index, scenes, seed)
        annotations = write_scene(scene, tables, logs[index * len(logs) // scenes])
        if submission and index >= first_val:
            boxes += write_detections(scene, annotations, submission, is_first=index == first_val)
    for table in tables.values():
        table.close()
    if submission:
        submission.write("}}")
        submission.close()
    return {name: table.num_rows for name, table in tables.items()} | ({"detections": boxes} if detections else {})


def main(
    root: Annotated[Path, typer.Argument(help="folder that gets `v1.0-trainval/` and `maps/`")],
    scenes: Annotated[int, typer.Option(min=1, help="number of scenes; 850 is the official trainval set's size")] = 850,
    seed: Annotated[int, typer.Option(help="the same seed gives the same files")] = 0,
    version: Annotated[str, typer.Option(help="name of the folder with the tables")] = "v1.0-trainval",
    detections: Annotated[Path | None, typer.Option(help="also write a detection submission for generated_val to this file")] = None,
) -> None:
    """Generate nuScenes tables for benchmarks, e.g. `python tools/generate_tables.py /tmp/tables --scenes 85`."""
    started = time.perf_counter()
    counts = generate(root, scenes=scenes, seed=seed, version=version, detections=detections)
    for name, rows in counts.items():
        path = detections if name == "detections" and detections else root / version / f"{name}.json"
        print(f"{name:18} {rows:>10,} rows {path.stat().st_size / 1e6:>9.1f} MB")
    print(f"{time.perf_counter() - started:.1f} s\n{root / version}")


if __name__ == "__main__":
    sys.exit(report_errors(lambda: typer.run(main)))
