"""Boxes in pictures: by hand with a camera of round numbers, and on the pixels that are drawn."""

import numpy as np
import pytest
from PIL import Image

from perception.core import NUSCENES_DETECTION, Boxes3D, Camera, Detections, Tracks, Transform, UsageError
from perception.visual import CLASS_COLORS, class_color, draw_camera, draw_cameras

GREY = (128, 128, 128)
EGO = Transform.from_yaw(0.8, (411.0, 1180.0, 0.5))
FORWARD = Transform.from_quaternion([0.5, -0.5, 0.5, -0.5], (1.0, 0.0, 1.5))  # looks along x, 1.5 m above the ground
INTRINSICS = np.array([[400.0, 0.0, 400.0], [0.0, 400.0, 225.0], [0.0, 0.0, 1.0]])


def camera(name="CAM_FRONT", mounting=FORWARD, size=(800, 450), timestamp_us=1_000_000, color=GREY):
    picture = np.full((size[1], size[0], 3), color, np.uint8)
    return Camera(name, "", size, INTRINSICS, mounting, EGO, timestamp_us, lambda: picture)


def objects(*rows, name="car", velocity=(np.nan, np.nan)):
    """Rows are x, y, z (middle), length, width, height, yaw in the ego frame."""
    rows = np.array(rows, np.float64).reshape(-1, 7)
    boxes = Boxes3D(rows[:, :3], rows[:, 3:6], rows[:, 6], np.tile(np.array(velocity, float), (len(rows), 1))).transformed(EGO)
    label = np.full(len(rows), NUSCENES_DETECTION.index(name), np.int64)
    return Detections(boxes, label, np.ones(len(rows)), NUSCENES_DETECTION)


def drawn(*arguments, **options):
    """(h, w) bool: pixels that the boxes change."""
    shown, empty = (np.asarray(draw_camera(*a, **options)).astype(int) for a in (arguments, arguments[:1]))
    return np.abs(shown - empty).max(axis=2) > 25


AHEAD = (11.0, 0.0, 1.5, 2.0, 4.0, 2.0, 0.0)  # its rear face 9 m before the camera, its front face 11 m


def test_a_box_is_where_its_corners_project_to():
    is_drawn = drawn(camera(), objects(AHEAD))
    rows, columns = np.nonzero(is_drawn)
    # the rear face, 4 m wide and 2 m high at 9 m: 400 * 2 / 9 = 88.9 pixels to both sides, 400 / 9 = 44.4 up and down
    assert [columns.min(), columns.max()] == pytest.approx([400 - 88.9, 400 + 88.9], abs=2.5)
    assert [rows.min(), rows.max()] == pytest.approx([225 - 44.4, 225 + 44.4], abs=2.5)
    # and the front face at 11 m inside of it, its edges 400 * 2 / 11 = 72.7 and 36.4 from the middle
    line = is_drawn[225, 400:]
    assert np.abs(np.flatnonzero(np.diff(line.astype(int)) == 1) - 72.7).min() < 3 or line[71:75].any()


def test_the_front_face_is_filled_with_the_colour_of_the_class():
    for yaw, is_filled in ((np.pi, True), (np.pi / 2, False)):
        # of a box of 20 m that faces the camera, the middle of the picture shows the front, else no face that is filled
        picture = np.asarray(draw_camera(camera(), objects((21.0, 0.0, 1.5, 20.0, 4.0, 2.0, yaw)))).astype(int)
        offset = picture[225, 400] - GREY
        assert (np.abs(offset).max() > 20) == is_filled
        if is_filled:
            wanted = np.array(class_color("car")) - GREY
            assert offset @ wanted / np.linalg.norm(offset) / np.linalg.norm(wanted) > 0.98


def class_of(pixels):
    """The class whose colour is nearest to one of the pixels (K, 3) of a line."""
    return min(CLASS_COLORS, key=lambda name: np.abs(pixels - CLASS_COLORS[name]).sum(axis=1).min())


@pytest.mark.parametrize("name", ["car", "pedestrian", "traffic_cone", "bus"])
def test_lines_have_the_colour_of_the_class(name):
    picture = np.asarray(draw_camera(camera(), objects(AHEAD, name=name))).astype(int)
    assert class_of(picture[225, 400 - 92 : 400 - 85]) == name


@pytest.mark.parametrize(
    "row",
    [
        pytest.param((-9.0, 0.0, 1.5, 2.0, 4.0, 2.0, 0.0), id="behind"),
        pytest.param((11.0, 40.0, 1.5, 2.0, 4.0, 2.0, 0.0), id="far to the left"),
        pytest.param((11.0, 0.0, 30.0, 2.0, 4.0, 2.0, 0.0), id="far above"),
        pytest.param((111.0, 0.0, 1.5, 2.0, 4.0, 2.0, 0.0), id="too far away"),
    ],
)
def test_what_the_camera_does_not_see_is_not_drawn(row):
    assert not drawn(camera(), objects(row)).any()


def test_lines_end_before_the_camera():
    # a long thing on the left, from 10 m behind the camera to 10 m before it
    is_drawn = drawn(camera(), objects((1.0, 3.0, 1.0, 20.0, 2.0, 2.0, 0.0)))
    assert is_drawn.any()
    assert not is_drawn[:, 410:].any()  # nothing is mirrored to the right
    # its top edge on the right, at y = 2 m and 0.5 m above the camera, leaves the picture on the left: 395 / 4 pixels above the middle
    assert is_drawn[126, 3:8].any()
    assert not is_drawn[100:118, 3:8].any()


def test_nearer_boxes_are_drawn_over_farther_ones():
    near, far = objects(AHEAD, name="car"), objects((21.0, 0.0, 1.5, 2.0, 8.4, 4.2, 0.0), name="pedestrian")
    for first, second in ((near, far), (far, near)):
        boxes = Boxes3D(*(np.concatenate([getattr(v.boxes, n) for v in (first, second)]) for n in ("center", "size", "yaw", "velocity")))
        label = np.concatenate([first.label, second.label])
        picture = np.asarray(draw_camera(camera(), Detections(boxes, label, np.ones(2), NUSCENES_DETECTION))).astype(int)
        assert class_of(picture[225, 400 - 92 : 400 - 85]) == "car"


def test_moving_objects_are_drawn_where_they_are_at_the_pictures_time():
    moving = objects(AHEAD, velocity=(0.0, 10.0))  # to the left
    still = np.nonzero(drawn(camera(), moving))[1]
    # 0.1 s later: 1 m to the left, 400 / 9 = 44 pixels
    later = np.nonzero(drawn(camera(timestamp_us=1_100_000), moving, timestamp_us=1_000_000))[1]
    assert still.max() - later.max() == pytest.approx(44.4, abs=2)
    unknown = drawn(camera(timestamp_us=1_100_000), objects(AHEAD), timestamp_us=1_000_000)
    assert np.nonzero(unknown)[1].max() == still.max()


def test_tracks_have_their_numbers():
    where = objects(AHEAD)
    tracks = Tracks(
        where.boxes, where.label, where.score, where.classes, np.array([7]), np.ones(1), np.ones(1, np.int64), np.zeros(1, bool)
    )
    plain, numbered = drawn(camera(), where), drawn(camera(), tracks)
    assert (numbered & ~plain)[160:180].any()
    assert not (plain & ~numbered).any()


@pytest.mark.parametrize("width", [200, 800, 1600])
def test_a_picture_has_the_width_that_is_asked_for(width):
    picture = draw_camera(camera(), objects(AHEAD), width_px=width)
    assert picture.size == (width, round(width * 450 / 800))
    columns = np.nonzero(drawn(camera(), objects(AHEAD), width_px=width))[1]
    assert np.ptp(columns) == pytest.approx(177.8 * width / 800, abs=5)


def test_pictures_stand_as_one_looks_round():
    names = ["CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT", "CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT"]
    greys = {name: camera(name, color=(40 * i,) * 3) for i, name in enumerate(names)}
    sheet = draw_cameras(greys, width_px=900)
    assert sheet.size == (900, 2 * 169)
    pixels = np.asarray(sheet)[:, :, 0]
    assert [[int(pixels[y, x]) // 40 for x in (150, 450, 750)] for y in (100, 269)] == [[4, 3, 5], [1, 0, 2]]


@pytest.mark.parametrize(
    ("names", "size"),
    [
        pytest.param(["image_02"], (900, 506), id="one of another name"),
        pytest.param(["CAM_FRONT", "image_02", "image_03"], (900, 253 * 2), id="others below"),
        pytest.param(["CAM_FRONT", "CAM_FRONT_LEFT"], (900, 253), id="a part of the rig"),
    ],
)
def test_other_cameras_find_their_places(names, size):
    assert draw_cameras({name: camera(name) for name in names}, width_px=900).size == size


def test_no_objects_and_no_cameras():
    assert not drawn(camera(), objects()).any()
    assert isinstance(draw_camera(camera(), None), Image.Image)
    with pytest.raises(UsageError, match="draw_cameras: expected a frame with cameras, got none"):
        draw_cameras({})
    with pytest.raises(UsageError, match="draw_camera: expected a width of at least 64 pixels, got 20"):
        draw_camera(camera(), width_px=20)
