"""Accumulated sweeps: by eye, against a plain float64 oracle, the reference's fixture, the official devkit and the real world."""

import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.nuscenes import NuScenes as Devkit
from nuscenes.utils.data_classes import LidarPointCloud
from scipy.spatial import cKDTree

from perception.core import Frame, PointCloud, Sweep, Transform, UsageError
from perception.drives import NuScenes, accumulate_sweeps
from tests.makers import write_turning_drives

MOUNTING = Transform.from_yaw(-np.pi / 2, (1.0, 0.0, 1.8))  # the lidar's y looks ahead
START_US = 1_500_000_000_000_000
LIMIT = np.float32(1.0)


def cloud(*points: tuple[float, ...]) -> PointCloud:
    """x, y, z, intensity of each point."""
    rows = np.array(points, np.float32).reshape(-1, 4)
    return PointCloud(np.column_stack([rows, np.zeros(len(rows), np.float32)]), np.arange(len(rows)))


def recorded(clouds: list[PointCloud], poses: list[Transform], times_us: list[int], mountings: list[Transform] | None = None) -> Frame:
    """The last moment as a frame, the ones before as its sweeps."""
    *before, key = [
        {"timestamp_us": t, "lidar_to_ego": m, "ego_to_global": p, "read_cloud": lambda c=c: c}
        for c, p, t, m in zip(clouds, poses, times_us, mountings or [MOUNTING] * len(clouds), strict=True)
    ]
    sweeps = [Sweep(token=f"s{i}", **moment) for i, moment in enumerate(before)][::-1]
    return Frame("f", cameras={}, truth=None, find_sweeps=lambda count: sweeps[:count], **key)


def driving(count: int, step_us: int = 100_000) -> Frame:
    """An ego at 10 m/s along x that sees a wall at x = 21 and a point on its own roof; the lidar is at x = 1."""
    poses = [Transform.from_yaw(0.0, (k * step_us * 1e-5, 0.0, 0.0)) for k in range(count)]
    clouds = [cloud((0, 20 - k * step_us * 1e-5, 0, 10 + k), (0.5, -0.5, 0, 99)) for k in range(count)]
    return recorded(clouds, poses, [START_US + k * step_us for k in range(count)])


def test_what_stands_still_lines_up_and_the_roof_goes():
    got = accumulate_sweeps(driving(3), 3)
    assert got.points.dtype == np.float32
    assert got.points.flags.c_contiguous
    assert got.ring is None
    np.testing.assert_allclose(
        got.points,  # 2 m driven: the wall is 18 m ahead; the key sweep keeps its roof
        [[0, 18, 0, 12, 0], [0.5, -0.5, 0, 99, 0], [0, 18, 0, 11, 0.1], [0, 18, 0, 10, 0.2]],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("point", "is_kept"),
    [
        pytest.param((0, 0, 0), False, id="in the lidar"),
        pytest.param((0.99, -0.99, 50), False, id="a square, whatever the height"),
        pytest.param((-1, 0, 0), True, id="on the border in x"),
        pytest.param((0, 1, 0), True, id="on the border in y"),
        pytest.param((float(np.nextafter(LIMIT, 0, dtype=np.float32)), 0, 0), False, id="one step inside"),
        pytest.param((0.5, 1.5, 0), True, id="close in x only"),
        pytest.param((-1.5, 0.5, 0), True, id="close in y only"),
    ],
)
def test_the_ego_vehicles_own_points_are_a_square_in_the_frame_of_their_sweep(point, is_kept):
    far = Transform.from_yaw(0.0, (100.0, 0.0, 0.0))  # the sweep's roof is not the key's
    clouds = [cloud((*point, 1)), cloud((30, 30, 0, 2))]
    frame = recorded(clouds, [Transform.identity(), far], [START_US, START_US + 50_000])
    assert len(accumulate_sweeps(frame, 2)) == 1 + is_kept


@pytest.mark.parametrize("num_sweeps", [1, 2, 3])
def test_no_more_sweeps_than_asked_for(num_sweeps):
    ages = accumulate_sweeps(driving(5), num_sweeps).points[1:, 4]
    np.testing.assert_allclose(ages, np.arange(num_sweeps) * 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("recorded_turns", "repeat_oldest", "ages"),
    [
        pytest.param(3, True, [0, 0, 0.1, 0.2, 0.2, 0.2], id="the oldest comes again"),
        pytest.param(3, False, [0, 0, 0.1, 0.2], id="the oldest once"),
        pytest.param(1, True, [0, 0, 0, 0, 0, 0], id="no other: the key sweep without its roof"),
        pytest.param(1, False, [0, 0], id="no other"),
    ],
)
def test_the_start_of_a_drive(recorded_turns, repeat_oldest, ages):
    got = accumulate_sweeps(driving(recorded_turns), 5, repeat_oldest=repeat_oldest).points
    np.testing.assert_allclose(got[:, 4], ages, atol=1e-6)
    wall = 20 - (recorded_turns - 1)
    np.testing.assert_allclose(got[:, 1], [wall, -0.5, *[wall] * (len(ages) - 2)], atol=1e-5)
    np.testing.assert_array_equal(got[:, 3] == 99, [False, True] + [False] * (len(ages) - 2))


@pytest.mark.parametrize(("within", "ages"), [(0.05, [0.0]), (0.1, [0.0, 0.1]), (0.25, [0.0, 0.1, 0.2]), (9.0, [0.0, 0.1, 0.2, 0.3])])
def test_sweeps_within_a_time(within, ages):
    got = accumulate_sweeps(driving(4), 6, within=within).points  # none comes again
    np.testing.assert_allclose(np.unique(got[:, 4]), ages, atol=1e-6)
    assert len(got) == 2 + len(ages) - 1  # the roof is seen in the key sweep only
    assert len(np.unique(accumulate_sweeps(driving(4), 2, within=within).points[:, 4])) == min(len(ages), 2)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([0, 0, 0], id="all"),
        pytest.param([5, 3, 0], id="the key sweep"),
        pytest.param([0, 3, 4], id="the oldest, which comes again"),
        pytest.param([3, 0, 4], id="one between"),
        pytest.param([50, 3, 1], id="a large one behind small ones"),
    ],
)
def test_clouds_may_be_empty_or_of_very_different_size(sizes):
    clouds = [cloud(*[(5 + k, 5, 0, 10 * i + k) for k in range(size)]) for i, size in enumerate(sizes)]
    frame = recorded(clouds, [Transform.identity()] * 3, [START_US, START_US + 1, START_US + 2])
    got = accumulate_sweeps(frame, 5)
    expected = [cloud.points[:, 3] for cloud in (clouds[2], clouds[1], clouds[0], clouds[0], clouds[0])]
    np.testing.assert_array_equal(got.points[:, 3], np.concatenate(expected))


def test_what_was_read_is_not_written_to():
    frame = driving(2)
    clouds = [frame.cloud, *(sweep.cloud for sweep in frame.previous_sweeps(1))]
    before = [item.points.copy() for item in clouds]
    got = accumulate_sweeps(frame, 4)
    got.points[:] = -1
    for item, points in zip(clouds, before, strict=True):
        np.testing.assert_array_equal(item.points, points)


@pytest.mark.parametrize(
    "lay_out",
    [
        pytest.param(lambda points: points.copy(), id="read only"),
        pytest.param(lambda points: np.repeat(points, 2, axis=0)[::2], id="every second row"),
        pytest.param(np.asfortranarray, id="column by column"),
    ],
)
def test_clouds_may_lie_in_memory_as_they_like(lay_out):
    points = driving(2).cloud.points
    other = lay_out(points)
    other.flags.writeable = False
    frames = [recorded([PointCloud(rows)] * 2, [MOUNTING] * 2, [START_US, START_US + 1]) for rows in (points, other)]
    assert accumulate_sweeps(frames[0]).points.tobytes() == accumulate_sweeps(frames[1]).points.tobytes()


def test_a_frame_without_earlier_sweeps_is_its_own_history():
    frame = Frame("f", START_US, MOUNTING, Transform.identity(), {}, None, lambda: cloud((9, 9, 0, 1)))
    assert frame.previous_sweeps(9) == []
    assert len(accumulate_sweeps(frame)) == 10
    assert len(accumulate_sweeps(frame, repeat_oldest=False)) == 1


@pytest.mark.parametrize("num_sweeps", [0, -1, 1.5, True, None, "10"])
def test_impossible_numbers_of_sweeps_are_refused(num_sweeps):
    with pytest.raises(UsageError, match=f"num_sweeps: expected 1 or more, the key sweep included, got {num_sweeps!r}"):
        accumulate_sweeps(driving(2), num_sweeps)


metres = st.floats(-1e4, 1e4)
quaternion = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)


def matrix(q: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """4 x 4, from a quaternion w x y z, by the product v' = q v q*."""
    w, x, y, z = q / np.linalg.norm(q)
    left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    right = np.array([[w, x, y, z], [-x, w, -z, y], [-y, z, w, -x], [-z, -y, x, w]])
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = (left @ right)[1:, 1:], translation
    return result


@settings(max_examples=60, deadline=None)
@given(poses=st.lists(st.tuples(quaternion, st.tuples(metres, metres, metres)), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_any_poses_agree_with_homogeneous_matrices(poses, seed):
    rng = np.random.default_rng(seed)
    clouds = [cloud(*rng.normal(0, 3, (rng.integers(0, 30), 4))) for _ in poses]
    mountings = [(rng.normal(size=4), rng.normal(0, 3, 3)) for _ in poses]
    times = np.sort(rng.integers(START_US, START_US + 10**6, len(poses))).tolist()
    transforms = [[Transform.from_quaternion(q, t) for q, t in pairs] for pairs in (poses, mountings)]
    got = accumulate_sweeps(recorded(clouds, transforms[0], times, transforms[1]), 6).points

    to_global = [matrix(np.array(q), t) @ matrix(*mounting) for (q, t), mounting in zip(poses, mountings, strict=True)]
    expected = [clouds[-1].points.astype(np.float64)]
    order = [*range(len(poses) - 2, -1, -1), *[0] * 6][:5]  # nearest first, then the oldest, which is the key itself if it is alone
    for i in order:
        points = np.array([p for p in clouds[i].points.astype(np.float64) if not (abs(p[0]) < 1 and abs(p[1]) < 1)]).reshape(-1, 5)
        homogeneous = np.column_stack([points[:, :3], np.ones(len(points))]).T
        moved = np.linalg.solve(to_global[-1], to_global[i] @ homogeneous)[:3].T
        expected.append(np.column_stack([moved, points[:, 3], np.full(len(points), (times[-1] - times[i]) / 1e6)]))
    expected = np.concatenate(expected)
    np.testing.assert_allclose(got, expected, rtol=2e-7, atol=1e-4)  # half a float32 step of distances up to 35 km


@pytest.mark.shared
@pytest.mark.parametrize("sample", ["S0", "S1", "S2", "S3"])
def test_the_references_clouds_are_reproduced(shared, sample):
    inputs, expected = (np.load(shared / f"fixtures/sweeps/{name}.npz", allow_pickle=False) for name in ("inputs", sample))
    tokens, ends = inputs["lidar_tokens"].tolist(), np.cumsum(inputs["raw_counts"])
    last = tokens.index(str(expected["key_token"]))
    clouds = [cloud(*rows[:, :4]) for rows in np.split(inputs["raw_points"], ends[:-1])[: last + 1]]
    poses = [Transform.from_quaternion(q, t) for q, t in zip(inputs["ego_rotation_wxyz"], inputs["ego_translation"], strict=True)][
        : last + 1
    ]
    mounting = Transform.from_quaternion(inputs["lidar_rotation_wxyz"], inputs["lidar_translation"])
    times = inputs["lidar_timestamp_us"][: last + 1].tolist()
    frame = recorded(clouds, poses, times, [mounting] * len(clouds))

    for i, sweep in enumerate(frame.previous_sweeps(9)):
        to_key = frame.lidar_to_global.inverse() @ sweep.lidar_to_global
        np.testing.assert_allclose(to_key.matrix, expected["transforms"][i], rtol=0, atol=1e-9)
    points = accumulate_sweeps(frame).points
    assert len(points) == expected["n_points"]
    np.testing.assert_allclose(points[::3], expected["points_every_3rd"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(points[::3, 3], expected["points_every_3rd"][:, 3])
    np.testing.assert_allclose(points.sum(axis=0, dtype=np.float64), expected["sum_f64"], rtol=0, atol=1e-4 * np.sqrt(len(points)))


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    return write_turning_drives(tmp_path_factory.mktemp("turning"))


def test_clouds_are_the_devkits(turning):
    # The devkit takes the roof out of the key sweep too, and repeats nothing where the drive has fewer.
    devkit = Devkit("v1.0-mini", str(turning), verbose=False)
    counts = []
    for drive in NuScenes(turning).drives():
        for frame in drive:
            theirs, times = LidarPointCloud.from_file_multisweep(
                devkit, devkit.get("sample", frame.token), "LIDAR_TOP", "LIDAR_TOP", nsweeps=10
            )
            got = accumulate_sweeps(frame, repeat_oldest=False).points
            is_key = np.arange(len(got)) < len(frame.cloud)
            got = got[~(is_key & (np.abs(got[:, :2]) < 1).all(axis=1))]
            np.testing.assert_allclose(got[:, :4], theirs.points.T, rtol=0, atol=1e-4)
            np.testing.assert_allclose(got[:, 4], times[0], rtol=0, atol=1e-6)
            counts.append(len(frame.previous_sweeps(9)))
    assert counts == [0, 9, 9] * 2


@pytest.mark.shared
def test_real_clouds_of_a_moving_car_line_up_after_compensation(shared):
    # KITTI at 10 Hz, nine sweeps are 0.9 s. The street stands still, and the ground looks the same from everywhere.
    folder = shared / "data/kitti-drive"
    oxts = np.loadtxt(folder / "oxts.txt")[:10]
    rows = dict(line.split(":", 1) for line in (folder / "calib_imu_to_velo.txt").read_text().splitlines() if ":" in line)
    rotation, translation = (np.array(rows[name].split(), np.float64) for name in ("R", "T"))
    u, _, v = np.linalg.svd(rotation.reshape(3, 3))  # written with seven digits
    velo_to_imu = Transform(u @ v, translation).inverse()
    frame = recorded(kitti_clouds(folder, 10), kitti_poses(oxts), [START_US + 100_000 * k for k in range(10)], [velo_to_imu] * 10)

    key, previous = frame.cloud.points, frame.previous_sweeps(9)
    assert np.linalg.norm((frame.ego_to_global.inverse() @ previous[-1].ego_to_global).translation) > 3
    moved, unmoved = accumulate_sweeps(frame).points[len(key) :], np.concatenate([sweep.cloud.points for sweep in previous])
    walls = [points[points[:, 2] > -1.2][::20, :3] for points in (moved, unmoved)]  # the lidar is 1.73 m above the ground
    with_motion, without = (np.median(cKDTree(key[:, :3]).query(points)[0]) for points in walls)
    assert with_motion < 0.15  # about the distance between neighbouring points
    assert without > 3 * with_motion


def kitti_poses(oxts: np.ndarray) -> list[Transform]:
    """Poses of the IMU by KITTI's Mercator projection, from rows lat, lon, alt, roll, pitch, yaw, ..."""
    scale = np.cos(np.radians(oxts[0, 0])) * 6378137.0
    poses = []
    for lat, lon, alt, roll, pitch, yaw in oxts[:, :6]:
        x, y = scale * np.radians(lon), scale * np.log(np.tan(np.radians(90 + lat) / 2))
        turns = [(np.cos(a / 2), *(np.sin(a / 2) * np.eye(3)[axis])) for axis, a in ((2, yaw), (1, pitch), (0, roll))]
        rotation = np.linalg.multi_dot([Transform.from_quaternion(q).rotation for q in turns])
        poses.append(Transform(rotation, (x, y, alt)))
    return poses


def kitti_clouds(folder, count: int) -> list[PointCloud]:
    """The first clouds of the recording, by its README's format: 16-bit steps of a centimetre by planes of bytes."""
    data, at, clouds = lzma.decompress((folder / "velodyne_0000_0019.xz").read_bytes()), 0, []
    for _ in range(count):
        n = int(np.frombuffer(data, "<u4", 1, at)[0])
        planes = np.frombuffer(data, np.uint8, 7 * n, at + 4).reshape(7, n)
        steps = np.ascontiguousarray(planes[:6].reshape(3, 2, n).transpose(2, 0, 1)).view("<i2")[..., 0]
        xyz = np.cumsum(steps.astype(np.int32), axis=0) / 100
        clouds.append(PointCloud(np.column_stack([xyz, planes[6] / 100, np.zeros(n)]).astype(np.float32)))
        at += 4 + 7 * n
    return clouds
