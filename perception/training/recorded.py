"""The samples of recordings or clips one after the other, each once: for what looks at a whole training set."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from perception.core.errors import UsageError
from perception.detection.config import CenterPointSettings
from perception.fusion import InstancesConfig
from perception.training.data_settings import ClipsSettings, DataSettings, DrivesSettings
from perception.training.object_bank import classes_of
from perception.training.packed import LabelledCloud, PackedClip
from perception.training.pool import pooled
from perception.training.sample import Sample, sample_of
from perception.training.sources import open_source
from perception.training.virtual_points import expect_instances
from perception.training.workers import Workers


def recorded_samples(
    root: Path,
    detector: CenterPointSettings,
    *,
    version: str | None = None,
    split: str | None = None,
    instances: InstancesConfig | None = None,
    workers: int = 0,
    after_sample: Callable[[str, int, int | None], None] | None = None,
) -> Iterator[Sample]:
    """Every frame with truth of the drives in a folder, or every clip in it, as a sample on the CPU for a network.

    instances     in the pictures, for a network of virtual points: see `DrivesSettings`
    after_sample  called with the sample's token, how many are done and how many there are
    Raises what `open_source` raises, UsageError for instances where the network or the folder has no use for them, or none where it needs
    them, and DataError for a frame that cannot be read.
    """
    nothing = DataSettings(source=ClipsSettings(name="clips", folder=root, class_balanced=False), workers=workers)
    settings = nothing.reading(root, version=version, splits=() if split is None else (split,)).source
    if isinstance(settings, DrivesSettings):
        settings = settings.model_copy(update={"instances": instances})
    elif instances is not None:
        raise UsageError(f"{root}: expected drives with pictures for instances to be seen in, got a folder of clips; leave --instances out")
    expect_instances(settings, detector)
    classes, cpu = classes_of(detector), torch.device("cpu")
    source = open_source(settings, frame=detector.frame, sweeps=detector.sweeps, window=detector.window)  # type: ignore[arg-type]
    total = len(source)
    # The last one again rather than one beyond the end, which the processes would reach for ahead of time.
    ahead: Workers[int, LabelledCloud | PackedClip] = Workers(
        source, lambda number: min(number, total - 1), what="sample", workers=workers, ahead=4 * workers
    )
    try:
        for done in range(1, total + 1):
            item = ahead.take()
            if isinstance(item, PackedClip):
                sample = pooled(item, classes, detector.frame, cpu).sample()
            else:
                sample = sample_of(item.token, item.points, item.truth, classes, item.origin)
            yield sample
            if after_sample is not None:
                after_sample(sample.token, done, total)
    finally:
        ahead.close()
