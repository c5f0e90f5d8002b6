import pytest
import torch
from torch import nn

from perception.training.ema import Ema


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))


@torch.no_grad()
def test_the_mean_by_hand():
    net = network()
    net[0].weight.fill_(1.0)
    ema = Ema(net, 0.5)
    net[0].weight.fill_(2.0)
    ema.update(0)  # decay min(0.5, 1 / 10) -> 0.1 * 1 + 0.9 * 2
    assert ema.state()["0.weight"].flatten().tolist() == pytest.approx([1.9] * 4)
    net[0].weight.fill_(0.0)
    ema.update(1000)  # decay 0.5
    assert ema.state()["0.weight"].flatten().tolist() == pytest.approx([0.95] * 4)
    assert net[0].weight.sum() == 0  # the network's own are left alone


@torch.no_grad()
def test_statistics_of_normalisations_are_averaged_and_counters_copied():
    net = network()
    ema = Ema(net, 0.5)
    net[1].running_mean.fill_(4.0)
    net[1].num_batches_tracked.fill_(7)
    ema.update(1000)
    assert ema.state()["1.running_mean"].tolist() == [2.0, 2.0]
    assert ema.state()["1.num_batches_tracked"] == 7


@torch.no_grad()
def test_no_decay_keeps_the_last_weights():
    net = network()
    ema = Ema(net, 0.0)
    net[0].weight.fill_(3.0)
    ema.update(5)
    assert torch.equal(ema.state()["0.weight"], net[0].weight)


@torch.no_grad()
def test_goes_on_from_a_state():
    net, other = network(), network()
    ema = Ema(net, 0.9)
    state = {name: tensor.clone() + 1 for name, tensor in ema.state().items()}
    again = Ema(other, 0.9)
    again.load(state)
    assert all(torch.equal(again.state()[name], state[name]) for name in state)
