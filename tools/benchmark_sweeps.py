"""Ten sweeps of a lidar on disk, ours and the official devkit's way into one cloud: `python tools/benchmark.py sweeps`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import generate_tables
import numpy as np

from perception.core.errors import require_package
from perception.drives import NuScenes, accumulate_sweeps

NUM_SWEEPS, NUM_POINTS, VERSION = 10, 34_688, "v1.0-trainval"  # points of a real file


@dataclass(frozen=True)
class SweepsCase:
    """Both candidates, for the same key frame; each reads its ten files and gives one cloud."""

    ours: Callable[[], object]
    devkit: Callable[[], object]
    num_points: int


def ten_sweeps_on_disk(root: Path, seed: int = 0) -> SweepsCase:
    """A generated scene under `root` with the lidar files of its third key frame and the nine sweeps before it."""
    devkit = require_package("nuscenes.nuscenes", extra="eval", why="the peer").NuScenes
    peer_cloud = require_package("nuscenes.utils.data_classes", extra="eval", why="the peer").LidarPointCloud
    generate_tables.generate(root, scenes=1, seed=seed, version=VERSION, detections=None)
    frame = NuScenes(root, cache=root / "cache", cameras=False, truth=False).drives()[0][2]
    peer = devkit(VERSION, str(root), verbose=False)
    sample = peer.get("sample", frame.token)
    record, rng = peer.get("sample_data", sample["data"]["LIDAR_TOP"]), np.random.default_rng(seed)
    for _ in range(NUM_SWEEPS):
        path = root / record["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lidar_rows(rng).tobytes())
        record = peer.get("sample_data", record["prev"])
    return SweepsCase(
        ours=lambda: accumulate_sweeps(frame, NUM_SWEEPS),
        devkit=lambda: peer_cloud.from_file_multisweep(peer, sample, "LIDAR_TOP", "LIDAR_TOP", nsweeps=NUM_SWEEPS),
        num_points=NUM_SWEEPS * NUM_POINTS,
    )


def lidar_rows(rng: np.random.Generator) -> np.ndarray:
    """(NUM_POINTS, 5) float32 x, y, z, intensity, ring: a tenth of the points on the own roof, the rest up to 60 m away."""
    distance = np.where(rng.random(NUM_POINTS) < 0.1, rng.uniform(0, 1, NUM_POINTS), rng.uniform(3, 60, NUM_POINTS))
    azimuth = rng.uniform(-np.pi, np.pi, NUM_POINTS)
    columns = [distance * np.cos(azimuth), distance * np.sin(azimuth), rng.normal(-1, 1, NUM_POINTS)]
    return np.column_stack([*columns, rng.integers(0, 256, NUM_POINTS), rng.integers(0, 32, NUM_POINTS)]).astype("<f4")
