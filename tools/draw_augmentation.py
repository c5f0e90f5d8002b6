"""Every augmentation on one simulated sample, from above: `python tools/draw_augmentation.py --out augmentation.png`.

Some are exaggerated, or they could not be seen; each panel says what was asked for.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from perception.cli.main import report_errors
from perception.core.borders import boxes_from_det3d
from perception.core.classes import NUSCENES_DETECTION
from perception.core.detections import Detections
from perception.core.transform import Transform
from perception.drives.simulated import simulate_scene
from perception.drives.simulated.clips import simulated_frame
from perception.drives.sweeps import accumulate_sweeps
from perception.training.augment import augment
from perception.training.augment_settings import AugmentSettings
from perception.training.object_bank import build_object_bank
from perception.training.sample import Sample, sample_of
from perception.visual import View, draw_birdseye, save_picture

COLUMNS = 4
BANK = {"file": "of the street a few seconds earlier", "counts": {"car": 30, "pedestrian": 20, "truck": 5}, "clear_inside": True}
PANELS: list[tuple[str, dict[str, Any]]] = [
    ("as simulated", {}),
    ("objects pasted", {"bank": BANK}),
    ("mirrored: y -> -y", {"flip_y": 1.0}),
    ("turned, scaled, shifted", {"rotation": np.pi / 4, "scale": (0.9, 1.1), "translation": (0.5, 0.5, 0.5)}),
    ("objects scaled, stretched", {"object_scale": (0.8, 1.25), "object_stretch": ((0.8, 1.2), (0.8, 1.2), (1, 1))}),
    ("key sweep only", {"sweeps": {"count": (1, 1)}}),
    ("four sweeps", {"sweeps": {"count": (4, 4)}}),
    ("one beam in three, key sweep", {"sweeps": {"count": (1, 1)}, "beams": {"chance": 1, "regular": 1, "keep_every": (3, 3)}}),
    ("half of the beams, key sweep", {"sweeps": {"count": (1, 1)}, "beams": {"chance": 1, "regular": 0, "lost": (0.5, 0.5)}}),
    ("points lost: 0 near, 0.9 far", {"point_drop": {"chance": 1, "near": (0, 0), "far": (0.9, 0.9), "distance": 40}}),
    ("a sector hidden", {"sector": {"chance": 1, "width": (1.0, 1.0), "distance": (5, 5)}}),
    ("tilted by 0.1, higher (grey: z)", {"tilt": 0.1, "height": 0.3}),
    ("noise of 0.2 m", {"jitter": 0.2}),
    ("as simulated (grey: intensity)", {}),
    ("gain 2, gamma 0.6 (grey: intensity)", {"intensity": {"gain": (2, 2), "gamma": (0.6, 0.6)}}),
    (
        "several at once",
        {
            "flip_y": 1.0,
            "rotation": np.pi / 4,
            "object_scale": (0.9, 1.1),
            "object_stretch": ((0.9, 1.1), (0.9, 1.1), (0.9, 1.1)),
            "sweeps": {"count": (3, 3)},
            "beams": {"chance": 1, "lost": (0.2, 0.2), "regular": 0},
            "point_drop": {"chance": 1},
            "object_drop": {"chance": 0.5},
            "sector": {"chance": 1},
            "jitter": 0.02,
        },
    ),
]


def main(
    out: Annotated[Path, typer.Option(help="The picture, a PNG.")] = Path("augmentation.png"),
    seed: Annotated[int, typer.Option(help="Of the street and of the augmentation.", min=0)] = 7,
    radius: Annotated[float, typer.Option(help="Metres around the ego vehicle.")] = 35.0,
    size: Annotated[int, typer.Option(help="Pixels of a panel.", min=200, max=1000)] = 420,
) -> None:
    """Draw a sample before and after each augmentation."""
    scene = simulate_scene("augmentation", np.random.default_rng(seed), num_frames=12)
    earlier, sample = (simulated_sample(scene, index) for index in (0, 11))
    bank = build_object_bank([earlier], NUSCENES_DETECTION, "ego")
    panels = []
    for title, values in PANELS:
        found = augment(sample, AugmentSettings.model_validate(values), np.random.default_rng(seed), bank)
        panels.append(draw_sample(found, title, radius=radius, size=size))
    width, height = panels[0].size
    picture = Image.new("RGB", (width * COLUMNS, height * -(-len(panels) // COLUMNS)), "white")
    for i, panel in enumerate(panels):
        picture.paste(panel, (i % COLUMNS * width, i // COLUMNS * height))
    save_picture(picture, out)
    print(out)


def simulated_sample(scene: Any, index: int) -> Sample:
    """A key frame of a street with ten sweeps, in the ego frame."""
    frame = simulated_frame(scene, index)
    assert frame.truth is not None  # simulated frames have it
    points = accumulate_sweeps(frame).points.copy()
    points[:, :3] = frame.lidar_to_ego.apply(points[:, :3])
    truth = frame.truth.transformed(frame.ego_to_global.inverse())
    return sample_of(frame.token, points, truth, NUSCENES_DETECTION, frame.lidar_to_ego.translation)


def draw_sample(sample: Sample, title: str, *, radius: float, size: int) -> Image.Image:
    """Points and boxes of a sample from above."""
    boxes = boxes_from_det3d(sample.boxes.double().numpy())
    objects = Detections(boxes, sample.labels.numpy(), np.ones(len(boxes)), NUSCENES_DETECTION)
    view = View.around_ego(Transform.identity(), radius=radius, size_px=size)
    points = sample.points.numpy()
    if "grey: intensity" in title:  # dots are the darker the higher
        points = np.column_stack([points[:, :2], points[:, 3] / 30])
    return draw_birdseye(view, detections=objects, points=points[:, :3], title=title)


if __name__ == "__main__":
    sys.exit(report_errors(lambda: typer.run(main)))
