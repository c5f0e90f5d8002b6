"""Virtual points: the published generator's own output, small cases by eye, and two ways to the members of masks."""

import sys

import numpy as np
import pytest

from perception.core import NUSCENES_DETECTION, ClassSet, DataError, PointCloud, Transform, UsageError
from perception.fusion import MVP_CLASSES, CameraView, Instances, fused_rows, virtual_points
from perception.fusion.members import MaskIndex, draw_ranks
from tests.conftest import SHARED
from tests.fusion.makers import INTRINSICS, SIZE, at_pixel, box_mask, cloud, shown, view

torch = pytest.importorskip("torch")
from perception.fusion import on_gpu  # noqa: E402  behind the check

module = sys.modules["perception.fusion.virtual_points"]  # the package has the function under this name
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=ON_GPU)]
CAR, BUS, PERSON = (NUSCENES_DETECTION.index(name) for name in ("car", "bus", "pedestrian"))
CAR_COLUMN, BUS_COLUMN, PERSON_COLUMN = (MVP_CLASSES.index(name) for name in ("car", "bus", "pedestrian"))


def ranks_of(mask, *pixels):
    """Numbers of pixels (u, v) in a mask's list by column, then row."""
    columns, rows = np.nonzero(mask.T)
    listed = list(zip(columns.tolist(), rows.tolist(), strict=True))
    return [listed.index(pixel) for pixel in pixels]


@pytest.fixture(scope="module")
def published():
    inputs, recorded = (np.load(SHARED / f"fixtures/mvp/{name}.npz") for name in ("inputs", "virtual_points"))
    masks = np.unpackbits(inputs["masks_packed"], axis=1).reshape(-1, 900, 1600).astype(bool)
    label = NUSCENES_DETECTION.labels_from(ClassSet(tuple(inputs["class_names"])))[inputs["instance_class"]]
    calibration, instances = {}, {}
    for i, name in enumerate(inputs["camera_names"].tolist()):
        matrix, own = inputs["cam_from_lidar"][i], inputs["instance_camera"] == i
        calibration[name] = CameraView(Transform(matrix[:3, :3], matrix[:3, 3]), inputs["intrinsics"][i], (1600, 900))
        instances[name] = Instances.from_masks(masks[own], label[own], inputs["instance_score"][own], (1600, 900))
    rank = recorded["selected_pixel_rank"].astype(np.int64)
    return inputs["points"], instances, calibration, np.where(rank < 0, rank[:, :1], rank), recorded


@pytest.mark.shared
def test_equal_to_the_published_generator(published):
    points, instances, calibration, ranks, recorded = published
    assert tuple(MVP_CLASSES) == tuple(np.load(SHARED / "fixtures/mvp/inputs.npz")["class_names"])
    found = virtual_points(points, instances, calibration, ranks=ranks)
    np.testing.assert_allclose(found.virtual, recorded["virtual_points"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.painted, recorded["real_points"])
    np.testing.assert_array_equal(found.painted_row, recorded["real_points_index"])
    assert (found.painted[:, 4:14].sum(axis=1) == 2).sum() == 7  # seen in two cameras as two classes


@pytest.mark.shared
def test_rows_are_those_that_the_published_networks_read(published):
    points, instances, calibration, ranks, _ = published
    rows = fused_rows(points, virtual_points(points, instances, calibration, ranks=ranks))
    recorded = np.load(SHARED / "fixtures/mvp/detector_inputs.npz")
    real, painted, virtual = np.split(rows[:, :15], np.cumsum(recorded["assembled_rows"])[:2])
    assert len(rows) == recorded["assembled_rows"].sum()
    for ours, name in ((real, "head"), (painted, "painted"), (virtual, "virtual")):
        theirs = recorded[f"assembled_{name}"][:, :15]
        np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=0, atol=1e-4)


@pytest.mark.shared
@pytest.mark.parametrize("device", DEVICES)
def test_pictures_of_numbers_find_the_same_members(published, device):
    points, instances, calibration, _, _ = published
    index, views = MaskIndex(list(instances.values())), list(calibration.values())
    kernel, pictures = index.members(points, views), on_gpu.find_members(torch.from_numpy(points).to(device), index, views)
    assert len(kernel.point) == 2203
    for one, other in zip(kernel, pictures, strict=True):
        np.testing.assert_array_equal(one, other.cpu().numpy())


COLUMNS = ("virtual", "virtual_instance", "painted", "painted_row")


@pytest.fixture
def as_on_gpu(monkeypatch):
    """`virtual_points` that takes the way of a GPU on the CPU."""

    def call(points, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(module, "_virtual", lambda _members, draw: parts(points, draw)[:2])
            patch.setattr(module, "_painted", lambda _points, _members, draw: parts(points, draw)[2:])
            names = [name for name in arguments[1] if name in arguments[0] and len(arguments[0][name])]
            index, views = MaskIndex([arguments[0][name] for name in names]), [arguments[1][name] for name in names]

            def parts(points, draw):
                return [part.numpy() for part in on_gpu.fused(torch.from_numpy(points), index, views, draw)]

            return virtual_points(points, *arguments, **options)

    return call


@pytest.mark.shared
def test_the_way_of_a_gpu_gives_the_same_bits(published, as_on_gpu):
    points, instances, calibration, _, _ = published
    ours, theirs = virtual_points(points, instances, calibration, seed=3), as_on_gpu(points, instances, calibration, seed=3)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.shared
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=ON_GPU)])
def test_a_gpu_gives_the_same_bits(published, device):
    points, instances, calibration, _, _ = published
    ours = virtual_points(points, instances, calibration, seed=3)
    theirs = virtual_points(torch.from_numpy(points).to(device), instances, calibration, seed=3)
    for name in COLUMNS:
        assert getattr(theirs, name).device.type == device
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name).cpu().numpy())


def test_nothing_on_the_way_of_a_gpu(as_on_gpu):
    for instances in ({}, {"C": Instances.empty(SIZE)}, {"C": shown((box_mask(0, 0, 0, 0), 0, 1.0))}):
        found = as_on_gpu(cloud(at_pixel(4.5, 4.5, 10.0)), instances, {"C": view()})
        assert (found.virtual.shape, found.painted.shape) == ((0, 14), (0, 15))


@pytest.mark.shared
@pytest.mark.parametrize("camera", range(6))
def test_points_are_seen_where_the_published_projection_puts_them(published, camera):
    """A mask of everything: each point that the published code calls valid is a member, at its pixel and depth."""
    points, _, calibration, _, _ = published
    recorded = np.load(SHARED / "fixtures/mvp/projection.npz")["projected_xyd_valid"][camera]
    one = Instances.from_masks([np.ones((900, 1600), bool)], [0], [1.0], (1600, 900))
    found = MaskIndex([one]).members(points[::3], [list(calibration.values())[camera]])
    is_seen = recorded[:, 3] == 1
    differs = np.setxor1d(np.flatnonzero(is_seen), found.point)
    assert len(differs) <= 1  # they round to float32 before they take whole parts
    both = np.isin(found.point, np.flatnonzero(is_seen))
    theirs = recorded[found.point[both]]
    assert (found.pixel[both] != theirs[:, :2]).any(axis=1).sum() <= 2
    np.testing.assert_allclose(found.depth[both], theirs[:, 2], rtol=1e-5, atol=1e-4)


def test_a_pixel_takes_the_depth_of_the_nearest_return_of_its_object():
    mask = box_mask(2, 2, 12, 5)
    near, far = at_pixel(3.5, 3.5, 10.0), at_pixel(10.5, 3.5, 20.0)
    rank = np.array([ranks_of(mask, (2, 2), (11, 4), (7, 3), (6, 3))])
    found = virtual_points(cloud(near, far), {"C": shown((mask, BUS, 0.75))}, {"C": view()}, ranks=rank)
    # pixel (7, 3) is 4 pixels from the return at (3, 3) and 3 from the one at (10, 3); (6, 3) is 3 and 4 away
    expected = [at_pixel(2, 2, 10)[:3], at_pixel(11, 4, 20)[:3], at_pixel(7, 3, 20)[:3], at_pixel(6, 3, 10)[:3]]
    np.testing.assert_allclose(found.virtual[:, :3], expected, atol=1e-5)
    assert (found.virtual[:, 3 + BUS_COLUMN] == 1).all()
    assert (found.virtual[:, 3:13].sum(axis=1) == 1).all()
    assert (found.virtual[:, 13] == 0.75).all()
    np.testing.assert_array_equal(found.painted[:, :4], cloud(near, far)[:, :4])
    assert (found.painted[:, 4 + BUS_COLUMN] == 1).all()
    assert found.painted_row.tolist() == [0, 1]
    assert found.virtual_instance.tolist() == [0] * 4


def test_equally_near_returns_the_first_of_the_cloud():
    mask = box_mask(2, 2, 12, 5)
    left, right = at_pixel(4.5, 3.5, 10.0), at_pixel(8.5, 3.5, 20.0)
    rank = np.array([ranks_of(mask, (6, 3))])
    for rows, depth in (((left, right), 10), ((right, left), 20)):
        assert virtual_points(cloud(*rows), {"C": shown((mask, 0, 1.0))}, {"C": view()}, ranks=rank).virtual[0, 0] == depth


def test_depth_does_not_cross_to_another_object():
    car, person = box_mask(1, 1, 5, 11), box_mask(5, 1, 9, 11)
    points = cloud(at_pixel(1.5, 1.5, 30.0), at_pixel(5.5, 5.5, 8.0))
    found = virtual_points(points, {"C": shown((car, CAR, 0.9), (person, PERSON, 0.8))}, {"C": view()}, num=40)
    assert sorted(set(found.virtual[:, 0].tolist())) == [8.0, 30.0]
    assert (found.virtual[found.virtual_instance == 0, 0] == 30).all()  # although its pixels lie nearer to the person's return
    assert [found.virtual_instance.tolist().count(k) for k in (0, 1)] == [40, 40]


@pytest.mark.parametrize(
    ("point", "is_seen"),
    [
        pytest.param(at_pixel(8.5, 6.5, 5.0), True, id="ahead"),
        pytest.param([-5.0, 0.25, 0.25, 1, 0], False, id="behind: mirrored it would be seen"),
        pytest.param([0.0, 0.0, 0.0, 1, 0], False, id="in the camera"),
        pytest.param(at_pixel(0.5, 6.5, 5.0), False, id="column 0 is lost, as published"),
        pytest.param(at_pixel(8.5, 0.5, 5.0), False, id="row 0 is lost"),
        pytest.param(at_pixel(1.01, 1.01, 5.0), True, id="column 1, row 1"),
        pytest.param(at_pixel(15.99, 11.99, 5.0), True, id="last column, last row"),
        pytest.param(at_pixel(16.01, 6.5, 5.0), False, id="right of the picture"),
        pytest.param(at_pixel(8.5, 12.01, 5.0), False, id="below the picture"),
        pytest.param([np.nan, 0, 0, 1, 0], False, id="NaN"),
        pytest.param([np.inf, 0, 0, 1, 0], False, id="infinite"),
        pytest.param([np.inf, np.inf, np.inf, 1, 0], False, id="infinite everywhere"),
        pytest.param([3e38, 1e37, 1e37, 1, 0], True, id="as far as float32 goes"),
    ],
)
def test_which_points_a_camera_sees(point, is_seen):
    one = shown((np.ones(SIZE[::-1], bool), CAR, 1.0))
    found = virtual_points(cloud(point), {"C": one}, {"C": view()}, num=5)
    assert (len(found.painted), len(found.virtual)) == ((1, 5) if is_seen else (0, 0))
    members = on_gpu.find_members(torch.from_numpy(cloud(point)), MaskIndex([one]), [view()])
    assert len(members.point) == is_seen


def test_overlapping_masks_the_first_has_the_points():
    first, second, hidden = box_mask(2, 2, 8, 8), box_mask(6, 2, 12, 8), box_mask(3, 3, 5, 5)
    points = cloud(at_pixel(7.5, 5.5, 10.0), at_pixel(10.5, 5.5, 20.0), at_pixel(4.5, 4.5, 12.0))
    instances = {"C": shown((first, CAR, 0.5), (second, BUS, 0.9), (hidden, PERSON, 1.0))}
    found = virtual_points(points, instances, {"C": view()}, num=30)
    assert found.painted[:, 4 + CAR_COLUMN].tolist() == [1, 0, 1]
    assert found.painted[:, 4 + BUS_COLUMN].tolist() == [0, 1, 0]
    assert set(found.virtual_instance.tolist()) == {0, 1}  # the hidden one has no point of its own, and no virtual ones
    assert len(found.virtual) == 60
    # its pixels count for the second one too where the first covers them, as published: sampled from the whole mask
    drawn = found.virtual[found.virtual_instance == 1, :3]
    assert (drawn[:, 1] > -(8 - 8) / 10 * 20).any()
    alone = virtual_points(points, {"C": shown((first, CAR, 0.5), (first, BUS, 0.9))}, {"C": view()}, num=30)
    assert set(alone.virtual_instance.tolist()) == {0}  # of two equal masks the first takes all


def test_a_point_in_two_cameras_has_both_classes_and_the_larger_score():
    whole = np.ones(SIZE[::-1], bool)
    instances = {"A": shown((whole, CAR, 0.3)), "B": shown((whole, PERSON, 0.6))}
    found = virtual_points(cloud(at_pixel(8.5, 6.5, 5.0)), instances, {"A": view(), "B": view(0.1)}, num=4)
    assert np.flatnonzero(found.painted[0, 4:14]).tolist() == sorted([CAR_COLUMN, PERSON_COLUMN])
    assert found.painted[0, 14] == np.float32(0.6)
    assert found.virtual_instance.tolist() == [0] * 4 + [1] * 4
    assert found.virtual[:, 13].tolist() == [np.float32(0.3)] * 4 + [np.float32(0.6)] * 4


def test_a_small_mask_has_each_pixel_once_then_the_first_one_again():
    mask = box_mask(3, 3, 5, 6)  # 6 pixels
    found = virtual_points(cloud(at_pixel(4.5, 4.5, 10.0)), {"C": shown((mask, 0, 1.0))}, {"C": view()}, num=20)
    places = [tuple(row) for row in found.virtual[:, :3].tolist()]
    assert len(set(places[:6])) == 6
    assert places[6:] == [places[0]] * 14


def test_pixels_are_drawn_without_replacement_and_each_as_often():
    counts = np.zeros(10, int)
    for seed in range(300):
        rank = draw_ranks(np.array([10]), 4, np.random.default_rng(seed))
        assert len(set(rank[0].tolist())) == 4
        counts[rank[0]] += 1
    assert (abs(counts - 120) < 40).all()  # 300 * 4 / 10, +- 4.7 standard deviations of 8.5


def test_the_same_seed_gives_the_same_points_and_another_one_others():
    mask, points = box_mask(2, 2, 14, 10), cloud(at_pixel(4.5, 4.5, 10.0), at_pixel(9.5, 8.5, 20.0))
    instances = {"C": shown((mask, 0, 1.0), (box_mask(1, 1, 3, 3), 0, 1.0))}

    def drawn(seed, rows=points):
        return virtual_points(rows, instances, {"C": view()}, num=10, seed=seed).virtual

    np.testing.assert_array_equal(drawn([0, 5]), drawn([0, 5]))
    assert (drawn([0, 5]) != drawn([0, 6])).any()
    np.testing.assert_array_equal(drawn(3), drawn(3, points[::-1]))  # the draw does not hang on the cloud


@pytest.mark.parametrize("nothing", ["no instances", "no camera", "no mask has pixels", "no points", "no calibration"])
def test_nothing_gives_nothing(nothing):
    points = cloud() if nothing == "no points" else cloud(at_pixel(4.5, 4.5, 10.0))
    instances = {
        "no instances": {"C": Instances.empty(SIZE)},
        "no mask has pixels": {"C": shown((box_mask(0, 0, 0, 0), 0, 1.0))},
        "no points": {"C": shown((box_mask(1, 1, 9, 9), 0, 1.0))},
    }.get(nothing, {})
    found = virtual_points(points, instances, {} if nothing == "no calibration" else {"C": view()})
    assert (found.virtual.shape, found.painted.shape) == ((0, 14), (0, 15))
    assert (len(found.virtual_instance), len(found.painted_row)) == (0, 0)
    assert fused_rows(points, found).shape == (len(points), 16)


def test_a_missing_camera_leaves_the_others_as_they_are():
    whole = np.ones(SIZE[::-1], bool)
    points, views = cloud(at_pixel(8.5, 6.5, 5.0), [-5.0, 0.25, 0.25, 1, 0]), {"A": view(), "B": view(np.pi)}
    both = virtual_points(points, {"A": shown((whole, CAR, 0.3)), "B": shown((whole, BUS, 0.6))}, views, num=6)
    one = virtual_points(points, {"A": shown((whole, CAR, 0.3))}, views, num=6)
    assert (both.painted_row.tolist(), one.painted_row.tolist()) == ([0, 1], [0])
    np.testing.assert_array_equal(one.virtual, both.virtual[:6])


@pytest.mark.parametrize("kind", ["cloud", "array", "read-only", "strided", "tensor"])
def test_every_kind_of_cloud_gives_the_same(kind):
    points = cloud(at_pixel(4.5, 4.5, 10.0), at_pixel(9.5, 8.5, 20.0))
    instances = {"C": shown((box_mask(2, 2, 14, 10), 0, 1.0))}
    given = {
        "cloud": lambda: PointCloud(points),
        "array": lambda: points[:, :4].copy(),
        "read-only": lambda: np.frombuffer(points.tobytes(), np.float32).reshape(-1, 5),
        "strided": lambda: np.repeat(points, 2, axis=0)[::-2][::-1],
        "tensor": lambda: torch.from_numpy(points),
    }[kind]()
    found, expected = (virtual_points(rows, instances, {"C": view()}) for rows in (given, points))
    assert isinstance(found.virtual, torch.Tensor if kind == "tensor" else np.ndarray)
    for name in ("virtual", "painted", "painted_row"):
        np.testing.assert_array_equal(np.asarray(getattr(found, name)), getattr(expected, name))


def test_more_members_than_there_is_room_for_at_first():
    points = np.tile(cloud(at_pixel(8.5, 6.5, 5.0)), (9000, 1))
    whole = shown((np.ones(SIZE[::-1], bool), CAR, 1.0))
    found = virtual_points(points, {"A": whole, "B": whole}, {"A": view(), "B": view(0.05)}, num=2)
    assert found.painted_row.tolist() == list(range(9000))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param({"num": 0}, UsageError, r"num: expected 1 or more, got 0", id="none drawn"),
        pytest.param(
            {"calibration": {"D": view()}}, DataError, r"instances of C: expected one of the calibrated cameras D", id="foreign camera"
        ),
        pytest.param(
            {"calibration": {"C": view(size=(32, 24))}},
            DataError,
            r"instances of C: expected masks of 32 x 24 pixels, as its pictures have, got 16 x 12",
            id="masks of another size",
        ),
        pytest.param({"cloud": np.zeros((3, 3), np.float32)}, DataError, r"cloud: expected shape \(N, 4 or more\)", id="no intensity"),
        pytest.param({"cloud": np.zeros((3, 4))}, DataError, r"cloud: expected shape .* float32, got \(3, 4\) float64", id="float64"),
        pytest.param({"ranks": np.array([[64]])}, DataError, r"ranks: expected 0 to 63 for instance 0, got 64", id="rank too high"),
        pytest.param({"ranks": np.zeros((2, 1))}, DataError, r"ranks: expected a row for each of the 1 instances", id="too many ranks"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    good = {
        "cloud": cloud(at_pixel(4.5, 4.5, 10.0)),
        "instances": {"C": shown((box_mask(1, 1, 9, 9), 0, 1.0))},
        "calibration": {"C": view()},
    }
    with pytest.raises(error, match=message):
        virtual_points(**(good | call))


def test_a_calibration_that_is_no_pinhole_is_refused():
    with pytest.raises(DataError, match="expected a pinhole matrix that ends in 0, 0, 1"):
        CameraView(Transform.identity(), INTRINSICS * 2, SIZE)
