"""Pictures of simulated cameras: geometry by projection (shapely), light and shadow by comparison, truth that agrees with the picture."""

import io

import numpy as np
import pytest
import shapely
from PIL import Image

from cuda_ops import Primitives
from perception.core import Boxes3D, Camera, DataError, Transform, UsageError
from perception.core.rle import decode_rle
from perception.drives.simulated.camera import (
    CAMERAS,
    View,
    camera_time_us,
    camera_to_ego,
    instance_masks,
    render,
    visibility_level,
    visibility_of,
)
from perception.drives.simulated.matter import SCENERY, Matter
from perception.drives.simulated.shading import Sun

SIZE = (160, 90)
INTRINSICS = np.array([[120.0, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]])
FORWARD = Transform.from_quaternion([0.5, -0.5, 0.5, -0.5], (0.0, 0.0, 1.5))  # looks along x, 1.5 m above the ground
RED, GREY, BLUE = (220, 30, 30), (128, 128, 128), (30, 30, 220)
GROUND = Matter.of(Primitives.planes([[0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]), 8.0, GREY)


def box(*row, color=RED, owner=0, **options):
    """x, y, z (middle), length, width, height, yaw"""
    return Matter.of(Primitives.boxes(np.array([row], float), **options), 30.0, color, owner)


def picture(*matter, pose=FORWARD, size=SIZE, **options):
    return render(Matter.concatenate(*matter), pose, INTRINSICS, size, **options)


def outline(row, pose=FORWARD):
    """The hull of a box in the picture, by the eight corners."""
    corners = Boxes3D(np.array([row[:3]]), np.array([row[3:6]]), np.array([row[6]]), np.zeros((1, 2))).corners[0]
    camera = Camera("c", "", SIZE, INTRINSICS, pose, Transform.identity(), 0, lambda: np.zeros(0))
    pixels, depth = camera.project(pose.inverse().apply(corners))
    assert (depth > 0).all()
    return shapely.MultiPoint(pixels).convex_hull


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize(
    ("row", "pose"),
    [
        pytest.param((12.0, 1.0, 1.0, 4.0, 2.0, 2.0, 0.4), FORWARD, id="ahead"),
        pytest.param((6.0, -3.5, 1.4, 4.0, 2.0, 2.5, -0.9), FORWARD, id="cut off by the border"),
        pytest.param((40.0, 3.0, 4.0, 3.0, 2.0, 2.0, 0.0), FORWARD, id="far"),
        pytest.param((703.0, 889.0, 1.0, 4.0, 2.0, 2.0, 0.4), Transform.from_yaw(-1.3, (700.0, 900.0, 0.0)) @ FORWARD, id="on the map"),
    ],
)
def test_a_box_covers_the_pixels_whose_centres_lie_in_its_outline(row, pose, scale):
    owner = picture(GROUND, box(*row), pose=pose, scale=scale).owner
    hull = outline(row, pose)
    column, line = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    expected = shapely.contains_xy(hull, column, line)
    assert expected.sum() > 20
    # rays and the places of shapes are float32: within 0.02 pixels of the outline either is right
    is_sure = shapely.distance(hull.exterior, shapely.points(column, line)) > 0.02
    assert ((owner == 0) == expected)[is_sure].all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_nearer_hides_farther(order):
    things = [box(10.0, 0.0, 1.5, 2.0, 2.0, 2.0, 0.0, owner=4), box(20.0, 0.0, 1.5, 2.0, 8.0, 3.0, 0.0, owner=7)]
    owner = picture(*[things[i] for i in order]).owner
    assert owner[45, 80] == 4
    assert owner[45, 64] == 7
    assert owner[2, 80] == SCENERY


def test_depth_is_measured_along_the_axis_of_the_camera():
    wall = Matter.of(Primitives.planes([[20.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]), 8.0)
    depth = picture(wall, scale=2).depth
    np.testing.assert_allclose(depth, 20.0, atol=1e-4)  # along the ray the corners are 25 m away
    turned = picture(wall, pose=Transform.from_yaw(0.5) @ FORWARD, scale=1).depth
    # the ray through (80.5, 45.5) goes 0.5 / 120 metres to the right for each metre ahead
    assert turned[45, 80] == pytest.approx(20.0 / (np.cos(0.5) + np.sin(0.5) * 0.5 / 120), abs=1e-4)


def test_depth_belongs_to_the_surface_that_the_pixel_shows():
    seen = picture(GROUND, box(11.0, 0.0, 1.5, 2.0, 2.0, 2.0, 0.0), scale=1)
    np.testing.assert_allclose(seen.depth[seen.owner == 0].min(), 10.0, atol=1e-4)
    row, column = 80, 20
    # the ray through (20.5, 80.5) falls by 35.5 / 120 metres a metre, from 1.5 m
    assert seen.depth[row, column] == pytest.approx(1.5 * 120 / 35.5, abs=1e-4)
    # a block has one depth, that of its middle, here (21, 81)
    assert picture(GROUND).depth[row, column] == pytest.approx(1.5 * 120 / 36, abs=1e-4)


def test_sky_where_nothing_is():
    seen = picture(GROUND)
    assert np.isinf(seen.depth[:44]).all()
    assert np.isfinite(seen.depth[46:]).all()
    assert (seen.owner == SCENERY).all()
    sky = seen.image[:44].astype(int)
    assert (sky[..., 2] > sky[..., 0]).mean() == 1  # blue
    above, low = sky[:4].min(axis=(0, 1)), sky[-4:].mean(axis=(0, 1))
    assert above[2] - above[0] > low[2] - low[0] + 10  # bluer above, between the clouds
    assert above.mean() < low.mean() - 10  # brighter towards the horizon
    clouds = sky[:20].min(axis=2)
    assert clouds.max() > clouds.min() + 40  # and clouds
    nothing = picture()
    assert np.isinf(nothing.depth).all()
    np.testing.assert_array_equal(nothing.image[:44], seen.image[:44])


@pytest.mark.parametrize("scale", [1, 2, 4, 7])
def test_the_mask_is_what_the_picture_shows(scale):
    things = [
        box(9.0, 1.3, 1.2, 2.0, 2.0, 2.4, 0.5),
        Matter.of(Primitives.volumes(np.array([[15.0, -2.0, 1.0, 4.0, 2.0, 2.0, 0.1]]), 0.3), 30.0, (255, 30, 30), 0),
    ]
    seen = picture(GROUND, *things, scale=scale, shadows=False)
    image = seen.image.astype(int)
    is_red = image[..., 0] > image[..., 1] + 60
    np.testing.assert_array_equal(seen.owner == 0, is_red)
    assert is_red.sum() > 500


def test_results_have_the_shapes_and_types_that_are_promised():
    seen = picture(GROUND, size=(37, 23), scale=4)
    assert (seen.image.shape, seen.image.dtype) == ((23, 37, 3), np.uint8)
    assert (seen.owner.shape, seen.owner.dtype) == ((23, 37), np.int32)
    assert (seen.depth.shape, seen.depth.dtype) == ((23, 37), np.float32)


def test_the_seed_alone_decides():
    hedge = Matter.of(Primitives.volumes(np.array([[10.0, 2.0, 1.5, 3.0, 3.0, 3.0, 0.0]]), 0.5), 30.0, (80, 120, 60), 3)
    first, again, other = (picture(GROUND, hedge, seed=seed) for seed in (5, 5, 6))
    for name in ("image", "owner", "depth"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()
    # another grain of the ground, and not of the sensor alone: that makes 2.8 (two dice of seven sides)
    change = first.image[80:].astype(float) - other.image[80:]
    assert change.std() > 3.2


def test_surfaces_are_uneven_and_keep_their_colour():
    seen = picture(GROUND, box(8.0, 0.0, 1.5, 2.0, 6.0, 3.0, 0.0), sun=Sun(180.0, 45.0))
    face = seen.image[seen.owner == 0].astype(float)
    assert 2 < face[:, 0].std() < 20
    assert (face[:, 0] > 3 * face[:, 2]).all()


def test_a_surface_that_faces_the_sun_is_brighter():
    thing = box(8.0, 0.0, 1.5, 2.0, 6.0, 3.0, 0.0)
    bright, dark = (picture(thing, sun=Sun(azimuth, 30.0)) for azimuth in (180.0, 0.0))
    is_thing = bright.owner == 0
    assert bright.image[is_thing].mean() > 1.3 * dark.image[is_thing].mean()


def test_shadows_fall_away_from_the_sun():
    # the sun stands on the left at 45 degrees: the shadow of a plate 2 m up lies 2 m to the right of it
    plate = box(10.0, 2.0, 2.0, 2.0, 2.0, 0.02, 0.0)
    lit, shaded = (picture(GROUND, plate, sun=Sun(90.0, 45.0), shadows=on).image.astype(int).sum(axis=2) for on in (False, True))
    darker = lit - shaded > 60
    column, row = 80, int(45 + 120 * 1.5 / 10)  # the pixel of (10, 0, 0)
    assert darker[row, column]
    assert not darker[row, 50]  # below the plate, 2.5 m to the left
    assert not darker[row, 110]
    assert (lit - shaded >= 0).all()


def test_leaves_are_shaded_softly():
    crown = Matter.of(Primitives.volumes(np.array([[10.0, 0.0, 1.5, 4.0, 4.0, 3.0, 0.0]]), 4.0), 30.0, (80, 120, 60), 3)
    seen = picture(crown, sun=Sun(90.0, 20.0), shadows=False)
    is_crown = seen.owner == 3
    left, right = is_crown.copy(), is_crown.copy()
    left[:, 75:], right[:, :85] = False, False
    assert seen.image[left].mean() > 1.15 * seen.image[right].mean()
    assert seen.image[right].mean() > 20


def test_glass_of_objects_is_a_surface_and_a_fence_is_not():
    pane, fence = (box(10.0, y, 1.5, 0.1, 4.0, 2.0, 0.0, owner=owner, pass_chance=0.6) for y, owner in ((2.5, 0), (-2.5, SCENERY)))
    seen = picture(pane, fence)
    assert np.isfinite(seen.depth[36:54, 30:70]).all()
    assert np.isfinite(seen.depth[36:54, 90:130]).mean() == pytest.approx(0.4, abs=0.08)  # 720 pixels: four standard deviations
    assert visibility_of([View(Matter.concatenate(pane, fence), seen.owner, FORWARD, INTRINSICS)], 1)[0] == pytest.approx(1.0, abs=0.02)


def test_haze_takes_contrast_from_what_is_far():
    near, far = (picture(box(x, 0.0, 0.0, 2.0, 2.0 * x, 2.0 * x, 0.0, color=(10, 10, 10))).image[45, 80].mean() for x in (20.0, 300.0))
    assert far > near + 30


def test_a_solid_round_the_camera_is_not_seen():
    own = box(0.0, 0.0, 1.0, 5.0, 2.0, 2.0, 0.0, owner=9)
    assert (picture(GROUND, own).owner == SCENERY).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"scale": 0}, "render: expected size and scale of at least 1", id="scale"),
        pytest.param({"size": (0, 90)}, "render: expected size and scale of at least 1", id="size"),
    ],
)
def test_impossible_pictures_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        picture(GROUND, **options)


def test_intrinsics_are_checked():
    with pytest.raises(DataError, match=r"render: intrinsics: expected shape \(3, 3\), got \(2, 2\)"):
        render(GROUND, FORWARD, np.eye(2), SIZE)


def test_a_jpeg_shows_the_picture():
    seen = picture(GROUND, box(9.0, 1.3, 1.2, 2.0, 2.0, 2.4, 0.5))
    again = np.asarray(Image.open(io.BytesIO(seen.jpeg())))
    assert again.shape == seen.image.shape
    assert np.abs(again.astype(int) - seen.image).mean() < 4


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.channel)
def test_each_camera_of_the_rig_looks_its_own_way(camera):
    yaw = dict(zip(("FRONT", "FRONT_RIGHT", "BACK_RIGHT", "BACK", "BACK_LEFT", "FRONT_LEFT"), (0, -56, -111, 180, 109, 55), strict=True))
    things = [box(20 * np.cos(a), 20 * np.sin(a), 1.0, 1.0, 1.0, 2.0, a, owner=i) for i, a in enumerate(np.radians(list(yaw.values())))]
    scene = Matter.concatenate(GROUND, *things)
    owner = render(scene, camera_to_ego(camera), np.array(camera.intrinsic_matrix), (1600, 900), scale=4).owner
    mine = list(yaw).index(camera.channel.removeprefix("CAM_"))
    seen = np.flatnonzero([(owner == i).any() for i in range(6)])
    assert seen.tolist() == [mine]
    rows, columns = np.nonzero(owner == mine)
    # 1 m beside the ego origin is 3 degrees at 20 m; the lower half of the picture shows what is below 1.5 m
    assert abs(np.degrees(np.arctan((columns.mean() - camera.intrinsics[1]) / camera.intrinsics[0]))) < 4
    assert rows.max() > camera.intrinsics[2]


def test_cameras_fire_before_the_sweep_ends():
    times = {camera.channel: camera_time_us(camera, 1_000_000) for camera in CAMERAS}
    assert times["CAM_FRONT"] == 964_800
    assert times["CAM_BACK_LEFT"] == 999_700
    # clockwise from the back left, where the sweep ends
    order = ["FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_RIGHT", "BACK", "BACK_LEFT"]
    assert sorted(times, key=times.__getitem__) == [f"CAM_{name}" for name in order]


def test_masks_of_instances():
    owner = np.full((5, 6), SCENERY, np.int32)
    owner[1:4, 2:5] = 3
    owner[2, 3] = 0  # hides one pixel of 3
    owner[4, 5] = 8
    masks = instance_masks(owner)
    assert [(m.owner, m.box.tolist(), m.pixels) for m in masks] == [(0, [3, 2, 4, 3], 1), (3, [2, 1, 5, 4], 8), (8, [5, 4, 6, 5], 1)]
    for mask in masks:
        np.testing.assert_array_equal(decode_rle(mask.rle), owner == mask.owner)
    assert [m.owner for m in instance_masks(owner, min_pixels=2)] == [3]
    assert instance_masks(np.full((5, 6), SCENERY, np.int32)) == []


def views(matter, *poses):
    return [View(matter, render(matter, pose, INTRINSICS, SIZE).owner, pose, INTRINSICS) for pose in poses]


TARGET = box(20.0, 0.0, 2.0, 2.0, 4.0, 4.0, 0.0)


@pytest.mark.parametrize(
    ("others", "share"),
    [
        pytest.param([], 1.0, id="free"),
        pytest.param([box(10.0, 10.0, 0.0, 0.1, 20.0, 20.0, 0.0, owner=1)], 0.5, id="its left half is hidden"),
        pytest.param([box(10.0, 0.0, 0.0, 0.1, 20.0, 20.0, 0.0, owner=1)], 0.0, id="hidden"),
        pytest.param([box(10.0, 10.0, 0.0, 0.1, 20.0, 20.0, 0.0, owner=SCENERY)], 0.5, id="scenery hides too"),
        pytest.param([box(30.0, 10.0, 0.0, 0.1, 20.0, 20.0, 0.0, owner=1)], 1.0, id="what stands behind hides nothing"),
    ],
)
def test_visibility_is_the_share_of_pixels_that_nothing_hides(others, share):
    matter = Matter.concatenate(GROUND, TARGET, *others)
    # 27 x 27 pixels wide: a column more or less is 4 %
    assert visibility_of(views(matter, FORWARD), 1)[0] == pytest.approx(share, abs=0.04)


def test_visibility_counts_over_all_cameras():
    matter = Matter.concatenate(GROUND, TARGET, box(10.0, 10.0, 0.0, 0.1, 20.0, 20.0, 0.0, owner=1))
    # a second camera stands in front of the wall, and nothing is hidden from it: from half as far it has four times as many pixels
    second = Transform(FORWARD.rotation, np.array([10.5, 0.0, 1.5]))
    share = visibility_of(views(matter, FORWARD, second), 1)[0]
    # faces 19 m and 8.5 m away: (0.5 / 19^2 + 1 / 8.5^2) / (1 / 19^2 + 1 / 8.5^2)
    assert share == pytest.approx(0.917, abs=0.02)


def test_visibility_of_what_no_camera_reaches_is_zero():
    matter = Matter.concatenate(GROUND, box(-20.0, 0.0, 2.0, 2.0, 4.0, 4.0, 0.0, owner=0), box(20.0, 0.0, 2.0, 2.0, 4.0, 4.0, 0.0, owner=2))
    np.testing.assert_allclose(visibility_of(views(matter, FORWARD), 4), [0, 0, 1, 0], atol=0.02)


def test_visibility_of_an_object_cut_by_the_border_counts_what_is_in_the_picture():
    matter = Matter.concatenate(GROUND, box(6.0, 4.0, 1.5, 1.0, 3.0, 2.0, 0.3))
    assert visibility_of(views(matter, FORWARD), 1)[0] == pytest.approx(1.0, abs=0.02)


def test_visibility_is_what_two_pictures_count():
    rng = np.random.default_rng(2)
    for _ in range(60):
        # long things near the camera, cut by the border or not, half hidden or not
        target = box(rng.uniform(2, 15), rng.uniform(-6, 6), rng.uniform(0, 3), *rng.uniform(0.5, 6, 3), rng.uniform(-3, 3))
        wall = box(rng.uniform(1.5, 6), rng.uniform(-5, 5), 1.5, 0.1, rng.uniform(1, 6), 3.0, 0.0, owner=1)
        [alone], [with_wall] = views(target, FORWARD), views(Matter.concatenate(target, wall), FORWARD)
        pixels = np.count_nonzero(alone.owner == 0)
        expected = np.count_nonzero(with_wall.owner == 0) / pixels if pixels > 30 else None
        if expected is not None:
            got = visibility_of([with_wall], 1)[0]
            # the border of a share is a line of some 20 of 400 rays, each right or wrong by half
            assert got == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("share", "level"), [(0.0, "1"), (0.39, "1"), (0.4, "2"), (0.59, "2"), (0.6, "3"), (0.79, "3"), (0.8, "4"), (1.0, "4")], ids=str
)
def test_visibility_levels_of_nuscenes(share, level):
    assert visibility_level(np.array([share])).tolist() == [level]
