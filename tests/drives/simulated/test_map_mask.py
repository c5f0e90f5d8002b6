"""The map's pixels against the plan, read by the official devkit."""

import numpy as np
import pytest

from perception.drives.simulated import simulate_scenes, write_nuscenes
from perception.drives.simulated.roads import REACH, CrossSection

VERSION = "v1.0-mapped"


@pytest.fixture(scope="module")
def scenes():
    return simulate_scenes(3, seed=2, num_frames=2)


@pytest.fixture(scope="module")
def nusc(tmp_path_factory, scenes):
    root = tmp_path_factory.mktemp("mapped")
    write_nuscenes(root, scenes, version=VERSION, splits={})
    return pytest.importorskip("nuscenes").NuScenes(VERSION, str(root), verbose=False)


def test_every_log_has_the_map_of_its_own_street(nusc):
    assert [record["log_tokens"] for record in nusc.map] == [[log["token"]] for log in nusc.log]
    assert len({record["filename"] for record in nusc.map}) == 3


def test_the_devkit_finds_roads_and_lots_drivable_and_nothing_else(nusc, scenes):
    rng = np.random.default_rng(0)
    for scene, record in zip(scenes, nusc.map, strict=True):
        plan, x, y = scene.world.terrain.plan, *rng.uniform(-140, 140, (2, 20_000))
        x[:8000], y[:8000] = rng.uniform(-25, 25, (2, 8000))  # where the corners are round
        x, y = (part[np.hypot(x, y) < 0.75 * REACH] for part in (x, y))  # a road that bends away ends there
        places = scene.street_to_global.apply(np.column_stack([x, y, 0 * x]))
        is_drivable = record["mask"].is_on_mask(places[:, 0], places[:, 1])
        from_kerb, on_lot, near_lot = CrossSection.of(plan, x, y).from_kerb, np.zeros(len(x), bool), np.zeros(len(x), bool)
        for lot in plan.lots:
            along, across = plan.locate(lot.arm, x, y)
            deep = lot.sign * across - plan.section(lot.arm, lot.sign).sidewalk_end
            edge = np.minimum(np.minimum(along - lot.begin, lot.end - along), np.minimum(deep, lot.depth - deep))
            on_lot, near_lot = on_lot | (edge > 0.2), near_lot | (edge > -0.2)
        assert is_drivable[(from_kerb < -0.2) | on_lot].all()  # but for a pixel at the edge, and the chords of bends
        assert not is_drivable[(from_kerb > 0.2) & ~near_lot].any()
        assert 0.05 < is_drivable.mean() < 0.6


def test_the_ego_vehicle_is_on_the_map(nusc, scenes):
    for scene, record in zip(scenes, nusc.map, strict=True):
        x, y = np.array([pose.translation[:2] for pose in scene.ego_to_global]).T
        assert record["mask"].is_on_mask(x, y).all()
