"""What the cameras add to a run: instances of each frame, fused with its points; and instances written once, for later runs."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perception.core.errors import DataError, UsageError
from perception.core.frame import Drive, Frame
from perception.core.masks import PictureMasks, write_masks
from perception.export import drive_file
from perception.fusion import Instances, InstancesConfig, InstanceSource, VirtualPointsSettings, build_source, fused_cloud
from perception.pipeline.record import named_hash

CAMERA_META = {"use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
_PATHS = ("path", "weights", "config")  # settings that say where a file lies; what is in it stands among the inputs


@dataclass
class Fusion:
    """Frames to clouds of real, painted and virtual points. Nothing of it is kept on disk.

    source    of the instances in the frame's pictures
    settings  of the virtual points
    seconds   "instances" and "virtual points" so far: spent where frames are read
    """

    source: InstanceSource
    settings: VirtualPointsSettings
    seconds: dict[str, float] = field(default_factory=lambda: {"instances": 0.0, "virtual points": 0.0})

    @classmethod
    def from_config(cls, config: InstancesConfig) -> "Fusion":
        return cls(build_source(config), config.virtual_points)

    def read(self, frame: Frame, num_sweeps: int, *, within: float | None = None) -> np.ndarray:
        """(P, 16) float32, see `fused_cloud`. DataError for a frame without cameras, and as source and clouds say."""
        if not frame.cameras:
            raise DataError(f"frame {frame.token}: expected cameras, whose pictures show the instances, got none")
        start = time.perf_counter()
        instances = self.source.find(frame.cameras)
        between = time.perf_counter()
        rows = fused_cloud(frame, instances, num_sweeps, self.settings, within=within)
        self.seconds["instances"] += between - start
        self.seconds["virtual points"] += time.perf_counter() - between
        return rows


def instances_identity(config: InstancesConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """For run.json: the settings without paths, and name and hash of what the paths lead to."""
    values = config.model_dump(mode="json")
    source = values["instances"]
    inputs = {}
    for key in _PATHS:
        if (text := source.pop(key, None)) is not None:
            inputs[key] = _hash_of(Path(text), is_drives=source["name"] == "simulated")
    source.pop("device", None)
    return values, inputs


def _hash_of(path: Path, *, is_drives: bool) -> dict[str, str]:
    """A file, or all masks in a folder; with `is_drives` in that of simulated drives."""
    if path.is_file():
        return named_hash(path)
    folder = path / "masks" if is_drives and (path / "masks").is_dir() else path
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(folder.glob("*.json")):
        digest.update(f"{file.name} {named_hash(file)['blake2b']}\n".encode())
    return {"name": path.name, "blake2b": digest.hexdigest()}


def write_instances(
    drives: Sequence[Drive],
    source: InstanceSource,
    out: Path,
    *,
    after_frame: Callable[[str, int, int | None], None] = lambda _name, _done, _total: None,
) -> list[tuple[Path, int, int]]:
    """What a source finds in the pictures of all frames, in a file a drive that the source "file" reads; a run need not look again.

    out          a folder; or, for one drive, a file *.json
    after_frame  called after each frame with its drive, the number done and the total of the drive
    Returns of each file its path, the number of pictures and of instances. A file appears when its drive is finished. Raises UsageError for
    several drives and one file, DataError for a drive without cameras, and what source and drive raise.
    """
    out = Path(out)
    if out.suffix == ".json" and len(drives) > 1:
        raise UsageError(f"{out}: expected a folder for the {len(drives)} drives, got a file; or choose one with --drive")
    written = []
    for drive in drives:
        path = out if out.suffix == ".json" else out / Path(drive_file(drive.name)).with_suffix(".json").name
        pictures, num_cameras = list[PictureMasks](), 0
        for number, frame in enumerate(drive, start=1):
            pictures += _pictures(frame, source.find(frame.cameras))
            num_cameras += len(frame.cameras)
            after_frame(drive.name, number, _length(drive))
        if not pictures:
            got = f"{num_cameras} pictures, none of which the source knows" if num_cameras else "none"
            raise DataError(f"drive {drive.name}: expected frames with cameras that show instances, got {got}")
        write_masks(path, pictures, info={"description": f"instances of {drive.name}"})
        written.append((path, len(pictures), sum(len(picture) for picture in pictures)))
    return written


def _pictures(frame: Frame, found: dict[str, Instances]) -> list[PictureMasks]:
    """As a file has them: known by token, or by camera and time where the recording has no tokens."""
    cameras = frame.cameras
    return [shown.to_picture(cameras[name].token, frame.token, f"{name}/{cameras[name].timestamp_us}") for name, shown in found.items()]


def _length(drive: Drive) -> int | None:
    try:
        return len(drive)
    except TypeError:
        return None
