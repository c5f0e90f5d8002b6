"""Pictures and films of drives: from above, and through the cameras."""

from perception.visual.animation import save_animation
from perception.visual.birdseye import TrailBuffer, draw_birdseye, draw_drive, save_picture
from perception.visual.cameras import draw_camera, draw_cameras
from perception.visual.canvas import View
from perception.visual.outcomes import Judged, draw_outcomes
from perception.visual.palette import CLASS_COLORS, class_color

__all__ = [
    "CLASS_COLORS",
    "Judged",
    "TrailBuffer",
    "View",
    "class_color",
    "draw_birdseye",
    "draw_camera",
    "draw_cameras",
    "draw_drive",
    "draw_outcomes",
    "save_animation",
    "save_picture",
]
