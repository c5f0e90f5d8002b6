"""Where frames come from."""

from perception.drives.kitti import Kitti, KittiDrive
from perception.drives.nuscenes import NuScenes, NuScenesDrive
from perception.drives.open import DATASETS, kind_of, open_dataset, open_drives

__all__ = ["DATASETS", "Kitti", "KittiDrive", "NuScenes", "NuScenesDrive", "kind_of", "open_dataset", "open_drives"]
