"""Light on simulated surfaces: shelter, mirrors, patterns that go on; and that a coarse picture has the edges of a fine one."""

import numpy as np
import pytest

from cuda_ops import Primitives
from perception.core import Transform
from perception.drives.simulated.camera import render
from perception.drives.simulated.matter import SCENERY, Matter
from perception.drives.simulated.shading import Sun

SIZE = (160, 90)
INTRINSICS = np.array([[120.0, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]])
FORWARD = Transform.from_quaternion([0.5, -0.5, 0.5, -0.5], (0.0, 0.0, 1.5))  # looks along x, 1.5 m above the ground
LOW_SUN = Sun(azimuth_deg=90.0, elevation_deg=20.0)
GROUND = Matter.of(Primitives.planes([[0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]), 8.0, (60, 60, 60))


def box(*row, color=(60, 60, 60), owner=SCENERY, **options):
    """x, y, z (middle), length, width, height, yaw"""
    return Matter.of(Primitives.boxes(np.array([row], float), **options), 30.0, color, owner)


def image(*matter, scale=2, **options):
    return render(Matter.concatenate(*matter), FORWARD, INTRINSICS, SIZE, scale=scale, **options).image.astype(int)


@pytest.mark.parametrize("scale", [2, 4])
def test_edges_between_surfaces_are_as_sharp_as_in_a_picture_of_single_rays(scale):
    # the corner of a white house before a dark one: the same owner, another colour
    houses = box(8.0, 2.0, 2.0, 2.0, 4.0, 4.0, 0.3, color=(240, 240, 240)), box(14.0, -3.0, 2.0, 2.0, 12.0, 4.0, 0.0, color=(20, 20, 20))
    coarse, fine = (image(*houses, scale=s, shadows=False) for s in (scale, 1))
    assert (np.abs(coarse - fine).max(axis=2) > 60).mean() < 0.002


def test_edges_in_the_shade_are_in_the_shade():
    roof = box(10.0, 0.0, 4.0, 40.0, 60.0, 0.1, 0.0)
    post = box(8.0, 0.0, 1.5, 0.4, 0.4, 3.0, 0.0, color=(200, 60, 60), owner=3)
    high = Sun(azimuth_deg=180.0, elevation_deg=80.0)
    shaded, lit = (image(GROUND, post, *extra, scale=4, sun=high) for extra in ([roof], []))
    lower = slice(60, 90)  # ground and the foot of the post
    assert lit[lower].mean() > 1.5 * shaded[lower].mean()
    is_ground = render(Matter.concatenate(GROUND, post), FORWARD, INTRINSICS, SIZE).owner[lower] == SCENERY
    # nowhere along the post the sun comes through
    assert shaded[lower][is_ground].max() < np.percentile(lit[lower][is_ground], 5)


def test_the_ground_under_something_low_is_darker_though_the_sun_reaches_it():
    # half a metre above the ground, while the sun stands low on the left: its shadow lies 1.4 m to the right
    plate = box(8.0, 0.0, 0.5, 1.5, 1.0, 0.02, 0.0)
    free, covered = (image(GROUND, *extra, sun=LOW_SUN, scale=1) for extra in ([], [plate]))
    column, row = 80, int(45 + 120 * 1.5 / 8)  # the ground in the middle below the plate, which is seen above it
    change = free[row, column - 4 : column + 4].mean() - covered[row, column - 4 : column + 4].mean()
    assert change > 8
    assert abs(free[row, 140:].mean() - covered[row, 140:].mean()) < 3
    high = box(8.0, 0.0, 3.0, 1.5, 1.0, 0.02, 0.0)  # too high to matter
    assert (
        abs(free[row, column - 4 : column + 4].mean() - image(GROUND, high, sun=LOW_SUN, scale=1)[row, column - 4 : column + 4].mean()) < 6
    )


def test_vehicles_mirror_what_is_around_at_a_grazing_angle():
    top = (12.0, 0.0, 0.9, 16.0, 6.0, 1.0, 0.0)  # its upper face lies 0.1 m below the camera
    black = (5, 5, 5)
    matt, paint, glass = (
        image(box(*top, color=black, **options), shadows=False)[47:50, 70:90].mean(axis=(0, 1))
        for options in ({}, {"owner": 0}, {"owner": 0, "pass_chance": 0.7})
    )
    assert paint.mean() > matt.mean() + 20
    assert glass.mean() >= paint.mean()


def test_the_pattern_of_the_ground_goes_on_from_field_to_field():
    whole = Matter.of(Primitives.height_field(np.zeros((2, 2)), (0, -20, 0), 40), 8.0, (60, 60, 60))
    halves = [Matter.of(Primitives.height_field(np.zeros((2, 2)), (0, y, 0), (40, 20)), 8.0, (60, 60, 60)) for y in (-20, 0)]
    one, two = (image(*parts, shadows=False)[48:88].reshape(10, 4, 40, 4, 3).mean(axis=(1, 3, 4)) for parts in ([whole], halves))
    # what is left are grains, which each field has its own of
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.8
    assert np.abs(one - two).max() < 6
