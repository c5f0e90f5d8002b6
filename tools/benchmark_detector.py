"""Rows of `python tools/benchmark.py detector`: CenterPoint on the CPU by stage, beside the published way of computing the same.

The peer is the same network as it is trained: normalisation apart, all slots of a pillar, all branches at all cells, tensors in torch's own
layout, and the library spconv for the sparse backbone, on one thread because its CPU code loses updates on more.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.core import Transform
from perception.detection import Detector, build_decoder, build_network, load_detector_config
from perception.detection.center_point import CenterPoint
from perception.detection.pillar_readers import PillarReader
from perception.detection.sparse_backends import BACKENDS, SpconvBackend
from perception.detection.voxels import VoxelFeatures

MODELS = ("centerpoint_pillar02", "centerpoint_voxel0100", "centerpoint_voxel0075")
SHIPPED = "compact"  # a network that comes with weights; nobody has published a way of computing it
STAGES = ("voxelize", "reader", "encoder", "neck", "head", "boxes")
CANDIDATES = 100  # cells of a task above the threshold, as a trained network has them; with random weights all are, or none
_MOUNT = Transform.from_yaw(-np.pi / 2, (0.94, 0.0, 1.84))


@dataclass
class Measured:
    """Seconds of each stage, a list over the repetitions; and the share of the peer's boxes that are within 1 mm of one of ours."""

    ours: dict[str, list[float]] = field(default_factory=dict)
    peer: dict[str, list[float]] = field(default_factory=dict)
    same: float = 0.0


def measure(model: str, points: np.ndarray, repeats: int, clock: Callable[[], float] = time.perf_counter) -> Measured:
    """Both candidates, turn by turn, on the same random weights."""
    settings = load_detector_config(model).detector
    torch.manual_seed(0)
    network = build_network(settings).eval()
    cloud = torch.from_numpy(points)
    for parameter in network.parameters():
        if parameter.ndim > 1:  # torch's own start lets signals fade until all cells are alike but for rounding
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    with_candidates(network, cloud)
    detector, decoder, measured = Detector(network, settings), build_decoder(settings), Measured()
    for turn in range(repeats + 1):
        ours, peer = {}, {}
        detector.profile(reset=True)
        detector.detect(points, _MOUNT)
        ours = detector.profile().seconds
        boxes = peer_stages(network, decoder, cloud, peer, clock)
        if turn == 0:  # the first one only warms up
            places, ours_places = (
                torch.cat([b.rows[:, :2], 1e3 * b.labels[:, None]], dim=1).double() for b in (boxes, detector.detect_rows(points))
            )
            measured.same = float((torch.cdist(places, ours_places).amin(dim=1) < 1e-3).float().mean())
            continue
        for stage in STAGES:
            measured.ours.setdefault(stage, []).append(ours[stage])
            measured.peer.setdefault(stage, []).append(peer[stage])
    return measured


@torch.no_grad()
def with_candidates(network: CenterPoint, cloud: Tensor) -> None:
    """Shift the heat maps so that `CANDIDATES` cells of each task pass the threshold of 0.1."""
    for task, maps in zip(network.head.tasks, network([cloud]).tasks, strict=True):
        best = maps.heatmap.amax(dim=1).flatten().topk(CANDIDATES + 1).values[-1]
        task["heatmap"].out.bias += torch.logit(torch.tensor(0.1)) - best  # type: ignore[index]


@torch.no_grad()
def peer_stages(network: CenterPoint, decoder: Any, cloud: Tensor, seconds: dict[str, float], clock: Callable[[], float]) -> Any:
    """The published way, stage by stage; voxels and suppression are ours (their peers are in the table of operators)."""

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = clock()
        yield
        seconds[name] = clock() - start

    with stage("voxelize"):
        voxels = network.reader.voxelize([cloud])
    with stage("reader"):
        is_pillar = isinstance(network.reader, PillarReader)
        features = all_slots(network.reader, voxels) if is_pillar else network.reader(voxels)  # type: ignore[arg-type]
    with stage("encoder"):
        bev = network.encoder(features) if is_pillar else on_spconv(network, features)
        bev = bev.contiguous()
    with stage("neck"):
        neck = network.neck(bev)
    with stage("head"):
        maps = network.head(neck)
    with stage("boxes"):
        return decoder.from_maps(maps)[0]


def all_slots(reader: PillarReader, voxels: Any) -> VoxelFeatures:
    """The pillar reader with every slot of every pillar, unused ones as zeros."""
    rows, pillar, _ = reader.rows(voxels)
    x = rows.new_zeros((*voxels.points.shape[:2], rows.shape[1]))
    x[pillar, torch.arange(len(pillar)) - torch.searchsorted(pillar, pillar)] = rows  # (M, P, C)
    for number, layer in enumerate(reader.net.layers):
        x = layer.linear(x)  # type: ignore[operator]
        x = torch.relu(layer.norm(x.transpose(1, 2)).transpose(1, 2))  # type: ignore[operator]
        best = x.max(dim=1, keepdim=True).values
        x = torch.cat([x, best.expand_as(x)], dim=2) if number + 1 < len(reader.net.layers) else best[:, 0]
    return VoxelFeatures(x, voxels.coords, voxels.batch_size)


def on_spconv(network: CenterPoint, features: VoxelFeatures) -> Tensor:
    """The sparse backbone by spconv, on one thread."""
    encoder: Any = network.encoder
    threads, native = torch.get_num_threads(), BACKENDS["spconv"]
    torch.set_num_threads(1)
    BACKENDS["spconv"], encoder.backend = SpconvBackend(on_cpu=True), "spconv"
    try:
        return encoder(features)
    finally:
        BACKENDS["spconv"], encoder.backend = native, "native"
        torch.set_num_threads(threads)


def measure_shipped(model: str, points: np.ndarray, repeats: int) -> dict[str, list[float]]:
    """Seconds of each stage of a network with its own weights and as many candidates as these find."""
    detector, seconds = Detector.from_config(model), dict[str, list[float]]()
    for turn in range(repeats + 1):
        detector.profile(reset=True)
        detector.detect(points, _MOUNT)
        for stage, value in detector.profile().seconds.items() if turn else ():  # the first one only warms up
            seconds.setdefault(stage, []).append(value)
    return seconds


def print_table(points: np.ndarray, threads: int, repeats: int, models: tuple[str, ...] = MODELS, shipped: str = SHIPPED) -> None:
    """One row a model and stage: medians over the repetitions, and the ratio's."""
    torch.set_num_threads(threads)
    print(f"\n{len(points)} points, {threads} threads, float32, {CANDIDATES} candidates a task\n")
    print("| model | stage | ours [ms] | published way [ms] | ratio |\n|---|---|---|---|---|")
    for model in models:
        found = measure(model, points, repeats)
        total = [np.sum([times[stage] for stage in STAGES], axis=0) for times in (found.ours, found.peer)]
        for stage in (*STAGES, "frame"):
            ours, peer = total if stage == "frame" else (np.array(found.ours[stage]), np.array(found.peer[stage]))
            assert found.same > 0.99, f"both must find the same objects, {found.same:.0%} are"
            line = f"| {model} | {stage} | {1e3 * np.median(ours):.0f} | {1e3 * np.median(peer):.0f} | {np.median(peer / ours):.1f} |"
            print(line, flush=True)
    found_alone = measure_shipped(shipped, points, max(repeats, 10))
    for stage in STAGES:
        print(f"| {shipped} | {stage} | {1e3 * np.median(found_alone[stage]):.0f} | | |")
    whole = np.median(np.sum([found_alone[stage] for stage in STAGES], axis=0))
    print(f"| {shipped} | frame, {1 / whole:.1f} a second | {1e3 * whole:.0f} | | |", flush=True)
