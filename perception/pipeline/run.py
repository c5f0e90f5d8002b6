"""Drives to a run's folder: read ahead, detected, tracked and written frame by frame; what is finished is never computed again."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from perception.core.errors import PerceptionError, UsageError, nearest_hint
from perception.core.frame import Drive, Frame
from perception.drives import KittiDrive, NuScenesDrive, prefetch
from perception.pipeline.cameras import CAMERA_META, Fusion
from perception.pipeline.exporters import EXPORTERS, Exporter, Moment, Target, submission_path
from perception.pipeline.pipeline import Detector, Pipeline, Steps
from perception.pipeline.record import ASIDE, Counts, Identity, Record
from perception.tracking import Tracker

Advance = Callable[[str, int, int | None], None]
_FAILURES = (PerceptionError, OSError, MemoryError, RuntimeError)  # the last is torch's, a GPU's memory that is full among them


@dataclass
class RunReport:
    """The result of a run: where it lies, what was counted, seconds per stage.

    submissions  the nuScenes submissions, that of the tracks last; none where the drives have no sample tokens
    failed       drive -> what went wrong with it
    resumed      how many drives an earlier call had finished
    seconds      by stage, of all calls; `call_seconds` of this one
    """

    out: Path
    submissions: list[Path]
    counts: Counts = field(default_factory=Counts)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    resumed: int = 0
    call_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def submission(self) -> Path:
        """The submission of the tracks, or of the detections where nothing was tracked. UsageError where there is none."""
        if not self.submissions:
            raise UsageError(f"{self.out}: expected a run with a nuScenes submission; its drives have no sample tokens")
        return self.submissions[-1]


@dataclass
class Clock:
    """Seconds per stage of one call."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage; what fails counts too."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Options:
    """How a run goes on where not all is well, and what it tells.

    resume       go on from what an earlier call with the same identity left behind; a finished drive is not computed again
    stop         the first failure of a drive ends the run; without it the others go on and the failed ones are named
    ahead        frames that are read before they are needed, 0: none, and no thread
    after_frame  called after each frame with its drive, the number done and the total of this call (None where a drive does not know)
    after_drive  called after each drive with its name, the number done and the total
    num_missing  () -> frames that the reader has found without their file so far
    """

    resume: bool = False
    stop: bool = False
    ahead: int = 2
    after_frame: Advance | None = None
    after_drive: Advance | None = None
    num_missing: Callable[[], int] = lambda: 0


def run_drives(
    drives: Sequence[Drive],
    detector: Detector,
    tracker: Tracker | None,
    out: Path | str,
    *,
    num_sweeps: int | None = None,
    config: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
    exporters: Sequence[str] | None = None,
    meta: dict[str, Any] | None = None,
    options: Options | None = None,
    fusion: Fusion | None = None,
) -> RunReport:
    """Detect and track the objects of drives and write a run's folder: `run_drives(open_drives(root), detector, build_tracker(), "out")`.

    drives      of any reader, with names that differ
    tracker     None where only detections are wanted
    num_sweeps  turns of the lidar in a cloud; without it as many as the detector asks for
    config      for run.json; without it what the parts' own `config` says
    inputs      for run.json: names and hashes of what was read
    exporters   names of EXPORTERS; without them Parquet, and nuScenes submissions where all drives have sample tokens
    meta        of the submissions; without it lidar only, or lidar and cameras where there is a `fusion`
    fusion      how the cameras take part, for a detector of virtual points
    Writes OUT/detections, OUT/tracks and OUT/frames with a Parquet file a drive, OUT/nuscenes and, last, OUT/run.json; each file appears
    complete or not at all. A drive that fails (a file that cannot be read) is left out and named in the report and in run.json.
    Raises UsageError where `resume` is asked for and config, inputs or drives are not those of the run in the folder.
    """
    pipeline = Pipeline(detector, tracker, num_sweeps=num_sweeps, fusion=fusion)
    if meta is None and fusion is not None:
        meta = CAMERA_META
    if exporters is None:
        exporters = ["parquet", "nuscenes"] if drives and all(isinstance(drive, NuScenesDrive) for drive in drives) else ["parquet"]
    parts = {"detector": _settings(detector)} | ({} if tracker is None else {"tracker": _settings(tracker)})
    config = {**(parts if config is None else config), "num_sweeps": pipeline.num_sweeps}
    identity = Identity("detect" if tracker is None else "run", config, inputs or {}, [drive.name for drive in drives])
    tasks = ("detection",) if tracker is None else ("detection", "tracking")
    return run_steps(pipeline, drives, Path(out), identity=identity, exporters=exporters, tasks=tasks, meta=meta, options=options)


def run_steps(
    steps: Steps,
    drives: Sequence[Drive],
    out: Path,
    *,
    identity: Identity,
    exporters: Sequence[str],
    tasks: tuple[str, ...],
    meta: dict[str, Any] | None = None,
    options: Options | None = None,
    clock: Clock | None = None,
    counts: Counts | None = None,
) -> RunReport:
    """Any steps over any drives into a run's folder, as `run_drives` says.

    tasks   of the submissions; their last one is the report's
    clock   goes on from what was measured before
    counts  are added to those of the drives
    """
    options, clock = options or Options(), clock or Clock()
    writers = _exporters(exporters, Target(out, out / ASIDE, identity.config_hash, tasks, meta, steps.tracker is not None))
    _expect_different(identity.drives)
    record = Record.resume(out, identity) if options.resume else None
    if record is None:
        record = Record.start(out, identity)
    record.call = clock.seconds
    todo = _unfinished(drives, record, writers)
    resumed = len(drives) - len(todo)
    if not record.is_complete:
        _run_all(steps, todo, record, writers, options, clock)
        with clock.stage("write"):
            for writer in writers:
                writer.finish(record.finished)
    total = record.counts
    total.add(counts or Counts())
    if not record.is_complete:
        record.finish(total)
    submissions = [submission_path(out, task) for task in tasks] if "nuscenes" in exporters else []
    return RunReport(out, submissions, total, record.seconds, record.failed, resumed, dict(clock.seconds))


def _run_all(steps: Steps, drives: Sequence[Drive], record: Record, writers: list[Exporter], options: Options, clock: Clock) -> None:
    """Each drive into its files; the finished and the failed are noted."""
    total, done = _num_frames(drives), 0
    for number, drive in enumerate(drives, start=1):
        first, started_us = done, time.time_ns() // 1000

        def tell(count: int, name: str = drive.name, first: int = first) -> None:
            if options.after_frame:
                options.after_frame(name, first + count, total)

        try:
            counts, frames_hash = _run_drive(steps, drive, writers, options, clock, tell)
        except _DriveFailedError as failure:
            if options.stop:
                raise _of_drive(failure.error, drive.name) from failure.error
            record.failed[drive.name] = _one_line(failure.error)
            record.save()
        else:
            with clock.stage("write"):
                record.finish_drive(drive.name, counts, frames_hash, started_us)
        done += 0 if total is None else len(drive)
        if options.after_drive:
            options.after_drive(drive.name, number, len(drives))


def _run_drive(
    steps: Steps, drive: Drive, writers: list[Exporter], options: Options, clock: Clock, tell: Callable[[int], None]
) -> tuple[Counts, str]:
    """One drive into its files. Raises _DriveFailedError for what happens before anything is written, other errors as they are."""
    counts, missing_before, digest = Counts(drives=1), options.num_missing(), _FramesHash()
    if steps.tracker is not None:
        steps.tracker.reset()
    alive: set[int] = set()
    with ExitStack() as stack:
        sinks = []
        with clock.stage("write"):
            sinks = [stack.enter_context(writer.open_drive(drive.name)) for writer in writers]
        for frame, read in _ahead(steps, drive, options.ahead, clock):
            digest.add(frame)
            with _failing():
                with clock.stage("detect"):
                    detections = steps.detect(frame, read)
                if detections is None:
                    continue
                with clock.stage("track"):
                    tracks = None if steps.tracker is None else steps.tracker.update(detections, frame.timestamp_us)
            with clock.stage("write"):
                for sink in sinks:
                    sink.add(Moment(counts.frames, frame, detections, tracks))
            counts.frames += 1
            counts.detections += len(detections)
            now = set() if tracks is None else set(tracks.track_id.tolist())
            counts.tracks += len(now - alive)  # a track that is not there in one frame has ended
            alive = now
            tell(counts.frames)
        start = time.perf_counter()
    clock.seconds["write"] += time.perf_counter() - start  # the files get their names
    counts.boxes_written = sum(sink.num_boxes for sink in sinks)
    counts.frames_missing = options.num_missing() - missing_before
    return counts, digest.value


def _ahead(steps: Steps, drive: Drive, ahead: int, clock: Clock) -> Iterator[tuple[Frame, Any]]:
    """The frames of a drive and what was read for them, by a thread that works ahead; _DriveFailedError where that goes wrong."""

    def read_all() -> Iterator[tuple[Frame, Any]]:
        frames = iter(drive)
        while True:
            with clock.stage("read"):
                frame = next(frames, None)
                if frame is None:
                    return
                read = steps.read(frame)
            yield frame, read
            del frame, read  # before the next one is read: they are most of the memory

    items = iter(prefetch(read_all(), ahead) if ahead else read_all())
    while True:
        with _failing():
            if not ahead:
                item = next(items, None)
            else:
                with clock.stage("wait"):
                    item = next(items, None)
        if item is None:
            return
        yield item
        del item


class _DriveFailedError(Exception):
    """A drive cannot be finished; the others can."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _failing() -> Iterator[None]:
    """What goes wrong inside is the drive's fault, not that of the files that are written."""
    try:
        yield
    except _FAILURES as error:
        raise _DriveFailedError(error) from error


class _FramesHash:
    """Of the tokens, times and poses of a drive's frames, which tells whether a drive is still the one that a run has seen."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, frame: Frame) -> None:
        self._digest.update(f"{frame.token}\0{frame.timestamp_us}\0".encode())
        self._digest.update(frame.lidar_to_ego.matrix.tobytes() + frame.ego_to_global.matrix.tobytes())

    @property
    def value(self) -> str:
        return self._digest.hexdigest()


def _unfinished(drives: Sequence[Drive], record: Record, writers: list[Exporter]) -> list[Drive]:
    """The drives that must be computed. UsageError where a finished one has other frames than it had."""
    if record.is_complete and not all(writer.is_finished(record.finished) for writer in writers):
        record.by_drive, record.is_complete = {}, False  # what the whole was put together from is gone
    todo = []
    for drive in drives:
        known = record.by_drive.get(drive.name)
        if known is None or not (record.is_complete or all(writer.has_drive(drive.name) for writer in writers)):
            record.by_drive.pop(drive.name, None)
            todo.append(drive)
            continue
        if difference := _changed_input(drive, known["frames_hash"], record.started_us.get(drive.name, 0)):
            raise UsageError(f"{record.out}: this run cannot be resumed: {difference}; leave out --resume to start over")
    return todo


def _changed_input(drive: Drive, frames_hash: str, started_us: int) -> str:
    """What has happened to a drive since it was read, "" for nothing. Clouds are not read again: the times of their files tell."""
    digest = _FramesHash()
    for frame in drive:
        digest.add(frame)
    if digest.value != frames_hash:
        return f"the frames of drive {drive.name} have other tokens, times or poses than before"
    if isinstance(drive, NuScenesDrive | KittiDrive):
        newer = next((path for path in drive.lidar_paths if _modified_us(path) > started_us), None)
        if newer is not None:
            return f"{newer} has changed since drive {drive.name} was read"
    return ""


def _modified_us(path: Path) -> int:
    """When a file was written, 0 where there is none (whether that is an error was decided when the drive was read)."""
    try:
        return path.stat().st_mtime_ns // 1000
    except OSError:
        return 0


def _exporters(names: Iterable[str], target: Target) -> list[Exporter]:
    for name in names:
        if name not in EXPORTERS:
            raise UsageError(f"exporter {name!r}: expected one of {', '.join(EXPORTERS)}{nearest_hint(name, list(EXPORTERS))}")
    return [EXPORTERS[name](target) for name in names]


def _expect_different(names: list[str]) -> None:
    if not names:
        raise UsageError("run: expected at least one drive, got none")
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UsageError(f"run: expected drives of different names, got {twice!r} twice")


def _num_frames(drives: Sequence[Drive]) -> int | None:
    """The frames of all drives, None where one does not know its length or cannot be read (it will say so itself)."""
    try:
        return sum(len(drive) for drive in drives)
    except (TypeError, *_FAILURES):
        return None


def _settings(part: object) -> dict[str, Any]:
    """A part's settings: its pydantic `config`, or the name of its class where it has none."""
    config = getattr(part, "config", None)
    return config.model_dump(mode="json") if isinstance(config, BaseModel) else {"class": type(part).__name__}


def _of_drive(error: Exception, drive: str) -> Exception:
    """The same error with the drive's name in its message, where the message is meant for users."""
    return type(error)(f"drive {drive}: {error}") if isinstance(error, PerceptionError) else error


def _one_line(error: Exception) -> str:
    """An error's message on one line, with its kind where the message is not meant for users."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PerceptionError) else f"{type(error).__name__}: {text}"
