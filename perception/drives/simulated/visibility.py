"""How much of each box is hidden by nearer ones, seen from above."""

import numpy as np

NUM_BINS = 1440  # quarter degrees


def visible_fraction(boxes: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """(N,) share of each box's angular width that no nearer box covers, 0..1.

    boxes  (N, 6)  x, y, length, width, height, yaw; metres, radians
    eye    (2,)    where the sensor stands
    A box hides what is behind it when it is at least 1.2 m high (cones and barriers hide nothing); boxes are taken from near to far
    by the distance of their middles.
    """
    fraction = np.ones(len(boxes))
    is_covered = np.zeros(NUM_BINS, dtype=bool)
    offset = boxes[:, :2] - eye
    cos, sin = np.cos(boxes[:, 5:6]), np.sin(boxes[:, 5:6])
    along, across = boxes[:, 2:3] / 2 * [1, 1, -1, -1], boxes[:, 3:4] / 2 * [1, -1, -1, 1]
    corner_x, corner_y = offset[:, :1] + cos * along - sin * across, offset[:, 1:] + sin * along + cos * across  # (N, 4)
    middle = np.arctan2(offset[:, 1], offset[:, 0])
    spread = (np.arctan2(corner_y, corner_x) - middle[:, None] + np.pi) % (2 * np.pi) - np.pi
    low = np.floor((middle + spread.min(axis=1)) * NUM_BINS / (2 * np.pi)).astype(int)
    high = np.ceil((middle + spread.max(axis=1)) * NUM_BINS / (2 * np.pi)).astype(int)
    for i in np.argsort(np.hypot(offset[:, 0], offset[:, 1]), kind="stable"):
        bins = np.arange(low[i], max(high[i], low[i] + 1)) % NUM_BINS
        fraction[i] = 1.0 - is_covered[bins].mean()
        if boxes[i, 4] >= 1.2 and boxes[i, 2] > 1.2:
            is_covered[bins] = True
    return fraction
