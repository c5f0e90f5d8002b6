"""Instances from files in COCO's format: what `perception instances` wrote, or another tool."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from perception.core.classes import class_of_category
from perception.core.errors import DataError
from perception.core.frame import Camera
from perception.core.masks import PictureMasks, read_masks
from perception.fusion.instances import Instances
from perception.fusion.sources.source import SourceSettings, name_of

_NUSCENES_NAME = re.compile(r"__(?P<camera>[A-Z0-9_]+)__(?P<time>[0-9]{1,19})$")  # n015-2018-...__CAM_FRONT__1532402927612460


class FileSettings(SourceSettings, frozen=True):
    """Files in COCO's format with run-length coded masks; see `perception.core.masks`."""

    name: Literal["file"] = "file"
    path: Path = Field(description="a file, or a folder of files *.json, one a drive")


class FileInstances:
    """Instances by the token of their picture, from one file or the files of a folder.

    Categories may have the names of nuScenes' ten classes, of nuScenes' or nuImages' categories, or of COCO; those without one of the ten
    classes are left out. A picture without a token is known by its name, `<camera>/<timestamp>` or as nuScenes names its files. Files of a
    folder are read when a picture is asked for that none so far has; one of them is kept.
    Raises DataError for a path that is not there, and as `read_masks` does.
    """

    def __init__(self, settings: FileSettings) -> None:
        path = Path(settings.path)
        if path.is_dir():
            self._unread = sorted(path.glob("*.json"), reverse=True)
            if not self._unread:
                raise DataError(f"{path}: expected files *.json with masks, found none")
        elif path.is_file():
            self._unread = [path]
        else:
            raise DataError(f"{path}: expected a file of masks, or a folder of them, found none")
        self._settings, self._file_of = settings, dict[str, Path]()
        self._held: tuple[Path | None, dict[str, PictureMasks]] = None, {}

    def find(self, cameras: Mapping[str, Camera], /) -> dict[str, Instances]:
        """See `InstanceSource`. DataError for a picture that the files do not have, unless `on_missing` is "skip"."""
        found: dict[str, Instances] = {}
        for name, camera in cameras.items():
            picture = self.picture(camera)
            if picture is not None:
                found[name] = Instances.from_picture(picture, f"{name} {name_of(camera)}")
            elif self._settings.on_missing == "error":
                raise DataError(
                    f"{self._settings.path}: expected the picture {name_of(camera)} of {name}, found none; "
                    "on_missing: skip goes on without this camera"
                )
        return found

    def picture(self, camera: Camera) -> PictureMasks | None:
        """What the files say of a camera's picture; None where they do not have it."""
        names = [name_of(camera), f"{camera.name}/{camera.timestamp_us}"]
        name = next((name for name in names if name in self._file_of), None)
        while name is None and self._unread:
            self._hold(self._unread.pop())
            name = next((name for name in names if name in self._file_of), None)
        if name is None:
            return None
        if self._held[0] != self._file_of[name]:
            self._hold(self._file_of[name])
        return self._held[1][name]

    def _hold(self, path: Path) -> None:
        pictures = {_name_in_file(key): picture for key, picture in read_masks(path, class_of=class_of_category).items()}
        self._held = path, pictures
        for name in pictures:
            if (other := self._file_of.setdefault(name, path)) != path:
                raise DataError(f"{path}: picture {name}: expected it in one file, got it in {other} too")


def _name_in_file(name: str) -> str:
    match = _NUSCENES_NAME.search(name.rpartition("/")[2].partition(".")[0])
    return f"{match['camera']}/{int(match['time'])}" if match else name
