"""Do virtual points help? The same network with and without, trained on the same drives, the same number of steps, several seeds.

    perception simulate out/street --scenes 60 --frames 6 --cameras
    python tools/compare_virtual.py out/street --steps 400 --seeds 3 --out out/compare

Both learn from the split simulated_train and are judged on simulated_val by nuScenes' AP. Masks have the faults of a network, as
configs/train_compact_virtual.yaml says. What a call has trained, a later call with the same OUT does not train again.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from perception.cli.main import report_errors
from perception.core import Detections
from perception.core.errors import UsageError
from perception.detection import Detector, DetectorConfig, load_detector_config
from perception.drives import NuScenes
from perception.evaluation.curves import AP_DISTANCES, CLASS_RANGES, Curve, average_precisions, distances, judge, of_classes, within
from perception.pipeline import Fusion, Pipeline
from perception.training.config import TrainingConfig, load_training_config
from perception.training.state import RECORD, WEIGHTS
from perception.training.train import train
from perception.training.virtual_points import at_root

TRAINING = "train_compact_virtual"
ARMS = ("without", "with")
BANDS = ((0.0, 20.0), (20.0, 40.0), (40.0, 52.0))
Pairs = Sequence[tuple[Detections, Detections]]
Row = dict[str, float]


def main(
    root: Annotated[Path, typer.Argument(help="A data set that `perception simulate --cameras` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the trainings and scores.json.")],
    steps: Annotated[int, typer.Option(help="Of each training.", min=1)] = 400,
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.", min=1)] = 3,
    batch_size: Annotated[int, typer.Option(help="Samples of a step.", min=1)] = 8,
    changes: Annotated[list[str] | None, typer.Option("--set", help="key=value for all trainings; may be given again.")] = None,
    begin: Annotated[str | None, typer.Option(help="Shipped settings whose weights both begin with; random ones without.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train, judge and print the table."""
    found: dict[str, list[Row]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        for arm in ARMS:
            folder = out / f"{arm}-{seed}"
            settings = [f"loop.seed={seed}", f"loop.steps={steps}", "loop.epochs=null", f"loop.batch_size={batch_size}", *(changes or [])]
            config = trained(root, folder, arm == "with", settings, begin, device)
            found[arm].append(scores(list(judged(root, folder / WEIGHTS, config, device))))
            print(f"{arm} virtual points, seed {seed}: mAP {found[arm][-1]['mAP']:.3f}", flush=True)
    (out / "scores.json").write_text(json.dumps({"steps": steps, "batch_size": batch_size, **found}, indent=2))
    print(table(found))


def trained(root: Path, folder: Path, is_virtual: bool, changes: list[str], begin: str | None, device: str) -> TrainingConfig:
    """Train where that is not done yet."""
    if not is_virtual:
        changes = ["detector=compact", "data.source.instances=null", *changes]
    config = load_training_config(TRAINING, data=root, splits=("simulated_train",), changes=changes)
    record = folder / RECORD
    if not (record.is_file() and json.loads(record.read_bytes())["complete"]):
        weights = None if begin is None else widened(begin, config.detector, folder.with_suffix(".begin.safetensors"))
        train(config, folder, name=TRAINING, device=device, weights=weights, resume=(folder / "checkpoint.pt").is_file())
    return config


def widened(model: str, detector: Any, path: Path) -> Path:
    """The weights of shipped settings for a network that reads more columns: what multiplies the new ones is zero."""
    import torch

    from perception.detection import build_network, weights_beside
    from perception.detection.weights import read_weights
    from perception.training.state import write_weights

    file = weights_beside(model)
    if file is None:
        raise UsageError(f"{model}: expected settings with weights beside them, found none")
    state, wanted = read_weights(file, load_detector_config(model).detector), build_network(detector).state_dict()
    for name, tensor in state.items():
        if (missing := wanted[name].shape[-1] - tensor.shape[-1] if tensor.ndim else 0) > 0:
            state[name] = torch.nn.functional.pad(tensor, (0, missing))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, state, detector, model, {})
    return path


def judged(root: Path, weights: Path, config: TrainingConfig, device: str) -> Iterator[tuple[Detections, Detections]]:
    """Found and true objects of each key frame of simulated_val, in the ego frame."""
    instances = getattr(config.data.source, "instances", None)
    detector = Detector.from_config(DetectorConfig(detector=config.detector), weights=weights, device=device)
    pipeline = Pipeline(detector, fusion=None if instances is None else Fusion.from_config(at_root(instances, root)))
    for drive in NuScenes(root, cameras=instances is not None).drives("simulated_val"):
        for frame in drive:
            to_ego = frame.ego_to_global.inverse()
            assert frame.truth is not None
            yield pipeline.detect(frame, pipeline.read(frame)).transformed(to_ego), frame.truth.transformed(to_ego)


def scores(frames: Pairs) -> Row:
    """AP by class, their mean, and the mean over the classes that occur in each band of distance."""
    row = average_precisions(frames)
    row["mAP"] = float(np.mean(list(row.values())))
    return row | {band_name(*band): in_band(frames, lambda objects, band=band: between(objects, *band)) for band in BANDS}


def in_band(frames: Pairs, keep: Callable[[Detections], Detections]) -> float:
    """nuScenes' AP of what `keep` leaves, in the mean of the classes that the truth then has; no class has a range of its own."""
    found = []
    for name in CLASS_RANGES:
        pairs = [(keep(of_classes(ours, [name])), keep(of_classes(truth, [name]))) for ours, truth in frames]
        pairs = [(ours, truth if truth.num_points is None else truth[truth.num_points > 0]) for ours, truth in pairs]
        if any(len(truth) for _, truth in pairs):
            found.append(np.mean([Curve([judge(*pair, within(d)) for pair in pairs]).average_precision for d in AP_DISTANCES]))
    return float(np.mean(found)) if found else float("nan")


def between(objects: Detections, lower: float, upper: float) -> Detections:
    metres = distances(objects)
    return objects[(metres >= lower) & (metres < upper)]


def band_name(lower: float, upper: float) -> str:
    return f"mAP, {lower:g} to {upper:g} m"


def table(found: dict[str, list[Row]]) -> str:
    """Means over the seeds, their least and largest, and the mean difference of a seed's pair with its least and largest."""
    lines = ["| | without | with virtual points | difference |", "|---|---|---|---|"]
    for name in found[ARMS[0]][0]:
        without, with_them = (np.array([row[name] for row in found[arm]]) for arm in ARMS)
        cells = [f"{values.mean():.3f} ({values.min():.3f}..{values.max():.3f})" for values in (without, with_them)]
        difference = with_them - without
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {difference.mean():+.3f} ({difference.min():+.3f}..{difference.max():+.3f}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(report_errors(lambda: typer.run(main)))
