"""Every fault of a submission in one go: what the official evaluation would refuse, and what it would count wrongly without a word."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from perception.evaluation.submission import MAX_BOXES, Fault, Submission, read_submission


def validate_submission(path: Path, expected: list[str] | None = None) -> tuple[Submission, list[Fault]]:
    """Read a submission and list its faults, those of form first.

    expected  the sample tokens of the split; None leaves out the check for missing and foreign samples
    Raises DataError only where the file cannot be read at all.
    """
    faults: list[Fault] = []
    submission = read_submission(path, report=faults.append)
    faults += faults_of_values(submission)
    if expected is not None:
        faults += faults_of_samples(submission, expected)
    return submission, faults


def faults_of_values(submission: Submission) -> Iterator[Fault]:
    """Numbers that are not finite, sizes that are not positive, too many boxes, tracks that contradict themselves."""
    counts = np.diff(submission.offset)
    for token, numbers in submission.left_out.items():
        counts[submission.sample_row[token]] += len(numbers)
    for i in np.flatnonzero(counts > MAX_BOXES):
        yield Fault(submission.tokens[i], None, f"expected at most {MAX_BOXES} boxes, got {counts[i]}")
    for name in ("translation", "size", "rotation", "velocity", "score"):
        values = getattr(submission, name)
        values = values[:, None] if values.ndim == 1 else values
        bad = ~np.isfinite(values)
        if name == "velocity":  # the devkit's own truth has NaN where the velocity is unknown; infinity it cannot judge
            bad = np.isinf(values)
        for row in np.flatnonzero(bad.any(axis=1)):
            yield _fault(submission, row, f"{name}: expected finite numbers, got {values[row].tolist()}")
    for row in np.flatnonzero((submission.size <= 0).any(axis=1)):
        yield _fault(submission, row, f"size: expected width, length, height > 0, got {submission.size[row].tolist()}")
    for row in np.flatnonzero((submission.rotation == 0).all(axis=1)):
        yield _fault(submission, row, "rotation: expected a quaternion w x y z, got all zero")
    if submission.task == "tracking":
        yield from _faults_of_tracks(submission)


def faults_of_samples(submission: Submission, expected: list[str]) -> Iterator[Fault]:
    """Samples of the split that the file lacks, and samples of the file that the split lacks."""
    known = set(expected)
    for token in expected:
        if token not in submission.sample_row:
            yield Fault(token, None, "is missing; a sample without boxes needs an empty list")
    for token in submission.tokens:
        if token not in known:
            yield Fault(token, None, "is not a sample of the split")


def _faults_of_tracks(submission: Submission) -> Iterator[Fault]:
    """A tracking id used by two classes, or twice in one sample."""
    if not len(submission) or submission.tracking_id is None:
        return
    names, first, track = np.unique(submission.tracking_id, return_index=True, return_inverse=True)
    for row in np.flatnonzero(submission.label != submission.label[first[track]]):
        was = submission.classes.names[submission.label[first[track[row]]]]
        now = submission.classes.names[submission.label[row]]
        yield _fault(submission, row, f"tracking_id {str(names[track[row]])!r}: expected one class a track, got {was} and {now}")
    sample = np.repeat(np.arange(len(submission.tokens)), np.diff(submission.offset))
    order = np.lexsort((track, sample))
    repeated = (np.diff(sample[order]) == 0) & (np.diff(track[order]) == 0)
    for row in order[1:][repeated]:
        yield _fault(submission, row, f"tracking_id {str(names[track[row]])!r}: expected once a sample, got it again")


def _fault(submission: Submission, row: int | np.integer, what: str) -> Fault:
    sample = int(np.searchsorted(submission.offset, row, side="right")) - 1
    token, number = submission.tokens[sample], int(row - submission.offset[sample])
    for left_out in submission.left_out.get(token, []):  # boxes of the file are counted, not rows
        number += left_out <= number
    return Fault(token, number, what)
