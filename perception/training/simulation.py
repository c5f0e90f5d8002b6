"""Clips of streets that nobody has seen before, made one street after the other."""

from dataclasses import dataclass

import numpy as np

from perception.core.classes import NUSCENES_DETECTION
from perception.core.detections import Detections
from perception.drives.simulated.clips import CLIPS_A_SCENE, clip_frames
from perception.drives.simulated.rigs import rig_of
from perception.drives.sweeps import accumulate_sweeps
from perception.training.packed import PackedClip, pack

__all__ = ["CLIPS_A_SCENE", "SimulatedStreets"]


@dataclass(frozen=True)
class SimulatedStreets:
    """`streets(number)` simulates the clips of one street: of the seed, clips 4 * number to 4 * number + 3.

    With one lidar these are the clips that `write_clips` writes for the seed. Picklable, so that processes can be given it.

    lidars  (name, share) of the models; each street is seen by one of them
    reach   metres: points farther from the vehicle are left out
    """

    seed: int
    lidars: tuple[tuple[str, float], ...]
    varied: bool
    density: float
    reach: float = np.inf

    def __call__(self, number: int) -> list[PackedClip]:
        rig = rig_of(self.lidar(number))
        frames = clip_frames(number, seed=self.seed, density=self.density, rig=rig, varies=self.varied)
        clips = []
        for k, frame in enumerate(frames):
            points = accumulate_sweeps(frame, rig.num_sweeps).points
            truth = frame.truth or Detections.empty(NUSCENES_DETECTION)  # a simulated frame has it
            token = f"clip-{number * CLIPS_A_SCENE + k:06d} of seed {self.seed} ({rig.name})"
            clips.append(pack(token, points, frame.lidar_to_ego, truth.transformed(frame.ego_to_global.inverse()), reach=self.reach))
        return clips

    def lidar(self, number: int) -> str:
        """The lidar that sees a street."""
        names, shares = zip(*self.lidars, strict=True)
        share = np.array(shares) / sum(shares)
        return str(np.random.default_rng([self.seed, number, 2]).choice(names, p=share))
