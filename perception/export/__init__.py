"""Files for planners: Parquet with a documented Arrow schema, written frame by frame, read back as values."""

from perception.export.parquet import DriveWriter, drive_writer
from perception.export.run import Run, RunDrive, RunFrame, open_run
from perception.export.schema import DETECTIONS, FRAMES, SCHEMA_VERSION, SCHEMAS, TRACKS, describe, drive_file

__all__ = [
    "DETECTIONS",
    "FRAMES",
    "SCHEMAS",
    "SCHEMA_VERSION",
    "TRACKS",
    "DriveWriter",
    "Run",
    "RunDrive",
    "RunFrame",
    "describe",
    "drive_file",
    "drive_writer",
    "open_run",
]
