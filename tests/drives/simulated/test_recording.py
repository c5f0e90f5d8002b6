"""Recorded simulated scenes: the devkit reads them, points are where the boxes are, the same seed gives the same bytes."""

import numpy as np
import pytest

from perception.drives import NuScenes, accumulate_sweeps
from perception.drives.simulated import simulate_scenes, write_nuscenes
from perception.drives.simulated.furniture import Standing
from perception.drives.simulated.lidar import beams, turn_of
from perception.drives.simulated.matter import SCENERY
from perception.drives.simulated.recording import scan_at, sweep_times
from perception.drives.simulated.rigs import KITTI_RIG, NUSCENES_RIG
from perception.drives.simulated.world import World

VERSION = "v1.0-recorded"


@pytest.fixture(scope="module")
def scenes():
    return simulate_scenes(1, seed=3, num_frames=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory, scenes):
    folder = tmp_path_factory.mktemp("recorded")
    write_nuscenes(folder, scenes, version=VERSION, splits={"val": [scene.name for scene in scenes]}, lidar=True)
    return folder


@pytest.fixture(scope="module")
def nusc(root):
    return pytest.importorskip("nuscenes").NuScenes(VERSION, str(root), verbose=False)


def test_sweeps_come_every_50_ms_and_ten_before_the_first_key_frame():
    times = sweep_times(np.array([10_000_000, 10_500_000, 11_001_000]))
    assert [t for t, _, is_key in times if is_key] == [10_000_000, 10_500_000, 11_001_000]
    assert times[0] == (9_500_000, 0, False)
    assert len(times) == 10 + 21
    assert np.abs(np.diff([t for t, _, _ in times]) - 50_000).max() <= 110
    assert [frame for _, frame, _ in times] == [0] * 11 + [1] * 10 + [2] * 10


def test_the_world_has_every_object_where_its_box_is(scenes):
    (scene,) = scenes
    for frame in range(len(scene)):
        seconds = (scene.timestamps_us[frame] - scene.timestamps_us[0]) / 1e6
        place, yaw, _ = scene.world.places(seconds)
        street_to_global = scene.street_to_global_at(seconds)
        owners = scene.world.owners
        assert sorted(owners[owners != SCENERY]) == list(range(len(scene.objects)))
        for i in np.flatnonzero(owners != SCENERY):
            thing = scene.objects[owners[i]]
            bottom = street_to_global.apply(place[i : i + 1])[0]
            # recorded poses lean by up to a tenth of a degree: the middle of a trailer lies millimetres beside its foot
            np.testing.assert_allclose(bottom + np.array([0, 0, thing.size[2] / 2]), thing.center[frame], atol=4e-3)
            assert np.cos(yaw[i] + street_to_global.yaw - thing.yaw[frame]) > 1 - 1e-9
            assert scene.world.sources[i].class_name == thing.class_name
    assert any(isinstance(source, Standing) for source in scene.world.sources)


def test_the_devkit_counts_the_same_points_in_the_boxes(nusc):
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    total = 0
    for sample in nusc.sample:
        path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
        points = LidarPointCloud.from_file(path).points[:3]
        points = points[:, np.linalg.norm(points, axis=0) > 0.5]  # without the missing returns
        for box in boxes:
            told, found = nusc.get("sample_annotation", box.token)["num_lidar_pts"], points_in_box(box, points).sum()
            assert abs(int(found) - told) <= 2, (box.name, told, found)  # on the very border
            total += told
    assert total > 300


def test_sweeps_are_linked_between_the_key_frames(nusc, scenes):
    record = nusc.get("sample_data", nusc.sample[0]["data"]["LIDAR_TOP"])
    chain = [record]
    while chain[0]["prev"]:
        chain.insert(0, nusc.get("sample_data", chain[0]["prev"]))
    while chain[-1]["next"]:
        chain.append(nusc.get("sample_data", chain[-1]["next"]))
    assert len(chain) == 10 + 1 + 2 * 10
    assert [r["timestamp"] for r in chain] == [time for time, _, _ in sweep_times(scenes[0].timestamps_us)]
    assert [r["is_key_frame"] for r in chain].count(True) == 3


def test_our_reader_accumulates_ten_sweeps_that_line_up(root, scenes):
    frame = NuScenes(root, VERSION).drives()[0][2]
    sweeps = frame.previous_sweeps(9)
    assert len(sweeps) == 9
    cloud = accumulate_sweeps(frame, 10)
    assert len(cloud.points) > 10 * 22_000
    # every sweep of the road nearby lies on the ground that the world has there
    seconds = (frame.timestamp_us - int(scenes[0].timestamps_us[0])) / 1e6
    to_street = scenes[0].street_to_global_at(seconds).inverse() @ frame.lidar_to_global
    points = to_street.apply(cloud.points[:, :3].astype(np.float64))
    above = points[:, 2] - scenes[0].world.terrain.height(points[:, 0], points[:, 1])
    is_road = (np.hypot(cloud.points[:, 0], cloud.points[:, 1]) < 12) & (np.abs(above) < 0.4)
    for age in np.unique(cloud.points[:, 4]):
        rows = is_road & (cloud.points[:, 4] == age)
        assert rows.sum() > 2000
        # poses have no height, as those of nuScenes: on a hill of 6 % earlier sweeps lie higher or lower by that of the way since
        off = np.median(above[rows])
        assert abs(off) < 0.02 + 0.06 * 12.0 * age
        assert (np.abs(above[rows] - off) < 0.05).mean() > 0.9, age


def test_writing_twice_gives_the_same_bytes_with_any_number_of_processes(root, scenes, tmp_path):
    again = simulate_scenes(1, seed=3, num_frames=3)
    write_nuscenes(tmp_path, again, version=VERSION, splits={"val": [scene.name for scene in again]}, lidar=True, workers=2)
    names = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((root / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("rig", "num_pieces"), [(NUSCENES_RIG, 2), (KITTI_RIG, 2), (NUSCENES_RIG, 5)], ids=["nuscenes", "kitti", "in five"]
)
def test_things_are_where_the_beams_pass_them(scenes, monkeypatch, rig, num_pieces):
    (scene,) = scenes
    world, seconds, asked = scene.world, 0.5, []
    placed = World.matter_placed
    monkeypatch.setattr(World, "matter_placed", lambda self, places, moment: asked.append(places) or placed(self, places, moment))
    scan_at(scene, int(scene.timestamps_us[0]) + 500_000, rig, num_pieces=num_pieces)
    assert len(asked) == num_pieces
    begin, end = turn_of(rig.model, seconds)
    (pose,) = world.ego_to_street(np.array([(begin + end) / 2]))
    middle, _, _ = world.places((begin + end) / 2)
    seen = (pose @ rig.lidar_to_ego).inverse().apply(middle)[:, :2]
    # the column whose beams point there, and when it fires
    level = beams(rig.model)[0][:, rig.model.num_beams // 2, :2]
    column = (seen / np.linalg.norm(seen, axis=1, keepdims=True) @ (level / np.linalg.norm(level, axis=1, keepdims=True)).T).argmax(axis=1)
    fires = begin + (column + 1) / rig.model.columns * (end - begin)
    is_fast = np.linalg.norm(world.places(end)[0] - world.places(begin)[0], axis=1) > 0.2
    near = np.flatnonzero(is_fast & (np.linalg.norm(seen, axis=1) > 8))
    assert len(near) >= 5
    for i in near.tolist():
        piece = min(int(column[i] / rig.model.columns * num_pieces), num_pieces - 1)
        np.testing.assert_allclose(asked[piece][0][i], world.places(float(fires[i]))[0][i], atol=0.03)
