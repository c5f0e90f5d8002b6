"""The official devkit as the judge of a whole data set: every box in the frame of every sensor, its points and its velocity."""

import numpy as np
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import BoxVisibility, points_in_box

AGREE = {"rtol": 0, "atol": 1e-6}


def expect_agreement(ours, devkit):
    """Assert that our frames of a version say what the devkit says, to 1e-6. Returns how many boxes and sensors were compared.

    ours    `NuScenes`, with cameras and truth
    devkit  `nuscenes.NuScenes` of the same version
    """
    num_boxes, channels = 0, set()
    for drive in ours.drives():
        for frame in drive:
            truth, sample = frame.truth, devkit.get("sample", frame.token)
            row_of = {name: i for i, name in enumerate(truth.instance.tolist())}
            for channel, token in sample["data"].items():
                channels.add(channel)
                path, boxes, intrinsics = devkit.get_sample_data(token, box_vis_level=BoxVisibility.NONE)
                is_lidar = channel == "LIDAR_TOP"
                camera = None if is_lidar else frame.cameras[channel]
                from_global = (frame.lidar_to_global if is_lidar else camera.ego_to_global @ camera.camera_to_ego).inverse()
                rows = [row_of.get(devkit.get("sample_annotation", box.token)["instance_token"], -1) for box in boxes]
                assert sorted(row for row in rows if row >= 0) == list(range(len(truth)))
                kept = [(box, row) for box, row in zip(boxes, rows, strict=True) if row >= 0]
                order = [row for _, row in kept]
                np.testing.assert_allclose(from_global.apply(truth.boxes.center[order]), [box.center for box, _ in kept], **AGREE)
                corners = from_global.apply(truth.boxes.corners[order].reshape(-1, 3)).reshape(-1, 8, 3)
                theirs = np.array([box.corners().T for box, _ in kept])
                # each of our corners is one of theirs, in whatever order
                apart = np.linalg.norm(corners[:, :, None] - theirs[:, None], axis=-1)
                np.testing.assert_allclose(apart.min(axis=2), 0, **AGREE)
                assert (np.sort(apart.argmin(axis=2), axis=1) == np.arange(8)).all()
                if is_lidar:
                    points = LidarPointCloud.from_file(path).points[:3]
                    inside = truth.boxes.contains(frame.lidar_to_global.apply(frame.cloud.xyz))
                    for box, row in kept:
                        np.testing.assert_array_equal(inside[row], points_in_box(box, points))
                else:
                    np.testing.assert_array_equal(camera.intrinsics, intrinsics)
            velocity = {
                a["instance_token"]: devkit.box_velocity(a["token"]) for a in (devkit.get("sample_annotation", t) for t in sample["anns"])
            }
            np.testing.assert_allclose(truth.boxes.velocity, [velocity[name][:2] for name in truth.instance.tolist()], **AGREE)
            num_boxes += len(truth)
    return num_boxes, sorted(channels)
