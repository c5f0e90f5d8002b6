"""How a file stores the weights of sparse convolutions; spconv changed it twice and the file does not say.

| written by | axes |
|---|---|
| spconv 1.x, the operators of mmcv and mmdetection3d | kz, ky, kx, in, out |
| spconv 2.0 and 2.1, `Native` algorithm | kz, ky, kx, out, in |
| spconv 2.0 and 2.1 otherwise, 2.2 and newer | out, kz, ky, kx, in (ours) |
Between the first two a layer with as many inputs as outputs has one shape and two meanings, so the decision is made once for a file, by
its layers that differ in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from perception.core.errors import CheckpointError, UsageError, shown

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SparseLayout:
    """name, for people; version, what --spconv calls it; order, the axes in the file of out, kz, ky, kx, in."""

    name: str
    version: str
    order: tuple[int, int, int, int, int]

    def shape(self, stored: Shape) -> Shape | None:
        """The shape that a stored one has in our order, None where it has not five axes."""
        return tuple(stored[axis] for axis in self.order) if len(stored) == len(self.order) else None

    def to_ours(self, weight: Tensor) -> Tensor:
        """(out, kz, ky, kx, in), contiguous. Kernels of one cell are read as spconv does: flat, as (in, out), whatever the axes say."""
        kernel = weight.permute(self.order)
        if kernel.shape[1:4] == (1, 1, 1):
            out, *_, into = kernel.shape
            return weight.reshape(into, out).T.reshape(out, 1, 1, 1, into).contiguous()
        return kernel.contiguous()


SPARSE_LAYOUTS = (
    SparseLayout("spconv 2 (out, kz, ky, kx, in)", "2", (0, 1, 2, 3, 4)),
    SparseLayout("spconv 1 (kz, ky, kx, in, out)", "1", (4, 0, 1, 2, 3)),
    SparseLayout("spconv 2.0 native (kz, ky, kx, out, in)", "2", (3, 0, 1, 2, 4)),
)
VERSIONS = ("auto", "1", "2")


def find_sparse_layout(stored: Mapping[str, Shape], expected: Mapping[str, Shape], asked: str, *, where: str) -> tuple[SparseLayout, str]:
    """The one layout of a file's sparse weights and how it was told, for people.

    stored    shapes in the file by name; not empty
    expected  the shapes (out, kz, ky, kx, in) that they must have, by the same names
    asked     auto, 1 or 2: the major version of spconv (1 also for mmcv)
    Where layers of wrong shape are among them, the layout that fits most is taken; the wrong ones are for others to report.
    Raises UsageError for another `asked`; CheckpointError where the shapes fit two layouts and `asked` does not choose, or contradict it.
    """
    if asked not in VERSIONS:
        raise UsageError(f"--spconv: expected one of {', '.join(VERSIONS)}, got {shown(asked)}")
    fits = {layout: sum(layout.shape(stored[name]) == expected[name] for name in stored) for layout in SPARSE_LAYOUTS}
    most = max(fits.values())
    best = [layout for layout in SPARSE_LAYOUTS if fits[layout] == most]
    if most == 0 or (len(best) > 1 and most < len(stored)):
        return best[0], "no layout fits all shapes"
    chosen = [layout for layout in best if asked in ("auto", layout.version)]
    if not chosen:
        name, shape = next(iter(stored.items()))
        raise CheckpointError(
            f"{where}: expected sparse weights of spconv {asked} (--spconv), got the shapes of {best[0].name}: {name} {list(shape)}"
        )
    if asked != "auto":
        return chosen[0], "as asked"
    if len(chosen) > 1:
        raise CheckpointError(
            f"{where}: cannot tell from the shapes of its {len(stored)} sparse weights whether they were written by spconv 1 (or mmcv) or "
            f"spconv 2: all have as many inputs as outputs; say which: --spconv 1 or --spconv 2"
        )
    others = [layout for layout in SPARSE_LAYOUTS if layout is not chosen[0]]
    telling = next((n for n in stored if all(layout.shape(stored[n]) != expected[n] for layout in others)), next(iter(stored)))
    return chosen[0], f"by the shape of {telling}, {list(stored[telling])}"
