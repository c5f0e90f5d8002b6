"""Frames and cameras."""

import numpy as np
import pytest

from perception.core import (
    NUSCENES_DETECTION,
    Camera,
    DataError,
    Detections,
    Drive,
    Frame,
    LabelledView,
    PointCloud,
    Sweep,
    Transform,
    UsageError,
)


def frame(**changes) -> Frame:
    columns = {
        "token": "f0",
        "timestamp_us": 1_000_000,
        "lidar_to_ego": Transform.from_yaw(-np.pi / 2, (0.9, 0.0, 1.8)),
        "ego_to_global": Transform.from_yaw(np.pi, (100.0, 50.0, 0.0)),
        "cameras": {},
        "truth": None,
        "read_cloud": lambda: PointCloud(np.zeros((2, 5), np.float32)),
    }
    return Frame(**{**columns, **changes})


def camera(**changes) -> Camera:
    columns = {
        "name": "CAM_FRONT",
        "token": "",
        "size": (1600, 900),
        "intrinsics": [[1000, 0, 800], [0, 1000, 450], [0, 0, 1]],
        "camera_to_ego": Transform.identity(),
        "ego_to_global": Transform.identity(),
        "timestamp_us": 5,
        "read_image": lambda: np.zeros((900, 1600, 3), np.uint8),
    }
    return Camera(**{**columns, **changes})


def test_lidar_to_global_goes_through_the_ego_frame():
    # 1 m ahead of a nuScenes lidar (its y) is ego (1.9, 0, 1.8); the ego faces backwards at (100, 50)
    np.testing.assert_allclose(frame().lidar_to_global.apply([[0, 1, 0]]), [[98.1, 50, 1.8]], atol=1e-12)


def test_files_are_read_at_each_access_and_not_before():
    reads = []

    def read_cloud():
        reads.append("cloud")
        return PointCloud(np.zeros((2, 5), np.float32))

    def read_image():
        reads.append("image")
        return np.zeros((2, 3, 3), np.uint8)

    moment = frame(read_cloud=read_cloud, cameras={"CAM_FRONT": camera(read_image=read_image)})
    repr(moment)
    assert reads == []
    assert len(moment.cloud) == 2
    assert moment.cameras["CAM_FRONT"].image.shape == (2, 3, 3)
    assert len(moment.cloud) == 2
    assert reads == ["cloud", "image", "cloud"]


def test_repr_is_one_line():
    assert repr(frame()) == "Frame(f0, t=1000000, 0 cameras, no truth)"
    assert repr(frame(truth=Detections.empty(NUSCENES_DETECTION))) == "Frame(f0, t=1000000, 0 cameras, 0 true objects)"
    assert repr(camera()) == "Camera(CAM_FRONT, 1600x900, t=5)"


@pytest.mark.parametrize("time", [0, np.int64(7)])
def test_times_are_integers(time):
    assert frame(timestamp_us=time).timestamp_us == time


@pytest.mark.parametrize("time", [-1, 1.5, np.float64(1e15), None, "1"])
def test_times_that_are_no_microseconds_are_refused(time):
    with pytest.raises(DataError, match="Frame f0: expected timestamp_us as an integer >= 0, got "):
        frame(timestamp_us=time)


def sweep(token: str, timestamp_us: int = 900_000, read_cloud=None) -> Sweep:
    return Sweep(
        token, timestamp_us, Transform.from_yaw(-np.pi / 2, (0.9, 0.0, 1.8)), Transform.from_yaw(0.0, (98.0, 50.0, 0.0)), read_cloud
    )


def test_sweeps_have_their_own_pose_and_are_read_at_each_access_and_not_before():
    reads = []

    def read_cloud():
        reads.append("cloud")
        return PointCloud(np.zeros((2, 5), np.float32))

    (earlier,) = frame(find_sweeps=lambda count: [sweep("s0", read_cloud=read_cloud)][:count]).previous_sweeps(3)
    np.testing.assert_allclose(earlier.lidar_to_global.apply([[0, 1, 0]]), [[99.9, 50, 1.8]], atol=1e-12)
    assert repr(earlier) == "Sweep(s0, t=900000)"
    assert reads == []
    assert len(earlier.cloud) == len(earlier.cloud) == 2
    assert reads == ["cloud", "cloud"]


@pytest.mark.parametrize("count", [0, 1, np.int64(2)])
def test_the_source_of_sweeps_is_asked_for_that_many(count):
    asked = []
    frame(find_sweeps=lambda count: asked.append(count) or []).previous_sweeps(count)
    assert asked == [count]


def test_a_frame_without_a_source_of_sweeps_has_none():
    assert frame().previous_sweeps(9) == []


@pytest.mark.parametrize("count", [-1, 1.0, True, None])
def test_sweeps_are_asked_for_by_a_number(count):
    with pytest.raises(UsageError, match=f"Frame f0: expected a number of sweeps, 0 or more, got {count!r}"):
        frame().previous_sweeps(count)


@pytest.mark.parametrize("time", [-1, 1.5, None])
def test_sweeps_at_times_that_are_no_microseconds_are_refused(time):
    with pytest.raises(DataError, match="Sweep s0: expected timestamp_us as an integer >= 0, got "):
        sweep("s0", time)


def test_projection_by_eye():
    # 10 m ahead, 1 m right, 0.5 m down: 100 px right of and 50 px below the principal point
    pixels, depth = camera().project([[1.0, 0.5, 10.0], [0.0, 0.0, 2.0]])
    np.testing.assert_allclose(pixels, [[900, 500], [800, 450]])
    np.testing.assert_array_equal(depth, [10, 2])


def test_points_beside_or_behind_the_camera_have_no_pixel():
    pixels, depth = camera().project([[1, 1, 0], [0, 0, 0], [1, 1, -5], [np.nan, 0, 1], [0, 0, np.nan]])
    assert np.isnan(pixels[:3]).all()
    assert np.isnan(pixels[3:]).any(axis=1).all()
    np.testing.assert_array_equal(depth, [0, 0, -5, 1, np.nan])


def test_no_points_have_no_pixels():
    pixels, depth = camera().project(np.zeros((0, 3)))
    assert pixels.shape == (0, 2)
    assert depth.shape == (0,)


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        pytest.param(np.eye(4), r"Camera CAM_FRONT\.intrinsics: expected shape \(3, 3\), got \(4, 4\)", id="four by four"),
        pytest.param([[np.nan] * 3] * 3, r"Camera CAM_FRONT\.intrinsics: expected finite numbers, got .*nan", id="NaN"),
    ],
)
def test_bad_intrinsics_are_refused(intrinsics, message):
    with pytest.raises(DataError, match=message):
        camera(intrinsics=intrinsics)


def view(**changes) -> LabelledView:
    columns = {
        "camera": "image_02",
        "size": (160, 90),
        "intrinsics": [[100, 0, 80], [0, 100, 45], [0, 0, 1]],
        "camera_to_ego": Transform([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], (1.0, 0.0, 2.0)),  # looks ahead
    }
    return LabelledView(**{**columns, **changes})


@pytest.mark.parametrize(
    ("point", "is_seen"),
    [
        pytest.param((11, 0, 2), True, id="ahead"),
        pytest.param((11, 8, 2), True, id="left border: 10 m ahead the image is 16 m wide"),
        pytest.param((11, 8.01, 2), False, id="left of it"),
        pytest.param((11, -7.99, 2), True, id="right"),
        pytest.param((11, -8, 2), False, id="right border, which is a pixel that the image has not"),
        pytest.param((11, 0, 6.5), True, id="upper border"),
        pytest.param((11, 0, -2.5), False, id="lower border"),
        pytest.param((1, 0, 2), False, id="in the camera"),
        pytest.param((-9, 0, 2), False, id="behind"),
        pytest.param((np.nan, 0, 2), False, id="NaN"),
        pytest.param((11, np.nan, 2), False, id="NaN beside"),
    ],
)
def test_truth_is_complete_where_the_image_shows_it(point, is_seen):
    assert view().contains(np.array([point])).tolist() == [is_seen]


def test_a_labelled_view_agrees_with_the_projection_of_its_camera():
    points = np.random.default_rng(3).uniform(-20, 20, (500, 3))
    pixels, _ = camera(intrinsics=view().intrinsics).project(view().camera_to_ego.inverse().apply(points))
    with np.errstate(invalid="ignore"):
        expected = ((pixels >= 0) & (pixels < (160, 90))).all(axis=1)
    assert 20 < expected.sum() < 480
    np.testing.assert_array_equal(view().contains(points), expected)


def test_a_labelled_view_takes_no_points_and_refuses_bad_ones():
    assert view().contains(np.zeros((0, 3))).shape == (0,)
    assert repr(view()) == "LabelledView(image_02, 160x90)"
    assert frame().labelled_view is None  # truth all around
    with pytest.raises(DataError, match=r"points_ego: expected shape \(N, 3\), got \(3, 2\)"):
        view().contains(np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"LabelledView image_02\.intrinsics: expected finite numbers"):
        view(intrinsics=np.full((3, 3), np.nan))


def test_a_plain_class_is_a_drive():
    class Two:
        name = "two"

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return frame(token=str(index))

        def __iter__(self):
            return (self[i] for i in range(2))

    assert isinstance(Two(), Drive)
    assert not isinstance([frame()], Drive)  # a list has no name
