"""What a source of instances is, and the settings that all sources share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, Field

from perception.core.errors import DataError, PerceptionError
from perception.core.frame import Camera
from perception.fusion.instances import Instances

OnMissing = Literal["error", "skip"]


class InstanceSource(Protocol):
    """Pictures of one moment in, what they show out.

    find  cameras by name -> instances of each by name, in the pictures' own size, nuScenes' ten classes. Of a camera that is left out
          nothing is known; one that shows nothing has no instances. The same pictures give the same instances, in whatever order frames
          come. Raises DataError for a picture that cannot be read or is not known, where the settings say so
    """

    def find(self, cameras: Mapping[str, Camera], /) -> dict[str, Instances]: ...


class SourceSettings(BaseModel, frozen=True, extra="forbid"):
    """What all sources have."""

    on_missing: OnMissing = Field(
        "error",
        description="a picture that cannot be read or that a file does not know: an error, or the frame goes without that camera",
    )


def name_of(camera: Camera) -> str:
    """How a picture is called in files: its token, or camera and time where a recording has none."""
    return camera.token or f"{camera.name}/{camera.timestamp_us}"


def read_pictures(cameras: Mapping[str, Camera], on_missing: OnMissing) -> dict[str, np.ndarray]:
    """The pictures (H, W, 3) uint8 RGB by camera. DataError for one that cannot be read, or has another size than its camera; with "skip"
    it is left out."""
    pictures: dict[str, np.ndarray] = {}
    for name, camera in cameras.items():
        try:
            picture = camera.image
            if picture.shape[:2] != camera.size[::-1]:
                (width, height), (rows, columns) = camera.size, picture.shape[:2]
                raise DataError(f"picture {name_of(camera)}: expected {width} x {height} pixels, got {columns} x {rows}")
        except (PerceptionError, OSError) as error:
            if on_missing == "skip":
                continue
            raise DataError(f"{name}: {error}; on_missing: skip goes on without this camera") from error
        pictures[name] = picture
    return pictures


def find_with(
    network: Callable[[list[np.ndarray]], Sequence[Any]],
    to_instances: Callable[[Any, Camera, str], Instances],
    cameras: Mapping[str, Camera],
    *,
    on_missing: OnMissing,
    batch_size: int,
) -> dict[str, Instances]:
    """What a network finds in the pictures of cameras, `batch_size` at once.

    network       pictures (H, W, 3) uint8 RGB -> what it says of each
    to_instances  what it says of a picture, the camera, its name -> instances
    Raises DataError as `read_pictures` does.
    """
    import torch

    pictures, found = read_pictures(cameras, on_missing), dict[str, Instances]()
    names = list(pictures)
    with torch.inference_mode():
        for first in range(0, len(names), batch_size):
            batch = names[first : first + batch_size]
            for name, said in zip(batch, network([pictures[name] for name in batch]), strict=True):
                found[name] = to_instances(said, cameras[name], name)
    return found
