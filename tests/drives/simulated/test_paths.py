"""Paths in one table: what each path says by itself."""

import numpy as np

from perception.drives.simulated.paths import PathTable
from perception.drives.simulated.roads import Path


def test_a_table_says_what_each_path_says():
    rng = np.random.default_rng(0)
    paths = [
        Path(*np.array([(-3.0, 1.0, 2.0, 0.5, 0.0)]).T),  # one straight
        Path(*np.array([(0.0, 0, 0, 0, 0), (10.0, 10, 0, 0, 0.1), (10 + 5 * np.pi, 20, 10, np.pi / 2, 0)]).T),  # a quarter turn to the left
        Path(*np.array([(-5.0, 0, 0, 3, 0), (0.0, -5, 0.7, 3, -0.2)]).T),
    ]
    table, which = PathTable.of(paths), rng.integers(0, 3, 500)
    s = np.append(rng.uniform(-20, 60, 497), [-3.0, 0.0, 10.0])  # before the first piece, beyond the last, and where pieces begin
    found = np.stack(table.pose(which, s), axis=1)
    np.testing.assert_array_equal(found, [np.stack(paths[i].pose(np.array(at))) for i, at in zip(which, s, strict=True)])
    x, y, yaw = table.pose(np.array([1]), np.array([10 + 5 * np.pi + 4]))
    np.testing.assert_allclose([x[0], y[0], yaw[0]], [20, 14, np.pi / 2], atol=1e-12)


def test_no_paths():
    assert [part.shape for part in PathTable.of([]).pose(np.zeros(0, int), np.zeros(0))] == [(0,)] * 3
