"""Cameras in a run: `perception instances` writes what the pictures show, and `perception run --instances` reads it."""

import json

import numpy as np
import pytest
import yaml

from perception.cli.main import main
from perception.core import DataError, UsageError
from perception.core.masks import read_masks
from perception.drives import NuScenes
from perception.drives.simulated import simulate_scenes, write_nuscenes
from perception.export import open_run
from perception.fusion import build_source
from perception.pipeline import write_instances
from tests.detection.small import small_config
from tests.pipeline.makers import SyntheticDrive, write_small_nuscenes

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    write_nuscenes(folder, simulate_scenes(1, seed=5, num_frames=2), version="v1.0-sim", splits={}, lidar=True, cameras=True)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A small network of virtual points that reads two sweeps."""
    values = small_config(score_threshold=0.0).model_dump(mode="json")
    values["detector"]["reader"]["virtual"], values["detector"]["sweeps"] = True, 2
    path = tmp_path_factory.mktemp("config") / "small_virtual.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def call(capsys):
    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call


def boxes(folder, name):
    return np.sort(open_run(folder).detections(name).score)


@pytest.fixture
def run(call, root, config, tmp_path):
    def run(name, instances, *more):
        return call("run", root, "--config", config, "--seed", "0", "--out", tmp_path / name, "--instances", instances, *more)

    return run


def results(folder):
    return json.loads((folder / "nuscenes" / "detections.json").read_text())


def test_written_once_and_read_again(call, run, root, tmp_path):
    code, out, err = call("instances", root, "--source", f"simulated:{root}", "--out", tmp_path / "masks")
    assert (code, [line for line in err if "error" in line]) == (0, [])
    (path,) = (tmp_path / "masks").glob("*.json")
    truth = next((root / "masks").glob("*.json"))
    exact, written = read_masks(truth), read_masks(path)
    assert list(exact) == sorted(exact, key=list(exact).index)
    assert set(written) == set(exact)
    assert len(written) == 12
    for name, picture in written.items():
        assert (picture.score == 1).all()
        np.testing.assert_array_equal(picture.label, exact[name].label)
        np.testing.assert_array_equal(picture.area, exact[name].area)
    assert out[-1] == str(tmp_path / "masks")
    assert out[0].startswith(f"{sum(map(len, written.values()))} instances in 12 pictures: ")
    assert (run("one", f"simulated:{root}")[0], run("two", f"file:{tmp_path / 'masks'}")[0]) == (0, 0)
    one, two = (results(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert (one["meta"]["use_camera"], one["meta"]["use_lidar"]) == (True, True)


def test_pictures_change_what_is_found_and_nothing_is_kept_on_disk(run, root, tmp_path):
    settings = tmp_path / "none.yaml"
    settings.write_text(yaml.safe_dump({"instances": {"name": "simulated", "path": str(root), "missed": 1.0}}))
    before = {path for path in root.rglob("*") if path.is_file()}
    code, out, _ = run("with", f"simulated:{root}", "--profile")
    assert code == 0
    assert any(line.startswith("  of it virtual points") for line in out)
    assert run("without", settings)[0] == 0
    assert results(tmp_path / "with")["results"] != results(tmp_path / "without")["results"]
    assert {path for path in root.rglob("*") if path.is_file()} == before
    info = json.loads((tmp_path / "without" / "run.json").read_text())
    assert info["config"]["instances"]["missed"] == 1.0
    assert info["config"]["virtual_points"] == {"num": 50, "seed": 0, "sweeps": "reuse", "min_score": 0.0}
    assert set(info["inputs"]["instances"]["path"]) == {"name", "blake2b"}
    assert str(root) not in json.dumps(info)


def test_a_run_is_resumed_with_the_same_instances_only(run, root, tmp_path):
    assert run("run", f"simulated:{root}")[0] == 0
    assert run("run", f"simulated:{root}", "--resume")[0] == 0
    settings = tmp_path / "other.yaml"
    settings.write_text(yaml.safe_dump({"instances": {"name": "simulated", "path": str(root), "missed": 0.5}}))
    code, _, err = run("run", settings, "--resume")
    assert code == 2
    assert "config.instances.missed was 0.0, is now 0.5" in err[-1]


def test_a_drive_without_cameras_is_named(run, config, call, root, tmp_path):
    plain = write_small_nuscenes(tmp_path / "plain", num_scenes=1)  # its pictures are not in the file
    code, _, err = call("run", plain, "--config", config, "--seed", "0", "--out", tmp_path / "run", "--instances", f"simulated:{root}")
    assert code == 1
    assert "expected the picture" in err[-1]
    with pytest.raises(DataError, match="drive drive: expected frames with cameras, got none"):
        write_instances([SyntheticDrive()], build_source(f"simulated:{root}"), tmp_path / "m.json")


def test_several_drives_do_not_fit_one_file(root, tmp_path):
    (drive,) = NuScenes(root).drives()
    with pytest.raises(UsageError, match=r"m.json: expected a folder for the 2 drives, got a file"):
        write_instances([drive, drive], build_source(f"simulated:{root}"), tmp_path / "m.json")


def test_errors_are_one_line(call, root, tmp_path):
    code, out, err = call("instances", root, "--source", "simulatd:x", "--out", tmp_path)
    assert (code, out, len(err)) == (2, [], 1)
    assert "did you mean 'simulated'?" in err[0]
