"""Clips hold what the frame had, to the step of their numbers; broken files are said to be so."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cuda_ops import points_in_boxes
from perception.core import DataError, PointCloud, UsageError
from perception.drives import accumulate_sweeps
from perception.drives.simulated import simulate_scene
from perception.drives.simulated.clips import read_clip, simulated_frame, write_clip, write_clips


@pytest.fixture(scope="module")
def frame():
    return simulated_frame(simulate_scene("clip", np.random.default_rng(2), num_frames=2), 1, num_sweeps=10)


def test_a_clip_is_the_frame_to_half_a_step(frame, tmp_path):
    write_clip(tmp_path / "one.npz", frame)
    clip, cloud = read_clip(tmp_path / "one.npz"), accumulate_sweeps(frame, 10)
    near = np.abs(cloud.points[:, :3]).max(axis=1) < 163
    np.testing.assert_allclose(clip.cloud.points[:, :3], cloud.points[near, :3], atol=0.0026)
    np.testing.assert_array_equal(clip.cloud.points[:, 3], cloud.points[near, 3])
    np.testing.assert_allclose(clip.cloud.points[:, 4], cloud.points[near, 4], atol=1e-6)
    assert sorted(np.unique(clip.cloud.points[:, 4].round(2))) == pytest.approx(np.arange(10) * 0.05, abs=1e-6)
    truth = frame.truth.transformed(frame.ego_to_global.inverse())
    np.testing.assert_allclose(clip.truth.boxes.center, truth.boxes.center, atol=1e-4)
    np.testing.assert_allclose(clip.truth.boxes.velocity, truth.boxes.velocity, atol=1e-4)
    np.testing.assert_array_equal(clip.truth.num_points, truth.num_points)


def test_the_returns_of_the_key_sweep_are_in_the_boxes(frame, tmp_path):
    write_clip(tmp_path / "one.npz", frame)
    clip = read_clip(tmp_path / "one.npz")
    boxes = clip.truth.boxes
    lift = np.array([0, 0, 0.05])  # the road under a car comes and goes with the step of a clip: look from 5 cm above the bottom on
    rows = np.column_stack([boxes.center + lift / 2, boxes.size - lift, boxes.yaw])

    def inside(points):
        return points_in_boxes(clip.lidar_to_ego.apply(points[:, :3].astype(np.float64)).astype(np.float32), rows).count

    recorded, kept = inside(frame.cloud.points), inside(clip.cloud.points[clip.cloud.points[:, 4] == 0])
    assert recorded.sum() > 50
    assert np.abs(kept - recorded).sum() <= 0.01 * recorded.sum()
    # the counts in the file are of boxes upright on the map, those here of boxes upright on the leaning vehicle
    assert np.abs(kept - clip.truth.num_points).sum() < 0.25 * clip.truth.num_points.sum()


def test_the_same_seed_gives_the_same_bytes_whatever_the_number(tmp_path):
    few, more = (write_clips(tmp_path / str(count), count, seed=5, workers=1) for count in (1, 2))
    assert [path.name for path in more] == ["clip-000000.npz", "clip-000001.npz"]
    assert few[0].read_bytes() == more[0].read_bytes()
    assert more[0].read_bytes() != more[1].read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"not a zip", "expected a clip as `write_clips` makes it, got File is not a zip file", id="text"),
        pytest.param(None, "expected a clip as `write_clips` makes it", id="cut short"),
    ],
)
def test_a_broken_file_is_said_to_be_so(frame, tmp_path, content, message):
    path = tmp_path / "one.npz"
    write_clip(path, frame)
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(DataError, match=message):
        read_clip(path)


def _with_shape(path: Path, shape: str) -> None:
    """A clip that claims places of this shape."""
    header = f"{{'descr': '<i2', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("place.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def test_a_clip_that_claims_more_than_there_is_is_refused(tmp_path):
    _with_shape(tmp_path / "one.npz", "(1000000000000000, 3)")
    with pytest.raises(DataError, match=r"one\.npz: expected a clip"):
        read_clip(tmp_path / "one.npz")


def test_an_encrypted_clip_is_refused(frame, tmp_path):
    path = tmp_path / "one.npz"
    write_clip(path, frame)
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        read_clip(path)


def test_contents_that_do_not_fit_are_named_with_their_file(frame, tmp_path):
    path = tmp_path / "one.npz"
    write_clip(path, frame)
    arrays = dict(np.load(path))
    arrays["boxes"][0, 3] = -1
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"one\.npz: Boxes3D\.size: expected"):
        read_clip(path)


def test_intensities_of_0_to_1_are_stored_as_0_to_255(frame, tmp_path):
    for name, scale in (("usual", 1.0), ("kitti", 255.0)):
        cloud = PointCloud(frame.cloud.points / np.array([1, 1, 1, scale, 1], np.float32))
        write_clip(tmp_path / name, replace(frame, read_cloud=lambda cloud=cloud: cloud, intensity_top=255 / scale), num_sweeps=1)
    usual, kitti = (read_clip(tmp_path / name).cloud.points for name in ("usual", "kitti"))
    np.testing.assert_allclose(usual, kitti, atol=1.01)
    assert kitti[:, 3].max() > 50


def test_clips_of_another_seed_do_not_stay_among_the_new_ones(tmp_path):
    (tmp_path / "clip-000001.npz").touch()
    with pytest.raises(UsageError, match=r"expected a folder without other clips, found clip-000001\.npz"):
        write_clips(tmp_path, 1, seed=5)
