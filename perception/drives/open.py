"""One door to every kind of recording."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perception.core.errors import DataError, UsageError
from perception.core.frame import Drive
from perception.drives.kitti import Kitti
from perception.drives.kitti_layout import folder_above, has_recordings
from perception.drives.nuscenes import NuScenes, find_versions

log = logging.getLogger(__name__)


def _open_nuscenes(root: Path, *, version: str | None, split: str | None, **options: Any) -> list[Drive]:
    return list(NuScenes(root, version, **options).drives(split))


def _open_kitti(root: Path, *, version: str | None, split: str | None, **options: Any) -> list[Drive]:
    return list(_kitti(root, version, **options).drives(split))


def _kitti(root: Path, version: str | None, **options: Any) -> Kitti:
    if version is not None:
        raise UsageError(f"{root}: version {version!r}: a KITTI data set has no versions")
    return Kitti(root, **options)


DATASETS: dict[str, Callable[..., list[Drive]]] = {"nuscenes": _open_nuscenes, "kitti": _open_kitti}


def kind_of(root: Path | str) -> str:
    """Which of DATASETS a folder holds, by what is in it. DataError where there is no such folder, UsageError for an unknown one."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: expected the folder of a data set, found none")
    if find_versions(root) or (root / "sample.json").is_file():
        return "nuscenes"
    if has_recordings(root) or folder_above(root):
        return "kitti"
    raise UsageError(
        f"{root}: expected nuScenes (v1.0-mini/sample.json, ...) or KITTI (training/velodyne/0000 or "
        "2011_09_26/2011_09_26_drive_0005_sync), found neither"
    )


def open_dataset(
    root: Path | str, *, version: str | None = None, tell: Callable[[str], None] = log.info, **options: Any
) -> NuScenes | Kitti:
    """The data set in a folder, where frames are found by token and drives by name; arguments as of `open_drives`.

    tell  called with one line about what takes long
    """
    if kind_of(root) == "kitti":
        return _kitti(Path(root), version, **options)
    return NuScenes(root, version, tell=tell, **options)


def open_drives(root: Path | str, *, version: str | None = None, split: str | None = None, **options: Any) -> list[Drive]:
    """The drives of a recording: `for drive in open_drives("/data/nuscenes", split="val"): for frame in drive: ...`.

    root     folder of the data set; what is in it tells of which kind it is (`kind_of`)
    version  nuScenes version folder, where there are several
    split    name of a split; all drives without it
    options  as `NuScenes` and `Kitti` take them (on_missing, cameras, truth)
    """
    return DATASETS[kind_of(root)](Path(root), version=version, split=split, **options)
