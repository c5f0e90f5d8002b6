"""The table of shapes: what its constructors make, and what it refuses."""

import math

import numpy as np
import pytest

from cuda_ops import Primitives, cast_rays

torch = pytest.importorskip("torch")

ROW = np.float32([[0, 0, 0, 1, 1, 1, 0]])
BOX = Primitives.boxes(ROW)
ZERO = np.zeros((1, 3), np.float32)


def test_constructors_keep_to_tensors():
    rows = torch.tensor([[10, 0, 0, 2, 2, 2, 0.0]])
    table = Primitives.concatenate(
        Primitives.boxes(rows),
        Primitives.cylinders(rows[:, :3], torch.ones(1), 2),
        Primitives.height_field(torch.zeros(2, 2), (0, 0, 0), 1),
    )
    assert all(isinstance(getattr(table, name), torch.Tensor) for name in Primitives.__dataclass_fields__)
    assert repr(table) == "Primitives(1 box, 1 cylinder, 1 height_field)"


def test_concatenate_keeps_every_height_field():
    fields = [Primitives.height_field(np.full((2, 3), z), (0, 0, 0), 1) for z in (1.0, 2.0, 3.0)]
    table = Primitives.concatenate(BOX, fields[0], Primitives.concatenate(fields[1], BOX, fields[2]))
    down = cast_rays(np.float32([[0.5, 0.5, 10]]), np.float32([[0, 0, -1]]), table)
    assert (down.distance[0], down.primitive[0]) == (7, 4)


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
def test_rows_of_a_table(make):
    fields = [Primitives.height_field(make(np.full((2, 3), z)), (0, 0, 0), 1) for z in (1.0, 2.0)]
    table = Primitives.concatenate(fields[0], Primitives.boxes(make(ROW)), fields[1])
    origins, down = make(np.float32([[0.5, 0.5, 10]])), make(np.float32([[0, 0, -1]]))
    for rows, distance, primitive in (
        (make(np.array([1, 0])), 9, 1),
        (make(np.array([False, True, True])), 8, 1),
        (make(np.array([1])), 9.5, 0),
    ):
        hits = cast_rays(origins, down, table[rows])
        assert (float(hits.distance[0]), int(hits.primitive[0])) == (distance, primitive)
    assert len(table[make(np.zeros(0, np.int64))]) == 0


def test_shapes_in_other_places():
    row = np.float32([[5, 0, 0, 4, 2, 2, 0]])
    other = Primitives.boxes(row).posed(row[:, :3] + np.float32([10, 0, 0]), np.float32([np.pi / 2]), np.zeros((1, 3), np.float32))
    assert cast_rays(ZERO, np.float32([[1, 0, 0]]), other).distance[0] == pytest.approx(14)  # now its sides are 1 m off
    with pytest.raises(ValueError, match=r"Primitives.center: expected finite numbers, got some that are not"):
        other.posed(row[:, :3] * np.nan, other.yaw, other.normal)
    with pytest.raises(ValueError, match=r"Primitives.yaw: expected shape \(1,\), got \(2,\)"):
        other.posed(row[:, :3], np.zeros(2, np.float32), other.normal)


def test_rows_that_no_check_has_seen_hit_nothing():
    # The registered operator takes plain tensors: nonsense must not read beyond them.
    good = Primitives.concatenate(BOX, Primitives.height_field(np.zeros((2, 2)), (0, 0, 0), 1)).to("cpu")
    columns = [getattr(good, name).clone() for name in Primitives.__dataclass_fields__]
    columns[0][0] = 77
    columns[8][1] = torch.tensor([1, 2, 2])
    _, _, primitive = torch.ops.cuda_ops.cast_rays(
        torch.tensor([[0.5, 0.5, 9.0]]), torch.tensor([[0.0, 0, -1]]), *columns, None, None, 0, 0.0, math.inf
    )
    assert primitive.tolist() == [-1]


def altered(**columns) -> Primitives:
    field = Primitives.height_field(np.eye(2), (0, 0, 0), 1)
    values = {name: getattr(field, name) for name in Primitives.__dataclass_fields__}
    return Primitives(**{**values, **{name: np.asarray(value, values[name].dtype) for name, value in columns.items()}})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: Primitives.boxes(ROW[:, :6]), r"boxes: expected shape \(P, 7\), got \(1, 6\)", id="boxes"),
        pytest.param(
            lambda: Primitives.boxes(ROW * 0), r"size: expected length, width and height above 0, got \[0.0, 0.0, 0.0\] in row 0", id="size"
        ),
        pytest.param(lambda: Primitives.boxes(ROW, taper=(1, 2)), r"taper: expected shape \(1, 3\) or \(3,\), got \(2,\)", id="taper"),
        pytest.param(lambda: Primitives.boxes(ROW, pass_chance=1.5), "pass_chance: expected 0 to 1, got 1.5 in row 0", id="chance"),
        pytest.param(lambda: Primitives.boxes(ROW * np.nan), "center: expected finite numbers, got .* in row 0", id="NaN"),
        pytest.param(lambda: Primitives.volumes(ROW, -1), "extinction: expected .*got -1.0 in row 0", id="extinction"),
        pytest.param(lambda: Primitives.volumes(ROW, 1, shape="cone"), "shape: expected 'ellipsoid' or 'box', got 'cone'", id="volume"),
        pytest.param(lambda: Primitives.planes(ZERO, ZERO), "normal: expected a normal that is not 0, got .* in row 0", id="normal"),
        pytest.param(
            lambda: Primitives.height_field([[1, 2]], (0, 0, 0), 1), r"heights: expected at least 2 rows .*got shape \(1, 2\)", id="rows"
        ),
        pytest.param(
            lambda: Primitives.height_field([[1, 2], [3, np.nan]], (0, 0, 0), 1),
            "heights: expected finite heights, got nan",
            id="NaN height",
        ),
        pytest.param(
            lambda: Primitives.height_field(np.eye(2), (0, 0, 0), 0), "size: expected metres between columns .*got", id="cell size"
        ),
        pytest.param(
            lambda: altered(field=[[0, 3, 3]]),
            r"field: expected begin, rows, columns within 4 heights, got \[0, 3, 3\] in row 0",
            id="field",
        ),
        pytest.param(lambda: altered(kind=[9]), "kind: expected 0 to 6, see cuda_ops.Kind, got 9 in row 0", id="kind"),
    ],
)
def test_errors_say_expected_and_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_one_row_is_a_table_of_one():
    table = Primitives.boxes(np.array([[x, 0, 0, 1, 1, 1, 0] for x in (1.0, 2.0, 3.0)]))
    for row, x in ((0, 1.0), (-1, 3.0), (np.int64(1), 2.0), (-2, 2.0)):
        one = table[row]
        assert len(one) == 1
        assert one.center[0, 0] == x
    with pytest.raises(IndexError, match="expected a row from -3 to 2, got 3"):
        table[3]
