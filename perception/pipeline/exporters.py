"""What a run writes of each drive, frame by frame: Parquet for planners, nuScenes submissions for the official scores."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from perception.core.classes import NUSCENES_DETECTION
from perception.core.detections import Detections, Tracks
from perception.core.frame import Frame
from perception.evaluation.submission import (
    SubmissionWriter,
    best_boxes,
    detection_boxes,
    join_submissions,
    submission_writer,
    tracking_boxes,
)
from perception.export import SCHEMAS, DriveWriter, drive_file, drive_writer


@dataclass(frozen=True)
class Moment:
    """What is known of one frame at its end: its number in the run's drive, and its objects in the global frame."""

    number: int
    frame: Frame
    detections: Detections
    tracks: Tracks | None


class Sink(Protocol):
    """Takes the moments of one drive in order. `num_boxes` is what a submission holds of them so far."""

    @property
    def num_boxes(self) -> int: ...

    def add(self, moment: Moment) -> None: ...


class Exporter(Protocol):
    """Files of one kind for each drive of a run. A drive's files appear complete or not at all."""

    def open_drive(self, drive: str) -> AbstractContextManager[Sink]: ...

    def has_drive(self, drive: str) -> bool:
        """Whether the files of a drive are there, as they are after `open_drive` has ended without an error."""
        ...

    def finish(self, drives: list[str]) -> None:
        """Write what covers all drives; those named are the finished ones, in order."""
        ...

    def is_finished(self, drives: list[str]) -> bool:
        """Whether all is there that `finish` leaves behind."""
        ...


@dataclass(frozen=True)
class Target:
    """Where a run is written and what is written into it.

    out          the run's folder
    aside        folder for what is needed only until the run is finished
    config_hash  of the resolved configuration, for each row
    tasks        "detection", "tracking": what the run makes and submits
    meta         of the submissions: which sensors were used
    has_tracks   whether there is a tracker
    """

    out: Path
    aside: Path
    config_hash: str
    tasks: tuple[str, ...]
    meta: dict[str, Any] | None
    has_tracks: bool


class ParquetExporter:
    """OUT/detections, OUT/tracks (coasted ones included) and OUT/frames with a Parquet file a drive."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._kinds = ("detections", "tracks", "frames") if target.has_tracks else ("detections", "frames")

    @contextmanager
    def open_drive(self, drive: str) -> Iterator["_ParquetSink"]:
        with ExitStack() as stack:
            paths = {kind: self._path(kind, drive) for kind in self._kinds}
            yield _ParquetSink(
                {kind: stack.enter_context(drive_writer(path, kind, drive, self._target.config_hash)) for kind, path in paths.items()}
            )

    def has_drive(self, drive: str) -> bool:
        return all(self._path(kind, drive).is_file() for kind in self._kinds)

    def finish(self, drives: list[str]) -> None:
        """Nothing covers all drives."""

    def is_finished(self, drives: list[str]) -> bool:
        return all(map(self.has_drive, drives))

    def _path(self, kind: str, drive: str) -> Path:
        return self._target.out / kind / drive_file(drive)


@dataclass
class _ParquetSink:
    files: dict[str, DriveWriter]
    num_boxes: int = 0

    def add(self, moment: Moment) -> None:
        number, frame = moment.number, moment.frame
        self.files["detections"].add_objects(number, frame.timestamp_us, moment.detections, frame.ego_to_global)
        if moment.tracks is not None:
            self.files["tracks"].add_objects(number, frame.timestamp_us, moment.tracks, frame.ego_to_global)
        self.files["frames"].add_frame(number, frame.timestamp_us, frame.token, frame.ego_to_global)


class SubmissionExporter:
    """OUT/nuscenes/detections.json and tracks.json (seen boxes only: the official metric bridges gaps itself).

    Until the run is finished each drive has a submission of its own, which the whole is put together from.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    @contextmanager
    def open_drive(self, drive: str) -> Iterator["_SubmissionSink"]:
        with ExitStack() as stack:
            paths = {task: self._part(task, drive) for task in self._target.tasks}
            writers = {task: stack.enter_context(submission_writer(path, meta=self._target.meta)) for task, path in paths.items()}
            yield _SubmissionSink(writers, prefix=f"{drive}-")

    def has_drive(self, drive: str) -> bool:
        return all(self._part(task, drive).is_file() for task in self._target.tasks)

    def finish(self, drives: list[str]) -> None:
        for task in self._target.tasks:
            parts = [self._part(task, drive) for drive in drives]
            join_submissions(submission_path(self._target.out, task), parts, meta=self._target.meta)

    def is_finished(self, drives: list[str]) -> bool:  # noqa: ARG002
        return all(submission_path(self._target.out, task).is_file() for task in self._target.tasks)

    def _part(self, task: str, drive: str) -> Path:
        return self._target.aside / task / drive_file(drive).replace(".parquet", ".json")


@dataclass
class _SubmissionSink:
    writers: dict[str, SubmissionWriter]
    prefix: str

    @property
    def num_boxes(self) -> int:
        """Boxes of the last task, which is what the run is about."""
        return list(self.writers.values())[-1].num_boxes

    def add(self, moment: Moment) -> None:
        token = moment.frame.token
        if "detection" in self.writers:
            found = moment.detections.with_classes(NUSCENES_DETECTION)
            self.writers["detection"].add(token, detection_boxes(token, best_boxes(found)))
        if "tracking" in self.writers and moment.tracks is not None:
            seen = moment.tracks[~moment.tracks.coasted]
            self.writers["tracking"].add(token, tracking_boxes(token, seen, prefix=self.prefix))


EXPORTERS: dict[str, Callable[[Target], Exporter]] = {"parquet": ParquetExporter, "nuscenes": SubmissionExporter}


def submission_path(out: Path, task: str) -> Path:
    """Where the submission of a task lies in a run's folder."""
    return out / "nuscenes" / {"detection": "detections.json", "tracking": "tracks.json"}[task]


def remove_results(out: Path, drives: Iterable[str]) -> None:
    """Take away what exporters wrote of drives into a run's folder, and what covers them all."""
    for drive in drives:
        for kind in SCHEMAS:
            (out / kind / drive_file(drive)).unlink(missing_ok=True)
    for task in ("detection", "tracking"):
        submission_path(out, task).unlink(missing_ok=True)
