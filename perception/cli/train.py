"""`perception train`: a network from a configuration and samples."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from perception.cli.options import Out, Version, messages, printer, progress, tell

_SECONDS_A_LINE = 10.0


def train(
    config: Annotated[str, typer.Argument(help="The training: a YAML file, or a name from configs/.", show_default=False)],
    out: Out,
    data: Annotated[
        Path | None, typer.Option("--data", help="A data set (nuScenes layout, KITTI) or a folder of clips.", show_default=False)
    ] = None,
    version: Version = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="The drives of this split; may be given again.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    minutes: Annotated[
        float | None, typer.Option(min=1e-3, help="A budget: the schedule follows the clock and ends with it.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    weights: Annotated[Path | None, typer.Option(help="Begin with these (safetensors), not with random ones.", show_default=False)] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value in place of what the file says; may be given again.", show_default=False)
    ] = None,
) -> None:
    """Train a detector. OUT then holds its weights, a checkpoint for --resume, the resolved configuration, a log and how it went.

    On several GPUs: torchrun --nproc-per-node 4 -m perception train ...; batches are then shared out, results stay the same.

    Example: perception train train_compact --data /data/clips --out out/training --device cuda --set loop.batch_size=32
    """
    from perception.core.errors import require_package

    for package in ("torch", "safetensors"):
        require_package(package, extra="models", why="training")
    from perception.training.config import load_training_config
    from perception.training.state import CHECKPOINT
    from perception.training.train import train as carry_out

    is_first = int(os.environ.get("RANK", 0)) == 0  # of the processes that torchrun starts
    changes = [*(changes or ()), *([] if minutes is None else [f"loop.minutes={minutes}"])]
    settings = load_training_config(config, data=data, version=version, splits=splits or (), changes=changes)
    try:
        with _looks() as after_look:
            status = carry_out(settings, out, name=Path(config).stem, device=device, resume=resume, weights=weights, after_look=after_look)
    except KeyboardInterrupt:
        if is_first:
            has_one = (out / CHECKPOINT).is_file()
            tell(f"stopped; --resume goes on from the last checkpoint in {out}" if has_one else "stopped before the first checkpoint")
        raise
    if not is_first:
        return
    console = printer()
    if status is None:
        console.print("nothing left to do: this training is finished")
    else:
        console.print(f"{status.step} steps, {status.samples} samples in {status.seconds:.0f} s; {_losses(status)}")
    console.print(str(out))


@contextmanager
def _looks() -> Iterator[Callable[[Any], None]]:
    """What tells of each look: a bar on a terminal, elsewhere a line every ten seconds."""
    if messages.is_terminal:
        with progress("training") as advance:
            yield lambda status: advance(_losses(status), status.step, _total(status))
        return
    told = [-_SECONDS_A_LINE]

    def line(status: Any) -> None:
        if time.monotonic() - told[0] >= _SECONDS_A_LINE or status.progress >= 1:
            told[0] = time.monotonic()
            tell(
                f"step {status.step}/{_total(status)}, {status.seconds:.0f} s, {_losses(status)}, {status.samples_per_second:.1f} samples/s"
            )

    yield line


def _total(status: Any) -> int:
    """Steps in all; an estimate where the clock decides."""
    return status.total_steps or max(round(status.step / max(status.progress, 1e-9)), status.step)


def _losses(status: Any) -> str:
    return f"loss {status.losses['loss']:.3f}, {100 * status.waiting:.0f} % waiting for data"
