"""Training with virtual points: what a sample of them holds, what becomes of it on the way to the network, and what does not fit."""

import pickle
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from perception.cli.main import main
from perception.core import NUSCENES_DETECTION, Boxes3D, DataError, Detections, UsageError
from perception.core.config import parse_config
from perception.core.masks import write_masks
from perception.detection.config import DetectorConfig
from perception.detection.detector import Detector
from perception.drives import open_drives
from perception.drives.simulated import simulate_scenes, write_nuscenes
from perception.drives.simulated.rigs import rig_of
from perception.fusion import InstancesConfig, build_source, fused_cloud
from perception.pipeline import write_instances
from perception.training.augment import augment, augment_batch
from perception.training.config import load_training_config
from perception.training.data_settings import DataSettings, DrivesSettings
from perception.training.feed import open_feed
from perception.training.object_bank import ObjectBank, build_object_bank
from perception.training.recorded import recorded_samples
from perception.training.sample import sample_of
from perception.training.sources import labelled_cloud, open_source
from perception.training.virtual_points import KIND, FusedClouds, clouds_to_read
from tests.detection.small import small_config
from tests.drives.kitti_maker import write_kitti_tracking
from tests.fusion.makers import at_pixel, box_mask, camera, cloud, frame, shown
from tests.makers import write_nuscenes as write_small_nuscenes
from tests.training.scenes import boxes_at, crowded, fused_sample, rng_of, sample_with, settings_of
from tests.training.small import FixedFeed, small_loop, unchanged

RETURN, PAINTED, VIRTUAL = 1, 0, -1
BUS = NUSCENES_DETECTION.index("bus")


def virtual_detector(kind="pillar", **changes):
    """A small network that reads virtual points in the ego frame."""
    settings = small_config(kind).detector
    return settings.model_copy(update={"reader": settings.reader.model_copy(update={"virtual": True}), "frame": "ego"} | changes)


class AllBuses:
    """A source that takes each whole picture for a bus; or, with nothing, sees none."""

    def __init__(self, nothing=False):
        self.nothing = nothing

    def find(self, cameras):
        masks = {name: [] if self.nothing else [(np.ones(at.size[::-1], bool), BUS, 0.5)] for name, at in cameras.items()}
        return {name: shown(*rows, size=cameras[name].size) for name, rows in masks.items()}


def instances_of(root, source=None, *, num=3):
    """Settings of masks in files below a folder of drives."""
    drives = open_drives(root, cameras=True)
    write_instances(drives, source or AllBuses(), root / "found")
    return {"instances": {"name": "file", "path": "{root}/found"}, "virtual_points": {"num": num}}


def drives_of(root, instances, sweeps=1):
    settings = DrivesSettings.model_validate({"name": "drives", "folders": [{"root": root}], "instances": instances})
    return open_source(settings, frame="ego", sweeps=sweeps)


# --- samples


def test_a_frame_by_eye(tmp_path):
    """Two points ahead, the second in the mask of a bus; a box around it."""
    inside = at_pixel(4.5, 4.5, 10.0, intensity=99)
    boxes = Boxes3D(np.array([inside[:3]]), np.array([[2.0, 20, 20]]), np.zeros(1), np.zeros((1, 2)))
    truth = Detections(boxes, np.array([BUS]), np.ones(1), NUSCENES_DETECTION)
    record = replace(frame(cloud(at_pixel(14.5, 4.5, 6.0), inside), {"CAM_FRONT": camera()}), truth=truth)
    found = shown((box_mask(3, 3, 6, 6), BUS, 0.5))
    write_masks(tmp_path / "masks.json", [found.to_picture("token-CAM_FRONT", "frame", "CAM_FRONT/1")])
    config = InstancesConfig.model_validate({
        "instances": {"name": "file", "path": "{root}/masks.json"}, "virtual_points": {"num": 3}
    })  # fmt: skip
    sample = labelled_cloud(record, frame="ego", sweeps=1, fused=FusedClouds(config, tmp_path))
    assert sample.points.shape == (6, 16)
    assert sample.points.dtype == np.float32
    assert sample.points[:, KIND].tolist() == [RETURN, RETURN, PAINTED, VIRTUAL, VIRTUAL, VIRTUAL]
    assert sample.points[:2, 3].tolist() == [7, 99]
    assert (sample.points[:2, 5:] == 1).all()
    # Of x, y, z, is a car, age, then truck, construction vehicle, bus: column 7.
    assert [np.flatnonzero(row[[3, *range(5, 14)]]).tolist() for row in sample.points[2:]] == [[3]] * 4
    assert (sample.points[2:, 14] == 0.5).all()
    assert (sample.points[:, 4] == 0).all()
    assert sample.truth.num_points.tolist() == [1]  # of the five points in the box one is a return
    whole = sample_of("a", sample.points, sample.truth, NUSCENES_DETECTION, sample.origin)
    rows = fused_cloud(record, {"CAM_FRONT": found}, 1, config.virtual_points)
    np.testing.assert_array_equal(clouds_to_read([whole])[0].numpy(), rows)  # as a detector gets it: the lidar is the ego here


def test_ages_stand_where_all_samples_have_them(tmp_path):
    root = write_small_nuscenes(tmp_path)
    found = drives_of(root, instances_of(root), sweeps=2)(1).points
    plain = drives_of(root, None, sweeps=2)(1).points
    np.testing.assert_array_equal(found[found[:, KIND] == RETURN, :5], plain)
    assert set(found[found[:, KIND] == VIRTUAL, 4].tolist()) == set(plain[:, 4].tolist()) > {0}


def test_where_nothing_is_seen_the_sample_is_the_plain_one(tmp_path):
    root = write_small_nuscenes(tmp_path)
    found, plain = drives_of(root, instances_of(root, AllBuses(nothing=True)), sweeps=2), drives_of(root, None, sweeps=2)
    assert len(found) == len(plain) == 6
    for number in range(6):
        one, other = found(number), plain(number)
        assert one.token == other.token
        np.testing.assert_array_equal(one.points[:, :5], other.points)
        assert (one.points[:, 5:] == 1).all()
        assert one.truth.num_points.tolist() == other.truth.num_points.tolist()


def test_of_kitti_only_the_labelled_view_is_used_and_returns_are_counted(tmp_path):
    root = write_kitti_tracking(tmp_path, sequences=("0000",))
    # On the car at x = 10 m, y = 2 m; behind.
    rows = np.array([[9.5, 2.0, -0.9, 0.5], [-9.0, 2.0, -0.9, 0.5]], np.float32)
    for path in root.rglob("*.bin"):
        path.write_bytes(rows.astype("<f4").tobytes())
    found, plain = drives_of(root, instances_of(root, num=40))(0), drives_of(root, None)(0)
    returns = found.points[found.points[:, KIND] == RETURN]
    np.testing.assert_array_equal(returns[:, :5], plain.points)
    assert returns[:, 3].tolist() == [127.5]  # brought to 0..255 once
    assert 30 < np.count_nonzero(found.points[:, KIND] == VIRTUAL) <= 40  # pixels on the picture's edge may lie beyond it
    assert plain.truth.num_points.tolist() == found.truth.num_points.tolist() == [1, 0]
    assert open_drives(root, cameras=True)[0][0].labelled_view.contains(found.points[:, :3].astype(float)).all()


def test_a_frame_without_cameras_is_refused(tmp_path):
    root = write_small_nuscenes(tmp_path)
    fused = FusedClouds(InstancesConfig.model_validate(instances_of(root)), root)
    with pytest.raises(DataError, match="frame scene-0103-0: expected cameras, whose pictures show the instances, got none"):
        labelled_cloud(open_drives(root, cameras=False)[0][0], frame="ego", sweeps=1, fused=fused)


def test_a_source_travels_without_what_is_open(tmp_path):
    root = write_small_nuscenes(tmp_path)
    source = drives_of(root, instances_of(root))
    first = source(0)
    again = pickle.loads(pickle.dumps(source))  # noqa: S301  our own
    assert not {"_frames", "_opened"} & set(vars(again))
    np.testing.assert_array_equal(again(0).points, first.points)
    assert first.points.shape[1] == 16


def test_processes_read_them_too(tmp_path):
    root = write_small_nuscenes(tmp_path)
    source = {"name": "drives", "folders": [{"root": root}], "instances": instances_of(root)}
    batches = []
    for workers in (0, 1):
        settings = parse_config({"source": source, "workers": workers}, DataSettings, where="data.yaml")
        with closing(open_feed(settings, virtual_detector(), device="cpu", batch_size=2, seed=3)) as feed:
            batches.append(feed.batch(0))
    for one, other in zip(*batches, strict=True):
        assert one.token == other.token
        assert torch.equal(one.points, other.points)
        assert one.points.shape[1] == 16


# --- settings


def test_instances_may_be_a_short_text_and_stay_when_the_folder_changes(tmp_path):
    (tmp_path / "training.yaml").write_text(
        yaml.safe_dump({
            "detector": virtual_detector().model_dump(mode="json"),
            "data": {"source": {"name": "drives", "folders": [{"root": "elsewhere"}], "instances": "simulated:{root}"}},
        })
    )  # fmt: skip
    settings = load_training_config(tmp_path / "training.yaml", data=tmp_path)
    assert settings.data.source.folders[0].root == tmp_path
    assert str(settings.data.source.instances.instances.path) == "{root}"
    plain = load_training_config(tmp_path / "training.yaml", data=tmp_path, changes=["data.source.instances=null"])
    assert plain.data.source.instances is None
    with pytest.raises(UsageError, match=r"instances: expected a YAML file.*got 'simulatd:x'; did you mean 'simulated'"):
        load_training_config(tmp_path / "training.yaml", changes=["data.source.instances=simulatd:x"])


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ({"instances": {"name": "simulated", "pth": "x"}}, "source.instances.instances.pth: unknown key.*did you mean 'path'"),
        ({"instances": {"name": "file", "path": "x"}, "virtual_point": {}}, "virtual_point: unknown key.*did you mean 'virtual_points'"),
    ],
)
def test_wrong_keys_are_named(instances, message):
    with pytest.raises(UsageError, match=message):
        parse_config({"source": {"name": "drives", "folders": [{"root": "x"}], "instances": instances}}, DataSettings, where="data.yaml")


def test_the_shipped_configurations_differ_in_the_reader_only():
    plain, found = (
        load_training_config("train_compact_virtual", changes=["detector=compact"]),
        load_training_config("train_compact_virtual"),
    )
    reader = plain.detector.reader.model_copy(update={"virtual": True})
    assert found.detector == plain.detector.model_copy(update={"reader": reader})


@pytest.mark.parametrize(
    ("source", "virtual", "message"),
    [
        ({"name": "drives", "folders": [{"root": "x"}]}, True, r"got drives without; set data.source.instances .*=simulated:{root}"),
        ({"name": "clips", "folder": "x"}, True, "data.source: expected drives with instances.*got clips without"),
        ({"name": "simulation"}, True, "data.source: expected drives with instances.*got simulation without"),
        (
            {"name": "drives", "folders": [{"root": "x"}], "instances": "simulated:x"},
            False,
            "data.source.instances: expected none, as this network reads no virtual points; leave it out",
        ),
    ],
    ids=["no instances", "clips", "simulation", "instances for nobody"],
)
def test_what_does_not_fit_is_refused(source, virtual, message):
    settings = parse_config({"source": source}, DataSettings, where="data.yaml")
    detector = virtual_detector() if virtual else small_config().detector
    with pytest.raises(UsageError, match=message):
        open_feed(settings, detector, device="cpu", batch_size=2, seed=3)


# --- augmentation

EVERYTHING = {
    "flip_x": 0.5, "flip_y": 0.5, "rotation": np.pi, "scale": (0.9, 1.1), "translation": (0.5, 0.5, 0.2), "tilt": 0.02,
    "object_scale": (0.9, 1.1), "object_drop": {"chance": 0.5}, "sweeps": {"count": [1, 10]}, "beams": {"chance": 0.5},
    "point_drop": {"chance": 0.5},
    "sector": {"chance": 0.5}, "intensity": {"zero": 0.2}, "jitter": 0.01, "shuffle": True,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_without_virtual_points_everything_is_as_without_their_columns(seed):
    plain = crowded(seed)
    columns = replace(plain, points=torch.cat([plain.points, torch.ones(len(plain.points), 11)], dim=1))
    one, other = (augment(sample, settings_of(**EVERYTHING), rng_of(seed)) for sample in (columns, plain))
    assert torch.equal(one.points[:, :5], other.points)
    assert (one.points[:, 5:] == 1).all()
    for name in ("boxes", "labels", "num_points", "origin"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("seed", range(4))
def test_all_points_move_alike(seed):
    sample = fused_sample(seed=seed)
    places = {name: EVERYTHING[name] for name in ("flip_x", "flip_y", "rotation", "scale", "translation", "tilt", "object_scale", "jitter")}
    found = augment(sample, settings_of(**places), rng_of(seed))
    expected = augment(replace(sample, points=sample.points[:, :5].contiguous()), settings_of(**places), rng_of(seed))
    assert torch.equal(found.points[:, :3], expected.points[:, :3])
    assert not torch.equal(found.points[:, :3], sample.points[:, :3])
    assert torch.equal(found.points[:, 3:], sample.points[:, 3:])  # is a car, age, classes, score and kind


def test_only_returns_have_an_intensity():
    sample = fused_sample()
    found = augment(sample, settings_of(intensity={"gain": (2, 2), "gamma": (1, 1)}), rng_of()).points
    is_return = sample.points[:, KIND] == RETURN
    torch.testing.assert_close(found[is_return, 3], (2 * sample.points[is_return, 3]).clamp(max=255))
    assert torch.equal(found[~is_return], sample.points[~is_return])
    assert (found[is_return, 3] != sample.points[is_return, 3]).any()


@pytest.mark.parametrize(
    "losing",
    [
        {"beams": {"chance": 1.0, "regular": 0.0, "lost": (1, 1)}},
        {"point_drop": {"chance": 1.0, "near": (1, 1), "far": (1, 1)}},
        {"sector": {"chance": 1.0, "width": (3.14159, 3.14159), "distance": (0, 0)}},
    ],
    ids=["beams", "points", "sector"],
)
def test_virtual_points_outlive_what_the_lidar_loses(losing):
    sample = fused_sample()
    found = augment(sample, settings_of(**losing), rng_of()).points
    for kind in (RETURN, PAINTED):
        assert (found[:, KIND] == kind).sum() < 0.6 * (sample.points[:, KIND] == kind).sum()
    assert torch.equal(found[found[:, KIND] == VIRTUAL], sample.points[sample.points[:, KIND] == VIRTUAL])


def test_sweeps_are_lost_with_all_of_their_points():
    found = augment(fused_sample(), settings_of(sweeps={"count": (3, 3)}), rng_of()).points
    assert {(k, round(a / 0.05)) for k, a in found[:, [KIND, 4]].tolist()} == {(k, a) for k in (-1, 0, 1) for a in (0, 1, 2)}


def test_only_returns_of_the_key_sweep_are_counted():
    # One box with a return of each age and, of age 0, two painted and three virtual points; and one without any return.
    rows = [(10, 5, 0, 9, 0), (10, 5, 0, 9, 0.05), *[(10, 5, 0, 1, 0)] * 5, (30, 5, 0, 1, 0)]
    sample = sample_with(rows, boxes_at((10, 5, 0), (30, 5, 0)))
    kind = torch.tensor([1, 1, 0, 0, -1, -1, -1, -1.0])
    columns = torch.ones(len(rows), 11)
    columns[:, -1] = kind
    sample = replace(sample, points=torch.cat([sample.points, columns], dim=1))
    found = augment(sample, settings_of(object_scale=(1.01, 1.02)), rng_of())
    assert found.num_points.tolist() == [1]


def test_a_batch_is_its_samples():
    samples = [fused_sample(seed=seed, count=300 + 100 * seed) for seed in range(4)]
    bank = build_object_bank([fused_sample(seed=9)], NUSCENES_DETECTION, "ego", min_points=1)
    settings = settings_of(**EVERYTHING, bank={"file": "b", "counts": {"car": 4, "pedestrian": 4}, "clear_inside": True})
    together = augment_batch(samples, settings, [rng_of(seed) for seed in range(4)], bank)
    for seed, (sample, found) in enumerate(zip(samples, together, strict=True)):
        alone = augment(sample, settings, rng_of(seed), bank)
        assert torch.equal(found.points, alone.points)
        assert torch.equal(found.num_points, alone.num_points)


def test_the_network_gets_the_columns_that_readers_expect():
    samples = [fused_sample(seed=seed) for seed in range(2)]
    feed = FixedFeed(2)
    feed.batch = lambda _step: samples
    loop, seen = small_loop(feed=feed, parts={"augment": unchanged}, steps=1), []
    voxelize = loop.network.reader.voxelize
    loop.network.reader.voxelize = lambda clouds: voxelize([seen.append(cloud) or cloud[:, :5] for cloud in clouds])
    loop.advance(0.0)
    for found, sample in zip(seen, samples, strict=True):
        assert torch.equal(found, sample.points[:, [0, 1, 2, 3, *range(5, 16), 4]])


# --- object bank


def test_objects_keep_their_virtual_points(tmp_path):
    root = write_small_nuscenes(tmp_path / "drives")
    config = InstancesConfig.model_validate(instances_of(root, num=30))
    detector = virtual_detector(sweeps=1)
    samples = list(recorded_samples(root, detector, instances=config))
    assert {sample.points.shape[1] for sample in samples} == {16}
    around = samples[0].points[samples[0].points[:, KIND] == VIRTUAL][0]
    boxes = boxes_at(around[:3].tolist())
    bank = build_object_bank([replace(samples[0], boxes=boxes, labels=torch.zeros(1).long())], NUSCENES_DETECTION, "ego", min_points=1)
    bank.save(tmp_path / "bank.safetensors")
    bank = ObjectBank.load(tmp_path / "bank.safetensors")
    pasting = settings_of(bank={"file": "b", "counts": {"car": 1}})
    found = augment(
        replace(fused_sample(), boxes=boxes[:0], labels=torch.zeros(0).long(), num_points=torch.ones(0)), pasting, rng_of(), bank
    )
    pasted = found.points[: len(bank.points)]
    assert {VIRTUAL, RETURN} <= set(pasted[:, KIND].tolist())
    torch.testing.assert_close(pasted[:, 3:], bank.points[:, 3:], rtol=0, atol=0)
    with pytest.raises(DataError, match="object bank: expected points of 5 columns, as the sample has, got 16"):
        augment(sample_with([(1, 2, 3)]), pasting, rng_of(), bank)
    with pytest.raises(UsageError, match=r"data\.source: expected drives with instances"):
        next(recorded_samples(root, detector))


def test_the_command_collects_them(tmp_path, capsys):
    root = write_small_nuscenes(tmp_path / "drives")
    instances_of(root)
    detector = tmp_path / "detector.yaml"
    detector.write_text(yaml.safe_dump(DetectorConfig(detector=virtual_detector(sweeps=1)).model_dump(mode="json")))
    command = ["object-bank", str(root), "--config", str(detector), "--out", str(tmp_path / "bank.safetensors"), "--workers", "0"]
    assert main([*command, "--instances", f"file:{root}/found"]) == 0
    assert ObjectBank.load(tmp_path / "bank.safetensors").points.shape[1] == 16
    assert main(command) == 2
    assert "expected drives with instances" in capsys.readouterr().err


# --- the whole way


def test_a_network_trained_on_a_simulated_drive_detects(tmp_path):
    root = tmp_path / "street"
    scenes = simulate_scenes(1, seed=5, num_frames=1, density=0.5)
    write_nuscenes(root, scenes, version="v1.0-sim", splits={}, lidar=True, rig=rig_of("vlp16"), cameras=True)
    detector = DetectorConfig(detector=virtual_detector("summary", sweeps=2))
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(detector.model_dump(mode="json")))
    training = {
        "detector": str(tmp_path / "detector.yaml"),
        "data": {"source": {"name": "drives", "folders": [{"root": "x"}], "instances": "simulated:{root}"}, "workers": 0},
        "augment": {"flip_x": 0.5, "rotation": 0.5, "intensity": {}},
        "loop": {"steps": 2, "batch_size": 1, "log_every": 1},
    }
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(training))
    out = tmp_path / "out"
    assert main(["train", str(tmp_path / "training.yaml"), "--data", str(root), "--out", str(out)]) == 0
    trained = Detector.from_config(detector, weights=out / "weights.safetensors")
    record = open_drives(root, cameras=True)[0][0]
    rows = fused_cloud(record, build_source(f"simulated:{root}").find(record.cameras), 2)
    assert {RETURN, PAINTED, VIRTUAL} == set(rows[:, 14].tolist())
    assert len(trained.detect(rows, record.lidar_to_ego)) > 0
    run = ["run", str(root), "--config", str(tmp_path / "detector.yaml"), "--weights", str(out / "weights.safetensors")]
    assert main([*run, "--out", str(tmp_path / "run"), "--instances", f"simulated:{root}"]) == 0
