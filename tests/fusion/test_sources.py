"""Sources of instances: one contract for all, then what each does by itself."""

import json

import numpy as np
import pytest
import yaml

from perception.core import NUSCENES_DETECTION, CheckpointError, DataError, MissingPackage, UsageError
from perception.core.masks import write_masks
from perception.fusion import INSTANCE_SOURCES, Instances, InstancesConfig, build_source, load_source_config
from perception.fusion.sources.file import FileInstances, FileSettings
from perception.fusion.sources.simulated import SimulatedSettings, with_faults
from tests.fusion import stand_ins
from tests.fusion.makers import SIZE, box_mask, camera, shown
from tests.fusion.stand_ins import CAR, DOG, PERSON

torch = pytest.importorskip("torch")
LABEL = NUSCENES_DETECTION.index
# What each picture shows: colour, and the corners of its rectangle.
SCENE = {
    "CAM_FRONT": [(PERSON, (1, 2, 4, 9)), (CAR, (6, 5, 13, 10)), (DOG, (14, 9, 16, 12))],
    "CAM_BACK": [],
    "CAM_LEFT": [(CAR, (0, 0, 16, 12))],
}


def picture(things):
    image = np.full((*SIZE[::-1], 3), 90, np.uint8)
    for color, (x0, y0, x1, y1) in things:
        image[y0:y1, x0:x1] = color
    return image


@pytest.fixture
def cameras():
    return {name: camera(name, read_image=lambda things=things: picture(things)) for name, things in SCENE.items()}


def masks_file(path, scores=True, tokens=True):
    """The scene as a COCO file."""
    pictures = []
    for name, things in SCENE.items():
        known = [(color, corners) for color, corners in things if color != DOG]
        found = shown(
            *[(box_mask(*corners), LABEL("pedestrian" if color == PERSON else "car"), stand_ins.SCORE[color]) for color, corners in known]
        )
        made = found.to_picture(f"token-{name}" if tokens else "", "sample", f"samples/{name}/n1__{name}__{1600000000000000}.jpg")
        pictures.append(made)
    write_masks(path, pictures)
    return path


def settings_of(name, folder):
    (folder / "masks").mkdir(exist_ok=True)
    if name in ("file", "simulated"):
        return {
            "path": masks_file(folder / "masks" / "drive.json")
            if name == "file"
            else (masks_file(folder / "masks" / "drive.json"), folder)[1]
        }
    weights = folder / "weights.pth"
    torch.save(torch.nn.Sequential().state_dict() | {"layer.weight": torch.ones(2, 2), "layer.bias": torch.ones(2)}, weights)
    if name == "torchvision":
        return {"weights": weights}
    (folder / "net.yaml").write_text("MODEL: {}")
    return {"config": folder / "net.yaml", "weights": weights}


@pytest.fixture
def source(request, tmp_path, monkeypatch):
    stand_ins.install(monkeypatch)
    name, options = request.param if isinstance(request.param, tuple) else (request.param, {})
    config = InstancesConfig.model_validate({"instances": {"name": name, **settings_of(name, tmp_path), **options}})
    return build_source(config)


all_sources = pytest.mark.parametrize("source", list(INSTANCE_SOURCES), indirect=True)


@all_sources
def test_contract_each_picture_shows_what_it_shows(source, cameras):
    found = source.find(cameras)
    assert list(found) == list(cameras)
    for name, instances in found.items():
        assert isinstance(instances, Instances)
        assert (instances.size, instances.classes) == (cameras[name].size, NUSCENES_DETECTION)
        known = [(color, corners) for color, corners in SCENE[name] if color != DOG]  # which is no class of nuScenes
        assert instances.label.tolist() == [LABEL("pedestrian" if color == PERSON else "car") for color, _ in known]
        assert ((instances.score > 0) & (instances.score <= 1)).all()
        for i, (_, corners) in enumerate(known):
            np.testing.assert_array_equal(instances.mask(i), box_mask(*corners))
            np.testing.assert_allclose(instances.box[i], corners, atol=0.3)
        assert instances.spans.area.tolist() == [box_mask(*corners).sum() for _, corners in known]


@all_sources
def test_contract_the_same_pictures_give_the_same_in_any_order(source, cameras):
    first = source.find(cameras)
    for names in (list(cameras), list(cameras)[::-1], ["CAM_LEFT"]):
        again = source.find({name: cameras[name] for name in names})
        assert list(again) == names
        for name in names:
            for column in ("label", "score", "box"):
                np.testing.assert_array_equal(getattr(again[name], column), getattr(first[name], column))
            assert again[name].rle == first[name].rle


@all_sources
def test_contract_no_cameras(source):
    assert source.find({}) == {}


def unreadable():
    raise DataError("samples/CAM_BACK/1.jpg: expected an image, got a broken one")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (("file", {}), "drive.json: expected the picture token-odd of CAM_BACK, found none; on_missing: skip goes on without this camera"),
        (("simulated", {}), "masks: expected the picture token-odd of CAM_BACK, found none"),
        (("torchvision", {}), "CAM_BACK: samples/CAM_BACK/1.jpg: expected an image, got a broken one; on_missing: skip"),
        (("detectron2", {}), "CAM_BACK: samples/CAM_BACK/1.jpg: expected an image, got a broken one; on_missing: skip"),
    ],
    indirect=["source"],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_contract_a_picture_that_cannot_be_read_is_named(source, message, cameras):
    odd = camera("CAM_BACK", known_as="token-odd", timestamp_us=5, read_image=unreadable)
    with pytest.raises(DataError, match=message):
        source.find(cameras | {"CAM_BACK": odd})


@pytest.mark.parametrize("source", [(name, {"on_missing": "skip"}) for name in INSTANCE_SOURCES], indirect=True, ids=list(INSTANCE_SOURCES))
def test_contract_skip_goes_on_without_the_camera(source, cameras):
    odd = camera("CAM_BACK", known_as="token-odd", timestamp_us=5, read_image=unreadable)
    assert list(source.find(cameras | {"CAM_BACK": odd})) == ["CAM_FRONT", "CAM_LEFT"]


@pytest.mark.parametrize("source", ["torchvision", "detectron2"], indirect=True)
def test_pictures_of_another_size_than_their_camera_are_refused(source):
    with pytest.raises(DataError, match="picture token-CAM_X: expected 32 x 24 pixels, got 16 x 12"):
        source.find({"CAM_X": camera("CAM_X", size=(32, 24), read_image=lambda: picture([]))})


@pytest.mark.parametrize("source", [(name, {"min_score": 0.85}) for name in ("torchvision", "detectron2")], indirect=True)
def test_uncertain_finds_are_left_out(source, cameras):
    assert {name: found.label.tolist() for name, found in source.find(cameras).items()} == {
        "CAM_FRONT": [LABEL("pedestrian")],
        "CAM_BACK": [],
        "CAM_LEFT": [],
    }


@pytest.mark.parametrize("source", [(name, {"batch_size": 2}) for name in ("torchvision", "detectron2")], indirect=True)
def test_batches_change_nothing(source, cameras):
    assert [len(found) for found in source.find(cameras).values()] == [2, 0, 1]


# file


def test_a_folder_has_a_file_a_drive_and_is_read_as_far_as_needed(tmp_path, monkeypatch):
    for number in range(3):
        found = shown((box_mask(number, 0, 5, 5), number, 1.0)).to_picture(f"t{number}", "", "")
        write_masks(tmp_path / f"scene-{number}.json", [found])
    (tmp_path / "scene-2.json").write_text("broken")
    source = FileInstances(FileSettings(path=tmp_path))
    for number in (1, 0, 1):
        assert source.find({"C": camera("C", known_as=f"t{number}")})["C"].label.tolist() == [number]
    with pytest.raises(DataError, match=r"scene-2.json: invalid JSON"):
        source.find({"C": camera("C", known_as="t2")})


def test_files_of_others_know_pictures_by_nuscenes_names_and_categories(tmp_path, cameras):
    path = masks_file(tmp_path / "m.json", tokens=False)
    document = json.loads(path.read_bytes())
    for row in document["categories"]:
        row["name"] = {"car": "vehicle.car", "pedestrian": "person", "bus": "animal"}.get(row["name"], row["name"])
    document["annotations"][0]["category_id"] = 3  # was a bus, now an animal: left out
    path.write_text(json.dumps(document))
    found = FileInstances(FileSettings(path=path)).find(cameras)
    assert found["CAM_FRONT"].label.tolist() == [LABEL("car")]
    document["categories"][0]["name"] = "vehicel"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"categories\[0\]: name: class 'vehicel': expected one of car, .*COCO"):
        FileInstances(FileSettings(path=path)).find(cameras)


def test_a_picture_in_two_files_is_an_error(tmp_path):
    for name in ("a", "b"):
        write_masks(tmp_path / f"{name}.json", [shown((box_mask(0, 0, 5, 5), 0, 1.0)).to_picture("t", "", "")])
    source = FileInstances(FileSettings(path=tmp_path))
    with pytest.raises(DataError, match=r"picture t: expected it in one file, got it in"):
        source.find({"C": camera("C", known_as="t"), "D": camera("D", known_as="u")})


# simulated


def faults(**options):
    return SimulatedSettings(path="x", **options)


TWO = [(box_mask(1, 1, 6, 6), 0, 1.0), (box_mask(5, 3, 12, 9), 0, 1.0), (box_mask(13, 1, 15, 4), 5, 1.0)]


def test_without_faults_masks_are_exact():
    exact = shown(*TWO)
    found = with_faults(exact, faults(), "t")
    assert (found.rle, found.label.tolist(), found.score.tolist()) == (exact.rle, [0, 0, 5], [1, 1, 1])


def test_all_missed_small_ones_left_out():
    assert len(with_faults(shown(*TWO), faults(missed=1.0), "t")) == 0
    assert with_faults(shown(*TWO), faults(min_pixels=7), "t").label.tolist() == [0, 0]


def test_neighbours_of_a_class_become_one():
    found = with_faults(shown(*TWO), faults(merged=1.0), "t")
    assert found.label.tolist() == [0, 5]
    np.testing.assert_array_equal(found.mask(0), TWO[0][0] | TWO[1][0])
    assert found.box[0].tolist() == [1, 1, 12, 9]


def test_wrong_classes_are_others_of_the_ten():
    labels = [with_faults(shown(*TWO), faults(wrong_class=1.0, seed=k), "t").label for k in range(40)]
    assert all((label != [0, 0, 5]).all() for label in labels)
    assert set(np.concatenate(labels).tolist()) == set(range(10))


def test_ragged_edges_move_up_and_down_and_stay_in_the_picture():
    exact = shown((box_mask(1, 3, 15, 9), 0, 1.0), (np.ones(SIZE[::-1], bool), 1, 1.0))
    found = with_faults(exact, faults(ragged=1.0), "t")
    top = found.mask(0).argmax(axis=0)[1:15]
    assert len(set(top.tolist())) > 1
    assert not found.mask(0)[:, [0, 15]].any()
    assert abs(found.spans.area[0] - 84) < 30
    assert found.box[0, 0] == 1


def test_shares_are_kept_and_one_fault_does_not_change_another():
    many = shown(*[(box_mask(k % 15, k % 11, k % 15 + 1, k % 11 + 1), 0, 1.0) for k in range(1000)])
    found = with_faults(many, faults(missed=0.3, score=0.7, score_spread=0.1), "t")
    assert abs(len(found) - 700) < 60  # 4 standard deviations of 14.5
    assert (abs(found.score.mean() - 0.7) < 0.02, abs(found.score.std() - 0.1) < 0.02) == (True, True)
    other = with_faults(many, faults(missed=0.3, wrong_class=0.5, score=0.7, score_spread=0.1), "t")
    np.testing.assert_array_equal(found.score, other.score)
    assert with_faults(many, faults(missed=0.3), "u").rle != found.rle
    assert len(with_faults(many, faults(missed=0.3, seed=1), "t")) != len(found)


# networks


def test_torchvision_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    with pytest.raises(MissingPackage, match=r"instances from torchvision need torchvision \(.*pip install 'torchvision==0\.\d+\.\*'"):
        build_source(f"torchvision:{tmp_path / 'w.pth'}")


@pytest.mark.parametrize(
    ("options", "eps"),
    [
        pytest.param({}, 0.0, id="published weights were trained without"),
        pytest.param({"architecture": "maskrcnn_resnet50_fpn_v2"}, 1e-5, id="those of v2 with it"),
        pytest.param({"norm_eps": 1e-3}, 1e-3, id="as told"),
    ],
)
def test_batch_norms_are_those_of_the_weights(options, eps, tmp_path, monkeypatch):
    stand_ins.install(monkeypatch)
    torch.save({"layer.weight": torch.ones(2, 2), "layer.bias": torch.ones(2)}, tmp_path / "w.pth")
    config = InstancesConfig.model_validate({"instances": {"name": "torchvision", "weights": tmp_path / "w.pth", **options}})
    assert build_source(config)._network.norm.eps == eps


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_the_real_torchvision_finds_what_its_own_recipe_finds(name, tmp_path, monkeypatch):
    """With weights that are random but for the classes' biases, stored as published ones are, loaded by torchvision's own builder."""
    try:
        from torchvision.models import detection
    except Exception as error:  # noqa: BLE001  beside another build of torch RuntimeError
        pytest.skip(f"needs the torchvision that belongs to this torch: {type(error).__name__}: {error}")
    weights = detection.MaskRCNN_ResNet50_FPN_Weights if name == "maskrcnn_resnet50_fpn" else detection.MaskRCNN_ResNet50_FPN_V2_Weights
    published = weights.COCO_V1
    torch.manual_seed(0)
    state = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=91).state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(1e-5, 1.0)  # so small that what is added to it shows
        if "bbox_pred" in key or key.endswith("cls_score.weight"):
            value.zero_()
    state["roi_heads.box_predictor.cls_score.bias"].zero_()[[1, 3, 18]] = torch.tensor([4.2, 4.0, 4.1])  # person, car, dog
    state["roi_heads.mask_predictor.mask_fcn_logits.weight"] *= 1e-3
    if name == "maskrcnn_resnet50_fpn":
        state = {key: value for key, value in state.items() if "num_batches_tracked" not in key}  # of frozen batch norms
    torch.save(state, tmp_path / "w.pth")
    monkeypatch.setattr(type(published), "get_state_dict", lambda *_args, **_options: state)
    theirs = getattr(detection, name)(weights=published, box_score_thresh=0.1, progress=False).eval()
    image = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    options = {"name": "torchvision", "weights": tmp_path / "w.pth", "architecture": name, "min_score": 0.1}
    source = build_source(InstancesConfig.model_validate({"instances": options}))
    found = source.find({"CAM_FRONT": camera(read_image=lambda: image)})["CAM_FRONT"]
    with torch.inference_mode():
        (output,) = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
    kept = (output["labels"] != 18).numpy()
    assert len(found) == kept.sum() > 0
    np.testing.assert_array_equal(found.label, [LABEL("pedestrian" if k == 1 else "car") for k in output["labels"][kept]])
    np.testing.assert_allclose(found.score, output["scores"][kept].double(), rtol=1e-5)
    np.testing.assert_allclose(found.box, output["boxes"][kept].double(), atol=1e-3)
    for mask, their in zip(range(len(found)), (output["masks"][kept, 0] > 0.5).numpy(), strict=True):
        np.testing.assert_array_equal(found.mask(mask), their)


def test_detectron2_that_is_missing_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "detectron2.config", None)
    (tmp_path / "net.yaml").write_text("")
    with pytest.raises(MissingPackage, match=r"need detectron2 \(.*git\+https://github.com/facebookresearch/detectron2.git"):
        build_source(f"detectron2:{tmp_path / 'net.yaml'}")


class Harm:
    def __reduce__(self):
        return (print, ("harm",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "expected a file of weights, found none", id="missing"),
        pytest.param({"layer.weight": torch.ones(2, 2)}, "1 missing: layer.bias", id="incomplete"),
        pytest.param(
            {"layer.weight": torch.ones(2, 2), "layer.bias": torch.ones(2), "x": torch.ones(1)}, "1 unexpected: x", id="more than fits"
        ),
        pytest.param({"layer.weight": torch.ones(3, 2), "layer.bias": torch.ones(2)}, "size mismatch for layer.weight", id="another shape"),
        pytest.param({"layer.weight": 3}, "expected a state of tensors, got dict", id="no tensors"),
        pytest.param(Harm(), "expected a state of tensors", id="a pickle that would run something"),
        pytest.param(b"broken", "expected a state of tensors", id="broken"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_run(content, message, tmp_path, monkeypatch, capsys):
    stand_ins.install(monkeypatch)
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        build_source(f"torchvision:{path}")
    assert "harm" not in capsys.readouterr().out


def test_classes_of_a_detectron2_network(tmp_path, monkeypatch, cameras):
    stand_ins.install(monkeypatch)
    net = tmp_path / "net.yaml"
    net.write_text("CLASSES: 10")

    def labels(**options):
        config = InstancesConfig.model_validate({"instances": {"name": "detectron2", "config": net, **options}})
        return build_source(config)._label.tolist()

    mvp = ("car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone")
    assert labels(centernet2=True) == [LABEL(name) for name in mvp]
    own = (*mvp[:-2], "animal", "vehicle.car")
    assert labels(classes=own)[-2:] == [-1, LABEL("car")]
    with pytest.raises(UsageError, match=r"classes: expected the names of the network's 10 classes, got 2 names"):
        labels(classes=("car", "bus"))
    net.write_text("NONSENSE: 1")
    with pytest.raises(UsageError, match=r"net.yaml: expected settings of Detectron2, got .*NONSENSE"):
        labels()


# settings


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("file:a/b.json", {"name": "file", "path": "a/b.json"}),
        ("simulated:out/street", {"name": "simulated", "path": "out/street"}),
        ("torchvision:w.pth", {"name": "torchvision", "weights": "w.pth", "device": "cuda"}),
        ("detectron2:n.yaml,w.pth", {"name": "detectron2", "config": "n.yaml", "weights": "w.pth", "device": "cuda"}),
        ("detectron2:n.yaml", {"name": "detectron2", "config": "n.yaml", "device": "cuda"}),
    ],
)
def test_short_texts(text, values):
    assert load_source_config(text, device="cuda") == InstancesConfig.model_validate({"instances": values})


def test_settings_from_a_file(tmp_path):
    path = tmp_path / "i.yaml"
    path.write_text(yaml.safe_dump({"instances": {"name": "simulated", "path": "x", "missed": 0.2}}))
    assert load_source_config(str(path)).instances.missed == 0.2
    path.write_text(yaml.safe_dump({"instances": {"name": "simulated", "path": "x", "mised": 0.2}}))
    with pytest.raises(UsageError, match=r"i.yaml: instances.mised: unknown key, .*did you mean 'missed'\?"):
        load_source_config(str(path))


@pytest.mark.parametrize("text", ["file", "file:", "fiel:x", "masks.json"])
def test_other_texts_are_refused(text):
    with pytest.raises(UsageError, match=r"instances: expected a YAML file, file:PATH, .* got"):
        load_source_config(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file:nowhere", r"nowhere: expected a file of masks, or a folder of them, found none"),
        ("file:{}", r"expected files \*.json with masks, found none"),
        ("simulated:{}", r"expected a simulated data set with masks/<drive>.json, found none; simulate it with pictures \(--cameras\)"),
    ],
)
def test_sources_without_files(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        build_source(text.format(tmp_path))
