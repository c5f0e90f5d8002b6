"""How the ego vehicle leans on its springs, and how far the recorded poses are from where it truly was.

Chosen so that attitudes look like those of real nuScenes drives: a pitch or roll rate of about 1 degree a second (one standard
deviation over 45 ms) and 0.2 degrees of what does not follow from one key frame to the next, on top of what the road does; positions that
drift by centimetres over seconds, not from sweep to sweep; and a recorded height that is 0 everywhere.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import bilinear, lfilter

from perception.core import Transform

PITCH_OF_BRAKING = np.radians(0.35)  # radians nose down for each m/s2
ROLL_OF_TURNING = np.radians(0.5)  # radians outer side down for each m/s2
_SHAKING = np.radians(0.16)  # one standard deviation at 8 m/s, pitch and roll each
_FREQUENCY, _DAMPING = 1.2, 0.4  # of the body on its springs, Hz and share of the critical damping
_STEP = 0.02  # seconds
# what the recorded pose is off by, one standard deviation: metres, then radians
_DRIFT = np.array([0.04, 0.04, *np.radians([0.04, 0.03, 0.03])])


@dataclass(frozen=True, eq=False)
class Sway:
    """Pitch (positive nose down) and roll (positive left side up) that the body adds to the attitude of its wheels.

    start  seconds of the first row
    lean   (T, 2)  pitch and roll in radians every 0.02 s
    """

    start: float
    lean: np.ndarray

    @staticmethod
    def of(start: float, speed: np.ndarray, yaw: np.ndarray, step: float, rng: np.random.Generator) -> "Sway":
        """Of a vehicle with speeds (T,) in m/s and headings (T,) in radians, continuous, every `step` seconds from `start` on."""
        coarse, fine = np.arange(len(speed)) * step, np.arange(0, (len(speed) - 1) * step, _STEP)
        speed_now = np.interp(fine, coarse, speed)
        ahead = np.interp(fine, coarse, np.gradient(speed, step))
        left = np.interp(fine, coarse, np.gradient(yaw, step) * speed)
        pushed = np.stack([-PITCH_OF_BRAKING * ahead, ROLL_OF_TURNING * left], axis=1)
        shaken = rng.normal(size=(len(fine), 2)) * np.sqrt(np.minimum(speed_now, 12.0) / 8.0)[:, None]
        w = 2 * np.pi * _FREQUENCY
        b, a = bilinear([w * w], [1, 2 * _DAMPING * w, w * w], 1 / _STEP)
        # white noise of one standard deviation leaves the spring with sqrt(w * step / (4 * damping)) of one
        noise = _SHAKING / np.sqrt(w * _STEP / (4 * _DAMPING))
        steady = pushed[:1]  # it begins at rest in its first acceleration
        return Sway(start, lfilter(b, a, pushed - steady + noise * shaken, axis=0) + steady)

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """(K, 2) pitch and roll at times (K,)."""
        row = (np.asarray(seconds, np.float64) - self.start) / _STEP
        return np.stack([np.interp(row, np.arange(len(self.lean)), column) for column in self.lean.T], axis=1)


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """What the recorded pose of the ego vehicle is off by: smooth in time, so that sweeps of half a second line up to millimetres.

    amplitude, phase  (5, W)  of x, y in metres, then yaw, pitch, roll in radians
    period            (W,)    seconds
    keeps_height      the recorded height is the true one; else it is 0, as on nuScenes
    """

    amplitude: np.ndarray
    phase: np.ndarray
    period: np.ndarray
    keeps_height: bool = False

    @staticmethod
    def draw(rng: np.random.Generator, *, scale: float = 1.0, keeps_height: bool = False) -> "PoseErrors":
        """Of one drive; `scale` times as large as usual."""
        waves = 4
        share = rng.dirichlet(np.ones(waves), 5)  # of the variance
        amplitude = scale * _DRIFT[:, None] * np.sqrt(2 * share)
        return PoseErrors(amplitude, rng.uniform(0, 2 * np.pi, (5, waves)), rng.uniform(8, 60, waves), keeps_height)

    def at(self, seconds: float) -> np.ndarray:
        """(5,) x, y in metres, yaw, pitch, roll in radians."""
        return (self.amplitude * np.sin(2 * np.pi * seconds / self.period + self.phase)).sum(axis=1)

    def recorded(self, pose: Transform, seconds: float) -> Transform:
        """The pose as it is recorded."""
        x, y, yaw, pitch, roll = self.at(seconds).tolist()
        off = Transform.from_yaw(yaw).rotation @ tilt(pitch, roll)
        place = pose.translation + np.array([x, y, 0.0])
        return Transform(pose.rotation @ off, place if self.keeps_height else place * (1.0, 1.0, 0.0))


def tilt(pitch: float, roll: float) -> np.ndarray:
    """(3, 3) first rolled by `roll` about x (left side up), then by `pitch` about y (nose down); radians."""
    (cp, cr), (sp, sr) = np.cos([pitch, roll]), np.sin([pitch, roll])
    return np.array([[cp, sp * sr, sp * cr], [0, cr, -sr], [-sp, cp * sr, cp * cr]])
