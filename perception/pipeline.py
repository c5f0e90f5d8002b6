"""From detections to tracks to files, one frame at a time."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import perception
from perception.core.detections import Detections
from perception.core.errors import DataError
from perception.core.files import write_bytes
from perception.drives.nuscenes import NuScenes, NuScenesDrive, OnMissing
from perception.evaluation.submission import Submission, tracking_boxes, write_submission
from perception.evaluation.validation import validate_submission
from perception.export import SCHEMA_VERSION, drive_file, drive_writer
from perception.tracking import Tracker, TrackerConfig, build_tracker


@dataclass
class Counts:
    """What a run of the tracker saw and wrote."""

    drives: int = 0
    frames: int = 0
    detections: int = 0
    tracks: int = 0
    boxes_written: int = 0
    frames_missing: int = 0
    samples_foreign: int = 0


@dataclass
class RunReport:
    """The result of a run: where it lies, what was counted, seconds per stage."""

    out: Path
    submission: Path
    counts: Counts = field(default_factory=Counts)
    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "track": 0.0, "write": 0.0})

    def add_seconds(self, stage: str, since: float) -> None:
        """Add the time since a `perf_counter` reading to a stage."""
        self.seconds[stage] += time.perf_counter() - since


def track_submission(
    detections: Path,
    dataset: NuScenes,
    out: Path,
    *,
    config: TrackerConfig,
    split: str | None = None,
    on_missing: OnMissing = "error",
    advance: Callable[[str, int, int], None] | None = None,
) -> RunReport:
    """Track the detections of a nuScenes submission and write a run's folder.

    detections  a detection submission
    split       track all drives of this split; without it those that the submission has samples of
    on_missing  a sample of a tracked drive without an entry in the file: DataError ("error"), not a frame of the run ("skip"), a frame
                without detections ("empty"); also whether samples that the version does not know stop the run ("error") or are counted
    advance     called after each drive with its name, the number done and the total
    Writes OUT/nuscenes/tracks.json (seen boxes only: the official metric bridges gaps itself), OUT/detections, OUT/tracks (coasted ones
    included) and OUT/frames with a Parquet file a drive and, last, OUT/run.json; each file appears complete or not at all.
    """
    report = RunReport(out, out / "nuscenes" / "tracks.json")
    start = time.perf_counter()
    submission = _read_detections(detections)
    drives = _drives_of(submission, detections, dataset, split, on_missing, report.counts)
    (out / "run.json").unlink(missing_ok=True)  # from here on, until the new one is written, this is no finished run
    report.add_seconds("read", start)

    resolved = config.model_dump(mode="json")
    config_hash = hashlib.blake2b(json.dumps(resolved, sort_keys=True).encode(), digest_size=8).hexdigest()
    tracker = build_tracker(config)

    def boxes_of_all_samples() -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for done, drive in enumerate(drives, start=1):
            yield from _track_drive(drive, submission, tracker, report, config_hash, on_missing)
            if advance:
                advance(drive.name, done, len(drives))

    start = time.perf_counter()
    report.counts.boxes_written = write_submission(report.submission, boxes_of_all_samples(), meta=submission.meta or None)
    report.add_seconds("write", start + report.seconds["track"])  # frames are tracked while they are written
    info = {
        "schema_version": SCHEMA_VERSION,
        "command": "track",
        "versions": {"perception": perception.__version__, "python": platform.python_version(), "numpy": np.__version__},
        "config": resolved,
        "config_hash": config_hash,
        "inputs": {
            "detections": {"name": detections.name, "blake2b": _file_hash(detections)},
            "dataset": {"version": dataset.version, "split": split},
        },
        "drives": [drive.name for drive in drives],
        "counts": asdict(report.counts),
        "seconds": {stage: round(value, 3) for stage, value in report.seconds.items()},
    }
    write_bytes(out / "run.json", json.dumps(info, indent=2).encode() + b"\n")
    return report


def _read_detections(path: Path) -> Submission:
    """A detection submission without faults of form or value."""
    submission, faults = validate_submission(path)
    if submission.task != "detection":
        raise DataError(f"{path}: expected a detection submission, got one of tracks")
    faults = [fault for fault in faults if "expected at most" not in fault.what]  # the tracker does not mind more than 500 boxes
    if faults:
        more = f" (and {len(faults) - 1} more; `perception validate` lists all)" if len(faults) > 1 else ""
        raise DataError(f"{path}: {faults[0]}{more}")
    return submission


def _drives_of(
    submission: Submission, path: Path, dataset: NuScenes, split: str | None, on_missing: OnMissing, counts: Counts
) -> list[NuScenesDrive]:
    """The drives to track: those of the split, or those that the submission has samples of."""
    known = dataset.index.sample_row
    foreign = [token for token in submission.tokens if token not in known]
    counts.samples_foreign = len(foreign)
    if foreign and (on_missing == "error" or len(foreign) == len(submission.tokens)):
        raise DataError(
            f"{path}: {len(foreign)} of its {len(submission.tokens)} samples are not in {dataset.version}, first {foreign[0]}; "
            "is it the right version?"
        )
    if split is not None:
        return dataset.drives(split)
    scene_of = dataset.index.numbers("sample", "scene")
    scenes = np.unique([scene_of[known[token]] for token in submission.tokens if token in known]).astype(int)
    return [dataset.drive(name) for name in np.array(dataset.scene_names)[scenes]]


def _track_drive(
    drive: NuScenesDrive, submission: Submission, tracker: Tracker, report: RunReport, config_hash: str, on_missing: OnMissing
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Track one drive into its Parquet files; yields (sample token, boxes) for the submission."""
    counts, file = report.counts, drive_file(drive.name)
    kinds = ("detections", "tracks", "frames")
    files = [drive_writer(report.out / kind / file, kind, drive.name, config_hash) for kind in kinds]
    tracker.reset()
    with files[0] as detection_file, files[1] as track_file, files[2] as frame_file:
        number, seen_ids = 0, set()
        for frame in drive:
            if frame.token in submission.sample_row:
                detections = submission.detections(frame.token)
            else:
                counts.frames_missing += 1
                if on_missing == "error":
                    raise DataError(
                        f"drive {drive.name}: sample {frame.token} has no entry in the detections; "
                        "--on-missing skip or empty goes on without it"
                    )
                if on_missing == "skip":
                    continue
                detections = Detections.empty(submission.classes)
            start = time.perf_counter()
            tracks = tracker.update(detections, frame.timestamp_us)
            report.add_seconds("track", start)
            seen_ids.update(tracks.track_id.tolist())
            detection_file.add_objects(number, frame.timestamp_us, detections, frame.ego_to_global)
            track_file.add_objects(number, frame.timestamp_us, tracks, frame.ego_to_global)
            frame_file.add_frame(number, frame.timestamp_us, frame.token, frame.ego_to_global)
            number += 1
            counts.detections += len(detections)
            yield frame.token, tracking_boxes(frame.token, tracks[~tracks.coasted], prefix=f"{drive.name}-")
        counts.frames += number
        counts.drives += 1
        counts.tracks += len(seen_ids)


def _file_hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
