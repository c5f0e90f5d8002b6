"""A training from its configuration to a folder: what `perception train` does."""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from perception.core.errors import UsageError
from perception.core.files import write_bytes
from perception.detection.config import CenterPointSettings
from perception.training.log import Status, TrainingLog
from perception.training.loop import Loop
from perception.training.processes import Processes
from perception.training.state import CHECKPOINT, CONFIG, RECORD, WEIGHTS, read_checkpoint, write_checkpoint, write_weights


@dataclass(frozen=True)
class Folder:
    """Where a training leaves its files, and what it says in them.

    path    checkpoint.pt, weights.safetensors, config.yaml, training.json, log.csv
    config  the resolved configuration
    name    of the configuration, for the weights' metadata
    """

    path: Path
    config: dict[str, Any]
    detector: CenterPointSettings
    name: str

    def open(self, loop: Loop, *, resume: bool) -> None:
        """Begin, or go on from the folder's checkpoint. UsageError for a folder that holds a training which nobody asked to resume."""
        checkpoint = self.path / CHECKPOINT
        if resume:
            loop.load(read_checkpoint(checkpoint, self.config), where=str(checkpoint))
        elif checkpoint.exists():
            raise UsageError(f"{self.path}: holds a training already; give --resume to go on with it, or choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Any], loop: Loop, status: Status | None, *, is_complete: bool) -> None:
        """Write the checkpoint and what can be used without it. In this order: weights of an older step than the checkpoint do no harm."""
        write_checkpoint(self.path / CHECKPOINT, state, self.config)
        write_bytes(self.path / CONFIG, yaml.safe_dump(self.config, sort_keys=False).encode())
        record = self._record(loop, status, is_complete=is_complete)
        says = {"steps": str(loop.step), "samples": str(loop.samples), "seconds": f"{record['seconds']:.0f}", "device": record["device"]}
        write_weights(self.path / WEIGHTS, loop.ema.state(), self.detector, self.name, says)
        write_bytes(self.path / RECORD, json.dumps(record, indent=2).encode() + b"\n")

    def _record(self, loop: Loop, status: Status | None, *, is_complete: bool) -> dict[str, Any]:
        device = loop.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
        told = {} if status is None else {"last": asdict(status)}
        return {
            "complete": is_complete,
            "steps": loop.step,
            "samples": loop.samples,
            "seconds": round(loop.seconds, 3),
            "waiting": round(loop.waiting, 4),
            "device": f"{device.type} {name}",
            "processes": loop.num_processes,
            "precision": str(loop.precision).removeprefix("torch."),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            **told,
        }


def run(loop: Loop, folder: Folder, processes: Processes, *, resume: bool, after_look: Callable[[Status], None]) -> Status | None:
    """Train to the end, with a checkpoint every now and then. Returns the last look; None where nothing was left to do.

    Raises UsageError, CheckpointError and NonFiniteLoss; the checkpoint from before stays.
    """
    folder.open(loop, resume=resume)
    log = TrainingLog(folder.path, after_step=loop.step) if processes.is_first else None
    saved, status = time.monotonic(), None
    try:
        if not resume:
            loop.start_clock()
        progress = loop.progress
        while progress < 1:
            loop.advance(progress)
            progress = loop.progress
            if not (loop.is_to_look or progress >= 1):
                continue
            status = loop.look(progress)
            if log is not None:
                log.add(status)
            after_look(status)
            # All processes take part in a checkpoint, so that one clock must decide.
            if progress < 1 and processes.of_first(time.monotonic() - saved) >= 60 * loop.settings.checkpoint_minutes:
                _save(loop, folder, processes, status, is_complete=False)
                saved = time.monotonic()
        if status is not None:
            _save(loop, folder, processes, status, is_complete=True)
    finally:
        if log is not None:
            log.close()
    return status


def _save(loop: Loop, folder: Folder, processes: Processes, status: Status | None, *, is_complete: bool) -> None:
    state = loop.state()
    if processes.is_first:
        folder.save(state, loop, status, is_complete=is_complete)
