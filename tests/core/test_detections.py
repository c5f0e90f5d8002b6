"""Detections and tracks: columns, classes, transforms, and what is refused."""

import numpy as np
import pytest

from perception.core import NUSCENES_DETECTION, NUSCENES_TRACKING, Boxes3D, ClassSet, DataError, Detections, Tracks, Transform, concatenate

CLASSES = ClassSet(("car", "pedestrian", "barrier"))


def boxes(count: int) -> Boxes3D:
    rng = np.random.default_rng(count)
    return Boxes3D(rng.normal(size=(count, 3)), rng.uniform(1, 2, (count, 3)), rng.normal(size=count), rng.normal(size=(count, 2)))


def detections(**changes) -> Detections:
    columns = {
        "boxes": boxes(3),
        "label": [0, 2, 1],
        "score": [0.9, 0.5, 0.1],
        "classes": CLASSES,
        "attribute": ["vehicle.moving", "", "pedestrian.standing"],
        "num_points": [12, 0, 3],
        "instance": ["a", "b", "c"],
        "visibility": [4, 0, 1],
    }
    return Detections(**{**columns, **changes})


def tracks(**changes) -> Tracks:
    columns = {
        "boxes": boxes(3),
        "label": [0, 1, 1],
        "score": [0.9, 0.5, 0.1],
        "classes": CLASSES,
        "track_id": [7, 3, 9],
        "age": [0.0, 0.5, 1.0],
        "hits": [1, 2, 3],
        "coasted": [False, False, True],
        "detection_index": [1, 0, -1],
        "attribute": ["vehicle.moving", "", ""],
        "num_points": [5, 6, -1],
        "covariance": np.tile(np.diag([4.0, 1.0, 9.0, 2.0]), (3, 1, 1)),
    }
    return Tracks(**{**columns, **changes})


def test_names_are_the_classes_of_the_labels():
    assert detections().names.tolist() == ["car", "barrier", "pedestrian"]
    assert tracks().names.tolist() == ["car", "pedestrian", "pedestrian"]


def test_repr_counts_classes():
    assert repr(detections()) == "Detections(3 objects: 1 car, 1 pedestrian, 1 barrier)"
    assert repr(tracks()) == "Tracks(3 objects: 1 car, 2 pedestrian, 1 coasted)"
    assert repr(Detections.empty(CLASSES)) == "Detections(0 objects)"
    assert repr(Tracks.empty(CLASSES)) == "Tracks(0 objects, 0 coasted)"


def test_columns_get_their_types():
    value = detections()
    assert value.label.dtype == value.num_points.dtype == value.visibility.dtype == np.int64
    assert value.score.dtype == np.float64
    assert value.attribute.dtype.kind == value.instance.dtype.kind == "U"
    assert tracks().coasted.dtype == bool


def test_indexing_keeps_all_columns_together():
    picked = detections()[[2, 0]]
    assert picked.instance.tolist() == ["c", "a"]
    assert picked.score.tolist() == [0.1, 0.9]
    assert picked.visibility.tolist() == [1, 4]
    np.testing.assert_array_equal(picked.boxes.center, boxes(3).center[[2, 0]])
    assert picked.classes is CLASSES
    seen = tracks()[~tracks().coasted]
    assert seen.track_id.tolist() == [7, 3]
    assert seen.covariance.shape == (2, 4, 4)


def test_optional_columns_may_be_missing():
    bare = detections(attribute=None, num_points=None, instance=None, visibility=None)
    assert bare[1:].attribute is None
    assert len(concatenate([bare, bare[0]])) == 4


@pytest.mark.parametrize("index", [0, slice(0, 0), [0, 1], [True, False, True]], ids=["one", "none", "rows", "mask"])
def test_parts_can_be_joined_again(index):
    part = detections()[index]
    joined = concatenate([part, detections()])
    assert len(joined) == len(part) + 3
    assert joined.instance.tolist() == [*part.instance, "a", "b", "c"]


def test_with_classes_relabels_and_leaves_out_what_has_no_class():
    kept = detections().with_classes(NUSCENES_TRACKING)
    assert kept.names.tolist() == ["car", "pedestrian"]  # barriers are not tracked
    assert kept.label.tolist() == [NUSCENES_TRACKING.index("car"), NUSCENES_TRACKING.index("pedestrian")]
    assert kept.instance.tolist() == ["a", "c"]
    assert len(Detections.empty(CLASSES).with_classes(NUSCENES_DETECTION)) == 0
    assert len(detections().with_classes(ClassSet(("bus",)))) == 0


def test_transformed_moves_the_boxes_only():
    a_to_b = Transform.from_yaw(0.7, (5, 6, 7))
    moved = detections().transformed(a_to_b)
    np.testing.assert_allclose(moved.boxes.center, a_to_b.apply(boxes(3).center))
    assert moved.score.tolist() == [0.9, 0.5, 0.1]
    assert moved.instance.tolist() == ["a", "b", "c"]


def test_covariance_turns_with_the_ground_plane():
    # A quarter turn swaps the variances of x and y, and of vx and vy.
    turned = tracks().transformed(Transform.from_yaw(np.pi / 2, (100, 0, 0))).covariance[0]
    np.testing.assert_allclose(turned, np.diag([1.0, 4.0, 2.0, 9.0]), atol=1e-12)
    # By 45 degrees variances 4 and 1 become 2.5 each, with covariance 1.5.
    turned = tracks().transformed(Transform.from_yaw(np.pi / 4)).covariance[0]
    np.testing.assert_allclose(turned[:2, :2], [[2.5, 1.5], [1.5, 2.5]], atol=1e-12)
    assert tracks(covariance=None).transformed(Transform.identity()).covariance is None


def test_covariance_follows_sampled_states():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    yaw = 0.8
    states = rng.normal(size=(20000, 4)) @ root.T  # x, y, vx, vy
    value = tracks(covariance=np.tile(np.cov(states.T), (3, 1, 1)))
    a_to_b = Transform.from_yaw(yaw)
    position, velocity = (a_to_b.rotate(np.column_stack([states[:, i : i + 2], np.zeros(20000)]))[:, :2] for i in (0, 2))
    np.testing.assert_allclose(value.transformed(a_to_b).covariance[2], np.cov(np.hstack([position, velocity]).T), atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"boxes": [[0, 0, 0]]}, "Detections.boxes: expected Boxes3D, got list", id="boxes as a list"),
        pytest.param({"classes": ("car",)}, "Detections.classes: expected ClassSet, got tuple", id="classes as a tuple"),
        pytest.param({"label": [0, 1]}, r"Detections.label: expected shape \(3,\), got \(2,\)", id="too few labels"),
        pytest.param({"label": [0, 1, 3]}, r"Detections.label: expected class indices 0..2, got 3 in row 2", id="unknown label"),
        pytest.param({"label": [0, -1, 1]}, r"Detections.label: expected class indices 0..2, got -1 in row 1", id="negative label"),
        pytest.param({"label": [0.0, 1.0, 1.0]}, "Detections.label: expected dtype int64, got float64", id="labels as floats"),
        pytest.param({"score": [0.1, np.nan, 0.2]}, "Detections.score: expected finite numbers, got nan in row 1", id="NaN score"),
        pytest.param({"score": np.zeros((3, 1))}, r"Detections.score: expected shape \(3,\), got \(3, 1\)", id="column score"),
        pytest.param({"attribute": ["", None, ""]}, "Detections.attribute: expected text, got None", id="attribute None"),
        pytest.param({"num_points": [1, 2, np.nan]}, "Detections.num_points: expected dtype int64, got float64", id="NaN points"),
        pytest.param({"instance": ["a", "b"]}, r"Detections.instance: expected shape \(3,\), got \(2,\)", id="too few instances"),
        pytest.param({"visibility": [1, 2]}, r"Detections.visibility: expected shape \(3,\), got \(2,\)", id="too few visibilities"),
    ],
)
def test_bad_detections_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        detections(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"score": [0.1, np.inf, 0.2]}, "Tracks.score: expected finite numbers, got inf in row 1", id="infinite score"),
        pytest.param({"track_id": [1.0, 2.0, 3.0]}, "Tracks.track_id: expected dtype int64, got float64", id="ids as floats"),
        pytest.param({"age": [0.0]}, r"Tracks.age: expected shape \(3,\), got \(1,\)", id="too few ages"),
        pytest.param({"hits": None}, "Tracks.hits: expected dtype int64, got object", id="hits missing"),
        pytest.param({"coasted": [0, 0, 1]}, "Tracks.coasted: expected dtype bool, got int64", id="coasted as numbers"),
        pytest.param({"detection_index": [0, 1]}, r"Tracks.detection_index: expected shape \(3,\), got \(2,\)", id="too few indices"),
        pytest.param({"covariance": np.eye(4)}, r"Tracks.covariance: expected shape \(3, 4, 4\), got \(4, 4\)", id="one covariance"),
    ],
)
def test_bad_tracks_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        tracks(**changes)


def test_nothing_is_written_into_the_callers_arrays():
    label = np.array([0, 2, 1])
    value = detections(label=label)
    value.with_classes(NUSCENES_DETECTION).transformed(Transform.from_yaw(1.0))
    assert label.tolist() == [0, 2, 1]
