"""`perception run`: recorded drives in, detections and tracks out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perception.cli.options import Out, Version, printer, progress, tell

Root = Annotated[
    Path, typer.Argument(help="A data set: nuScenes layout (simulated drives too) or KITTI; or one raw drive of KITTI.", show_default=False)
]
Config = Annotated[
    str,
    typer.Option("--config", "--model", help="The detector: a YAML file, or a name from configs/.", show_default=False),
]
Weights = Annotated[
    Path | None, typer.Option(help="Its weights (safetensors); without it those that come with the model.", show_default=False)
]
Seed = Annotated[
    int | None,
    typer.Option(help="Random weights in place of trained ones: for timings and trials.", show_default=False, min=0, max=2**63 - 1),
]
Split = Annotated[str | None, typer.Option(help="The drives of this split; all without it.", show_default=False)]
DriveNames = Annotated[list[str] | None, typer.Option("--drive", help="This drive only; may be given again.", show_default=False)]
Sweeps = Annotated[
    int | None, typer.Option(help="Turns of the lidar in a cloud; without it the detector decides.", show_default=False, min=1)
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")]
Dtype = Annotated[str, typer.Option(help="Of the network: float32; on a GPU float16 or bfloat16 too.")]
Threads = Annotated[int | None, typer.Option(help="Of the CPU; all cores without it.", show_default=False, min=1)]
ShowProfile = Annotated[bool, typer.Option("--profile", help="Print where the time of a frame goes.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from what an interrupted run left in --out.")]
InstancesOf = Annotated[
    str | None,
    typer.Option(
        "--instances",
        help="For networks of virtual points, what the pictures show: file:PATH, simulated:DRIVE, torchvision:WEIGHTS, "
        "detectron2:CONFIG,WEIGHTS, or settings in a YAML file.",
        show_default=False,
    ),
]
OnMissing = Annotated[str, typer.Option(help="For a frame whose lidar file is not there: error (its drive fails), skip or empty.")]


def run(
    drive: Root,
    config: Config,
    out: Out,
    weights: Weights = None,
    seed: Seed = None,
    tracker: Annotated[Path | None, typer.Option(help="Settings of the tracker (YAML); without it configs/tracker_greedy.yaml.")] = None,
    version: Version = None,
    split: Split = None,
    names: DriveNames = None,
    sweeps: Sweeps = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    threads: Threads = None,
    profile: ShowProfile = False,
    resume: Resume = False,
    on_missing: OnMissing = "error",
    instances: InstancesOf = None,
) -> None:
    """Detect and track the objects of recorded drives, and write a run's folder: Parquet files, nuScenes submissions, run.json.

    Submissions (OUT/nuscenes) are written for drives in nuScenes' layout; others have no sample tokens. A drive that fails is named at the
    end (exit code 1), the others are kept; --resume tries it again and computes nothing twice.

    Example: perception run /data/nuscenes --split val --config centerpoint_pillar02 --weights pillars.safetensors --out out/run
    """
    from perception.pipeline import DrivesOf, Model

    chosen = DrivesOf(drive, version, split, tuple(names or ()), on_missing)
    model = Model(config, weights, seed, device, dtype, threads)  # type: ignore[arg-type]
    carry_out(chosen, model, out, what="tracking", profile=profile, resume=resume, tracker=tracker, num_sweeps=sweeps, instances=instances)


def carry_out(chosen: Any, model: Any, out: Path, *, what: str, profile: bool, resume: bool, **settings: Any) -> None:
    """`run_recording` with a progress bar, and what it has to say at the end. Exit code 1 where drives failed."""
    from perception.pipeline import Options, run_recording

    try:
        with progress(what) as advance:
            job = run_recording(chosen, model, out, options=Options(resume=resume, after_frame=advance), tell=tell, **settings)
    except KeyboardInterrupt:
        tell(f"stopped; what is finished in {out} is kept, and --resume goes on from there")
        raise
    report, counts, console = job.report, job.report.counts, printer()
    before = f" ({report.resumed} finished before)" if report.resumed else ""
    console.print(f"{counts.drives} drives{before}, {counts.frames} frames, {counts.detections} detections, {counts.tracks} tracks")
    if counts.frames_missing:
        console.print(f"{counts.frames_missing} frames without their lidar file ({chosen.on_missing})")
    if not report.submissions:
        console.print("no nuScenes submission: these drives have no sample tokens")
    if profile:
        console.print(job.profile())
    for name, reason in report.failed.items():
        tell(f"failed: {name}: {reason}")
    for path in report.submissions:
        console.print(f"{counts.boxes_written} boxes in {path}") if path == report.submission else console.print(str(path))
    console.print(str(out))
    if report.failed:
        raise typer.Exit(1)
