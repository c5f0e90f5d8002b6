"""Pictures and films of a run, with the truth of its recording where that is at hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from perception.core.detections import Detections, Tracks
from perception.core.errors import UsageError
from perception.core.frame import Frame
from perception.drives import Kitti, NuScenes
from perception.export import Run, RunDrive, RunFrame, drive_file
from perception.visual import TrailBuffer, View, draw_birdseye, draw_cameras, draw_drive, save_animation, save_picture
from perception.visual.cameras import camera_rows
from perception.visual.canvas import HEADER_PX
from perception.visual.palette import PAPER

PICTURE_PX, FILM_PX = 900, 720  # sides of the map


def draw_run(
    run: Run,
    out: Path,
    *,
    dataset: NuScenes | Kitti | None = None,
    drive: str | None = None,
    frame: int | None = None,
    film: str | None = None,
    min_score: float = 0.25,
    radius: float = 50.0,
    points: bool = False,
    cameras: bool = False,
    advance: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Draw each drive of a run (or one): OUT/<drive>_frame<N>.png, OUT/<drive>.png, with `film` OUT/<drive>.gif or .mp4, and with
    `cameras` OUT/<drive>_frame<N>_cameras.png.

    frame      number of the frame to draw, the middle one where None
    min_score  tracks below it are left out
    radius     metres around the ego vehicle
    points     draw the lidar points of `dataset` too; a missing cloud is what the data set's `on_missing` says
    cameras    draw the tracks of the frame into the pictures of the cameras of `dataset` too, see `draw_frame`
    Returns the paths written. UsageError for a frame that a drive does not have, and for numbers that make no picture.
    """
    if not 0 < radius < np.inf:
        raise UsageError(f"radius {radius}: expected metres > 0")
    if np.isnan(min_score):
        raise UsageError(f"min_score {min_score}: expected a number")
    drives = [run.drive(drive)] if drive else list(run)
    paths = []
    for done, item in enumerate(drives, start=1):
        stem = drive_file(item.name).removesuffix(".parquet")
        number = len(item) // 2 if frame is None else frame
        if len(item):
            if not 0 <= number < len(item):
                raise UsageError(f"drive {item.name}: expected a frame in 0..{len(item) - 1}, got {number}")
            picture = list(_moments(item, dataset, min_score, radius, points=points, stop=number + 1))[-1]
            paths.append(out / f"{stem}_frame{number:03d}.png")
            save_picture(picture, paths[-1])
            paths.append(out / f"{stem}.png")
            save_picture(_whole(item, dataset, min_score), paths[-1])
            if cameras and dataset is not None:
                paths.append(out / f"{stem}_frame{number:03d}_cameras.png")
                save_picture(_around(item, number, dataset, min_score, radius), paths[-1])
            if film:
                paths.append(out / f"{stem}.{film}")
                save_animation(_moments(item, dataset, min_score, radius, points=points, size_px=FILM_PX), paths[-1])
        if advance:
            advance(item.name, done, len(drives))
    return paths


def _around(drive: RunDrive, number: int, dataset: NuScenes | Kitti, min_score: float, radius: float) -> Image.Image:
    """The tracks of one frame in the pictures of its cameras. Raises UsageError where the data set has none there."""
    frame = drive[number]
    recorded = dataset.frame(frame.token)
    if not recorded.cameras:
        raise UsageError(f"drive {drive.name}, frame {number}: expected pictures of cameras in the data set, found none")
    tracks = frame.tracks[frame.tracks.score >= min_score]
    return draw_frame(recorded, objects=tracks, radius=radius, title=f"{drive.name}, frame {number}")


def draw_frame(
    frame: Frame, *, objects: Detections | Tracks | None = None, radius: float = 50.0, height_px: int = 640, title: str = ""
) -> Image.Image:
    """One recorded moment: from above with its points and boxes, and, where there are pictures, through its cameras with the same boxes.

    objects    in the global frame; the truth where None, without what the lidar did not hit
    radius     metres around the ego vehicle that are seen from above
    height_px  of the whole, 320 or more; pictures of the cameras take as much room beside as they need
    """
    if objects is None:
        objects = _hit(frame.truth)
    view = View.around_ego(frame.ego_to_global, radius=radius, size_px=height_px - HEADER_PX)
    is_tracks = isinstance(objects, Tracks)
    above = draw_birdseye(
        view,
        tracks=objects if is_tracks else None,
        detections=None if is_tracks else objects,
        points=_points_of(frame, radius),
        ego_to_global=frame.ego_to_global,
        title=title,
    )
    if not frame.cameras:
        return above
    rows = camera_rows(frame.cameras)
    wide = max(map(len, rows))
    # a row is as high as its highest picture, and all pictures are equally wide
    height_of_one = sum(max(frame.cameras[name].size[1] / frame.cameras[name].size[0] for name in row) for row in rows)
    width = round(height_px / height_of_one) * wide
    around = draw_cameras(frame.cameras, objects, timestamp_us=frame.timestamp_us, width_px=width)
    sheet = Image.new("RGB", (above.width + around.width, max(above.height, around.height)), PAPER)
    sheet.paste(above, (0, 0))
    sheet.paste(around, (above.width, 0))
    return sheet


def _moments(
    drive: RunDrive,
    dataset: NuScenes | Kitti | None,
    min_score: float,
    radius: float,
    *,
    points: bool = False,
    stop: int | None = None,
    size_px: int = PICTURE_PX,
) -> Iterator[Image.Image]:
    """A picture of each frame; with `stop` only of the frame before it, the ones before that give its trails."""
    trails = TrailBuffer()
    for frame in drive:
        tracks = frame.tracks[frame.tracks.score >= min_score]
        trails.push(frame.timestamp_us, tracks)
        if stop is not None and frame.index < stop - 1:
            continue
        seconds = (frame.timestamp_us - int(drive.timestamps_us[0])) * 1e-6
        yield draw_birdseye(
            View.around_ego(frame.ego_to_global, radius=radius, size_px=size_px),
            tracks=tracks,
            truth=_truth(frame, dataset),
            points=_points(frame, dataset, radius) if points and dataset is not None else None,
            ego_to_global=frame.ego_to_global,
            trails=trails.trails(),
            title=f"{drive.name}, frame {frame.index}, {seconds:.1f} s",
        )
        if stop is not None:
            return


def _whole(drive: RunDrive, dataset: NuScenes | Kitti | None, min_score: float) -> Image.Image:
    """The paths of all tracks that were seen at least twice."""
    rows = drive.tracks.filter(~drive.tracks["coasted"].to_numpy(zero_copy_only=False) & (drive.tracks["score"].to_numpy() >= min_score))
    ids, names = rows["track_id"].to_numpy(), rows["class"].to_pylist()
    positions = np.stack([rows["x_global"].to_numpy(), rows["y_global"].to_numpy()], axis=1)
    paths = {}
    for number in np.unique(ids):
        at = np.flatnonzero(ids == number)
        if len(at) > 1:
            paths[int(number)] = (names[at[0]], positions[at])
    ego = np.array([frame.ego_to_global.translation for frame in drive])
    return draw_drive(ego, paths, title=f"{drive.name}: {len(paths)} tracks in {len(drive)} frames", truth=_true_paths(drive, dataset))


def _true_paths(drive: RunDrive, dataset: NuScenes | Kitti | None) -> list[np.ndarray]:
    paths: dict[str, list[np.ndarray]] = {}
    for frame in drive:
        truth = _truth(frame, dataset)
        if truth is not None and truth.instance is not None:
            for name, center in zip(truth.instance.tolist(), truth.boxes.center, strict=True):
                paths.setdefault(name, []).append(center[:2])
    return [np.array(path) for path in paths.values()]


def _truth(frame: RunFrame, dataset: NuScenes | Kitti | None) -> Detections | None:
    """The annotated objects that were hit by the lidar, as the official evaluation counts them."""
    return None if dataset is None else _hit(dataset.frame(frame.token).truth)


def _hit(truth: Detections | None) -> Detections | None:
    return truth if truth is None or truth.num_points is None else truth[truth.num_points > 0]


def _points(frame: RunFrame, dataset: NuScenes | Kitti, radius: float) -> np.ndarray:
    return _points_of(dataset.frame(frame.token), radius)


def _points_of(recorded: Frame, radius: float) -> np.ndarray:
    """(M, 3) lidar points of the key sweep that a picture shows, in the global frame, without the ego vehicle's own."""
    points = recorded.cloud.points[:, :3]
    distance = np.abs(points[:, :2]).max(axis=1, initial=0)
    return recorded.lidar_to_global.apply(points[(distance > 1.5) & (distance < 1.5 * radius)].astype(np.float64))
