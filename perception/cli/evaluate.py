"""`perception evaluate`: the official scores of a submission."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from perception.cli.options import Data, Version, printer, tell

if TYPE_CHECKING:
    from perception.evaluation import Scores


def evaluate(
    results: Annotated[Path, typer.Argument(help="A submission (JSON), or the folder of a run.", show_default=False)],
    data: Data,
    split: Annotated[str, typer.Option(help="The split that the file covers, exactly.", show_default=False)],
    task: Annotated[str | None, typer.Option(help="detection or tracking; seen from the file where left out.", show_default=False)] = None,
    version: Version = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the devkit's files; default: 'evaluation' beside the results.", show_default=False),
    ] = None,
    plots: Annotated[bool, typer.Option(help="Let the devkit draw its curves (PDF).")] = True,
) -> None:
    """Score detections or tracks with the official nuscenes-devkit.

    Example: perception evaluate out/tracks --data /data/nuscenes --split val
    """
    from perception.core.errors import DataError, UsageError, nearest_hint
    from perception.drives import NuScenes
    from perception.evaluation import evaluate_officially, validate_submission

    if task not in (None, "detection", "tracking"):
        raise UsageError(f"--task {task}: expected detection or tracking{nearest_hint(task, ['detection', 'tracking'])}")
    if results.is_dir():
        out = out or results / "evaluation"
        results = results / "nuscenes" / ("detections.json" if task == "detection" else "tracks.json")
    dataset = NuScenes(data, version, cameras=False, truth=False, tell=tell)
    expected = [token for drive in dataset.drives(split) for token in drive.tokens]
    _submission, faults = validate_submission(results, expected)
    if faults:
        raise DataError(f"{results}: {len(faults)} faults, first: {faults[0]}; `perception validate` lists all")
    tell(f"scoring {results} on {split} with nuscenes-devkit")
    scores = evaluate_officially(
        results, dataset.dataroot, dataset.version, split, out or results.parent / "evaluation", task=task, plots=plots
    )  # type: ignore[arg-type]
    print_scores(scores, printer())
    printer().print(str(scores.folder / "metrics_summary.json"))


def print_scores(scores: "Scores", console: Console) -> None:
    """The headline and the per-class table of official scores."""
    counts = {"IDS", "FRAG", "MT", "ML", "FP", "FN"}
    console.print(", ".join(f"{name} {_number(value, name in counts)}" for name, value in scores.headline.items()), markup=False)
    rows = [["class", *scores.columns]]
    rows += [[name, *(_number(v, c in counts) for c, v in zip(scores.columns, row, strict=True))] for name, row in scores.table.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        console.print(
            row[0].ljust(widths[0]) + "".join("  " + text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)),
            markup=False,
        )


def _number(value: float, is_count: bool) -> str:
    if value != value:
        return "-"
    return str(round(value)) if is_count else f"{value:.4f}"
