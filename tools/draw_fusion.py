"""Virtual points of one frame as a picture: `python tools/draw_fusion.py DATA --from-truth --out fusion.png`.

On top the pictures of the cameras with the points of the lidar, the instances' masks and the virtual points; below the frame from above,
with the points of the lidar alone and with the virtual points. Prints how many virtual points lie in the boxes of their own objects.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from scipy.ndimage import binary_erosion
from truth_masks import instance_rows, truth_pictures

from perception.cli.main import report_errors
from perception.core.boxes import Boxes3D
from perception.core.detections import Detections
from perception.core.errors import UsageError
from perception.core.frame import Camera, Frame
from perception.core.masks import PictureMasks, write_masks
from perception.drives import open_drives
from perception.fusion import MVP_CLASSES, CameraView, Instances, VirtualPoints, build_source, camera_views, virtual_points
from perception.fusion.members import MaskIndex
from perception.fusion.sources.file import FileInstances, FileSettings
from perception.visual import View, class_color, draw_camera, save_picture
from perception.visual.birdseye import draw_box, draw_ego, rows_in_view
from perception.visual.cameras import camera_rows
from perception.visual.canvas import HEADER_PX, Canvas
from perception.visual.palette import PAPER, TRUTH

GROWN = 0.3  # metres on each side by which boxes are enlarged before virtual points are counted in them: a pixel and a picture's time off
CLEAN = 0.95  # share of a mask's returns in its box from which on the mask shows its object and little else
_POINT, _POINT_IN_MASK = (235, 235, 90), (255, 255, 255)  # points of the lidar in pictures


@dataclass(frozen=True, eq=False)
class Fused:
    """A frame and what its cameras add to the key sweep.

    row       (V,) int64  of each virtual point the row of the frame's truth that its mask names, -1 where that is unknown
    is_clean  (V,) bool   whether the lidar's points in its mask lie in the box of that object, nearly all of them; see `CLEAN`
    returns   share of the lidar's points in masks that lie in their own boxes, NaN where no mask names an object
    """

    frame: Frame
    instances: dict[str, Instances]
    views: dict[str, CameraView]
    points: np.ndarray
    made: VirtualPoints
    row: np.ndarray
    is_clean: np.ndarray
    returns: float


def main(
    data: Annotated[Path, typer.Argument(help="Folder of a data set with pictures: nuScenes, KITTI, simulated.")],
    out: Annotated[Path, typer.Option(help="The picture, a PNG.")] = Path("fusion.png"),
    instances: Annotated[
        str | None, typer.Option(help="What the pictures show: a file of masks, simulated, or what `perception run` takes.")
    ] = None,
    from_truth: Annotated[bool, typer.Option("--from-truth", help="Masks made of the true boxes instead.")] = False,
    write: Annotated[Path | None, typer.Option("--write-masks", help="Write the masks of the whole drive too, COCO's JSON.")] = None,
    version: Annotated[str | None, typer.Option(help="nuScenes version, where there are several.")] = None,
    drive: Annotated[str | None, typer.Option(help="Name of the drive; the first one without it.")] = None,
    frame: Annotated[int | None, typer.Option(help="Number of the frame; the middle one without it.")] = None,
    radius: Annotated[float, typer.Option(help="Metres around the ego vehicle, from above.")] = 45.0,
    width: Annotated[int, typer.Option(help="Pixels.", min=640, max=4800)] = 2400,
    num: Annotated[int, typer.Option(help="Virtual points of an instance.", min=1, max=1000)] = 50,
) -> None:
    """Draw the virtual points of a frame."""
    if (instances is not None) == from_truth:
        raise UsageError("expected --instances SOURCE or --from-truth, one of them")
    if write is not None and not from_truth:
        raise UsageError("--write-masks: expected --from-truth; `perception instances` writes what other sources find")
    drives = {item.name: item for item in open_drives(data, version=version)}
    if not drives or (drive is not None and drive not in drives):
        raise UsageError(f"{data}: drive {drive!r}: expected one of {', '.join(drives) or 'none'}")
    chosen = drives[drive] if drive is not None else next(iter(drives.values()))
    number = len(chosen) // 2 if frame is None else frame
    if not 0 <= number < len(chosen):
        raise UsageError(f"drive {chosen.name}: expected a frame in 0..{len(chosen) - 1}, got {number}")
    found = fuse(chosen[number], data, instances, num)
    save_picture(draw(found, radius=radius, width_px=width, title=f"{chosen.name}, frame {number}"), out)
    print(told(found))
    if write is not None:
        write_masks(write, [picture for one in chosen for picture in truth_pictures(one).values()], info={"description": "from true boxes"})
        print(write)
    print(out)


def fuse(frame: Frame, data: Path, source: str | None, num: int = 50) -> Fused:
    """The virtual points of the key sweep; `source` None: masks of the true boxes. Raises UsageError for a frame without pictures."""
    if not frame.cameras:
        raise UsageError(f"frame {frame.token}: expected pictures of cameras, got none")
    pictures: dict[str, PictureMasks] = {}
    if source is None:
        pictures = truth_pictures(frame)
    elif source == "simulated" or Path(source).suffix == ".json":
        files = FileInstances(FileSettings(path=data / "masks" if source == "simulated" else Path(source), on_missing="error"))
        files.find(frame.cameras)  # says which picture is not there
        pictures = {name: shown for name, camera in frame.cameras.items() if (shown := files.picture(camera)) is not None}
    instances = {name: Instances.from_picture(shown, name) for name, shown in pictures.items()}
    if not pictures and source is not None:
        instances = build_source(source).find(frame.cameras)
    views = camera_views(frame, frame.cameras)
    points = frame.cloud.points
    made = virtual_points(points, instances, views, num, seed=[0, frame.timestamp_us])
    owner = np.full(sum(map(len, instances.values())), -1)
    share = np.zeros(len(owner)), np.zeros(len(owner))
    if frame.truth is not None and pictures:
        named = instance_rows(pictures, frame.truth)
        owner = np.concatenate([np.zeros(0, np.int64), *[named[name] for name in views if name in named]])
        share = _returns_in_boxes(frame, points, instances, views, owner)
    hits, inside = share
    clean = inside >= CLEAN * np.maximum(hits, 1)
    returns = float(inside.sum() / hits.sum()) if hits.sum() else np.nan
    return Fused(frame, instances, views, points, made, owner[made.virtual_instance], clean[made.virtual_instance], returns)


def _returns_in_boxes(
    frame: Frame, points: np.ndarray, instances: Mapping[str, Instances], views: Mapping[str, CameraView], owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(I,), (I,): how many points of the lidar lie in the mask of each instance, and how many of them in its own enlarged box too.

    0 of both where the instance's object is not known.
    """
    names = [name for name in views if len(instances.get(name, ()))]
    members = MaskIndex([instances[name] for name in names]).members(points, [views[name] for name in names])
    holds = _in_boxes(frame, points[members.point])
    own = owner[members.instance]
    is_inside = holds[np.maximum(own, 0), np.arange(len(own))] & (own >= 0)
    hits, inside = (np.bincount(members.instance, weights=weights, minlength=len(owner)) for weights in (own >= 0, is_inside))
    return hits, inside


def _in_boxes(frame: Frame, points: np.ndarray) -> np.ndarray:
    """(N, M) bool: which points of the lidar frame lie in which of the true boxes, enlarged by `GROWN`; (1, M) False without boxes."""
    assert frame.truth is not None
    boxes = frame.truth.boxes
    if len(boxes) == 0:
        return np.zeros((1, len(points)), bool)
    grown = Boxes3D(boxes.center, boxes.size + 2 * GROWN, boxes.yaw, boxes.velocity)
    return grown.contains(frame.lidar_to_global.apply(points[:, :3].astype(np.float64)))


def told(found: Fused) -> str:
    """The figures of a frame, and which share of the virtual points lies in the boxes, by class."""
    made, lines = found.made, []
    count = sum(len(shown) for shown in found.instances.values())
    lines.append(f"{count} instances, {len(made.virtual)} virtual points of {len(np.unique(made.virtual_instance))} of them")
    lines.append(f"{len(found.points)} points of the lidar, {len(made.painted)} of them in masks")
    inside = in_own_boxes(found)
    if inside is None or len(inside) == 0:
        return "\n".join(lines)
    names = np.array(MVP_CLASSES.names)[made.virtual[:, 3:13].argmax(axis=1)]
    counted = found.row >= 0
    of = "the box of their own object"
    if not counted.any():  # the masks name no objects
        counted, of = np.ones(len(inside), bool), "a true box of their class"
    parts = [f"{name} {100 * inside[counted & (names == name)].mean():.0f} %" for name in sorted(set(names[counted]))]
    lines.append(f"virtual points in {of} and {GROWN} m around: {100 * inside[counted].mean():.1f} % ({', '.join(parts)})")
    if not counted.all():
        lines.append(f"{np.count_nonzero(~counted)} of masks whose objects are not annotated are not counted")
    if not np.isnan(found.returns):
        lines.append(f"points of the lidar in masks, counted likewise: {100 * found.returns:.1f} %")
    if found.is_clean.any():
        share, count = 100 * inside[found.is_clean].mean(), np.count_nonzero(found.is_clean)
        lines.append(f"of masks with {100 * CLEAN:.0f} % or more of such points: {share:.1f} % of {count} virtual points")
    return "\n".join(lines)


def in_own_boxes(found: Fused) -> np.ndarray | None:
    """(V,) bool: which virtual points lie in the enlarged box of their own object; of a mask that names none, in any of its class.

    None without truth.
    """
    truth, virtual = found.frame.truth, found.made.virtual
    if truth is None:
        return None
    holds = _in_boxes(found.frame, virtual)
    own = holds[np.maximum(found.row, 0), np.arange(len(virtual))]
    if len(truth) == 0:
        return own
    label = truth.classes.labels_from(MVP_CLASSES)[virtual[:, 3:13].argmax(axis=1)]
    of_class = (holds & (truth.label[:, None] == label)).any(axis=0)
    return np.where(found.row >= 0, own, of_class)


def draw(found: Fused, *, radius: float, width_px: int, title: str) -> Image.Image:
    """The whole sheet, `width_px` wide."""
    rows = camera_rows(found.views)
    each = width_px // max(len(row) for row in rows)
    shown = [[_camera(found, name, each) for name in row] for row in rows]
    side = min(width_px // 2, 2000)
    before, after = (_above(found, radius, side, title, is_after=is_after) for is_after in (False, True))
    height = sum(max(picture.height for picture in row) for row in shown)
    sheet = Image.new("RGB", (width_px, height + side + HEADER_PX), PAPER)
    top = 0
    for row in shown:
        for i, picture in enumerate(row):
            sheet.paste(picture, (i * each, top))
        top += max(picture.height for picture in row)
    sheet.paste(before, (0, top))
    sheet.paste(after, (side, top))
    return sheet


def _camera(found: Fused, name: str, width_px: int) -> Image.Image:
    """A picture with small dots where the lidar has hit, outlined masks, and larger dots of virtual points."""
    camera: Camera = found.frame.cameras[name]
    view = found.views[name]
    picture = draw_camera(camera, width_px=width_px)
    pixels = np.array(picture)
    scale = width_px / camera.size[0]
    shown = found.instances.get(name, Instances.empty(camera.size))
    for i in range(len(shown)):
        small = np.asarray(Image.fromarray(shown.mask(i)).resize(picture.size, Image.Resampling.NEAREST))
        color = np.array(class_color(shown.classes.names[shown.label[i]]))
        edge = small & np.logical_not(binary_erosion(small))
        pixels[small] = (0.85 * pixels[small] + 0.15 * color).astype(np.uint8)
        pixels[edge] = color
    painted = np.zeros(len(found.points), bool)
    painted[found.made.painted_row] = True
    for part, ink in ((~painted, _POINT), (painted, _POINT_IN_MASK)):
        x, y = _in_picture(found.points[part], view, scale).T
        pixels[y, x] = ink
    of_camera = np.repeat(list(found.views), [len(found.instances.get(one, ())) for one in found.views])
    own = of_camera[found.made.virtual_instance] == name
    virtual = found.made.virtual[own]
    colors = _colors(virtual)
    for (x, y), color in zip(_in_picture(virtual, view, scale, only=False).tolist(), colors, strict=True):
        pixels[max(y - 1, 0) : y + 3, max(x - 1, 0) : x + 3] = PAPER
        pixels[y : y + 2, x : x + 2] = color
    return Image.fromarray(pixels)


def _in_picture(points: np.ndarray, view: CameraView, scale: float, *, only: bool = True) -> np.ndarray:
    """(M, 2) pixels of the drawn picture: of the points in it, or, without `only`, of all points, whose depth must be positive."""
    x, y, depth = view.lidar_to_pixels[:, :3] @ points[:, :3].T.astype(np.float64) + view.lidar_to_pixels[:, 3:]
    width, height = view.size
    if only:
        seen = (depth > 0) & (x >= 0) & (y >= 0) & (x < width * depth) & (y < height * depth)
        x, y, depth = x[seen], y[seen], depth[seen]
    return np.clip(np.stack([x, y], axis=1) / depth[:, None] * scale, 0, np.array(view.size) * scale - 1).astype(int)


def _above(found: Fused, radius: float, side: int, title: str, *, is_after: bool) -> Image.Image:
    """The frame from above: points of the lidar in grey, true boxes dashed, and virtual points in the colour of their class."""
    frame, made = found.frame, found.made
    view = View.around_ego(frame.ego_to_global, radius=radius, size_px=side)
    canvas = Canvas(view)
    real = found.points[np.abs(found.points[:, :2]).max(axis=1, initial=0) > 1.5]
    canvas.dots(_pixels(view, frame, real), np.full((len(real), 3), 150, np.uint8))
    names: list[str] = []
    if is_after:
        at, colors = _pixels(view, frame, made.virtual), _colors(made.virtual).astype(np.uint8)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            canvas.dots(at + np.array([dx, dy]), colors)
        names = [name for k, name in enumerate(MVP_CLASSES.names) if made.virtual[:, 3 + k].any()]
    canvas.scale()
    truth: Detections | None = frame.truth
    canvas.legend([(name, class_color(name), "box") for name in names] + ([("truth", TRUTH, "truth")] if truth is not None else []))
    draw_ego(canvas, frame.ego_to_global)
    if truth is not None:
        for i in rows_in_view(view, truth.boxes):
            draw_box(canvas, truth.boxes[i], TRUTH, width=0.8, dashed=True)
    what = f"and {len(made.virtual)} virtual ones" if is_after else "of the lidar"
    return canvas.finish(f"{title}: {len(found.points)} points {what}", "ego frame: x forward is up")


def _pixels(view: View, frame: Frame, points: np.ndarray) -> np.ndarray:
    return view.to_pixels(frame.lidar_to_global.apply(points[:, :3].astype(np.float64)))


def _colors(virtual: np.ndarray) -> np.ndarray:
    """(V, 3) of the classes of virtual points."""
    return np.array([class_color(name) for name in MVP_CLASSES.names])[virtual[:, 3:13].argmax(axis=1)]


if __name__ == "__main__":
    sys.exit(report_errors(lambda: typer.run(main)))
