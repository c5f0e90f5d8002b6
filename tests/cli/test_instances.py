"""Cameras in a run: `perception instances` writes what the pictures show, and `perception run --instances` reads it."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml

from perception.cli.main import main
from perception.core import DataError, UsageError
from perception.core.masks import read_masks
from perception.drives import NuScenes
from perception.drives.simulated import simulate_scenes, write_nuscenes
from perception.export import open_run
from perception.fusion import InstancesConfig, build_source
from perception.pipeline import write_instances
from perception.pipeline.cameras import instances_identity
from tests.detection.small import small_config
from tests.fusion import stand_ins
from tests.pipeline.makers import SyntheticDrive, write_small_nuscenes

torch = pytest.importorskip("torch")


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
    (shown,) = [k for k, line in enumerate(out) if line.startswith("read (beside)")]
    for line, stage in zip(out[shown + 1 : shown + 3], ("instances", "virtual points"), strict=True):
        assert re.fullmatch(rf"  of it {stage} +\d+\.\d ms", line)
    assert len({len(line.split(" ms")[0]) for line in out[shown : shown + 4]}) == 1  # one below the other
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
    with pytest.raises(DataError, match="drive drive: expected frames with cameras that show instances, got none"):
        write_instances([SyntheticDrive()], build_source(f"simulated:{root}"), tmp_path / "m.json")


def test_masks_of_other_pictures_are_told_from_none(root, tmp_path):
    (tmp_path / "other.json").write_text('{"images": [], "annotations": [], "categories": []}')
    source = build_source(InstancesConfig.model_validate({"instances": {"name": "file", "path": tmp_path, "on_missing": "skip"}}))
    with pytest.raises(DataError, match="got 12 pictures, none of which the source knows"):
        write_instances(NuScenes(root).drives(), source, tmp_path / "m.json")


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_one_line(call, root, tmp_path, monkeypatch, device):
    stand_ins.install(monkeypatch)
    weights = tmp_path / "weights.pth"
    torch.save({"layer.weight": torch.ones(2, 2), "layer.bias": torch.ones(2)}, weights)
    code, _, err = call("instances", root, "--source", f"torchvision:{weights}", "--device", device, "--out", tmp_path / "m")
    assert code == 2
    assert f"got '{device}'; no such device here" in err[-1]


def test_masks_beside_a_file_of_ones_own_do_not_stand_for_it(tmp_path):
    """A folder of the source "file" may have a `masks` that it does not read."""
    settings = InstancesConfig.model_validate({"instances": {"name": "file", "path": tmp_path}})
    (tmp_path / "masks").mkdir()
    found = []
    for text in ("1", "2"):
        (tmp_path / "drive.json").write_text(text)
        found.append(instances_identity(settings)[1]["path"]["blake2b"])
    assert found[0] != found[1]


def whole(document):
    return json.dumps(document)


def of_half_the_size(document):
    """As a network sees a picture that was made smaller, masks not pasted back."""
    for image in document["images"]:
        image["width"], image["height"] = image["width"] // 2, image["height"] // 2
    document["annotations"] = []
    return json.dumps(document)


def resized(document):
    """Only the codes: images keep their size."""
    for row in document["annotations"]:
        row["segmentation"] = {"size": [450, 800], "counts": ""}
    return json.dumps(document)


def of_another_drive(document):
    for image in document["images"]:
        image["sample_data_token"] = "other-" + image["sample_data_token"]
    document["annotations"] = []
    return json.dumps(document)


def of_an_unknown_class(document):
    for row in document["categories"]:
        row["name"] = row["name"].replace("car", "unicorn")
    return json.dumps(document)


def with_a_wrong_category(document):
    document["annotations"][0]["category_id"] = 99
    return json.dumps(document)


def with_damaged_codes(document):
    document["annotations"][0]["segmentation"]["counts"] = "11"
    return json.dumps(document)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda d: whole(d)[:5000], "masks.json: invalid JSON: ", id="cut short"),
        pytest.param(lambda _: "", "masks.json: invalid JSON: ", id="empty file"),
        pytest.param(lambda _: "[]", "expected an object with images, categories and annotations, got []", id="a list"),
        pytest.param(of_half_the_size, "expected masks of 1600 x 900 pixels, as its pictures have, got 800 x 450", id="half the size"),
        pytest.param(resized, "expected a run-length code of size [900, 1600], got", id="codes of another size"),
        pytest.param(of_another_drive, "masks.json: expected the picture ", id="another drive's"),
        pytest.param(of_an_unknown_class, "'unicorn': expected one of", id="unknown class"),
        pytest.param(with_a_wrong_category, "category_id: expected the id of a category, got 99", id="category that is not there"),
        pytest.param(with_damaged_codes, "mask ", id="damaged code"),
    ],
)
def test_masks_that_do_not_fit_are_named_in_one_line(run, exact, tmp_path, damage, message):
    path = tmp_path / "masks.json"
    path.write_text(damage(json.loads(exact.read_text())))
    code, _, err = run("run", f"file:{path}")
    failures = [line for line in err if "failed" in line or "error" in line]
    assert (code, len(failures)) == (1, 1)
    assert message in failures[0]


@pytest.fixture
def exact(root):
    (path,) = (root / "masks").glob("*.json")
    return path


def test_masks_without_pixels_pictures_without_masks_and_cameras_that_are_not_there_change_nothing(run, exact, tmp_path):
    settings = tmp_path / "none.yaml"
    settings.write_text(yaml.safe_dump({"instances": {"name": "file", "path": str(exact)}, "virtual_points": {"min_score": 1.0}}))
    document = json.loads(exact.read_text())
    for number, row in enumerate(document["annotations"]):
        row["score"] = 0.5
        if number % 2:  # left out as uncertain or as empty, which is the same
            del row["score"]
            row["segmentation"]["counts"], row["area"] = [900 * 1600], 0
    document["images"].append(document["images"][0] | {"id": 9999, "sample_data_token": "of-a-camera-that-is-not-there"})
    document["annotations"].append(document["annotations"][0] | {"id": 9999, "image_id": 9999, "sample_data_token": "", "score": 1.0})
    (tmp_path / "odd.json").write_text(json.dumps(document))
    settings.write_text(settings.read_text().replace(str(exact), str(tmp_path / "odd.json")))
    (tmp_path / "bare.json").write_text(json.dumps(document | {"annotations": []}))
    assert (run("odd", settings)[0], run("bare", f"file:{tmp_path / 'bare.json'}")[0]) == (0, 0)
    assert results(tmp_path / "odd") == results(tmp_path / "bare")


def test_pictures_that_are_gone_matter_to_those_who_look_at_them_only(call, root, config, exact, tmp_path, monkeypatch):
    stand_ins.install(monkeypatch)
    data = tmp_path / "data"
    shutil.copytree(root, data)
    gone = sorted((data / "samples" / "CAM_BACK").iterdir())
    for path in gone:
        path.unlink()
    torch.save({"layer.weight": torch.ones(2, 2), "layer.bias": torch.ones(2)}, tmp_path / "w.pth")
    arguments = ("run", data, "--config", config, "--seed", "0")
    assert call(*arguments, "--out", tmp_path / "masks", "--instances", f"file:{exact}")[0] == 0
    code, _, err = call(*arguments, "--out", tmp_path / "looks", "--instances", f"torchvision:{tmp_path / 'w.pth'}")
    assert code == 1
    assert re.search(rf"failed: .*CAM_BACK: .*{gone[0].name}: expected .*; on_missing: skip goes on without this camera", err[-1])


def test_several_drives_do_not_fit_one_file(root, tmp_path):
    (drive,) = NuScenes(root).drives()
    with pytest.raises(UsageError, match=r"m.json: expected a folder for the 2 drives, got a file"):
        write_instances([drive, drive], build_source(f"simulated:{root}"), tmp_path / "m.json")


def test_errors_are_one_line(call, root, tmp_path):
    code, out, err = call("instances", root, "--source", "simulatd:x", "--out", tmp_path)
    assert (code, out, len(err)) == (2, [], 1)
    assert "did you mean 'simulated'?" in err[0]
