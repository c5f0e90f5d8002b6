"""Several processes that train one network, as `torchrun` starts them; one process is the usual case."""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from perception.core.device import expect_device


class Processes:
    """rank of this process, and how many there are (`count`); `device` is where this one computes."""

    def __init__(self, device: str = "cpu") -> None:
        """Joins the others where torchrun's environment names some. Raises UsageError for a device that is not there."""
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local_rank = int(os.environ.get("LOCAL_RANK", 0)) if self.count > 1 else None
        self.device = expect_device(device, why="training", local_rank=local_rank)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self._is_ours = self.count > 1 and not dist.is_initialized()
        if self._is_ours:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; without a gradient."""
        if self.count == 1:
            return tensor
        tensor = tensor.detach().clone()
        dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, of one shape, by rank."""
        if self.count == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(found, tensor.contiguous())
        return found

    def of_first(self, value: float) -> float:
        """The first process's number."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return tensor.item()

    def gather_texts(self, texts: Sequence[str]) -> list[str]:
        """All texts, those of lower ranks first."""
        if self.count == 1:
            return list(texts)
        found: list[list[str]] = [[] for _ in range(self.count)]
        dist.all_gather_object(found, list(texts))
        return [text for part in found for text in part]

    def close(self) -> None:
        """Leave the others."""
        if self._is_ours:
            dist.destroy_process_group()
