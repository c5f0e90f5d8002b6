"""Samples with virtual points (MVP): what they are read from, their columns, and the order in which networks read these. No torch here.

The rows of `perception.fusion.fused_cloud` with the age moved to where all samples have it:

=====  ==========================================================
0-2    x, y, z
3      intensity 0..255 of returns, "is a car" of the others
4      age
5-13   nine more classes (1 of returns)
14     score (1 of returns)
15     kind: 1 return, 0 painted copy of a return, -1 virtual point
=====  ==========================================================
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.core.errors import DataError, UsageError
from perception.core.frame import Frame
from perception.detection.config import CenterPointSettings
from perception.fusion import FUSED_COLUMNS, InstancesConfig, build_source, fused_cloud

if TYPE_CHECKING:
    from torch import Tensor

    from perception.training.sample import Sample

KIND = FUSED_COLUMNS - 1
RETURN, VIRTUAL = 1, -1  # of KIND
ROOT = "{root}"  # in a path: the folder whose drives are read


def at_root(config: InstancesConfig, root: Path) -> InstancesConfig:
    """Settings whose path may say `{root}`, for the drives in a folder."""
    instances = config.instances
    if (path := getattr(instances, "path", None)) is not None:
        instances = instances.model_copy(update={"path": Path(str(path).replace(ROOT, str(root)))})
    return config.model_copy(update={"instances": instances})


class FusedClouds:
    """Frames to (P, 16) rows in the order of samples, in the key sweep's lidar frame; a source of instances is opened.

    root  of the drives, put where the settings' path says `{root}`
    Raises what `build_source` raises.
    """

    def __init__(self, config: InstancesConfig, root: Path) -> None:
        self._source = build_source(at_root(config, root))
        self._settings = config.virtual_points

    def __call__(self, frame: Frame, sweeps: int, within: float | None = None) -> np.ndarray:
        """The returns of the key sweep come first. DataError for a frame without cameras, and as source and clouds say."""
        if not frame.cameras:
            raise DataError(f"frame {frame.token}: expected cameras, whose pictures show the instances, got none")
        rows = fused_cloud(frame, self._source.find(frame.cameras), sweeps, self._settings, within=within)
        return np.concatenate([rows[:, :4], rows[:, 15:], rows[:, 4:15]], axis=1)


def clouds_to_read(samples: "Sequence[Sample]") -> "list[Tensor]":
    """The points of samples with their columns as readers take them: those of virtual points have the age last."""
    return [as_read(sample.points) for sample in samples]


def as_read(points: "Tensor") -> "Tensor":
    """(N, C) points of a sample as readers take them; five columns stay as they are."""
    if points.shape[1] != FUSED_COLUMNS:
        return points
    rows = points.new_empty(points.shape)
    rows[:, :4], rows[:, 4:15], rows[:, 15] = points[:, :4], points[:, 5:], points[:, 4]
    return rows


def is_kind(points: "Tensor", kind: int) -> "Tensor | None":
    """(N,) bool of a sample's points: which are RETURN or VIRTUAL; None where the columns do not tell, as all are returns."""
    return points[:, KIND] == kind if points.shape[1] == FUSED_COLUMNS else None


def reads_virtual(detector: CenterPointSettings) -> bool:
    """Whether a network reads the 16 columns of virtual points."""
    return bool(getattr(detector.reader, "virtual", False))


def expect_instances(source: Any, detector: CenterPointSettings) -> None:
    """UsageError where settings of a source have no `instances` and the network reads virtual points, or the other way round."""
    has = getattr(source, "instances", None) is not None
    if reads_virtual(detector) and not has:
        raise UsageError(
            f"data.source: expected drives with instances, as this network reads virtual points (MVP), got {source.name} without; "
            f"set data.source.instances of a source of drives, as in data.source.instances=simulated:{ROOT}"
        )
    if has and not reads_virtual(detector):
        raise UsageError(
            "data.source.instances: expected none, as this network reads no virtual points; leave it out (data.source.instances=null), or "
            "set detector.reader.virtual=true"
        )
