"""The training loop: samples in, a network's weights changed, step after step. What a step is made of comes as parts."""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from perception.core.errors import CheckpointError, UsageError
from perception.detection.center_point import CenterPoint
from perception.detection.head import HeadMaps
from perception.detection.weights import load_state
from perception.training.ahead import BatchesAhead
from perception.training.ema import Ema
from perception.training.feed import Feed
from perception.training.log import LossWindow, Status
from perception.training.loop_settings import LoopSettings
from perception.training.processes import Processes
from perception.training.sample import Sample
from perception.training.schedule import Length, one_cycle
from perception.training.sync_norm import with_sync_norm
from perception.training.virtual_points import clouds_to_read


class LossValues(Protocol):
    """total: a scalar with a gradient; parts: what it is made of, scalars without one, by name."""

    @property
    def total(self) -> Tensor: ...
    @property
    def parts(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Parts:
    """What a step is made of.

    augment  samples changed at random, each by its own generator; the number is the training's progress, 0 to 1
    targets  what the maps should be, for samples on their device
    loss     of maps in any floating type; its last argument sums a tensor, such as the number of objects, over all processes
    """

    feed: Feed
    augment: Callable[[Sequence[Sample], Sequence[np.random.Generator], float], list[Sample]]
    targets: Callable[[Sequence[Sample]], Any]
    loss: Callable[[HeadMaps, Any, Callable[[Tensor], Tensor]], LossValues]


class Loop:
    """A network in training: AdamW under the one-cycle schedule, the running mean of the weights, and where the training is.

    step     steps done; samples: that all processes together have seen; seconds: of training, those before a resumption included
    """

    def __init__(self, network: CenterPoint, parts: Parts, settings: LoopSettings, processes: Processes) -> None:
        """network: its weights are changed; all processes give the same. Raises UsageError for numbers that do not fit each other."""
        if settings.batch_size % processes.count:
            raise UsageError(f"loop.batch_size: expected a multiple of the {processes.count} processes, got {settings.batch_size}")
        self.settings, self.length, self._parts, self._processes = settings, _length(settings, parts.feed), parts, processes
        self.device = processes.device
        self.precision = _precision(settings.precision, self.device)
        network = with_sync_norm(network) if processes.count > 1 else network
        self.network = _laid_out(network.to(self.device).train())
        if settings.compile:
            self.network.neck.compile()
            self.network.head.compile()
        self._forward = _NetworkAndLoss(self.network, parts.loss, processes, self.precision)
        self._module: Callable[[list[Tensor], Any], tuple[Tensor, Tensor]] = self._forward
        if processes.count > 1:
            with warnings.catch_warnings():  # torch 2.13 wants another name for it, which 2.9 has not
                warnings.simplefilter("ignore", FutureWarning)
                self._module = DistributedDataParallel(self._forward, broadcast_buffers=False)
        self._parameters = [p for p in self.network.parameters() if p.requires_grad]
        self._optimizer = _optimizer(self._parameters, settings, self.device)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.ema = Ema(self.network, settings.ema_decay or 0.0)
        self._window = LossWindow()
        self._rising = self.length.rising(settings.optimizer)
        self.step = self.samples = 0
        self._rate = 0.0
        end = None if self.length.steps is None else self.length.steps * settings.accumulate
        self._batches = BatchesAhead(parts.feed, self._augmented, ahead=self.device.type == "cuda", device=self.device, end=end)
        self.start_clock()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """0 to 1, where the training ends; the same in all processes."""
        seconds = self.seconds
        return self.length.progress(self.step, seconds if self.length.seconds is None else self._processes.of_first(seconds))

    def start_clock(self, seconds: float = 0.0) -> None:
        """Begin to count the time of training, `seconds` of which have passed before."""
        now = time.monotonic()
        self._start, self._looked, self._began = now - seconds, now, now
        self._waited_before = self._batches.wait_seconds
        self._looked_at = (self.samples, self._waited_before)

    def fetch(self) -> None:
        """The next batch already now, so that the start of the feed is no part of the time of training."""
        self._batches.fetch(self.step * self.settings.accumulate, self.progress)

    def advance(self, progress: float) -> None:
        """One step of the optimizer, at this progress of the schedule. Nothing here waits for the device but what the parts do."""
        settings = self.settings
        self._rate, momentum = one_cycle(settings.optimizer, progress, self._rising)
        for group in self._optimizer.param_groups:
            group["lr"], group["betas"] = self._rate, (momentum, settings.optimizer.beta2)
        row, tokens = self._gradients(progress)
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, settings.optimizer.max_gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.step)
        self._window.add(torch.cat([row, norm.detach()[None]]), tokens)
        self.step += 1
        self.samples += settings.batch_size * settings.accumulate

    def look(self, progress: float) -> Status:
        """The losses since the last look. Raises NonFiniteLoss, in every process, where one is no number."""
        losses, norm = self._window.take(self._forward.names, self.step, self._processes, may_skip=self._scaler.is_enabled())
        samples, waited = self._looked_at
        now = time.monotonic()
        seconds = max(now - self._looked, 1e-9)
        speed, waiting = (self.samples - samples) / seconds, (self._batches.wait_seconds - waited) / seconds
        self._looked, self._looked_at = now, (self.samples, self._batches.wait_seconds)
        steps = self.length.steps if self.length.seconds is None else None
        return Status(self.step, steps, progress, self.samples, self._rate, losses, norm, self.seconds, speed, waiting)

    @property
    def waiting(self) -> float:
        """Share of the time of this process that it waited for data."""
        return (self._batches.wait_seconds - self._waited_before) / max(time.monotonic() - self._began, 1e-9)

    @property
    def num_processes(self) -> int:
        return self._processes.count

    @property
    def is_to_look(self) -> bool:
        return len(self._window) >= self.settings.log_every

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on. Samples and their augmentation depend on the number of the step and the seed alone."""
        return {
            "step": self.step,
            "samples": self.samples,
            "seconds": self._processes.of_first(self.seconds),
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "ema": self.ema.state(),
            "scaler": self._scaler.state_dict(),
            "random": [state.cpu() for state in self._processes.gather(torch.get_rng_state().to(self.device))],
            "random_device": [state.cpu() for state in self._processes.gather(self._device_random().to(self.device))],
        }

    def load(self, state: dict[str, Any], *, where: str) -> None:
        """Go on from `state()`. CheckpointError (`where`: ...) for one that does not fit."""
        try:
            load_state(self.network, state["network"], where=where)
            self._optimizer.load_state_dict(state["optimizer"])
            self.ema.load(state["ema"])
            self._scaler.load_state_dict(state["scaler"]) if self._scaler.is_enabled() else None
            self.step, self.samples = int(state["step"]), int(state["samples"])
            rank = self._processes.rank
            if rank < len(state["random"]):  # with more processes than before the others keep the states that they have
                torch.set_rng_state(state["random"][rank])
                if self.device.type == "cuda" and len(state["random_device"][rank]):
                    torch.cuda.set_rng_state(state["random_device"][rank], self.device)
            self.start_clock(float(state["seconds"]))
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{where}: its state does not fit this training ({type(error).__name__}: {error})") from None

    def _gradients(self, progress: float) -> tuple[Tensor, list[str]]:
        """Gradients of a step into the parameters. Returns total loss and its parts (1 + parts,), and the tokens of the samples."""
        count, rows, tokens = self.settings.accumulate, [], []
        for part in range(count):
            samples = self._batches.batch(self.step * count + part, progress)
            targets = self._parts.targets(samples)
            is_last = part == count - 1
            if isinstance(self._module, DistributedDataParallel):
                self._module.require_backward_grad_sync = is_last
            loss, row = self._module(clouds_to_read(samples), targets)
            # The loss is this process's share of a sum over all of them, and their gradients are averaged: hence the factor.
            self._scaler.scale(loss * (self._processes.count / count)).backward()
            rows.append(row)
            tokens += [sample.token for sample in samples]
        return rows[0] if count == 1 else torch.stack(rows).mean(dim=0), tokens

    def close(self) -> None:
        """End the thread that makes batches, if need be when its batch is done; at once where the feed is closed already."""
        self._batches.close()

    def _augmented(self, samples: Sequence[Sample], number: int, progress: float) -> list[Sample]:
        """This process's samples of a batch: each by its place in the whole batch, however many processes there are."""
        rank, count = self._processes.rank, self._processes.count
        rngs = [np.random.default_rng([self.settings.seed, number, rank + count * place]) for place in range(len(samples))]
        return self._parts.augment(samples, rngs, progress)

    def _device_random(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else torch.empty(0, dtype=torch.uint8)


class _NetworkAndLoss(nn.Module):
    """Clouds and targets to the loss: the whole that gradients go through, for DDP to wrap."""

    def __init__(self, network: CenterPoint, loss: Callable[..., LossValues], processes: Processes, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self._loss, self._processes, self._precision = network, loss, processes, precision
        self.names: tuple[str, ...] = ()

    def forward(self, clouds: list[Tensor], targets: Any) -> tuple[Tensor, Tensor]:
        """The loss, and without a gradient (1 + parts,): it and its parts, whose names are in `names`."""
        kind, dtype = self._processes.device.type, self._precision
        with nullcontext() if dtype == torch.float32 else torch.autocast(kind, dtype=dtype):
            maps = self.network(clouds)
        values = self._loss(maps, targets, self._processes.sum)
        self.names = ("loss", *values.parts)
        return values.total, torch.stack([values.total.detach(), *values.parts.values()]).float()


def _length(settings: LoopSettings, feed: Feed) -> Length:
    steps = settings.steps
    if settings.epochs is not None:
        if feed.steps_per_epoch is None:
            raise UsageError(f"loop.epochs: expected steps or minutes with data that has no end, got {settings.epochs} epochs")
        steps = max(round(settings.epochs * feed.steps_per_epoch / settings.accumulate), 1)
    return Length(steps, None if settings.minutes is None else 60 * settings.minutes)


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if able.get("amx_bf16") else torch.float32  # twice as fast; without AMX slower than float32


def _laid_out(network: CenterPoint) -> CenterPoint:
    """2D convolutions with the channels of a cell side by side, as the map of pillars comes; on a GPU that is a good deal quicker."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _optimizer(parameters: list[nn.Parameter], settings: LoopSettings, device: torch.device) -> torch.optim.AdamW:
    options = settings.optimizer
    # Fused where it saves time: one kernel, and float16's skipped steps are decided on the device.
    return torch.optim.AdamW(
        parameters,
        lr=options.first_rate,
        betas=(options.momentum[0], options.beta2),
        weight_decay=options.weight_decay,
        fused=device.type == "cuda",
    )
