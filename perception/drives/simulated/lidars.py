"""Lidar models as data: where their beams point, how they turn, what they measure and miss.

Sources: measured on real nuScenes and KITTI recordings (HDL-32E, HDL-64E); the others from public driver tables and data sheets.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Table = tuple[tuple[float, float], ...]  # (where, value), ...: straight lines between them, the last value beyond


@dataclass(frozen=True, eq=False)
class LidarModel:
    """One kind of rotating lidar and the way its recordings are stored. B beams, counted as rings in the order of `elevations_deg`.

    elevations_deg       (B,) above the horizontal
    azimuth_offsets_deg  (B,) from the column's azimuth, counter-clockwise; zeros where not known
    origin_heights       (B,) metres above the sensor's origin at which beams leave it
    columns              firings a turn
    rate_hz              turns a second
    start_deg            azimuth of the first column from straight ahead, counter-clockwise
    turns_clockwise      seen from above
    time_stamp           moment of the turn that the time stamp names: 1 its end, 0.5 its middle
    forward_axis         "y" where the sensor frame is x right, y forward (nuScenes); "x" where it is x forward, y left (KITTI)
    is_compensated       points are moved into the pose of the time stamp; else each stays in the pose of its own moment
    keeps_missing        a ray without return is stored as a point at the sensor's own place (nuScenes), else left out
    order                "column": column by column, rings inside; "ring": ring by ring, counter-clockwise from straight ahead
    beam_width_deg       of the light, across; a beam that passes an edge within half of it returns from it
    range_limits         (nearest, farthest) metres
    range_noise          metres, one standard deviation nearby and at right angles
    noise_growth         share by which the noise grows for each metre of range
    range_step           metres between the ranges that can be stored
    intensity_scale, intensity_power, intensity_step, intensity_top
                         stored intensity = scale * reading ** power in steps, up to the top; readings are 0..255
    gain                 ((range, factor), ...) of the receiver: what readings are multiplied by
    reading_noise        of one return, one standard deviation of the reading's logarithm
    floor                ((range, reading), ...) weakest reading that is still a return
    zero_below           ((range, reading), ...) below which readings are mostly stored as 0, above it mostly not; None: none are
    grazing              cosine of incidence below which readings fall with its square
    gap_chance           ((range, chance), ...) of a single lost return; dark surfaces lose up to twice as many, bright ones hardly any
    edge_chance          of a return lost at a jump between neighbours of more than a metre
    missing_readings     (B,) intensity stored for a ray without any signal, where those are kept
    blind                ((first ring, last ring, from_deg, to_deg), ...) where the carrying vehicle hides the view, counter-clockwise
    """

    name: str
    elevations_deg: np.ndarray
    columns: int
    rate_hz: float
    azimuth_offsets_deg: np.ndarray = field(default_factory=lambda: np.zeros(0))
    origin_heights: np.ndarray = field(default_factory=lambda: np.zeros(0))
    start_deg: float = 180.0
    turns_clockwise: bool = True
    time_stamp: float = 1.0
    forward_axis: Literal["x", "y"] = "x"
    is_compensated: bool = True
    keeps_missing: bool = False
    order: Literal["column", "ring"] = "column"
    beam_width_deg: float = 0.16
    range_limits: tuple[float, float] = (0.5, 105.0)
    range_noise: float = 0.006
    noise_growth: float = 0.02
    range_step: float = 0.002
    intensity_scale: float = 1.0
    intensity_power: float = 1.0
    intensity_step: float = 1.0
    intensity_top: float = 255.0
    gain: Table = ((0, 1),)
    reading_noise: float = 0.12
    floor: Table = ((0, 0.6), (25, 0.9), (30, 1.5), (35, 3.2), (45, 7.5), (55, 12), (65, 17.5), (75, 25), (90, 42), (105, 62))
    zero_below: Table | None = None
    grazing: float = 0.0
    gap_chance: Table = ((0, 0.002), (10, 0.009), (20, 0.017), (40, 0.03), (60, 0.04))
    edge_chance: float = 0.12
    missing_readings: np.ndarray = field(default_factory=lambda: np.zeros(0))
    blind: tuple[tuple[int, int, float, float], ...] = ()

    def __post_init__(self) -> None:
        beams = len(self.elevations_deg)
        for name in ("azimuth_offsets_deg", "origin_heights", "missing_readings"):
            if len(getattr(self, name)) == 0:
                object.__setattr__(self, name, np.zeros(beams))
            elif len(getattr(self, name)) != beams:
                raise ValueError(f"LidarModel.{name}: expected ({beams},) like elevations_deg, got {np.shape(getattr(self, name))}")

    @property
    def num_beams(self) -> int:
        return len(self.elevations_deg)

    @property
    def turn_seconds(self) -> float:
        return 1.0 / self.rate_hz

    def azimuths_deg(self) -> np.ndarray:
        """(columns,) from straight ahead, counter-clockwise."""
        step = 360.0 / self.columns
        return self.start_deg + (-step if self.turns_clockwise else step) * np.arange(self.columns)


def _steps(*pieces: tuple[float, float, int]) -> np.ndarray:
    """Evenly spaced numbers of each piece (first, last, count), one piece after the other."""
    return np.concatenate([np.linspace(*piece) for piece in pieces])


_HDL32E = -30.67 + 1.3333 * np.arange(32)
# of a nuScenes sweep: what each ring stores for the open sky; rings that never saw it take the commonest
_HDL32E_MISSING = np.array([17, 9, 8, *[3] * 16, 2, 4, 3, 1, 9, 3, 3, 3, 10, 3, 11, 9, 17], np.float64)
_HDL64E = np.array([
    1.94, 1.57, 1.3, 0.87, 0.58, 0.18, -0.09, -0.45, -0.8, -1.2, -1.49, -1.83, -2.21, -2.55, -2.87, -3.24, -3.54, -3.94, -4.22, -4.59,
    -4.91, -5.25, -5.61, -5.96, -6.33, -6.68, -7.0, -7.29, -7.68, -8.06, -8.31, -8.71, -9.03, -9.58, -10.06, -10.47, -10.96, -11.6,
    -12.12, -12.56, -13.04, -13.49, -14.05, -14.6, -15.19, -15.66, -16.18, -16.56, -17.19, -17.73, -18.33, -18.8, -19.32, -19.74, -20.22,
    -20.79, -21.32, -21.94, -22.43, -22.86, -23.32, -23.97, -24.5, -25.0,
])  # fmt: skip
_PANDAR64 = np.concatenate([[14.882, 11.032, 8.059, 5.057, 3.04], _steps((2.028, -6.061, 49))])
_PANDAR64 = np.concatenate([_PANDAR64, [-7.063, -8.059, -9.06, -9.885, -11.032, -12.006, -12.974, -13.93, -18.889, -24.897]])
_RINGS = np.arange(32)

LIDARS = {
    model.name: model
    for model in (
        # fires rings 0, 16, 1, 17, ... while it turns; the first column looks left
        LidarModel(
            "hdl32e_nuscenes",
            _HDL32E,
            columns=1084,
            rate_hz=20.0,
            azimuth_offsets_deg=-(-0.07 + 0.0165 * (_RINGS % 16) + 0.008 * (_RINGS >= 16)),
            start_deg=89.65,
            forward_axis="y",
            keeps_missing=True,
            gain=((0, 1), (12, 1), (16, 0.5), (20, 0.38), (26, 0.4), (30, 0.55), (36, 0.8), (45, 1)),
            missing_readings=_HDL32E_MISSING,
            blind=((0, 0, 158, 204), (1, 1, 165, 196), (2, 2, 169, 171)),
        ),
        LidarModel(
            "hdl64e_kitti",
            _HDL64E,
            columns=2150,
            rate_hz=9.7,
            origin_heights=_steps((0.209, 0.198, 32), (0.126, 0.116, 32)),
            start_deg=180.0,
            time_stamp=0.5,
            is_compensated=False,
            order="ring",
            beam_width_deg=0.11,
            range_limits=(1.37, 80.0),
            range_noise=0.008,
            noise_growth=0.03,
            range_step=0.002,
            intensity_scale=0.105,
            intensity_power=0.425,
            intensity_step=0.01,
            intensity_top=0.99,
            reading_noise=0.5,
            gain=((20, 1), (30, 0.65), (40, 0.5), (60, 0.3), (80, 0.2)),
            floor=((0, 0.4),),
            zero_below=((3, 1.8), (8, 1.1), (12, 0.9), (20, 1.4), (28, 2.3), (35, 2.7), (45, 2.9), (55, 4.0), (70, 7), (80, 9)),
            grazing=0.09,
            gap_chance=((0, 0.004), (80, 0.01)),
            edge_chance=0.05,
            blind=(
                (45, 63, 150, 170), (45, 63, 190, 210), (52, 63, 160, 200), (52, 63, 280, 300), (57, 63, 345, 370), (57, 63, 120, 130)
            ),
        ),
        # drivers stamp the first packet of a turn or the last: the middle is never far off, and is what cameras wait for
        LidarModel(
            "vlp16",
            _steps((-15, 15, 16)),
            columns=1800,
            rate_hz=10.0,
            time_stamp=0.5,
            range_limits=(0.5, 100.0),
            range_noise=0.012,
        ),
        LidarModel(
            "vlp32c",
            np.concatenate([
                [-25, -15.639, -11.31, -8.843, -7.254, -6.148, -5.333, -4.667],
                _steps((-4, 1.667, 18)), [2.333, 3.333, 4.667, 7, 10.333, 15]
            ]),
            columns=1800,
            rate_hz=10.0,
            time_stamp=0.5,
            range_limits=(0.5, 200.0),
        ),
        LidarModel(
            "pandar40",
            np.concatenate([
                [6.96, 5.98, 4.99, 4.00, 3.00], _steps((2, -6, 25)),
                [-6.96, -7.93, -8.91, -9.87, -10.83, -11.77, -12.71, -13.63, -14.54, -15.44],
            ]),
            columns=1800,
            rate_hz=10.0,
            time_stamp=0.5,
            range_limits=(0.5, 200.0),
        ),
        LidarModel("pandar64", _PANDAR64, columns=1800, rate_hz=10.0, time_stamp=0.5, range_limits=(0.5, 200.0)),
        LidarModel(
            "pandar128",
            np.concatenate([_steps((14.436, 2.512, 27), (2.013, -6.10, 65), (-6.607, -24.12, 35)), [-25.016]]),
            columns=3600,
            rate_hz=10.0,
            time_stamp=0.5,
            range_limits=(0.5, 200.0),
        ),
        LidarModel(
            "os1_64",
            _steps((16.97, -16.6, 64)),
            columns=1024,
            rate_hz=10.0,
            time_stamp=0.5,
            azimuth_offsets_deg=np.tile([3.16, 1.06, -1.06, -3.16], 16),
            range_limits=(0.5, 120.0),
            range_noise=0.01,
        ),
    )
}  # fmt: skip
