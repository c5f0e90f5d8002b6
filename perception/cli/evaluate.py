"""`perception evaluate`: the official scores of a submission."""

from pathlib import Path
from typing import Annotated

import typer

from perception.cli.options import Data, Version, printer, tell


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
    from perception.evaluation import evaluate_officially, format_scores, validate_submission

    if task not in (None, "detection", "tracking"):
        raise UsageError(f"--task {task}: expected detection or tracking{nearest_hint(task, ['detection', 'tracking'])}")
    if results.is_dir():
        out = out or results / "evaluation"
        folder = results / "nuscenes"
        is_tracked = (folder / "tracks.json").is_file() or not (folder / "detections.json").is_file()  # `perception detect` does not track
        results = folder / ("detections.json" if task == "detection" or (task is None and not is_tracked) else "tracks.json")
    dataset = NuScenes(data, version, cameras=False, truth=False, tell=tell)
    expected = [token for drive in dataset.drives(split) for token in drive.tokens]
    _submission, faults = validate_submission(results, expected)
    if faults:
        raise DataError(f"{results}: {len(faults)} faults, first: {faults[0]}; `perception validate` lists all")
    tell(f"scoring {results} on {split} with nuscenes-devkit")
    scores = evaluate_officially(
        results, dataset.dataroot, dataset.version, split, out or results.parent / "evaluation", task=task, plots=plots
    )  # type: ignore[arg-type]
    printer().print(format_scores(scores), markup=False)
    printer().print(str(scores.folder / "metrics_summary.json"), markup=False)
