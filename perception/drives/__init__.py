"""Where frames come from."""

from perception.drives.nuscenes import NuScenes, NuScenesDrive
from perception.drives.open import DATASETS, open_drives
from perception.drives.prefetch import prefetch
from perception.drives.sweeps import accumulate_sweeps

__all__ = ["DATASETS", "NuScenes", "NuScenesDrive", "accumulate_sweeps", "open_drives", "prefetch"]
