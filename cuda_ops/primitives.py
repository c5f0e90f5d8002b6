"""Simple shapes that rays are cast against: a table with one row a shape."""

import sys
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np

from cuda_ops.arrays import NumpySpace, expect_rows, is_tensor, space_of


class Kind(IntEnum):
    """What a row of `Primitives` is."""

    BOX = 0
    CYLINDER = 1
    ELLIPSOID = 2
    ELLIPSOID_VOLUME = 3
    BOX_VOLUME = 4
    PLANE = 5
    HEIGHT_FIELD = 6


_COLUMNS = {
    "kind": ((), "int32"),
    "center": ((3,), "float32"),
    "size": ((3,), "float32"),
    "yaw": ((), "float32"),
    "taper": ((3,), "float32"),
    "normal": ((3,), "float32"),
    "pass_chance": ((), "float32"),
    "extinction": ((), "float32"),
    "field": ((3,), "int64"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Primitives:
    """Shapes in one frame, metres and radians; NumPy arrays or torch tensors. Columns that a kind does not use are zeros.

    kind         (P,) int32      see `Kind`
    center       (P, 3) float32  the middle of a solid or volume; any point of a plane; the first height of a height field
    size         (P, 3) float32  length (along the heading), width, height of the box that just holds a solid or volume, each above 0;
                                 a height field: metres between columns (its x), metres between rows (its y)
    yaw          (P,) float32    counter-clockwise from x, about the upright axis through `center`; all but planes
    taper        (P, 3) float32  boxes and box volumes: metres that the front, the rear and both side faces lean in per metre of height;
                                 `size` is that of the bottom, below 0 leans out
    normal       (P, 3) float32  planes: of any length and either sign
    pass_chance  (P,) float32    0..1, how likely the whole primitive lets a ray pass; every kind
    extinction   (P,) float32    volumes: hits per metre inside, the mean free path is 1 / extinction; 0 stops nothing
    field        (P, 3) int64    height fields: where in `heights` it begins, rows (at least 2), columns (at least 2)
    heights      (H,) float32    of all height fields, each row by row, above `center`
    Cylinders are upright and closed above and below; where length and width differ, they are elliptic.
    Make them with `boxes`, `cylinders`, `ellipsoids`, `volumes`, `planes` and `height_field`, join them with `concatenate`.
    Raises ValueError where shapes or dtypes do not fit, or a number makes no shape (on a GPU this waits for the data, once).
    """

    kind: Any
    center: Any
    size: Any
    yaw: Any
    taper: Any
    normal: Any
    pass_chance: Any
    extinction: Any
    field: Any
    heights: Any

    def __post_init__(self) -> None:
        arrays = {f"Primitives.{f.name}": getattr(self, f.name) for f in fields(self)}
        space = space_of("Primitives", **{name.removeprefix("Primitives."): value for name, value in arrays.items()})
        object.__setattr__(self, "kind", space.take("Primitives.kind", self.kind, ("P",), "int32"))
        for name, (tail, dtype) in _COLUMNS.items():
            object.__setattr__(self, name, space.take(f"Primitives.{name}", getattr(self, name), (len(self.kind), *tail), dtype))
        object.__setattr__(self, "heights", space.take("Primitives.heights", self.heights, ("H",), "float32"))
        expect_rows("Primitives", len(self.kind))
        _expect_shapes(**{f.name: _to_numpy(getattr(self, f.name)) for f in fields(self)})

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, rows: Any) -> "Primitives":
        """The shapes at `rows`, a mask, row numbers or one of them: of one kind and device with the table. All heights stay."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"Primitives: expected a row from {-len(self)} to {len(self) - 1}, got {rows}")
            rows = slice(rows, rows + 1 or None)
        return self._with(**{name: getattr(self, name)[rows] for name in _COLUMNS})

    def posed(self, center: Any, yaw: Any, normal: Any) -> "Primitives":
        """The same shapes in other places: center (P, 3), yaw (P,) and normal (P, 3), float32. Raises ValueError where they do not fit."""
        space, given = space_of("Primitives.posed", kind=self.kind, center=center, yaw=yaw, normal=normal), {}
        for name, value in (("center", center), ("yaw", yaw), ("normal", normal)):
            given[name] = space.take(f"Primitives.{name}", value, (len(self), *_COLUMNS[name][0]), "float32")
            if not np.isfinite(_to_numpy(given[name])).all():
                raise ValueError(f"Primitives.{name}: expected finite numbers, got some that are not")
        return self._with(**given)

    def _with(self, **columns: Any) -> "Primitives":
        """This table with other columns that are known to be good: it has been checked when it was made, and is not checked again."""
        other = object.__new__(Primitives)
        for f in fields(self):
            object.__setattr__(other, f.name, columns.get(f.name, getattr(self, f.name)))
        return other

    def __repr__(self) -> str:
        kinds, counts = np.unique(_to_numpy(self.kind), return_counts=True)
        return f"Primitives({', '.join(f'{n} {Kind(k).name.lower()}' for k, n in zip(kinds, counts, strict=True)) or 'none'})"

    def to(self, device: Any) -> "Primitives":
        """As torch tensors on `device` ("cpu", "cuda", ...)."""
        import torch

        return Primitives(*[torch.as_tensor(getattr(self, f.name), device=device) for f in fields(self)])

    @staticmethod
    def boxes(boxes: Any, *, taper: Any = 0.0, pass_chance: Any = 0.0) -> "Primitives":
        """Boxes (P, 7) x, y, z (centre), length, width, height, yaw; taper (3,) or (P, 3); pass_chance a number or (P,)."""
        return _from_boxes(Kind.BOX, boxes, taper=taper, pass_chance=pass_chance)

    @staticmethod
    def cylinders(center: Any, radius: Any, height: Any, *, pass_chance: Any = 0.0) -> "Primitives":
        """Upright cylinders about `center` (P, 3); radius and height are a number or (P,)."""
        middle = _rows("cylinders: center", center, 3)
        size = np.empty((len(middle), 3))
        size[:, :2], size[:, 2] = 2 * _column(_to_numpy(radius)), _to_numpy(height)
        return _like(center, _table(Kind.CYLINDER, len(middle), center=middle, size=size, pass_chance=pass_chance))

    @staticmethod
    def ellipsoids(boxes: Any, *, pass_chance: Any = 0.0) -> "Primitives":
        """The ellipsoids that just fit into `boxes` (P, 7)."""
        return _from_boxes(Kind.ELLIPSOID, boxes, pass_chance=pass_chance)

    @staticmethod
    def volumes(boxes: Any, extinction: Any, *, shape: str = "ellipsoid", taper: Any = 0.0, pass_chance: Any = 0.0) -> "Primitives":
        """Crowns, hedges, smoke: the ellipsoids in `boxes` (P, 7), or with shape="box" the boxes, with `extinction` hits per metre."""
        if shape not in ("ellipsoid", "box"):
            raise ValueError(f"Primitives.volumes: shape: expected 'ellipsoid' or 'box', got {shape!r}")
        kind = Kind.BOX_VOLUME if shape == "box" else Kind.ELLIPSOID_VOLUME
        return _from_boxes(kind, boxes, taper=taper, extinction=extinction, pass_chance=pass_chance)

    @staticmethod
    def planes(point: Any, normal: Any, *, pass_chance: Any = 0.0) -> "Primitives":
        """Endless planes through `point` (P, 3), across `normal` (P, 3)."""
        points = _rows("planes: point", point, 3)
        return _like(point, _table(Kind.PLANE, len(points), center=points, normal=_to_numpy(normal), pass_chance=pass_chance))

    @staticmethod
    def height_field(heights: Any, center: Any, cell_size: Any, *, yaw: float = 0.0, pass_chance: float = 0.0) -> "Primitives":
        """One height field: heights (rows, columns) above `center`, the place (x, y, z) of heights[0, 0].

        Columns follow its x and rows its y, `cell_size` metres apart (a number, or x and y), turned by `yaw` about heights[0, 0]. Each cell
        is two triangles that meet in the line from heights[r, c] to heights[r + 1, c + 1]. Beyond its border a field goes on level for
        2.5e-7 of its extent and of the distance of `center` from 0 (50 um at 100 m): fields that share a border leave no crack between
        them when `center` is rounded to float32.
        """
        grid = np.asarray(_to_numpy(heights), np.float32)
        if grid.ndim != 2 or min(grid.shape) < 2:
            raise ValueError(f"Primitives.height_field: heights: expected at least 2 rows and 2 columns, got shape {grid.shape}")
        size = np.zeros((1, 3))
        size[0, :2] = _to_numpy(cell_size)
        columns = {"center": np.reshape(_to_numpy(center), (1, 3)), "size": size, "yaw": yaw, "field": [0, *grid.shape]}
        return _like(heights, _table(Kind.HEIGHT_FIELD, 1, **columns, pass_chance=pass_chance, heights=grid.ravel()))

    @staticmethod
    def concatenate(*parts: "Primitives") -> "Primitives":
        """All rows of all parts in their order; without parts an empty table. The parts are all NumPy or all on one device."""
        if not parts:
            return _table(Kind.BOX, 0)
        space = space_of("Primitives.concatenate", **{f"part {i}": part.kind for i, part in enumerate(parts)})
        join = np.concatenate if isinstance(space, NumpySpace) else sys.modules["torch"].cat
        first = np.cumsum([0, *[len(part.heights) for part in parts]])
        shifted = []
        for part, shift in zip(parts, first, strict=False):
            offset = space.zeros((len(part), 3), "int64")
            offset[:, 0] = (part.kind == int(Kind.HEIGHT_FIELD)) * int(shift)
            shifted.append(part.field + offset)
        columns = {name: join([getattr(part, name) for part in parts]) for name in (*_COLUMNS, "heights") if name != "field"}
        expect_rows("Primitives", len(columns["kind"]))
        return parts[0]._with(**columns, field=join(shifted))


def _to_numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if is_tensor(value) else np.asarray(value)


def _column(value: np.ndarray) -> np.ndarray:
    return value[:, None] if value.ndim == 1 else value


def _rows(name: str, value: Any, columns: int) -> np.ndarray:
    rows = np.asarray(_to_numpy(value), np.float64)
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise ValueError(f"Primitives.{name}: expected shape (P, {columns}), got {rows.shape}")
    return rows


def _from_boxes(kind: Kind, boxes: Any, **columns: Any) -> Primitives:
    rows = _rows("boxes", boxes, 7)
    columns = {name: _to_numpy(value) for name, value in columns.items()}
    return _like(boxes, _table(kind, len(rows), center=rows[:, :3], size=rows[:, 3:6], yaw=rows[:, 6], **columns))


def _table(kind: Kind, count: int, heights: Any = (), **given: Any) -> Primitives:
    columns = {name: np.zeros((count, *tail), dtype) for name, (tail, dtype) in _COLUMNS.items()}
    columns["kind"][:] = int(kind)
    for name, given_value in given.items():
        value, column = np.asarray(_to_numpy(given_value)), columns[name]
        try:
            column[:] = value
        except ValueError:
            tail = column.shape[1:]
            raise ValueError(f"Primitives.{name}: expected shape {column.shape} or {tail or 'a number'}, got {value.shape}") from None
    return Primitives(**columns, heights=np.asarray(heights, np.float32))


def _like(given: Any, primitives: Primitives) -> Primitives:
    return primitives.to(given.device) if is_tensor(given) else primitives


def _expect_shapes(kind: np.ndarray, heights: np.ndarray, **columns: np.ndarray) -> None:
    """Raise ValueError for the first row that is no shape."""
    if len(kind) and _are_solids(kind, **columns) and np.isfinite(heights).all():
        return
    chance, extinction, field = columns["pass_chance"], columns["extinction"], columns["field"]
    has_size, is_field = kind <= Kind.BOX_VOLUME, kind == Kind.HEIGHT_FIELD
    first, rows, width = field.T
    num_heights = np.where((rows >= 2) & (width >= 2) & (rows < 2**30) & (width < 2**30), rows * width, 2**62)
    rules = [
        ("kind", "0 to 6, see cuda_ops.Kind", kind, (kind >= Kind.BOX) & (kind <= Kind.HEIGHT_FIELD)),
        *[
            (name, "finite numbers", columns[name], _all(np.isfinite(columns[name])))
            for name in ("center", "size", "yaw", "taper", "normal")
        ],
        ("size", "length, width and height above 0", columns["size"], ~has_size | _all(columns["size"] > 0)),
        ("size", "metres between columns and rows above 0", columns["size"], ~is_field | _all(columns["size"][:, :2] > 0)),
        ("normal", "a normal that is not 0", columns["normal"], (kind != Kind.PLANE) | ~_all(columns["normal"] == 0)),
        ("pass_chance", "0 to 1", chance, (chance >= 0) & (chance <= 1)),
        ("extinction", "a finite number, 0 or more", extinction, (extinction >= 0) & np.isfinite(extinction)),
        (
            "field",
            f"begin, rows, columns within {len(heights)} heights",
            field,
            ~is_field | ((first >= 0) & (first + num_heights <= len(heights))),
        ),
    ]
    for name, expected, values, is_good in rules:
        if not np.all(is_good):
            row = int(np.argmin(is_good))
            raise ValueError(f"Primitives.{name}: expected {expected}, got {values[row].tolist()} in row {row}")
    if not np.isfinite(heights).all():
        raise ValueError(f"Primitives.heights: expected finite heights, got {heights[~np.isfinite(heights)][0]}")


def _are_solids(
    kind: np.ndarray, *, center: Any, size: Any, yaw: Any, taper: Any, normal: Any, pass_chance: Any, extinction: Any, **_: Any
) -> bool:
    """Whether all rows are good solids or volumes: the usual table, checked as a whole, for row by row costs several times as much."""
    numbers = np.concatenate([center.ravel(), size.ravel(), taper.ravel(), normal.ravel(), yaw, extinction])
    return bool(
        kind.min() >= Kind.BOX
        and kind.max() <= Kind.BOX_VOLUME
        and np.isfinite(numbers).all()
        and size.min() > 0
        and 0 <= pass_chance.min() <= pass_chance.max() <= 1
        and extinction.min() >= 0
    )


def _all(values: np.ndarray) -> np.ndarray:
    return np.atleast_1d(values if values.ndim == 1 else values.all(axis=1))
