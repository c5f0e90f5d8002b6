"""Rays and height fields: no ray finds a hole, neither between triangles nor between fields that share a border."""

import itertools

import numpy as np
import pytest

from cuda_ops import Primitives, cast_rays


@pytest.mark.parametrize("aim", ["corners", "edges", "diagonals", "anywhere"])
def test_no_ray_slips_through_a_height_field(aim):
    rng = np.random.default_rng(5)
    heights = rng.normal(0, 1, (30, 40)).astype(np.float32)
    field = Primitives.height_field(heights, (3, -7, 1), (0.3, 0.7), yaw=0.4)
    v, u = rng.uniform(1, 28, 20_000), rng.uniform(1, 38, 20_000)
    if aim == "corners":
        u, v = np.round(u), np.round(v)
    elif aim == "edges":
        u = np.round(u)
    elif aim == "diagonals":
        v = np.floor(v) + u - np.floor(u)
    local = np.stack([u * 0.3, v * 0.7], axis=1)
    c, s = np.cos(0.4), np.sin(0.4)
    target = np.column_stack([3 + c * local[:, 0] - s * local[:, 1], -7 + s * local[:, 0] + c * local[:, 1], np.zeros(len(u))])
    steep = rng.normal(size=target.shape) * [0.02, 0.02, 0]
    steep[:, 2] = 9
    origins, directions = target + steep, -2 * steep
    hits = cast_rays(origins.astype(np.float32), directions.astype(np.float32), field)
    assert (hits.primitive == 0).all()
    assert (hits.normal[:, 2] > 0).all()
    # Upside down the surface is met at the same places: one surface, without folds, under a nearly upright ray.
    back = cast_rays((origins + directions).astype(np.float32), -directions.astype(np.float32), field)
    assert (back.normal[:, 2] < 0).all()
    steepness = np.abs((hits.normal * directions).sum(axis=1)) / np.linalg.norm(directions, axis=1)
    is_clear = steepness > 0.2
    np.testing.assert_allclose((hits.distance + back.distance)[is_clear], np.linalg.norm(directions, axis=1)[is_clear], atol=0.3)


def test_a_flat_height_field_is_a_plane():
    field = Primitives.height_field(np.zeros((50, 50)), (-25, -25, -1.5), 1.02)
    plane = Primitives.planes([[0, 0, -1.5]], [[0, 0, 1]])
    angle = np.linspace(0, 2 * np.pi, 5000)
    directions = np.stack([np.cos(angle), np.sin(angle), np.linspace(-0.07, -3, 5000)], axis=1).astype(np.float32)
    one, other = (cast_rays(np.zeros_like(directions), directions, p) for p in (field, plane))
    np.testing.assert_allclose(one.distance, other.distance, rtol=1e-6)
    np.testing.assert_array_equal(one.normal, other.normal)


def tiled_surface(heights: np.ndarray, tiles: int, cells: int, center, cell_size, yaw: float) -> Primitives:
    """A surface cut into tiles x tiles fields of cells x cells each, whose borders have the same heights."""
    along, across = np.array([np.cos(yaw), np.sin(yaw), 0]) * cell_size[0], np.array([-np.sin(yaw), np.cos(yaw), 0]) * cell_size[1]
    parts = []
    for row, column in itertools.product(range(0, tiles * cells, cells), repeat=2):
        piece = heights[row : row + cells + 1, column : column + cells + 1]
        parts.append(Primitives.height_field(piece, center + column * along + row * across, cell_size, yaw=yaw))
    return Primitives.concatenate(*parts)


@pytest.mark.parametrize("aim", ["borders", "corners of fields", "points of the grid", "diagonals"])
@pytest.mark.parametrize("yaw", [0, 0.4, -2.9])
@pytest.mark.parametrize("center", [(0, 0, 0), (53.1, -27.3, 1), (1234.5, -987.6, 50)])
def test_no_ray_slips_through_between_fields(aim, yaw, center):
    rng = np.random.default_rng(7)
    count, tiles, cells, cell_size = 20_000, 3, 8, (0.3, 0.7)
    heights = rng.normal(0, 0.5, (tiles * cells + 1, tiles * cells + 1))
    surface = tiled_surface(heights, tiles, cells, np.array(center), cell_size, yaw)
    u, v = rng.uniform(4, tiles * cells - 4, (2, count))
    if aim == "borders":
        u = rng.choice([8, 16], count).astype(float)
        u, v = np.where(rng.random(count) < 0.5, [u, v], [v, u])
    elif aim == "corners of fields":
        u, v = rng.choice([8, 16], (2, count)).astype(float)
    elif aim == "points of the grid":
        u, v = np.round(u), np.round(v)
    else:
        v = np.clip(np.floor(v) + u - np.floor(u), 4, 20)
    x, y = u * cell_size[0], v * cell_size[1]
    target = np.array(center) + np.column_stack(
        [np.cos(yaw) * x - np.sin(yaw) * y, np.sin(yaw) * x + np.cos(yaw) * y, rng.uniform(-1, 1, count)]
    )
    back = rng.normal(0, 1, (count, 3)) * rng.choice([0, 0.01, 0.3], (count, 1))  # upright, steep and slanting
    back[:, 2] = 4  # from above every height to below every height, over the surface all the way
    for way in (back, -back):
        hits = cast_rays((target + way).astype(np.float32), (-2 * way).astype(np.float32), surface)
        assert (hits.primitive >= 0).all()
        assert (hits.distance <= 2 * np.linalg.norm(way, axis=1)).all()


@pytest.mark.parametrize("y", [0.0, 4.0, np.nextafter(np.float32(4), np.float32(9)), -1e-7])
def test_a_ray_along_the_border_of_a_field_meets_it(y):
    ramp = Primitives.height_field([[0, 4], [0, 4]], (0, 0, 0), 4)  # z = x
    hits = cast_rays(np.float32([[0, y, 1], [2, y, 9]]), np.float32([[1, 0, 0], [0, 0, -1]]), ramp)
    np.testing.assert_allclose(hits.distance, [1, 7], rtol=1e-6)


@pytest.mark.parametrize("y", [-1e-4, 4.0001])
def test_a_field_ends_at_its_border(y):
    ramp = Primitives.height_field([[0, 4], [0, 4]], (0, 0, 0), 4)
    assert cast_rays(np.float32([[2, y, 9]]), np.float32([[0, 0, -1]]), ramp).primitive == -1


def test_no_ray_leaves_a_room_of_boxes_by_its_edges():
    rng = np.random.default_rng(1)
    yaw, center, count = 0.7, np.array([31.7, -12.9, 1.3]), 30_000
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    walls = []  # inside the room is 4 x 6 x 3, the walls are 0.2 thick and overlap in the corners
    for axis, side in itertools.product(range(3), (-1, 1)):
        size, at = np.array([4.4, 6.4, 3.4]), np.zeros(3)
        at[axis], size[axis] = side * (size[axis] / 2 - 0.1), 0.2
        walls.append([*(center + turn @ at), *size, yaw])
    target = rng.uniform(-1, 1, (count, 3))
    is_edge = rng.random((count, 3)) < 0.7  # faces, edges and corners
    target[is_edge] = np.sign(target[is_edge])
    origin = rng.uniform(-0.9, 0.9, (count, 3)) * [2, 3, 1.5]
    origins, directions = origin @ turn.T + center, (target * [2, 3, 1.5] - origin) @ turn.T
    hits = cast_rays(origins.astype(np.float32), directions.astype(np.float32), Primitives.boxes(walls))
    assert (hits.primitive >= 0).all()
    assert (hits.distance <= np.linalg.norm([4, 6, 3]) + 0.01).all()  # the room's diagonal


@pytest.mark.parametrize("spike", ["first", "last", "anywhere"])
def test_a_field_is_whole_wherever_its_heights_lie(spike):
    """The lowest and the highest height of a field limit the search: rays inside the tip of its only spike, up or down, meet it."""
    rng = np.random.default_rng(3)
    fields, origins, directions = [], [], []
    for number, shape in enumerate([(2, 2), (31, 33), (32, 32), (2, 2), (40, 50), (2, 600), (70, 70), (3, 3)]):  # 4 to 4,900 heights
        for up in (1, -1):
            place = {"first": (0, 0), "last": (shape[0] - 1, shape[1] - 1)}.get(spike, tuple(rng.integers(shape)))
            heights = np.zeros(shape)
            heights[place] = up
            fields.append(Primitives.height_field(heights, (0, 100 * number, 10 * up), 1))
            origins.append([place[1], 100 * number + place[0], 10.95 * up])
            directions.append([1 if place[1] == 0 else -1, 0.5 if place[0] == 0 else -0.5, 0])  # towards the inside
    hits = cast_rays(np.float32(origins), np.float32(directions), Primitives.concatenate(*fields))
    np.testing.assert_array_equal(hits.primitive, np.arange(len(fields)))
    assert (hits.distance < 0.1).all()
