"""The main job on a drive that the project simulates itself: `python tools/demo.py`, or `make demo`.

A simulated street, recorded by a lidar and six cameras, is written as a nuScenes version, once; the network that comes with the package,
which has not seen this street, finds its objects; they are tracked, judged by the official devkit, exported for a planner and drawn.
Everything is made on this machine; no data is needed. Where the package has no weights, the detections come from the street's truth and a
model of a detector's errors, and the output says so.
"""

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

import perception
from perception.cli.main import report_errors
from perception.core.errors import DataError
from perception.core.files import write_bytes
from perception.detection import weights_beside
from perception.drives import NuScenes
from perception.drives.simulated import SimulatedScene, simulate_detections, simulate_scenes, write_nuscenes
from perception.evaluation import detection_boxes, evaluate_officially, format_scores, write_submission
from perception.export import open_run
from perception.pictures import draw_run
from perception.pipeline import DrivesOf, Model, RunReport, run_recording, track_submission
from perception.tracking import load_tracker_config

VERSION, SPLIT = "v1.0-simulated", "simulated_val"
console = Console(highlight=False, soft_wrap=True)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(help="Another number gives another street.")] = 7,
    num_frames: Annotated[int, typer.Option("--frames", help="Key frames, two a second.", min=2, max=400)] = 40,
    model: Annotated[str, typer.Option(help="The detector: a name from configs/, or a YAML file with its weights beside it.")] = "compact",
) -> None:
    """Simulate a street, detect and track what is on it, judge, export, draw."""
    start = time.perf_counter()
    data = out / "data"
    scenes = simulate_scenes(1, seed=seed, num_frames=num_frames)
    dataset = recorded(scenes, data, seed)
    frames = [frame for drive in dataset.drives(SPLIT) for frame in drive]
    objects = len({name for frame in frames if frame.truth is not None for name in frame.truth.instance})  # type: ignore[union-attr]
    seconds = (frames[-1].timestamp_us - frames[0].timestamp_us) * 1e-6
    clouds, images = sum(len(frame.cloud) for frame in frames), sum(len(frame.cameras) for frame in frames)
    console.print(
        f"1. simulated street: {seconds:.1f} s, {len(frames)} key frames with {clouds:,} points and {images} pictures, "
        f"{objects} objects  ({data / VERSION})"
    )
    report, detections = found_by_network(model, dataset, out) if weights_beside(model) else found_by_truth(scenes, dataset, out, seed)
    console.print(f"3. greedy tracker: {report.counts.tracks} tracks, {report.counts.boxes_written} boxes  ({report.submission})")
    run = open_run(out / "run")
    between = int(frames[0].timestamp_us + 250_000)
    console.print(
        f"4. for planners: {run.table('tracks').num_rows} rows of Parquet in {out / 'run' / 'tracks'}; "
        f"{len(run.drive(scenes[0].name).tracks_at(between))} tracks 0.25 s into the drive, between two frames"
    )
    judge = partial(evaluate_officially, dataroot=data, version=VERSION, split=SPLIT, out=out / "run" / "evaluation", plots=False)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as aside:  # the official tracking scores take most of the time
        of_tracks = aside.submit(judge, report.submission)
        pictures = draw_run(run, out / "run" / "pictures", dataset=dataset, film="gif", radius=45, points=True, cameras=True)
        console.print(f"5. pictures and a film of the drive: {', '.join(path.name for path in pictures)}")
        console.print("6. official scores (nuscenes-devkit)\n")
        for scores in (judge(detections), of_tracks.result()):
            console.print(f"{scores.task}: {format_scores(scores)}\n", markup=False)
    console.print(f"{time.perf_counter() - start:.0f} s. Look at {pictures[0]}, {pictures[2]} and {pictures[-1]}")


def recorded(scenes: Sequence[SimulatedScene], data: Path, seed: int) -> NuScenes:
    """The street as a data set, simulated where it is not there yet."""
    kept = data / f"{VERSION}-{seed}-{len(scenes[0])}-{perception.__version__}-cameras"  # an empty file: this very drive has been recorded
    if not kept.exists():
        console.print("0. recording the street with a simulated lidar and six cameras: two minutes on two cores, the first time only")
        splits = {SPLIT: [scene.name for scene in scenes]}
        write_nuscenes(data, scenes, version=VERSION, splits=splits, lidar=True, cameras=True, workers=os.cpu_count() or 1)
        for old in data.glob(f"{VERSION}-*"):
            old.unlink()
        write_bytes(kept, b"")
    return NuScenes(data, VERSION)


def found_by_network(model: str, dataset: NuScenes, out: Path) -> tuple[RunReport, Path]:
    """The run of a detector and the tracker, and the submission of its detections."""
    job = run_recording(DrivesOf(dataset.dataroot, VERSION, SPLIT), Model(model), out / "run")
    if job.report.failed:
        raise DataError("; ".join(job.report.failed.values()))
    counts, detections = job.report.counts, job.report.submissions[0]
    speed = f"{job.frames / job.wall:.1f} frames a second with reading and tracking"
    console.print(f"2. {model}: {counts.detections} boxes, {speed}  ({detections})")
    return job.report, detections


def found_by_truth(scenes: Sequence[SimulatedScene], dataset: NuScenes, out: Path, seed: int) -> tuple[RunReport, Path]:
    """The same with a simulated detector in the place of the network."""
    detections = out / "detections.json"
    tokens = [token for drive in dataset.drives(SPLIT) for token in drive.tokens]
    found = [detection for scene in scenes for detection in simulate_detections(scene, np.random.default_rng(seed))]
    samples = [(token, detection_boxes(token, detection)) for token, detection in zip(tokens, found, strict=True)]
    count = write_submission(detections, samples)
    console.print(f"2. simulated detector: {count} boxes with misses, false alarms, jitter and wrong velocities  ({detections})")
    return track_submission(detections, dataset, out / "run", config=load_tracker_config(), split=SPLIT), detections


if __name__ == "__main__":
    sys.exit(report_errors(lambda: typer.run(demo)))
