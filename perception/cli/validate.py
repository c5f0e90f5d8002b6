"""`perception validate`: every fault of a submission in one go."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from perception.cli.options import Version, printer, tell


def validate(
    results: Annotated[Path, typer.Argument(help="A nuScenes submission (JSON), detections or tracks.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the data set, to check the samples too.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split that the file must cover exactly.", show_default=False)] = None,
    version: Version = None,
    limit: Annotated[int, typer.Option(min=0, help="Faults to print at the most; all are counted.")] = 1000,
) -> None:
    """List what is wrong with a submission; exit code 3 where anything is.

    Example: perception validate tracks.json --data /data/nuscenes --split val
    """
    from perception.core.errors import UsageError
    from perception.evaluation import validate_submission

    expected = None
    if (data is None) != (split is None):
        raise UsageError("--data and --split go together: the samples of the split are looked up in the data set")
    if data is not None and split is not None:
        from perception.drives import NuScenes

        dataset = NuScenes(data, version, cameras=False, truth=False, tell=tell)
        expected = [token for drive in dataset.drives(split) for token in drive.tokens]
    submission, faults = validate_submission(results, expected)
    console = printer()
    for fault in faults[:limit]:
        console.print(str(fault), markup=False)
    if len(faults) > limit:
        console.print(f"... and {len(faults) - limit} more")
    samples = len({fault.sample for fault in faults})
    checked = "" if expected is None else f", all {len(expected)} samples of {split} there"
    if faults:
        kinds = Counter(fault.what.split(":")[0][:40] for fault in faults).most_common(3)
        console.print(
            f"{results}: {len(faults)} faults in {samples} samples; most often: {', '.join(f'{kind} ({n})' for kind, n in kinds)}",
            markup=False,
        )
        raise typer.Exit(3)
    console.print(
        f"{results}: no faults: {submission.task}, {len(submission.tokens)} samples, {len(submission)} boxes{checked}", markup=False
    )
