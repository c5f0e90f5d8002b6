"""Simulated cameras: pictures of matter by casting rays, with the object that each pixel shows."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from cuda_ops import Primitives, cast_rays
from perception.core import Transform, UsageError
from perception.core.expect import expect_array
from perception.core.rle import encode_rle
from perception.drives.simulated.catalog import SENSORS, Sensor
from perception.drives.simulated.foliage import with_clumps
from perception.drives.simulated.matter import SCENERY, Matter
from perception.drives.simulated.shading import DAYLIGHT, GRAIN, Scene, Sun, Target
from perception.drives.simulated.texture import Finish

CAMERAS: tuple[Sensor, ...] = tuple(sensor for sensor in SENSORS if sensor.modality == "camera")
IMAGE_SIZE = (1600, 900)
_CONTRAST = 10  # of 255: smaller steps of colour are not worth a closer look
NEAREST = 0.3  # metres; what is nearer to the camera is not seen, as the edge of its housing


@dataclass(frozen=True, eq=False)
class CameraImage:
    """One picture. All three agree pixel by pixel: `owner` and `depth` belong to the surface whose colour `image` shows.

    image  (h, w, 3) uint8   red, green, blue
    owner  (h, w) int32      object of the scene, SCENERY for everything else and the sky
    depth  (h, w) float32    metres along the camera's z axis, inf in the sky; one for each block of pixels that one ray stands for
    """

    image: np.ndarray
    owner: np.ndarray
    depth: np.ndarray

    def jpeg(self, *, quality: int = 90) -> bytes:
        """The picture as a JPEG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.image).save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class InstanceMask:
    """What a picture shows of one object.

    owner   which object
    box     (4,) int64        x0, y0, x1, y1 in pixels: the first column and row, and those after the last
    pixels  number of pixels
    rle     {"size": [h, w], "counts": text}, see `perception.core.rle`
    """

    owner: int
    box: np.ndarray
    pixels: int
    rle: dict[str, Any]


def camera_time_us(camera: Sensor, lidar_time_us: int) -> int:
    """When a camera takes the picture that belongs to a lidar sweep: as the beam passes its axis, before the sweep ends."""
    return lidar_time_us + camera.offset_us


def camera_to_ego(camera: Sensor) -> Transform:
    return Transform.from_quaternion(camera.rotation, camera.translation)


def render(
    matter: Matter,
    camera_to_world: Transform,
    intrinsics: np.ndarray,
    size: tuple[int, int] = IMAGE_SIZE,
    *,
    scale: int = 2,
    seed: int = 0,
    sun: Sun = DAYLIGHT,
    shadows: bool = True,
) -> CameraImage:
    """The picture that a pinhole camera takes of `matter`, which is given in the world frame at the picture's time.

    camera_to_world  camera axes x right, y down, z forward (nuScenes)
    intrinsics       (3, 3) pinhole matrix, pixels. The pixel in column c and row r shows [c, c + 1) x [r, r + 1): its centre projects to
                     (c + 0.5, r + 0.5), so the pixel of a projected point is its coordinates rounded down
    size             (width, height) pixels
    scale            one ray for each scale x scale pixels; where such a block meets an edge it is cast again, one ray a pixel
    seed             of the chances of leaves and fences, and of the unevenness of surfaces; the same seed gives the same bytes
    shadows          one more ray from each surface that faces the sun
    Solids that a camera is inside of are not seen. The glass of objects shows as a dark surface, whatever it lets pass: masks of vehicles
    have no holes where their windows are. Raises UsageError for a size or scale below 1.
    """
    if min(size) < 1 or scale < 1:
        raise UsageError(f"render: expected size and scale of at least 1, got size {size} and scale {scale}")
    intrinsics = expect_array("render: intrinsics", intrinsics, (3, 3), "float64", finite=True)
    width, height = size
    rows, columns = (-(-length // scale) for length in (height, width))
    matter = with_clumps(_with_opaque_objects(matter), camera_to_world.translation)
    look = _Look(Scene(matter, sun, seed, shadows=shadows), Target(matter.shapes), camera_to_world, intrinsics, seed)
    color, primitive, depth, openness = look.at(_grid_rays(intrinsics.tobytes(), size, scale))
    grid = [values.reshape(rows, columns, *values.shape[1:]) for values in (color, primitive, depth, openness)]
    image, shown, far = (np.ascontiguousarray(_enlarged(values, scale)[:height, :width]) for values in grid[:3])
    owner = np.append(matter.owner, np.int32(SCENERY))
    if scale > 1:
        is_leafy = np.append(look.scene.finish == Finish.LEAVES, False)
        edge = _edges(grid[1], owner.take(grid[1], mode="wrap"), grid[0], is_leafy.take(grid[1], mode="wrap"))
        pixel = np.flatnonzero(_enlarged(edge, scale)[:height, :width])
        row, column = pixel // width, pixel % width
        fine = look.at(
            _rays(intrinsics, column + 0.5, row + 0.5), lambda found: _openness_nearby(found, grid[1], grid[3], row, column, scale)
        )
        for values, better in zip((image.reshape(-1, 3), shown.reshape(-1), far.reshape(-1)), fine, strict=False):
            values[pixel] = better
    return CameraImage(_with_grain(image, seed), owner.take(shown, mode="wrap"), far)  # -1, the sky, takes the last


@dataclass(frozen=True, eq=False)
class _Look:
    """A view of a world."""

    scene: Scene
    target: Target
    camera_to_world: Transform
    intrinsics: np.ndarray
    seed: int

    def at(
        self, rays: tuple[np.ndarray, np.ndarray], known: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Colour (R, 3) uint8, primitive (R,) int32 or -1, depth (R,) float32, openness (R, 2) along rays in the camera frame, see `_rays`.

        known  gives the openness, as far as it is known, of the primitives (R,) that rays meet
        """
        directions, forward = rays
        origins, world = _in_world(self.camera_to_world, directions)
        hits = self.target.cast(origins, world, seed=self.seed, min_range=NEAREST)
        color, openness = self.scene.shade(origins, world, hits, known(hits.primitive) if known else None)
        return color, hits.primitive, hits.distance * forward, openness


def _in_world(camera_to_world: Transform, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins (R, 3) and directions (R, 3), float32, in the world of rays in the camera frame."""
    world = directions @ camera_to_world.rotation.T.astype(np.float32)
    origins = np.empty_like(world)
    origins[:] = camera_to_world.translation
    return origins, world


def _with_opaque_objects(matter: Matter) -> Matter:
    chance = np.where(matter.owner == SCENERY, matter.shapes.pass_chance, np.float32(0))
    return replace(matter, shapes=replace(matter.shapes, pass_chance=chance))


def _block_centers(length: int, scale: int) -> np.ndarray:
    return np.arange(-(-length // scale)) * scale + scale / 2


@lru_cache(maxsize=12)  # six cameras, at two scales
def _grid_rays(intrinsics: bytes, size: tuple[int, int], scale: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(_block_centers(size[0], scale), _block_centers(size[1], scale))
    rays = _rays(np.frombuffer(intrinsics).reshape(3, 3), x.ravel(), y.ravel())
    for values in rays:
        values.flags.writeable = False
    return rays


def _rays(intrinsics: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit directions (R, 3) float32 through image points, camera frame, and their z (R,) float32."""
    rays = np.stack([x, y, np.ones_like(x)], axis=1) @ np.linalg.inv(intrinsics).T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    rays = rays.astype(np.float32)
    return rays, np.ascontiguousarray(rays[:, 2])


def _enlarged(values: np.ndarray, scale: int) -> np.ndarray:
    return values.repeat(scale, axis=0).repeat(scale, axis=1) if scale > 1 else values


def _edges(primitive: np.ndarray, owner: np.ndarray, color: np.ndarray, is_leafy: np.ndarray) -> np.ndarray:
    """(rows, columns) bool: blocks that show another object than one of their four neighbours, or another shape of another colour.

    Leaves before anything of the scenery are ragged as it is, and make most of the edges: they are left as they are.
    """
    edge = np.zeros(primitive.shape, bool)
    for axis in (0, 1):
        first, second = (slice(None, -1), slice(1, None)) if axis == 0 else ((slice(None), slice(None, -1)), (slice(None), slice(1, None)))
        differs = (primitive[first] != primitive[second]) & ~(is_leafy[first] | is_leafy[second])
        contrast = np.abs(color[first].astype(np.int16) - color[second]).max(axis=-1)
        border = (owner[first] != owner[second]) | (differs & (contrast > _CONTRAST))
        edge[first] |= border
        edge[second] |= border
    return edge


def _openness_nearby(
    primitive: np.ndarray, of_block: np.ndarray, openness: np.ndarray, row: np.ndarray, column: np.ndarray, scale: int
) -> np.ndarray:
    """(R, 2) openness of pixels that show a `primitive` (R,): that of their block, else of a neighbour, that shows the same; else NaN."""
    found = np.full((len(primitive), 2), np.nan, np.float32)
    rows, columns = of_block.shape
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0)):
        at = np.clip(row // scale + down, 0, rows - 1) * columns + np.clip(column // scale + right, 0, columns - 1)
        same = np.flatnonzero(of_block.ravel().take(at) == primitive)
        found[same] = openness.reshape(-1, 2).take(at.take(same), axis=0)
    return found


def _with_grain(image: np.ndarray, seed: int) -> np.ndarray:
    """With the grey noise of a sensor, up to GRAIN."""
    grain = np.random.default_rng(seed).integers(-GRAIN, GRAIN + 1, image.shape[:2], np.int8).view(np.uint8)
    return image + grain[:, :, None]  # `shade` leaves room: what wraps around comes back


def instance_masks(owner: np.ndarray, *, min_pixels: int = 1) -> list[InstanceMask]:
    """The objects that a picture shows, in the order of their numbers.

    owner       (h, w) int32, see `CameraImage`
    min_pixels  objects with fewer are left out
    """
    owner = expect_array("instance_masks: owner", owner, (None, None), "int32")
    found = []
    for number, window in enumerate(ndimage.find_objects(np.maximum(owner, SCENERY) + 1)):
        if window is None:
            continue
        mask = owner[window] == number
        if (pixels := int(np.count_nonzero(mask))) >= min_pixels:
            rows, columns = window
            rle = encode_rle(mask, size=(len(owner), owner.shape[1]), corner=(rows.start, columns.start))
            found.append(InstanceMask(number, np.array([columns.start, rows.start, columns.stop, rows.stop]), pixels, rle))
    return found


@dataclass(frozen=True, eq=False)
class View:
    """What one camera saw, and from where: `owner` (h, w) int32 of its picture, `matter` at its moment."""

    matter: Matter
    owner: np.ndarray
    camera_to_world: Transform
    intrinsics: np.ndarray


def visibility_of(views: Sequence[View], num_objects: int, *, rays: int = 400, seed: int = 0) -> np.ndarray:
    """(num_objects,) share of each object's pixels, over all views, that nothing hides, 0..1; 0 where no view reaches it.

    num_objects  how many rows the scene has: owners 0 .. num_objects - 1
    rays         cast at about so many pixels of an object in a view, where it has as many; the share is good to some hundredths
    Each object is cast alone within its bounds in the picture, at the middles of some pixels; whether the picture shows it there is looked
    up. Where a block of it was not cast again, a pixel more or less is possible: the share is clipped to 1.
    """
    seen, alone = np.zeros(num_objects), np.zeros(num_objects)
    for view in views:
        matter = _with_opaque_objects(view.matter)
        order = np.argsort(matter.owner, kind="stable")
        first = np.searchsorted(matter.owner[order], np.arange(num_objects + 1))
        for number in np.flatnonzero(np.diff(first)).tolist():
            shown, whole = _visible_pixels(matter.taken(order[first[number] : first[number + 1]]).shapes, number, view, rays, seed)
            seen[number] += shown
            alone[number] += whole
    return np.divide(np.minimum(seen, alone), alone, out=np.zeros(num_objects), where=alone > 0)


def _visible_pixels(own: Primitives, number: int, view: View, rays: int, seed: int) -> tuple[int, int]:
    """About how many pixels of an object the picture shows, and how many it would show if nothing stood before it."""
    window = _window(own.center, own.size, view)
    if window is None:
        return 0, 0
    x0, y0, x1, y1 = window
    step = max(1, int(np.sqrt((x1 - x0) * (y1 - y0) / rays)))
    while True:
        column, row = _spread(x0, y0, x1, y1, step)
        through = _in_world(view.camera_to_world, _rays(view.intrinsics, column + 0.5, row + 0.5)[0])
        found = int(np.count_nonzero(cast_rays(*through, own, seed=seed, min_range=NEAREST).primitive >= 0))
        # thin things fill little of their window: look closer, within reason
        if step == 1 or found > rays / 2 or len(column) > 8 * rays:
            return step**2 * int(np.count_nonzero(view.owner[row, column] == number)), step**2 * found
        step = max(1, step // 2)


def _spread(x0: int, y0: int, x1: int, y1: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """One pixel of each step x step cell of a window: columns and rows. Cells have theirs at different places, or what is a step and a
    half wide would count as one step or two.
    """
    i, j = (v.ravel() for v in np.meshgrid(np.arange(-(-(x1 - x0) // step)), np.arange(-(-(y1 - y0) // step))))
    golden = (np.sqrt(5) - 1) / 2  # its multiples fill 0..1 evenly
    column, row = x0 + ((i + j * golden % 1) * step).astype(int), y0 + ((j + i * golden % 1) * step).astype(int)
    is_inside = (column < x1) & (row < y1)
    return column[is_inside], row[is_inside]


def visibility_level(fraction: np.ndarray) -> np.ndarray:
    """The nuScenes visibility tokens of shares (N,): "1" below 40 %, "2" below 60 %, "3" below 80 %, else "4"."""
    return (1 + np.searchsorted([0.4, 0.6, 0.8], fraction, side="right")).astype(str)


def _window(center: np.ndarray, size: np.ndarray, view: View) -> tuple[int, int, int, int] | None:
    """The pixels x0, y0, x1, y1 that the balls round some shapes may reach in a picture, None where they lie outside."""
    height, width = view.owner.shape
    x, y, z = view.camera_to_world.inverse().apply(center).T
    radius = np.linalg.norm(size, axis=1) / 2
    ahead = z > -radius
    if not ahead.any():
        return None
    x, y, z, radius = x[ahead], y[ahead], z[ahead], radius[ahead]
    near, far = np.maximum(z - radius, NEAREST / 2), np.maximum(z + radius, NEAREST)

    def reach(low: np.ndarray, high: np.ndarray, focal: float, middle: float, length: int) -> tuple[int, int]:
        first = np.where(low < 0, low / near, low / far).min() * focal + middle
        last = np.where(high > 0, high / near, high / far).max() * focal + middle
        return int(np.clip(np.floor(first), 0, length)), int(np.clip(np.ceil(last), 0, length))

    x0, x1 = reach(x - radius, x + radius, view.intrinsics[0, 0], view.intrinsics[0, 2], width)
    y0, y1 = reach(y - radius, y + radius, view.intrinsics[1, 1], view.intrinsics[1, 2], height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
