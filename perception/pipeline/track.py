"""The run of a tracker over detections that a file has."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from perception.core.detections import Detections
from perception.core.errors import DataError
from perception.core.frame import Frame
from perception.drives.nuscenes import NuScenes, NuScenesDrive, OnMissing
from perception.evaluation.submission import Submission
from perception.evaluation.validation import validate_submission
from perception.pipeline.record import Counts, Identity, named_hash
from perception.pipeline.run import Clock, Options, RunReport, run_steps
from perception.tracking import TrackerConfig, build_tracker


def track_submission(
    detections: Path,
    dataset: NuScenes,
    out: Path,
    *,
    config: TrackerConfig,
    split: str | None = None,
    on_missing: OnMissing = "error",
    resume: bool = False,
    advance: Callable[[str, int, int | None], None] | None = None,
) -> RunReport:
    """Track the detections of a nuScenes submission and write a run's folder.

    detections  a detection submission
    split       track all drives of this split; without it those that the submission has samples of
    on_missing  a sample of a tracked drive without an entry in the file: DataError ("error"), not a frame of the run ("skip"), a frame
                without detections ("empty"); also whether samples that the version does not know stop the run ("error") or are counted
    resume      go on from what an earlier call left behind
    advance     called after each drive with its name, the number done and the total
    Writes what `run_drives` does, but for nuscenes/detections.json, which is there already.
    """
    clock, foreign = Clock({"read": 0.0, "track": 0.0, "write": 0.0}), Counts()
    with clock.stage("read"):
        submission = _read_detections(detections)
        drives = _drives_of(submission, detections, dataset, split, on_missing, foreign)
        steps = _SubmissionSteps(submission, config, on_missing)
        inputs = {
            "detections": named_hash(detections),
            "dataset": {"version": dataset.version, "split": split},
        }
    identity = Identity("track", config.model_dump(mode="json"), inputs, [drive.name for drive in drives])
    options = Options(resume=resume, stop=True, ahead=0, after_drive=advance, num_missing=lambda: steps.num_missing)
    return run_steps(
        steps,
        drives,
        out,
        identity=identity,
        exporters=["parquet", "nuscenes"],
        tasks=("tracking",),
        meta=submission.meta or None,
        options=options,
        clock=clock,
        counts=foreign,
    )


class _SubmissionSteps:
    """Detections looked up by sample token (`Steps`); no cloud is read."""

    def __init__(self, submission: Submission, config: TrackerConfig, on_missing: OnMissing) -> None:
        self.tracker = build_tracker(config)
        self.num_missing = 0
        self._submission, self._on_missing = submission, on_missing

    def read(self, frame: Frame) -> Detections | None:
        if frame.token in self._submission.sample_row:
            return self._submission.detections(frame.token)
        self.num_missing += 1
        if self._on_missing == "error":
            raise DataError(f"sample {frame.token} has no entry in the detections; --on-missing skip or empty goes on without it")
        return None if self._on_missing == "skip" else Detections.empty(self._submission.classes)

    def detect(self, frame: Frame, read: Detections | None) -> Detections | None:  # noqa: ARG002
        return read


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
