"""A training from its configuration to a folder: what `perception train` does."""

import json
import math
import platform
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from perception.core.errors import UsageError
from perception.core.files import write_bytes
from perception.detection.build import build_network
from perception.detection.config import CenterPointSettings
from perception.detection.weights import load_state, read_weights
from perception.training.augment import open_augmentation
from perception.training.config import TrainingConfig
from perception.training.feed import open_feed
from perception.training.log import Status, TrainingLog
from perception.training.loop import Loop, Parts
from perception.training.objective import Objective
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

    def begin(self, *, resume: bool) -> dict[str, Any] | None:
        """Make the folder, or read the state to go on from. UsageError where there is a training that nobody asked to go on with."""
        checkpoint = self.path / CHECKPOINT
        if resume:
            return read_checkpoint(checkpoint, self.config)
        if checkpoint.exists():
            raise UsageError(f"{self.path}: holds a training already; give --resume to go on with it, or choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        return None

    def save(self, state: dict[str, Any], loop: Loop, status: Status | None, *, is_complete: bool) -> None:
        """Write the checkpoint and what can be used without it. In this order: where the weights are of an older step than the
        checkpoint, going on from it writes them again.
        """
        write_checkpoint(self.path / CHECKPOINT, state, self.config)
        write_bytes(self.path / CONFIG, yaml.safe_dump(self.config, sort_keys=False).encode())
        record = self._record(loop, status, is_complete=is_complete)
        says = {"steps": str(loop.step), "samples": str(loop.samples), "seconds": f"{record['seconds']:.0f}", "device": record["device"]}
        write_weights(self.path / WEIGHTS, loop.ema.state(), self.detector, self.name, says)
        write_bytes(self.path / RECORD, json.dumps(record, indent=2, allow_nan=False).encode() + b"\n")

    @property
    def is_complete(self) -> bool:
        """Whether the last save of a training was written to its end."""
        try:
            return json.loads((self.path / RECORD).read_bytes())["complete"] is True
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def _record(self, loop: Loop, status: Status | None, *, is_complete: bool) -> dict[str, Any]:
        device = loop.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
        told = {} if status is None else {"last": asdict(status)}
        if status is not None and not math.isfinite(status.gradient_norm):
            told["last"]["gradient_norm"] = None  # JSON has no infinity
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


def train(
    config: TrainingConfig,
    out: Path,
    *,
    name: str = "training",
    device: str = "cpu",
    resume: bool = False,
    weights: Path | None = None,
    after_look: Callable[[Status], None] = lambda _: None,
) -> Status | None:
    """Train the network of a configuration; `out` then holds weights.safetensors, training.json, config.yaml, log.csv and checkpoint.pt.

    name        of the configuration, for the metadata of the weights
    device      cpu, cuda, cuda:1; started by torchrun each process takes the GPU of its local rank
    resume      go on from the folder's checkpoint
    weights     to begin with, in place of random ones, made for the same network
    after_look  is told of the losses each `loop.log_every` steps, in the first process
    Returns the last look; None where nothing was left to do. On a CPU the same configuration gives the same bits, resumed or not, unless
    it has a budget of time; a GPU adds in an order of its own.
    Raises UsageError for settings, folders and devices that do not fit, CheckpointError for files that do not, DataError for broken data
    and NonFiniteLoss, which names the samples.
    """
    processes = Processes(device)
    settings, detector, benchmark = config.loop, config.detector, torch.backends.cudnn.benchmark
    try:
        folder = Folder(out, config.model_dump(mode="json"), detector, name)
        state = folder.begin(resume=resume)
        torch.manual_seed(settings.seed)
        network = build_network(detector)
        if weights is not None and state is None:
            load_state(network, read_weights(weights, detector), where=str(weights))
        augment = open_augmentation(config.augment, detector, processes.device)
        first_step = 0 if state is None else state.get("step", 0) * settings.accumulate
        # Maps have one size: cuDNN may try its ways once and keep the best.
        torch.backends.cudnn.benchmark = True
        numbers = {"rank": processes.rank, "world_size": processes.count, "first_step": first_step}
        objective = Objective(network, detector, config.loss)
        numbers |= {"batch_size": settings.batch_size, "seed": settings.seed, "smallest_scale": config.augment.scale[0]}
        with closing(open_feed(config.data, detector, device=processes.device, **numbers)) as feed:
            loop = Loop(network, Parts(feed, augment, objective.targets, objective.loss), settings, processes)
            try:
                return run(loop, folder, processes, state=state, after_look=after_look)
            finally:
                feed.close()  # first: the loop's thread may be waiting for samples
                loop.close()
    finally:
        torch.backends.cudnn.benchmark = benchmark
        processes.close()


def run(
    loop: Loop, folder: Folder, processes: Processes, *, state: dict[str, Any] | None = None, after_look: Callable[[Status], None]
) -> Status | None:
    """Train to the end, with a checkpoint every now and then. Returns the last look; None where nothing was left to do.

    state  to go on from, as `Folder.begin` reads it
    Raises CheckpointError and NonFiniteLoss; the checkpoint from before stays.
    """
    if state is not None:
        loop.load(state, where=str(folder.path / CHECKPOINT))
    if loop.progress >= 1 and state is not None:
        if processes.of_first(float(not folder.is_complete)):  # the checkpoint was written, and then the disk was full
            _save(loop, folder, processes, None, is_complete=True)
        return None
    loop.fetch()
    loop.start_clock(0.0 if state is None else float(state["seconds"]))
    log = TrainingLog(folder.path, after_step=loop.step) if processes.is_first else None
    saved, status = time.monotonic(), None
    try:
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
        _save(loop, folder, processes, status, is_complete=True)
    finally:
        if log is not None:
            log.close()
    return status


def _save(loop: Loop, folder: Folder, processes: Processes, status: Status | None, *, is_complete: bool) -> None:
    state = loop.state()
    if processes.is_first:
        folder.save(state, loop, status, is_complete=is_complete)
