"""Bird's-eye pictures and films of drives."""

from perception.visual.animation import save_animation
from perception.visual.birdseye import TrailBuffer, draw_birdseye, draw_drive, save_picture
from perception.visual.canvas import View
from perception.visual.palette import CLASS_COLORS, class_color

__all__ = ["CLASS_COLORS", "TrailBuffer", "View", "class_color", "draw_birdseye", "draw_drive", "save_animation", "save_picture"]
