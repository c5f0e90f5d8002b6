"""What a training tells while it runs: the losses of its last steps, a CSV file, and TensorBoard's where that is installed."""

import csv
import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.core.errors import DataError, PerceptionError
from perception.core.files import write_bytes
from perception.training.processes import Processes

_MOST_TOKENS = 64


class NonFiniteLoss(PerceptionError):
    """A loss or a gradient that is no number: nothing good can come after it."""


@dataclass(frozen=True)
class Status:
    """A look at a running training: means over the steps since the last look.

    step, samples       done so far; total_steps is None where the clock decides
    progress            0 to 1
    rate                learning rate of the last step
    losses              by name, `loss` the total
    gradient_norm       before clipping; inf where the scaler skipped all steps
    seconds             of training so far
    samples_per_second  since the last look
    waiting             share of the time since then spent waiting for data
    """

    step: int
    total_steps: int | None
    progress: float
    samples: int
    rate: float
    losses: dict[str, float]
    gradient_norm: float
    seconds: float
    samples_per_second: float
    waiting: float


class LossWindow:
    """Losses of the steps since the last look; they stay on the device until then, because each look makes the host wait for it."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._tokens: list[list[str]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Tensor, tokens: list[str]) -> None:
        """row: total loss, its parts, and the gradient's norm, of one step; tokens: of this process's samples."""
        self._rows.append(row)
        self._tokens.append(tokens)

    def take(self, names: Sequence[str], step: int, processes: Processes, *, may_skip: bool) -> tuple[dict[str, float], float]:
        """Mean losses of all processes together and mean norm of the gradient, for the steps that end with number `step`; empties itself.

        names     of the row's losses, the total first
        may_skip  whether steps with an infinite gradient were skipped (float16), so that it does no harm
        Raises NonFiniteLoss with the samples of the first step that has one, in every process.
        """
        by_process = torch.stack(processes.gather(torch.stack(self._rows))).double().cpu()  # (P, steps, columns)
        tokens, self._tokens, self._rows = self._tokens, [], []
        losses, norms = by_process[:, :, :-1], by_process[0, :, -1]
        is_bad_loss = ~losses.isfinite().all(dim=2)  # (P, steps)
        is_bad = is_bad_loss.any(dim=0) | (~norms.isfinite() & (not may_skip))
        if is_bad.any():
            first = int(is_bad.int().argmax())
            is_from_here = bool(is_bad_loss[processes.rank, first]) or not is_bad_loss[:, first].any()
            values = dict(zip(names, losses[:, first].sum(dim=0).tolist(), strict=True)) | {"gradient norm": norms[first].item()}
            raise _non_finite(step - len(tokens) + 1 + first, values, processes.gather_texts(tokens[first] if is_from_here else []))
        norms = norms[norms.isfinite()]
        norm = norms.mean().item() if len(norms) else math.inf
        return dict(zip(names, losses.sum(dim=0).mean(dim=0).tolist(), strict=True)), norm


class TrainingLog:
    """`log.csv`, a row a look, and in the folder `tensorboard` the same numbers where that package is installed."""

    def __init__(self, folder: Path, *, after_step: int = 0) -> None:
        """Goes on in the folder's log; what it says of steps behind `after_step`, from which a training is resumed, is dropped."""
        self._path = Path(folder) / "log.csv"
        self._names = _cut_log(self._path, after_step)
        self._writer = _tensorboard(Path(folder) / "tensorboard", after_step)

    def add(self, status: Status) -> None:
        """One more row."""
        row: dict[str, Any] = {"step": status.step, "progress": f"{status.progress:.6g}", "samples": status.samples}
        row |= {"rate": f"{status.rate:.6g}"} | {name: f"{value:.6g}" for name, value in status.losses.items()}
        row |= {"gradient_norm": f"{status.gradient_norm:.6g}", "seconds": f"{status.seconds:.3f}"}
        row |= {"samples_per_second": f"{status.samples_per_second:.2f}", "waiting": f"{status.waiting:.4f}"}
        is_new = self._names is None
        self._names = list(row) if self._names is None else self._names
        if list(row) != self._names:
            raise DataError(f"{self._path}: expected the columns {', '.join(row)}, got {', '.join(self._names)}; move the file away")
        with self._path.open("a", newline="") as file:  # opened for each row: a training that is killed has lost none
            rows = csv.writer(file, lineterminator="\n")
            if is_new:
                rows.writerow(row)
            rows.writerow(row.values())
        if self._writer is not None:
            shown = status.losses | {"rate": status.rate, "gradient_norm": status.gradient_norm}
            for name, value in (shown | {"samples_per_second": status.samples_per_second, "waiting": status.waiting}).items():
                self._writer.add_scalar(f"training/{name}", value, status.step, walltime=time.time())

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _cut_log(path: Path, after_step: int) -> list[str] | None:
    """The columns of a log that is there, whose later rows are taken away; None where there is none."""
    if after_step == 0 or not path.is_file():
        path.unlink(missing_ok=True)
        return None
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows or rows[0][:1] != ["step"]:
        raise DataError(f"{path}: expected a log of a training that begins with its columns, got something else; move it away")
    kept = StringIO()
    writer = csv.writer(kept, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(row for row in rows[1:] if row[0].isdigit() and int(row[0]) <= after_step and len(row) == len(rows[0]))
    write_bytes(path, kept.getvalue().encode())
    return rows[0]


def _tensorboard(folder: Path, after_step: int) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except Exception:  # noqa: BLE001  an optional package, which fails in more ways than one: the CSV file says the same
        return None
    return module.SummaryWriter(str(folder), purge_step=after_step + 1 if after_step else None)


def _non_finite(step: int, values: dict[str, float], tokens: list[str]) -> NonFiniteLoss:
    told = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if not math.isfinite(value))
    more = f" and {len(tokens) - _MOST_TOKENS} more" if len(tokens) > _MOST_TOKENS else ""
    return NonFiniteLoss(
        f"step {step}: expected finite losses, got {told}; the samples were {', '.join(tokens[:_MOST_TOKENS])}{more}; look at these, or "
        "lower loop.optimizer.peak_rate, or train in loop.precision float32; the last checkpoint is from before"
    )
