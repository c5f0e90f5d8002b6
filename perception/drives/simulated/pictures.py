"""The six pictures of a key frame, with what they show of each object."""

from dataclasses import dataclass

import numpy as np

from perception.drives.simulated.camera import (
    CAMERAS,
    CameraImage,
    InstanceMask,
    View,
    camera_time_us,
    camera_to_ego,
    instance_masks,
    render,
    visibility_of,
)
from perception.drives.simulated.catalog import Sensor
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.street import SimulatedScene


@dataclass(frozen=True, eq=False)
class Picture:
    """What one camera took.

    seconds  since the first key frame, true to `timestamp_us`
    masks    of all objects of the scene that it shows, annotated in this frame or not
    """

    camera: Sensor
    timestamp_us: int
    seconds: float
    shown: CameraImage
    masks: list[InstanceMask]


def take_pictures(scene: SimulatedScene, frame: int) -> tuple[list[Picture], np.ndarray]:
    """The pictures of a key frame, each of its own moment, and (objects,) the share of each object's pixels in all of them that nothing
    hides, 0..1, as nuScenes defines visibility; 0 for what is out of sight.

    The vehicle that carries the cameras is not in its own way: the real ones look past it.
    """
    pictures, views = [], []
    for camera in CAMERAS:
        time_us = camera_time_us(camera, int(scene.timestamps_us[frame]))
        seconds = (time_us - int(scene.timestamps_us[0])) / 1e6
        (ego_to_street,) = scene.world.ego_to_street(np.array([seconds]))
        matter = Matter.concatenate(*scene.world.matter_at(seconds))
        camera_to_street, intrinsics = ego_to_street @ camera_to_ego(camera), np.array(camera.intrinsic_matrix)
        shown = render(matter, camera_to_street, intrinsics, seed=frame)
        pictures.append(Picture(camera, time_us, seconds, shown, instance_masks(shown.owner)))
        views.append(View(matter, shown.owner, camera_to_street, intrinsics))
    return pictures, visibility_of(views, len(scene.objects))
