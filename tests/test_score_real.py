"""`tools/score_real.py`: which objects its figures are about, where the truth of a KITTI drive is complete, and the whole tool once."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from perception.core import NUSCENES_DETECTION, Boxes3D, Detections, Frame, LabelledView, PointCloud, Transform, UsageError
from perception.drives import NuScenes, open_drives
from tests.drives.kitti_maker import write_kitti_tracking
from tests.makers import write_nuscenes
from tests.test_tools import tool

MODULE = tool("score_real")
# 100 px a unit of slope, the middle at (80, 45); it looks along x of the ego frame from 1.5 m above the ground.
VIEW = LabelledView(
    "image_02",
    (160, 90),
    np.array([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]]),
    Transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.0, 0, 1.5])),
)
EGO_TO_GLOBAL = Transform.from_yaw(0.7, (100.0, -50.0, 0.3))
LIDAR_TO_EGO = Transform.from_yaw(0.0, (0.0, 0.0, 1.8))
SIZES = {"car": (4.0, 2.0, 1.5), "truck": (4.0, 2.0, 1.5), "pedestrian": (0.6, 0.6, 1.8), "bicycle": (1.8, 0.6, 1.6)}


def things(*rows):
    """Objects on the ground of the ego frame: rows of class, x, y, and score and yaw where they are given."""
    full = [(*row, *(1.0, 0.0)[len(row) - 3 :]) for row in rows]
    size = np.array([SIZES[row[0]] for row in full]).reshape(-1, 3)
    center = np.array([(row[1], row[2], size[i, 2] / 2) for i, row in enumerate(full)]).reshape(-1, 3)
    label = np.array([NUSCENES_DETECTION.index(row[0]) for row in full], np.int64)
    boxes = Boxes3D(center, size, np.array([row[4] for row in full], np.float64), np.zeros((len(full), 2)))
    return Detections(boxes, label, np.array([row[3] for row in full], np.float64), NUSCENES_DETECTION)


def frame_of(truth, returns, *, view=None, name="frame"):
    """A frame with so many returns in the middle of each true object."""
    center = np.repeat(truth.boxes.center, returns, axis=0)
    points = np.zeros((len(center), 5), np.float32)
    points[:, :3] = LIDAR_TO_EGO.inverse().apply(center)
    return Frame(name, 0, LIDAR_TO_EGO, EGO_TO_GLOBAL, {}, truth.transformed(EGO_TO_GLOBAL), lambda: PointCloud(points), labelled_view=view)


def figures(report):
    return {figure.name: figure for figure in report.figures}


def test_returns_are_counted_in_the_true_boxes_and_what_the_camera_does_not_see_is_not_judged():
    truth = things(("car", 10, 0), ("car", 20, 0))
    found = things(("car", 10, 0), ("car", -10, 0), ("car", 10, 30))  # ahead, behind, to the side
    seen = MODULE.look(frame_of(truth, [7, 3], view=VIEW), lambda _frame: found)
    assert seen.truth.num_points.tolist() == [7, 3]
    np.testing.assert_allclose(seen.truth.boxes.center, truth.boxes.center, atol=1e-9)
    assert seen.is_complete.tolist() == [True, False, False]
    assert MODULE.look(frame_of(truth, [7, 3]), lambda _frame: found).is_complete.all()  # a view all around
    with pytest.raises(UsageError, match="expected a frame with annotated objects"):
        MODULE.look(Frame("a", 0, LIDAR_TO_EGO, EGO_TO_GLOBAL, {}, None, lambda: PointCloud(np.zeros((0, 5), np.float32))), lambda _: found)


def test_where_a_box_is_in_the_picture():
    # The near face of a pedestrian at 10 m is 9.7 m away, 0.6 m wide and 1.8 m high: +-3.09 px, from 15.5 px below the middle to 3.1 above.
    rectangle = MODULE.pictured(things(("pedestrian", 10, 0)), VIEW)
    np.testing.assert_allclose(rectangle, [[80 - 30 / 9.7, 45 - 30 / 9.7, 80 + 30 / 9.7, 45 + 150 / 9.7]], atol=1e-9)
    around = MODULE.pictured(things(("car", 1, 0), ("car", -10, 0)), VIEW)
    assert around[0] == pytest.approx([80 - 100 / 3, 45, 80 + 100 / 3, 90])  # reaches behind the camera: the far face, cut to the image
    assert MODULE.pictured(things(), VIEW).shape == (0, 4)


@pytest.mark.parametrize(
    ("region", "is_in"),
    [
        pytest.param([0, 0, 160, 90], True, id="all of the image"),
        pytest.param([0, 0, 80.1, 90], True, id="a little more than half of it"),
        pytest.param([0, 0, 79.9, 90], False, id="a little less than half"),
        pytest.param([100, 0, 160, 90], False, id="beside it"),
    ],
)
def test_half_of_a_detection_in_a_region_without_labels_is_enough(region, is_in):
    assert MODULE.is_in_regions(things(("pedestrian", 10, 0)), VIEW, np.array([[100, 80, 101, 81], region], float)).tolist() == [is_in]


def test_regions_are_what_the_labels_leave_out(tmp_path):
    line = "{} 1 {} 0 0 -10 {} 1 1 1 1 2 30 1.5 0"
    kinds = [
        (0, "Car", "1 2 3 4"),
        (0, "DontCare", "10 20 30 40"),
        (2, "Misc", "5 6 7 8"),
        (2, "DontCare", "1 1 2 2"),
        (3, "Cyclist", "1 2 3 4"),
    ]
    (tmp_path / "0000.txt").write_text("".join(line.format(*kind) + "\n" for kind in kinds))
    regions = MODULE.read_regions(tmp_path / "0000.txt")
    assert {number: rows.tolist() for number, rows in regions.items()} == {0: [[10, 20, 30, 40]], 2: [[5, 6, 7, 8], [1, 1, 2, 2]]}


def test_figures_of_a_nuscenes_frame():
    truth = things(("car", 10, 0), ("truck", 39, 0), ("car", 41, 5), ("car", 0, 20), *(("pedestrian", 5 + 3 * i, 10) for i in range(8)))
    returns = [50, 10, 60, 9, *([5] * 8)]  # to be found by the first figure: the first two
    found = things(
        ("truck", 10, 0.5, 0.9),  # the class within the group does not matter
        ("truck", 39, 1.5, 0.4),
        ("car", 41, 5, 0.8),  # too far for the first figure, wanted by the last
        ("car", 0, 20, 0.8),  # too few returns for the first figure
        ("car", 20, 20, 0.7),  # false
        ("car", 10.5, 0, 0.6),  # a second one
        ("car", 45, 20, 0.5),  # false, but only the last figure looks so far
        ("car", 20, -20, 0.3),  # false, below the threshold
        *(("pedestrian", 5 + 3 * i, 10, 0.9 - 0.1 * i) for i in range(7)),
        ("pedestrian", 5, -20, 0.5),
    )
    report, seen = MODULE.score_nuscenes([frame_of(truth, returns)], lambda _frame: found)
    near, people, far = report.figures
    assert near.name == "nuScenes vehicles to 40 m, 10 returns: false ones where 2 of 2 are found"
    assert (near.value, near.bar, near.holds) == (2, 3, True)
    assert "threshold 0.400, 2 of 2 found, 2 false (1 second ones)" in near.note
    assert people.name == "nuScenes pedestrians to 30 m, 5 returns: false ones where 7 of 8 are found"
    assert (people.value, people.holds) == (1, True)
    assert far.name == "nuScenes vehicles to 50 m, 4 returns: false ones where 4 of 4 are found"
    assert far.value == 3
    rows = MODULE.failures(report, seen)
    assert [(row["class"], row["score"]) for row in rows if row["kind"] == "false"] == [
        ("pedestrian", 0.5), ("car", 0.7), ("car", 0.6), ("car", 0.5)
    ]  # fmt: skip
    assert [(row["class"], row["center_ego"], row["returns"]) for row in rows if row["kind"] == "missed"] == [
        ("pedestrian", [26, 10, 0.9], 5)
    ]


def test_a_figure_that_is_not_reached_does_not_hold():
    truth = things(("car", 10, 0), ("pedestrian", 5, 5))
    report, _ = MODULE.score_nuscenes([frame_of(truth, [50, 9])], lambda _frame: things(("car", 30, 0)))
    assert [figure.holds for figure in report.figures] == [False, False, False]
    assert "at most 0 found" in report.figures[0].note
    text = MODULE.format_figures(report.figures)
    assert text.count("| - | <= 3 | NO |") == 2


def drive(count=10):
    """Frames with a car and a cyclist ahead, a region without labels at the left edge of the picture."""
    truth = things(("car", 20, 0), ("bicycle", 12, 3))
    return [(frame_of(truth, [20, 20], view=VIEW, name=str(i)), np.array([[0.0, 0, 20, 90]])) for i in range(count)]


def test_figures_of_a_kitti_drive():
    def find(frame):
        number = int(frame.token)
        yaw = np.pi if number == 0 else 0.0  # reversed once
        rows = [("car", 20, 0, 0.8, yaw), ("bicycle", 12, 3.5, 0.7), ("car", -20, 0, 0.9)]  # the last is behind: not judged
        rows += [("car", 20, 14, 0.85)]  # in the region without labels
        rows += [("pedestrian", 14, -5, 0.4)]  # below the threshold
        rows += [("car", 30, 8, 0.85), ("pedestrian", 10, -5, 0.6)] if number < 4 else []  # false
        rows += [("bicycle", 12, -3, 0.75)] if number < 2 else []
        return things(*rows) if number < 9 else things(("car", 20, 0.5, 0.8), *rows[1:5])

    report, seen = MODULE.score_kitti(drive(), find, 0.5)
    got = figures(report)
    recall = got["KITTI vehicles: recall at 0.5 false a frame"]
    assert (recall.value, recall.holds) == (1.0, True)
    assert got["KITTI vehicles: false a frame at a recall of 0.95"].value == pytest.approx(0.4)
    # Nine times 1, once 1.5 of 2 m shared: 6 / (8 + 8 - 6)
    assert got["KITTI vehicles: mean overlap of the matched"].value == pytest.approx((9 + 0.6) / 10)
    assert got["KITTI vehicles: heading right, not reversed"].value == pytest.approx(0.9)
    assert got["KITTI cyclists: false a frame where 0.9 are found"].value == pytest.approx(0.2)
    assert got["KITTI pedestrians: false a frame"].value == pytest.approx(0.4)
    assert [len(outcomes) for outcomes, _ in report.drawn] == [10, 10, 10]
    assert all(figure.holds for figure in report.figures)
    assert len(MODULE.failures(report, seen)) == 4 + 2 + 4
    without, _ = MODULE.score_kitti(drive(), find, None)
    assert not figures(without)["KITTI pedestrians: false a frame"].holds


def test_a_recall_bought_with_false_ones_does_not_hold():
    def find(frame):
        rows = [("car", 20, 0, 0.8 if int(frame.token) < 5 else 0.2)]
        return things(*rows, ("car", 30, 8, 0.5))  # half of the cars score above one false one a frame

    report, _ = MODULE.score_kitti(drive(), find, None)
    got = figures(report)
    assert got["KITTI vehicles: recall at 0.5 false a frame"].value == 0.5
    assert got["KITTI vehicles: false a frame at a recall of 0.95"].value == 1.0
    assert "5 matched at 0.800" in got["KITTI vehicles: mean overlap of the matched"].note
    assert got["KITTI cyclists: false a frame where 0.9 are found"].note.endswith("not reached, recall 0.00 at most")


def test_false_vehicles_count_at_any_distance_and_far_labels_are_not_wanted():
    truth = things(("car", 20, 0), ("car", 45, 0), ("car", 30, 3))
    frames = [(frame_of(truth, [10, 50, 9], view=VIEW), np.zeros((0, 4)))]
    found = things(("car", 20, 0, 0.5), ("car", 45, 0, 0.6), ("car", 30, 3, 0.6), ("car", 60, 0, 0.7))
    report, _ = MODULE.score_kitti(frames, lambda _frame: found, None)
    (point,) = [point for point in report.curves["KITTI vehicles"].points if point.threshold == 0.5]
    assert (point.wanted, point.found, point.false) == (1, 1, 1)
    assert report.notes == ["KITTI vehicles, false ones up to 40 m only: 0.00 a frame"]


def test_moving_cars():
    truth, found = things(("car", 10, 0), ("car", 20, 0), ("car", 30, 0), ("truck", 40, 0)), things(("car", 10, 0), ("car", 20, 0))
    speed = np.array([[0.6, 0], [0.4, 0], [0, 3.0], [9, 0]])
    truth = Detections(
        Boxes3D(truth.boxes.center, truth.boxes.size, truth.boxes.yaw, speed), truth.label, truth.score, NUSCENES_DETECTION,
        num_points=np.array([1, 1, 0, 1]),
    )  # fmt: skip
    outcome = MODULE.moving_cars(found, truth)
    assert outcome.is_wanted.tolist() == [True, False, False]  # one stands, one was not hit by the lidar
    assert outcome.is_hit.tolist() == [True, False]
    assert not outcome.is_false.any()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    pytest.importorskip("torch")
    from tests.detection.small import small_config

    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(small_config(score_threshold=0.0).model_dump(mode="json")))
    return path


def run_tool(out, small, **data):
    given = {"nuscenes": None, "kitti": None, "simulated": None} | data
    MODULE.main(
        str(small), seed=0, **given, weights=None, split=None, scenes=1, simulation_seed=0, nuscenes_sweeps=1, kitti_sweeps=2,
        min_score=0.0, pictures=2, device="cpu", out=out,
    )  # fmt: skip
    return json.loads((out / "score.json").read_text())


def test_the_whole_tool_on_recordings(tmp_path, small, capsys):
    written = run_tool(
        tmp_path / "out", small, nuscenes=write_nuscenes(tmp_path / "nuscenes"), kitti=write_kitti_tracking(tmp_path / "kitti")
    )
    text = capsys.readouterr().out
    assert len(written["figures"]) == 3 + 6
    for figure in written["figures"]:
        assert f"| {figure['name']} |" in text
    assert written["curves"]["KITTI vehicles"]["columns"] == ["threshold", "found", "false", "double"]
    assert len(written["curves"]["KITTI vehicles"]["points"]) > 0
    pictures = list((tmp_path / "out/pictures").rglob("*.png"))
    assert len(pictures) == 4
    with Image.open(pictures[0]) as picture:
        picture.load()


@pytest.mark.slow
def test_the_whole_tool_on_simulated_scenes(tmp_path, small, capsys):
    pytest.importorskip("nuscenes.eval.tracking.evaluate")
    from perception.drives.simulated import simulate_scenes
    from perception.drives.simulated import write_nuscenes as write_simulated

    scenes = simulate_scenes(1, seed=3, num_frames=3)
    write_simulated(tmp_path / "streets", scenes, version="v1.0-simulated", splits={"unseen": [scenes[0].name]}, lidar=True)
    written = run_tool(tmp_path / "out", small, simulated=tmp_path / "streets")
    assert [figure["bar"] for figure in written["figures"]] == [0.55, 0.8, 0.6, 1.0]
    assert "simulated, tracking: AMOTA" in capsys.readouterr().out


def test_a_detector_that_finds_nothing_on_simulated_scenes_has_figures_too(tmp_path):
    class Blind:
        sweeps = 1

        def detect(self, _cloud, _lidar_to_ego):
            return things()

    root = write_nuscenes(tmp_path / "data", splits={"unseen": ["scene-0103"]})
    report = MODULE.score_simulated(NuScenes(root, cameras=False), "unseen", Blind(), tmp_path / "out")
    assert [figure.holds for figure in report.figures] == [False] * 4
    assert figures(report)["simulated: AP of cars"].value == 0
    assert "no official scores" in report.notes[0]


@pytest.mark.shared
def test_the_real_recordings_hold_what_the_figures_are_about(shared, tmp_path):
    def truth_of(frame):
        return frame.truth.transformed(frame.ego_to_global.inverse())

    frames = [frame for drive in open_drives(shared / "data/nuscenes-frame", cameras=False) for frame in drive]
    report, _ = MODULE.score_nuscenes(frames, truth_of)
    assert [figure.name.rpartition("where ")[2] for figure in report.figures] == [
        "3 of 3 are found", "7 of 8 are found", "5 of 6 are found"
    ]  # fmt: skip
    assert all(figure.holds for figure in report.figures)
    unpack = shared / "data/kitti-drive/unpack.py"
    subprocess.run([sys.executable, "-B", str(unpack), str(tmp_path), "--layout", "tracking"], check=True)
    report, seen = MODULE.score_kitti(MODULE.kitti_frames(tmp_path / "tracking"), truth_of, 0.5)
    assert all(figure.holds for figure in report.figures)
    assert (report.curves["KITTI vehicles"].wanted, report.curves["KITTI cyclists"].wanted) == (176, 80)
    assert MODULE.failures(report, seen) == []
