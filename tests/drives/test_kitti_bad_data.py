"""Broken KITTI recordings: each is named by file, line and field."""

import os
import re

import numpy as np
import pytest

from perception.core import DataError
from perception.drives import Kitti
from perception.drives import kitti_labels as labels_module
from tests.drives.kitti_maker import DATE, DRIVE, cloud_rows, write_kitti_raw, write_kitti_tracking

LABELS, OXTS, CALIB = "training/label_02/0000.txt", "training/oxts/0000.txt", "training/calib/0000.txt"
RAW = f"{DATE}/{DRIVE}"
XML, TIMES = f"{RAW}/tracklet_labels.xml", f"{RAW}/velodyne_points/timestamps.txt"


@pytest.fixture
def root(tmp_path):
    return write_kitti_raw(write_kitti_tracking(tmp_path, sequences=("0000",)))


def read_all(root):
    for drive in Kitti(root).drives():
        for frame in drive:
            assert len(frame.cloud) >= 0


def change(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        # labels
        pytest.param(LABELS, "0 3 Car", "0 Car", r"line 2: expected 17 fields \(frame track_id type .*\), got 16", id="label cut short"),
        pytest.param(LABELS, "0 3 Car", "zero 3 Car", r"line 2: frame: expected a whole number in 0..1000000, got 'zero'", id="frame"),
        pytest.param(LABELS, "0 3 Car", "9 3 Car", r"0000\.txt: expected frames 0..2, got 9", id="label of no frame"),
        pytest.param(LABELS, "0 3 Car", "-1 3 Car", r"line 2: frame: expected a whole number in 0\.\.", id="frame before the first"),
        pytest.param(LABELS, "0 3 Car", "0 3.5 Car", r"line 2: track_id: expected a whole number", id="track"),
        pytest.param(LABELS, "0 7 Cyclist", "0 3 Cyclist", r"line 3: object 3 comes twice in frame 0, first in line 2", id="twice"),
        pytest.param(LABELS, "1.6 2.0 4.5", "1.6 nan 4.5", r"line 2: width: expected a number in 0.001..1000, got 'nan'", id="NaN"),
        pytest.param(LABELS, "1.6 2.0 4.5", "1.6 0 4.5", r"line 2: width: expected a number in 0.001..1000, got '0'", id="no width"),
        pytest.param(LABELS, "1.6 2.0 4.5", "1.6 2.0 1e400", r"line 2: length: expected a number", id="infinite"),
        pytest.param(LABELS, "-2.000000 ", "-2_0 ", r"line 2: x: expected a number in .*, got '-2_0'", id="underscore"),
        pytest.param(LABELS, "DontCare -1", "Dontc\u00e4re -1", r"0000\.txt: expected labels in ASCII, got byte 0xc3 at 10", id="no ASCII"),
        # poses
        pytest.param(OXTS, " 4 7 5 5 0\n", " 4 7 5 5\n", r"line 1: expected 30 fields \(lat lon .*\), got 29", id="packet cut short"),
        pytest.param(OXTS, "49.0", "91", r"line 1: lat: expected a number in -85..85, got '91'", id="latitude"),
        pytest.param(OXTS, "113.5 0", "113.5 inf", r"line 1: roll: expected a number in -10..10, got 'inf'", id="angle"),
        pytest.param(OXTS, "\n49.0", "\n\n49.0", r"line 2: expected 30 fields .*, got 0", id="empty line inside"),
        # calibration of the tracking benchmark
        pytest.param(CALIB, "P2:", "P9:", r"0000\.txt: expected a line P2:, found none", id="no P2"),
        pytest.param(CALIB, "P3:", "P2:", r"line 3: 'P2' comes twice, first in line 2", id="P2 twice"),
        pytest.param(CALIB, "R_rect", "Q_rect", r"expected a line R_rect: or R0_rect:, found none", id="no rectification"),
        pytest.param(CALIB, "R_rect 1 0", "R_rect 1", r"line 4: R_rect: expected 9 numbers, got 8", id="rectification cut short"),
        pytest.param(CALIB, "R_rect 1", "R_rect 2", r"R_rect: expected a rotation matrix, got \[\[2\.0,", id="no rotation"),
        pytest.param(CALIB, "Tr_velo_cam", "Tr", r"expected a line Tr_velo_cam: or Tr_velo_to_cam:", id="no lidar"),
        pytest.param(CALIB, "Tr_velo_cam 0 -1", "Tr_velo_cam 0 1", r"line 5: Tr_velo_cam: expected a rotation matrix", id="mirrored"),
        pytest.param(CALIB, "Tr_imu_velo 1", "Tr_imu_velo one", r"line 6: Tr_imu_velo\[0\]: expected a number, got 'one'", id="word"),
        pytest.param(CALIB, "P2: 100.0", "P2: 0", r"line 2: P2: expected a pinhole camera f s cx \. 0 f cy", id="no focal length"),
        pytest.param(CALIB, "0 0 1 0\nP3", "0 1 1 0\nP3", r"line 2: P2: expected a pinhole camera", id="no pinhole"),
        # raw recordings
        pytest.param(
            f"{DATE}/calib_cam_to_cam.txt", "S_rect_02: 1.6e+02", "S_rect_02:", r"line 3: S_rect_02: expected 2 fields", id="size"
        ),
        pytest.param(f"{DATE}/calib_cam_to_cam.txt", "1.6e+02", "0", r"S_rect_02: expected a number in 1\.\.100000, got '0'", id="no size"),
        pytest.param(f"{DATE}/calib_velo_to_cam.txt", "T: 0", "T:", r"line 3: T: expected 3 numbers, got 2", id="translation"),
        pytest.param(f"{DATE}/calib_imu_to_velo.txt", "R: 1", "R: 1.01", r"imu_to_velo\.txt: R: expected a rotation matrix", id="rotation"),
        pytest.param(TIMES, "2011-09-26 13:04:36.6", "2011-09-26 13:04:36.4", r"line 2: expected a time after \d+ us, got", id="back"),
        pytest.param(TIMES, "2011-09-26 13:04:36.6", "2011-13-26 13:04:36.6", r"line 2: expected a time as .*got '2011-13-", id="month 13"),
        pytest.param(TIMES, "2011-09-26 13:04:36.5", "1901-09-26 13:04:36.5", r"line 1: expected a time after -1 us, got -", id="1901"),
        pytest.param(TIMES, "2011-09-26 13:04:36.5", "36.5", r"line 1: expected a time as 2011-09-26 .*, got '36\.5", id="no date"),
        pytest.param(TIMES, "\n2011", "\n\n2011", r"line 2: expected a time as .*, got ''", id="no time"),
        # tracklets
        pytest.param(XML, "</tracklets>", "", r"tracklet_labels\.xml: expected XML, got mismatched tag", id="no XML"),
        pytest.param(XML, "<count>3</count>", "<count>4</count>", r"tracklets: expected 4 objects as its count says, got 3", id="objects"),
        pytest.param(XML, "<poses><count>2<", "<poses><count>3<", r"object 1: expected 3 poses as their count says, got 2", id="poses"),
        pytest.param(XML, "<poses><count>2<", "<poses><count>x<", r"object 1: poses: count: expected a whole number", id="count"),
        pytest.param(XML, "tracklets", "trackles", r"tracklets: expected a list, found none", id="no list"),
        pytest.param(XML, "<h>1.6</h>", "", r"object 0: expected a field h, found none", id="no height"),
        pytest.param(XML, "<h>1.6</h>", "<h/>", r"object 0: h: expected a number in 0.001..1000, got ''", id="empty height"),
        pytest.param(XML, "<h>1.6</h>", "<h>-1</h>", r"object 0: h: expected a number in 0.001..1000, got '-1'", id="negative height"),
        pytest.param(XML, "<ty>2", "<ty>x2", r"object 0: pose 0: ty: expected a number", id="place"),
        pytest.param(XML, "<rz>0.3", "<rz>nan0.3", r"object 0: pose 0: rz: expected a number", id="turn"),
        pytest.param(XML, "<first_frame>0", "<first_frame>1", r"tracklet_labels\.xml: expected frames 0..2, got 3", id="too late"),
        pytest.param(XML, "UTF-8", "latin-9000", r"tracklet_labels\.xml: expected XML", id="unknown encoding"),
    ],
)
def test_what_is_broken_is_named(root, name, old, new, message):
    change(root / name, old, new, count=-1 if old == "tracklets" else 1)
    with pytest.raises(DataError, match=message) as caught:
        read_all(root)
    text = str(caught.value)
    assert text.startswith(str(root / name))
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(CALIB, "expected a calibration file, found no file", id="tracking calibration"),
        pytest.param(OXTS, r"expected inertial packets there, or poses in .*training/poses/0000\.txt, found neither", id="poses"),
        pytest.param(f"{DATE}/calib_cam_to_cam.txt", "expected a calibration file, found no file", id="cameras"),
        pytest.param(f"{DATE}/calib_velo_to_cam.txt", "expected a calibration file, found no file", id="lidar"),
        pytest.param(f"{DATE}/calib_imu_to_velo.txt", "expected a calibration file, found no file", id="inertial unit"),
        pytest.param(TIMES, "expected the times of the frames, found no file", id="times"),
        pytest.param(f"{RAW}/oxts/data/0000000001.txt", "expected the inertial packet of frame 1 of 3, found no file", id="packet"),
    ],
)
def test_what_is_missing_is_named(root, name, message):
    (root / name).unlink()
    with pytest.raises(DataError, match=f"{re.escape(str(root / name))}: {message}"):
        read_all(root)


def test_a_packet_file_with_two_lines_is_refused(root):
    path = root / f"{RAW}/oxts/data/0000000001.txt"
    path.write_text(path.read_text() * 2)
    with pytest.raises(DataError, match=r"0000000001\.txt: expected one line, got 2"):
        read_all(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            cloud_rows().tobytes()[:-3], r"expected a multiple of 16 bytes \(x, y, z, intensity float32\), got 77; the file", id="cut"
        ),
        pytest.param(np.full((2, 4), np.nan, "<f4").tobytes(), "expected finite numbers, got 2 of 2 points without", id="NaN"),
        pytest.param(np.array([[1, 2, 3, 0], [1, np.inf, 3, 0]], "<f4").tobytes(), "expected finite numbers, got 1 of 2", id="infinite"),
    ],
)
def test_broken_clouds_are_named(root, content, message):
    path = root / "training/velodyne/0000/000001.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: {message}"):
        read_all(root)


def test_an_empty_cloud_is_a_cloud(root):
    (root / "training/velodyne/0000/000001.bin").write_bytes(b"")
    assert len(Kitti(root).drive("training-0000")[1].cloud) == 0


def test_more_clouds_than_poses_are_of_another_recording(root):
    (root / "training/velodyne/0000/000003.bin").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"velodyne/0000: expected the 3 frames that have poses, 000000.bin and on, got 1 others, first '000003\.bin'"
    ):
        read_all(root)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "doctype",
    [
        pytest.param('<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>', id="grows"),
        pytest.param('<!DOCTYPE x [<!ENTITY c SYSTEM "file:///etc/passwd">]>', id="reads a file"),
        pytest.param('<!DOCTYPE x SYSTEM "http://localhost/x.dtd">', id="asks the network"),
    ],
)
def test_xml_with_a_doctype_is_refused(root, doctype, encoding):
    path = root / XML
    head, body = path.read_text().split("\n", 1)
    text = f"{head.replace('UTF-8', encoding)}\n{doctype}{body}"
    path.write_bytes(text.replace("<objectType>Car", "<objectType>&c;" if "ENTITY" in doctype else "<objectType>Car").encode(encoding))
    with pytest.raises(DataError, match=r"tracklet_labels\.xml: expected XML without DOCTYPE, got one \('x'\); refused"):
        read_all(root)


def test_xml_of_another_encoding_is_read(root):
    path = root / XML
    path.write_bytes(path.read_text().replace("UTF-8", "utf-16").encode("utf-16"))
    read_all(root)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("<a>" * 65 + "</a>" * 65, id="deep"),
        pytest.param("<a>" + "<b/>" * 10_000 + "</a>", id="many"),
    ],
)
def test_xml_is_bounded(root, monkeypatch, content):
    monkeypatch.setattr(labels_module, "_MAX_ELEMENTS", 9_999)
    (root / XML).write_text(content)
    with pytest.raises(DataError, match=r"tracklet_labels\.xml: expected at most 9999 elements, 64 deep, got more; refused"):
        read_all(root)


@pytest.mark.parametrize("name", [LABELS, OXTS, CALIB, XML, TIMES, f"{DATE}/calib_cam_to_cam.txt"])
def test_huge_files_are_refused_before_they_are_read(root, name):
    with (root / name).open("wb") as file:
        file.truncate(10 << 30)  # a hole: takes no room
    with pytest.raises(DataError, match=f"{re.escape(str(root / name))}: expected .*, at most 64 MiB, got more"):
        read_all(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folders_are_named(root):
    folder = root / "training/velodyne/0000"
    folder.chmod(0)
    try:
        with pytest.raises(DataError, match=r"velodyne/0000: expected a folder of files \.bin, got Permission denied"):
            read_all(root)
    finally:
        folder.chmod(0o755)
