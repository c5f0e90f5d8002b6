"""`perception instances`: what the cameras' pictures show, written once."""

from pathlib import Path
from typing import Annotated

import typer

from perception.cli.options import Version, printer, progress, tell
from perception.cli.run import DriveNames, Root, Split


def instances(
    drive: Root,
    source: Annotated[
        str,
        typer.Option(
            help="Who looks at the pictures: detectron2:CONFIG,WEIGHTS, torchvision:WEIGHTS, simulated:DRIVE, file:PATH, or settings in a "
            "YAML file.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="A folder for a file a drive; or a file *.json of one drive.", show_default=False)],
    version: Version = None,
    split: Split = None,
    names: DriveNames = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1, for a network named without settings of its own.")] = "cpu",
) -> None:
    """Find the objects in the pictures of recorded drives and write their masks in COCO's format, so that a network need not look again.

    `perception run --instances file:OUT` reads them. About 20 KB a picture.

    Example: perception instances /data/nuscenes --split val --source detectron2:mask_rcnn.yaml,mask_rcnn.pth --out masks
    """
    from perception.fusion import build_source, load_source_config
    from perception.pipeline import DrivesOf, open_chosen, write_instances

    config = load_source_config(source, device=device)
    drives, _, _ = open_chosen(DrivesOf(drive, version, split, tuple(names or ()), "empty"), tell, cameras=True)
    found = build_source(config)
    with progress("looking") as advance:
        written = write_instances(drives, found, out, after_frame=advance)
    console = printer()
    for path, pictures, objects in written:
        console.print(f"{objects} instances in {pictures} pictures: {path}")
    console.print(str(out))
