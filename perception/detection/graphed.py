"""A network recorded as a CUDA graph: one launch and one wait a batch, where the network alone costs hundreds of each.

Clouds are copied into a buffer of fixed size, the recording runs on it, and one copy brings everything back. On the CPU the same function
runs without being recorded.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from perception.detection.clock import StageClock
from perception.detection.decode import Boxes
from perception.detection.fixed_network import FixedNetwork, unpacked
from perception.detection.inference import InferenceNetwork, exact
from perception.detection.row_limits import RowLimits

_LEAST_POINTS = 16_384
_MOST_RECORDINGS = 4  # each holds the memory of a whole pass
_MOST_TRIALS = 8
_WARM_UPS = 2  # runs before a recording: kernels are compiled and loaded, and libraries choose theirs

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class GraphedNetwork:
    """Called as an `InferenceNetwork`, with the same boxes, on the CPU whatever the device.

    A batch size has its recording, made of its first clouds; it is made anew with more room when a cloud has more points or asks for more
    rows than it has room for. The boxes of such a batch come from the network itself. Clouds may lie on the CPU or on the device.
    """

    def __init__(self, network: InferenceNetwork) -> None:
        self.network, self._fixed = network, FixedNetwork(network)
        self._recordings: dict[int, _Recording] = {}
        self._plain: set[int] = set()  # batch sizes that could not be recorded

    @torch.inference_mode()
    def __call__(self, clouds: Sequence[Tensor], clock: StageClock) -> list[Boxes]:
        """clouds: one (N, columns) float32 a sample."""
        with clock.stage("network"):
            return self._boxes(clouds)

    def _boxes(self, clouds: Sequence[Tensor]) -> list[Boxes]:
        size = len(clouds)
        if size not in self._plain:
            try:
                recording = self._recording(clouds)
                boxes, needed = recording(clouds)
            except (RuntimeError, ValueError) as error:
                if self.network.device.type == "cpu":
                    raise
                log.warning("detector: a batch of %d cannot be recorded as a CUDA graph and runs step by step: %s", size, error)
                self._plain.add(size)
                self._recordings.pop(size, None)
            else:
                if not recording.limits.grow(needed):
                    return boxes
                recording.is_stale = True
        return self._step_by_step(clouds)

    def _step_by_step(self, clouds: Sequence[Tensor]) -> list[Boxes]:
        found = self.network([cloud.to(self.network.device) for cloud in clouds], StageClock())
        return [Boxes(*(column.cpu() for column in boxes)) for boxes in found]

    def _recording(self, clouds: Sequence[Tensor]) -> "_Recording":
        """The recording for so many clouds, with room for their points."""
        size, most_points = len(clouds), max(len(cloud) for cloud in clouds)
        old = self._recordings.pop(size, None)
        if old is None or old.is_stale or old.num_points < most_points:
            limits = RowLimits() if old is None else old.limits
            num_points = max(0 if old is None else old.num_points, most_points)
            if old is None or old.num_points < most_points:
                num_points = max(_LEAST_POINTS, -(-num_points * 9 // 8 // _LEAST_POINTS) * _LEAST_POINTS)
            del old  # its memory first
            while len(self._recordings) >= _MOST_RECORDINGS:
                self._recordings.pop(next(iter(self._recordings)))
            old = _Recording(self._fixed, clouds, num_points, limits)
        self._recordings[size] = old  # the last one used is the last one to go
        return old


class _Recording:
    """One batch size, one number of points and one set of limits."""

    def __init__(self, fixed: FixedNetwork, clouds: Sequence[Tensor], num_points: int, limits: RowLimits) -> None:
        self._fixed, self.limits, self.num_points, self.is_stale = fixed, limits, num_points, False
        device, columns = fixed.network.device, fixed.network.reader.point_columns
        self._points = torch.full((len(clouds), num_points, columns), torch.nan, device=device)
        is_pinned = device.type == "cuda"
        self._staged = torch.empty((len(clouds), num_points, columns), pin_memory=is_pinned) if is_pinned else self._points
        self._graph: torch.cuda.CUDAGraph | None = None
        self._fit(clouds)
        if device.type == "cuda":
            self._graph, self._packed = recorded(lambda: fixed(self._points, limits), device)
            self._result = torch.empty(self._packed.shape, pin_memory=True)
        self._names = tuple(limits.noted)

    def __call__(self, clouds: Sequence[Tensor]) -> tuple[list[Boxes], dict[str, int]]:
        """Boxes, and how many rows each limited place would have needed."""
        self._write(clouds)
        if self._graph is None:
            packed = self._run()
        else:
            self._graph.replay()
            self._result.copy_(self._packed, non_blocking=True)
            torch.cuda.current_stream(self._points.device).synchronize()
            packed = self._result.clone()
        return unpacked(packed, len(clouds), self._fixed.network.decoder, self._names)

    def _write(self, clouds: Sequence[Tensor]) -> None:
        """The clouds into the buffer, NaN behind them."""
        for points, staged, cloud in zip(self._points, self._staged, clouds, strict=True):
            count = len(cloud)
            if cloud.device.type == "cpu" and points.is_cuda:
                cloud = staged[:count].copy_(cloud)  # pinned: it is free again, because a call ends when its result is here
            points[:count].copy_(cloud, non_blocking=True)
            points[count:].fill_(torch.nan)

    def _run(self) -> Tensor:
        with exact(self._points.device):
            return self._fixed(self._points, self.limits)

    def _fit(self, clouds: Sequence[Tensor]) -> None:
        """Limits that have room for these clouds and not much more."""
        self._write(clouds)
        needed: dict[str, int] = {}
        for _ in range(_MOST_TRIALS):
            packed = self._run().cpu()
            _, needed = unpacked(packed, len(clouds), self._fixed.network.decoder, tuple(self.limits.noted))
            if not self.limits.grow(needed):
                break
        self.limits.fit(needed)


def recorded(function: Callable[[], Result], device: torch.device, *, benchmark: bool = False) -> tuple[torch.cuda.CUDAGraph, Result]:
    """A CUDA graph of a function without arguments that waits for nothing, and its result, which every replay writes anew.

    Convolutions are those of `exact`. What the function reads must stay where it is.
    """
    with torch.inference_mode(), torch.cuda.device(device), exact(device, benchmark=benchmark):
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                function()
        torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        # Other threads may read files and pin memory meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = function()
    return graph, result
