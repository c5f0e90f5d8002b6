"""Where frames come from."""

from perception.drives.nuscenes import NuScenes, NuScenesDrive
from perception.drives.open import DATASETS, open_drives

__all__ = ["DATASETS", "NuScenes", "NuScenesDrive", "open_drives"]
