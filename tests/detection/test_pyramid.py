import pytest
import torch
from torch import nn

from perception.detection.fold import folded
from perception.detection.pyramid import PyramidNeck


def neck() -> PyramidNeck:
    torch.manual_seed(0)
    return PyramidNeck(3, channels=(4, 5, 6), layers=(1, 0, 2), up_channels=(7, 8, 9)).eval()


@torch.no_grad()
def test_the_map_keeps_its_size():
    assert neck()(torch.rand(2, 3, 16, 24)).shape == (2, 7, 16, 24)
    assert neck().out_channels == 7


@torch.no_grad()
@pytest.mark.parametrize(("silent", "reach"), [("stages.1", 6), ("stages.2", 12), (None, 56)], ids=["fine", "middle", "all"])
def test_coarser_stages_see_farther(silent, reach):
    """A change of one cell reaches as many cells as the stages that work let it."""
    ours = neck()
    if silent is not None:  # this stage and those after it give zeros
        for number in range(int(silent[-1]), 3):
            for layer in (*ours.stages[number], ours.ups[number]):
                nn.init.zeros_(layer.norm.weight)
                nn.init.zeros_(layer.norm.bias)
    for number in range(3):
        for layer in (*ours.stages[number], ours.laterals[number], ours.ups[number]):
            layer.conv.weight.abs_()  # nothing cancels, no ReLU cuts
    bev = torch.ones(1, 3, 64, 64)
    changed = bev.clone()
    changed[0, :, 32, 32] += 1
    rows = (ours(changed) - ours(bev)).abs().amax(dim=(0, 1, 3)).nonzero()
    # Cell 32 of the map. Stage 1 sees 2i - 1..2i + 1: cell 16, its layer 15..17, back on the map 30..35: 6 cells.
    # Stage 2 from 15..17: cells 7 (13..15), 8 (15..17), 9 (17..19): 28..39 of the map.
    # Stage 3 from 7..9: cells 3..5, its layers 1..7: 8..63 of the map.
    assert len(rows) == int(rows[-1] - rows[0]) + 1 == reach


@torch.no_grad()
def test_layers_that_say_nothing_change_nothing():
    """The input is led around them."""
    ours = neck()
    short = PyramidNeck(3, channels=(4, 5, 6), layers=(0, 0, 0), up_channels=(7, 8, 9)).eval()
    short.load_state_dict({name: tensor for name, tensor in ours.state_dict().items() if name in short.state_dict()})
    bev = torch.rand(1, 3, 16, 16)
    assert not torch.allclose(ours(bev), short(bev))
    for stage in ours.stages:
        for layer in list(stage)[1:]:
            nn.init.zeros_(layer.norm.weight)
    torch.testing.assert_close(ours(bev), short(bev))


@torch.no_grad()
def test_folding_changes_nothing_but_rounding():
    ours = neck()
    for name, buffer in ours.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    bev = torch.rand(1, 3, 16, 16)
    quick = folded(ours)
    assert all(isinstance(layer.norm, nn.Identity) for layer in quick.modules() if hasattr(layer, "norm"))
    torch.testing.assert_close(quick(bev), ours(bev), rtol=0, atol=1e-5)


def test_gradients_reach_every_weight():
    ours = neck().train()
    ours(torch.rand(2, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in ours.parameters())
