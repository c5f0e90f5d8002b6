"""Objects of recorded scenes with their points, pasted into other scenes.

Source: SECOND's ground-truth sampling, as CenterPoint has it (det3d `core/sampler/sample_ops.py`, `create_gt_database.py`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cuda_ops
from perception.core.classes import ClassSet
from perception.core.errors import DataError, UsageError, require_package, shown
from perception.core.files import write_bytes
from perception.detection.config import CenterPointSettings
from perception.training.augment_settings import BankSettings
from perception.training.boxes import operator_boxes
from perception.training.sample import Sample
from perception.training.sample_batch import SampleBatch
from perception.training.upload import uploaded

_KEY = "perception object bank"  # one entry, because safetensors writes several in any order, and equal input shall give equal files
_FORMAT = 1
_MAX_BYTES = 16 << 30
_DTYPES = {"points": np.float32, "count": np.int64, "boxes": np.float32, "labels": np.int64}


@dataclass(frozen=True, eq=False)
class ObjectBank:
    """K objects. What decides where they may go stays on the host, their points lie on the device of the samples.

    classes  of the labels
    frame    of the networks that the objects are for: `perception.detection.frames`
    points   (P, C) float32, those of object 0, then of object 1, ...; x, y, z from the middle of their box, not turned; all sweeps
    count    (K,) int64, points of each object, at least one
    boxes    (K, 9) float32 det3d rows where they were recorded
    labels   (K,) int64
    """

    classes: ClassSet
    frame: str
    points: Tensor
    count: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.count)

    def draw(self, label: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of up to `count` different objects of a class, fewer where it has no more; each as likely as any other.

        det3d walks through a shuffled list instead, which outlives the sample: a run that is resumed would draw others.
        """
        rows = self._rows[label]
        return rows[rng.choice(len(rows), min(count, len(rows)), replace=False)] if len(rows) else rows

    def points_of(self, rows: np.ndarray) -> Tensor:
        """(n, C) on the bank's device: the points of the objects `rows` where they were recorded, object after object."""
        count = self.count[rows]
        total, device = int(count.sum()), self.points.device
        jump = self._start[rows] - (np.cumsum(count) - count)
        jumps, counts, middles = uploaded([jump, count, self.boxes[rows, :3]], device)
        which = torch.repeat_interleave(counts, output_size=total)  # (n,), the size is told so that the host need not wait for it
        points = self.points.index_select(0, torch.arange(total, device=device) + jumps.index_select(0, which))
        return torch.cat([points[:, :3] + middles.index_select(0, which), points[:, 3:]], dim=1)

    def save(self, path: Path) -> None:
        """Write the bank as one safetensors file, completely or not at all. The same bank gives the same bytes."""
        require_package("safetensors", extra="models", why="writing an object bank")
        from safetensors.numpy import save

        tensors = {"points": self.points.cpu().numpy(), "count": self.count, "boxes": self.boxes, "labels": self.labels}
        text = json.dumps({"format": _FORMAT, "classes": list(self.classes), "frame": self.frame})
        write_bytes(Path(path), save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {_KEY: text}))

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        classes: ClassSet | None = None,
        frame: str | None = None,
        min_points: int = 1,
        device: torch.device | str = "cpu",
    ) -> "ObjectBank":
        """A bank from its file, for a network of these classes and this frame. Nothing in the file is executed.

        classes     objects of other ones are left out, labels become this set's; None: those of the file
        frame       UsageError where the bank is for another one
        min_points  objects with fewer, all sweeps counted, are left out
        Raises DataError for a file that is missing, broken or no bank.
        """
        path = Path(path)
        tensors, own_classes, own_frame = _read(path)
        if frame is not None and own_frame != frame:
            raise UsageError(f"{path}: expected objects for a network in frame {frame}, got {own_frame}; build the bank with that network")
        classes = classes or own_classes
        count, labels = tensors["count"], classes.labels_from(own_classes)[tensors["labels"]]
        keep = (labels >= 0) & (count >= min_points)
        points = torch.from_numpy(tensors["points"][np.repeat(keep, count)]).to(device)
        return cls(classes, own_frame, points, count[keep], tensors["boxes"][keep], labels[keep])

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.labels == label) for label in range(len(self.classes))]

    @cached_property
    def _start(self) -> np.ndarray:
        return np.cumsum(self.count) - self.count


def classes_of(detector: CenterPointSettings) -> ClassSet:
    """A network's classes in the order of its labels, through all of its tasks."""
    return ClassSet(tuple(name for task in detector.head.tasks for name in task))


def build_object_bank(
    samples: Iterable[Sample], classes: ClassSet, frame: str, *, min_points: int = 5, max_per_class: int | None = None, seed: int = 0
) -> ObjectBank:
    """The objects of samples, unaugmented, all their sweeps' points included (a moving one is smeared over them).

    classes        of the samples' labels
    frame          of the samples
    min_points     objects with fewer points, all sweeps counted, are left out; virtual points (MVP) count too, as published
    max_per_class  as many of a class at the most: of all that there are, each as likely as any other (`seed`)
    """
    rng = np.random.default_rng(seed)
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in classes]
    seen = np.zeros(len(classes), np.int64)
    num_columns = 5
    for sample in samples:
        num_columns = sample.points.shape[1]
        for label, box, points in _objects(sample, min_points):
            seen[label] += 1
            kept = found[label]
            if max_per_class is None or len(kept) < max_per_class:
                kept.append((box, points))
            elif (place := rng.integers(seen[label])) < max_per_class:  # reservoir sampling
                kept[place] = (box, points)
    objects = [thing for kept in found for thing in kept]
    labels = np.repeat(np.arange(len(classes)), [len(kept) for kept in found])
    points = np.concatenate([np.zeros((0, num_columns), np.float32), *(points for _, points in objects)])
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 9)
    return ObjectBank(classes, frame, torch.from_numpy(points), np.array([len(p) for _, p in objects], np.int64), boxes, labels)


def paste(
    batch: SampleBatch, bank: ObjectBank, settings: BankSettings, rngs: Sequence[np.random.Generator]
) -> tuple[SampleBatch, Tensor | None]:
    """Samples with objects of the bank pasted in front of their own points, behind their own boxes; returns in those are not counted (0).

    Class by class in the settings' order, so many that `settings.counts` are reached, at the place and heading they were recorded with.
    Seen from above an object must not overlap one of the scene, one pasted before or another candidate of its class: it is left out, and
    is no longer in the way of those behind it (as det3d does it). The ground's height and what would hide the object are ignored.

    Returns also (N,) bool, the points that `settings.clear_inside` takes away, or None where all stay. Waits for the device once, for the
    scenes' boxes. Raises UsageError for a class that the bank has not, DataError for points of other columns.
    """
    if bank.points.shape[1] != batch.points.shape[1]:
        raise DataError(f"object bank: expected points of {batch.points.shape[1]} columns, as the sample has, got {bank.points.shape[1]}")
    scenes = torch.cat([batch.boxes, batch.labels[:, None]], dim=1).cpu().numpy()
    scenes = np.split(scenes, np.cumsum(batch.box_counts)[:-1])
    drawn = [_drawn(scene, bank, settings, rng) for scene, rng in zip(scenes, rngs, strict=True)]
    rows = np.concatenate(drawn)
    if not len(rows):
        return batch, None
    num_pasted, new_boxes = [int(bank.count[part].sum()) for part in drawn], [len(part) for part in drawn]
    samples = np.arange(len(drawn), dtype=np.int32)
    groups = np.stack([np.full_like(samples, -1), samples], axis=1).ravel()  # pasted points are in no group: they stay
    lengths = np.stack([num_pasted, batch.point_counts], axis=1).ravel().astype(np.int32)
    rows_of, labels, sample_of_box, groups_of, lengths_of = uploaded(
        [bank.boxes[rows], bank.labels[rows], np.repeat(samples, new_boxes), groups, lengths], batch.boxes.device
    )
    points = _interleaved(bank.points_of(rows), num_pasted, batch.points, batch.point_counts)
    cleared = None
    if settings.clear_inside:
        group = groups_of.index_select(0, torch.repeat_interleave(lengths_of, output_size=len(points)))
        cleared = cuda_ops.points_in_boxes(points, operator_boxes(rows_of), point_group=group, box_group=sample_of_box).index >= 0
    pasted = replace(
        batch,
        points=points,
        boxes=_interleaved(batch.boxes, batch.box_counts, rows_of, new_boxes),
        labels=_interleaved(batch.labels, batch.box_counts, labels, new_boxes),
        num_points=_interleaved(batch.num_points, batch.box_counts, torch.zeros_like(labels), new_boxes),
        point_counts=[one + other for one, other in zip(num_pasted, batch.point_counts, strict=True)],
        box_counts=[one + other for one, other in zip(batch.box_counts, new_boxes, strict=True)],
    )
    return pasted, cleared


def _drawn(scene: np.ndarray, bank: ObjectBank, settings: BankSettings, rng: np.random.Generator) -> np.ndarray:
    """The bank's objects for a scene of det3d rows and labels (M, 10)."""
    occupied, present = scene[:, :9], scene[:, 9].astype(np.int64)
    rows = np.zeros(0, np.int64)
    for name, wanted in settings.counts.items():
        label = bank.classes.index(name)
        missing = round(settings.rate * (wanted - int((present == label).sum())))
        if missing > 0:
            drawn = bank.draw(label, missing, rng)
            drawn = drawn[_has_room(bank.boxes[drawn], occupied)]
            rows, occupied = np.concatenate([rows, drawn]), np.concatenate([occupied, bank.boxes[drawn]])
    return rows


def _interleaved(one: Tensor, one_counts: list[int], other: Tensor, other_counts: list[int]) -> Tensor:
    """Sample after sample its rows of `one`, then those of `other`."""
    pairs = zip(one.split(one_counts), other.split(other_counts), strict=True)
    return torch.cat([part for pair in pairs for part in pair])


def _has_room(candidates: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    """(K,) bool of det3d rows (K, 9): which may stay beside those of (M, 9) that are there."""
    everything, first = np.concatenate([occupied, candidates]), len(occupied)
    # As `operator_boxes`, whose operations would each be made for each sample.
    flat = np.column_stack([everything[:, :3], everything[:, [4, 3, 5]], -everything[:, 8] - np.float32(np.pi / 2)])
    overlaps = cuda_ops.iou_bev(flat[first:], flat) > 0
    overlaps[np.arange(len(candidates)), first + np.arange(len(candidates))] = False
    stays = np.ones(len(candidates), bool)
    for i in range(len(candidates)):  # in order: one that goes makes room for those behind it
        if overlaps[i].any():
            stays[i] = False
            overlaps[:, first + i] = False
    return stays


def _objects(sample: Sample, min_points: int) -> Iterable[tuple[int, np.ndarray, np.ndarray]]:
    """Label, det3d row (9,) and points (n, C) from its middle of each object with enough of them."""
    flat = operator_boxes(sample.boxes)
    near = sample.points[cuda_ops.points_in_boxes(sample.points, flat).index >= 0]
    for i, label in enumerate(sample.labels.tolist()):
        inside = near[cuda_ops.points_in_boxes(near, flat[i : i + 1]).index == 0].cpu().numpy()  # all in this box, other boxes or not
        box = sample.boxes[i].cpu().numpy()
        if len(inside) >= max(min_points, 1):
            inside[:, :3] -= box[:3]
            yield label, box, inside


def _read(path: Path) -> tuple[dict[str, np.ndarray], ClassSet, str]:
    """The arrays of a bank's file, checked, its classes and its frame."""
    require_package("safetensors", extra="models", why="reading an object bank")
    from safetensors import SafetensorError, safe_open

    advice = "build it with perception object-bank"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: expected an object bank of at most {_MAX_BYTES >> 30} GiB, got more; build a smaller one")
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None or set(file.keys()) != set(_DTYPES):
                raise DataError(f"{path}: expected an object bank, got another safetensors file; {advice}")
            tensors = {name: file.get_tensor(name) for name in _DTYPES}
    except OSError as error:
        raise DataError(f"{path}: expected an object bank, got {error.strerror or error}; {advice}") from None
    except (SafetensorError, ValueError, RuntimeError, TypeError) as error:  # TypeError: a dtype that NumPy has not
        raise DataError(f"{path}: expected an object bank, got something else or a part of one ({error}); {advice}") from None
    try:
        says = json.loads(text)
        if says["format"] != _FORMAT:
            raise DataError(f"{path}: expected an object bank of format {_FORMAT}, got {shown(says['format'])}; build it again")
        classes, frame = ClassSet(tuple(says["classes"])), str(says["frame"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: its metadata is broken ({error}); build it again") from None
    _expect_sound(path, tensors, len(classes))
    return tensors, classes, frame


def _expect_sound(path: Path, tensors: dict[str, np.ndarray], num_classes: int) -> None:
    points, count, boxes, labels = (tensors[name] for name in _DTYPES)
    size = len(count) if count.ndim == 1 else -1
    faults = [f"{name} of {dtype.__name__}, got {tensors[name].dtype}" for name, dtype in _DTYPES.items() if tensors[name].dtype != dtype]
    if not faults and (points.ndim != 2 or points.shape[1] < 5 or boxes.shape != (size, 9) or labels.shape != (size,)):
        faults.append(f"points (P, 5 or more), boxes (K, 9), labels (K,), got {points.shape}, {boxes.shape}, {labels.shape}")
    if not faults and size and (count.min() < 1 or count.max() > len(points)):
        faults.append(f"counts of 1..{len(points)} points, got {count.min()}..{count.max()}")
    if not faults and count.sum() != len(points):
        faults.append(f"{count.sum()} points, got {len(points)}")
    if not faults and size and (labels.min() < 0 or labels.max() >= num_classes):
        faults.append(f"labels 0..{num_classes - 1}, got {labels.min()}..{labels.max()}")
    if not faults and not (np.isfinite(points).all() and np.isfinite(boxes[:, [0, 1, 2, 3, 4, 5, 8]]).all() and (boxes[:, 3:6] > 0).all()):
        faults.append("finite numbers and sizes above 0")
    if faults:
        raise DataError(f"{path}: expected {faults[0]}; the bank is damaged, build it again")
