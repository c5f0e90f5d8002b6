"""What each process of `test_processes.py` runs, under torchrun: a small training; its losses and weights into a file."""

import math
import sys
from pathlib import Path

import torch

from perception.training.log import NonFiniteLoss
from perception.training.processes import Processes
from tests.training.small import small_loop, square_loss

STEPS = 4
CURVES = {"published": {}, "exact": {"exact": True}, "accumulated": {"exact": True, "accumulate": 2}}


def curve(processes: Processes, *, exact: bool = False, **settings) -> dict:
    """Losses, gradient norms and last weights of a training with a batch of 4: with the published losses, or (exact) all in float64."""
    loop = small_loop(processes, published=not exact, double=exact, batch_size=4, steps=STEPS, log_every=1, **settings)
    looks = []
    while (progress := loop.progress) < 1:
        loop.advance(progress)
        looks.append(loop.look(loop.progress))
    return {
        "losses": [look.losses for look in looks],
        "norms": [look.gradient_norm for look in looks],
        "weights": dict(loop.network.state_dict()),
        "mean": loop.ema.state(),
        "samples": loop.samples,
        "random": len(loop.state()["random"]),
    }


def failure(processes: Processes) -> str:
    """The message where the second process's loss of the second step is no number."""
    calls = []

    def loss(maps, targets, total_of):
        calls.append(0)
        values = square_loss(maps, targets, total_of)
        if processes.rank == 1 and len(calls) == 2:
            values.total = values.total * math.nan
        return values

    loop = small_loop(processes, parts={"loss": loss})
    loop.advance(0.0)
    loop.advance(0.1)
    try:
        loop.look(0.2)
    except NonFiniteLoss as error:
        return str(error)
    return ""


def main(out: Path) -> None:
    torch.set_num_threads(1)
    processes = Processes("cpu")
    found = {name: curve(processes, **options) for name, options in CURVES.items()} | {"failure": failure(processes)}
    found["texts"] = processes.gather_texts([f"rank {processes.rank}"])
    found["of first"] = processes.of_first(float(processes.rank + 7))
    torch.save(found, out / f"rank{processes.rank}.pt")
    processes.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
