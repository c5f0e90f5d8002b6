"""Recorded pictures: their masks, the visibility that they give, and the official devkit at work on all of it."""

import numpy as np
import pytest
from PIL import Image

from perception.core import NUSCENES_DETECTION
from perception.drives import NuScenes, read_masks
from perception.drives.simulated import simulate_scenes, write_nuscenes
from perception.drives.simulated.camera import CAMERAS
from perception.drives.simulated.pictures import take_pictures

VERSION = "v1.0-pictures"


@pytest.fixture(scope="module")
def scene():
    return simulate_scenes(1, seed=5, num_frames=2)[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory, scene):
    folder = tmp_path_factory.mktemp("pictures")
    write_nuscenes(folder, [scene], version=VERSION, splits={"val": [scene.name]}, lidar=True, cameras=True)
    return folder


@pytest.fixture(scope="module")
def frames(root):
    return list(NuScenes(root, VERSION).drives()[0])


@pytest.fixture(scope="module")
def masks(root, scene):
    return read_masks(root / "masks" / f"{scene.name}.json")


@pytest.fixture(scope="module")
def taken(scene):
    """The pictures of the second key frame, taken again, and what they show of each object."""
    return take_pictures(scene, 1)


@pytest.fixture(scope="module")
def nusc(root):
    pytest.importorskip("matplotlib").use("Agg")
    return pytest.importorskip("nuscenes").NuScenes(VERSION, str(root), verbose=False)


def test_each_key_frame_has_six_pictures_of_their_own_moments(frames):
    for frame in frames:
        assert len(frame.cameras) == 6
        for sensor in CAMERAS:
            camera = frame.cameras[sensor.channel]
            assert camera.timestamp_us == frame.timestamp_us + sensor.offset_us
            assert camera.image.shape == (900, 1600, 3)
            assert camera.image.std() > 20


def test_masks_are_the_pixels_of_the_objects_in_a_picture_taken_again(scene, root, frames, masks, taken):
    token_of = [thing.token for thing in scene.objects]
    for picture in taken[0]:
        found = masks[frames[1].cameras[picture.camera.channel].token]
        assert found.sample == frames[1].token
        assert (root / found.file_name).read_bytes() == picture.shown.jpeg()
        owner = picture.shown.owner
        assert [token_of.index(name) for name in found.instance] == np.unique(owner[owner >= 0]).tolist()
        for i, name in enumerate(found.instance.tolist()):
            is_shown = owner == token_of.index(name)
            np.testing.assert_array_equal(found.mask(i), is_shown)
            x0, y0, x1, y1 = found.box[i].astype(int)
            assert is_shown[y0:y1, x0:x1].sum() == is_shown.sum() == found.area[i]
            assert NUSCENES_DETECTION.names[found.label[i]] == scene.objects[token_of.index(name)].class_name


def test_masks_lie_where_the_tables_put_the_boxes(frames, masks):
    compared = 0
    for frame in frames:
        moves = dict(zip(frame.truth.instance.tolist(), frame.truth.boxes.speed > 0.1, strict=True))
        corners = dict(zip(frame.truth.instance.tolist(), frame.truth.boxes.corners, strict=True))
        for camera in frame.cameras.values():
            found = masks[camera.token]
            for name, (x0, y0, x1, y1) in zip(found.instance.tolist(), found.box, strict=True):
                if name not in corners or moves[name]:  # between the moments of lidar and camera things move on
                    continue
                pixels, depth = camera.project((camera.ego_to_global @ camera.camera_to_ego).inverse().apply(corners[name]))
                if depth.min() < 1:
                    continue
                low, high = pixels.min(axis=0), pixels.max(axis=0)
                room = 2 + 0.03 * camera.intrinsics[0, 0] / depth.min()  # poses are recorded with some centimetres of error
                assert x0 > low[0] - room, name
                assert y0 > low[1] - room, name
                assert x1 < high[0] + room, name
                assert y1 < high[1] + room, name
                compared += 1
    assert compared > 15


def test_coco_tools_open_the_masks(root, scene, masks, capsys):
    coco = pytest.importorskip("pycocotools.coco").COCO(str(root / "masks" / f"{scene.name}.json"))
    capsys.readouterr()
    assert len(coco.imgs) == len(masks) == 12
    for number, found in enumerate(masks.values(), start=1):
        rows = coco.loadAnns(coco.getAnnIds(imgIds=number))
        assert [row["instance_token"] for row in rows] == found.instance.tolist()
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(coco.annToMask(row), found.mask(i))


def test_visibility_in_the_tables_is_the_share_of_pixels(scene, frames, masks, taken):
    token_of, share = [thing.token for thing in scene.objects], taken[1]
    truth = frames[1].truth
    expected = [1 + int(np.digitize(share[token_of.index(name)], [0.4, 0.6, 0.8])) for name in truth.instance.tolist()]
    assert truth.visibility.tolist() == expected
    assert len(set(expected)) >= 3
    shown = {name for camera in frames[1].cameras.values() for name in masks[camera.token].instance.tolist()}
    for name, level in zip(truth.instance.tolist(), expected, strict=True):
        if name not in shown:
            assert level == 1
    # it is no longer the estimate from boxes
    assert any(thing.present[1] and abs(share[i] - thing.visibility[1]) > 0.3 for i, thing in enumerate(scene.objects))


@pytest.mark.slow
def test_writing_again_with_two_processes_gives_the_same_bytes(root, scene, tmp_path):
    write_nuscenes(tmp_path, [scene], version=VERSION, splits={"val": [scene.name]}, lidar=True, cameras=True, workers=2)
    names = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len([name for name in names if name.suffix == ".jpg"]) == 12
    assert all((root / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_our_frames_are_those_of_the_devkit(root, nusc, frames):
    from tests.drives.devkit import expect_agreement

    num_boxes, channels = expect_agreement(NuScenes(root, VERSION), nusc)
    assert num_boxes == sum(len(frame.truth) for frame in frames) > 20
    assert len(channels) == 7


def test_the_devkit_renders_pictures_clouds_and_annotations(nusc, frames, tmp_path):
    sample = nusc.get("sample", frames[1].token)
    for channel in ("CAM_BACK", "LIDAR_TOP"):
        nusc.render_sample_data(sample["data"][channel], out_path=str(tmp_path / f"{channel}.png"), verbose=False)
    seen = frames[1].truth.num_points.argmax()
    (name,) = [t for t in sample["anns"] if nusc.get("sample_annotation", t)["instance_token"] == frames[1].truth.instance[seen]]
    nusc.render_annotation(name, out_path=str(tmp_path / "annotation.png"))
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 10, path.name
    assert len(list(tmp_path.iterdir())) == 3


def test_points_that_the_devkit_puts_on_a_mask_are_as_far_away_as_the_box(nusc, frames, masks):
    near, far = 0, 0
    for frame in frames:
        data, truth = nusc.get("sample", frame.token)["data"], frame.truth
        row_of = {name: i for i, name in enumerate(truth.instance.tolist())}
        for channel, camera in frame.cameras.items():
            pixels, depth, image = nusc.explorer.map_pointcloud_to_image(data["LIDAR_TOP"], data[channel])
            assert image.size == camera.size
            column, row = np.floor(pixels[:2]).astype(int)
            found = masks[camera.token]
            for i, name in enumerate(found.instance.tolist()):
                on_it = depth[found.mask(i)[row, column]]
                if name in row_of and truth.boxes.speed[row_of[name]] < 0.1:
                    corners = truth.boxes.corners[row_of[name]]
                    z = (camera.ego_to_global @ camera.camera_to_ego).inverse().apply(corners)[:, 2]
                    is_near = (z.min() - 0.2 < on_it) & (on_it < z.max() + 0.2)
                    near, far = near + is_near.sum(), far + (~is_near).sum()
    assert near > 300
    assert near > 2 * far  # the lidar looks through windows and, from higher up, over things
