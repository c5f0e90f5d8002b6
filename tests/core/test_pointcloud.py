"""Lidar points."""

import numpy as np
import pytest

from perception.core import DataError, PointCloud, concatenate


def test_xyz_is_a_view():
    cloud = PointCloud(np.arange(10, dtype=np.float32).reshape(2, 5))
    assert np.shares_memory(cloud.xyz, cloud.points)
    np.testing.assert_array_equal(cloud.xyz, [[0, 1, 2], [5, 6, 7]])


def test_float64_is_narrowed_and_float32_is_not_copied():
    points = np.zeros((3, 5), np.float32)
    assert PointCloud(points).points is points
    assert PointCloud(np.zeros((3, 5))).points.dtype == np.float32


def test_nan_points_are_allowed():
    points = np.full((2, 5), np.nan, np.float32)
    assert np.isnan(PointCloud(points).xyz).all()


def test_indexing_takes_the_rings_along():
    cloud = PointCloud(np.arange(15, dtype=np.float32).reshape(3, 5), ring=np.array([4, 5, 6], np.uint8))
    picked = cloud[cloud.xyz[:, 0] > 0]
    assert picked.ring.tolist() == [5, 6]
    assert picked.ring.dtype == np.int64
    np.testing.assert_array_equal(picked.points, cloud.points[1:])


def test_repr_counts_points_and_sweeps():
    points = np.zeros((4, 5), np.float32)
    points[2:, 4] = 0.05  # two points are 50 ms old
    assert repr(PointCloud(points)) == "PointCloud(4 points, 2 sweeps)"
    assert repr(PointCloud(np.zeros((0, 5)))) == "PointCloud(0 points, 0 sweeps)"


def test_empty_clouds_join():
    one = PointCloud(np.ones((1, 5), np.float32))
    joined = concatenate([PointCloud([]), one, PointCloud(np.zeros((0, 5)))])
    np.testing.assert_array_equal(joined.points, one.points)


@pytest.mark.parametrize(
    ("points", "ring", "message"),
    [
        pytest.param(np.zeros((3, 4)), None, r"PointCloud\.points: expected shape \(N, 5\), got \(3, 4\)", id="four columns"),
        pytest.param(np.zeros(5), None, r"PointCloud\.points: expected shape \(N, 5\), got \(5,\)", id="flat"),
        pytest.param(np.array([["1"] * 5]), None, r"PointCloud\.points: expected dtype float32, got <U1", id="text"),
        pytest.param(np.zeros((3, 5)), [1, 2], r"PointCloud\.ring: expected shape \(3,\), got \(2,\)", id="rings too few"),
        pytest.param(np.zeros((1, 5)), [1.5], r"PointCloud\.ring: expected dtype int64, got float64", id="ring with a fraction"),
    ],
)
def test_bad_clouds_are_refused(points, ring, message):
    with pytest.raises(DataError, match=message):
        PointCloud(points, ring)
