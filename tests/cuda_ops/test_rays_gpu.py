"""First hits of rays on a GPU: the bits of the CPU, twice."""

import math

import numpy as np
import pytest

from cuda_ops import Primitives, cast_rays, rays
from tests.cuda_ops.ray_scenes import random_boxes, random_rays, scene

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu


def assert_same_on_both(device, origins: np.ndarray, directions: np.ndarray, primitives: Primitives, **options) -> None:
    """The hits of the CPU are those of the GPU, in two runs."""
    one = cast_rays(origins, directions, primitives, **options)
    there = primitives.to(device)
    for _ in range(2):
        other = cast_rays(torch.from_numpy(origins).to(device), torch.from_numpy(directions).to(device), there, **options)
        for name in one._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name).cpu().numpy(), err_msg=name)


@pytest.mark.parametrize("is_culled", [True, False])
@pytest.mark.parametrize(("min_range", "max_range"), [(0.0, math.inf), (0.5, 9.0)])
@pytest.mark.parametrize("seed", range(5))
def test_every_kind(cuda_device, monkeypatch, seed, min_range, max_range, is_culled):
    monkeypatch.setattr(rays, "_CULLED", is_culled)
    origins, directions = random_rays(seed, 20_000)
    assert_same_on_both(cuda_device, origins, directions, scene(seed, 10), seed=seed, min_range=min_range, max_range=max_range)


@pytest.mark.parametrize("num_rays", [0, 1, 255, 256, 257])
@pytest.mark.parametrize("num_primitives", [0, 1, 300])
def test_numbers_of_rays_and_primitives(cuda_device, num_rays, num_primitives):
    boxes = random_boxes(np.random.default_rng(num_primitives), num_primitives)
    assert_same_on_both(cuda_device, *random_rays(1, num_rays), Primitives.boxes(boxes, pass_chance=0.3))


@pytest.mark.parametrize("spread", [0.1, 30.0, 1e5, 1e9, 1e14])
def test_near_and_far(cuda_device, spread):
    origins, directions = random_rays(2, 5000, spread)
    directions[::3] = -origins[::3] / np.abs(origins[::3]).max(axis=1, keepdims=True)  # into the scene
    origins[::50, 0], directions[1::50, 1], directions[2::50] = np.nan, np.inf, 0
    boxes = Primitives.boxes(random_boxes(np.random.default_rng(2), 200, spread), taper=(0.1, -0.2, 0.1))
    assert_same_on_both(cuda_device, origins, directions, Primitives.concatenate(scene(2), boxes))


def test_height_fields_of_all_sizes(cuda_device):
    rng = np.random.default_rng(4)
    shapes = [(2, 2), (31, 33), (32, 32), (2, 2), (40, 50), (2, 600), (300, 400), (3, 3)]
    fields = [Primitives.height_field(rng.normal(0, 1, shape), (*rng.uniform(-40, 0, 2), 0), 0.3, yaw=rng.normal()) for shape in shapes]
    origins, directions = random_rays(4, 20_000, 40)
    assert_same_on_both(cuda_device, origins, directions, Primitives.concatenate(*fields))


def test_rows_that_no_check_has_seen(cuda_device):
    good = Primitives.concatenate(scene(0), Primitives.height_field(np.zeros((2, 2)), (0, 0, 0), 1)).to("cpu")
    columns = {name: getattr(good, name).clone() for name in Primitives.__dataclass_fields__}
    columns["kind"][3] = 77
    columns["field"][-1] = torch.tensor([len(columns["heights"]) - 3, 2, 2])
    columns["size"][5], columns["yaw"][6], columns["heights"][17] = math.nan, math.inf, math.nan
    origins, directions = (torch.from_numpy(part) for part in random_rays(5, 5000))
    one, other = (
        torch.ops.cuda_ops.cast_rays(
            *[tensor.to(place) for tensor in (origins, directions, *columns.values())], None, None, 0, 0.0, math.inf
        )
        for place in ("cpu", cuda_device)
    )
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.cpu().numpy())


def test_a_graph_can_hold_the_call(cuda_device):
    origins, directions = (torch.from_numpy(part).to(cuda_device) for part in random_rays(6, 1000))
    primitives = scene(6).to(cuda_device)
    expected = cast_rays(origins, directions, primitives)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        hits = cast_rays(origins, directions, primitives)
    graph.replay()
    for mine, theirs in zip(expected, hits, strict=True):
        assert torch.equal(mine, theirs)
