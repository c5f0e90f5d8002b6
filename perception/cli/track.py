"""`perception track`: detections in, tracks out."""

from pathlib import Path
from typing import Annotated

import typer

from perception.cli.options import Data, Out, Version, printer, progress, tell


def track(
    detections: Annotated[Path, typer.Argument(help="Detections: a nuScenes submission (JSON).", show_default=False)],
    data: Data,
    out: Out,
    version: Version = None,
    split: Annotated[
        str | None, typer.Option(help="Track all drives of this split; without it those that the file has samples of.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings of the tracker (YAML); without it configs/tracker_greedy.yaml.")] = None,
    on_missing: Annotated[str, typer.Option(help="For a sample without an entry in the file: error, skip or empty.")] = "error",
) -> None:
    """Track the detections of recorded drives.

    Example: perception track detections.json --data /data/nuscenes --split val --out out/tracks
    """
    from perception.drives import NuScenes
    from perception.drives.nuscenes import expect_on_missing
    from perception.pipeline import track_submission
    from perception.tracking import load_tracker_config

    settings = load_tracker_config(config)
    dataset = NuScenes(data, version, cameras=False, truth=False, tell=tell)
    with progress("tracking") as advance:
        policy = expect_on_missing(on_missing)
        report = track_submission(detections, dataset, out, config=settings, split=split, on_missing=policy, advance=advance)
    counts, seconds = report.counts, report.seconds
    console = printer()
    console.print(f"{counts.drives} drives, {counts.frames} frames, {counts.detections} detections")
    console.print(f"{counts.tracks} tracks, {counts.boxes_written} boxes written")
    rate = counts.frames / max(seconds["track"], 1e-9)
    console.print(f"read {seconds['read']:.1f} s, track {seconds['track']:.1f} s ({rate:.0f} frames/s), write {seconds['write']:.1f} s")
    if counts.frames_missing or counts.samples_foreign:
        console.print(f"{counts.frames_missing} samples without an entry ({on_missing}), {counts.samples_foreign} unknown samples left out")
    console.print(str(report.submission))
