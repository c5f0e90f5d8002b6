"""Targets of a few boxes that can be checked by eye. Maps have 32 x 32 cells of 0.8 m, the lidar is at the corner of cell (16, 16)."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from perception.detection.build import grid_of
from perception.detection.decode import decoded
from perception.training.loss_settings import LossSettings
from perception.training.sample import Sample
from perception.training.targets import gaussian_radius, make_targets
from tests.training.makers import CAR, CONSTRUCTION, PEDESTRIAN, TRUCK, box, sample, small_settings

SETTINGS = small_settings()
# exp(-d^2 / (2 (5 / 6)^2)) of the cells beside and behind the one of an object with radius 2
BESIDE, BEHIND = math.exp(-0.72), math.exp(-2.88)


def heat_of(targets, channel: int = 0) -> torch.Tensor:
    return targets.heatmap[0, channel]


def test_one_car():
    cars, trucks, _ = make_targets([sample((CAR, box(1.0, -2.0, z=0.5, velocity=(3, 4), r=math.pi / 2)))], SETTINGS)
    assert cars.mask.tolist() == [[True]]
    # x 1.0 m is 17.25 cells from the border, y -2.0 m is 13.5
    assert cars.index.tolist() == [[13 * 32 + 17]]
    expected = [0.25, 0.5, 0.5, math.log(2), math.log(4), math.log(1.5), 1, 0, 3, 4]
    assert cars.values[0, 0].tolist() == pytest.approx(expected, abs=1e-6)
    heat = heat_of(cars)
    assert heat[13, 15:20].tolist() == pytest.approx([BEHIND, BESIDE, 1, BESIDE, BEHIND])
    assert heat[11:16, 17].tolist() == pytest.approx([BEHIND, BESIDE, 1, BESIDE, BEHIND])
    assert heat[12, 16] == pytest.approx(BESIDE**2)
    assert (heat > 0).sum() == 25
    assert not trucks.mask.any()
    assert not trucks.heatmap.any()


def test_values_decode_to_the_box():
    row = box(3.3, -7.1, z=-1.2, size=(1.9, 4.4, 1.6), velocity=(-2, 5), r=-2.5)
    targets, *_ = make_targets([sample((CAR, row))], SETTINGS)
    assert decoded(targets.values[0], targets.index[0], 32, grid_of(SETTINGS))[0].tolist() == pytest.approx(row, abs=1e-5)


def test_slots_are_filled_class_by_class_and_heat_is_in_the_class_s_channel():
    objects = [(CONSTRUCTION, box(0, 0)), (CAR, box(5, 5)), (TRUCK, box(-5, 5)), (CONSTRUCTION, box(5, -5)), (TRUCK, box(-5, -5))]
    cars, trucks, people = make_targets([sample(*objects), sample((PEDESTRIAN, box(0, 0)))], SETTINGS)
    assert trucks.mask.tolist() == [[True] * 4 + [False], [False] * 5]
    assert trucks.cat[0].tolist() == [0, 0, 1, 1, 0]
    # -5 m is in cell 9, 5 m in cell 22, 0 m in cell 16
    assert trucks.index[0].tolist() == [22 * 32 + 9, 9 * 32 + 9, 16 * 32 + 16, 9 * 32 + 22, 0]
    assert heat_of(trucks, 0)[16, 16] == 0
    assert heat_of(trucks, 1)[16, 16] == 1
    assert heat_of(cars)[22, 22] == 1
    assert people.mask.tolist() == [[False] * 5, [True] + [False] * 4]
    assert people.heatmap[1, 0, 16, 16] == 1


def test_heat_of_neighbours_is_the_larger_of_the_two_and_is_cut_at_the_border():
    cars, *_ = make_targets([sample((CAR, box(-12.7, 12.7)), (CAR, box(-11.1, 12.7)))], SETTINGS)  # cells x 0 and 2, y 31
    assert heat_of(cars)[31, :5].tolist() == pytest.approx([1, BESIDE, 1, BESIDE, BEHIND])
    assert not heat_of(cars)[:29].any()
    assert not heat_of(cars)[:, 5:].any()


def test_two_objects_in_one_cell_have_a_slot_each():
    cars, *_ = make_targets([sample((CAR, box(0.1, 0.1)), (CAR, box(0.2, 0.2)))], SETTINGS)
    assert cars.mask.tolist() == [[True, True]]
    assert cars.index[0, 0] == cars.index[0, 1]
    assert cars.values[0, :, 0].tolist() == pytest.approx([0.125, 0.25], abs=1e-5)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(box(12.8, 0), id="on the upper limit"),
        pytest.param(box(0, -13.6), id="a cell below the lower limit"),
        pytest.param(box(0, 0, size=(0, 4, 1)), id="no width"),
        pytest.param(box(0, 0, size=(2, -4, 1)), id="negative length"),
        pytest.param(box(0, 0, size=(2, 4, 0)), id="no height"),
        pytest.param(box(math.nan, 0), id="NaN"),
        pytest.param(box(0, math.inf), id="infinite"),
        pytest.param(box(0, 0, r=math.nan), id="no yaw"),
    ],
)
def test_a_box_without_a_cell_leaves_its_slot_empty(row):
    cars, *_ = make_targets([sample((CAR, row), (CAR, box(0, 0)))], SETTINGS)
    assert cars.mask.tolist() == [[False, True]]
    assert (heat_of(cars) > 0).sum() == 25
    assert cars.values.isfinite().all()


def test_a_centre_just_below_the_lower_limit_belongs_to_the_first_cell():
    cars, *_ = make_targets([sample((CAR, box(-13.0, 0.0)))], SETTINGS)
    assert cars.index.tolist() == [[16 * 32]]
    assert cars.values[0, 0, 0] == pytest.approx(-0.25, abs=1e-5)


def test_objects_without_enough_returns_have_heat_but_no_slot():
    few = sample((CAR, box(0, 0)), (CAR, box(5, 5)), num_points=[4, 5])
    cars, *_ = make_targets([few], SETTINGS, LossSettings(min_points=5))
    assert cars.mask.tolist() == [[False, True]]
    assert heat_of(cars)[16, 16] == 1


def test_of_too_many_objects_the_nearest_to_the_lidar_are_learnt():
    many = sample((CAR, box(9, 0)), (TRUCK, box(-2, 0)), (CAR, box(0, 1)), (CAR, box(0, -5)), (-1, box(0, 0)))
    cars, trucks, _ = make_targets([many], SETTINGS, LossSettings(max_objects=3))
    assert cars.index.tolist() == [[17 * 32 + 16, 9 * 32 + 16, 0]]
    assert cars.mask.tolist() == [[True, True, False]]
    assert trucks.mask.tolist() == [[True, False, False]]
    assert heat_of(cars)[16, 16] < 0.5  # the box of no class
    assert heat_of(cars)[16, 27] == 1  # the far one is no positive, but a prediction there is not wrong


def test_near_is_near_to_the_lidar():
    away = replace(sample((CAR, box(-1, 0)), (CAR, box(9, 0))), origin=torch.tensor([8.0, 0.0, 2.0]))
    cars, *_ = make_targets([away], SETTINGS, LossSettings(max_objects=1))
    assert cars.index.tolist() == [[16 * 32 + 27]]


def test_unknown_velocity_stays_unknown():
    cars, *_ = make_targets([sample((CAR, box(0, 0, velocity=(math.nan, math.nan))))], SETTINGS)
    assert cars.mask.all()
    assert cars.values[0, 0].isnan().tolist() == [False] * 8 + [True] * 2


def test_samples_without_boxes():
    for targets in make_targets([sample(), sample()], SETTINGS):
        assert not targets.mask.any()
        assert not targets.heatmap.any()
        assert targets.index.shape == (2, 1)


def test_weights_of_classes_are_told_by_name():
    tasks = make_targets([sample()], SETTINGS, LossSettings(class_weights={"construction_vehicle": 3.0}))
    assert [task.weights for task in tasks] == [(1.0,), (1.0, 3.0), (1.0,)]


def test_a_box_in_millimetres_fills_the_map_and_not_the_memory():
    heat = make_targets([sample((CAR, box(0, 0, size=(1900.0, 4500.0, 1500.0))))], SETTINGS)[0].heatmap
    assert heat.amax() == 1
    assert (heat[0, 0] > 0).all()


@pytest.mark.parametrize(
    ("width", "length", "radius"),
    # The root of 0.36 a b + 0.01 (a + b)^2 less 0.1 (a + b), of sizes in cells of 0.6 m: the reference gives 2.10, 3.95, 0.50
    [(1.95 / 0.6, 4.6 / 0.6, 2), (2.9 / 0.6, 12.3 / 0.6, 3), (0.67 / 0.6, 0.73 / 0.6, 0)],
)
def test_radius(width, length, radius):
    assert gaussian_radius(torch.tensor(width), torch.tensor(length), 0.1) == radius


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 12))
def test_a_batch_is_its_samples_side_by_side_in_any_order_of_the_boxes(seed, count):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 9, generator=generator) * 30 - 15
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.1
    labels = torch.randint(0, 4, (count,), generator=generator)
    one = Sample("one", torch.zeros(0, 5), boxes, labels, torch.ones_like(labels), torch.zeros(3))
    order = torch.randperm(count, generator=generator)
    other = Sample("other", torch.zeros(0, 5), boxes[order], labels[order], torch.ones_like(labels), torch.zeros(3))
    for both, first in zip(make_targets([one, other], SETTINGS), make_targets([one], SETTINGS), strict=True):
        assert torch.equal(both.heatmap[0], first.heatmap[0])
        assert torch.equal(both.heatmap[0], both.heatmap[1])
        assert torch.equal(both.values[0], first.values[0])
        rows = [sorted(map(tuple, both.values[i][both.mask[i]].tolist())) for i in (0, 1)]
        assert rows[0] == rows[1]
