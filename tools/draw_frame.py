"""One frame of any data set as a picture: `python tools/draw_frame.py DATA --out frame.png`.

From above with the points of the key sweep and the true boxes, and through the cameras with the same boxes, as far as there are any.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from perception.cli.main import report_errors
from perception.core.errors import UsageError
from perception.drives import open_drives
from perception.pictures import draw_frame
from perception.visual import save_picture


def main(
    data: Annotated[Path, typer.Argument(help="Folder of a data set: nuScenes, KITTI, simulated.")],
    out: Annotated[Path, typer.Option(help="The picture, a PNG.")] = Path("frame.png"),
    version: Annotated[str | None, typer.Option(help="nuScenes version, where there are several.")] = None,
    drive: Annotated[str | None, typer.Option(help="Name of the drive; the first one without it.")] = None,
    frame: Annotated[int | None, typer.Option(help="Number of the frame; the middle one without it.")] = None,
    radius: Annotated[float, typer.Option(help="Metres around the ego vehicle, from above.")] = 45.0,
    height: Annotated[int, typer.Option(help="Pixels.", min=320, max=2000)] = 640,
) -> None:
    """Draw a frame."""
    drives = {item.name: item for item in open_drives(data, version=version)}
    if not drives or (drive is not None and drive not in drives):
        raise UsageError(f"{data}: drive {drive!r}: expected one of {', '.join(drives) or 'none'}")
    chosen = drives[drive] if drive is not None else next(iter(drives.values()))
    number = len(chosen) // 2 if frame is None else frame
    if not 0 <= number < len(chosen):
        raise UsageError(f"drive {chosen.name}: expected a frame in 0..{len(chosen) - 1}, got {number}")
    picture = draw_frame(chosen[number], radius=radius, height_px=height, title=f"{chosen.name}, frame {number}")
    save_picture(picture, out)
    print(out)


if __name__ == "__main__":
    sys.exit(report_errors(lambda: typer.run(main)))
