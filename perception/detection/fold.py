"""Batch normalisation folded into the convolution before it, for inference: the same function in fewer steps."""

import copy
from typing import Any, TypeVar

import torch
from torch import nn

from perception.detection.layers import ConvNormRelu, DenseNormRelu
from perception.detection.pillar_readers import PillarLayer
from perception.detection.second_stage import Dense
from perception.detection.sparse import SparseConvNormRelu

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """A copy in evaluation mode whose convolutions have taken in their normalisation. Results differ by rounding only."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvNormRelu):
            _fold(module, module.conv, out_axis=1 if isinstance(module.conv, nn.ConvTranspose2d) else 0)
        elif isinstance(module, SparseConvNormRelu):
            _fold(module, module.conv, out_axis=0)
        elif isinstance(module, PillarLayer | Dense | DenseNormRelu):
            _fold(module, module.linear, out_axis=0)
    return network


@torch.no_grad()
def _fold(owner: Any, layer: Any, *, out_axis: int) -> None:
    """owner.norm into layer.weight and layer.bias; in float64, so that folding itself costs no digit."""
    norm = owner.norm
    if isinstance(norm, nn.Identity):
        return
    scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean.double()
    shape = [1] * layer.weight.ndim
    shape[out_axis] = -1
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter((layer.weight.double() * scale.view(shape)).to(dtype))
    layer.bias = nn.Parameter((shift * scale + norm.bias.double()).to(dtype))
    owner.norm = nn.Identity()
