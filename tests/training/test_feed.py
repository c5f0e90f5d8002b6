"""From settings to batches: every kind of source, and what does not fit."""

from contextlib import closing

import numpy as np
import pytest

from perception.core import UsageError
from perception.core.config import parse_config
from perception.drives.simulated.clips import CLIPS_A_SCENE, read_clip, write_clips
from perception.drives.simulated.rigs import RIGS
from perception.training.data_settings import ClipsSettings, DataSettings, DrivesSettings, SimulationSettings
from perception.training.epoch_feed import EpochFeed
from perception.training.feed import open_feed
from perception.training.packed import pack
from perception.training.pool_feed import ArrivalFeed, PoolFeed
from perception.training.simulation import SimulatedStreets
from tests.detection.small import small_config
from tests.makers import write_nuscenes

DETECTOR = small_config().detector.model_copy(update={"frame": "ego"})
SIMULATION = {"name": "simulation", "lidars": {"vlp16": 1.0}, "warm_up": 4, "pool_size": 8, "fresh_per_step": 1}


def settings_of(source, **values) -> DataSettings:
    return parse_config({"source": source, **values}, DataSettings, where="data.yaml")


def opened(settings, *, detector=DETECTOR, batch_size=2, **options):
    return closing(open_feed(settings, detector, device="cpu", batch_size=batch_size, seed=3, **options))


@pytest.fixture(scope="module")
def street():
    """The clips of a street of 16 beams."""
    return SimulatedStreets(seed=3, lidars=(("vlp16", 1.0),), varied=True, density=1.0)(0)


def test_drives(tmp_path):
    settings = settings_of({"name": "drives", "folders": [{"root": write_nuscenes(tmp_path)}]}, workers=1)
    with opened(settings) as feed:
        assert isinstance(feed, EpochFeed)
        assert feed.steps_per_epoch == 3
        assert sorted(sample.token for step in range(3) for sample in feed.batch(step)) == [
            f"scene-{scene}-{frame}" for scene in ("0103", "0916") for frame in range(3)
        ]
    balanced = settings.model_copy(update={"source": settings.source.model_copy(update={"class_balanced": True})})
    with opened(balanced) as feed:
        assert feed.steps_per_epoch == 5  # 6 frames have a car, 4 a pedestrian: 10 / 2 of each list, in batches of two


def test_the_streets_are_those_of_clips_in_files(street, tmp_path):
    paths = write_clips(tmp_path, CLIPS_A_SCENE, seed=3, rig=RIGS["vlp16"], varies=True)
    assert len(street) == CLIPS_A_SCENE
    for clip, path in zip(street, paths, strict=True):
        written = read_clip(path)
        again = pack("again", written.cloud.points, written.lidar_to_ego, written.truth)
        np.testing.assert_array_equal(clip.data, again.data)
        np.testing.assert_allclose(clip.lidar_to_ego.matrix, written.lidar_to_ego.matrix, atol=1e-12)
        np.testing.assert_allclose(clip.truth.boxes.center, written.truth.boxes.center, atol=1e-4)
        assert clip.truth.num_points.tolist() == written.truth.num_points.tolist()
    with opened(settings_of({"name": "clips", "folder": tmp_path}, workers=0), batch_size=CLIPS_A_SCENE) as feed:
        assert feed.steps_per_epoch == 1
        assert {sample.token for sample in feed.batch(0)} == {str(path) for path in paths}


def test_a_simulation(street):
    with opened(settings_of(SIMULATION | {"warm_up": 2}, workers=1)) as feed:
        assert isinstance(feed, PoolFeed)
        samples = feed.batch(2)  # clips 0 to 3, the last one new
    assert len(samples) == 2
    found = {clip.token: clip for clip in street}
    newest = [sample for sample in samples if sample.token.startswith("clip-000003 ")]
    assert len(newest) == 1
    clip = found[newest[0].token]
    assert 0 < len(newest[0].points) < len(clip.data) // 9  # only what can come into the grid
    assert float(newest[0].points[:, :2].norm(dim=1).max()) < 1.1 * 12.8 * 2**0.5 + 0.01
    assert float(newest[0].points[:, 4].max()) == pytest.approx(0.4)  # five sweeps at 10 Hz


def test_lidars_are_drawn_by_their_share():
    streets = SimulatedStreets(0, (("vlp16", 3.0), ("hdl64e_kitti", 1.0)), varied=True, density=1.0)
    names = [streets.lidar(number) for number in range(400)]
    assert names == [streets.lidar(number) for number in range(400)]
    assert 260 < names.count("vlp16") < 340  # 300, with a standard deviation of 9


def test_auto_takes_what_arrives():
    with opened(settings_of(SIMULATION | {"fresh_per_step": "auto"}, workers=1)) as feed:
        assert isinstance(feed, ArrivalFeed)


def test_settings_for_a_folder(tmp_path):
    plain = settings_of(SIMULATION, workers=5)
    drives = plain.reading(tmp_path, version="v1.0-mini", splits=("mini_train",))
    assert drives.workers == 5
    assert isinstance(drives.source, DrivesSettings)
    assert drives.source.folders[0].model_dump() == {
        "root": tmp_path, "version": "v1.0-mini", "splits": ("mini_train",), "on_missing": "error", "sweeps": None
    }  # fmt: skip
    more = {"class_balanced": True, "instances": None}
    rich = settings_of({"name": "drives", "folders": [{"root": "a", "sweeps": 5, "on_missing": "skip"}], **more}).reading(
        "b", splits=("x",)
    )
    assert rich.source == DrivesSettings.model_validate(
        {"name": "drives", "folders": [{"root": "b", "sweeps": 5, "on_missing": "skip", "splits": ["x"]}], **more}
    )
    (tmp_path / "clip-000000.npz").touch()
    assert rich.reading(tmp_path).source.class_balanced
    assert plain.reading(str(tmp_path)).source == ClipsSettings(name="clips", folder=tmp_path, class_balanced=False)
    with pytest.raises(UsageError, match=r"splits \('val',\): a folder of clips has none"):
        plain.reading(tmp_path, splits=("val",))


@pytest.mark.parametrize(
    ("source", "values", "message"),
    [
        pytest.param({"name": "movies"}, {}, "data.yaml: source: .*'movies'", id="unknown source"),
        pytest.param({"name": "drives", "folders": []}, {}, "data.yaml: source.folders: .*at least 1", id="no folders"),
        pytest.param(
            SIMULATION | {"lidars": {"vlp61": 1}}, {}, "source.lidars: unknown lidar 'vlp61'.*did you mean 'vlp16'", id="unknown lidar"
        ),
        pytest.param(SIMULATION | {"lidars": {"vlp16": 0}}, {}, "source.lidars.vlp16: .*greater than 0, got 0", id="no share"),
        pytest.param(SIMULATION | {"warm_up": 9}, {}, "source: warm_up: expected at most pool_size, 8, got 9", id="pool too small"),
        pytest.param(SIMULATION | {"pool": 9}, {}, "source.pool: unknown key.*did you mean 'pool_size'", id="unknown key"),
        pytest.param(
            SIMULATION | {"fresh_per_step": "auto"},
            {"workers": 0},
            "workers: expected 1 or more with fresh_per_step auto",
            id="nobody simulates",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(source, values, message):
    with pytest.raises(UsageError, match=message):
        settings_of(source, **values)


def test_defaults_are_settings():
    assert isinstance(settings_of({"name": "simulation"}).source, SimulationSettings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"batch_size": 3, "world_size": 2}, "expected a multiple of the number of processes, 2, got 3", id="batch"),
        pytest.param({"rank": 2, "world_size": 2}, "rank: expected 0 to 1, .* got 2", id="rank"),
        pytest.param({"detector": DETECTOR.model_copy(update={"points": "waymo"})}, "samples have no other columns", id="columns"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        opened(settings_of(SIMULATION, workers=0), **options)


@pytest.mark.parametrize(("smallest", "reach"), [(1.0, 1.0), (0.8, 1.25), (1.2, 1.0)])
def test_streets_reach_as_far_as_a_shrunken_world_needs(monkeypatch, smallest, reach):
    seen = []
    monkeypatch.setattr("perception.training.feed.SimulatedStreets", lambda *values: seen.append(values) or (lambda _: []))
    with opened(settings_of(SIMULATION, workers=0), smallest_scale=smallest):
        pass
    corner = np.hypot(*np.maximum(np.abs(DETECTOR.grid.lower[:2]), np.abs(DETECTOR.grid.upper[:2])))
    assert seen[0][4] == pytest.approx(reach * corner)
