import pytest
import torch

from perception.core.errors import UsageError
from perception.detection.build import build_network
from perception.detection.config import CenterPointSettings
from perception.detection.head import BRANCHES
from perception.training.loss_settings import LossSettings
from perception.training.losses import center_loss
from perception.training.objective import Objective
from perception.training.targets import make_targets
from tests.detection.small import cloud
from tests.training.makers import CAR, box, sample, small_settings

SECOND = {"shared": [8, 8], "score": [8, 8], "box": [8, 8]}


def settings_with(second: dict | None, **head: bool) -> CenterPointSettings:
    return CenterPointSettings.model_validate(small_settings(**head).model_dump() | {"second_stage": second})


@pytest.mark.parametrize(
    ("second", "iou", "more"),
    [(None, False, set()), (None, True, {"iou"}), (SECOND, True, {"iou", "second_score", "second_box"})],
)
def test_the_loss_has_the_parts_that_the_network_has_and_all_of_it_learns(second, iou, more):
    torch.manual_seed(0)
    settings = settings_with(second, iou=iou)
    network = build_network(settings)
    objective = Objective(network, settings)
    targets = objective.targets([sample((CAR, box(0, 0))), sample((CAR, box(5, 5)))])
    losses = objective.loss(network([torch.from_numpy(cloud()), torch.from_numpy(cloud(seed=1))]), targets)
    assert set(losses.parts) == {"heatmap", *BRANCHES} | more
    assert losses.total.item() == pytest.approx(sum(part.item() for part in losses.parts.values()), rel=1e-5)
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_settings_of_the_loss_reach_targets_and_loss():
    settings, loss = small_settings(), LossSettings(min_points=3, box_weight=1.5)
    network = build_network(settings)
    objective, samples = Objective(network, settings, loss), [sample((CAR, box(0, 0)), (CAR, box(5, 5)), num_points=[2, 4])]
    maps = network([torch.from_numpy(cloud())])
    expected = center_loss(maps, make_targets(samples, settings, loss), loss)
    assert objective.loss(maps, objective.targets(samples)).total.item() == expected.total.item()


def test_a_stage_that_reads_the_neck_is_refused():
    settings = settings_with(SECOND | {"features": "neck"})
    with pytest.raises(UsageError, match="features: expected head, got neck"):
        Objective(build_network(settings), settings)


def test_a_weight_of_an_unknown_class_is_wrong_use():
    settings = small_settings()
    with pytest.raises(UsageError, match=r"class_weights: pedstrian: expected one of car, .*did you mean 'pedestrian'"):
        Objective(build_network(settings), settings, LossSettings(class_weights={"pedstrian": 3.0}))
