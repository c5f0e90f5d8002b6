"""The running mean of a network's weights: steadier than the last ones, and what is kept of a training."""

import torch
from torch import Tensor, nn


class Ema:
    """Mean of the weights over the last steps, the running statistics of normalisations included; counters are copied.

    decay  of a step, after a start in which the mean follows quicker: (1 + steps) / (10 + steps) where that is less, so that the random
           weights of the beginning are soon forgotten. 0 keeps the last weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        state = network.state_dict()
        self._decay = decay
        self._mean = {name: tensor.detach().clone() for name, tensor in state.items()}
        # The network's own tensors, which it changes in place: asking for them anew costs a millisecond a step.
        is_mean = {name: tensor.is_floating_point() for name, tensor in state.items()}
        self._means = [tensor for name, tensor in self._mean.items() if is_mean[name]]
        self._weights = [tensor for name, tensor in state.items() if is_mean[name]]
        self._copies = [tensor for name, tensor in self._mean.items() if not is_mean[name]]
        self._counters = [tensor for name, tensor in state.items() if not is_mean[name]]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network's weights after step number `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._means, self._weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        if self._counters:
            torch._foreach_copy_(self._copies, self._counters)  # pyright: ignore[reportPrivateImportUsage]

    def state(self) -> dict[str, Tensor]:
        """By the names of the network's state dict; the tensors themselves."""
        return dict(self._mean)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state()` of another time."""
        for name, tensor in self._mean.items():
            tensor.copy_(state[name])
