"""Submissions, their faults, the official scores, and curves of found and false objects."""

from perception.evaluation.curves import Curve, OperatingPoint, Outcome, average_precisions, judge, overlapping, within
from perception.evaluation.official import Scores, evaluate_officially, format_scores, read_scores
from perception.evaluation.submission import (
    LIDAR_META,
    Fault,
    Submission,
    best_boxes,
    detection_boxes,
    join_submissions,
    read_submission,
    submission_writer,
    tracking_boxes,
    write_submission,
)
from perception.evaluation.validation import validate_submission

__all__ = [
    "LIDAR_META",
    "Curve",
    "Fault",
    "OperatingPoint",
    "Outcome",
    "Scores",
    "Submission",
    "average_precisions",
    "best_boxes",
    "detection_boxes",
    "evaluate_officially",
    "format_scores",
    "join_submissions",
    "judge",
    "overlapping",
    "read_scores",
    "read_submission",
    "submission_writer",
    "tracking_boxes",
    "validate_submission",
    "within",
    "write_submission",
]
