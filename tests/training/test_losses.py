"""Losses of a few cells that can be checked by hand."""

import math

import pytest
import torch

from perception.detection.head import HeadMaps, TaskMaps
from perception.training.loss_settings import LossSettings
from perception.training.losses import center_loss, object_counts
from perception.training.targets import make_targets
from tests.training.makers import CAR, PEDESTRIAN, TRUCK, box, sample, small_settings

SETTINGS = small_settings()
SIDE = 32
EMPTY = -math.log(0.5) * 0.25  # of a cell of score 0.5 where nothing is: -log(1 - p) p^2


def maps_of(samples: int = 1, *, logit: float = -20.0, channels: int = 10) -> HeadMaps:
    """Maps of one number each: score 1e-4 (the least) and boxes of zeros."""
    tasks = [TaskMaps(torch.full((samples, count, SIDE, SIDE), logit), torch.zeros(samples, channels, SIDE, SIDE)) for count in (1, 2, 1)]
    for task in tasks:
        task.heatmap.requires_grad_()
        task.boxes.requires_grad_()
    return HeadMaps(torch.zeros(samples, 1, SIDE, SIDE), tuple(tasks))


def random_maps(samples: int, seed: int = 0) -> HeadMaps:
    generator = torch.Generator().manual_seed(seed)
    tasks = [
        TaskMaps(
            torch.randn(samples, count, SIDE, SIDE, generator=generator).requires_grad_(),
            torch.randn(samples, 10, SIDE, SIDE, generator=generator).requires_grad_(),
        )
        for count in (1, 2, 1)
    ]
    return HeadMaps(torch.zeros(samples, 1, SIDE, SIDE), tuple(tasks))


def random_sample(seed: int, count: int = 8):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, 9, generator=generator) * 20 - 10
    rows[:, 3:6] = rows[:, 3:6].abs() + 0.3
    labels = torch.randint(0, 4, (count,), generator=generator).tolist()
    return sample(*zip(labels, rows.tolist(), strict=True))


def test_empty_cells_where_nothing_is_are_not_divided():
    losses = center_loss(maps_of(logit=0.0), make_targets([sample()], SETTINGS))
    assert losses.parts["heatmap"].item() == pytest.approx(4 * SIDE**2 * EMPTY, rel=1e-5)
    assert losses.parts["offset"] == 0


def test_empty_cells_near_an_object_cost_less():
    targets = make_targets([sample((CAR, box(0, 0)))], SETTINGS)
    maps = maps_of()
    before = center_loss(maps, targets).parts["heatmap"].item()
    with torch.no_grad():
        maps.tasks[0].heatmap[0, 0, 16, 17] = 0.0
    after = center_loss(maps, targets).parts["heatmap"].item()
    assert after - before == pytest.approx(EMPTY * (1 - math.exp(-0.72)) ** 4, rel=1e-3)


def test_one_object_and_its_box():
    row = box(1.0, -2.0, z=0.5, size=(1, 1, 1), velocity=(3, -4), r=math.pi / 2)
    targets = make_targets([sample((CAR, row))], SETTINGS)
    maps = maps_of()
    with torch.no_grad():
        maps.tasks[0].heatmap[0, 0, 13, 17] = 0.0
    losses = center_loss(maps, targets)
    # log(1 / 2) (1 / 2)^2 at the object; 1e-4 elsewhere: log(1 - p) p^2 is about 1e-12 a cell
    assert losses.parts["heatmap"].item() == pytest.approx(-math.log(0.5) / 4, rel=1e-5)
    # the boxes say 0: offset 0.25 and 0.5, height 0.5, sizes right, sine 1, velocity 3 and 4 at a fifth; all at a quarter
    expected = {"offset": 0.75, "height": 0.5, "log_size": 0, "heading": 1, "velocity": 0.2 * 7}
    for name, value in expected.items():
        assert losses.parts[name].item() == pytest.approx(0.25 * value, rel=2e-4, abs=1e-6)  # divided by 1.0001
    assert losses.total.item() == pytest.approx(sum(part.item() for part in losses.parts.values()))


def test_weights():
    targets = make_targets([sample((CAR, box(1.0, -2.0, velocity=(3, -4))))], SETTINGS)
    plain = center_loss(maps_of(), targets).parts
    heavy = center_loss(maps_of(), targets, LossSettings(box_weight=1.0, velocity_weight=1.0)).parts
    assert heavy["velocity"] == pytest.approx(20 * plain["velocity"].item())
    assert heavy["height"] == pytest.approx(4 * plain["height"].item())
    assert heavy["heatmap"] == plain["heatmap"]


def test_weight_of_a_class_counts_for_its_empty_cells_and_its_objects():
    def heat(**weights: float) -> float:
        settings = LossSettings(class_weights=weights)
        targets = make_targets([sample((TRUCK, box(0, 0)))], SETTINGS, settings)
        return center_loss(maps_of(logit=0.0), targets, settings).parts["heatmap"].item()

    trucks = heat(car=0, construction_vehicle=0, pedestrian=0)
    others = [heat(**({"car": 0, "truck": 0, "construction_vehicle": 0, "pedestrian": 0} | {name: 1})) for name in ("car", "pedestrian")]
    assert others[0] == pytest.approx(SIDE**2 * EMPTY, rel=1e-5)
    builders = heat(truck=0, car=0, pedestrian=0)
    assert builders == pytest.approx(SIDE**2 * EMPTY, rel=1e-5)
    assert trucks > (SIDE**2 - 25) * EMPTY
    assert heat(truck=3) == pytest.approx(3 * trucks + builders + sum(others), rel=1e-5)


@pytest.mark.parametrize(("rule", "factor"), [("ignore", 0.0), ("zero", 1.0)])
def test_unknown_velocity(rule, factor):
    settings = LossSettings(unknown_velocity=rule)
    targets = make_targets([sample((CAR, box(0, 0, velocity=(math.nan, math.nan))))], SETTINGS, settings)
    maps = maps_of()
    with torch.no_grad():
        maps.tasks[0].boxes[0, 8:, 16, 16] = torch.tensor([1.0, -2.0])
    losses = center_loss(maps, targets, settings)
    assert losses.parts["velocity"].item() == pytest.approx(factor * 0.25 * 0.2 * 3, rel=2e-4)
    losses.total.backward()
    gradient = maps.tasks[0].boxes.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient[0, 8:, 16, 16].tolist() == pytest.approx([factor * 0.05, -factor * 0.05], rel=2e-4)


@pytest.mark.parametrize(("speed", "factor"), [(0.0, 1.0), (0.4, 1.0), (0.6, 5.0)])
def test_velocity_of_what_moves_weighs_more(speed, factor):
    settings = LossSettings(moving_weight=5.0)
    targets = make_targets([sample((CAR, box(0, 0, velocity=(speed * 0.6, speed * 0.8))))], SETTINGS, settings)
    maps = maps_of()
    with torch.no_grad():
        maps.tasks[0].boxes[0, 8:, 16, 16] = torch.tensor([1.0 + speed * 0.6, speed * 0.8 - 2.0])
    losses = center_loss(maps, targets, settings)
    usual = center_loss(maps, targets, LossSettings())
    assert losses.parts["velocity"].item() == pytest.approx(factor * 0.25 * 0.2 * 3, rel=2e-4)
    others = [name for name in losses.parts if name != "velocity"]
    assert all(torch.equal(losses.parts[name], usual.parts[name]) for name in others)


def axis_loss(turned: float, length: float):
    """The loss of a heading of some length that is turned from an object's by an angle."""
    targets = make_targets([sample((CAR, box(0, 0, r=0.7)))], SETTINGS)
    maps = maps_of()
    with torch.no_grad():
        maps.tasks[0].boxes[0, 6:8, 16, 16] = length * torch.tensor([math.sin(0.7 + turned), math.cos(0.7 + turned)])
    losses, usual = center_loss(maps, targets, LossSettings(axis_weight=2.0)), center_loss(maps, targets)
    assert "axis" not in usual.parts
    assert losses.total.item() == pytest.approx(usual.total.item() + losses.parts["axis"].item())
    losses.parts["axis"] = losses.parts["axis"] / (0.25 * 2)
    return losses, maps


@pytest.mark.parametrize("length", [1.0, 3.0])
@pytest.mark.parametrize("turned", [0.0, 0.3, 1.2, math.pi / 2, math.pi - 0.3, math.pi, -0.3])
def test_axis_compares_twice_the_angle(turned, length):
    losses, maps = axis_loss(turned, length)
    expected = abs(math.sin(1.4 + 2 * turned) - math.sin(1.4)) + abs(math.cos(1.4 + 2 * turned) - math.cos(1.4))
    assert losses.parts["axis"].item() == pytest.approx(expected, rel=0.02, abs=0.02)  # the least length tells
    losses.total.backward()
    assert maps.tasks[0].boxes.grad.isfinite().all()  # type: ignore[union-attr]


def test_axis_of_a_heading_without_length_is_as_wrong_as_can_be_seen():
    at_nothing = axis_loss(0.0, 0.0)[0].parts["axis"].item()
    assert at_nothing == pytest.approx(abs(math.sin(1.4)) + abs(math.cos(1.4)), rel=2e-4)
    losses = [axis_loss(0.0, length)[0].parts["axis"].item() for length in (0.05, 0.1, 0.3, 1.0)]
    assert [at_nothing, *losses] == sorted([at_nothing, *losses], reverse=True)


def test_the_gradient_of_a_box_is_at_its_cell_only():
    maps = maps_of()
    center_loss(maps, make_targets([sample((CAR, box(1.0, -2.0)))], SETTINGS)).total.backward()
    gradient = maps.tasks[0].boxes.grad
    assert gradient is not None
    assert gradient.abs().sum(dim=1)[0].nonzero().tolist() == [[13, 17]]
    assert not maps.tasks[1].boxes.grad.any()  # type: ignore[union-attr]


def test_a_left_out_object_costs_nothing():
    few = make_targets([sample((CAR, box(0, 0)), num_points=[2])], SETTINGS, LossSettings(min_points=3))
    maps = maps_of()
    with torch.no_grad():
        maps.tasks[0].heatmap[0, 0, 16, 16] = 5.0
    assert center_loss(maps, few).total < 1e-3
    nothing = make_targets([sample()], SETTINGS)
    assert center_loss(maps, nothing).total > 4


def test_a_head_without_velocity():
    targets = make_targets([sample((CAR, box(0, 0, z=1.0)))], small_settings(velocity=False))
    losses = center_loss(maps_of(channels=8), targets)
    assert "velocity" not in losses.parts
    assert losses.parts["height"].item() == pytest.approx(0.25, rel=2e-4)


def test_shares_of_a_larger_batch_add_up():
    samples = [random_sample(seed) for seed in range(4)] + [sample()]
    whole_maps = random_maps(5)
    whole = make_targets(samples, SETTINGS)
    counts = object_counts(whole)
    total = center_loss(whole_maps, whole).total
    shares = []
    for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
        maps = HeadMaps(whole_maps.shared[part], tuple(TaskMaps(t.heatmap[part], t.boxes[part]) for t in whole_maps.tasks))
        shares.append(center_loss(maps, make_targets(samples[part], SETTINGS), counts=counts).total)
    assert sum(share.item() for share in shares) == pytest.approx(total.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("moved", "iou"),
    [
        pytest.param({}, 1, id="the box is right"),
        pytest.param({5: math.log(3.0)}, 1 / 2, id="twice as high: half of it is shared"),
        pytest.param({0: 0.25 + 1 / 0.8}, 1 / 3, id="a metre to the right: half the width"),
        pytest.param({1: 0.5 - 2 / 0.8}, 1 / 3, id="two metres back: half the length"),
        pytest.param({6: 1.0, 7: 0.0}, 1 / 3, id="turned by 90 degrees: 4 of 12 square metres"),
        pytest.param({2: 9.0}, 0, id="above"),
    ],
)
def test_the_head_is_asked_how_well_its_box_fits(moved, iou):
    targets = make_targets([sample((CAR, box(1.0, -2.0, size=(2, 4, 1.5))))], SETTINGS)
    maps = maps_of()
    with torch.no_grad():
        maps.tasks[0].boxes[0, :, 13, 17] = targets[0].values[0, 0]
        for column, value in moved.items():
            maps.tasks[0].boxes[0, column, 13, 17] = value
    word = torch.full((1, 1, SIDE, SIDE), 0.25, requires_grad=True)
    asked = HeadMaps(maps.shared, tuple(task._replace(iou=word) for task in maps.tasks))
    losses = center_loss(asked, targets, LossSettings(box_weight=0.0, iou_weight=2.0))
    assert losses.parts["iou"].item() == pytest.approx(2 * abs(0.25 - (2 * iou - 1)), rel=2e-4)
    losses.total.backward()
    assert word.grad is not None
    assert word.grad.nonzero().tolist() == [[0, 0, 13, 17]]
    assert not maps.tasks[0].boxes.grad.any()  # type: ignore[union-attr]  boxes are not bent to fit what is said of them


def test_a_box_moved_along_its_length_shares_a_third():
    targets = make_targets([sample((CAR, box(1.0, -2.0, size=(2, 4, 1.5), r=math.pi / 4)))], SETTINGS)
    maps = maps_of()
    with torch.no_grad():
        maps.tasks[0].boxes[0, :, 13, 17] = targets[0].values[0, 0]
        maps.tasks[0].boxes[0, :2, 13, 17] += math.sqrt(2) / 0.8  # 2 m along x = y, where det3d's length points for r = pi / 4
    asked = HeadMaps(maps.shared, tuple(task._replace(iou=torch.zeros(1, 1, SIDE, SIDE)) for task in maps.tasks))
    assert center_loss(asked, targets).parts["iou"].item() == pytest.approx(1 / 3, rel=2e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    maps, targets = random_maps(2), make_targets([random_sample(0), random_sample(1)], SETTINGS)
    halves = HeadMaps(maps.shared, tuple(TaskMaps(*(m.detach().to(dtype).requires_grad_() for m in task[:2])) for task in maps.tasks))
    widened = HeadMaps(maps.shared, tuple(TaskMaps(*(m.detach().float().requires_grad_() for m in task[:2])) for task in halves.tasks))
    half, wide = center_loss(halves, targets).total, center_loss(widened, targets).total
    assert half.dtype == torch.float32
    assert half.item() == wide.item()
    half.backward()
    wide.backward()
    for a, b in zip(halves.tasks, widened.tasks, strict=True):
        assert a.heatmap.grad is not None
        assert a.heatmap.grad.dtype == dtype
        torch.testing.assert_close(a.heatmap.grad, b.heatmap.grad.to(dtype))  # type: ignore[union-attr]


def test_gradients_have_the_same_bits_in_every_run():
    crowded = sample(*[(PEDESTRIAN, box(0.1 + i / 100, 0.1, z=i / 7)) for i in range(30)])  # all in one cell
    targets, gradients = make_targets([crowded], SETTINGS), []
    for _ in range(2):
        maps = random_maps(1)
        center_loss(maps, targets).total.backward()
        gradients.append(maps.tasks[2].boxes.grad)
    assert torch.equal(*gradients)
