"""How much of each box is visible from the roof of the ego vehicle: nearer boxes hide it, and the houses along the roads."""

import numpy as np

from perception.drives.simulated.roads import CrossSection, Plan

NUM_BINS = 1440  # quarter degrees
EYE_HEIGHT = 1.84  # metres above the ground, of a lidar on the roof
SETBACK = 4.0  # metres behind the pavement at which the first row of houses stands for sure
_SIGHTS = np.linspace(0.1, 0.9, 13)  # where a line of sight is looked at, as shares of it


def visible_fraction(boxes: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """(N,) share of each box's front, width times height, that no nearer box covers, 0..1.

    boxes  (N, 6)  x, y, length, width, height, yaw; metres, radians
    eye    (2,)    where the sensor stands
    Boxes stand on the ground and are taken from near to far by the distance of their middles. Each raises the horizon of the
    directions that it fills: lines of sight from `EYE_HEIGHT` pass over a low box and meet what stands behind it higher up.
    """
    fraction = np.ones(len(boxes))
    horizon = np.full(NUM_BINS, -np.inf)  # slope of the lowest free line of sight
    offset = boxes[:, :2] - eye
    cos, sin = np.cos(boxes[:, 5:6]), np.sin(boxes[:, 5:6])
    along, across = boxes[:, 2:3] / 2 * [1, 1, -1, -1], boxes[:, 3:4] / 2 * [1, -1, -1, 1]
    corner_x, corner_y = offset[:, :1] + cos * along - sin * across, offset[:, 1:] + sin * along + cos * across  # (N, 4)
    middle = np.arctan2(offset[:, 1], offset[:, 0])
    spread = (np.arctan2(corner_y, corner_x) - middle[:, None] + np.pi) % (2 * np.pi) - np.pi
    low = np.floor((middle + spread.min(axis=1)) * NUM_BINS / (2 * np.pi)).astype(int)
    high = np.ceil((middle + spread.max(axis=1)) * NUM_BINS / (2 * np.pi)).astype(int)
    distance, height = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1.0), boxes[:, 4]
    rows = list(zip(low.tolist(), high.tolist(), distance.tolist(), height.tolist(), strict=True))
    for i in np.argsort(distance, kind="stable").tolist():
        first, end, far, tall = rows[i]
        end = max(end, first + 1)
        bins = slice(first, end) if first >= 0 and end <= NUM_BINS else np.arange(first, end) % NUM_BINS
        line = horizon[bins]
        hidden = np.minimum(np.maximum(EYE_HEIGHT + line * far, 0.0), tall)  # metres from the ground
        fraction[i] = 1.0 - float(np.add.reduce(hidden)) / (end - first) / tall
        horizon[bins] = np.maximum(line, (tall - EYE_HEIGHT) / far)
    return fraction


def is_in_sight(plan: Plan, places: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a line of sight from eye to place stays over roads, pavements and parking lots; else houses are in the way.

    places, eyes  (N, 2) x, y in the street frame
    Where the houses of a scene leave gaps is not known here: nobody looks through them.
    """
    x, y = np.moveaxis(eyes[:, None] + (places - eyes)[:, None] * _SIGHTS[:, None], -1, 0)
    is_open = CrossSection.of(plan, x, y).beyond < SETBACK
    for lot in plan.lots:
        along, across = plan.locate(lot.arm, x, y)
        behind = lot.sign * across - plan.section(lot.arm, lot.sign).sidewalk_end
        is_open |= (along > lot.begin - 2) & (along < lot.end + 2) & (behind > 0) & (behind < lot.depth + 2)
    return np.asarray(is_open.all(axis=1))
