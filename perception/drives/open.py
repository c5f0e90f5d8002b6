"""One door to every kind of recording."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from perception.core.frame import Drive
from perception.drives.nuscenes import NuScenes


def _open_nuscenes(root: Path, *, version: str | None, split: str | None, **options: Any) -> list[Drive]:
    return list(NuScenes(root, version, **options).drives(split))


DATASETS: dict[str, Callable[..., list[Drive]]] = {"nuscenes": _open_nuscenes}


def open_drives(root: Path | str, *, version: str | None = None, split: str | None = None, **options: Any) -> list[Drive]:
    """The drives of a recording: `for drive in open_drives("/data/nuscenes", split="val"): for frame in drive: ...`.

    root     folder of the data set
    version  nuScenes version folder, where there are several
    split    name of a split; all drives without it
    options  as `NuScenes` takes them (on_missing, cameras, truth)
    """
    return DATASETS["nuscenes"](Path(root), version=version, split=split, **options)
