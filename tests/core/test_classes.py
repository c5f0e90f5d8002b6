"""Class sets, the nuScenes names and the maps from other data sets."""

import numpy as np
import pytest
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES, DETECTION_NAMES

from perception.core import NUSCENES_ATTRIBUTES, NUSCENES_DETECTION, NUSCENES_TRACKING, ClassSet, UsageError
from perception.core.classes import COCO_CLASSES, COCO_TO_NUSCENES, KITTI_TO_NUSCENES, class_of_category
from perception.core.errors import nearest_hint


def test_nuscenes_names_are_the_devkits():
    assert set(NUSCENES_DETECTION) == set(DETECTION_NAMES)
    assert list(NUSCENES_TRACKING) == config_factory("tracking_nips_2019").tracking_names
    assert set(NUSCENES_ATTRIBUTES) == set(ATTRIBUTE_NAMES)
    assert len(NUSCENES_DETECTION) == 10
    assert len(NUSCENES_TRACKING) == 7


def test_a_label_is_the_place_of_the_name():
    classes = ClassSet(["car", "bus"])
    assert classes.names == ("car", "bus")
    assert [classes.index(name) for name in classes] == [0, 1]
    assert classes.array[np.array([1, 0, 1])].tolist() == ["bus", "car", "bus"]
    assert "bus" in classes
    assert "truck" not in classes
    assert repr(classes) == "ClassSet(car, bus)"


def test_sets_with_the_same_names_are_equal_and_hash_alike():
    assert ClassSet(("car", "bus")) == ClassSet(["car", "bus"])
    assert ClassSet(("car", "bus")) != ClassSet(("bus", "car"))
    assert len({ClassSet(("car", "bus")), ClassSet(["car", "bus"])}) == 1


def test_labels_from_another_set():
    labels = NUSCENES_TRACKING.labels_from(NUSCENES_DETECTION)
    for name, label in zip(NUSCENES_DETECTION, labels, strict=True):
        assert label == (NUSCENES_TRACKING.index(name) if name in NUSCENES_TRACKING else -1)
    assert (labels == -1).sum() == 3  # construction_vehicle, traffic_cone, barrier
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "hint"), [("pedestrain", "; did you mean 'pedestrian'?"), ("Car", "; did you mean 'car'?"), ("zebra", "bus, .*truck$")]
)
def test_unknown_names_get_a_hint(name, hint):
    with pytest.raises(UsageError, match=rf"class '{name}': expected one of bicycle, {'.*' + hint.replace('?', '[?]')}"):
        NUSCENES_TRACKING.index(name)


def test_no_hint_where_nothing_is_near():
    assert nearest_hint("zebra", NUSCENES_TRACKING.names) == ""
    assert nearest_hint("zebra", []) == ""


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param((), r"expected different names, at least one, got \(\)", id="none"),
        pytest.param(("car", "car"), r"expected different names, .* got \('car', 'car'\)", id="twice"),
        pytest.param(("car", 3), r"expected different names, .* got \('car', 3\)", id="number"),
        pytest.param("car", "expected a sequence of names, got the text 'car'", id="text is no sequence of letters"),
    ],
)
def test_bad_class_sets_are_refused(names, message):
    with pytest.raises(UsageError, match=message):
        ClassSet(names)


@pytest.mark.parametrize("mapping", [KITTI_TO_NUSCENES, COCO_TO_NUSCENES], ids=["KITTI", "COCO"])
def test_foreign_names_map_onto_detection_classes(mapping):
    assert set(mapping.values()) <= set(NUSCENES_DETECTION)


@pytest.mark.parametrize("name", ["Tram", "Misc", "DontCare"])
def test_kitti_names_without_a_class_are_left_out(name):
    assert name not in KITTI_TO_NUSCENES


def test_the_classes_of_coco_are_its_80_in_order():
    assert len(set(COCO_CLASSES)) == len(COCO_CLASSES) == 80
    assert set(COCO_TO_NUSCENES) <= set(COCO_CLASSES)
    ends = {0: "person", 2: "car", 7: "truck", 9: "traffic light", 16: "dog", 79: "toothbrush"}
    assert {place: COCO_CLASSES[place] for place in ends} == ends


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("barrier", "barrier"),
        ("vehicle.bus.bendy", "bus"),
        ("vehicle.ego", None),
        ("animal", None),
        ("person", "pedestrian"),
        ("traffic light", None),
    ],
)
def test_categories_of_all_data_sets_have_a_class_or_none(name, found):
    assert class_of_category(name) == found


def test_an_unknown_category_is_named_with_the_nearest_known_one():
    with pytest.raises(UsageError, match=r"class 'pedestrain': expected one of car, .*; did you mean 'pedestrian'"):
        class_of_category("pedestrain")
