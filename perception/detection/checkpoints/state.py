"""Published CenterPoint weights into weights of ours: every name accounted for, every convention resolved."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perception.core.errors import CheckpointError
from perception.detection.checkpoints.faults import Faults
from perception.detection.checkpoints.layouts import ALWAYS_ZERO, OURS, Layout, find_layout
from perception.detection.checkpoints.renames import LEFT_OUT, renamed
from perception.detection.checkpoints.source import Source
from perception.detection.checkpoints.sparse_layout import find_sparse_layout

Expected = Mapping[str, Tensor]  # tensors of the network on any device, `meta` included: shapes and dtypes matter


@dataclass(frozen=True)
class Converted:
    """A state dict in our names and meaning, and what was decided on the way.

    sparse  layout of the file's sparse weights, `none` where the network has none
    notes   decisions, one line each
    """

    tensors: dict[str, Tensor]
    layout: Layout
    sparse: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """A tensor on its way: its name in the file, in det3d and here."""

    source: str
    det3d: str
    ours: str
    value: Tensor


def convert_state(source: Source, expected: Expected, *, layout: str = "auto", spconv: str = "auto") -> Converted:
    """The state dict of a source for a network that has exactly the tensors `expected`.

    Raises CheckpointError for a layout that is not known and, listing all of them, for names that are missing or unexpected, shapes that
    do not fit and numbers that are not finite.
    """
    where, faults = str(source.path), Faults()
    state, found, notes = identify(source, layout)
    entries = _entries(state, found, expected, faults, notes)
    sparse = _resolve_sparse(entries, expected, spconv, where, notes)
    tensors: dict[str, Tensor] = {}
    for entry in entries.values():
        value = _changed(entry, found)
        target = expected[entry.ours]
        if value.shape != target.shape:
            faults.wrong_shape.append(f"{entry.source}: expected {list(target.shape)}, got {list(entry.value.shape)}")
        elif value.is_floating_point() != target.is_floating_point():
            faults.wrong_shape.append(f"{entry.source}: expected {target.dtype}, got {value.dtype}")
        elif not torch.isfinite(value := value.to(target.dtype)).all():
            faults.broken.append(f"{entry.source}: not finite")
        else:
            tensors[entry.ours] = value.contiguous()
    _fill_zeros(tensors, entries, expected, found, faults, notes)
    if faults:
        raise CheckpointError(
            f"{where}: does not fit the network ({found.name} names): {faults.message}{_deformable_hint(state, expected)}"
        )
    return Converted({name: tensors[name] for name in expected}, found, sparse, tuple(notes))


def _deformable_hint(state: Mapping[str, Tensor], expected: Expected) -> str:
    """A line about deformable heads where the file or the network has one and the other has not; else nothing."""
    has, wants = any(".feature_adapt_" in name for name in state), any(name.startswith("head.adapt.") for name in expected)
    if has == wants:
        return ""
    return f"\n  {'the file' if has else 'the network'} has a deformable head (DCN), {'the network' if has else 'the file'} has none"


def identify(source: Source, asked: str = "auto") -> tuple[dict[str, Tensor], Layout, list[str]]:
    """The state dict without prefixes and second copies, its layout, and what was decided. Raises as `find_layout`."""
    notes: list[str] = []
    state = _without_wrappers(source, notes)
    layout, reason = find_layout(state, source.meta, asked, where=str(source.path))
    return state, layout, [*notes, f"{layout.name}: {reason}"]


def _without_wrappers(source: Source, notes: list[str]) -> dict[str, Tensor]:
    """The state dict without `module.` (parallel training); of two stages without `single_det.` and the second copy of the head."""
    state = source.tensors
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
        notes.append("names began with module.")
    first_stage = {name.removeprefix("single_det."): value for name, value in state.items() if name.startswith("single_det.")}
    if not first_stage:
        return state
    rest = {name: value for name, value in state.items() if not name.startswith("single_det.")}
    copies = first_stage.keys() & rest.keys()
    for name in sorted(copies):
        if not torch.equal(first_stage[name], rest[name]):
            raise CheckpointError(f"{source.path}: expected {name} and single_det.{name} to be one tensor, got two different ones")
    notes.append(f"two stages; {len(copies)} names of the head stand there twice")
    return first_stage | {name: value for name, value in rest.items() if name not in copies}


def _entries(state: Mapping[str, Tensor], layout: Layout, expected: Expected, faults: Faults, notes: list[str]) -> dict[str, _Entry]:
    """The state dict under our names; names without a place in the network are faults."""
    entries: dict[str, _Entry] = {}
    left_out = []
    for name, value in state.items():
        det3d = renamed(name, layout.renames)
        ours = renamed(det3d, OURS) if det3d else det3d
        if ours == LEFT_OUT:
            left_out.append(name)
        elif det3d is None or ours is None or ours not in expected:
            if not re.fullmatch(ALWAYS_ZERO, name):
                faults.unexpected.append(name)
        elif ours in entries:
            faults.broken.append(f"{name}: {entries[ours].source} has the same meaning")
        else:
            entries[ours] = _Entry(name, det3d, ours, value)
    if left_out:
        notes.append(f"left out: {', '.join(left_out)}")
    return entries


def _resolve_sparse(entries: dict[str, _Entry], expected: Expected, asked: str, where: str, notes: list[str]) -> str:
    """Bring the sparse weights among the entries into our axes, in place. Returns the layout found, for people."""
    sparse = [entry for entry in entries.values() if expected[entry.ours].ndim == 5]
    if not sparse:
        return "none"
    stored = {entry.source: tuple(entry.value.shape) for entry in sparse}
    shapes = {entry.source: tuple(expected[entry.ours].shape) for entry in sparse}
    layout, reason = find_sparse_layout(stored, shapes, asked, where=where)
    notes.append(f"{layout.name}: {reason}")
    for entry in sparse:
        if layout.shape(stored[entry.source]) == shapes[entry.source]:
            entries[entry.ours] = _Entry(entry.source, entry.det3d, entry.ours, layout.to_ours(entry.value))
    return layout.name


def _changed(entry: _Entry, layout: Layout) -> Tensor:
    """The value in det3d's meaning; as it is where its shape does not allow the change, which is then a fault."""
    change = next((change for pattern, change in layout.changes if re.fullmatch(pattern, entry.det3d)), None)
    if change is None:
        return entry.value
    try:
        return change(entry.value)
    except (IndexError, RuntimeError):
        return entry.value


def _fill_zeros(
    tensors: dict[str, Tensor], entries: Mapping[str, _Entry], expected: Expected, layout: Layout, faults: Faults, notes: list[str]
) -> None:
    """Zeros where the layout writes none, and a fault for everything else that is missing."""
    filled = 0
    for name, target in expected.items():
        if name in entries:
            continue
        if any(re.fullmatch(pattern, name) for pattern in (ALWAYS_ZERO, *layout.zeros)):
            tensors[name] = torch.zeros(target.shape, dtype=target.dtype)
            filled += name.endswith(".bias")
        else:
            faults.missing.append(name)
    if filled:
        notes.append(f"{filled} biases that the file lacks are zeros")
