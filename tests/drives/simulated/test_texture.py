"""Patterns on surfaces: noise without seams, windows where walls are, ground that goes on from one field to the next."""

import numpy as np
import pytest

from cuda_ops import Primitives
from perception.drives.simulated import texture
from perception.drives.simulated.matter import SCENERY, Matter
from perception.drives.simulated.texture import TILE_SIDE, Finish, Spots, draw_patterns, finishes, noise, noise_tile

HOUSE = (0.0, 0.0, 5.0, 20.0, 10.0, 10.0, 0.0)
GREY, GREEN, WHITE, ASPHALT = (128, 128, 128), (90, 110, 60), (225, 225, 220), (94, 93, 91)


def box(row, color=GREY, owner=SCENERY, **options):
    return Matter.of(Primitives.boxes(np.array([row], float), **options), 30.0, color, owner)


def field(color):
    return Matter.of(Primitives.height_field(np.zeros((2, 2)), (0, 0, 0), 10), 30.0, color)


def test_noise_repeats_without_a_seam():
    tile = noise_tile().reshape(TILE_SIDE, TILE_SIDE)
    assert (tile.mean(), tile.std()) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))
    for axis in (0, 1):
        inside = np.abs(np.diff(tile, axis=axis))
        seam = np.abs(tile.take(0, axis=axis) - tile.take(-1, axis=axis))
        assert seam.max() <= 1.5 * inside.max()


def test_noise_is_looked_up_on_both_sides_of_zero():
    tile = noise_tile().reshape(TILE_SIDE, TILE_SIDE)
    u, v = np.float32([0.0, 0.5, -0.5, 256.0, -256.0]), np.float32([0.0, 0.25, -0.25, 0.0, 0.0])
    # four texels a unit
    expected = [tile[0, 0], tile[1, 2], tile[-1, -2], tile[0, 0], tile[0, 0]]
    np.testing.assert_array_equal(noise(u, v, 4), expected)


@pytest.mark.parametrize(
    ("matter", "finish"),
    [
        pytest.param(box(HOUSE), Finish.FACADE, id="house"),
        pytest.param(box((0, 0, 1, 20, 0.3, 2, 0)), Finish.PLAIN, id="garden wall"),
        pytest.param(box((0, 0, 5, 20, 10, 10, 0), pass_chance=0.5), Finish.PLAIN, id="high fence"),
        pytest.param(box(HOUSE, owner=3), Finish.SHEET, id="a large object is no house"),
        pytest.param(box((0, 0, 1, 2, 2, 1, 0), owner=3, pass_chance=0.7), Finish.GLASS, id="windows of a car"),
        pytest.param(field(ASPHALT), Finish.ROAD, id="asphalt"),
        pytest.param(field(GREEN), Finish.GRASS, id="grass"),
        pytest.param(field(WHITE), Finish.PAINT, id="paint"),
        pytest.param(Matter.of(Primitives.planes([[0, 0, 0]], [[0, 0, 1]]), 8.0), Finish.ROAD, id="plane"),
        pytest.param(Matter.of(Primitives.volumes(np.array([[0, 0, 1, 2, 2, 2, 0]]), 1.0), 8.0), Finish.LEAVES, id="crown"),
        pytest.param(Matter.of(Primitives.cylinders([[0, 0, 1]], 0.1, 3.0), 8.0), Finish.PLAIN, id="pole"),
    ],
)
def test_surfaces_are_told_by_what_they_are(matter, finish):
    assert finishes(matter).tolist() == [finish]


def patterned(matter, own, normal, distance=10.0, seed=0):
    """Colour and gloss of a shape of brightness 1 at places in its own axes, without grain."""
    count = len(own)
    spots = Spots(np.zeros(count, np.int32), np.float32(own), np.float32(normal), np.full(count, distance, np.float32))
    color = np.ones((count, 3), np.float32)
    return color, draw_patterns(matter, spots, np.repeat(finishes(matter), count), color, seed)


def wall(count, low, high, face=(0.0, 1.0, 0.0)):
    """Places on the wall at y = 5 of HOUSE, along it and upwards."""
    x, z = np.meshgrid(np.linspace(-9.9, 9.9, count), np.linspace(low, high, count))
    own = np.stack([x, np.full_like(x, 5.0), z], axis=-1).reshape(-1, 3)
    return own, np.tile(face, (len(own), 1))


def test_walls_of_houses_have_rows_of_windows_that_mirror():
    own, normal = wall(200, -4.9, 4.9)
    color, gloss = patterned(box(HOUSE), own, normal)
    is_pane = gloss > 0
    assert 0.1 < is_pane.mean() < 0.65
    assert np.median(color[is_pane]) < 0.3 * np.median(color[~is_pane])  # dark
    rows = is_pane.reshape(200, 200).any(axis=1)
    assert 3 <= np.count_nonzero(np.diff(rows.astype(int)) == 1) + rows[0] <= 4  # storeys of 2.9 to 3.7 m in 10 m
    assert not rows[-8:].any()  # the parapet


def test_a_roof_has_no_windows():
    own, normal = wall(100, -4.9, 4.9, face=(0.0, 0.0, 1.0))
    assert (patterned(box(HOUSE), own, normal)[1] == 0).all()


def test_neighbouring_houses_differ():
    own, normal = wall(60, -4.9, 4.9)
    both = Matter.concatenate(box(HOUSE), box(HOUSE))
    pictures = []
    for number in (0, 1):
        spots = Spots(np.full(len(own), number, np.int32), np.float32(own), np.float32(normal), np.full(len(own), 10, np.float32))
        color = np.ones((len(own), 3), np.float32)
        draw_patterns(both, spots, np.full(len(own), Finish.FACADE), color, 0)
        pictures.append(color)
    assert (np.abs(pictures[0] - pictures[1]) > 0.1).mean() > 0.2


def test_patterns_do_not_flicker_far_away():
    rng = np.random.default_rng(0)
    own = np.column_stack([rng.uniform(-90, 90, (4000, 2)), np.zeros(4000)])
    up = np.tile([0.0, 0.0, 1.0], (4000, 1))
    near, far = (patterned(field(GREEN), own, up, distance)[0] for distance in (5.0, 300.0))
    # what is left is the slow change from patch to patch, and grains of the size of pixels
    assert far[:, 0].std() < 0.85 * near[:, 0].std()


def test_colours_stay_above_zero_and_near_what_they_were():
    rng = np.random.default_rng(1)
    own = rng.uniform(-1, 1, (5000, 3)) * [10, 5, 5]
    for matter in (box(HOUSE), field(ASPHALT), field(GREEN), field(WHITE), Matter.of(Primitives.volumes(np.array([HOUSE]), 1.0), 8.0)):
        color = patterned(matter, own, np.tile([1.0, 0.0, 0.0], (5000, 1)))[0]
        assert color.min() >= 0
        assert 0.25 < color.mean() < 2.0


def test_there_are_clouds_and_none_at_the_horizon():
    azimuth = np.linspace(0, 2 * np.pi, 2000, dtype=np.float32)
    for elevation, most in ((0.0, 0.0), (0.02, 0.0), (0.5, 1.0)):
        flat = np.cos(np.float32(elevation))
        directions = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.full(2000, np.sin(elevation), np.float32)], axis=1)
        share = texture.cloudiness(directions)
        assert (share.min(), share.max()) == (0.0, most)
