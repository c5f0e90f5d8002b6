"""Deformable convolution against its definition in slow loops."""

import numpy as np
import pytest
import torch

from perception.detection import Detector
from perception.detection.build import build_decoder, build_network
from perception.detection.config import DetectorConfig
from perception.detection.deformable import DeformableConv, bordered
from perception.detection.flip import merged_boxes, mirrored
from tests.detection.small import cloud, livened, small_config


def by_definition(x, offsets, weight, groups, offset_groups):
    """(C, H, W), (offset_groups * 18, H, W), (C_out, C / groups, 3, 3) to (C_out, H, W): sum over taps and channels, in float64."""
    channels, height, width = x.shape
    out = np.zeros((len(weight), height, width))

    def value(c, y, x_):
        """Between four cells; a cell that is not on the map is 0."""
        if not (np.isfinite(y) and np.isfinite(x_)):
            return 0.0
        y0, x0, total = int(np.floor(y)), int(np.floor(x_)), 0.0
        for yy in (y0, y0 + 1):
            for xx in (x0, x0 + 1):
                if 0 <= yy < height and 0 <= xx < width:
                    total += (1 - abs(y - yy)) * (1 - abs(x_ - xx)) * x[c, yy, xx]
        return total

    for o, y, x_ in np.ndindex(out.shape):
        group = o // (len(weight) // groups)
        for i, k in np.ndindex(channels // groups, 9):
            c = group * (channels // groups) + i
            of = 18 * (c // (channels // offset_groups)) + 2 * k
            place = (y + k // 3 - 1 + offsets[of, y, x_], x_ + k % 3 - 1 + offsets[of + 1, y, x_])
            out[o, y, x_] += weight[o, i, k // 3, k % 3] * value(c, *place)
    return out


def conv(**options) -> DeformableConv:
    torch.manual_seed(0)
    layer = DeformableConv(8, **options).double()
    torch.nn.init.normal_(layer.offset.weight, 0, 0.5)
    torch.nn.init.normal_(layer.offset.bias, 0, 2)  # some places far outside
    return layer


KINDS = [
    pytest.param({"offset_groups": 4, "offset_kernel": 1, "relu": True}, id="det3d"),
    pytest.param({"groups": 4}, id="mmdet3d"),
    pytest.param({"groups": 2, "offset_groups": 4}, id="both groups"),
]


@torch.no_grad()
@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_its_definition(options, layout):
    layer, x = conv(**options), torch.randn(2, 8, 5, 4, dtype=torch.float64)
    found = layer(x.to(memory_format=layout))
    for sample in range(2):
        offsets = layer.offset(x[sample : sample + 1])[0].numpy()
        expected = by_definition(x[sample].numpy(), offsets, layer.weight.numpy(), layer.groups, layer.offset_groups)
        if layer.relu:
            expected = np.maximum(expected, 0)
            assert (expected == 0).any()
        np.testing.assert_allclose(found[sample], expected, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("offset", [0.0, 0.5, -1.0, 1.0, 2.5, 4.0, -4.0, 1e30, np.nan, np.inf])
def test_places_at_borders_and_numbers_that_are_none(offset):
    layer, x = DeformableConv(2).double(), torch.randn(1, 2, 3, 4, dtype=torch.float64)
    layer.offset.bias.fill_(offset)
    expected = by_definition(x[0].numpy(), np.full((18, 3, 4), offset), layer.weight.numpy(), 1, 1)
    np.testing.assert_allclose(layer(x)[0], expected, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 4])
def test_without_offsets_it_is_a_convolution(groups):
    layer, x = DeformableConv(8, groups=groups), torch.randn(2, 8, 6, 5)
    layer.offset.bias.zero_()  # its weights are zero in a new layer
    torch.testing.assert_close(layer(x), torch.conv2d(x, layer.weight, padding=1, groups=groups), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("options", KINDS)
def test_some_cells_are_those_of_all(options):
    layer, x = conv(**options), torch.randn(1, 8, 5, 4, dtype=torch.float64)
    everywhere = layer(x)[0].flatten(1).t()
    kernel, bias = layer.offset_kernel()
    offsets = torch.conv2d(x, kernel, bias, padding=layer.offset.padding)[0].flatten(1).t()
    for cells in (torch.tensor([19, 0, 7, 7]), torch.zeros(0, dtype=torch.int64)):
        torch.testing.assert_close(layer.at(bordered(x)[0], offsets[cells], cells), everywhere[cells])


@pytest.mark.parametrize("options", KINDS)
def test_gradients(options):
    layer, x = conv(**options), torch.randn(1, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def called(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(called, (x, *(value.detach().requires_grad_() for value in values)), nondet_tol=0)


@torch.no_grad()
@pytest.mark.parametrize("offset_groups", [1, 4])
def test_it_is_torchvisions(offset_groups):
    torchvision = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
    layer, x = conv(offset_groups=offset_groups), torch.randn(2, 8, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), torchvision.deform_conv2d(x, layer.offset(x), layer.weight, padding=1))


@torch.no_grad()
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 3e-2)])
@pytest.mark.parametrize("options", KINDS)
def test_the_same_on_a_gpu(options, dtype, tolerance):
    layer, x = conv(**options).float(), torch.randn(2, 8, 40, 30)
    torch.nn.init.normal_(layer.offset.weight, 0, 0.05)  # in float16 places of many cells are coarse
    expected = layer(x)
    found = layer.to("cuda", dtype)(x.to("cuda", dtype))
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("deformable", [{}, {"groups": 2, "offset_groups": 1, "offset_kernel": 3, "relu": False}], ids=["det3d", "mmdet3d"])
def test_a_detector_with_it_is_the_plain_network(flip, deformable):
    """Folded and lazy against the network as it is trained."""
    values = small_config(double_flip=flip).model_dump()
    values["detector"]["head"]["deformable"] = deformable
    values["detector"]["reader"]["limit"] |= {"max_voxels": 5000, "max_voxels_training": 5000}
    settings = DetectorConfig.model_validate(values).detector
    torch.manual_seed(0)
    network = build_network(settings).eval()
    network.load_state_dict(livened(network.state_dict()))
    for name, value in network.named_parameters():
        if ".offset." in name:
            torch.nn.init.normal_(value, 0, 0.3)
    found = Detector(network, settings).detect_rows(cloud())
    decoder, points = build_decoder(settings), torch.from_numpy(cloud())
    with torch.no_grad():
        if flip:
            (expected,) = merged_boxes(decoder, network(mirrored([points])))
        else:
            (expected,) = decoder.from_maps(network([points]))
    assert len(found.rows) > 3
    assert found.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(found.rows, expected.rows, rtol=1e-4, atol=1e-4)
