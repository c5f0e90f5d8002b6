"""`perception detect`: recorded drives in, detections out."""

from perception.cli.options import Out, Version
from perception.cli.run import (
    Config,
    Device,
    DriveNames,
    Dtype,
    InstancesOf,
    OnMissing,
    Resume,
    Root,
    Seed,
    ShowProfile,
    Split,
    Sweeps,
    Threads,
    Weights,
    carry_out,
)


def detect(
    drive: Root,
    config: Config,
    out: Out,
    weights: Weights = None,
    seed: Seed = None,
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
    """Detect the objects of recorded drives: what `perception run` does without tracking. `perception track` takes its submission.

    Example: perception detect /data/nuscenes --split val --model centerpoint_pillar02 --weights pillars.safetensors --out out/found
    """
    from perception.pipeline import DrivesOf, Model

    chosen = DrivesOf(drive, version, split, tuple(names or ()), on_missing)
    model = Model(config, weights, seed, device, dtype, threads)  # type: ignore[arg-type]
    carry_out(chosen, model, out, what="detecting", profile=profile, resume=resume, track=False, num_sweeps=sweeps, instances=instances)
