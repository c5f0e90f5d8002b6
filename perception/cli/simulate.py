"""`perception simulate`: drives that the project makes itself, in nuScenes' layout."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from perception.cli.options import printer


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder for the data set.", show_default=False)],
    scenes: Annotated[int, typer.Option(help="How many scenes.", min=1, max=10_000)] = 1,
    seed: Annotated[int, typer.Option(help="The same number gives the same bytes.", min=0)] = 0,
    frames: Annotated[int, typer.Option(help="Key frames of a scene, two a second.", min=1, max=400)] = 40,
    density: Annotated[float, typer.Option(help="1 is a usual street, 2 a crowded one.", min=0.01, max=10)] = 1.0,
    lidar: Annotated[
        str, typer.Option(help="hdl32e_nuscenes, hdl64e_kitti, vlp16, pandar128, ...; not given: the usual one of the format.")
    ] = "",
    cameras: Annotated[
        bool, typer.Option("--cameras", help="Six pictures a key frame as well, and their instance masks; takes a few times as long.")
    ] = False,
    layout: Annotated[str, typer.Option("--format", help="nuscenes or kitti: drives; clips: training samples, 8 a scene.")] = "nuscenes",
    version: Annotated[str, typer.Option(help="Name of the data set's version.")] = "v1.0-simulated",
) -> None:
    """Simulate drives through a street, with a lidar of 32 beams at 20 Hz or another one, and write them as nuScenes does.

    With --format kitti: as sequences of KITTI's tracking benchmark, with a lidar of 64 beams at 10 Hz.

    The last fifth of the scenes, one at least, is the split simulated_val, the others are simulated_train.

    Example: perception simulate out/street --scenes 1 --seed 7
    """
    from perception.core.errors import UsageError
    from perception.drives.simulated import simulate_scenes, write_kitti, write_nuscenes
    from perception.drives.simulated.clips import CLIPS_A_SCENE, write_clips
    from perception.drives.simulated.rigs import rig_of

    if layout not in ("nuscenes", "kitti", "clips"):
        raise UsageError(f"--format {layout}: expected nuscenes, kitti or clips")
    if layout != "nuscenes" and cameras:
        raise UsageError(f"--format {layout}: has no pictures; leave --cameras out")
    rig, start = rig_of(lidar or ("hdl64e_kitti" if layout == "kitti" else "hdl32e_nuscenes")), time.perf_counter()
    if layout == "clips":
        paths = write_clips(out, scenes * CLIPS_A_SCENE, seed=seed, density=density, rig=rig, workers=os.cpu_count() or 1)
        printer().print(f"{len(paths)} clips of {scenes} scenes in {time.perf_counter() - start:.0f} s")
        printer().print(str(out), markup=False)
        return
    drives = simulate_scenes(scenes, seed=seed, num_frames=frames, density=density)
    if layout == "kitti":
        folder = write_kitti(out, drives, rig=rig, workers=os.cpu_count() or 1)
        printer().print(f"{scenes} sequences, ten frames a second, in {time.perf_counter() - start:.0f} s")
        printer().print(str(folder), markup=False)
        return
    names = [drive.name for drive in drives]
    held_out = max(round(scenes / 5), 1)
    splits = {"simulated_train": names[:-held_out], "simulated_val": names[-held_out:]}
    folder = write_nuscenes(out, drives, version=version, splits=splits, lidar=True, rig=rig, cameras=cameras, workers=os.cpu_count() or 1)
    boxes = sum(int(thing.present.sum()) for drive in drives for thing in drive.objects)
    seconds = time.perf_counter() - start
    printer().print(f"{scenes} scenes, {scenes * frames} key frames, {boxes} annotations in {seconds:.0f} s")
    printer().print(str(folder), markup=False)
