"""A run from paths and names: which recording, which detector, which tracker."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perception.core.errors import DataError, UsageError, require_package
from perception.core.frame import Drive
from perception.drives import Kitti, NuScenes, kind_of, open_dataset
from perception.drives.kitti_layout import find_recordings, folder_above
from perception.drives.nuscenes import expect_on_missing
from perception.fusion import InstancesConfig, load_source_config
from perception.pipeline.cameras import Fusion, instances_identity
from perception.pipeline.record import named_hash
from perception.pipeline.run import Options, RunReport, run_drives
from perception.tracking import build_tracker, load_tracker_config

if TYPE_CHECKING:
    from perception.detection import Detector, DetectorConfig


@dataclass(frozen=True)
class DrivesOf:
    """Which drives of a recording.

    root        folder of a data set (nuScenes layout, simulated drives among them; KITTI), or of one drive of KITTI's raw recordings
    version     nuScenes version, where there are several
    split       name of a split; all drives without it
    names       drives by name; all of the split without them
    on_missing  what becomes of a frame whose lidar file is not there: "error" (its drive fails), "skip" or "empty"
    """

    root: Path
    version: str | None = None
    split: str | None = None
    names: tuple[str, ...] = ()
    on_missing: str = "error"


@dataclass(frozen=True)
class Model:
    """Which detector.

    config   its settings: a YAML file, or the name of one that comes with the package
    weights  its weights (safetensors); without them, and without a seed, those that come with the settings
    seed     random weights in place of trained ones, for measurements and tests
    device   "cpu", "cuda", "cuda:1"
    dtype    of the network
    threads  of the CPU; all cores without it
    """

    config: Path | str
    weights: Path | None = None
    seed: int | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """What a run gave, and what it cost in this call.

    frames   that the detector has seen
    wall     seconds from the first frame's reading to the last file
    network  seconds by stage of the detector
    reading  seconds of what is more than reading files where frames are read: instances and virtual points
    """

    report: RunReport
    frames: int
    wall: float
    network: dict[str, float]
    reading: dict[str, float] = field(default_factory=dict)

    def profile(self) -> str:
        """A line a stage: name, milliseconds a frame, share of the wall clock.

        Reading goes on in a thread beside the rest: what the rest had to wait for it is a stage of its own.
        """
        seconds, count = self.report.call_seconds, max(self.frames, 1)
        network = {f"  {stage}": value for stage, value in self.network.items()}
        other = seconds.get("detect", 0.0) - sum(self.network.values())
        stages = {"wait for reading": seconds.get("wait", 0.0), "detect": seconds.get("detect", 0.0), **network, "  rest": other}
        stages |= {"track": seconds.get("track", 0.0), "write": seconds.get("write", 0.0), "all": self.wall}
        lines = [f"mean of {self.frames} frames", f"{'read (beside)':<23}{1e3 * seconds.get('read', 0.0) / count:>9.1f} ms"]
        lines += [f"{'  of it ' + stage:<23}{1e3 * s / count:>9.1f} ms" for stage, s in self.reading.items()]
        lines += [f"{stage:<23}{1e3 * s / count:>9.1f} ms{100 * s / (self.wall or 1):>6.0f} %" for stage, s in stages.items()]
        return "\n".join(lines)


def run_recording(
    drives: DrivesOf,
    model: Model,
    out: Path,
    *,
    tracker: Path | None = None,
    track: bool = True,
    instances: InstancesConfig | str | None = None,
    num_sweeps: int | None = None,
    options: Options | None = None,
    tell: Callable[[str], None] = lambda _text: None,
) -> Job:
    """`run_drives` over the drives of a recording with a detector of ours; run.json tells settings, weights and data set.

    tracker    settings of the tracker (YAML); without it those that come with the package
    track      False: detections only
    instances  what the cameras' pictures show, for a network of virtual points: settings, or a text as `load_source_config` takes it
    tell       called with one line about what takes long
    Raises UsageError for settings, names and devices that are not there, CheckpointError for weights that do not fit, DataError for a
    recording that cannot be opened; none of them leaves anything behind.
    """
    from perception.detection import load_detector_config, weights_beside

    settings = load_detector_config(model.config)
    is_virtual = bool(getattr(settings.detector.reader, "virtual", False))
    if is_virtual and instances is None:
        raise UsageError(f"{model.config}: this network reads virtual points (MVP): expected a source of instances, --instances SOURCE")
    if instances is not None and not is_virtual:
        raise UsageError(f"{model.config}: this network reads no virtual points: expected one that does (*_virtual), or no --instances")
    if model.weights is None and model.seed is None:
        model = replace(model, weights=weights_beside(model.config))
    tracking = load_tracker_config(tracker) if track else None
    chosen, inputs, num_missing = open_chosen(drives, tell, cameras=is_virtual)
    fusion, about_instances = None, {}
    if instances is not None:
        instances = load_source_config(instances, device=model.device) if isinstance(instances, str) else instances
        fusion = Fusion.from_config(instances)
        about_instances, inputs["instances"] = instances_identity(instances)

    detector = _build(model, settings)
    inputs["weights"] = {"seed": model.seed} if model.weights is None else named_hash(model.weights)
    config: dict[str, Any] = settings.model_dump(mode="json") | {"device": model.device.split(":")[0], "dtype": model.dtype}
    config |= about_instances
    if tracking is not None:
        config |= tracking.model_dump(mode="json")
    start = time.perf_counter()
    report = run_drives(
        chosen,
        detector,
        None if tracking is None else build_tracker(tracking),
        out,
        num_sweeps=num_sweeps,
        config=config,
        inputs=inputs,
        options=replace(options or Options(), num_missing=num_missing),
        fusion=fusion,
    )
    profile = detector.profile()
    return Job(report, profile.frames, time.perf_counter() - start, profile.seconds, {} if fusion is None else fusion.seconds)


def open_chosen(
    chosen: DrivesOf, tell: Callable[[str], None], *, cameras: bool = False
) -> tuple[list[Drive], dict[str, Any], Callable[[], int]]:
    """The drives, what run.json says of them, and () -> frames found without their lidar file so far."""
    on_missing, root, names = expect_on_missing(chosen.on_missing), chosen.root, chosen.names
    name = root.resolve().name
    if kind_of(root) == "kitti" and (above := folder_above(root)) and name in {item.name for item in find_recordings(above)}:
        root, names = above, names or (name,)  # one raw drive of KITTI
    dataset: NuScenes | Kitti = open_dataset(root, version=chosen.version, tell=tell, on_missing=on_missing, cameras=cameras, truth=False)
    drives: list[Drive] = list(dataset.drives(chosen.split))
    if names:
        of_split = {drive.name for drive in drives}
        drives = [dataset.drive(name) for name in dict.fromkeys(names)]
        foreign = [drive.name for drive in drives if drive.name not in of_split]
        if foreign:
            raise UsageError(f"drive {foreign[0]!r}: not in split {chosen.split!r}")
    if not drives:
        raise DataError(f"{root}: expected at least one drive, found none")
    kind = "kitti" if isinstance(dataset, Kitti) else dataset.version
    about = {"version": kind, "split": chosen.split, "on_missing": on_missing}
    return drives, {"dataset": about}, lambda: len(dataset.missing)


def _build(model: Model, settings: "DetectorConfig") -> "Detector":
    """The detector, on its device."""
    if model.weights is None and model.seed is None:
        expected = "expected weights (--weights FILE), or --seed N for random ones, which find nothing sensible"
        raise UsageError(f"{model.config}: {expected}; none come with these settings")
    if model.weights is not None and model.seed is not None:
        raise UsageError(f"{model.config}: expected weights or a seed for random ones, got both")
    torch = require_package("torch", extra="models", why="a detector")
    if model.threads is not None:
        if model.threads < 1:
            raise UsageError(f"threads: expected 1 or more, got {model.threads}")
        torch.set_num_threads(model.threads)  # the operators of cuda_ops follow
    from perception.detection import Detector

    return Detector.from_config(settings, weights=model.weights, seed=model.seed, device=model.device, dtype=model.dtype)
