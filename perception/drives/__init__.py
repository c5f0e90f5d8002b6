"""Where frames come from."""

from perception.core.masks import PictureMasks, read_masks, write_masks
from perception.drives.kitti import Kitti, KittiDrive
from perception.drives.nuscenes import NuScenes, NuScenesDrive
from perception.drives.open import DATASETS, kind_of, open_dataset, open_drives
from perception.drives.prefetch import prefetch
from perception.drives.sweeps import accumulate_sweeps

__all__ = [
    "DATASETS",
    "Kitti",
    "KittiDrive",
    "NuScenes",
    "NuScenesDrive",
    "PictureMasks",
    "accumulate_sweeps",
    "kind_of",
    "open_dataset",
    "open_drives",
    "prefetch",
    "read_masks",
    "write_masks",
]
