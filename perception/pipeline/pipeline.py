"""The main job as it is read aloud: a frame's points, its detections, its tracks."""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from perception.core.detections import Detections, Tracks
from perception.core.errors import UsageError
from perception.core.frame import Frame
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform
from perception.detection.attributes import attributes_of
from perception.drives.sweeps import accumulate_sweeps
from perception.pipeline.cameras import Fusion
from perception.tracking import Tracker

_INTENSITY_TOP = 255.0


class Detector(Protocol):
    """What the pipeline asks of a detector: points of one moment in, objects out. It keeps nothing from one frame to the next.

    sweeps  turns of the lidar, the key sweep included, that its clouds hold (`accumulate_sweeps`)
    window  seconds of sweeps in a cloud, None where `sweeps` alone tells; may be missing
    detect  a cloud in the lidar frame, intensities 0..255, and how the lidar is mounted -> Detections in the EGO frame, velocities over
            ground. A `PointCloud`; rows (P, 16) of real and virtual points where cameras take part
    """

    @property
    def sweeps(self) -> int: ...

    def detect(self, cloud: Any, lidar_to_ego: Transform) -> Detections: ...


class Steps(Protocol):
    """The steps of a frame as a run takes them: `read` in a thread that works ahead, `detect` and the tracker in the order of time.

    read    what `detect` needs of the frame's files
    detect  the frame's objects in the global frame; None leaves the frame out of the run
    tracker  None where nothing is tracked
    """

    @property
    def tracker(self) -> Tracker | None: ...

    def read(self, frame: Frame) -> Any: ...

    def detect(self, frame: Frame, read: Any) -> Detections | None: ...


class Pipeline:
    """Points to tracks, frame by frame: `for frame in drive: tracks = pipeline.step(frame)`.

    detector    any `Detector`
    tracker     any `Tracker`; None where only detections are wanted
    num_sweeps  turns of the lidar in a cloud; without it as many as the detector asks for
    fusion      for a detector of virtual points: how the frames' cameras take part
    The frames of one drive come in the order of time; `reset()` begins another drive.
    """

    def __init__(
        self, detector: Detector, tracker: Tracker | None = None, *, num_sweeps: int | None = None, fusion: Fusion | None = None
    ) -> None:
        self.detector, self.tracker, self.fusion = detector, tracker, fusion
        self.num_sweeps = detector.sweeps if num_sweeps is None else num_sweeps
        if not isinstance(self.num_sweeps, int) or isinstance(self.num_sweeps, bool) or self.num_sweeps < 1:
            raise UsageError(f"num_sweeps: expected 1 or more, the key sweep included, got {self.num_sweeps!r}")
        self._window: float | None = getattr(detector, "window", None)

    def step(self, frame: Frame) -> Tracks:
        """One frame in, the tracks alive at it out (global frame). DataError for a cloud that cannot be read."""
        if self.tracker is None:
            raise UsageError("Pipeline.step: expected a tracker, this pipeline has none; its detect() gives detections")
        return self.tracker.update(self.detect(frame, self.read(frame)), frame.timestamp_us)

    def read(self, frame: Frame) -> PointCloud | np.ndarray:
        """The cloud that the detector looks at, in the frame's lidar frame, intensities on the scale 0..255 that detectors know."""
        if self.fusion is not None:
            return self.fusion.read(frame, self.num_sweeps, within=self._window)
        cloud = accumulate_sweeps(frame, self.num_sweeps, within=self._window)
        if frame.intensity_top != _INTENSITY_TOP:
            cloud.points[:, 3] *= np.float32(_INTENSITY_TOP / frame.intensity_top)  # in place: accumulation has made it for us
        return cloud

    def detect(self, frame: Frame, read: PointCloud | np.ndarray) -> Detections:
        """The objects in a frame's cloud, in the global frame; those without an attribute get one by their speed."""
        detections = self.detector.detect(read, frame.lidar_to_ego).transformed(frame.ego_to_global)
        if detections.attribute is None:
            attribute = attributes_of(detections.classes, detections.label, detections.boxes.velocity)
            detections = replace(detections, attribute=attribute)
        return detections

    def reset(self) -> None:
        """Begin another drive."""
        if self.tracker is not None:
            self.tracker.reset()
