"""Speed, beside a peer: `python tools/benchmark.py tracking|submission|tables|ops|sweeps|simulate|fusion|detector|gpu|all`.

Each prints one Markdown table. Figures are medians over repetitions that alternate between the candidates, so that a machine that slows
down slows down both. Compare ratios, not seconds, between machines.
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from perception.core import NUSCENES_TRACKING, Boxes3D, Detections
from perception.evaluation import detection_boxes, read_submission, tracking_boxes, write_submission
from perception.tracking import GreedyTracker, ParityConfig, ParityTracker, load_tracker_config

ROOT = Path(__file__).resolve().parents[1]
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def crowded_drive(num_objects: int, num_frames: int, seed: int) -> list[tuple[Detections, int]]:
    """Detections of objects that drive and walk through 100 m x 100 m at 2 Hz: 5 % missed, 0.1 m and 0.3 m/s of noise, as many classes as
    a street has. Every frame has `num_objects` detections, misses made up for by clutter."""
    rng = np.random.default_rng(seed)
    label = rng.choice(7, num_objects, p=[0.05, 0.02, 0.5, 0.05, 0.3, 0.02, 0.06])  # order of NUSCENES_TRACKING
    position = rng.uniform(-50, 50, (num_objects, 2))
    velocity = rng.normal(0, 1, (num_objects, 2)) * np.where(label == 4, 1.0, 3.0)[:, None]
    frames = []
    for k in range(num_frames):
        position = (position + 0.5 * velocity + 50) % 100 - 50
        missed = rng.random(num_objects) < 0.05
        seen = np.where(missed[:, None], rng.uniform(-50, 50, position.shape), position + rng.normal(0, 0.1, position.shape))
        center = np.column_stack([seen, np.ones(num_objects)])
        size = np.tile([4.5, 1.9, 1.6], (num_objects, 1))
        boxes = Boxes3D(center, size, np.zeros(num_objects), velocity + rng.normal(0, 0.3, velocity.shape))
        frames.append(
            (Detections(boxes, label, rng.uniform(0.1, 1.0, num_objects), NUSCENES_TRACKING), 1_500_000_000_000_000 + 500_000 * k)
        )
    return frames


@app.command()
def tracking(repeats: Annotated[int, typer.Option(help="Repetitions of each candidate.")] = 5) -> None:
    """Frames a second of the tracker alone, on one core, beside the published algorithm; then reading and writing."""
    print_machine()
    print(
        "\n| detections a frame | greedy [frames/s] | reference's algorithm, max_age 3 [frames/s] | ratio | spread of ratio |\n"
        "|---|---|---|---|---|"
    )
    for num_objects, num_frames in ((30, 1000), (200, 400), (500, 150), (2000, 20)):
        frames = crowded_drive(num_objects, num_frames, seed=num_objects)
        ours, theirs = GreedyTracker(load_tracker_config().tracker), ParityTracker(ParityConfig(parity=True))  # type: ignore[arg-type]
        some = frames[: max(num_frames // 10, 10)]  # the reference is quadratic in Python: a tenth is enough
        ours_s, theirs_s = alternate(repeats, partial(run_tracker, ours, frames), partial(run_tracker, theirs, some))
        fast, slow = len(frames) / np.array(ours_s), len(some) / np.array(theirs_s)
        ratio = fast / slow
        print(
            f"| {num_objects} | {np.median(fast):.0f} | {np.median(slow):.0f} | {np.median(ratio):.0f} "
            f"| {ratio.min():.0f}..{ratio.max():.0f} |"
        )
    print()
    with tempfile.TemporaryDirectory(prefix="perception-") as folder:
        _files(repeats, *crowded_file(folder))


@app.command()
def submission(
    path: Annotated[
        Path | None, typer.Argument(help="A detection submission; without it one is made of 300 samples x 200 boxes.", show_default=False)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Repetitions of each candidate.")] = 3,
) -> None:
    """Seconds and memory to read and validate a submission in a process of its own, beside Python's json."""
    print_machine()
    print()
    with tempfile.TemporaryDirectory(prefix="perception-") as folder:
        _submission(path or crowded_file(folder)[0], repeats)


def _submission(path: Path, repeats: int) -> None:
    print(f"{path.stat().st_size / 1e6:.0f} MB\n\n| step | seconds | peak memory [MB] |\n|---|---|---|")
    ours = f"from pathlib import Path; from perception.evaluation import validate_submission; validate_submission(Path({str(path)!r}))"
    theirs = f"import json; json.load(open({str(path)!r}))"
    for name, code in (("read and validate", ours), ("Python's json alone", theirs)):
        runs = np.array([measure_process(code) for _ in range(repeats)])
        print(f"| {name} | {np.median(runs[:, 0]):.1f} | {runs[:, 1].max():.0f} |")


@app.command()
def tables(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder for the generated tables; kept if given, reused if there.", show_default=False)
    ] = None,
    scenes: Annotated[int, typer.Option(help="850 is trainval's size.")] = 850,
    devkit: Annotated[bool, typer.Option(help="Load them with the official devkit too (minutes, 15 GB at 850 scenes).")] = False,
) -> None:
    """Seconds and memory to index tables of trainval's size, and to open them again."""
    print_machine()
    with tempfile.TemporaryDirectory() as aside:
        data, cache = folder or Path(aside) / "data", Path(aside) / "cache"
        if not list(data.glob("*/sample.json")):
            subprocess.run([sys.executable, str(ROOT / "tools" / "generate_tables.py"), str(data), "--scenes", str(scenes)], check=True)
        version = next(data.glob("*/sample.json")).parent
        size = sum(file.stat().st_size for file in version.glob("*.json")) / 1e9
        ours = (
            "from perception.drives import NuScenes; from pathlib import Path; "
            f"d = NuScenes({str(data)!r}, cache=Path({str(cache)!r}), cameras=False); d.drives()[-1][0]"
        )
        rows = [("index (first open)", ours), ("open again", ours)]
        if devkit:
            rows.append(("official devkit", f"from nuscenes import NuScenes; NuScenes({version.name!r}, {str(data)!r}, verbose=False)"))
        print(f"\n{size:.2f} GB of JSON, {scenes} scenes\n\n| step | seconds | peak memory [MB] |\n|---|---|---|")
        for name, code in rows:
            seconds, megabytes = measure_process(code)
            print(f"| {name} | {seconds:.2f} | {megabytes:.0f} |")


@app.command()
def ops(
    cloud: Annotated[
        Path | None, typer.Argument(help="Points of 5 columns, float32 or .f16.bin; without it one is made.", show_default=False)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Repetitions of each candidate.")] = 21,
) -> None:
    """Milliseconds of the point-cloud operators on the CPU, beside their peers."""
    import benchmark_ops as bench
    import benchmark_rays
    import benchmark_sparse

    print_machine()
    points = bench.read_cloud(cloud) if cloud else bench.ten_sweeps(264_000)
    print(f"\n{len(points)} points, {bench.cuda_ops.voxelize_mean(points, bench.GRID).num_voxels} voxels of 0.075 x 0.075 x 0.2 m\n")
    cases = bench.voxel_cases(points) + bench.box_cases(points) + benchmark_rays.ray_cases()
    bench.print_table(cases + benchmark_sparse.sparse_cases(points) + benchmark_sparse.row_cases(points), repeats)


@app.command()
def sweeps(repeats: Annotated[int, typer.Option(help="Repetitions of each candidate.")] = 41) -> None:
    """Milliseconds of processor time to read and accumulate ten sweeps from the page cache, beside the official devkit."""
    import benchmark_sweeps as bench

    print_machine()
    with tempfile.TemporaryDirectory() as aside:
        case = bench.ten_sweeps_on_disk(Path(aside))
        ours_s, theirs_s = alternate(repeats, case.ours, case.devkit, clock=time.process_time)
    ratio = np.array(theirs_s) / np.array(ours_s)
    low, high = np.percentile(ratio, [10, 90])
    print(
        f"\n{case.num_points} points in {bench.NUM_SWEEPS} files\n\n| step | ours [ms] | devkit [ms] | ratio | spread of ratio |\n"
        "|---|---|---|---|---|\n"
        f"| accumulate_sweeps | {np.median(ours_s) * 1e3:.1f} | {np.median(theirs_s) * 1e3:.1f} | {np.median(ratio):.1f} "
        f"| {low:.1f}..{high:.1f} |"
    )


@app.command()
def simulate(repeats: Annotated[int, typer.Option(help="Streets.")] = 8) -> None:
    """Seconds to set up simulated streets, to scan them and to write clips of them."""
    import benchmark_simulate as bench

    print_machine()
    print("\n| step | on | median (10..90 %) |\n|---|---|---|")
    for row in bench.rows(repeats):
        print(f"| {' | '.join(row)} |")


@app.command()
def fusion(repeats: Annotated[int, typer.Option(help="Repetitions of each candidate.")] = 21) -> None:
    """Milliseconds to make virtual points of six cameras' masks, beside plain NumPy."""
    import benchmark_fusion as bench

    print_machine()
    bench.print_table(repeats)


@app.command()
def detector(
    cloud: Annotated[
        Path | None, typer.Argument(help="Points of 5 columns, float32 or .f16.bin; without it one is made.", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of both candidates; the peer's sparse backbone has one.")] = 2,
    repeats: Annotated[int, typer.Option(help="Repetitions of each candidate.")] = 7,
    device: Annotated[str, typer.Option(help="cpu, beside the published way; or cuda, step by step and as CUDA graphs.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="On a GPU: float16, float32 or all.")] = "all",
) -> None:
    """Milliseconds of CenterPoint by stage: on the CPU beside the published way of computing it, on a GPU beside what it allows."""
    import benchmark_detector as bench
    import benchmark_ops

    print_machine()
    points = benchmark_ops.read_cloud(cloud) if cloud else benchmark_ops.ten_sweeps(264_000)
    if device == "cpu":
        bench.print_table(points, threads, repeats)
        return
    import benchmark_detector_gpu as on_gpu
    import torch

    with torch.cuda.device(device):
        on_gpu.print_tables(points, on_gpu.DTYPES if dtype == "all" else (dtype,), max(repeats, 50))


@app.command()
def gpu(
    cloud: Annotated[
        Path | None, typer.Argument(help="Points of 5 columns, float32 or .f16.bin; without it one is made.", show_default=False)
    ] = None,
) -> None:
    """Milliseconds of the operators on a CUDA device, called and from a CUDA graph, beside the floor."""
    import benchmark_gpu
    import benchmark_ops
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("benchmark gpu: expected a CUDA device and a torch with CUDA, found none")
    print_machine()
    benchmark_gpu.print_table(benchmark_ops.read_cloud(cloud) if cloud else benchmark_ops.ten_sweeps(264_000))


@app.command(name="all")
def everything() -> None:
    """All tables of BENCHMARKS.md but the one of trainval's size."""
    tracking()
    tables(scenes=85)
    ops()
    sweeps()
    simulate()
    fusion()
    detector()


def run_tracker(tracker: GreedyTracker | ParityTracker, frames: list[tuple[Detections, int]]) -> None:
    """One drive."""
    tracker.reset()
    for detections, timestamp_us in frames:
        tracker.update(detections, timestamp_us)


def crowded_file(folder: str) -> tuple[Path, list[tuple[str, list[dict]]]]:
    """A submission file of 300 samples x 200 boxes in a folder, and its content."""
    samples = [(f"{k:032x}", detection_boxes(f"{k:032x}", detections)) for k, (detections, _) in enumerate(crowded_drive(200, 300, seed=1))]
    path = Path(folder) / "detections.json"
    write_submission(path, samples)
    return path, samples


def _files(repeats: int, path: Path, samples: list[tuple[str, list[dict]]]) -> None:
    """Reading and writing of one file, ours and Python's json with a dictionary a box."""
    megabytes = path.stat().st_size / 1e6
    tracker = GreedyTracker(load_tracker_config().tracker)  # type: ignore[arg-type]
    tracks = [(f"{k:032x}", tracker.update(d, t)) for k, (d, t) in enumerate(crowded_drive(200, 300, seed=1))]
    out = path.with_suffix(".out.json")

    def write_ours() -> None:
        write_submission(out, ((token, tracking_boxes(token, item[~item.coasted], prefix="drive-")) for token, item in tracks))

    def write_theirs() -> None:
        boxes = {token: tracking_boxes(token, item[~item.coasted], prefix="drive-") for token, item in tracks}
        with out.open("w") as file:
            json.dump({"meta": {}, "results": boxes}, file)

    def read_theirs() -> None:
        with path.open() as file:
            json.load(file)

    print(f"Files: {megabytes:.0f} MB, {len(samples)} samples read, {len(tracks)} samples of tracks written\n")
    print("| step | ours [s] | Python's json [s] | ratio | spread of ratio |\n|---|---|---|---|---|")
    for name, ours, theirs in (("read detections", lambda: read_submission(path), read_theirs), ("write tracks", write_ours, write_theirs)):
        ours_s, theirs_s = alternate(repeats, ours, theirs)
        ratio = np.array(theirs_s) / np.array(ours_s)
        print(
            f"| {name} | {np.median(ours_s):.2f} | {np.median(theirs_s):.2f} | {np.median(ratio):.1f} "
            f"| {ratio.min():.1f}..{ratio.max():.1f} |"
        )
    out.unlink(missing_ok=True)


def alternate(
    repeats: int, first: Callable[[], object], second: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[float], list[float]]:
    """Seconds of each repetition of two candidates in turn, after one warm-up of both."""
    first()
    second()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for candidate, taken in zip((first, second), seconds, strict=True):
            start = clock()
            candidate()
            taken.append(clock() - start)
    return seconds


def measure_process(code: str) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of a Python process of its own."""
    report = "; import resource, sys; sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code + report], check=True, capture_output=True, text=True, cwd=ROOT)
    return time.perf_counter() - start, int(done.stderr.split()[-1]) / 1024


def print_machine() -> None:
    """What the figures were measured on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?"
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{model}, Python {platform.python_version()}, NumPy {np.__version__} ({memory:.0f} MB before the first case)")


if __name__ == "__main__":
    app()
