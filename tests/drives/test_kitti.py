"""KITTI frames: by eye on small recordings in code, in both layouts."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from perception.core import NUSCENES_DETECTION, DataError, Drive, UsageError
from perception.drives import Kitti, open_drives
from tests.drives.kitti_maker import (
    CENTER,
    DATE,
    DRIVE,
    FIRST_US,
    FOCAL,
    SIZE,
    STEP_US,
    cloud_rows,
    oxts_line,
    write_kitti_raw,
    write_kitti_tracking,
)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return {
        "training-0000": write_kitti_tracking(tmp_path_factory.mktemp("tracking")),
        DRIVE: write_kitti_raw(tmp_path_factory.mktemp("raw")),
    }


@pytest.fixture(params=["training-0000", DRIVE])
def drive(request, roots):
    return Kitti(roots[request.param]).drive(request.param)


def test_a_frame_by_eye(drive):
    assert isinstance(drive, Drive)
    assert repr(drive) == f"KittiDrive({drive.name}, 3 frames)"
    frame = drive[1]
    np.testing.assert_allclose(frame.ego_to_global.translation, [0.4, 0, 0], atol=1e-9)  # 4 m/s for 0.1 s to the east, which is x
    assert frame.ego_to_global.yaw == 0
    np.testing.assert_allclose(frame.lidar_to_ego.matrix, [[1, 0, 0, 0.76], [0, 1, 0, 0], [0, 0, 1, 1.73], [0, 0, 0, 1]])

    truth = frame.truth  # neither tram nor DontCare
    assert truth.names.tolist() == ["car", "bicycle"]
    assert truth.classes is NUSCENES_DETECTION
    assert truth.score.tolist() == [1, 1]
    assert truth.attribute is None
    assert truth.num_points is None
    # the middle of the box, in the global frame: half a height above the bottom, one step on
    np.testing.assert_allclose(truth.boxes.center, [[10.2, 2, 0.9], [5, -3.1, 0.85]], atol=1e-6)
    np.testing.assert_allclose(truth.boxes.size, [[4.5, 2, 1.6], [1.8, 0.6, 1.7]])
    np.testing.assert_allclose(truth.boxes.yaw, [0.3, -np.pi / 2], atol=1e-8)
    np.testing.assert_allclose(truth.boxes.velocity, [[2, 0], [0, -1]], atol=1e-5)
    assert len(drive[0].truth) == 2
    assert drive[2].truth.names.tolist() == ["car"]


def test_names_and_times_of_the_tracking_benchmark(roots):
    drives = Kitti(roots["training-0000"]).drives()
    assert [drive.name for drive in drives] == ["training-0000", "training-0001"]
    assert drives[1].tokens == [frame.token for frame in drives[1]] == [f"training-0001-00000{i}" for i in range(3)]
    assert [frame.timestamp_us for frame in drives[0]] == [0, 100_000, 200_000]  # no times in the files: ten turns a second
    assert drives[0][0].truth.instance.tolist() == ["training-0000-3", "training-0000-7"]  # unique over drives


def test_names_and_times_of_raw_recordings(roots):
    drive = Kitti(roots[DRIVE]).drives()[0]
    assert drive.tokens == [frame.token for frame in drive] == [f"{DRIVE}-000000000{i}" for i in range(3)]
    assert [frame.timestamp_us for frame in drive] == [FIRST_US + i * STEP_US for i in range(3)]
    assert drive[0].truth.instance.tolist() == [f"{DRIVE}-0", f"{DRIVE}-1"]  # tracklets are numbered by their order


def test_the_lidar_times_are_cut_to_microseconds(tmp_path):
    root = write_kitti_raw(tmp_path)
    (root / DATE / DRIVE / "velodyne_points/timestamps.txt").write_text(
        "2011-09-26 13:04:36.466424567\n2011-09-26 13:04:36.5\n2011-09-26 13:04:37\n\n"
    )
    # 15,243 days and 13:04:36 after 1970-01-01
    second = 15_243 * 86_400 + 13 * 3600 + 4 * 60 + 36
    assert [f.timestamp_us for f in open_drives(root)[0]] == [second * 10**6 + 466_424, second * 10**6 + 500_000, (second + 1) * 10**6]


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        pytest.param("training-0000", [4, 2, 1], id="labels say fully visible, partly, largely occluded"),
        pytest.param(DRIVE, [4, 2, 1], id="tracklets say visible, partly, fully occluded"),
    ],
)
def test_occlusion_becomes_a_level_of_visibility(roots, name, levels):
    drive = Kitti(roots[name]).drive(name)
    assert [frame.truth.visibility[0] for frame in drive] == levels


def test_unknown_occlusion_is_no_level(tmp_path):
    drive = open_drives(write_kitti_tracking(tmp_path, frames=4))[0]
    assert drive[3].truth.visibility.tolist() == [0]  # 3: unknown


def test_the_cloud_is_read_when_asked_for_with_no_age(drive):
    cloud = drive[0].cloud
    np.testing.assert_array_equal(cloud.points[:, :4], cloud_rows())
    assert drive[0].intensity_top == 1.0  # which is why nothing is scaled here
    np.testing.assert_array_equal(cloud.points[:, 4], 0)
    assert cloud.ring is None
    assert cloud.points.flags.writeable
    assert cloud.points.dtype == np.float32


def test_a_camera_by_eye(drive):
    frame = drive[2]
    assert list(frame.cameras) == ["image_02"]  # the one with images
    camera = frame.cameras["image_02"]
    assert (camera.name, camera.size, camera.timestamp_us) == ("image_02", SIZE, frame.timestamp_us)
    np.testing.assert_allclose(camera.intrinsics, [[FOCAL, 0, CENTER[0]], [0, FOCAL, CENTER[1]], [0, 0, 1]])
    np.testing.assert_allclose(camera.camera_to_ego.apply([[0, 0, 10]]), [[11.03, 0, 1.65]], atol=1e-12)  # z looks ahead
    np.testing.assert_allclose(camera.camera_to_ego.apply([[1, 0, 0]]), [[1.03, -1, 1.65]], atol=1e-12)  # x to the right
    np.testing.assert_allclose(camera.ego_to_global.matrix, frame.ego_to_global.matrix)
    np.testing.assert_array_equal(camera.image[0, 0], [10, 20, 30])
    assert camera.image.shape == (SIZE[1], SIZE[0], 3)


def test_the_right_camera_is_to_the_right(tmp_path):
    root = write_kitti_tracking(tmp_path)
    folder = root / "training/image_03/0000"
    folder.mkdir(parents=True)
    Image.new("RGB", (50, 40)).save(folder / "000001.png")
    drive = open_drives(root)[0]
    assert [list(frame.cameras) for frame in drive] == [["image_02"], ["image_02", "image_03"], ["image_02"]]  # those that are there
    camera = drive[1].cameras["image_03"]
    np.testing.assert_allclose(camera.camera_to_ego.translation, [1.03, -0.5, 1.65], atol=1e-12)
    assert camera.size == (50, 40)


def test_images_are_not_needed(tmp_path):
    drives = open_drives(write_kitti_tracking(tmp_path / "t", images=False)) + open_drives(write_kitti_raw(tmp_path / "r", images=False))
    for drive in drives:
        assert [frame.cameras for frame in drive] == [{}] * 3
        assert drive[0].labelled_view.camera == "image_02"
    # raw calibration holds the size, that of the tracking benchmark does not: twice the principal point of an unknown camera
    assert drives[0][0].labelled_view.size == drives[-1][0].labelled_view.size == SIZE


@pytest.mark.parametrize(("focal_length", "size"), [("7.215377e+02", (1242, 375)), ("7.188560e+02", (1241, 376)), ("123.4", (160, 90))])
def test_sizes_of_the_recording_days_are_known_by_their_focal_length(tmp_path, focal_length, size):
    root = write_kitti_tracking(tmp_path, images=False)
    path = root / "training/calib/0000.txt"
    path.write_text(path.read_text().replace("P2: 100.0", f"P2: {focal_length}"))
    assert open_drives(root)[0][0].labelled_view.size == size


def test_truth_is_complete_where_the_left_colour_camera_looks(drive):
    view = drive[0].labelled_view
    assert repr(view) == "LabelledView(image_02, 160x90)"
    # 10 m ahead of the camera the image is 16 m wide and 9 m high
    ahead = [[7.9, 1.65], [8.1, 1.65], [-7.9, 1.65], [-8.1, 1.65], [0, 6.1], [0, 6.2]]
    assert view.contains([*([11.03, y, z] for y, z in ahead), [-9, 0, 1.65]]).tolist() == [True, False, True, False, True, False, False]


def test_cameras_and_truth_can_be_left_out(roots):
    for name, root in roots.items():
        frame = Kitti(root, cameras=False, truth=False).drive(name)[0]
        assert frame.cameras == {}
        assert frame.truth is None
        assert frame.labelled_view is None


def test_recordings_without_labels_have_no_truth(tmp_path):
    root = write_kitti_raw(write_kitti_tracking(write_kitti_tracking(tmp_path), split="testing", labels=False), labels=False)
    dataset = Kitti(root)
    assert dataset.drive_names == ["training-0000", "training-0001", "testing-0000", "testing-0001", DRIVE]
    assert [drive[0].truth is None for drive in dataset.drives()] == [False, False, True, True, True]
    assert dataset.drive("testing-0000")[0].labelled_view is None
    assert [drive.name for drive in dataset.drives("testing")] == ["testing-0000", "testing-0001"]
    assert [drive.name for drive in dataset.drives("raw")] == [DRIVE]


def test_frames_without_objects_have_an_empty_truth(tmp_path):
    root = write_kitti_tracking(tmp_path)
    path = root / "training/label_02/0000.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("2 ")))
    truth = open_drives(root)[0][1].truth
    assert len(truth) == 0
    assert truth.classes is NUSCENES_DETECTION
    assert truth.instance.shape == truth.visibility.shape == (0,)
    path.write_text("")
    assert [len(frame.truth) for frame in open_drives(root)[0]] == [0, 0, 0]


def test_one_annotation_has_no_velocity_and_ends_have_a_one_sided_one(tmp_path):
    root = write_kitti_tracking(tmp_path, frames=6)
    path = root / "training/label_02/0000.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if " Car " not in line or line[0] in "135") + lines[1].replace(" 3 ", " 9 "))
    truth = [frame.truth for frame in open_drives(root)[0]]
    car = [t.boxes.velocity[t.names == "car"] for t in truth]
    np.testing.assert_allclose(np.concatenate([car[i] for i in (1, 3, 5)]), [[2, 0]] * 3, atol=1e-4)  # over gaps of a frame
    assert np.isnan(car[0]).all()
    assert car[0].shape == (1, 2)  # number 9, seen once
    assert truth[0].names.tolist() == ["bicycle", "car"]  # in the order of the file


def test_every_kitti_class_is_mapped(tmp_path):
    root = write_kitti_tracking(tmp_path)
    line = "0 {} {} 0 0 0 0 0 1 1 1.5 1.6 3.9 1 1 {} 0\n"
    names = ["Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Person", "Cyclist", "Tram", "Misc"]
    (root / "training/label_02/0000.txt").write_text("".join(line.format(i, name, 10 + 5 * i) for i, name in enumerate(names)))
    truth = open_drives(root)[0][0].truth
    assert truth.names.tolist() == ["car", "car", "truck", "pedestrian", "pedestrian", "pedestrian", "bicycle"]


def test_tracklets_name_people_who_sit_in_their_own_way(tmp_path):
    root = write_kitti_raw(tmp_path)
    path = root / DATE / DRIVE / "tracklet_labels.xml"
    path.write_text(path.read_text().replace("Tram", "Person (sitting)"))
    assert open_drives(root)[0][0].truth.names.tolist() == ["car", "bicycle", "pedestrian"]


def test_poses_of_tracklets_that_were_left_unset_are_left_out(tmp_path):
    root = write_kitti_raw(tmp_path)
    path = root / DATE / DRIVE / "tracklet_labels.xml"
    path.write_text(path.read_text().replace("<state>2</state>", "<state>0</state>", 1))
    assert [frame.truth.names.tolist() for frame in open_drives(root)[0]] == [["bicycle"], ["car", "bicycle"], ["car"]]


def test_turned_and_tilted_packets_turn_the_ego_frame(tmp_path):
    root = write_kitti_tracking(tmp_path)
    lines = [oxts_line(0), oxts_line(1).replace(" 0 0 0 ", f" 0 0 {np.pi / 2!r} ", 1), oxts_line(2).replace(" 0 0 0 ", " 0.1 0 0 ", 1)]
    (root / "training/oxts/0000.txt").write_text("\n".join(lines))
    drive = open_drives(root)[0]
    np.testing.assert_allclose(drive[1].ego_to_global.yaw, np.pi / 2)  # north
    # the inertial unit is at (-0.05, 0.32, 0.93) of the ego frame: turned left it is at (-0.32, -0.05) of the axle, which so is at
    # unit + (0.32, 0.05), and the unit is where it was plus 0.4 m
    np.testing.assert_allclose(drive[1].ego_to_global.translation, [-0.05 + 0.4 + 0.32, 0.32 + 0.05, 0], atol=1e-8)
    np.testing.assert_allclose(drive[2].ego_to_global.rotate([[0, 1, 0]]), [[0, np.cos(0.1), np.sin(0.1)]], atol=1e-12)  # left side up


def test_angles_are_taken_as_roll_then_pitch_then_yaw(tmp_path):
    root = write_kitti_tracking(tmp_path)
    (root / "training/oxts/0000.txt").write_text(oxts_line(0).replace(" 0 0 0 ", " 0.3 0.2 1.1 ", 1))
    (root / "training/label_02/0000.txt").unlink()
    for number in (1, 2):
        (root / f"training/velodyne/0000/00000{number}.bin").unlink()
    expected = Rotation.from_euler("ZYX", [1.1, 0.2, 0.3]).as_matrix()  # capitals: about axes that turn along
    np.testing.assert_allclose(open_drives(root)[0][0].ego_to_global.rotation, expected, atol=1e-12)


@pytest.mark.parametrize("layout", ["tracking", "raw"])
def test_tilted_sensors_are_turned_into_the_axes_of_the_inertial_unit(tmp_path, layout):
    yaw, tilt = Rotation.from_euler("z", 0.2), Rotation.from_euler("y", 0.1)
    turn, rectify = (" ".join(map(repr, rotation.as_matrix().ravel().tolist())) for rotation in (yaw, tilt))
    if layout == "tracking":
        root = write_kitti_tracking(tmp_path)
        path = root / "training/calib/0000.txt"
        rows = np.column_stack([yaw.as_matrix(), [-0.81, 0.32, -0.8]])
        turned = f"Tr_imu_velo {' '.join(map(repr, rows.ravel().tolist()))}"
        text = path.read_text().replace("Tr_imu_velo 1 0 0 -0.81 0 1 0 0.32 0 0 1 -0.8", turned)
        path.write_text(text.replace("R_rect 1 0 0 0 1 0 0 0 1", f"R_rect {rectify}"))
    else:
        root = write_kitti_raw(tmp_path)
        (root / DATE / "calib_imu_to_velo.txt").write_text(f"R: {turn}\nT: -0.81 0.32 -0.8\n")
        path = root / DATE / "calib_cam_to_cam.txt"
        path.write_text(path.read_text().replace("R_rect_00: 1 0 0 0 1 0 0 0 1", f"R_rect_00: {rectify}"))
    frame = open_drives(root)[0][0]
    np.testing.assert_allclose(frame.lidar_to_ego.translation, [0.76, 0, 1.73])
    # the unit's x looks to the lidar's left by 0.2, so the lidar looks to the right of the ego frame's x
    np.testing.assert_allclose(frame.lidar_to_ego.yaw, -0.2)
    # the rectified camera's z is the lidar camera's turned back by 0.1 about y (down): to the left of the lidar's x
    ahead = frame.cameras["image_02"].camera_to_ego.rotate([0, 0, 1])
    np.testing.assert_allclose(np.arctan2(ahead[1], ahead[0]), -0.2 + 0.1, atol=1e-9)


def test_odometry_poses_do_where_there_are_no_packets(tmp_path):
    root = write_kitti_tracking(tmp_path)
    (root / "training/oxts/0000.txt").unlink()
    (root / "training/poses").mkdir()
    # camera 0: 2 m ahead (z) and turned left by 90 degrees (its z looks to where -x was)
    rows = ["1 0 0 5 0 1 0 5 0 0 1 5", "0 0 -1 5 0 1 0 5 1 0 0 7", "1 0 0 5 0 1 0 5 0 0 1 9"]  # they need not start at 0
    (root / "training/poses/0000.txt").write_text("\n".join(rows) + "\n")
    drive = open_drives(root)[0]
    np.testing.assert_allclose(drive[0].ego_to_global.matrix, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(drive[1].ego_to_global.yaw, np.pi / 2)
    # the camera is 1.03 m ahead of the axle: at (3.03, 0), from where the axle is 1.03 m to the south
    np.testing.assert_allclose(drive[1].ego_to_global.translation, [3.03, -1.03, 0], atol=1e-12)
    np.testing.assert_allclose(drive[2].ego_to_global.translation, [4, 0, 0], atol=1e-12)


def test_frames_are_found_by_token_and_drives_by_name(roots):
    dataset = Kitti(roots["training-0000"])
    assert dataset.frame("training-0001-000002").timestamp_us == 200_000
    for token in ("training-0001-000003", "training-0001-2", "training-0002-000000", "x", "training-0001-", "training-0001-²"):
        with pytest.raises(UsageError, match="not in"):
            dataset.frame(token)
    with pytest.raises(UsageError, match=r"drive 'training-000': not in .*; did you mean 'training-000"):
        dataset.drive("training-000")
    with pytest.raises(UsageError, match="split 'trainin': expected one of 'training', 'testing', 'raw'; did you mean 'training'"):
        dataset.drives("trainin")
    with pytest.raises(UsageError, match=r"split 'testing': .* has no drives of it"):
        dataset.drives("testing")
    with pytest.raises(UsageError, match="on_missing 'x': expected error, skip or empty"):
        Kitti(roots["training-0000"], on_missing="x")


def test_missing_clouds_raise_are_skipped_or_empty_as_asked(tmp_path):
    root = write_kitti_raw(write_kitti_tracking(tmp_path))
    paths = {
        "training-0000": root / "training/velodyne/0000/000001.bin",
        DRIVE: root / DATE / DRIVE / "velodyne_points/data/0000000001.bin",
    }
    for name, path in paths.items():
        path.unlink()
        drive = Kitti(root).drive(name)
        assert len(list(drive)) == 3
        with pytest.raises(DataError, match=rf"{path}: the lidar file of frame '{drive.token(1)}' is missing; on_missing="):
            drive[1].cloud  # noqa: B018
        skipping = Kitti(root, on_missing="skip")
        assert [frame.token for frame in skipping.drive(name)] == [drive.token(0), drive.token(2)]
        assert skipping.missing == {drive.token(1)}
        empty = Kitti(root, on_missing="empty")
        assert [len(frame.cloud) for frame in empty.drive(name)] == [5, 0, 5]
        assert empty.missing == {drive.token(1)}


def test_other_folders_are_no_drives(tmp_path):
    root = write_kitti_raw(write_kitti_tracking(tmp_path, sequences=("0000",)))
    for other in ("training/velodyne/notes", f"{DATE}/2011_09_26_drive_0005_extract", "2011_09_26_old/2011_09_26_drive_0009_sync"):
        (root / other).mkdir(parents=True)
    (root / DATE / "2011_09_26_drive_0006_sync").write_text("")
    assert Kitti(root).drive_names == ["training-0000", DRIVE]


def test_the_files_of_a_drives_clouds_are_known(tmp_path):
    drive = Kitti(write_kitti_tracking(tmp_path)).drive("training-0001")
    assert [path.relative_to(tmp_path).as_posix() for path in drive.lidar_paths] == [
        f"training/velodyne/0001/00000{i}.bin" for i in range(3)
    ]
