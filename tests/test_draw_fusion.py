"""The picture of virtual points: masks of true boxes by eye, what is counted, and the whole sheet of a small data set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perception.core import NUSCENES_DETECTION, Boxes3D, DataError, Detections, UsageError
from perception.core.masks import read_masks
from tests.conftest import ROOT
from tests.fusion.makers import FIRST_US, box_mask, camera, cloud, frame
from tests.makers import write_nuscenes
from tests.test_tools import tool

FAR, NEAR = (10.0, 0.0, 0.0, 2.0, 4.0, 4.0), (5.0, 0.9, 0.0, 2.0, 0.8, 0.8)  # x, y, z, length, width, height
ON_FAR = ([9.0, 0.9, 0.0, 7.0, 0.0], [9.0, -0.9, 0.9, 7.0, 0.0])
BEHIND = [30.0, -3.0, -3.0, 7.0, 0.0]  # seen within the mask of the far box: column 9, row 7


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return tool("draw_fusion"), tool("truth_masks")


def street(*boxes, points=(), velocity=(0.0, 0.0), num_points=None, **of_camera):
    """A frame with one camera at the lidar's place, that looks along x, and cars."""
    rows = np.array(boxes, np.float64).reshape(-1, 6)
    values = Boxes3D(rows[:, :3], rows[:, 3:], np.zeros(len(rows)), np.tile(velocity, (len(rows), 1)))
    label = np.full(len(rows), NUSCENES_DETECTION.index("car"))
    names = np.array([f"thing-{k}" for k in range(len(rows))], np.str_)
    truth = Detections(values, label, np.ones(len(rows)), NUSCENES_DETECTION, instance=names, num_points=num_points)
    return replace(frame(cloud(*points), {"CAM_FRONT": camera(**of_camera)}), truth=truth)


def masks_of(module, *args, **options):
    picture = module.truth_pictures(street(*args, **options))["CAM_FRONT"]
    return picture, [picture.mask(k) for k in range(len(picture))]


def test_a_mask_is_what_a_box_covers_and_what_is_nearer_hides_it(modules):
    # The far box's front is 9 m ahead: 8 - 2 / 9 * 10 = 5.8 to 10.2 in columns, 3.8 to 8.2 in rows; the middles of four by four pixels.
    picture, (far,) = masks_of(modules[1], FAR)
    np.testing.assert_array_equal(far, box_mask(6, 4, 10, 8))
    assert (picture.box.tolist(), picture.area.tolist(), picture.token) == ([[6, 4, 10, 8]], [16], "token-CAM_FRONT")
    # The near one's front is 4 m ahead, 0.5 to 1.3 m to the left: columns 4.8 to 6.8, rows 5 to 7.
    picture, (near, far) = masks_of(modules[1], FAR, NEAR)
    assert picture.instance.tolist() == ["thing-1", "thing-0"]
    np.testing.assert_array_equal(near, box_mask(5, 5, 7, 7))
    np.testing.assert_array_equal(far, box_mask(6, 4, 10, 8) & ~near)


def test_a_box_that_reaches_behind_the_camera_is_cut_off_and_one_behind_it_has_no_mask(modules):
    _, (below,) = masks_of(modules[1], (0.5, 0.0, -1.0, 3.0, 1.2, 1.0), (-5.0, 0.0, 0.0, 2.0, 2.0, 2.0))
    rows = np.flatnonzero(below.any(axis=1))
    assert rows.tolist() == [8, 9, 10, 11]  # its top, 0.5 m below the camera, ends 2 m ahead: at 6 + 0.5 / 2 * 10 = 8.5
    assert np.flatnonzero(below[11]).tolist() == list(range(1, 15))  # 0.6 m to each side, 0.5 m below: 8 +- 5.5 * 1.2


def test_a_box_is_where_it_was_when_the_picture_was_taken(modules):
    _, (mask,) = masks_of(modules[1], FAR, velocity=(0.0, -9.0), timestamp_us=FIRST_US + 100_000)  # 0.9 m to the right: one pixel
    np.testing.assert_array_equal(mask, box_mask(7, 4, 11, 8))
    _, (mask,) = masks_of(modules[1], FAR, velocity=(np.nan, np.nan), timestamp_us=FIRST_US + 100_000)
    np.testing.assert_array_equal(mask, box_mask(6, 4, 10, 8))


def test_what_the_lidar_did_not_hit_is_left_out(modules):
    picture, _ = masks_of(modules[1], FAR, NEAR, num_points=np.array([1, 0]))
    assert picture.instance.tolist() == ["thing-0"]


def test_frames_without_truth_or_cameras_are_refused(modules):
    with pytest.raises(DataError, match="frame frame: expected true objects to make masks, got none"):
        modules[1].truth_pictures(frame(cloud(), {"CAM_FRONT": camera()}))
    with pytest.raises(DataError, match="expected cameras to make masks"):
        modules[1].truth_pictures(replace(street(FAR), cameras={}))


def test_virtual_points_are_counted_in_their_own_boxes(modules):
    draw = modules[0]
    found = draw.fuse(street(FAR, points=ON_FAR), Path(), None, num=16)
    assert len(found.made.virtual) == 16
    assert draw.in_own_boxes(found).all()
    assert (found.is_clean.all(), found.returns) == (True, 1.0)
    text = draw.told(found)
    assert "in the box of their own object and 0.3 m around: 100.0 % (car 100 %)" in text
    # What is seen past the object takes the pixels that are nearest to it: the three around column 9, row 7.
    found = draw.fuse(street(FAR, points=(*ON_FAR, BEHIND)), Path(), None, num=16)
    inside = draw.in_own_boxes(found)
    assert (0 < inside.sum() < 16, found.is_clean.any()) == (True, False)
    assert found.returns == pytest.approx(2 / 3)
    assert found.made.virtual[~inside, 0].min() > 29


def test_nothing_to_see_is_drawn_too(modules):
    found = modules[0].fuse(street(points=ON_FAR), Path(), None)
    assert "0 instances, 0 virtual points" in modules[0].told(found)
    assert modules[0].draw(found, radius=20, width_px=640, title="x").size[0] == 640


def test_colours_of_classes_stand_where_virtual_points_are(modules):
    draw = modules[0]
    one, none = (draw.fuse(street(FAR, points=points), Path(), None) for points in (ON_FAR, [[*BEHIND[:2], 9.0, 7.0, 0.0]]))
    color = np.array(draw.class_color("car"))
    with_points, without = (np.asarray(draw.draw(found, radius=20, width_px=640, title="")) for found in (one, none))
    below = with_points.shape[0] - 320  # the two maps
    counts = [(image[below:] == color).all(axis=2).sum(axis=0) for image in (with_points, without)]
    assert counts[0][:320].sum() == counts[1][:320].sum() == 0  # before
    assert counts[0][320:].sum() > counts[1][320:].sum()  # after
    assert (with_points[:below] == color).all(axis=2).any()  # in the picture


def test_a_data_set_is_drawn_and_its_masks_are_read_again(modules, tmp_path, capsys):
    data, out, masks = write_nuscenes(tmp_path / "data"), tmp_path / "fusion.png", tmp_path / "masks.json"
    modules[0].main(data, out, from_truth=True, write=masks, width=640)
    first = capsys.readouterr().out.splitlines()
    assert first[-2:] == [str(masks), str(out)]
    with Image.open(out) as picture:
        assert picture.width == 640
    assert read_masks(masks)
    modules[0].main(data, out, instances=str(masks), width=640)
    assert capsys.readouterr().out.splitlines()[:-1] == first[:-2]
    for options in ({}, {"instances": "simulated", "from_truth": True}):
        with pytest.raises(UsageError, match="expected --instances SOURCE or --from-truth, one of them"):
            modules[0].main(data, out, **options)
    with pytest.raises(UsageError, match="--write-masks: expected --from-truth"):
        modules[0].main(data, out, instances=str(masks), write=masks)
    with pytest.raises(UsageError, match=r"expected a frame in 0\.\.2, got 3"):
        modules[0].main(data, out, from_truth=True, frame=3)
