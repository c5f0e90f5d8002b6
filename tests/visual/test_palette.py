"""Colours that are the same everywhere."""

import itertools

import numpy as np
import pytest

from perception.core import NUSCENES_DETECTION
from perception.visual import CLASS_COLORS, class_color
from perception.visual.palette import PAPER

XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)  # linear sRGB, D65
# How the eye that lacks one kind of cone sees linear sRGB, full severity (Machado, Oliveira and Fernandes 2009).
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}
LIKE_SIZE = [("car", "truck", "bus", "trailer", "construction_vehicle"), ("pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier")]


def linear(color) -> np.ndarray:
    channel = np.array(color) / 255
    return np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)


def luminance(color) -> float:
    """Relative luminance of an sRGB colour, 0 black to 1 white."""
    return float((XYZ @ linear(color))[1])


def lab(color, eye="normal") -> np.ndarray:
    """CIE L*a*b* of an sRGB colour as an eye sees it."""
    xyz = XYZ @ np.clip(EYES[eye] @ linear(color), 0, 1) / (0.95047, 1.0, 1.08883)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", EYES)
def test_classes_are_told_apart_by_every_eye(eye):
    for (a, color_a), (b, color_b) in itertools.combinations(CLASS_COLORS.items(), 2):
        assert np.linalg.norm(lab(color_a, eye) - lab(color_b, eye)) >= 18.5, (a, b)  # CIE 76; 2.3 is just noticeable


@pytest.mark.parametrize("names", LIKE_SIZE)
def test_classes_of_like_size_are_told_apart_in_grey_print(names):
    for a, b in itertools.combinations(names, 2):
        assert abs(lab(CLASS_COLORS[a])[0] - lab(CLASS_COLORS[b])[0]) >= 5.5, (a, b)


def test_each_nuscenes_class_has_a_colour_of_its_own():
    assert set(CLASS_COLORS) == set(NUSCENES_DETECTION)
    for (a, color_a), (b, color_b) in itertools.combinations(CLASS_COLORS.items(), 2):
        assert np.abs(np.subtract(color_a, color_b)).max() >= 30, (a, b)  # of 255 in one channel: told apart in a legend


@pytest.mark.parametrize("name", CLASS_COLORS)
def test_each_class_stands_out_as_a_line_on_paper(name):
    contrast = (luminance(PAPER) + 0.05) / (luminance(CLASS_COLORS[name]) + 0.05)
    assert contrast >= 2.0  # WCAG asks 3 of graphics; yellow and pink have less, and a number beside them


def test_a_class_without_a_colour_is_grey():
    red, green, blue = class_color("unicycle")
    assert red == green == blue
