"""Submissions, their faults, and the official scores."""

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
    "Fault",
    "Scores",
    "Submission",
    "best_boxes",
    "detection_boxes",
    "evaluate_officially",
    "format_scores",
    "join_submissions",
    "read_scores",
    "read_submission",
    "submission_writer",
    "tracking_boxes",
    "validate_submission",
    "write_submission",
]
