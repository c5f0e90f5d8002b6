"""Masks in COCO's format: what is written is read again, pycocotools agrees, and what is damaged is told in one line."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.core import NUSCENES_DETECTION, ClassSet, DataError, masks
from perception.core.masks import PictureMasks, read_masks, write_masks
from perception.core.rle import encode_rle

SIZE = (8, 6)  # width, height


def instance(x0, y0, x1, y1):
    mask = np.zeros(SIZE[::-1], bool)
    mask[y0:y1, x0:x1] = True
    return mask


CAR, PERSON = instance(1, 2, 5, 4), instance(7, 0, 8, 6)


def picture(name="t1", sample="s1", file_name="samples/CAM_FRONT/1.jpg", shown=((0, "i1", CAR), (5, "i2", PERSON)), **options):
    places = [np.nonzero(mask) for _, _, mask in shown]
    return PictureMasks(
        token=name,
        sample=sample,
        file_name=file_name,
        size=SIZE,
        label=np.array([label for label, _, _ in shown], np.int64),
        instance=np.array([name for _, name, _ in shown], np.str_),
        box=np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in places], np.int64).reshape(-1, 4),
        area=np.array([mask.sum() for _, _, mask in shown], np.int64),
        rle=tuple(encode_rle(mask) for _, _, mask in shown),
        **options,
    )


PICTURES = [picture(), picture("t2", "s1", "samples/CAM_BACK/2.jpg", ()), picture("t3", "s2", "samples/CAM_FRONT/3.jpg", ((9, "i3", CAR),))]


@pytest.fixture
def path(tmp_path):
    write_masks(tmp_path / "masks" / "drive.json", PICTURES, info={"description": "three pictures"})
    return tmp_path / "masks" / "drive.json"


def test_what_is_written_is_read_again(path):
    found = read_masks(path)
    assert list(found) == ["t1", "t2", "t3"]
    for written, read in zip(PICTURES, found.values(), strict=True):
        assert (read.token, read.sample, read.file_name, read.size) == (written.token, written.sample, written.file_name, written.size)
        for name in ("label", "instance", "box", "area"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert read.box.shape == (len(written), 4)
    np.testing.assert_array_equal(found["t1"].mask(0), CAR)
    np.testing.assert_array_equal(found["t1"].mask(1), PERSON)
    assert [len(read) for read in found.values()] == [2, 0, 1]
    assert repr(found["t1"]) == "PictureMasks(samples/CAM_FRONT/1.jpg, 2 instances)"


def test_the_file_has_the_fields_of_coco(path):
    document = json.loads(path.read_bytes())
    assert document["info"] == {"description": "three pictures"}
    assert [(row["id"], row["name"]) for row in document["categories"]] == list(enumerate(NUSCENES_DETECTION.names, start=1))
    tokens = {"sample_data_token": "t3", "sample_token": "s2"}
    assert document["images"][2] == {"id": 3, "file_name": "samples/CAM_FRONT/3.jpg", "width": 8, "height": 6} | tokens
    first, second, third = document["annotations"]
    place = {"segmentation": encode_rle(CAR), "bbox": [1, 2, 4, 2], "area": 8, "iscrowd": 0}
    tokens = {"instance_token": "i1", "sample_data_token": "t1"}
    assert first == {"id": 1, "image_id": 1, "category_id": 1} | place | tokens
    assert (second["id"], second["image_id"], second["category_id"]) == (2, 1, 6)
    assert (third["id"], third["image_id"], third["category_id"]) == (3, 3, 10)


def test_pycocotools_reads_the_same_masks(path, capsys):
    coco = pytest.importorskip("pycocotools.coco").COCO(str(path))
    capsys.readouterr()
    assert [row["name"] for row in coco.loadCats(coco.getCatIds())] == list(NUSCENES_DETECTION.names)
    for number, (token, ours) in enumerate(read_masks(path).items(), start=1):
        assert coco.imgs[number]["sample_data_token"] == token
        theirs = coco.loadAnns(coco.getAnnIds(imgIds=number))
        assert len(theirs) == len(ours)
        for i, row in enumerate(theirs):
            np.testing.assert_array_equal(coco.annToMask(row), ours.mask(i))
            area, box = (getattr(pytest.importorskip("pycocotools.mask"), name)(row["segmentation"]) for name in ("area", "toBbox"))
            assert area == row["area"]
            np.testing.assert_array_equal(box, row["bbox"])


def test_the_same_pictures_give_the_same_bytes(path, tmp_path):
    write_masks(tmp_path / "again.json", PICTURES, info={"description": "three pictures"})
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_box_may_end_a_hair_beyond_the_border(path):
    """x1 - x0 in float32, added to x0 again, is often more than x1."""
    document = json.loads(path.read_bytes())
    document["annotations"][0]["bbox"] = [3.3, 2.0, 4.700001, 4.000001]
    path.write_text(json.dumps(document))
    assert read_masks(path)["t1"].box[0].tolist() == [3.3, 2.0, 8.0, 6.0]


def test_no_pictures(tmp_path):
    write_masks(tmp_path / "none.json", [])
    assert read_masks(tmp_path / "none.json") == {}


def test_files_of_others_have_pictures_by_file_name(path):
    document = json.loads(path.read_bytes())
    for row in document["images"] + document["annotations"]:
        for name in ("sample_data_token", "sample_token", "instance_token"):
            row.pop(name, None)
    for row in document["annotations"]:
        row["area"] = float(row["area"])
    path.write_text(json.dumps(document))
    found = read_masks(path)
    assert list(found) == [picture.file_name for picture in PICTURES]
    assert found["samples/CAM_FRONT/1.jpg"].instance.tolist() == ["", ""]


def test_labels_follow_the_names_of_the_categories(path):
    document = json.loads(path.read_bytes())
    document["categories"] = [{"id": 6, "name": "pedestrian"}, {"id": 1, "name": "car"}, {"id": 10, "name": "barrier"}]
    path.write_text(json.dumps(document))
    classes = ClassSet(("barrier", "car", "pedestrian"))
    assert read_masks(path, classes=classes)["t1"].label.tolist() == [1, 2]


ABSENT = object()


def change(path, place, value):
    """Put `value` at a place of the document, written "images.0.width", or take the field away."""
    document = row = json.loads(path.read_bytes())
    *way, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in way:
        row = row[step]
    if value is ABSENT:
        del row[last]
    else:
        row[last] = value
    path.write_text(json.dumps(document))


RLE = encode_rle(CAR)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        pytest.param("images", ABSENT, "images: expected a list, got None", id="no images"),
        pytest.param("annotations.1", 7, r"annotations\[1\]: expected an object, got 7", id="row"),
        pytest.param("categories.0.name", "cat", r"categories\[0\]: name: expected one of car, .*; did you mean 'car'", id="name"),
        pytest.param("categories.1.id", 1, r"categories\[1\]: id: expected different ids, got 1 again", id="category twice"),
        pytest.param("images.1.id", 3, r"images\[2\]: id: expected different ids, got 3 again", id="image twice"),
        pytest.param("images.1.id", True, r"images\[1\]: id: expected a whole number, 0 or more, got True", id="id"),
        pytest.param("images.0.width", 0, r"images\[0\]: expected width and height of 1 to .*, got 0 x 6", id="width"),
        pytest.param("images.0.width", 2**40, r"images\[0\]: expected width and height of 1 to", id="huge"),
        pytest.param("images.1.sample_data_token", "t1", r"images\[1\]: expected pictures of different names, got 't1' again", id="token"),
        pytest.param("images.1.file_name", 3, r"images\[1\]: file_name: expected text, got 3", id="file name"),
        pytest.param("annotations.0.image_id", 9, r"annotations\[0\]: image_id: expected the id of an image, got 9", id="image"),
        pytest.param("annotations.2.category_id", 0, r"\[2\]: category_id: expected the id of a category, got 0", id="category"),
        pytest.param(
            "annotations.2.sample_data_token", "t1", r"\[2\]: sample_data_token: expected that of its image, 't3', got 't1'", id="another's"
        ),
        pytest.param(
            "annotations.0.segmentation",
            [[1, 2, 3, 4]],
            r"\[0\]: segmentation: .* run-length code of size \[6, 8\], got \[\[1",
            id="polygon",
        ),
        pytest.param("annotations.0.segmentation", {**RLE, "size": [8, 6]}, r"\[0\]: segmentation: .* size \[6, 8\], got", id="size"),
        pytest.param("annotations.0.bbox", [1, 2, 8, 2], r"\[0\]: bbox: expected .* within 8 x 6 pixels, got \[1, 2", id="box outside"),
        pytest.param("annotations.0.bbox", [1, 2, "4", 2], r"\[0\]: bbox: expected", id="box of text"),
        pytest.param("annotations.0.area", 8.5, r"\[0\]: area: expected a whole number, 0 or more, got 8.5", id="area"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(path, place, value, message):
    change(path, place, value)
    with pytest.raises(DataError, match=message) as error:
        read_masks(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        pytest.param("segmentation.counts", "\x01", r"annotations\[0\]: segmentation: counts: expected", id="code"),
        pytest.param("segmentation.counts", [40, 7], r"annotations\[0\]: segmentation: counts: .* got 47", id="sum"),
        pytest.param("segmentation.counts", ABSENT, r"annotations\[0\]: segmentation: expected a mapping", id="none"),
        pytest.param("area", 9, r"annotations\[0\]: area: expected the 8 pixels of its mask, got 9", id="area"),
    ],
)
def test_masks_are_judged_when_they_are_decoded(path, place, value, message):
    change(path, f"annotations.0.{place}", value)
    found = read_masks(path)
    np.testing.assert_array_equal(found["t3"].mask(0), CAR)
    with pytest.raises(DataError, match=message):
        found["t1"].mask(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "expected a readable file, got No such file", id="missing"),
        pytest.param(b'{"images": [', "invalid JSON", id="cut short"),
        pytest.param(b"[" * 100_000, "invalid JSON", id="deep"),
        pytest.param(b"[1]", r"expected an object with images, categories and annotations, got \[1\]", id="list"),
        pytest.param(b"\xff", "invalid JSON", id="not text"),
    ],
)
def test_files_that_are_no_documents(tmp_path, content, message):
    path = tmp_path / "drive.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_masks(path)
    assert "\n" not in str(error.value)


def test_files_that_are_too_large_are_not_read(path, monkeypatch):
    monkeypatch.setattr(masks, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"expected at most 0 MiB, got \d+ bytes"):
        read_masks(path)


def test_pictures_of_two_class_sets_are_refused(tmp_path):
    other = picture("t2", classes=ClassSet(("car", "x", "y", "z", "u", "pedestrian")))
    with pytest.raises(DataError, match=r"expected pictures of one class set, got another one for samples/CAM_FRONT/1\.jpg"):
        write_masks(tmp_path / "drive.json", [picture(), other])
    assert not (tmp_path / "drive.json").exists()


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 70), st.floats(), st.text(max_size=3), st.just([]), st.just({}), st.just([1, 2, 3, 4])
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_change_is_read_or_refused(path, data):
    document = json.loads((path.parent / "drive.json").read_bytes())
    table = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    row = data.draw(st.sampled_from(document[table]))
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(VALUES)
    changed = path.parent / "changed.json"
    changed.write_text(json.dumps(document))
    try:
        for found in read_masks(changed).values():
            for i in range(len(found)):
                assert found.mask(i).shape == (6, 8)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_scores_are_kept_and_truth_has_none(tmp_path):
    write_masks(tmp_path / "a.json", [picture(score=np.array([0.25, 1.0])), picture("t2", shown=())])
    found = read_masks(tmp_path / "a.json")
    assert found["t1"].score.tolist() == [0.25, 1.0]
    assert found["t2"].score is None
    write_masks(tmp_path / "b.json", PICTURES)
    assert read_masks(tmp_path / "b.json")["t1"].score is None


@pytest.mark.parametrize("score", [1.5, -0.1, "high", True])
def test_scores_that_are_none_are_refused(path, score):
    document = json.loads(path.read_bytes())
    document["annotations"][1]["score"] = score
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"annotations\[1\]: score: expected a number of 0 to 1, got"):
        read_masks(path)


def test_categories_of_others_are_mapped_or_left_out(path):
    mapping = {"car": "car", "pedestrian": None}.get
    found = read_masks(path, class_of=lambda name: mapping(name, "bus"))
    assert found["t1"].label.tolist() == [0]
    np.testing.assert_array_equal(found["t1"].mask(0), CAR)
    assert found["t3"].label.tolist() == [2]  # a barrier, which is called a bus here
