"""Where vehicles may drive on a simulated street, as the picture that nuScenes tables name as their map."""

import io

import numpy as np
from PIL import Image, ImageDraw

from perception.core import Transform
from perception.drives.simulated.roads import CORNER_RADIUS, REACH, Plan

RESOLUTION = 10  # pixels a metre, as the official devkit reads them
MARGIN = 5.0  # metres beyond the street


def drivable_png(plan: Plan, street_to_global: Transform) -> bytes:
    """A PNG of the roads and parking lots of one street: 255 where vehicles may be, else 0; the same plan and place give the same bytes.

    The picture's lower left corner is x = 0, y = 0 of the global frame, x goes to the right and y upwards; it ends `MARGIN` metres beyond
    the street. The street must lie at x, y > 0; what does not is left out.
    """
    shapes = [street_to_global.apply(np.column_stack([shape, np.zeros(len(shape))]))[:, :2] for shape in outlines(plan)]
    columns, rows = np.ceil((np.concatenate(shapes).max(axis=0) + MARGIN) * RESOLUTION).astype(int).tolist()
    picture = Image.new("L", (columns, rows), 0)
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        pixels = shape * (RESOLUTION, -RESOLUTION) + (0, rows)
        draw.polygon([tuple(pixel) for pixel in np.round(pixels).tolist()], fill=255)
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def outlines(plan: Plan) -> list[np.ndarray]:
    """(K, 2) polygons in the street frame that together cover all roads up to their kerbs, and the parking lots."""
    shapes = []
    for arm in plan.arms:
        along = np.arange(0.0, REACH + 1.0, 2.0)
        right, left = plan.at(arm, along, -plan.section(arm, -1).kerb), plan.at(arm, along, plan.section(arm, 1).kerb)
        shapes.append(np.concatenate([np.stack(right[:2], axis=1), np.stack(left[:2], axis=1)[::-1]]))
    for q in plan.corners:
        # between the kerbs' crossing and the quarter circle that rounds it
        x, y, yaw = (float(value) for value in plan.at(q, plan.section((q + 1) % 4, 1).kerb, -plan.section(q, -1).kerb))
        angle = np.linspace(0, np.pi / 2, 9)
        out, away = CORNER_RADIUS * (1 - np.sin(angle)), CORNER_RADIUS * (1 - np.cos(angle))
        arc = np.column_stack([x - out * np.cos(yaw) + away * np.sin(yaw), y - out * np.sin(yaw) - away * np.cos(yaw)])
        shapes.append(np.concatenate([[[x, y]], arc]))
    for lot in plan.lots:
        inner = plan.section(lot.arm, lot.sign).sidewalk_end
        along, across = np.array([lot.begin, lot.end, lot.end, lot.begin]), inner + np.array([0.0, 0.0, lot.depth, lot.depth])
        shapes.append(np.stack(plan.at(lot.arm, along, lot.sign * across)[:2], axis=1))
    return shapes
