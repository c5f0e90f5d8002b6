"""Colours that are the same everywhere."""

import itertools

import numpy as np
import pytest

from perception.core import NUSCENES_DETECTION
from perception.visual import CLASS_COLORS, class_color
from perception.visual.palette import PAPER


def luminance(color) -> float:
    """Relative luminance (WCAG 2) of an sRGB colour, 0 black to 1 white."""
    channel = np.array(color) / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_each_nuscenes_class_has_a_colour_of_its_own():
    assert set(CLASS_COLORS) == set(NUSCENES_DETECTION)
    for (a, color_a), (b, color_b) in itertools.combinations(CLASS_COLORS.items(), 2):
        assert np.abs(np.subtract(color_a, color_b)).max() >= 30, (a, b)  # of 255 in one channel: told apart in a legend


@pytest.mark.parametrize("name", CLASS_COLORS)
def test_each_class_stands_out_as_a_line_on_paper(name):
    contrast = (luminance(PAPER) + 0.05) / (luminance(CLASS_COLORS[name]) + 0.05)
    assert contrast >= 2.2  # WCAG asks 3 of graphics; the yellow of bicycles has 2.3, and a number beside it


def test_a_class_without_a_colour_is_grey():
    red, green, blue = class_color("unicycle")
    assert red == green == blue
