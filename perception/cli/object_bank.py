"""`perception object-bank`: objects of a data set with their points, for augmentation."""

from pathlib import Path
from typing import Annotated

import typer

from perception.cli.options import Version, printer, progress


def object_bank(
    data: Annotated[Path, typer.Argument(help="A data set (nuScenes layout, KITTI) or a folder of clips.", show_default=False)],
    config: Annotated[
        str,
        typer.Option("--config", "--model", help="The detector that will train: a YAML file, or a name from configs/.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write, BANK.safetensors.", show_default=False)],
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="The drives of this split; all without it.", show_default=False)] = None,
    instances: Annotated[
        str | None,
        typer.Option(help="For a network of virtual points, as `perception run --instances` takes it.", show_default=False),
    ] = None,
    min_points: Annotated[int, typer.Option(min=1, help="Objects with fewer points, all sweeps counted, are left out.")] = 5,
    max_per_class: Annotated[
        int | None, typer.Option(min=1, help="Objects of a class that are kept, at random; all without it.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is kept.")] = 0,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that read.")] = 2,
) -> None:
    """Collect the objects of a training set with all points of their boxes, to be pasted into other scenes (ground-truth sampling).

    Example: perception object-bank /data/nuscenes --split train --config centerpoint_voxel0075 --out bank.safetensors
    """
    from perception.core.errors import UsageError, require_package

    if out.is_dir():  # before the whole data set is read
        raise UsageError(f"--out {out}: expected the file to write, BANK.safetensors, got a folder")
    for package in ("torch", "safetensors"):
        require_package(package, extra="models", why="an object bank")
    from rich.table import Table

    from perception.detection.config import load_detector_config
    from perception.fusion import load_source_config
    from perception.training.object_bank import build_object_bank, classes_of
    from perception.training.recorded import recorded_samples

    detector = load_detector_config(config).detector
    with progress("collecting") as advance:
        shown = None if instances is None else load_source_config(instances)
        samples = recorded_samples(data, detector, version=version, split=split, instances=shown, workers=workers, after_sample=advance)
        bank = build_object_bank(
            samples, classes_of(detector), detector.frame, min_points=min_points, max_per_class=max_per_class, seed=seed
        )
    bank.save(out)
    table = Table("class", box=None, pad_edge=False)
    for column in ("objects", "points"):
        table.add_column(column, justify="right")
    for label, name in enumerate(bank.classes):
        points = bank.count[bank.labels == label]
        table.add_row(name, f"{len(points):,}", f"{points.sum():,}")
    table.add_row("all", f"{len(bank):,}", f"{bank.count.sum():,}")
    console = printer()
    console.print(table)
    console.print(str(out), markup=False)
