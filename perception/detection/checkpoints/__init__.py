"""Weights: published files into ours (`convert`), ours into a state dict (`load`), and what a file holds (`describe`)."""

from perception.detection.checkpoints.convert import Conversion, convert
from perception.detection.checkpoints.describe import Description, describe
from perception.detection.checkpoints.source import Source, read_source
from perception.detection.checkpoints.store import Metadata, load, save

__all__ = ["Conversion", "Description", "Metadata", "Source", "convert", "describe", "load", "read_source", "save"]
