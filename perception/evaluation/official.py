"""The official judge: nuscenes-devkit's detection and tracking evaluation, called right, its files kept."""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.core.errors import DataError, require_package
from perception.core.files import write_bytes
from perception.evaluation.submission import Task, read_submission

CONFIGS: dict[Task, str] = {"detection": "detection_cvpr_2019", "tracking": "tracking_nips_2019"}
# The devkit's names, and the unit or range of each figure; the first ones are what a result is known by.
DETECTION_COLUMNS = {
    "AP": "mean_dist_aps",
    "ATE [m]": "trans_err",
    "ASE [1-IoU]": "scale_err",
    "AOE [rad]": "orient_err",
    "AVE [m/s]": "vel_err",
    "AAE [1-acc]": "attr_err",
}
TRACKING_COLUMNS = {
    "AMOTA": "amota",
    "AMOTP [m]": "amotp",
    "recall": "recall",
    "MOTA": "mota",
    "MOTP [m]": "motp",
    "IDS": "ids",
    "FRAG": "frag",
    "MT": "mt",
    "ML": "ml",
    "FP": "fp",
    "FN": "fn",
}
COUNTS = {"IDS", "FRAG", "MT", "ML", "FP", "FN"}


@dataclass(frozen=True)
class Scores:
    """What the devkit printed of one submission.

    task     "detection" or "tracking"
    headline  name -> figure over all classes (mAP, NDS, ...; AMOTA, AMOTP, IDS, ...)
    columns  names of the per-class figures, with units
    table    class -> one figure a column, NaN where there is none
    summary  the devkit's own `metrics_summary.json`
    folder   where its files lie
    """

    task: Task
    headline: dict[str, float]
    columns: list[str]
    table: dict[str, list[float]]
    summary: dict[str, Any]
    folder: Path


def evaluate_officially(
    results: Path, dataroot: Path, version: str, split: str, out: Path, *, task: Task | None = None, plots: bool = True
) -> Scores:
    """Score a submission with nuscenes-devkit (extra `eval`).

    results, split  a submission and the split it covers, exactly; custom splits stand in the version's `splits.json`
    out             folder for `<task>/metrics_summary.json`, `metrics_details.json`, `plots/*.pdf`, the table
                    (`scores.txt`) and what the devkit printed (`devkit.log`)
    task            checked against the file where given
    Validate first (`validation`): the devkit stops at the first fault with an assertion. Raises MissingPackage without the devkit,
    DataError for a file of the other task, or where the devkit cannot go on.
    """
    submission = read_submission(results)
    found = submission.task
    if not len(submission):
        raise DataError(f"{results}: expected boxes to score, got none; nothing was found, and the devkit cannot judge that")
    if task and task != found:
        raise DataError(f"{results}: expected a {task} submission, got one of {found}")
    require_package("pandas", extra="eval", why="the official evaluation")  # without it the devkit raises SkipTest on import
    require_package("motmetrics", extra="eval", why="the official evaluation")
    require_package("nuscenes.eval.detection.evaluate", extra="eval", why="the official evaluation")
    folder = out / found
    folder.mkdir(parents=True, exist_ok=True)
    run = _run_detection if found == "detection" else _run_tracking
    with _quiet(folder / "devkit.log"):
        try:
            summary = run(results, dataroot, version, split, folder, plots)
        except (AssertionError, KeyError, OSError, ValueError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError(f"{results}: the official evaluation stopped: {reason}; `perception validate` says more") from error
    scores = _scores(found, summary, folder)
    write_bytes(folder / "scores.txt", format_scores(scores).encode() + b"\n")
    return scores


def format_scores(scores: Scores) -> str:
    """The headline and the per-class table as aligned text; "-" where there is no figure."""
    rows = [["class", *scores.columns]]
    rows += [[name, *map(_number, row, scores.columns)] for name, row in scores.table.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [", ".join(f"{name} {_number(value, name)}" for name, value in scores.headline.items())]
    for name, *numbers in rows:
        lines.append(name.ljust(widths[0]) + "".join("  " + text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)))
    return "\n".join(lines)


def _number(value: float, name: str) -> str:
    if value != value:
        return "-"
    return str(round(value)) if name in COUNTS else f"{value:.4f}"


def read_scores(folder: Path) -> Scores:
    """Scores of an earlier evaluation from its folder (`.../detection` or `.../tracking`)."""
    task: Task = "tracking" if folder.name == "tracking" else "detection"
    try:
        return _scores(task, json.loads((folder / "metrics_summary.json").read_text()), folder)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: expected the files of an official evaluation, got {error}") from None


def _run_detection(results: Path, dataroot: Path, version: str, split: str, folder: Path, plots: bool) -> dict[str, Any]:
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    nusc = NuScenes(version=version, dataroot=str(dataroot), verbose=False)
    config: Any = config_factory(CONFIGS["detection"])
    judge = DetectionEval(nusc, config, str(results), split, str(folder), verbose=True)
    return judge.main(plot_examples=0, render_curves=plots)


def _run_tracking(results: Path, dataroot: Path, version: str, split: str, folder: Path, plots: bool) -> dict[str, Any]:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.tracking.evaluate import TrackingEval

    config: Any = config_factory(CONFIGS["tracking"])
    judge = TrackingEval(config, str(results), split, str(folder), version, str(dataroot), verbose=True)
    return judge.main(render_curves=plots)


def _scores(task: Task, summary: dict[str, Any], folder: Path) -> Scores:
    table: dict[str, list[float]] = {}
    if task == "detection":
        headline = {"mAP": summary["mean_ap"], "NDS": summary["nd_score"]}
        headline |= {f"m{label}": summary["tp_errors"][name] for label, name in list(DETECTION_COLUMNS.items())[1:]}
        for name, value in summary["mean_dist_aps"].items():
            table[name] = [value, *(summary["label_tp_errors"][name][key] for key in list(DETECTION_COLUMNS.values())[1:])]
        columns = list(DETECTION_COLUMNS)
    else:
        headline = {label: summary[name] for label, name in TRACKING_COLUMNS.items()}
        for name in summary["label_metrics"]["amota"]:
            table[name] = [summary["label_metrics"][key][name] for key in TRACKING_COLUMNS.values()]
        columns = list(TRACKING_COLUMNS)
    numbers = {name: [float("nan") if value is None else float(value) for value in row] for name, row in table.items()}
    return Scores(task, {k: float(v) for k, v in headline.items()}, columns, numbers, summary, folder)


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send what the devkit prints, and its progress bars and warnings, to a file."""
    import matplotlib

    backend = matplotlib.get_backend()
    matplotlib.use("Agg")  # no display is needed, none may be there
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        matplotlib.use(backend)
        log.write_text(text.getvalue())
