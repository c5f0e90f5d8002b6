"""Small KITTI recordings in code: the same world in both layouts, with calibrations whose sums can be done by eye.

The ego vehicle drives at 4 m/s to the east. A car ahead (at x = 10 m, y = 2 m of the ego frame in the first frame, yaw 0.3) does 2 m/s to
the east, in all frames; a cyclist (x = 5 m, y = -3 m, yaw -pi/2) does 1 m/s to the south, in the first two; a tram and, in the tracking
layout, a DontCare region are no objects. The lidar is at (0.76, 0, 1.73) of the ego frame, the cameras are at (1.03, 0, 1.65), no tilt.
"""

from pathlib import Path

import numpy as np

DATE, DRIVE = "2011_09_26", "2011_09_26_drive_0005_sync"
SIZE, FOCAL, CENTER = (160, 90), 100.0, (80.0, 45.0)
FIRST_US, STEP_US = 1_317_042_276_500_000, 100_000  # 2011-09-26 13:04:36.5
LATITUDE, LONGITUDE = 49.0, 8.4

# type, track, position in the ego frame of the first frame (middle of the bottom), length width height, global yaw and velocity, frames
OBJECTS = [
    ("Car", 3, (10.0, 2.0, 0.1), (4.5, 2.0, 1.6), 0.3, (2.0, 0.0), range(1000)),
    ("Cyclist", 7, (5.0, -3.0, 0.0), (1.8, 0.6, 1.7), -np.pi / 2, (0.0, -1.0), range(2)),
    ("Tram", 8, (30.0, 8.0, 0.0), (15.0, 2.5, 3.0), 0.0, (0.0, 0.0), range(1000)),
]


def cloud_rows(count: int = 5) -> np.ndarray:
    """(count, 4) float32 x, y, z, intensity as a KITTI lidar file holds them."""
    return np.column_stack([np.arange(count), np.ones(count), np.zeros(count), 0.1 * np.arange(count)]).astype("<f4")


def oxts_line(number: int) -> str:
    """The inertial packet of a frame: 0.4 m to the east a frame, level, yaw 0 (east)."""
    longitude = LONGITUDE + np.degrees(0.4 * number / (6378137.0 * np.cos(np.radians(LATITUDE))))
    return " ".join(["49.0", repr(float(longitude)), "113.5", "0", "0", "0", "0", "4", "4", *["0"] * 16, "4", "7", "5", "5", "0"])


def moments(number: int) -> list[tuple]:
    """(type, track, bottom in the ego frame, l w h, yaw in the ego frame) of what is there in a frame."""
    seconds = 0.1 * number
    found = []
    for name, track, place, size, yaw, velocity, frames in OBJECTS:
        if number in frames:
            moved = (place[0] + seconds * (velocity[0] - 4.0), place[1] + seconds * velocity[1], place[2])
            found.append((name, track, moved, size, yaw))
    return found


def label_lines(number: int) -> list[str]:
    """Lines of label_02 of a frame: bottom in the camera frame, which is at (1.03, 0, 1.65), and rotation_y."""
    lines = [f"{number} -1 DontCare -1 -1 -10 10 10 20 20 -1000 -1000 -1000 -10 -1 -1 -1"]
    for name, track, (x, y, z), (length, width, height), yaw in moments(number):
        place = f"{-y:.6f} {1.65 - z:.6f} {x - 1.03:.6f}"
        lines.append(f"{number} {track} {name} 0 {number % 4} 0 1 2 3 4 {height} {width} {length} {place} {-yaw - np.pi / 2:.9f}")
    return lines


def write_kitti_tracking(
    root: Path,
    *,
    split: str = "training",
    sequences: tuple[str, ...] = ("0000", "0001"),
    frames: int = 3,
    labels: bool = True,
    images: bool = True,
) -> Path:
    """Write sequences of the tracking benchmark; returns `root`."""
    folder = root / split
    for sequence in sequences:
        for number in range(frames):
            _write(folder / f"velodyne/{sequence}/{number:06d}.bin", cloud_rows().tobytes())
            if images:
                _write_image(folder / f"image_02/{sequence}/{number:06d}.png")
        _write(folder / f"oxts/{sequence}.txt", "".join(oxts_line(number) + "\n" for number in range(frames)))
        if labels:
            _write(folder / f"label_02/{sequence}.txt", "".join(line + "\n" for i in range(frames) for line in label_lines(i)))
        _write(folder / f"calib/{sequence}.txt", tracking_calibration())
    return root


def tracking_calibration() -> str:
    """As the benchmark writes it: some keys have a colon, some have not. Camera 3 is 0.5 m to the right of the others."""
    projection = f"{FOCAL} 0 {CENTER[0]} 0 0 {FOCAL} {CENTER[1]} 0 0 0 1 0"
    right = f"{FOCAL} 0 {CENTER[0]} {-0.5 * FOCAL} 0 {FOCAL} {CENTER[1]} 0 0 0 1 0"
    return (
        f"P0: {projection}\nP2: {projection}\nP3: {right}\nR_rect 1 0 0 0 1 0 0 0 1\n"
        "Tr_velo_cam 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27\nTr_imu_velo 1 0 0 -0.81 0 1 0 0.32 0 0 1 -0.8\n\n"
    )


def write_kitti_raw(root: Path, *, drives: tuple[str, ...] = (DRIVE,), frames: int = 3, labels: bool = True, images: bool = True) -> Path:
    """Write raw recordings of one day; returns `root`."""
    day = root / DATE
    projection = f"{FOCAL} 0 {CENTER[0]} 0 0 {FOCAL} {CENTER[1]} 0 0 0 1 0"
    _write(
        day / "calib_cam_to_cam.txt",
        f"calib_time: 09-Jan-2012 13:57:47\nR_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: 1.6e+02 9.0e+01\nP_rect_02: {projection}\n",
    )
    _write(day / "calib_velo_to_cam.txt", "calib_time: x\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\ndelta_f: 0 0\n")
    _write(day / "calib_imu_to_velo.txt", "calib_time: x\nR: 1 0 0 0 1 0 0 0 1\nT: -0.81 0.32 -0.8\n")
    for drive in drives:
        times = ""
        for number in range(frames):
            _write(day / drive / f"velodyne_points/data/{number:010d}.bin", cloud_rows().tobytes())
            _write(day / drive / f"oxts/data/{number:010d}.txt", oxts_line(number) + "\n")
            times += f"2011-09-26 13:04:3{6.5 + 0.1 * number:.9f}\n"
            if images:
                _write_image(day / drive / f"image_02/data/{number:010d}.png")
        _write(day / drive / "velodyne_points/timestamps.txt", times)
        if labels:
            _write(day / drive / "tracklet_labels.xml", tracklets(frames))
    return root


def tracklets(frames: int) -> str:
    """The objects as boost's archive, in the lidar frame, which is at (0.76, 0, 1.73)."""
    items = ""
    for name, track, *_ in OBJECTS:
        poses = [(number, moment) for number in range(frames) for moment in moments(number) if moment[1] == track]
        length, width, height = poses[0][1][3]
        items += f"<item><objectType>{name}</objectType><h>{height}</h><w>{width}</w><l>{length}</l>"
        items += f"<first_frame>{poses[0][0]}</first_frame><poses><count>{len(poses)}</count><item_version>2</item_version>"
        for number, (_, _, (x, y, z), _, yaw) in poses:
            items += f"<item><tx>{x - 0.76:.6f}</tx><ty>{y:.6f}</ty><tz>{z - 1.73:.6f}</tz><rx>0</rx><ry>0</ry><rz>{yaw:.9f}</rz>"
            items += f"<state>2</state><occlusion>{number % 3}</occlusion><truncation>0</truncation></item>\n"
        items += "</poses><finished>1</finished></item>"
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes" ?>\n'
    count = f"<count>{len(OBJECTS)}</count><item_version>1</item_version>"
    return f"{head}<boost_serialization><tracklets>{count}{items}</tracklets></boost_serialization>\n"


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _write_image(path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (10, 20, 30)).save(path)
