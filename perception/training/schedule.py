"""The one-cycle schedule: learning rate and momentum up and down once. Source: fastai's, as CenterPoint uses it."""

import math
from dataclasses import dataclass

from perception.core.errors import UsageError
from perception.training.loop_settings import OptimizerSettings


def one_cycle(settings: OptimizerSettings, progress: float, rising: float | None = None) -> tuple[float, float]:
    """Learning rate and beta 1 at `progress`, 0 at the first step and 1 at the end; cosines between first, peak and last rate.

    rising  share of the way at which the peak is; that of the settings without it
    """
    rising = settings.rising if rising is None else rising
    high, low = settings.momentum
    if progress < rising:
        share = progress / rising
        return _cosine(settings.first_rate, settings.peak_rate, share), _cosine(high, low, share)
    share = min((progress - rising) / (1 - rising), 1.0)
    return _cosine(settings.peak_rate, settings.last_rate, share), _cosine(low, high, share)


@dataclass(frozen=True)
class Length:
    """How long a training is: `steps`, `seconds`, or whichever ends first."""

    steps: int | None
    seconds: float | None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise UsageError("training: expected an end, got none; give loop.steps, loop.epochs or a budget (--minutes)")

    def progress(self, step: int, seconds: float) -> float:
        """How much of the way lies behind after `step` steps and `seconds` of training, 0 to 1."""
        by_steps = 0.0 if self.steps is None else step / self.steps
        by_clock = 0.0 if self.seconds is None else seconds / self.seconds
        return min(max(by_steps, by_clock), 1.0)

    def rising(self, settings: OptimizerSettings) -> float:
        """Share of the way at which the rate is highest: at a whole step, as published, where steps alone tell the end."""
        if self.steps is None or self.seconds is not None:
            return settings.rising
        return int(settings.rising * self.steps) / self.steps


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
