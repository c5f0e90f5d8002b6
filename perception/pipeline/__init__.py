"""From points or detections to tracks to files, one frame at a time."""

from perception.pipeline.cameras import Fusion, write_instances
from perception.pipeline.exporters import EXPORTERS, Exporter, Moment
from perception.pipeline.pipeline import Detector, Pipeline
from perception.pipeline.record import Counts
from perception.pipeline.recording import DrivesOf, Job, Model, open_chosen, run_recording
from perception.pipeline.run import Options, RunReport, run_drives
from perception.pipeline.track import track_submission

__all__ = [
    "EXPORTERS",
    "Counts",
    "Detector",
    "DrivesOf",
    "Exporter",
    "Fusion",
    "Job",
    "Model",
    "Moment",
    "Options",
    "Pipeline",
    "RunReport",
    "open_chosen",
    "run_drives",
    "run_recording",
    "track_submission",
    "write_instances",
]
