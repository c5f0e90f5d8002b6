"""What stands where in a picture, checked on its pixels."""

import math

import numpy as np
import pytest
from PIL import Image

from perception.core import NUSCENES_DETECTION, Boxes3D, Detections, Tracks, Transform
from perception.visual import TrailBuffer, View, class_color, draw_birdseye, draw_drive, save_picture
from perception.visual.palette import PAPER

EGO = Transform.from_yaw(0.8, (411.0, 1180.0, 0.5))
VIEW = View.around_ego(EGO, radius=25.0, size_px=500)  # 10 px a metre
SIZES = {"car": (4.5, 1.9, 1.6), "bus": (12.0, 2.9, 3.4), "pedestrian": (0.7, 0.7, 1.8), "bicycle": (1.8, 0.6, 1.3)}


def boxes(things, velocity=(math.nan, math.nan)) -> tuple[Boxes3D, np.ndarray]:
    """Boxes in the global frame, and labels, of (class, x, y, yaw) in the ego frame, all with one velocity of the ego frame."""
    center = np.array([(x, y, 0.8) for _, x, y, _ in things]).reshape(-1, 3)
    size = np.array([SIZES[name] for name, *_ in things]).reshape(-1, 3)
    yaw = np.array([yaw for *_, yaw in things], dtype=np.float64)
    label = np.array([NUSCENES_DETECTION.index(name) for name, *_ in things], dtype=np.int64)
    return Boxes3D(center, size, yaw, np.tile(np.array(velocity, dtype=np.float64), (len(things), 1))).transformed(EGO), label


def tracks_of(*things, first_id=7, coasted=False, velocity=(math.nan, math.nan)) -> Tracks:
    where, label = boxes(things, velocity)
    count = len(things)
    ids = np.arange(first_id, first_id + count)
    return Tracks(where, label, np.ones(count), NUSCENES_DETECTION, ids, np.ones(count), np.ones(count, np.int64), np.full(count, coasted))


def objects_of(*things, score=1.0) -> Detections:
    where, label = boxes(things)
    return Detections(where, label, np.full(len(things), score), NUSCENES_DETECTION)


def map_of(picture: Image.Image, view: View = VIEW) -> np.ndarray:
    """(side, side, 3) the map without the header above it."""
    return np.asarray(picture)[picture.height - view.size_px :].astype(int)


def pixel_of(x: float, y: float, view: View = VIEW) -> tuple[int, int]:
    """Row and column in the map of a point in the ego frame."""
    column, row = view.to_pixels(EGO.apply(np.array([x, y, 0.0])))
    return int(row), int(column)


def hue(color) -> np.ndarray:
    """What is left of a colour without its brightness: a tint of a colour has the direction of that colour's hue."""
    offset = np.asarray(PAPER, dtype=np.float64) - color
    return offset / np.linalg.norm(offset)


def changed(picture: Image.Image, other: Image.Image) -> np.ndarray:
    """(side, side) bool: pixels of the maps that differ visibly."""
    return np.abs(map_of(picture) - map_of(other)).max(axis=2) > 20


EMPTY = draw_birdseye(VIEW)


@pytest.mark.parametrize("name", ["car", "bus", "pedestrian"])
def test_a_track_is_filled_with_a_tint_of_the_colour_of_its_class(name):
    picture = map_of(draw_birdseye(VIEW, tracks=tracks_of((name, 10.7, 6.3, 0.0))))
    length, width, _ = SIZES[name]
    inside = picture[pixel_of(10.7 - length / 4, 6.3 + width / 4)]  # behind the middle, beside the line that points ahead
    assert hue(inside) @ hue(class_color(name)) > 0.99
    assert picture[pixel_of(10.7 - length / 2 - 3.0, 6.3)].tolist() == list(PAPER)  # behind the box is paper


def test_a_box_is_as_long_and_as_wide_in_pixels_as_in_metres():
    rows, columns = np.nonzero(
        changed(draw_birdseye(VIEW, truth=objects_of(("car", 0.0, 12.0, 0.0))), draw_birdseye(VIEW, truth=objects_of()))
    )
    assert np.ptp(rows) == pytest.approx(45, abs=3)  # 4.5 m along the ego's x, which points up, at 10 px a metre and 1.2 px of line
    assert np.ptp(columns) == pytest.approx(19, abs=3)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(250, abs=1.5)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(250 - 120, abs=1.5)  # 12 m to the left


def test_the_heading_line_leads_from_the_middle_to_the_front():
    picture = map_of(draw_birdseye(VIEW, tracks=tracks_of(("car", 8.0, -6.0, 0.0), ("car", -8.0, -6.0, math.pi))))
    full = np.array(class_color("car"))
    for x, ahead in ((8.0, 1.0), (-8.0, -1.0)):
        row, column = pixel_of(x + 1.2 * ahead, -6.0)
        behind_row, behind_column = pixel_of(x - 1.2 * ahead, -6.0)
        near = picture[row, column - 1 : column + 2] - full
        assert np.abs(near).sum(axis=1).min() < 90  # some pixel there has the full colour
        assert np.abs(picture[behind_row, behind_column - 1 : behind_column + 2] - full).sum(axis=1).min() > 150


def test_truth_alone_is_a_dashed_outline_without_filling():
    is_changed = changed(draw_birdseye(VIEW, truth=objects_of(("bus", 3.0, 8.0, 0.0))), draw_birdseye(VIEW, truth=objects_of()))
    assert not is_changed[pixel_of(3.0 - 3.0, 8.0 + 0.7)]
    row_top, column_left = pixel_of(3.0 + 6.0, 8.0 + 1.45)
    row_bottom, _ = pixel_of(3.0 - 6.0, 8.0 + 1.45)
    left_side = is_changed[row_top : row_bottom + 1, column_left - 2 : column_left + 3].any(axis=1)
    assert 0.3 < left_side.mean() < 0.85  # neither nothing nor a solid line
    assert np.abs(np.diff(left_side.astype(int))).sum() >= 10


def test_a_coasted_track_looks_different_from_a_seen_one():
    seen, coasted = (draw_birdseye(VIEW, tracks=tracks_of(("bus", 3.0, 8.0, 0.0), coasted=coasted)) for coasted in (False, True))
    row, column = pixel_of(0.0, 8.7)
    paper = np.array(PAPER)
    assert np.abs(map_of(seen)[row, column] - paper).max() > 40
    assert np.abs(map_of(coasted)[row, column] - paper).max() < np.abs(map_of(seen)[row, column] - paper).max() / 2
    top, left = pixel_of(9.0, 9.45)
    bottom, _ = pixel_of(-3.0, 9.45)
    is_line = {
        name: (np.abs(map_of(p)[top:bottom, left - 2 : left + 3] - paper).max(axis=2) > 120).any(axis=1).mean()
        for name, p in (("seen", seen), ("coasted", coasted))
    }
    assert is_line["seen"] > 0.95
    assert is_line["coasted"] < 0.8


def test_a_detection_is_fainter_the_lower_its_score():
    ink = []
    for score in (0.9, 0.5, 0.2):
        picture = map_of(draw_birdseye(VIEW, detections=objects_of(("car", 0.0, 12.0, 0.0), score=score)))
        top, left = pixel_of(2.6, 13.3)
        ink.append(np.abs(picture[top : top + 53, left : left + 27] - PAPER).sum())
    assert ink[0] > 1.3 * ink[1] > 1.3 * 1.3 * ink[2] > 0


@pytest.mark.parametrize(("speed", "has_arrow"), [(6.0, True), (0.6, True), (0.4, False), (0.0, False), (math.nan, False)])
def test_an_arrow_leads_to_where_a_moving_thing_will_be_in_a_second(speed, has_arrow):
    """Sideways to the right, where a pedestrian at 0.6 m/s ends 0.25 m outside of its box."""
    standing = draw_birdseye(VIEW, tracks=tracks_of(("pedestrian", 5.0, 10.0, 0.0)))
    moving = draw_birdseye(VIEW, tracks=tracks_of(("pedestrian", 5.0, 10.0, 0.0), velocity=(0.0, -speed)))
    is_changed = changed(standing, moving)
    assert is_changed.any() == has_arrow
    if has_arrow:
        row, column = pixel_of(5.0, 10.0 - speed)
        assert is_changed[row - 3 : row + 4, column - 3 : column + 4].any()
        assert np.nonzero(is_changed)[1].max() <= column + 5


def test_the_ego_vehicle_is_dark_and_longer_ahead_of_its_origin_than_behind_it():
    is_changed = changed(draw_birdseye(VIEW, ego_to_global=EGO), EMPTY)
    rows, columns = np.nonzero(is_changed)
    assert (map_of(draw_birdseye(VIEW, ego_to_global=EGO))[pixel_of(1.0, 0.0)] < 80).all()
    assert 250 - rows.min() == pytest.approx(34, abs=4)  # the origin is under the rear axle, 3.4 m behind the nose
    assert rows.max() - 250 == pytest.approx(7, abs=3)
    assert abs((columns.min() + columns.max()) / 2 - 250) <= 1.5


def test_lidar_points_are_dots_under_the_boxes_and_darker_the_higher():
    points = EGO.apply(np.array([[13.7, 6.3, 0.0], [13.7, -6.3, 2.5], [3.2, 8.3, 0.0]]))
    picture = map_of(draw_birdseye(VIEW, points=points))
    ink = []
    for x, y in ((13.7, 6.3), (13.7, -6.3), (13.7, 0.7)):  # low, high, none
        row, column = pixel_of(x, y)
        ink.append(np.abs(picture[row - 1 : row + 3, column - 1 : column + 3] - PAPER).sum())
    assert ink[1] > 1.5 * ink[0] > 60
    assert ink[2] == 0
    covered = map_of(draw_birdseye(VIEW, points=points, tracks=tracks_of(("bus", 3.2, 8.3, 0.0))))
    assert hue(covered[pixel_of(-1.2, 9.0)]) @ hue(class_color("bus")) > 0.99


def test_points_that_are_not_finite_are_left_out():
    good = EGO.apply(np.array([[13.7, 6.3, 0.0]]))
    points = np.concatenate([good, [[np.nan, np.nan, np.nan], [411.0, np.inf, 0.0], [411.0, 1181.0, np.nan]]])
    assert (map_of(draw_birdseye(VIEW, points=points)) == map_of(draw_birdseye(VIEW, points=good))).all()


def test_a_trail_fades_towards_the_past_and_one_without_a_track_is_left_out():
    path = EGO.apply(np.column_stack([np.linspace(-20.0, 6.0, 14), np.full(14, -10.0), np.zeros(14)]))[:, :2]
    tracks = tracks_of(("pedestrian", 6.0, -10.0, 0.0))
    picture = map_of(draw_birdseye(VIEW, tracks=tracks, trails={7: path, 99: path + 3}))
    ink = []
    for x in (-19.0, -7.0, 3.0):
        row, column = pixel_of(x, -10.0)
        ink.append(np.abs(picture[row, column - 2 : column + 3] - PAPER).sum())
    assert 0 < ink[0] < ink[1] < ink[2]
    assert (picture == map_of(draw_birdseye(VIEW, tracks=tracks, trails={7: path}))).all()


def test_a_track_has_its_number_beside_it():
    one, other = (draw_birdseye(VIEW, tracks=tracks_of(("car", 5.0, 10.0, 0.0), first_id=first)) for first in (41, 88))
    rows, columns = np.nonzero(changed(one, other))
    row, column = pixel_of(5.0, 10.0)
    assert len(rows) > 10
    assert np.hypot(rows - row, columns - column).max() < 45  # pixels


@pytest.mark.parametrize("ahead", [25.0 - 0.5, 25.0 + 4.0, 25.0 + 5.9], ids=["mostly inside", "mostly outside", "a tip inside"])
def test_a_bus_across_the_border_is_drawn_as_far_as_it_is_inside(ahead):
    picture = draw_birdseye(VIEW, truth=objects_of(("bus", ahead, -10.0, 0.0)))
    assert changed(picture, draw_birdseye(VIEW, truth=objects_of())).any()


def test_the_legend_names_the_classes_and_styles_that_are_there():
    def legend(**objects):
        return map_of(draw_birdseye(VIEW, **objects))[:250, :230]  # upper left

    far = (("car", 10.0, -20.0, 0.0), ("pedestrian", 5.0, -20.0, 0.0))
    one, two = legend(tracks=tracks_of(far[0])), legend(tracks=tracks_of(*far))
    assert (np.abs(two - class_color("pedestrian")).sum(axis=2) < 60).any()
    assert not (np.abs(one - class_color("pedestrian")).sum(axis=2) < 60).any()
    assert (np.abs(one - class_color("car")).sum(axis=2) < 60).any()
    assert (legend(tracks=tracks_of(far[0]), truth=objects_of()) != one).any()
    assert (legend(tracks=tracks_of(far[0], coasted=True)) != one).any()


def test_the_caption_tells_the_truth_about_a_view_that_does_not_turn_with_the_ego():
    view = View.fitting(EGO.translation[None, :2], size_px=500)
    with_ego, without = (np.asarray(draw_birdseye(view, ego_to_global=pose))[:30] for pose in (EGO, None))
    assert (with_ego == without).all()  # "global y is up", whether or not a vehicle is drawn
    assert (np.asarray(draw_birdseye(VIEW, ego_to_global=EGO))[:30] != with_ego).any()


def test_the_numbers_on_the_edges_do_not_depend_on_where_in_the_world_the_ego_is():
    poses = (EGO, Transform.from_yaw(-2.0, (-3000.0, 55.0, 9.0)))
    here, there = (draw_birdseye(View.around_ego(pose, radius=25.0, size_px=500), ego_to_global=pose) for pose in poses)
    rows, columns = np.nonzero(np.abs(map_of(here) - map_of(there)).max(axis=2) > 8)
    assert np.hypot(rows - 250, columns - 250).max(initial=0) < 45  # only on the edge of the ego's shape, where pixels round either way


@pytest.mark.parametrize("radius", [0.5, 3.0, 2_000.0, 1e6])
def test_any_radius_gives_a_picture_of_the_size_asked(radius):
    tracks = tracks_of(("car", 0.0, 0.0, 0.3), ("bus", 400.0, 3.0, 0.0), velocity=(30.0, 0.0))
    path = EGO.apply(np.array([[-5000.0, 0, 0], [0, 0, 0]]))[:, :2]
    view = View.around_ego(EGO, radius=radius, size_px=300)
    picture = draw_birdseye(view, tracks=tracks, truth=objects_of(("car", 0.0, 0.0, 0.3)), ego_to_global=EGO, trails={7: path})
    assert (picture.mode, picture.width) == ("RGB", 300)
    row, column = pixel_of(0.0, 0.0, view)
    near = map_of(picture, view)[row - 5 : row + 6, column - 5 : column + 6]
    assert np.abs(near - PAPER).max() > 60  # the car is to be seen, however small


def test_nothing_at_all_gives_a_map_with_its_scale():
    nothing = draw_birdseye(
        VIEW, tracks=tracks_of(), detections=objects_of(), truth=objects_of(), points=np.zeros((0, 3)), trails={}, title=""
    )
    assert nothing.size == EMPTY.size
    assert map_of(EMPTY).min() < 60  # the scale bar is dark
    assert not changed(nothing, EMPTY)[250:].any()  # below the legend


@pytest.mark.parametrize("title", ["Zürich, 12 °C, Straße", "夜の交差点", "a title " * 60, "two\nlines"])
def test_any_title_fits(title):
    titled = draw_birdseye(VIEW, title=title)
    assert titled.size == EMPTY.size
    assert (map_of(titled) == map_of(EMPTY)).all()  # it stays in the header
    header, empty_header = (np.asarray(picture)[: EMPTY.height - 500] for picture in (titled, EMPTY))
    assert (header != empty_header).any()
    assert (header[:, -105:] == empty_header[:, -105:]).all()  # and leaves the caption alone


def test_a_drive_shows_each_path_in_its_class_and_the_ego_path():
    ego = np.array([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]])
    paths = {3: ("car", np.array([[0.0, 30.0], [100.0, 30.0]])), 4: ("pedestrian", np.array([[50.0, -40.0], [60.0, -40.0]]))}
    picture = draw_drive(ego, paths, size_px=500)
    view = View.fitting(np.concatenate([ego[:, :2], *(path for _, path in paths.values())]), size_px=500)
    for name, x, y in (("car", 60.0, 30.0), ("pedestrian", 55.0, -40.0)):
        column, row = view.to_pixels(np.array([x, y])).astype(int)
        near = map_of(picture, view)[row - 2 : row + 3, column].astype(float)
        assert max(hue(pixel) @ hue(class_color(name)) for pixel in near if np.abs(pixel - PAPER).max() > 60) > 0.99
    column, row = view.to_pixels(np.array([50.0, 0.0])).astype(int)
    assert map_of(picture, view)[row - 2 : row + 3, column].max(axis=1).min() < 80


@pytest.mark.parametrize("ego", [np.zeros((0, 3)), np.array([[5.0, 6.0, 0.0]])], ids=["no pose", "one pose"])
def test_a_drive_without_tracks_is_an_empty_map(ego):
    assert draw_drive(ego, {}, size_px=300).width == 300


def test_trails_hold_the_last_seconds_in_order_of_time():
    buffer = TrailBuffer(seconds=1.0)
    for k in range(6):  # half a second apart
        buffer.push(k * 500_000, tracks_of(("car", float(k), 0.0, 0.0)))
    ego_x = EGO.inverse().apply(np.column_stack([buffer.trails()[7], np.zeros(3)]))[:, 0]
    np.testing.assert_allclose(ego_x, [3.0, 4.0, 5.0], atol=1e-9)  # at 1.5, 2.0 and 2.5 s: one second, both ends included


def test_trails_keep_the_tracks_apart_and_bridge_a_frame_without_one():
    buffer = TrailBuffer()
    buffer.push(0, tracks_of(("car", 0.0, 0.0, 0.0), ("car", 9.0, 9.0, 0.0)))
    buffer.push(500_000, tracks_of(("car", 1.0, 0.0, 0.0)))
    buffer.push(1_000_000, tracks_of(("car", 2.0, 0.0, 0.0), ("car", 9.5, 9.0, 0.0)))
    assert {number: len(path) for number, path in buffer.trails().items()} == {7: 3, 8: 2}


def test_no_tracks_leave_no_trails():
    buffer = TrailBuffer()
    assert buffer.trails() == {}
    buffer.push(0, tracks_of())
    assert buffer.trails() == {}


def test_a_saved_picture_reads_back_pixel_for_pixel(tmp_path):
    picture = draw_birdseye(VIEW, tracks=tracks_of(("car", 5.0, 10.0, 0.0)))
    save_picture(picture, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as read:
        assert read.format == "PNG"
        assert (np.asarray(read) == np.asarray(picture)).all()


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")

    def fail_half_way(self, file, **options):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        save_picture(EMPTY, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
