"""`perception view`: pictures of a run."""

from pathlib import Path
from typing import Annotated

import typer

from perception.cli.options import Version, printer, progress, tell


def view(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the data set, to draw truth and points as well.", show_default=False)
    ] = None,
    version: Version = None,
    drive: Annotated[str | None, typer.Option(help="Draw this drive only.", show_default=False)] = None,
    frame: Annotated[int | None, typer.Option(help="Draw this frame; without it the middle one.", show_default=False)] = None,
    film: Annotated[str | None, typer.Option(help="Also a film of each drive: gif or mp4.", show_default=False)] = None,
    cameras: Annotated[
        bool, typer.Option("--cameras", help="Also the frame's tracks in the pictures of the cameras; needs --data.")
    ] = False,
    min_score: Annotated[float, typer.Option(help="Leave out tracks below this score.")] = 0.25,
    radius: Annotated[float, typer.Option(help="Metres around the ego vehicle.")] = 50.0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the pictures; default: RUN/pictures.", show_default=False)] = None,
) -> None:
    """Draw a run from above: one frame and the whole drive (PNG), and a film if asked for.

    Example: perception view out/tracks --film gif
    """
    from perception.core.errors import UsageError
    from perception.export import open_run
    from perception.pictures import draw_run

    if film not in (None, "gif", "mp4"):
        raise UsageError(f"--film {film}: expected gif or mp4")
    if cameras and data is None:
        raise UsageError("--cameras: expected --data, the folder with the pictures")
    opened = open_run(run)
    dataset = None
    if data is not None:
        from perception.drives import open_dataset

        dataset = open_dataset(data, version=version, on_missing="empty", cameras=cameras, tell=tell)
    with progress("drawing") as advance:
        paths = draw_run(
            opened,
            out or run / "pictures",
            dataset=dataset,
            drive=drive,
            frame=frame,
            film=film,
            min_score=min_score,
            radius=radius,
            points=dataset is not None,
            cameras=cameras,
            advance=advance,
        )
    for path in paths:
        printer().print(str(path), markup=False)
