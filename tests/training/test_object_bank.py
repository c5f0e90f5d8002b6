"""The object bank: what is collected, how it is kept, and what is pasted where there is room."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from cuda_ops import iou_bev
from perception.cli.main import main
from perception.core.borders import boxes_from_det3d
from perception.core.boxes import Boxes3D
from perception.core.classes import NUSCENES_DETECTION, ClassSet
from perception.core.detections import Detections
from perception.core.errors import DataError, UsageError
from perception.core.frame import Frame
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform
from perception.detection.config import load_detector_config
from perception.drives.simulated.clips import write_clip
from perception.training.augment import augment, open_augmentation
from perception.training.object_bank import ObjectBank, build_object_bank
from tests.training.scenes import boxes_at, crowded, in_boxes, rng_of, sample_with, settings_of

CLASSES = ClassSet(("car", "bus", "cone"))


def filled_box(center, count, *, age=0.0):
    """Rows of points evenly along a box's heading (yaw 0.3), within 1.5 m of its middle."""
    along = np.linspace(-1.5, 1.5, count)
    return [(center[0] + a * np.cos(0.3), center[1] + a * np.sin(0.3), center[2] + 0.1, 50 + i, age) for i, a in enumerate(along)]


def bank_of(*objects, classes=CLASSES):
    """A bank of (class name, centre, number of points)."""
    samples = [sample_with(filled_box(center, count), boxes_at(center), [classes.index(name)]) for name, center, count in objects]
    return build_object_bank(samples, classes, "ego", min_points=1)


def pasting(tmp_path=None, **values):
    return settings_of(bank={"file": "bank.safetensors", "counts": {"car": 2}} | values)


def test_the_points_of_each_box_are_collected_about_its_middle():
    points = filled_box((10, 5, 1), 6) + filled_box((30, -5, 0), 4, age=0.1) + [(0, 0, 0, 9, 0), (10, 5, 3)]
    sample = sample_with(points, boxes_at((10, 5, 1), (30, -5, 0), (50, 0, 0)), [2, 0, 1])
    bank = build_object_bank([sample], CLASSES, "ego", min_points=4)
    assert len(bank) == 2
    order = np.argsort(bank.labels)
    assert bank.labels[order].tolist() == [0, 2]
    assert bank.count[order].tolist() == [4, 6]
    np.testing.assert_array_equal(bank.boxes[order], sample.boxes[[1, 0]].numpy())
    cone = bank.points_of(np.flatnonzero(bank.labels == 2))
    np.testing.assert_allclose(cone.numpy(), np.array(points[:6]), atol=1e-5)
    stored = bank.points[-6:] if bank.labels[-1] == 2 else bank.points[:6]
    np.testing.assert_allclose(stored[:, :3].norm(dim=1).max(), np.hypot(1.5, 0.1), atol=1e-5)  # from the middle, not turned
    assert len(build_object_bank([sample], CLASSES, "ego", min_points=5)) == 1
    assert len(build_object_bank([], CLASSES, "ego")) == 0


def test_boxes_that_overlap_have_all_of_their_points_each():
    sample = sample_with(filled_box((10, 5, 1), 9), boxes_at((10, 5, 1), (10, 5, 1.2)), [0, 1])
    assert build_object_bank([sample], CLASSES, "ego").count.tolist() == [9, 9]


def test_a_class_keeps_so_many_of_all_that_there_were():
    objects = [("car", (10.0 * i, 0, 0), 5) for i in range(40)] + [("bus", (0, 50, 0), 5)]
    samples = [sample_with(filled_box(c, n), boxes_at(c), [CLASSES.index(name)]) for name, c, n in objects]
    kept = [build_object_bank(samples, CLASSES, "ego", max_per_class=10, seed=seed) for seed in range(60)]
    assert all(np.bincount(bank.labels).tolist() == [10, 1] for bank in kept)
    met = np.bincount([round(x / 10) for bank in kept for x in bank.boxes[bank.labels == 0, 0]], minlength=40)
    assert 3 <= met.min() <= met.max() <= 30  # 15 each, 4 deviations


def test_a_bank_comes_back_from_its_file(tmp_path):
    bank = bank_of(("car", (10, 0, 0), 5), ("bus", (30, 0, 0), 8), ("car", (50, 0, 0), 6))
    bank.save(tmp_path / "bank.safetensors")
    back = ObjectBank.load(tmp_path / "bank.safetensors")
    assert (back.classes, back.frame) == (CLASSES, "ego")
    for name in ("count", "boxes", "labels", "points"):
        np.testing.assert_array_equal(getattr(back, name), getattr(bank, name))
    bank.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "bank.safetensors").read_bytes()


def test_a_bank_is_read_for_the_network_that_trains(tmp_path):
    bank = bank_of(("car", (10, 0, 0), 5), ("bus", (30, 0, 0), 8), ("car", (50, 0, 0), 6), ("cone", (70, 0, 0), 9))
    bank.save(tmp_path / "bank.safetensors")
    other = ClassSet(("pedestrian", "bus", "car"))
    back = ObjectBank.load(tmp_path / "bank.safetensors", classes=other, frame="ego", min_points=6)
    names = [other.names[label] for label in back.labels]
    assert dict(zip(names, back.count.tolist(), strict=True)) == {"car": 6, "bus": 8}
    for row, name in enumerate(names):
        center = {"car": (50, 0, 0), "bus": (30, 0, 0)}[name]
        np.testing.assert_allclose(back.points_of(np.array([row])).numpy(), filled_box(center, back.count[row]), atol=1e-5)
    with pytest.raises(UsageError, match="expected objects for a network in frame nuscenes_lidar, got ego; build the bank"):
        ObjectBank.load(tmp_path / "bank.safetensors", frame="nuscenes_lidar")


def good_tensors():
    bank = bank_of(("car", (10, 0, 0), 5), ("bus", (30, 0, 0), 8))
    return {"points": bank.points.numpy(), "count": bank.count, "boxes": bank.boxes, "labels": bank.labels}


GOOD = {"format": 1, "classes": ["car", "bus", "cone"], "frame": "ego"}


@pytest.mark.parametrize(
    ("change", "says", "message"),
    [
        pytest.param({"count": np.array([5, 9])}, GOOD, "expected 14 points, got 13", id="too few points"),
        pytest.param({"count": np.array([13, 0])}, GOOD, r"counts of 1..13 points, got 0..13", id="an object without points"),
        pytest.param({"count": np.array([14, -1])}, GOOD, r"counts of 1..13 points, got -1..14", id="a negative count"),
        pytest.param({"count": np.array([2**62, 2**62])}, GOOD, "counts of 1..13 points", id="a count beyond everything"),
        pytest.param({"labels": np.array([0, 3])}, GOOD, r"labels 0..2, got 0..3", id="an unknown label"),
        pytest.param({"labels": np.array([0, 1], np.int32)}, GOOD, "labels of int64, got int32", id="another dtype"),
        pytest.param({"boxes": np.ones((2, 7), np.float32)}, GOOD, r"boxes \(K, 9\).*got .*\(2, 7\)", id="boxes of seven numbers"),
        pytest.param({"boxes": np.zeros((2, 9), np.float32)}, GOOD, "sizes above 0", id="boxes without a size"),
        pytest.param({"points": np.full((13, 5), np.nan, np.float32)}, GOOD, "finite numbers", id="points that are none"),
        pytest.param({"points": np.ones((13, 4), np.float32)}, GOOD, r"points \(P, 5 or more\)", id="points without age"),
        pytest.param({}, GOOD | {"format": 2}, "object bank of format 1, got 2", id="another format"),
        pytest.param({}, GOOD | {"classes": ["car", "car", "bus"]}, "metadata is broken", id="a class twice"),
        pytest.param({}, {"format": 1}, "metadata is broken", id="no classes"),
        pytest.param({}, None, "another safetensors file", id="weights"),
        pytest.param({"more": np.ones(3)}, GOOD, "another safetensors file", id="one tensor more"),
    ],
)
def test_a_damaged_bank_is_refused(tmp_path, change, says, message):
    path = tmp_path / "bank.safetensors"
    path.write_bytes(save(good_tensors() | change, None if says is None else {"perception object bank": json.dumps(says)}))
    with pytest.raises(DataError, match=message):
        ObjectBank.load(path)


def test_what_is_no_file_of_ours_is_refused(tmp_path):
    path = tmp_path / "bank.safetensors"
    with pytest.raises(DataError, match=r"bank.safetensors: expected an object bank, got No such file"):
        ObjectBank.load(path)
    bank_of(("car", (10, 0, 0), 5)).save(path)
    whole = path.read_bytes()
    for content in (b"", b"\x80\x04pickle", whole[:100], whole[:-7]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="something else or a part of one"):
            ObjectBank.load(path)


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "bank.safetensors"
    bank_of(("car", (10, 0, 0), 5)).save(path)
    monkeypatch.setattr("perception.training.object_bank._MAX_BYTES", 100)
    with pytest.raises(DataError, match="expected an object bank of at most"):
        ObjectBank.load(path)


def test_objects_are_pasted_in_front_until_the_count_is_reached():
    bank = bank_of(*[("car", (10.0 * i, 20, 0.5), 5 + i) for i in range(4)], ("bus", (0, -30, 0), 7))
    sample = sample_with([(1, 1, 1, 1, 0), *filled_box((10, 0, 0), 3)], boxes_at((10, 0, 0)), [0], num_points=3)
    found = augment(sample, pasting(counts={"car": 3, "bus": 1, "cone": 4}), rng_of(2), bank)
    assert found.labels.tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(found.boxes[:1], sample.boxes)
    torch.testing.assert_close(found.points[-4:], sample.points)
    rows = [int(np.flatnonzero((bank.boxes == box.numpy()).all(axis=1))[0]) for box in found.boxes[1:]]
    assert len(set(rows)) == 3
    assert found.num_points.tolist() == [3, *bank.count[rows]]
    torch.testing.assert_close(found.points[:-4], bank.points_of(np.array(rows)))
    assert in_boxes(found.points[:-4], found.boxes[1:]).sum(axis=1).tolist() == bank.count[rows].tolist()


@pytest.mark.parametrize(
    ("rate", "present", "pasted"),
    [
        pytest.param(1.0, 0, 5, id="all that are missing"),
        pytest.param(1.0, 3, 2, id="those that are there count"),
        pytest.param(1.0, 7, 0, id="enough there"),
        pytest.param(0.5, 1, 2, id="half of the missing four"),
        pytest.param(0.0, 0, 0, id="none"),
    ],
)
def test_how_many_are_pasted(rate, present, pasted):
    bank = bank_of(*[("car", (10.0 * i, 20, 0), 5) for i in range(6)])
    points = [point for i in range(7) for point in filled_box((10 * i, -20, 0), 2)]
    sample = sample_with(points, boxes_at(*[(10 * i, -20, 0) for i in range(present)]))
    found = augment(sample, pasting(counts={"car": 5}, rate=rate), rng_of(), bank)
    assert len(found.boxes) == present + pasted


def test_no_two_objects_overlap():
    rng = rng_of(5)
    places = [(*rng.uniform(-12, 12, 2), 0.0) for _ in range(30)]
    bank = bank_of(*[("car" if i % 2 else "bus", place, 5) for i, place in enumerate(places)])
    sample = sample_with(filled_box((0, 0, 0), 5), boxes_at((0, 0, 0)), [2])
    num_pasted = []
    for seed in range(20):
        found = augment(sample, pasting(counts={"car": 8, "bus": 8}), rng_of(seed), bank)
        boxes = boxes_from_det3d(found.boxes.double().numpy())
        overlap = iou_bev(*[np.column_stack([boxes.center, boxes.size, boxes.yaw])] * 2)
        assert (overlap > 0).sum() == len(boxes)  # each with itself alone
        num_pasted.append(len(boxes) - 1)
    assert min(num_pasted) > 0
    assert max(num_pasted) < 16


def test_an_object_that_goes_makes_room_for_those_behind_it():
    # In a row, each overlapping the next, the last one a car of the scene: 2 stands in its way and goes, then 1 may stay, then 0 not.
    from perception.training.object_bank import _has_room

    scene, *row = boxes_at((30, 0, 0), (18, 0, 0), (21, 0, 0), (24, 0, 0), (27, 0, 0), yaw=0.0).numpy()
    assert _has_room(np.array(row), scene[None]).tolist() == [False, False, False, False]  # each stands before the next one's test
    assert _has_room(np.array(row[::-1]), scene[None]).tolist() == [False, False, False, True]
    assert _has_room(np.array([row[3], row[2], row[0]]), scene[None]).tolist() == [False, True, True]
    assert _has_room(np.array(row[:1]), scene[None]).tolist() == [True]
    assert _has_room(np.zeros((0, 9), np.float32), scene[None]).tolist() == []


def test_points_of_the_scene_are_taken_out_of_pasted_boxes_where_asked_for():
    bank = bank_of(("car", (10, 0, 0), 5))
    sample = sample_with([(10, 0, 0, 1), (10, 0, 2, 2), (30, 0, 0, 3)], boxes_at((30, 0, 0)), [1])
    both = augment(sample, pasting(), rng_of(), bank)
    assert both.points[5:, 3].tolist() == [1, 2, 3]
    assert both.num_points.tolist() == [1, 6]
    cleared = augment(sample, pasting(clear_inside=True), rng_of(), bank)
    assert cleared.points[5:, 3].tolist() == [2, 3]
    assert cleared.num_points.tolist() == [1, 5]


def test_pasting_ends_when_it_fades():
    bank, sample = bank_of(("car", (10, 0, 0), 5)), sample_with()
    settings = pasting(fade_from=0.75)
    assert [len(augment(sample, settings, rng_of(), bank, progress).boxes) for progress in (0, 0.74, 0.75, 1)] == [1, 1, 0, 0]
    assert len(augment(sample, pasting(), rng_of(), bank, 0.999).boxes) == 1


def test_each_object_is_drawn_as_often_as_any_other():
    bank = bank_of(*[("bus", (10.0 * i, 0, 0), 5) for i in range(5)], *[("car", (10.0 * i, 0, 0), 5) for i in range(8)])
    drawn = np.concatenate([bank.draw(0, 3, rng_of(seed)) for seed in range(200)])
    assert set(bank.labels[drawn]) == {0}
    times = np.bincount(drawn, minlength=len(bank))[bank.labels == 0]
    assert 45 < times.min() <= times.max() < 105  # 75 each, 3.5 deviations
    assert sorted(bank.draw(1, 99, rng_of()).tolist()) == np.flatnonzero(bank.labels == 1).tolist()  # fewer than asked for, none twice
    assert bank.draw(2, 3, rng_of()).tolist() == []


def test_the_generator_decides_what_is_pasted_and_nothing_else():
    bank = bank_of(*[("car", (10.0 * i, 20, 0), 5) for i in range(12)])
    sample, settings = crowded(), pasting(counts={"car": 6}, clear_inside=True)
    first = augment(sample, settings, rng_of(1), bank)
    augment(sample, settings, rng_of(2), bank)
    again = augment(sample, settings, rng_of(1), bank)
    torch.testing.assert_close(first.points, again.points, rtol=0, atol=0)
    torch.testing.assert_close(first.boxes, again.boxes, rtol=0, atol=0)


def test_pasted_objects_move_with_the_scene():
    bank = bank_of(("car", (10, 0, 0), 5))
    moved = settings_of(
        bank={"file": "b", "counts": {"car": 1}}, rotation=np.pi, flip_x=0.5, scale=(0.9, 1.1), translation=(1, 1, 1), flip_y=0.5
    )
    for seed in range(5):
        found = augment(sample_with([(50, 0, 0)]), moved, rng_of(seed), bank)
        assert in_boxes(found.points, found.boxes).tolist() == [[True] * 5 + [False]]


def test_what_does_not_fit_is_said():
    bank, sample = bank_of(("car", (10, 0, 0), 5)), sample_with()
    with pytest.raises(UsageError, match=r"expected the object bank bank.safetensors, got none; load it"):
        augment(sample, pasting(), rng_of())
    with pytest.raises(UsageError, match="class 'cra': expected one of car, bus, cone; did you mean 'car'"):
        augment(sample, pasting(counts={"cra": 1}), rng_of(), bank)
    with pytest.raises(DataError, match="object bank: expected points of 6 columns, as the sample has, got 5"):
        augment(replace(sample, points=torch.zeros(3, 6)), pasting(), rng_of(), bank)


def test_the_augmentation_of_a_network_has_its_bank(tmp_path):
    detector = load_detector_config("centerpoint_pillar02").detector  # classes in another order, nuscenes_lidar
    bank = replace(bank_of(("car", (10, 0, 0), 5), ("bus", (40, 0, 0), 5), classes=ClassSet(("bus", "car"))), frame="nuscenes_lidar")
    path = tmp_path / "bank.safetensors"
    bank.save(path)
    settings = settings_of(bank={"file": str(path), "counts": {"bus": 1, "pedestrian": 1}, "fade_from": 0.5})
    change = open_augmentation(settings, detector, "cpu")
    assert change([sample_with()], [rng_of()], 0.0)[0].labels.tolist() == [3]  # the bus in task order
    assert change([sample_with()], [rng_of()], 0.5)[0].labels.tolist() == []
    with pytest.raises(UsageError, match="class 'buss'"):
        open_augmentation(settings_of(bank={"file": str(path), "counts": {"buss": 1}}), detector, "cpu")
    assert len(open_augmentation(settings_of(), detector, "cpu")([sample_with()], [rng_of()], 0.0)[0].boxes) == 0


def write_clip_of(path, objects):
    """A clip of one sweep, in a lidar frame that is the ego frame: (class name, centre, number of points)."""
    names = ClassSet(("truck", "car", "pedestrian"))
    center = np.array([center for _, center, _ in objects], float)
    count = np.array([count for *_, count in objects])
    size, yaw = np.tile((4.0, 2.0, 1.5), (len(objects), 1)), np.full(len(objects), 0.3)
    boxes = Boxes3D(center, size, yaw, np.tile((3.0, 1.0), (len(objects), 1)))
    truth = Detections(boxes, np.array([names.index(name) for name, *_ in objects]), np.ones(len(objects)), names, num_points=count)
    points = np.array([point for _, center, count in objects for point in filled_box(center, count)], np.float32)
    here = Transform.identity()
    write_clip(path, Frame(path.stem, 0, here, here, {}, truth.with_classes(NUSCENES_DETECTION), lambda: PointCloud(points)), num_sweeps=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_command_collects_the_objects_of_clips(tmp_path, capsys, workers):
    write_clip_of(tmp_path / "clip-000000.npz", [("car", (10, 5, 1), 6), ("truck", (20, 5, 1), 12), ("car", (30, 5, 1), 4)])
    write_clip_of(tmp_path / "clip-000001.npz", [("pedestrian", (10, -5, 0), 9), ("car", (40, 5, 1), 7)])
    out = tmp_path / "bank.safetensors"
    command = ["object-bank", str(tmp_path), "--config", "centerpoint_pillar02", "--out", str(out), "--workers", str(workers)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(out)
    table = {line.split()[0]: line.split()[1:] for line in lines[1:-1]}
    assert {name: row for name, row in table.items() if row[0] != "0"} == {
        "car": ["2", "13"], "truck": ["1", "12"], "pedestrian": ["1", "9"], "all": ["4", "34"],
    }  # fmt: skip
    bank = ObjectBank.load(out)
    assert bank.frame == "nuscenes_lidar"
    assert [bank.classes.names[label] for label in bank.labels] == ["car", "car", "truck", "pedestrian"]
    for row in range(len(bank)):  # in the network's frame, where x is to the right
        assert in_boxes(bank.points_of(np.array([row])), torch.from_numpy(bank.boxes[row : row + 1])).all()
    assert bank.boxes[0, 1] == pytest.approx(10 - 0.95, abs=0.01)  # 10 m ahead of the rear axle


def test_the_command_keeps_what_it_is_told_to(tmp_path, capsys):
    write_clip_of(tmp_path / "clip-000000.npz", [("car", (10 * i, 5, 1), 5 + i) for i in range(6)])
    out = tmp_path / "bank.safetensors"
    command = ["object-bank", str(tmp_path), "--config", "centerpoint_pillar02", "--out", str(out), "--workers", "0"]
    assert main([*command, "--max-per-class", "2", "--min-points", "7"]) == 0
    bank = ObjectBank.load(out)
    assert len(bank) == 2
    assert bank.count.min() >= 7
    assert main([*command, "--split", "val"]) == 2
    assert "a folder of clips has none" in capsys.readouterr().err
    assert main([*command[:5], str(tmp_path), *command[6:]]) == 2
    assert "expected the file to write, BANK.safetensors, got a folder" in capsys.readouterr().err
    assert main([*command, "--instances", "file:masks"]) == 2
    assert "expected drives with pictures for instances to be seen in, got a folder of clips" in capsys.readouterr().err
    assert main(["object-bank", str(tmp_path / "nothing"), *command[2:]]) == 3
    assert "nothing: expected the folder of a data set, found none" in capsys.readouterr().err
