"""Axes of sparse weights."""

import pytest
import torch

from perception.core.errors import CheckpointError
from perception.detection.checkpoints.sparse_layout import SPARSE_LAYOUTS, find_sparse_layout

KRSC, RSCK, RSKC = SPARSE_LAYOUTS
STEM, BLOCK, LAST = (16, 3, 3, 3, 5), (16, 3, 3, 3, 16), (128, 3, 1, 1, 128)


def stored_as(order, *shapes):
    return {f"layer{i}": tuple(shape[axis] for axis in order) for i, shape in enumerate(shapes)}


def found(stored, shapes, asked="auto"):
    return find_sparse_layout(stored, stored_as((0, 1, 2, 3, 4), *shapes), asked, where="x.pth")


@pytest.mark.parametrize(
    ("order", "layout"),
    [
        pytest.param((0, 1, 2, 3, 4), KRSC, id="spconv 2.2"),
        pytest.param((1, 2, 3, 4, 0), RSCK, id="spconv 1"),
        pytest.param((1, 2, 3, 0, 4), RSKC, id="spconv 2.0 native"),
    ],
)
def test_one_layer_of_two_widths_decides_for_all(order, layout):
    shapes = (STEM, BLOCK, LAST)
    assert found(stored_as(order, *shapes), shapes) == (layout, f"by the shape of layer0, {[STEM[axis] for axis in order]}")
    assert found(stored_as(order, *shapes[::-1]), shapes[::-1])[0] is layout


def test_square_layers_alone_decide_between_2_2_and_the_rest():
    shapes = (BLOCK, LAST)
    assert found(stored_as((0, 1, 2, 3, 4), *shapes), shapes)[0] is KRSC
    with pytest.raises(CheckpointError, match="cannot tell"):
        found(stored_as((1, 2, 3, 4, 0), *shapes), shapes)
    assert found(stored_as((1, 2, 3, 4, 0), *shapes), shapes, "1") == (RSCK, "as asked")
    assert found(stored_as((1, 2, 3, 4, 0), *shapes), shapes, "2") == (RSKC, "as asked")


def test_three_channels_are_silent_altogether():
    shapes = ((3, 3, 3, 3, 3),)
    with pytest.raises(CheckpointError, match="cannot tell"):
        found(stored_as((0, 1, 2, 3, 4), *shapes), shapes)


def test_a_layer_of_wrong_shape_does_not_decide():
    stored = stored_as((1, 2, 3, 4, 0), STEM, BLOCK, LAST) | {"layer1": (1, 1), "layer2": (3, 1, 1, 127, 128)}
    assert found(stored, (STEM, BLOCK, LAST)) == (RSCK, f"by the shape of layer0, {[3, 3, 3, 5, 16]}")


def test_layers_that_contradict_each_other_are_for_the_list_of_wrong_shapes():
    stored = stored_as((1, 2, 3, 4, 0), STEM, STEM) | {"layer1": STEM}
    assert found(stored, (STEM, STEM))[1] == "no layout fits all shapes"


def test_weights_go_to_our_axes():
    ours = torch.randn(4, 3, 2, 1, 5)
    for layout in SPARSE_LAYOUTS:
        stored = ours.permute([layout.order.index(axis) for axis in range(5)])
        assert layout.shape(tuple(stored.shape)) == (4, 3, 2, 1, 5)
        assert torch.equal(layout.to_ours(stored), ours)
        assert layout.to_ours(stored).is_contiguous()


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 7), (6, 6)])
def test_kernels_of_one_cell_are_read_as_spconv_reads_them(inputs, outputs):
    """spconv 2 declares such a weight (out, 1, 1, 1, in) and multiplies with its numbers taken as (in, out)."""
    spconv = pytest.importorskip("spconv.pytorch", reason="the judge is spconv itself")
    torch.manual_seed(0)
    layer = spconv.SubMConv3d(inputs, outputs, 1, bias=False)
    sites = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]], dtype=torch.int32)
    features = torch.randn(2, inputs)
    theirs = layer(spconv.SparseConvTensor(features, sites, [4, 4, 4], 1)).features
    ours = KRSC.to_ours(layer.weight.detach())
    assert ours.shape == (outputs, 1, 1, 1, inputs)
    torch.testing.assert_close(features @ ours[:, 0, 0, 0].T, theirs.detach())
