"""Rows of `python tools/benchmark.py detector --device cuda`: CenterPoint on a GPU by stage, step by step and as CUDA graphs, beside what
the hardware allows. Also a script of its own, for machines that lack what `benchmark.py` imports:

    python tools/benchmark_detector_gpu.py [CLOUD] --dtype float16

Points lie on the device and times are in milliseconds, medians between CUDA events, one cloud at a time.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import benchmark_ops
import numpy as np
import torch
from benchmark_detector import CANDIDATES, STAGES, with_candidates
from torch import Tensor

from perception.detection import build_decoder, build_network, load_detector_config
from perception.detection import layers as detector_layers
from perception.detection.clock import StageClock
from perception.detection.graphed import GraphedNetwork, recorded
from perception.detection.inference import InferenceNetwork

MODELS = ("centerpoint_pillar02", "centerpoint_voxel0075")
DTYPES = ("float16", "float32")

# Milliseconds that arithmetic or memory alone take on an H100: dense layers at the measured 766 TFLOP/s in float16 and 51 in float32, the
# head with all 36 branches at all cells (ours computes the branches of boxes for candidates only and may be below it); sparse convolutions
# of a cloud with 105,000 voxels; voxels at the 3 TB/s of a copy.
FLOORS: dict[tuple[str, str], dict[str, float]] = {
    ("centerpoint_voxel0075", "float16"): {"voxelize": 0.01, "encoder": 0.10, "neck": 0.16, "head": 0.14},
    ("centerpoint_voxel0075", "float32"): {"voxelize": 0.01, "encoder": 1.42, "neck": 2.46, "head": 2.1},
    ("centerpoint_pillar02", "float16"): {"voxelize": 0.01, "neck": 0.10, "head": 0.07},
    ("centerpoint_pillar02", "float32"): {"voxelize": 0.01, "neck": 1.47, "head": 1.02},
}
# What the whole is to take at most on a card of this class.
TARGETS = {
    ("centerpoint_pillar02", "float16"): {"points to map": 1.5, "points to boxes": 3.0},
    ("centerpoint_voxel0075", "float16"): {"points to map": 1.5, "points to boxes": 5.0},
}


class EventClock(StageClock):
    """Times of stages on the device, without waiting for it between them."""

    def reset(self) -> None:
        self._events: dict[str, list[tuple[Any, Any]]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        yield
        stop.record()
        self._events.setdefault(name, []).append((start, stop))

    def milliseconds(self) -> dict[str, float]:
        """Of each stage, since the last reset."""
        torch.cuda.synchronize()
        return {name: sum(start.elapsed_time(stop) for start, stop in pairs) for name, pairs in self._events.items()}


def network_with_candidates(model: str, cloud: Tensor) -> Any:
    """Settings and network with random weights whose heat maps have some candidates."""
    settings = load_detector_config(model).detector
    torch.manual_seed(0)
    network = build_network(settings).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:  # torch's own start lets signals fade until all cells are alike but for rounding
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    network = network.to(cloud.device)
    with_candidates(network, cloud)
    return settings, network


def stage_functions(graphed: GraphedNetwork) -> dict[str, Callable[[Any], Any]]:
    """The stages of the recording that was made last, each as a function of what the one before gives."""
    recording = next(reversed(graphed._recordings.values()))
    fixed, limits, net = graphed._fixed, recording.limits, graphed.network
    return {
        "voxelize": lambda _: fixed.voxels(recording._points, limits),
        "reader": fixed.features,
        "encoder": lambda features: net.encoder(features, limits),
        "neck": net.neck,
        "head": lambda neck: (neck, *net.lazy_head.heatmaps(neck)),  # neck, shared map, logits
        "boxes": lambda maps: fixed.boxes(maps[0], maps[1], maps[2], limits),
    }


def measure(model: str, points: np.ndarray, dtype: str, repeats: int) -> list[tuple[str, float | None, float | None, float | None]]:
    """Rows: what, milliseconds step by step, in a graph, and the floor or (behind the stages) the target."""
    device = torch.device("cuda", torch.cuda.current_device())
    cloud = torch.from_numpy(points).to(device)
    settings, network = network_with_candidates(model, cloud)
    plain = InferenceNetwork(network, build_decoder(settings), device=device, dtype=getattr(torch, dtype))
    graphed, clock, eager = GraphedNetwork(plain), EventClock(), []
    for turn in range(5 + repeats):
        clock.reset()
        plain([cloud], clock)
        times = clock.milliseconds()
        if turn >= 5:
            eager.append(times)
    graphed([cloud], StageClock())
    if graphed._plain:
        raise RuntimeError("the network could not be recorded: see the warning above")
    recording = next(reversed(graphed._recordings.values()))

    floors, targets, rows = FLOORS.get((model, dtype), {}), TARGETS.get((model, dtype), {}), []
    functions, value, graphs = stage_functions(graphed), None, []
    for stage, function in functions.items():
        graph, value = recorded(lambda given=value, run=function: run(given), device)
        graphs.append((graph, value))  # what a graph has written stays where it is while the graph lives
        graph.replay()
        rows.append((stage, statistics.median(t[stage] for t in eager), replayed(graph, repeats), floors.get(stage)))
    del graphs
    to_map, _ = recorded(lambda: graphed._fixed.birds_eye(recording._points, recording.limits), device)
    front = [sum(t[stage] for stage in ("voxelize", "reader", "encoder")) for t in eager]
    whole = [sum(t[stage] for stage in STAGES) for t in eager]
    rows.append(("points to map", statistics.median(front), replayed(to_map, repeats), targets.get("points to map")))
    rows.append(("points to boxes", statistics.median(whole), replayed(recording._graph, repeats), targets.get("points to boxes")))
    for name, given in (("call, points on the device, boxes on the host", cloud), ("call, points and boxes on the host", cloud.cpu())):
        rows.append((name, None, called(lambda given=given: graphed([given], StageClock()), repeats), None))
    return rows


def choices(model: str, points: np.ndarray, dtype: str, repeats: int) -> list[tuple[str, float, float]]:
    """Neck and head in a graph by how convolutions are chosen: name and milliseconds of both."""
    device = torch.device("cuda", torch.cuda.current_device())
    cloud = torch.from_numpy(points).to(device)
    settings, network = network_with_candidates(model, cloud)
    rows = []
    for fuses, benchmark in itertools.product((True, False), (False, True)):
        plain = InferenceNetwork(network, build_decoder(settings), device=device, dtype=getattr(torch, dtype))
        with torch.inference_mode():
            bev = plain.encoder(plain.in_dtype(plain.reader(plain.reader.voxelize([cloud]))))
        detector_layers.FUSES_RELU = fuses
        neck_graph, neck = recorded(lambda net=plain, bev=bev: net.neck(bev), device, benchmark=benchmark)
        neck_graph.replay()
        head_graph, _ = recorded(lambda net=plain, neck=neck: net.lazy_head.heatmaps(neck), device, benchmark=benchmark)
        unfused = sum(getattr(layer, "is_unfusable", False) for part in (plain.neck, plain.lazy_head) for layer in part.modules())
        name = f"{'ReLU inside' if fuses else 'ReLU apart'}{f' ({unfused} not possible)' if unfused else ''}, "
        name += "quickest of cuDNN's trials" if benchmark else "cuDNN's own choice"
        rows.append((name, replayed(neck_graph, repeats), replayed(head_graph, repeats)))
    detector_layers.FUSES_RELU = True
    return rows


def replayed(graph: Any, repeats: int) -> float:
    """Median milliseconds of a replay, one queued behind the other, so that the host is not waited for."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 6)]
    for event in events[:-1]:
        event.record()
        graph.replay()
    events[-1].record()
    torch.cuda.synchronize()
    return statistics.median([start.elapsed_time(stop) for start, stop in itertools.pairwise(events)][5:])


def called(function: Callable[[], object], repeats: int) -> float:
    """Median milliseconds until a call that waits by itself has come back."""

    def once() -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop)

    return statistics.median([once() for _ in range(repeats + 5)][5:])


def print_tables(points: np.ndarray, dtypes: tuple[str, ...], repeats: int, models: tuple[str, ...] = MODELS) -> None:
    """Stages, the whole, and the ways of choosing convolutions."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    print(f"\n{properties.name}, torch {torch.__version__}, {len(points)} points, {CANDIDATES} candidates a task, batch 1\n")
    print("| model | dtype | stage | step by step [ms] | CUDA graph [ms] | floor, or target [ms] |\n|---|---|---|---|---|---|")
    for model, dtype in itertools.product(models, dtypes):
        torch.cuda.reset_peak_memory_stats()
        for stage, *times in measure(model, points, dtype, repeats):
            cells = ["" if time is None else f"{time:.2f}" for time in times]
            print(f"| {model} | {dtype} | {stage} | {' | '.join(cells)} |", flush=True)
        print(f"| {model} | {dtype} | peak memory [MB] | | {torch.cuda.max_memory_allocated() / 1e6:.0f} | |", flush=True)
        torch.cuda.empty_cache()
    print("\n| model | dtype | convolutions | neck [ms] | head [ms] |\n|---|---|---|---|---|")
    for model, dtype in itertools.product(models, dtypes):
        for name, neck, head in choices(model, points, dtype, repeats):
            print(f"| {model} | {dtype} | {name} | {neck:.2f} | {head:.2f} |", flush=True)
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", nargs="?", type=Path, help="points of 5 columns, float32 or .f16.bin; without it one is made")
    parser.add_argument("--device", default="cuda", help="cuda, or cuda:1")
    parser.add_argument("--dtype", choices=("all", *DTYPES), default="all")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    points = benchmark_ops.read_cloud(arguments.cloud) if arguments.cloud else benchmark_ops.ten_sweeps(264_000)
    dtypes = DTYPES if arguments.dtype == "all" else (arguments.dtype,)
    with torch.cuda.device(arguments.device):
        print_tables(points, dtypes, arguments.repeats, tuple(arguments.models))


if __name__ == "__main__":
    main()
