"""Submissions, their faults, and the official scores."""

from perception.evaluation.official import Scores, evaluate_officially, format_scores, read_scores
from perception.evaluation.submission import Fault, Submission, detection_boxes, read_submission, tracking_boxes, write_submission
from perception.evaluation.validation import validate_submission

__all__ = [
    "Fault",
    "Scores",
    "Submission",
    "detection_boxes",
    "evaluate_officially",
    "format_scores",
    "read_scores",
    "read_submission",
    "tracking_boxes",
    "validate_submission",
    "write_submission",
]
