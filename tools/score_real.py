"""How a detector does on what its training never saw: a real nuScenes frame, a real KITTI drive, streets of other seeds.

    python tools/score_real.py --model compact --nuscenes FRAME_ROOT --kitti KITTI_ROOT --simulated out/unseen --out out/score

Prints each figure beside the bar it is to reach, and writes OUT/score.json (figures, whole curves, failures) and OUT/pictures. What is not
given is left out. Vehicles are car, truck, bus, trailer and construction vehicle taken as one group, cyclists are bicycles and motorcycles.

- nuScenes frame: pairs by nuScenes' rule (centres less than 2 m apart), metres from the ego vehicle, returns of the key sweep. A figure is
  the number of false ones at the highest threshold that finds enough. A detection of a true object that is too far or has too few returns
  is neither right nor wrong; what is matched to nothing is false, a second detection of one object too.
- KITTI drive: vehicles by overlap from above (0.3), cyclists within 1 m. Truth is complete where the labelled camera looks: detections
  whose centre is not in its picture do not count, nor do those of which half lies in a region without labels (DontCare, other types).
  False vehicles count at any distance, labelled ones up to 40 m.
- Simulated scenes: the official scores of detections and of the default tracker's tracks. Moving cars are those above 0.5 m/s.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from cuda_ops import points_in_boxes
from perception.cli.main import report_errors
from perception.core.classes import KITTI_TO_NUSCENES
from perception.core.detections import Detections
from perception.core.errors import DataError, MissingPackage, UsageError
from perception.core.files import write_bytes
from perception.core.frame import Frame, LabelledView
from perception.drives import NuScenes, open_drives
from perception.drives.nuscenes import find_versions
from perception.drives.simulated import simulate_scenes, write_nuscenes
from perception.evaluation import (
    Curve,
    OperatingPoint,
    Outcome,
    average_precisions,
    evaluate_officially,
    format_scores,
    judge,
    overlapping,
    read_submission,
    within,
)
from perception.evaluation.curves import Near, distances, heading_error, of_classes, of_hits, overlap_of_pairs, velocity_error
from perception.pipeline import Pipeline, run_drives
from perception.tracking import build_tracker, load_tracker_config
from perception.visual import Judged, draw_outcomes, save_picture

VEHICLES = ("car", "truck", "bus", "trailer", "construction_vehicle")
CYCLISTS = ("bicycle", "motorcycle")
PEDESTRIANS = ("pedestrian",)
MOVING = 0.5  # m/s
IN_REGION = 0.5  # share of a detection's picture that a region without labels must cover for it not to count
UNSEEN = "unseen"  # name of the split of scenes that this tool simulates
Find = Callable[[Frame], Detections]


@dataclass(frozen=True, eq=False)
class Seen:
    """One frame, its detections and its truth in the EGO frame.

    points       (P, 3) float32 of the key sweep
    is_complete  (N,) bool: detections that lie where the truth is complete
    """

    name: str
    found: Detections
    truth: Detections
    points: np.ndarray
    is_complete: np.ndarray


@dataclass(frozen=True)
class Figure:
    """A number, the bar that it is to reach, and how it came about. NaN never holds."""

    name: str
    value: float
    bar: float
    sense: Literal["<=", ">="]
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.value <= self.bar if self.sense == "<=" else self.value >= self.bar


@dataclass
class Report:
    """What is printed and written of one recording.

    curves  name -> curve
    drawn   groups of classes of each frame and the threshold at which they are drawn and their failures are listed
    """

    figures: list[Figure] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    drawn: list[tuple[list[Outcome], float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(frame: Frame, find: Find, regions: np.ndarray | None = None) -> Seen:
    """A frame with what `find` (detections in the ego frame) says of it; `regions` (R, 4) without labels, see `is_in_regions`."""
    if frame.truth is None:
        raise UsageError(f"{frame.token}: expected a frame with annotated objects, found none")
    points = np.ascontiguousarray(frame.lidar_to_ego.apply(frame.cloud.points[:, :3].astype(np.float64)), np.float32)
    truth, found = frame.truth.transformed(frame.ego_to_global.inverse()), find(frame)
    boxes = truth.boxes
    rows = np.ascontiguousarray(np.column_stack([boxes.center, boxes.size, boxes.yaw]))
    truth = replace(truth, num_points=np.asarray(points_in_boxes(points, rows).count).astype(np.int64))
    is_complete = np.ones(len(found), bool)
    if frame.labelled_view is not None:
        is_complete = frame.labelled_view.contains(found.boxes.center)
        if regions is not None and len(regions):
            is_complete &= ~is_in_regions(found, frame.labelled_view, regions)
    return Seen(frame.token, found, truth, points, is_complete)


def pictured(found: Detections, view: LabelledView) -> np.ndarray:
    """(N, 4) left, top, right, bottom in pixels: around the corners of each box that lie before the camera, cut to the image."""
    if not len(found):
        return np.zeros((0, 4))
    corners = view.camera_to_ego.inverse().apply(found.boxes.corners.reshape(-1, 3))
    x, y, depth = (corners @ view.intrinsics.T).T
    is_behind = depth < 0.1
    pixels = np.stack([x, y], axis=1) / np.where(is_behind, 1.0, depth)[:, None]
    pixels = pixels.reshape(-1, 8, 2)
    hidden = is_behind.reshape(-1, 8, 1)
    low = np.where(hidden, np.inf, pixels).min(axis=1)
    high = np.where(hidden, -np.inf, pixels).max(axis=1)
    return np.concatenate([np.clip(low, 0, view.size), np.clip(high, 0, view.size)], axis=1)


def is_in_regions(found: Detections, view: LabelledView, regions: np.ndarray) -> np.ndarray:
    """(N,) bool: half of a box's rectangle in the image lies in one of the regions (R, 4) left, top, right, bottom in pixels."""
    own = pictured(found, view)[:, None]
    width = np.minimum(own[..., 2], regions[:, 2]) - np.maximum(own[..., 0], regions[:, 0])
    height = np.minimum(own[..., 3], regions[:, 3]) - np.maximum(own[..., 1], regions[:, 1])
    area = (own[..., 2] - own[..., 0]) * (own[..., 3] - own[..., 1])
    shared = np.clip(width, 0, None) * np.clip(height, 0, None)
    return (shared >= IN_REGION * np.maximum(area, 1e-9)).any(axis=1)


def read_regions(label_file: Path) -> dict[int, np.ndarray]:
    """Frame number -> (R, 4) pixels of what a label file of KITTI's tracking benchmark leaves unlabelled: DontCare, Tram, Misc."""
    rows: dict[int, list[list[float]]] = {}
    for line in label_file.read_text().splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[2] not in KITTI_TO_NUSCENES:
            rows.setdefault(int(fields[0]), []).append([float(value) for value in fields[6:10]])
    return {number: np.array(regions) for number, regions in rows.items()}


def ask(
    seen: Seen, names: Sequence[str], near: Near, *, max_distance: float = np.inf, min_points: int = 0, judged_within: float = np.inf
) -> Outcome:
    """Judge a group of classes: true objects up to `max_distance` with `min_points` returns are wanted, detections up to `judged_within`
    are false where they match none."""
    is_group = np.isin(seen.found.names, names)
    found, truth = seen.found[is_group], of_classes(seen.truth, names)
    assert truth.num_points is not None
    is_wanted = (distances(truth) <= max_distance) & (truth.num_points >= min_points)
    is_judged = (distances(found) <= judged_within) & seen.is_complete[is_group]
    return judge(found, truth, near, is_wanted=is_wanted, is_judged=is_judged)


def score_nuscenes(frames: Iterable[Frame], find: Find) -> tuple[Report, list[Seen]]:
    """The figures of real nuScenes frames of one sweep."""
    seen, report = [look(frame, find) for frame in frames], Report()
    for name, names, metres, returns, share, bar in (
        ("vehicles to 40 m, 10 returns", VEHICLES, 40.0, 10, 1.0, 3),
        ("pedestrians to 30 m, 5 returns", PEDESTRIANS, 30.0, 5, 7 / 8, 3),
        ("vehicles to 50 m, 4 returns", VEHICLES, 50.0, 4, 5 / 6, 10),
    ):
        outcomes = [ask(s, names, within(2.0), max_distance=metres, min_points=returns, judged_within=metres) for s in seen]
        curve = report.curves[f"nuScenes {name}"] = Curve(outcomes)
        needed = int(np.ceil(share * curve.wanted - 1e-9))
        point, best = curve.at_count(max(needed, 1)), max((point.found for point in curve.points), default=0)
        reached = f"at most {best} found" if point is None else _told(point)
        note = f"AP {curve.average_precision:.2f}; {reached}"
        false = float("nan") if point is None else float(point.false)
        report.figures.append(Figure(f"nuScenes {name}: false ones where {needed} of {curve.wanted} are found", false, bar, "<=", note))
        if metres != 40.0:  # the last figure of the vehicles has them all
            report.drawn.append((outcomes, 0.0 if point is None else point.threshold))
    return report, seen


def score_kitti(frames: Iterable[tuple[Frame, np.ndarray]], find: Find, pedestrian_threshold: float | None) -> tuple[Report, list[Seen]]:
    """The figures of a real KITTI drive; with each frame come the regions without labels (R, 4)."""
    seen, report = [look(frame, find, regions) for frame, regions in frames], Report()
    vehicles = [ask(s, VEHICLES, overlapping(0.3), max_distance=40.0, min_points=10) for s in seen]
    curve = report.curves["KITTI vehicles"] = Curve(vehicles)
    full, sound = curve.at_recall(0.95), curve.at_false(0.5)
    best = full if full is not None and full.false_a_frame <= 0.5 else sound
    report.figures += [
        Figure(
            "KITTI vehicles: recall at 0.5 false a frame",
            sound.recall if sound else 0.0,
            0.95,
            ">=",
            f"AP {curve.average_precision:.2f}; {_told(sound)}",
        ),
        Figure(
            "KITTI vehicles: false a frame at a recall of 0.95", full.false_a_frame if full else float("nan"), 0.5, "<=", _told(full, curve)
        ),
    ]
    threshold = best.threshold if best else 0.0
    overlap, heading = (_of_all_hits(vehicles, threshold, error) for error in (overlap_of_pairs, heading_error))
    where = f"{len(overlap)} matched at {threshold:.3f}"
    report.figures.append(Figure("KITTI vehicles: mean overlap of the matched", _mean(overlap), 0.75, ">=", where))
    report.figures.append(Figure("KITTI vehicles: heading right, not reversed", _mean(heading < np.pi / 2), 0.9, ">=", where))
    near_only = Curve([ask(s, VEHICLES, overlapping(0.3), max_distance=40.0, min_points=10, judged_within=40.0) for s in seen])
    report.notes.append(f"KITTI vehicles, false ones up to 40 m only: {near_only.at_threshold(threshold).false_a_frame:.2f} a frame")
    report.drawn.append((vehicles, threshold))

    cyclists = [ask(s, CYCLISTS, within(1.0)) for s in seen]
    curve = report.curves["KITTI cyclists"] = Curve(cyclists)
    point = curve.at_recall(0.9)
    value, note = point.false_a_frame if point else float("nan"), f"AP {curve.average_precision:.2f}; {_told(point, curve)}"
    report.figures.append(Figure("KITTI cyclists: false a frame where 0.9 are found", value, 2, "<=", note))
    report.drawn.append((cyclists, point.threshold if point else 0.0))

    people = [ask(s, PEDESTRIANS, within(2.0)) for s in seen]
    curve = report.curves["KITTI pedestrians"] = Curve(people)
    value, note = float("nan"), "there is no threshold of the nuScenes figure"
    if pedestrian_threshold is not None:
        point = curve.at_threshold(pedestrian_threshold)
        value, note = point.false_a_frame, f"at the nuScenes figure's {pedestrian_threshold:.3f}"
        report.drawn.append((people, pedestrian_threshold))
    report.figures.append(Figure("KITTI pedestrians: false a frame", value, 3, "<=", note))
    return report, seen


def score_simulated(dataset: NuScenes, split: str, detector: Any, out: Path) -> Report:
    """The official scores of a run over simulated scenes in OUT/simulated; without the devkit our own AP."""
    report, drives = Report(), dataset.drives(split)
    run = run_drives(drives, detector, build_tracker(load_tracker_config()), out / "simulated")
    detections = read_submission(run.submissions[0])
    pairs, cars, errors = [], [], []
    for drive in drives:
        for frame in drive:
            to_ego = frame.ego_to_global.inverse()
            found = detections.detections(frame.token).transformed(to_ego)
            assert frame.truth is not None
            truth = frame.truth.transformed(to_ego)
            pairs.append((found, truth))
            cars.append(moving_cars(found, truth))
            errors.append(of_hits(cars[-1], velocity_error))
    own = average_precisions(pairs)
    aps, mean = own, float(np.mean(list(own.values()))) if own else float("nan")
    whose = "perception's own, mean of the classes that occur"
    try:
        for task, submission in zip(("detection", "tracking"), run.submissions, strict=True):
            scores = evaluate_officially(submission, dataset.dataroot, dataset.version, split, out / "simulated/evaluation", plots=True)
            report.notes.append(f"simulated, {task}: {format_scores(scores)}")
            if task == "detection":
                aps, mean = {name: row[0] for name, row in scores.table.items()}, scores.headline["mAP"]
        whose = "nuscenes-devkit"
    except (MissingPackage, DataError) as error:
        report.notes.append(f"no official scores: {error}")
        report.notes.append("AP by class: " + ", ".join(f"{name} {value:.3f}" for name, value in own.items()))
    curve = report.curves["simulated moving cars"] = Curve(cars)
    recall = curve.at_threshold(0).recall
    velocity = curve.average_error(errors) if recall >= 0.11 else float("nan")  # the devkit's 1 for too low a recall is no speed
    report.figures = [
        Figure("simulated: mAP of ten classes", mean, 0.55, ">=", whose),
        Figure("simulated: AP of cars", aps.get("car", float("nan")), 0.80, ">=", whose),
        Figure("simulated: AP of pedestrians", aps.get("pedestrian", float("nan")), 0.60, ">=", whose),
        Figure(
            f"simulated: AVE of cars above {MOVING} m/s [m/s]",
            velocity,
            1.0,
            "<=",
            f"nuScenes' rule; {curve.wanted} of them, recall {recall:.2f}",
        ),
    ]
    return report


def moving_cars(found: Detections, truth: Detections) -> Outcome:
    """Cars in nuScenes' range of 50 m at 2 m, of which those that move and were hit by the lidar are wanted. All in the ego frame."""
    found, truth = of_classes(found, ["car"]), of_classes(truth, ["car"])
    found, truth = found[distances(found) < 50], truth[distances(truth) < 50]
    is_hit = np.ones(len(truth), bool) if truth.num_points is None else truth.num_points > 0
    return judge(found, truth, within(2.0), is_wanted=is_hit & (truth.boxes.speed > MOVING))


def judged_at(outcome: Outcome, threshold: float) -> Judged:
    """The objects of an outcome as a picture at a threshold shows them."""
    is_shown, missed = outcome.found.score >= threshold, outcome.missed(threshold)
    return Judged(
        hits=outcome.found[is_shown & outcome.is_hit],
        false=outcome.found[is_shown & outcome.is_false],
        neither=outcome.found[is_shown & ~outcome.is_hit & ~outcome.is_false],
        missed=outcome.truth[missed],
        truth=outcome.truth[~missed],
    )


def draw_failures(report: Report, seen: list[Seen], folder: Path, *, most: int, radius: float = 50.0) -> list[Path]:
    """Pictures of the frames with most that is missed or false at the figures' thresholds, at most so many."""
    by_frame = [[judged_at(outcomes[i], threshold) for outcomes, threshold in report.drawn] for i in range(len(seen))]
    faults = [sum(len(group.missed) + len(group.false) for group in groups) for groups in by_frame]
    paths = []
    for i in np.argsort(-np.array(faults), kind="stable")[:most].tolist():
        title = f"{seen[i].name}: {faults[i]} faults"
        paths.append(folder / f"{i:04d}.png")
        save_picture(draw_outcomes(by_frame[i], seen[i].points, radius=radius, title=title), paths[-1])
    return paths


def failures(report: Report, seen: list[Seen]) -> list[dict[str, Any]]:
    """What is missed or false at the figures' thresholds, frame by frame."""
    rows = []
    for outcomes, threshold in report.drawn:
        for one, outcome in zip(seen, outcomes, strict=True):
            group = judged_at(outcome, threshold)
            for kind, objects in (("false", group.false), ("missed", group.missed)):
                for i in range(len(objects)):
                    row = {"frame": one.name, "kind": kind, "class": str(objects.names[i]), "score": float(objects.score[i])}
                    row["center_ego"] = [round(float(x), 2) for x in objects.boxes.center[i]]
                    if objects.num_points is not None:
                        row["returns"] = int(objects.num_points[i])
                    rows.append(row)
    return rows


def _of_all_hits(outcomes: list[Outcome], threshold: float, error: Any) -> np.ndarray:
    """`error` of the hits with a score of `threshold` or more, all frames in one."""
    values = [of_hits(outcome, error)[outcome.is_hit & (outcome.found.score >= threshold)] for outcome in outcomes]
    return np.concatenate(values) if values else np.zeros(0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _told(point: OperatingPoint | None, curve: Curve | None = None) -> str:
    """A point of a curve in words; where there is none, how far the curve goes."""
    if point is None:
        return "not reached" if curve is None else f"not reached, recall {curve.at_threshold(0).recall:.2f} at most"
    double = f" ({point.double} second ones)" if point.double else ""
    return f"threshold {point.threshold:.3f}, {point.found} of {point.wanted} found, {point.false} false{double}"


def format_figures(figures: Sequence[Figure]) -> str:
    """A Markdown table, one figure a line."""
    lines = ["| figure | value | bar | | how |", "|---|---|---|---|---|"]
    for figure in figures:
        value = "-" if np.isnan(figure.value) else f"{figure.value:.3g}"
        lines.append(
            f"| {figure.name} | {value} | {figure.sense} {figure.bar:g} | {'yes' if figure.holds else 'NO'} | {figure.note or ' '} |"
        )
    return "\n".join(lines)


def format_curve(name: str, curve: Curve) -> str:
    """Recall and false ones a frame at thresholds a twentieth apart, as far as there are detections."""
    grid = [t for t in np.arange(1, 20) / 20 if curve.at_threshold(float(t)).found + curve.at_threshold(float(t)).false]
    points = [curve.at_threshold(float(t)) for t in grid]
    cells = [f"{p.threshold:.2f}: {p.recall:.2f} / {p.false_a_frame:.2f}" for p in points]
    return f"{name} (threshold: recall / false a frame; {curve.wanted} wanted in {curve.frames} frames)\n  " + ",  ".join(cells or ["none"])


def _as_json(value: float) -> float | None:
    return None if np.isnan(value) else value


def write_report(path: Path, reports: Sequence[tuple[Report, list[Seen]]], about: dict[str, Any]) -> None:
    """All figures, curves and failures as JSON; numbers that are not known are null."""
    figures = [
        asdict(figure) | {"value": _as_json(figure.value), "holds": bool(figure.holds)}
        for report, _ in reports
        for figure in report.figures
    ]
    curves = {
        name: {
            "wanted": curve.wanted,
            "frames": curve.frames,
            "average_precision": _as_json(curve.average_precision),
            "columns": ["threshold", "found", "false", "double"],
            "points": [[p.threshold, p.found, p.false, p.double] for p in curve.points],
        }
        for report, _ in reports
        for name, curve in report.curves.items()
    }
    faults = [row for report, seen in reports for row in failures(report, seen)]
    notes = [note for report, _ in reports for note in report.notes]
    text = json.dumps({"about": about, "figures": figures, "notes": notes, "curves": curves, "failures": faults}, indent=1)
    write_bytes(path, text.encode() + b"\n")


def kitti_frames(root: Path) -> Iterable[tuple[Frame, np.ndarray]]:
    """The labelled frames of all drives, with their regions without labels (none in raw recordings, whose files do not tell)."""
    for drive in open_drives(root, cameras=False):
        split, _, number = drive.name.partition("-")
        labels = root / split / "label_02" / f"{number}.txt"
        regions = read_regions(labels) if labels.is_file() else {}
        for index, frame in enumerate(drive):
            if frame.truth is not None:
                yield frame, regions.get(index, np.zeros((0, 4)))


def simulated_dataset(root: Path, split: str | None, *, scenes: int, seed: int) -> tuple[NuScenes, str]:
    """The data set in a folder; where there is none, so many scenes are simulated there first, as the split `unseen`."""
    if not (root.is_dir() and find_versions(root)):
        drives = simulate_scenes(scenes, seed=seed)
        names = [drive.name for drive in drives]
        write_nuscenes(root, drives, version="v1.0-simulated", splits={UNSEEN: names}, lidar=True, workers=2)
    return NuScenes(root, cameras=False), split or UNSEEN


def main(
    model: Annotated[str, typer.Option(help="The detector: a YAML file, or a name from configs/.")],
    weights: Annotated[Path | None, typer.Option(help="Its weights; without it, and without --seed, those that come with it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random weights, to try the tool.")] = None,
    nuscenes: Annotated[Path | None, typer.Option(help="Folder of real nuScenes frames.")] = None,
    kitti: Annotated[Path | None, typer.Option(help="Folder of real KITTI drives, tracking layout (holds training/).")] = None,
    simulated: Annotated[Path | None, typer.Option(help="Folder of simulated scenes; simulated there where it is empty.")] = None,
    split: Annotated[str | None, typer.Option(help="Of the simulated scenes; 'unseen' without it.")] = None,
    scenes: Annotated[int, typer.Option(help="To simulate where there are none.", min=1)] = 10,
    simulation_seed: Annotated[int, typer.Option(help="Of the scenes that are simulated; one that training does not have.")] = 987_654,
    nuscenes_sweeps: Annotated[int, typer.Option(help="Turns in a cloud of nuScenes.", min=1)] = 1,
    kitti_sweeps: Annotated[int, typer.Option(help="Turns in a cloud of KITTI, ten a second.", min=1)] = 5,
    min_score: Annotated[float, typer.Option(help="Where the curves of the real data end, if the model's own threshold is higher.")] = 0.03,
    pictures: Annotated[int, typer.Option(help="Of the worst frames of each recording.", min=0)] = 12,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for score.json and pictures.")] = Path("out/score"),
) -> None:
    """Score a detector on data that its training never saw."""
    from perception.detection import Detector, load_detector_config, weights_beside

    config = load_detector_config(model)
    if weights is None and seed is None:
        weights = weights_beside(model)
    source: dict[str, Any] = {"weights": weights, "seed": seed, "device": device}
    as_is = Detector.from_config(config, **source)
    settings = config.detector
    decode = settings.decode.model_copy(update={"score_threshold": min(min_score, settings.decode.score_threshold)})
    low = Detector.from_config(config.model_copy(update={"detector": settings.model_copy(update={"decode": decode})}), **source)

    def finder(sweeps: int) -> Find:
        pipeline = Pipeline(low, num_sweeps=sweeps)
        return lambda frame: pipeline.detect(frame, pipeline.read(frame)).transformed(frame.ego_to_global.inverse())

    reports: list[tuple[Report, list[Seen]]] = []
    pedestrian_threshold = None
    if nuscenes is not None:
        frames = [frame for drive in open_drives(nuscenes, cameras=False) for frame in drive]
        reports.append(score_nuscenes(frames, finder(nuscenes_sweeps)))
        people = reports[-1][0].curves["nuScenes pedestrians to 30 m, 5 returns"].at_recall(7 / 8)
        pedestrian_threshold = people.threshold if people else None
        draw_failures(*reports[-1], out / "pictures" / "nuscenes", most=pictures)
    if kitti is not None:
        reports.append(score_kitti(kitti_frames(kitti), finder(kitti_sweeps), pedestrian_threshold))
        draw_failures(*reports[-1], out / "pictures" / "kitti", most=pictures)
    if simulated is not None:
        dataset, split = simulated_dataset(simulated, split, scenes=scenes, seed=simulation_seed)
        reports.append((score_simulated(dataset, split, as_is, out), []))
    for report, _ in reports:
        print("\n".join([*report.notes, *(format_curve(name, curve) for name, curve in report.curves.items())]), end="\n\n")
    print(format_figures([figure for report, _ in reports for figure in report.figures]))
    about = {"model": model, "weights": str(weights), "seed": seed, "nuscenes_sweeps": nuscenes_sweeps, "kitti_sweeps": kitti_sweeps}
    write_report(out / "score.json", reports, about | {"min_score": min_score, "config": config.model_dump(mode="json")})
    print(out / "score.json")


if __name__ == "__main__":
    sys.exit(report_errors(lambda: typer.run(main)))
