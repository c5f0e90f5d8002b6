import json

import numpy as np
import pytest

from perception.core import NUSCENES_DETECTION, ClassSet, Transform
from perception.core.borders import det3d_to_nuscenes
from perception.detection.attributes import attributes_of
from tests.conftest import SHARED

FOLDER = SHARED / "fixtures" / "nusc_json"


@pytest.mark.parametrize(
    ("name", "speed", "attribute"),
    [
        ("car", 0.2, "vehicle.parked"),  # the limit itself is still
        ("car", 0.21, "vehicle.moving"),
        ("bus", 0.0, "vehicle.stopped"),
        ("bicycle", 1.0, "cycle.with_rider"),
        ("pedestrian", np.nan, "pedestrian.standing"),  # unknown
        ("barrier", 5.0, ""),
        ("traffic_cone", 0.0, ""),
    ],
)
def test_attribute_by_class_and_speed(name, speed, attribute):
    label = np.array([NUSCENES_DETECTION.index(name)])
    assert attributes_of(NUSCENES_DETECTION, label, np.array([[speed, 0.0]])).tolist() == [attribute]
    assert attributes_of(NUSCENES_DETECTION, label, np.array([[0.0, -speed]])).tolist() == [attribute]


def test_no_box_and_a_class_of_another_kind():
    assert attributes_of(NUSCENES_DETECTION, np.zeros(0, int), np.zeros((0, 2))).shape == (0,)
    assert attributes_of(ClassSet(("VEHICLE",)), np.array([0]), np.array([[9.0, 0.0]])).tolist() == [""]


@pytest.mark.shared
def test_rows_become_the_published_submission():
    meta, frames = (json.loads((FOLDER / name).read_text()) for name in ("meta.json", "frames.json"))
    expected = json.loads((FOLDER / "expected_results.json").read_text())["results"]
    detections, classes = np.load(FOLDER / "detections.npz"), ClassSet(meta["class_names"])
    for number, token in enumerate(frames["sample_order"]):
        frame = frames["frames"][token]
        lidar_to_ego, ego_to_global = (
            Transform.from_quaternion(frame[key]["rotation"], frame[key]["translation"]) for key in ("calibrated_sensor", "ego_pose")
        )
        rows, labels = detections[f"{number}/box3d_lidar"], detections[f"{number}/label_preds"]
        translation, size, rotation, velocity = det3d_to_nuscenes(rows, ego_to_global @ lidar_to_ego)
        boxes = expected[token]
        assert len(boxes) == len(rows)
        if not boxes:
            continue
        np.testing.assert_allclose(translation, [box["translation"] for box in boxes], rtol=0, atol=1e-6)
        np.testing.assert_allclose(size, [box["size"] for box in boxes], rtol=0, atol=1e-6)
        np.testing.assert_allclose(velocity, [box["velocity"] for box in boxes], rtol=0, atol=1e-6)
        quaternion = np.array([box["rotation"] for box in boxes])
        sign = np.sign((quaternion * rotation).sum(axis=1, keepdims=True))  # q and -q are one rotation
        np.testing.assert_allclose(rotation * sign, quaternion, rtol=0, atol=1e-6)
        assert classes.array[labels].tolist() == [box["detection_name"] for box in boxes]
        np.testing.assert_allclose(detections[f"{number}/scores"], [box["detection_score"] for box in boxes], rtol=0, atol=1e-6)
        honest = ["" if box["detection_name"] in ("barrier", "traffic_cone") else box["attribute_name"] for box in boxes]
        assert attributes_of(classes, labels, velocity).tolist() == honest
