"""Pictures and films of a run: their files, what is on them, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from perception import pictures
from perception.core import UsageError
from perception.drives import open_dataset
from perception.export import SCHEMA_VERSION, drive_file, drive_writer, open_run
from perception.pictures import draw_frame, draw_run
from perception.pipeline import track_submission
from perception.tracking import build_tracker, load_tracker_config
from perception.visual import class_color
from perception.visual.canvas import HEADER_PX
from tests.drives.kitti_maker import write_kitti_tracking
from tests.evaluation.makers import SPLIT, write_street
from tests.makers import write_nuscenes


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    return write_street(tmp_path_factory.mktemp("street"), num_frames=4)


@pytest.fixture(scope="module")
def run(street, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    track_submission(street.detections, street.dataset, out, config=load_tracker_config(), split=SPLIT)
    return open_run(out)


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the painters: a list of (title, keywords) a picture."""
    calls = []

    def watched(painter):
        def watch(*args, **keywords):
            calls.append((keywords["title"], {**keywords, "args": args}))
            return painter(*args, **keywords)

        return watch

    for name in ("draw_birdseye", "draw_drive"):
        monkeypatch.setattr(pictures, name, watched(getattr(pictures, name)))
    return calls


def test_each_drive_gets_its_pictures_and_films(run, tmp_path):
    paths = draw_run(run, tmp_path, film="gif")
    names = [f"{drive}{end}" for drive in ("sim-0001", "sim-0002") for end in ("_frame002.png", ".png", ".gif")]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for path in paths:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5  # not empty
            assert getattr(picture, "n_frames", 1) == (4 if path.suffix == ".gif" else 1)


def test_a_picture_shows_the_tracks_of_its_frame_above_the_score(run, tmp_path, drawn):
    draw_run(run, tmp_path, drive="sim-0002", frame=1, min_score=0.4)
    title, keywords = drawn[0]
    frame = run.drive("sim-0002")[1]
    assert title == "sim-0002, frame 1, 0.5 s"
    assert keywords["tracks"].track_id.tolist() == frame.tracks.track_id[frame.tracks.score >= 0.4].tolist()
    assert 0 < len(keywords["tracks"]) < len(frame.tracks)
    assert keywords["truth"] is None
    np.testing.assert_array_equal(keywords["ego_to_global"].matrix, frame.ego_to_global.matrix)


def test_truth_is_drawn_where_the_data_set_is_given_without_what_the_lidar_did_not_hit(run, street, tmp_path, drawn):
    truths = [street.dataset.frame(token).truth for token in street.dataset.drive("sim-0001").tokens]
    number = next(i for i, truth in enumerate(truths) if (truth.num_points == 0).any())
    truth = truths[number]
    draw_run(run, tmp_path, dataset=street.dataset, drive="sim-0001", frame=number)
    shown = drawn[0][1]["truth"]
    assert set(shown.instance) == set(truth.instance[truth.num_points > 0])
    assert 0 < len(shown) < len(truth)
    assert len(drawn[1][1]["truth"]) >= len(shown)  # paths of the whole drive


@pytest.mark.parametrize("min_score", [0.0, 0.4])
def test_the_picture_of_a_drive_has_a_path_a_track_seen_twice(run, tmp_path, drawn, min_score):
    draw_run(run, tmp_path, drive="sim-0001", min_score=min_score)
    title, keywords = drawn[1]
    table = run.drive("sim-0001").tracks.to_pylist()
    seen = [row["track_id"] for row in table if not row["coasted"] and row["score"] >= min_score]
    paths = keywords["args"][1]
    assert set(paths) == {number for number in seen if seen.count(number) > 1}
    assert title == f"sim-0001: {len(paths)} tracks in 4 frames"
    assert all(len(places) == seen.count(number) for number, (_name, places) in paths.items())


def test_a_larger_radius_shows_more(run, tmp_path):
    for radius in (20.0, 80.0):
        draw_run(run, tmp_path / str(radius), drive="sim-0001", radius=radius)
    near, far = ((tmp_path / r / "sim-0001_frame002.png").read_bytes() for r in ("20.0", "80.0"))
    assert near != far


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drive": "sim-0009"}, "no drive 'sim-0009', it has 2; did you mean"),
        ({"frame": 4}, "drive sim-0001: expected a frame in 0..3, got 4"),
        ({"frame": -1}, "drive sim-0001: expected a frame in 0..3, got -1"),
        ({"radius": 0.0}, "radius 0.0: expected metres > 0"),
        ({"radius": float("nan")}, "radius nan: expected metres > 0"),
        ({"radius": float("inf")}, "radius inf: expected metres > 0"),
        ({"min_score": float("nan")}, "min_score nan: expected a number"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(run, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        draw_run(run, tmp_path / "pictures", **options)
    assert not (tmp_path / "pictures").exists()


def test_drawing_is_told_drive_by_drive(run, tmp_path):
    told = []
    draw_run(run, tmp_path, advance=lambda *args: told.append(args))
    assert told == [("sim-0001", 1, 2), ("sim-0002", 2, 2)]


def run_of(drive, folder):
    """A run of the greedy tracker on the truth of a drive."""
    tracker = build_tracker()
    with (
        drive_writer(folder / "tracks" / drive_file(drive.name), "tracks", drive.name, "0") as track_file,
        drive_writer(folder / "frames" / drive_file(drive.name), "frames", drive.name, "0") as frame_file,
    ):
        for number, frame in enumerate(drive):
            tracks = tracker.update(frame.truth, frame.timestamp_us)
            track_file.add_objects(number, frame.timestamp_us, tracks, frame.ego_to_global)
            frame_file.add_frame(number, frame.timestamp_us, frame.token, frame.ego_to_global)
    (folder / "run.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "drives": [drive.name]}))
    return open_run(folder)


def test_truth_of_other_data_sets_is_drawn_too(tmp_path, drawn):
    dataset = open_dataset(write_kitti_tracking(tmp_path / "data"), cameras=False)
    run = run_of(dataset.drive("training-0001"), tmp_path / "run")
    paths = draw_run(run, tmp_path / "pictures", dataset=dataset, frame=1)
    assert [path.name for path in paths] == ["training-0001_frame001.png", "training-0001.png"]
    shown = drawn[0][1]
    assert shown["truth"].instance.tolist() == ["training-0001-3", "training-0001-7"]  # counts of points are unknown: all are drawn
    np.testing.assert_allclose(shown["truth"].boxes.center[:, :2], shown["tracks"].boxes.center[:, :2], atol=0.1)


@pytest.fixture
def recording(tmp_path):
    """Drives with one camera, in which a car stands ahead."""
    return write_nuscenes(tmp_path / "data")


def test_tracks_are_drawn_into_the_pictures_of_the_cameras(recording, tmp_path, drawn):
    dataset = open_dataset(recording)
    run = run_of(dataset.drive("scene-0103"), tmp_path / "run")
    paths = draw_run(run, tmp_path / "pictures", dataset=dataset, frame=1, cameras=True)
    assert [path.name for path in paths] == ["scene-0103_frame001.png", "scene-0103.png", "scene-0103_frame001_cameras.png"]
    assert drawn[-1][1]["tracks"].track_id.tolist() == run.drive("scene-0103")[1].tracks.track_id.tolist()
    none = draw_run(run, tmp_path / "none", dataset=dataset, frame=1, cameras=True, min_score=2.0)
    with Image.open(paths[2]) as picture, Image.open(none[2]) as empty:
        # right of the map the camera shows the car in its colour
        seen, plain = (np.asarray(image.convert("RGB"))[:, 640:].astype(int) for image in (picture, empty))
    blue = [(np.abs(image - class_color("car")).sum(axis=2) < 90).sum() for image in (seen, plain)]
    assert blue[0] > 50
    assert blue[1] == 0


def test_cameras_of_a_data_set_without_pictures_are_refused(run, street, tmp_path):
    with pytest.raises(UsageError, match="drive sim-0001, frame 2: expected pictures of cameras in the data set, found none"):
        draw_run(run, tmp_path, dataset=street.dataset, cameras=True)


def test_a_frame_is_drawn_from_above_and_through_its_cameras(recording, drawn):
    frame = open_dataset(recording).drive("scene-0103")[1]
    picture = draw_frame(frame, height_px=400, title="here")
    # the map with its header is 400 pixels high, the camera beside it 160 : 90
    assert picture.size == (400 - HEADER_PX + round(400 * 160 / 90), 400)
    (title, shown) = drawn[0]
    assert title == "here"
    assert shown["detections"].names.tolist() == ["car", "pedestrian"]  # the truth
    assert len(shown["points"]) == 3  # of five points two are the vehicle's own
    alone = draw_frame(replace(frame, cameras={}), height_px=400)
    assert alone.size == (400 - HEADER_PX, 400)
    few = draw_frame(frame, objects=frame.truth[:1])
    assert drawn[-1][1]["detections"].names.tolist() == ["car"]
    assert few.height == 640


@pytest.mark.parametrize("names", [("CAM_FRONT", "CAM_BACK"), ("CAM_FRONT", "CAM_BACK_LEFT", "CAM_BACK"), ("a", "b", "c", "d")])
def test_cameras_take_the_height_of_the_sheet_however_many_rows_they_have(recording, drawn, names):
    frame = open_dataset(recording).drive("scene-0103")[1]
    (camera,) = frame.cameras.values()
    picture = draw_frame(replace(frame, cameras={name: replace(camera, name=name) for name in names}), height_px=640)
    assert picture.height == pytest.approx(640, abs=3)


def test_what_the_lidar_did_not_hit_is_not_drawn(recording, drawn):
    frame = open_dataset(recording).drive("scene-0103")[1]
    truth = replace(frame.truth, num_points=np.array([0, 3]))
    draw_frame(replace(frame, truth=truth))
    assert drawn[0][1]["detections"].names.tolist() == ["pedestrian"]
    draw_frame(replace(frame, truth=None))
    assert drawn[1][1]["detections"] is None
