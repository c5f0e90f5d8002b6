"""`perception checkpoint convert`, `shrink` and `show`: published weights into ours, smaller files, and what a weight file holds."""

from pathlib import Path
from typing import Annotated

import typer

from perception.cli.options import printer
from perception.core.errors import require_package

checkpoint = typer.Typer(
    name="checkpoint",
    help="Weight files: convert published ones (det3d, OpenPCDet, mmdetection3d), shrink one, show what one holds.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@checkpoint.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A .pth or .safetensors file; nothing in it is executed.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The file to write, OUT.safetensors.", show_default=False)],
    config: Annotated[
        str | None, typer.Option(help="The model that the weights belong to: a YAML file or a name from configs/.", show_default=False)
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Code base that wrote the file: auto, det3d, openpcdet, mmdet3d, mmdet3d-0 (mmdetection3d before 1.0).")
    ] = "auto",
    spconv: Annotated[str, typer.Option(help="Major version of spconv that wrote it, where shapes do not tell: auto, 1, 2.")] = "auto",
) -> None:
    """Turn a published CenterPoint weight file into one of ours; every name is accounted for, or nothing is written.

    Example: perception checkpoint convert epoch_20.pth centerpoint.safetensors --config centerpoint_voxel0075
    """
    _require_torch()
    from perception.detection.checkpoints import convert as convert_file

    done = convert_file(source, out, config=config, layout=layout, spconv=spconv)
    console = printer()
    console.print(f"{done.num_tensors} tensors, {done.num_parameters:,} parameters, all placed")
    for note in done.metadata.notes:
        console.print(note, markup=False)
    console.print(str(done.path))


@checkpoint.command()
def shrink(
    source: Annotated[Path, typer.Argument(help="A weight file of ours.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The file to write, OUT.safetensors.", show_default=False)],
    small: Annotated[bool, typer.Option("--small", help="A quarter: 8 bits, with a factor for each row of a matrix.")] = False,
) -> None:
    """A half or a quarter of the size: matrices and kernels in 16 or 8 bits; a detector computes in 32 all the same.

    Example: perception checkpoint shrink out/training/weights.safetensors compact.safetensors --small
    """
    _require_torch()
    from perception.detection.checkpoints.store import shrunk

    before, after = shrunk(source, out, bits=8 if small else 16)
    printer().print(f"{before / 1e6:.1f} MB to {after / 1e6:.1f} MB  ({out})")


@checkpoint.command()
def show(
    file: Annotated[Path, typer.Argument(help="A weight file: ours or a published one.", show_default=False)],
    tensors: Annotated[bool, typer.Option("--tensors", help="Name and shape of every tensor too.")] = False,
) -> None:
    """Layout, model, shapes and origin of a weight file.

    Example: perception checkpoint show centerpoint.safetensors
    """
    _require_torch()
    from rich.table import Table

    from perception.detection.checkpoints import describe

    found = describe(file)
    console = printer()
    console.print(f"{found.path}: {found.layout}, {found.model}", markup=False)
    table = Table("part", box=None, pad_edge=False)
    for column in ("tensors", "parameters"):
        table.add_column(column, justify="right")
    for part in found.parts:
        table.add_row(part.name, str(len(part.shapes)), f"{part.num_parameters:,}")
    table.add_row("all", str(found.num_tensors), f"{found.num_parameters:,}")
    console.print(table)
    for name, text in found.facts:
        console.print(f"{name}: {text}", markup=False)
    if tensors:
        for part in found.parts:
            for name, shape in part.shapes:
                console.print(f"{name} {list(shape)}", markup=False)


def _require_torch() -> None:
    """Say which extra brings what weights need."""
    for package in ("torch", "safetensors"):
        require_package(package, extra="models", why="reading weights")
