"""The street as a whole obeys physics: checked with shapely (overlap), finite differences (speed, yaw) and counting."""

import numpy as np
import pytest
import shapely

from perception.core import NUSCENES_DETECTION, Boxes3D, UsageError, concatenate
from perception.drives.simulated import simulate_scene, simulate_scenes
from perception.drives.simulated.visibility import is_in_sight

VEHICLES = ("car", "truck", "bus", "trailer", "motorcycle", "bicycle", "construction_vehicle")


@pytest.fixture(scope="module")
def scenes():
    return simulate_scenes(8, seed=5)


def everything(scene, frame):
    """Boxes of all objects, present or not, and of the ego vehicle; their classes."""
    things = scene.objects
    pose = scene.ego_to_global[frame]
    ego = Boxes3D(pose.apply(np.array([[1.35, 0.0, 0.9]])), np.array([[4.6, 1.9, 1.8]]), np.array([pose.yaw]), np.zeros((1, 2)))
    columns = [np.array([getattr(t, name)[frame] for t in things]) for name in ("center", "yaw", "velocity")]
    boxes = Boxes3D(columns[0], np.array([t.size for t in things]), columns[1], columns[2])
    return concatenate([boxes, ego]), [*(t.class_name for t in things), "car"]


@pytest.fixture(scope="module")
def balanced():
    """Streets with many of the rare classes."""
    return [simulate_scene("balanced", np.random.default_rng([5, i]), num_frames=6, balanced=True) for i in range(12)]


def test_no_two_boxes_overlap_but_those_of_people(scenes, balanced):
    for scene in scenes + balanced:
        for frame in range(len(scene)):
            boxes, names = everything(scene, frame)
            outlines = np.asarray(shapely.polygons(boxes.corners[:, :4, :2]))
            first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
            hits = [(names[i], names[j]) for i, j in zip(first, second, strict=True) if i < j]
            assert [pair for pair in hits if pair != ("pedestrian", "pedestrian")] == []


def test_balanced_streets_have_more_of_the_rare_classes(balanced):
    usual = [simulate_scene("usual", np.random.default_rng([5, i]), num_frames=6) for i in range(12)]

    def counts(scenes):
        names = [thing.class_name for scene in scenes for thing in scene.objects]
        return {name: names.count(name) / len(scenes) for name in NUSCENES_DETECTION.names}

    before, after = counts(usual), counts(balanced)
    rare = set(before) - {"car", "pedestrian"}
    assert after["car"] < before["car"]
    assert sum(after[name] for name in rare) > 2 * sum(before[name] for name in rare)
    # several in ten clips of each
    assert min(after.values()) > 0.5, after


def test_velocity_is_the_derivative_of_the_position(scenes):
    errors = []
    for scene in scenes:
        seconds = scene.timestamps_us / 1e6
        for thing in scene.objects:
            slope = (thing.center[2:, :2] - thing.center[:-2, :2]) / (seconds[2:] - seconds[:-2])[:, None]
            errors += np.hypot(*(slope - thing.velocity[1:-1]).T).tolist()
    # a change of acceleration by 6 m/s2 in the middle of the second bends the slope by 6 * 0.5 / 4 = 0.75 m/s
    assert max(errors) < 0.8
    assert np.percentile(errors, 99) < 0.12


def test_vehicles_move_where_they_point(scenes):
    for scene in scenes:
        for thing in scene.objects:
            step = np.diff(thing.center[:, :2], axis=0)
            is_driving = (np.hypot(*step.T) > 0.3) & (np.abs(np.diff(thing.yaw)) < 0.3)
            middle = (thing.yaw[1:] + thing.yaw[:-1]) / 2
            off = np.arctan2(step[:, 1], step[:, 0]) - middle
            off = np.abs((off + np.pi) % (2 * np.pi) - np.pi)[is_driving]
            assert off.max(initial=0) < 0.16, thing.class_name  # half a frame into an arc: 2.5 m / 20 m


def test_nobody_brakes_or_turns_harder_than_a_vehicle_can(scenes):
    for scene in scenes:
        seconds = np.diff(scene.timestamps_us / 1e6)
        for thing in scene.objects:
            speed = np.hypot(*thing.velocity.T)
            assert np.abs(np.diff(speed) / seconds).max() < 6.1
            if thing.class_name in VEHICLES:
                assert (np.abs(np.diff(thing.yaw) / seconds) * speed[1:]).max() < 3.0  # m/s2 sideways


def test_all_ten_classes_occur(scenes):
    for scene in scenes:
        # the others are left to chance, or may lie beyond the radius
        assert {"car", "pedestrian"} <= {thing.class_name for thing in scene.objects}
    assert {thing.class_name for scene in scenes for thing in scene.objects} == set(NUSCENES_DETECTION)


def test_there_are_as_many_objects_as_on_a_real_street(scenes):
    counts = [len(scene.truth(frame)) for scene in scenes for frame in range(len(scene))]
    assert 40 < np.mean(counts) < 85  # 56 in the real mini_val tables, to 60 m and beyond
    by_scene = np.mean(np.reshape(counts, (len(scenes), -1)), axis=1)
    assert by_scene.max() > 2 * by_scene.min()  # full streets and empty ones


def test_objects_are_annotated_from_when_they_are_seen_until_they_are_out_of_sight(scenes):
    for scene in scenes:
        ego = np.array([pose.translation for pose in scene.ego_to_global])
        for thing in scene.objects:
            distance = np.hypot(*(thing.center - ego)[:, :2].T)
            frames = np.flatnonzero(thing.present)
            # what fills 5e-4 steradians and a tenth of which is free gives about a return
            front = np.sqrt(thing.size[0] * thing.size[1]) * thing.size[2] * thing.visibility / np.maximum(distance, 1.0) ** 2
            # distances are from the recorded pose, which is centimetres off: what is near a limit may be seen or not
            is_seen, may_be = ((distance <= 60 + d) & (front > 5e-4 - 5e-5 * d) & (thing.visibility > 0.1) for d in (-0.2, 0.2))
            assert not is_seen[~thing.present].any()
            assert may_be[frames[[0, -1]]].all()
            assert (np.diff(frames) == 1).all()  # one stretch each


def test_nobody_sees_through_houses(scenes):
    hidden = 0
    for scene in scenes:
        poses = scene.world.ego_to_street((scene.timestamps_us - scene.timestamps_us[0]) / 1e6)
        for frame in range(0, len(scene), 4):
            there = scene.street_to_global_at((scene.timestamps_us[frame] - scene.timestamps_us[0]) / 1e6).inverse()
            things = [thing for thing in scene.objects if thing.present[frame]]
            if not things:
                continue
            places = there.apply(np.array([thing.center[frame] for thing in things]))[:, :2]
            eyes = np.tile(poses[frame].translation[:2], (len(things), 1))
            is_seen = is_in_sight(scene.world.terrain.plan, places, eyes)
            hidden += (~is_seen).sum()
            assert all(thing.visibility[frame] == 0 for thing, seen in zip(things, is_seen, strict=True) if not seen)
    assert hidden > 0


def test_tracks_begin_and_end_within_a_scene(scenes):
    for scene in scenes:
        assert any(not thing.present[0] for thing in scene.objects)
        assert any(not thing.present[-1] for thing in scene.objects)


def test_some_wait_some_move_and_attributes_say_so(scenes):
    seen = {}
    for scene in scenes:
        for thing in scene.objects:
            for speed, attribute in zip(np.hypot(*thing.velocity.T), thing.attribute, strict=True):
                seen.setdefault(str(attribute), []).append(speed)
    assert min(seen["vehicle.moving"] + seen["pedestrian.moving"]) > 0.2
    assert max(seen["vehicle.stopped"] + seen["pedestrian.standing"]) <= 0.2
    assert max(seen["vehicle.parked"] + seen["cycle.without_rider"]) == 0
    assert max(seen["cycle.with_rider"]) > 3
    assert max(seen["vehicle.moving"]) > 7


def test_boxes_stand_on_the_ground(scenes):
    for scene in scenes:
        seconds = (scene.timestamps_us - scene.timestamps_us[0]) / 1e6
        to_street = [scene.street_to_global_at(t).inverse() for t in seconds.tolist()]
        for thing in scene.objects:
            middle = np.array([back.apply(place) for back, place in zip(to_street, thing.center, strict=True)])
            ground = scene.world.terrain.height(middle[:, 0], middle[:, 1])
            np.testing.assert_allclose(middle[:, 2] - thing.size[2] / 2, ground, atol=1e-6)


def test_the_ego_vehicle_drives_and_sometimes_turns(scenes):
    path = [np.array([pose.translation for pose in scene.ego_to_global]) for scene in scenes]
    driven = [np.hypot(*np.diff(p, axis=0)[:, :2].T).sum() for p in path]
    assert min(driven) > 10  # in 20 s, red lights and queues included
    assert np.median(driven) > 60
    turns = [np.ptp(np.unwrap([pose.yaw for pose in scene.ego_to_global])) for scene in scenes]
    assert any(turn > 1.2 for turn in turns)  # at the crossing, perhaps into a bend
    assert any(turn < 0.1 for turn in turns)


def test_key_frames_come_every_half_second_give_or_take(scenes):
    step = np.diff(scenes[0].timestamps_us)
    assert np.abs(step - 500_000).max() <= 6_000
    assert step.std() > 500


def test_the_same_seed_gives_the_same_scene_whatever_their_number():
    one, many = simulate_scenes(1, seed=3, num_frames=4)[0], simulate_scenes(2, seed=3, num_frames=4)[0]
    assert one.timestamps_us.tolist() == many.timestamps_us.tolist()
    assert [t.token for t in one.objects] == [t.token for t in many.objects]
    np.testing.assert_array_equal([t.center for t in one.objects], [t.center for t in many.objects])
    other = simulate_scenes(1, seed=4, num_frames=4)[0]
    assert one.ego_to_global[0].translation.tolist() != other.ego_to_global[0].translation.tolist()


def test_density_fills_the_street():
    few, many = (sum(len(s.objects) for s in simulate_scenes(6, seed=1, num_frames=12, density=d)) for d in (0.4, 2.5))
    assert many > 1.5 * few


def test_truth_holds_what_is_present_in_the_global_frame(scenes):
    truth = scenes[0].truth(7)
    here = [thing for thing in scenes[0].objects if thing.present[7]]
    assert truth.instance is not None
    assert truth.instance.tolist() == [thing.token for thing in here]
    np.testing.assert_array_equal(truth.boxes.center, [thing.center[7] for thing in here])


def test_impossible_numbers_are_refused():
    with pytest.raises(UsageError, match=r"expected num_frames >= 1, .* got 0, 1.0 and 60.0"):
        simulate_scene("s", np.random.default_rng(0), num_frames=0)
