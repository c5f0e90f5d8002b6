"""Data makers: submissions in code, and a simulated street with detections of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.drives import NuScenes
from perception.drives.simulated import simulate_detections, simulate_scenes, write_nuscenes
from perception.evaluation import detection_boxes, write_submission

META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
VERSION, SPLIT = "v1.0-simulated", "simulated_val"


def detection(sample: str = "a", **changes: Any) -> dict[str, Any]:
    """One sound box of a detection submission."""
    box = {"sample_token": sample, "translation": [10.0, 20.0, 1.0], "size": [1.9, 4.5, 1.6], "rotation": [1.0, 0.0, 0.0, 0.0]}
    box |= {"velocity": [0.5, -0.25], "detection_name": "car", "detection_score": 0.75, "attribute_name": "vehicle.moving"}
    return box | changes


def track(sample: str = "a", **changes: Any) -> dict[str, Any]:
    """One sound box of a tracking submission."""
    box = {"sample_token": sample, "translation": [10.0, 20.0, 1.0], "size": [1.9, 4.5, 1.6], "rotation": [1.0, 0.0, 0.0, 0.0]}
    return box | {"velocity": [0.5, -0.25], "tracking_id": "7", "tracking_name": "car", "tracking_score": 0.75} | changes


def write_results(path: Path, results: Any, *, meta: Any = META) -> Path:
    """A submission as Python's own json writes it (NaN and Infinity as words)."""
    path.write_text(json.dumps({"meta": meta, "results": results}))
    return path


@dataclass(frozen=True)
class Street:
    """A simulated version on disk and a submission of detections of all its samples."""

    root: Path
    detections: Path
    dataset: NuScenes

    @property
    def tokens(self) -> list[str]:
        return [token for drive in self.dataset.drives(SPLIT) for token in drive.tokens]


def write_street(folder: Path, *, num_scenes: int = 2, num_frames: int = 6, seed: int = 3) -> Street:
    """Scenes sim-0001, ... as version v1.0-simulated with the split simulated_val, and detections.json."""
    scenes = simulate_scenes(num_scenes, seed=seed, num_frames=num_frames)
    root = folder / "data"
    write_nuscenes(root, scenes, version=VERSION, splits={SPLIT: [scene.name for scene in scenes], "first": [scenes[0].name]})
    dataset = NuScenes(root, VERSION, cache=folder / "cache")
    tokens = [token for drive in dataset.drives() for token in drive.tokens]
    found = [item for i, scene in enumerate(scenes) for item in simulate_detections(scene, np.random.default_rng(i))]
    write_submission(folder / "detections.json", [(t, detection_boxes(t, d)) for t, d in zip(tokens, found, strict=True)])
    return Street(root, folder / "detections.json", dataset)
