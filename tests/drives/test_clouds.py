"""Files of lidar points."""

import numpy as np
import pytest

from perception.core import DataError
from perception.drives.clouds import read_rows

COLUMNS = ("x", "y", "z", "reflectance")


def test_rows_are_read_as_written_into_an_array_of_the_callers_own(tmp_path):
    rows = np.arange(12, dtype="<f4").reshape(3, 4)
    (tmp_path / "a.bin").write_bytes(rows.tobytes())
    got = read_rows(tmp_path / "a.bin", COLUMNS)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, rows)
    got[:] = 0
    np.testing.assert_array_equal(read_rows(tmp_path / "a.bin", COLUMNS), rows)


def test_an_empty_file_has_no_rows(tmp_path):
    (tmp_path / "a.bin").touch()
    assert read_rows(tmp_path / "a.bin", COLUMNS).shape == (0, 4)


def test_a_file_that_is_not_there_is_none(tmp_path):
    (tmp_path / "a.bin").touch()
    assert read_rows(tmp_path / "b.bin", COLUMNS) is None
    assert read_rows(tmp_path / "a.bin" / "b.bin", COLUMNS) is None


@pytest.mark.parametrize(
    ("value", "num_bad"),
    [
        pytest.param([np.nan], 1, id="NaN"),
        pytest.param([np.inf, -np.inf], 2, id="infinity"),
        pytest.param([2.0**31], 1, id="too far"),
        pytest.param([-(2.0**31)], 1, id="too far the other way"),
        pytest.param([np.nan, 1e38, 5.0], 2, id="of several kinds"),
    ],
)
@pytest.mark.parametrize("column", range(4))
def test_numbers_that_no_lidar_gives_are_counted(tmp_path, value, num_bad, column):
    rows = np.ones((7, 4), "<f4")
    rows[3 : 3 + len(value), column] = value
    (tmp_path / "a.bin").write_bytes(rows.tobytes())
    with pytest.raises(DataError, match=rf"a\.bin: expected finite numbers, got {num_bad} of 7 points without"):
        read_rows(tmp_path / "a.bin", COLUMNS)


def test_the_largest_numbers_pass(tmp_path):
    rows = np.array([[1, -1, 0, -0.0]], "<f4") * np.nextafter(np.float32(2**31), np.float32(0))
    (tmp_path / "a.bin").write_bytes(rows.tobytes())
    np.testing.assert_array_equal(read_rows(tmp_path / "a.bin", COLUMNS), rows)


@pytest.mark.parametrize("size", [1, 15, 17, 20])
def test_a_file_of_another_length_names_its_columns(tmp_path, size):
    (tmp_path / "a.bin").write_bytes(bytes(size))
    expected = rf"expected a multiple of 16 bytes \(x, y, z, reflectance float32\), got {size}; the file was cut short, copy it again"
    with pytest.raises(DataError, match=rf"a\.bin: {expected}"):
        read_rows(tmp_path / "a.bin", COLUMNS)


def test_a_folder_is_no_file_of_points(tmp_path):
    with pytest.raises(DataError, match="expected a readable lidar file, got Is a directory"):
        read_rows(tmp_path, COLUMNS)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(48))
    empty = np.empty

    def cut_short(*arguments):
        path.write_bytes(bytes(16))
        return empty(*arguments)

    monkeypatch.setattr("perception.drives.clouds.np.empty", cut_short)
    with pytest.raises(DataError, match=r"a\.bin: expected 48 bytes, got 16; the file changed while it was read"):
        read_rows(path, COLUMNS)
