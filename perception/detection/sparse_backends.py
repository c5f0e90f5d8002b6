"""What computes sparse convolutions: `native` is ours (CPU and CUDA), `spconv` a library (GPU only), `dense` plain torch (for tests)."""

import math
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops import sparse_conv, sparse_indices
from perception.core.errors import UsageError, require_package

if TYPE_CHECKING:
    from perception.detection.sparse import SparseTensor

Three = tuple[int, int, int]


class Backend(Protocol):
    """The two convolutions; weights (C_out, kz, ky, kx, C_in), then bias, residual and ReLU in this order, as in `cuda_ops.sparse_conv`."""

    def submanifold(self, x: "SparseTensor", weight: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        """Features (N, C_out) at the sites of x."""
        ...

    def strided(
        self, x: "SparseTensor", weight: Tensor, bias: Tensor | None, stride: Three, padding: Three, residual: Tensor | None, relu: bool
    ) -> tuple[Tensor, Tensor, Three]:
        """Features (M, C_out), coords (M, 4) and shape of the outputs."""
        ...


class NativeBackend:
    """The operators of `cuda_ops`."""

    def submanifold(self, x: "SparseTensor", weight: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        kernel = _kernel(weight)
        if kernel not in x.tables:
            x.tables[kernel] = sparse_indices(x.coords, x.shape, kernel, submanifold=True, batch_size=x.batch_size).table
        table, transposed = x.tables[kernel], None
        if torch.is_grad_enabled() and x.features.requires_grad:
            if ("transposed", kernel) not in x.tables:
                x.tables["transposed", kernel] = table.flip(1).contiguous()  # the neighbour's neighbour on the other side
            transposed = x.tables["transposed", kernel]
        return sparse_conv(x.features, weight, table, bias=bias, residual=residual, relu=relu, transposed=transposed)

    def strided(
        self, x: "SparseTensor", weight: Tensor, bias: Tensor | None, stride: Three, padding: Three, residual: Tensor | None, relu: bool
    ) -> tuple[Tensor, Tensor, Three]:
        kernel, capacity, name = _kernel(weight), None, ""
        if x.limits is not None:
            shape = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(x.shape, kernel, stride, padding, strict=True)]
            name = f"sites of {x.shape} by {kernel}"
            capacity = x.limits.rows(name, guess=2 * len(x.coords), most=x.batch_size * math.prod(shape))
        found = sparse_indices(x.coords, x.shape, kernel, stride, padding, batch_size=x.batch_size, capacity=capacity)
        if x.limits is not None:
            x.limits.note(name, found.counters[0] + found.counters[3])  # those that are there and those that had no room
        features = sparse_conv(x.features, weight, found.table, bias=bias, residual=residual, relu=relu)
        return features, found.coords, found.shape


class DenseBackend:
    """Every cell is computed, then those that are no site are dropped."""

    def submanifold(self, x: "SparseTensor", weight: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        out = F.conv3d(x.dense(), weight.movedim(4, 1), bias, padding=[k // 2 for k in _kernel(weight)])  # (B, C, Z, Y, X)
        return _finish(_at(out, x.coords), residual, relu)

    def strided(
        self, x: "SparseTensor", weight: Tensor, bias: Tensor | None, stride: Three, padding: Three, residual: Tensor | None, relu: bool
    ) -> tuple[Tensor, Tensor, Three]:
        out = F.conv3d(x.dense(), weight.movedim(4, 1), bias, stride, padding)
        is_site = x.with_features(torch.ones_like(x.features[:, :1])).dense()
        touched = F.conv3d(is_site, is_site.new_ones((1, 1, *_kernel(weight))), None, stride, padding)
        coords = touched[:, 0].nonzero().int()  # by batch, z, y, x
        depth, height, width = out.shape[2:]
        return _finish(_at(out, coords), residual, relu), coords, (depth, height, width)


class SpconvBackend:
    """The library spconv 2. Only on a GPU: on the CPU it loses updates when it runs on more than one thread."""

    def __init__(self, *, on_cpu: bool = False) -> None:
        self._on_cpu = on_cpu  # for tests on one thread

    def submanifold(self, x: "SparseTensor", weight: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        options = {"padding": [k // 2 for k in _kernel(weight)], "indice_key": f"{_kernel(weight)}"}
        return _finish(self._run("SubMConv3d", x, weight, bias, options).features, residual, relu)

    def strided(
        self, x: "SparseTensor", weight: Tensor, bias: Tensor | None, stride: Three, padding: Three, residual: Tensor | None, relu: bool
    ) -> tuple[Tensor, Tensor, Three]:
        out = self._run("SparseConv3d", x, weight, bias, {"stride": stride, "padding": padding})
        depth, height, width = out.spatial_shape
        return _finish(out.features, residual, relu), out.indices, (int(depth), int(height), int(width))

    def _run(self, layer: str, x: "SparseTensor", weight: Tensor, bias: Tensor | None, options: dict[str, Any]) -> Any:
        if not (x.features.is_cuda or self._on_cpu):
            raise UsageError("sparse backend: spconv: expected tensors on a GPU (on the CPU it loses updates), got CPU; use native")
        spconv = require_package("spconv.pytorch", extra="cuda", why="sparse backend spconv")
        if len(x.features) == 0:
            return _NoSites(x, weight, options)
        source = spconv.SparseConvTensor(x.features, x.coords, list(x.shape), x.batch_size)
        source.indice_dict = x.tables.setdefault("spconv", {})
        conv = getattr(spconv, layer)(x.features.shape[1], len(weight), _kernel(weight), bias=False, **options)
        del conv.weight
        conv.weight = weight
        out = conv(source)
        return out if bias is None else out.replace_feature(out.features + bias)


class _NoSites:
    """spconv's answer to an empty tensor, which it refuses itself."""

    def __init__(self, x: "SparseTensor", weight: Tensor, options: dict[str, Any]) -> None:
        self.features, self.indices = x.features.new_zeros((0, len(weight))), x.coords
        stride, padding = options.get("stride", (1, 1, 1)), options["padding"]
        axes = zip(x.shape, _kernel(weight), stride, padding, strict=True)
        self.spatial_shape = [(n + 2 * p - k) // s + 1 for n, k, s, p in axes]


BACKENDS: dict[str, Backend] = {"native": NativeBackend(), "dense": DenseBackend(), "spconv": SpconvBackend()}


def backend_of(x: "SparseTensor") -> Backend:
    """The backend that a tensor asks for. UsageError where there is none of this name."""
    try:
        return BACKENDS[x.backend]
    except KeyError:
        raise UsageError(f"sparse backend: expected one of {', '.join(BACKENDS)}, got {x.backend!r}") from None


def _kernel(weight: Tensor) -> Three:
    z, y, x = weight.shape[1:4]
    return int(z), int(y), int(x)


def _at(dense: Tensor, coords: Tensor) -> Tensor:
    """Features (N, C) of (B, C, Z, Y, X) at coords (N, 4)."""
    b, z, y, x = coords.long().unbind(dim=1)
    return dense.movedim(1, 4)[b, z, y, x]


def _finish(features: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    features = features if residual is None else features + residual
    return F.relu(features) if relu else features
