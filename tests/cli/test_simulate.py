"""`perception simulate`: which lidar each format takes, and what it refuses."""

import pytest

from perception.cli.main import main
from perception.drives import open_drives


@pytest.mark.parametrize(
    ("options", "name", "columns"),
    [
        pytest.param(["--format", "kitti"], "training-0000", 100_000, id="KITTI's own lidar"),
        pytest.param(["--lidar", "vlp16"], "sim-0001", 15_000, id="another lidar in nuScenes' layout"),
    ],
)
def test_drives_open_again(tmp_path, capsys, options, name, columns):
    assert main(["simulate", str(tmp_path), "--scenes", "1", "--frames", "1", "--seed", "3", *options]) == 0
    assert str(tmp_path) in capsys.readouterr().out.splitlines()[-1]
    (drive,) = open_drives(tmp_path)
    assert drive.name == name
    assert columns < len(drive[0].cloud) < 1.4 * columns + 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "kiti"], "--format kiti: expected nuscenes, kitti or clips"),
        (["--format", "kitti", "--cameras"], "--format kitti: has no pictures"),
        (["--format", "clips", "--cameras"], "--format clips: has no pictures"),
        (["--format", "kitti", "--lidar", "hdl32e_nuscenes"], "expected a lidar whose x axis points forward, got hdl32e_nuscenes"),
        (["--lidar", "vlp61"], "did you mean 'vlp16'?"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, capsys, options, message):
    assert main(["simulate", str(tmp_path), "--frames", "1", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("density", ["nan", "0", "-1", "1e9"])
def test_a_density_that_no_street_has_is_refused(tmp_path, capsys, density):
    assert main(["simulate", str(tmp_path), "--frames", "1", "--density", density]) == 2
    assert "--density" in capsys.readouterr().err
