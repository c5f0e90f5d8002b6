"""The nearest point of a group: by eye, against plain NumPy, against SciPy's tree, against the recorded virtual points."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

import cuda_ops
from cuda_ops import reference

NAN, INF = float("nan"), float("inf")


def nearest(queries, query_group, points, point_group):
    return cuda_ops.nearest_in_group(
        np.array(queries, np.float64).reshape(-1, 2),
        np.array(query_group, np.int64),
        np.array(points, np.float64).reshape(-1, 2),
        np.array(point_group, np.int64),
    )


def assert_same(found, expected):
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_array_equal(found.squared_distance, expected.squared_distance)


def pixels(rng, num_queries, num_points, num_groups, size=60):
    """Whole pixels of a small image, so that many are equally near."""
    queries, points = (rng.integers(0, size, (count, 2)).astype(np.float32) for count in (num_queries, num_points))
    return queries, rng.integers(0, num_groups, num_queries), points, rng.integers(0, num_groups, num_points)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("query", "group", "row", "squared"),
    [
        pytest.param([0, 0], 1, 1, 25.0, id="3, 4 away, not the nearer one of the other group"),
        pytest.param([0, 0], 2, 0, 2.0, id="the other group"),
        pytest.param([3, 4], 1, 1, 0.0, id="on the point"),
        pytest.param([5, 4], 1, 1, 4.0, id="between two: the lower row"),
        pytest.param([0, 0], 3, -1, INF, id="a group without points"),
        pytest.param([0, 0], 9, -1, INF, id="a group whose points are not finite"),
        pytest.param([NAN, 0], 1, -1, INF, id="NaN"),
        pytest.param([0, -INF], 1, -1, INF, id="infinite"),
        pytest.param([1e300, 0], 1, 1, INF, id="too far for arithmetic: the lowest row"),
    ],
)
def test_by_eye(query, group, row, squared):
    points = [[1, 1], [3, 4], [7, 4], [NAN, 0], [0, INF], [7, 4]]
    found = nearest([query], [group], points, [2, 1, 1, 9, 9, 1])
    assert found.index.tolist() == [row]
    assert found.squared_distance.tolist() == [squared]
    assert found.index.dtype == np.int32
    assert found.squared_distance.dtype == np.float64


def test_points_that_are_not_finite_are_never_found():
    found = nearest([[0, 0], [1e308, 1e308]], [1, 1], [[NAN, NAN], [INF, 1e308], [0, -INF], [-1e308, 0]], [1, 1, 1, 1])
    assert found.index.tolist() == [3, 3]
    assert found.squared_distance.tolist() == [INF, INF]  # (1e308) squared overflows


@pytest.mark.parametrize("groups", [[-5, 0, 7], [-(2**63), 0, 2**63 - 1], [2**32, 2**32 + 1, 0], [-1, 2**31, 2**32 - 1]])
def test_groups_are_any_numbers(groups):
    rng = np.random.default_rng(1)
    queries, query_group, points, point_group = pixels(rng, 50, 60, 3)
    expected = cuda_ops.nearest_in_group(queries, query_group, points, point_group)
    names = np.array(groups, np.int64)
    assert_same(cuda_ops.nearest_in_group(queries, names[query_group], points, names[point_group]), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("group_dtype", [np.int32, np.int64])
def test_equals_reference(dtype, group_dtype):
    rng = np.random.default_rng(2)
    queries, query_group, points, point_group = pixels(rng, 120, 200, 5)
    queries, points = queries.astype(dtype), points.astype(dtype)
    queries[::2] += rng.normal(size=(60, 2))  # half of them between pixels
    queries[3, 0], points[5, 1], points[6, 0] = NAN, INF, NAN
    arguments = queries, query_group.astype(group_dtype), points, point_group.astype(group_dtype)
    expected = reference.nearest_in_group(*arguments)
    assert_same(cuda_ops.nearest_in_group(*arguments), expected)
    tensors = cuda_ops.nearest_in_group(*[torch.from_numpy(a) for a in arguments])
    assert (tensors.index.dtype, tensors.squared_distance.dtype) == (torch.int32, torch.float64)
    assert_same(cuda_ops.NearestInGroup(*[part.numpy() for part in tensors]), expected)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.integers(0, 12),
    num_points=st.integers(0, 40),
    num_groups=st.integers(1, 4),
    size=st.sampled_from([2, 6, 1000]),
)
def test_any_sizes_equal_reference(seed, num_queries, num_points, num_groups, size):
    rng = np.random.default_rng(seed)
    arguments = list(pixels(rng, num_queries, num_points, num_groups, size))
    for places in (arguments[0], arguments[2]):
        places[rng.random(places.shape) < 0.05] = rng.choice([NAN, INF, -INF, 3e38])
    assert_same(cuda_ops.nearest_in_group(*arguments), reference.nearest_in_group(*arguments))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_points_changes_only_their_numbers(seed):
    rng = np.random.default_rng(seed)
    queries, query_group, points, point_group = pixels(rng, 30, 50, 3)
    points += rng.uniform(0, 0.5, points.shape).astype(np.float32)  # no two equally near
    order = rng.permutation(50)
    expected = cuda_ops.nearest_in_group(queries, query_group, points, point_group)
    found = cuda_ops.nearest_in_group(queries, query_group, points[order], point_group[order])
    np.testing.assert_array_equal(found.squared_distance, expected.squared_distance)
    assert (np.append(order, -1)[found.index] == expected.index).all()


def test_large_groups_equal_the_tree_of_scipy():
    rng = np.random.default_rng(4)
    sizes = np.r_[rng.integers(1, 2001, 40), 1, 0, 7, 8, 9]
    points, point_group = rng.uniform(0, 1600, (sizes.sum(), 2)), np.repeat(np.arange(len(sizes)), sizes)
    order = rng.permutation(len(points))
    points, point_group = points[order], point_group[order]
    queries, query_group = rng.uniform(0, 1600, (50 * len(sizes), 2)), np.tile(np.arange(len(sizes)), 50)
    found = cuda_ops.nearest_in_group(queries, query_group, points, point_group)
    for group in range(len(sizes)):
        rows, mine = np.flatnonzero(point_group == group), query_group == group
        if len(rows) == 0:
            assert (found.index[mine] == -1).all()
            continue
        distance, row = cKDTree(points[rows]).query(queries[mine])
        np.testing.assert_array_equal(found.index[mine], rows[row])
        np.testing.assert_allclose(found.squared_distance[mine], distance**2, rtol=1e-12)


@pytest.mark.shared
def test_recorded_virtual_points(shared: Path):
    """The depths of all 1,150 recorded virtual points are those of the rows found here; in 10 equally near returns have other depths."""
    inputs, recorded = (np.load(shared / f"fixtures/mvp/{name}.npz") for name in ("inputs", "virtual_points"))
    height, width = inputs["mask_shape_hw"]
    kept, camera = recorded["kept_instances"], inputs["instance_camera"][recorded["kept_instances"]]
    masks = np.unpackbits(inputs["masks_packed"][kept], axis=1).reshape(-1, height, width).astype(bool)
    cloud = np.column_stack([inputs["points"][:, :3], np.ones(len(inputs["points"]), np.float32)])
    points, point_group, point_depth = [], [], []
    for number in range(6):  # every return in the mask of an instance belongs to the first such instance, camera by camera
        seen = (cloud @ inputs["cam_from_lidar"][number].astype(np.float32).T)[:, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = np.floor((seen @ inputs["intrinsics"][number].astype(np.float32).T)[:, :2] / seen[:, 2:]).T
        rows = np.flatnonzero((u > 0) & (u < width) & (v > 0) & (v < height) & (seen[:, 2] > 0))
        u, v, depth = u[rows].astype(int), v[rows].astype(int), seen[rows, 2]
        owner = np.full(len(rows), -1)
        for instance in np.flatnonzero(camera == number)[::-1]:
            owner[masks[instance, v, u]] = instance
        points.append(np.column_stack([u, v])[owner >= 0])
        point_group.append(owner[owner >= 0])
        point_depth.append(depth[owner >= 0])
    points, point_group, point_depth = np.concatenate(points), np.concatenate(point_group), np.concatenate(point_depth)
    queries = []
    for mask, ranks in zip(masks, recorded["selected_pixel_rank"], strict=True):
        u, v = np.nonzero(mask.T)  # by column, then by row
        queries.append(np.column_stack([u, v])[np.where(ranks < 0, ranks[0], ranks)])
    query_group = np.repeat(np.arange(len(kept)), 50)
    found = cuda_ops.nearest_in_group(np.concatenate(queries).astype(np.float32), query_group, points.astype(np.float32), point_group)

    order = np.argsort(camera[query_group], kind="stable")  # virtual points stand camera by camera
    order = order[found.index[order] >= 0]
    virtual = np.column_stack([recorded["virtual_points"][:, :3], np.ones(len(order))])
    depth = np.einsum("nj,nj->n", inputs["cam_from_lidar"][camera[query_group[order]], 2], virtual)
    np.testing.assert_allclose(point_depth[found.index[order]], depth, rtol=0, atol=1e-4)  # the recording's own tolerance
    # The 10: what another rule for ties would get wrong.
    last = cuda_ops.nearest_in_group(
        np.concatenate(queries).astype(np.float32), query_group, points[::-1].astype(np.float32), point_group[::-1]
    )
    other_depth = point_depth[::-1][last.index[order]]
    assert (np.abs(other_depth - depth) > 1e-3).sum() == 10


def test_empty():
    none, no_group = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    one, group = np.zeros((1, 2), np.float32), np.zeros(1, np.int32)
    assert nearest([], [], [[0, 0]], [1]).index.shape == (0,)
    for kind in (np.asarray, torch.from_numpy):
        found = cuda_ops.nearest_in_group(kind(one), kind(group), kind(none), kind(no_group))
        assert found.index.tolist() == [-1]
        assert found.squared_distance.tolist() == [INF]
        found = cuda_ops.nearest_in_group(kind(none), kind(no_group), kind(none), kind(no_group))
        assert found.index.shape == found.squared_distance.shape == (0,)


def test_arrays_that_are_not_contiguous():
    queries, query_group, points, point_group = pixels(np.random.default_rng(6), 60, 80, 3)
    expected = cuda_ops.nearest_in_group(queries[::2].copy(), query_group[::2].copy(), points[::-1].copy(), point_group[::-1].copy())
    assert_same(cuda_ops.nearest_in_group(queries[::2], query_group[::2], points[::-1], point_group[::-1]), expected)
    wide = torch.from_numpy(np.column_stack([queries, queries]))
    tensors = cuda_ops.nearest_in_group(
        wide[::2, :2], torch.from_numpy(query_group)[::2], torch.from_numpy(points).flip(0), torch.from_numpy(point_group).flip(0)
    )
    np.testing.assert_array_equal(tensors.index.numpy(), expected.index)


def test_any_number_of_threads_gives_the_same_bits(threads):
    rng = np.random.default_rng(7)
    arguments = pixels(rng, 5000, 100_000, 50, 400)
    results = []
    for count in (1, 2, 8):
        threads(count)
        results.append(cuda_ops.nearest_in_group(*arguments))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_inputs_are_left_alone():
    arguments = pixels(np.random.default_rng(8), 20, 30, 3)
    before = [a.copy() for a in arguments]
    cuda_ops.nearest_in_group(*arguments)
    for mine, theirs in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


PLACES, GROUPS = np.zeros((3, 2), np.float32), np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"queries": np.zeros((3, 3), np.float32)}, r"queries: expected shape \(Q, 2\), got \(3, 3\)", id="columns"),
        pytest.param({"points": np.zeros(6)}, r"points: expected shape \(P, 2\), got \(6,\)", id="flat"),
        pytest.param({"points": np.zeros((3, 2), int)}, "points: expected dtype float64 or float32, got int64", id="dtype"),
        pytest.param({"query_group": np.zeros(2, int)}, r"query_group: expected shape \(3,\), got \(2,\)", id="query_group"),
        pytest.param({"point_group": np.zeros(4, int)}, r"point_group: expected shape \(3,\), got \(4,\)", id="point_group"),
        pytest.param({"point_group": np.zeros(3)}, "point_group: expected dtype int64 or int32, got float64", id="group dtype"),
        pytest.param({"points": torch.zeros(3, 2)}, "nearest_in_group: queries: expected a torch tensor", id="mixed"),
    ],
)
def test_errors_say_expected_and_got(change, message):
    good = {"queries": PLACES, "query_group": GROUPS, "points": PLACES, "point_group": GROUPS}
    with pytest.raises(ValueError, match=message):
        cuda_ops.nearest_in_group(**{**good, **change})


# ---- on a GPU ----


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("num_queries", "num_points", "num_groups"), [(0, 5, 1), (5, 0, 1), (1, 1, 1), (9000, 60_000, 180), (500, 50_000, 2)]
)
def test_the_gpu_gives_the_bits_of_the_cpu(cuda_device, num_queries, num_points, num_groups):
    rng = np.random.default_rng(num_queries)
    queries, query_group, points, point_group = pixels(rng, num_queries, num_points, num_groups, 1600)
    queries[::97], points[::89, 1] = NAN, INF
    arguments = [torch.from_numpy(a) for a in (queries, query_group - 3, points, point_group - 3)]
    on_cpu = cuda_ops.nearest_in_group(*arguments)
    for _ in range(2):  # and the same again
        on_gpu = cuda_ops.nearest_in_group(*[a.to(cuda_device) for a in arguments])
        assert all(part.is_cuda for part in on_gpu)
        assert_same(
            cuda_ops.NearestInGroup(*[part.cpu().numpy() for part in on_gpu]), cuda_ops.NearestInGroup(*[p.numpy() for p in on_cpu])
        )
