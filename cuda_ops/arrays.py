"""Where the arrays of one call live: NumPy, torch on the CPU or torch on a GPU; the same kind goes out that came in.

`space_of` looks at the arguments of an operator and gives the `Space` that checks them, makes the results and calls the compiled body.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from cuda_ops import _cpu  # type: ignore[attr-defined]  # compiled

_POOLED = 1 << 16  # bytes; smaller results come from NumPy itself


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def plain(value: Any) -> Any:
    """A number of NumPy as Python's own; whatever else as it is."""
    return value.item() if isinstance(value, np.generic) else value


_is_forked = False  # OpenMP's threads do not live on in a child: what waits for them waits for ever


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def num_threads() -> int:
    """Threads of the CPU bodies: torch.get_num_threads() where torch is loaded, else OMP_NUM_THREADS or all cores; 1 in a forked child."""
    if _is_forked:
        return 1
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None and hasattr(torch, "get_num_threads") else _cpu.default_num_threads()


@dataclass(frozen=True)
class NumpySpace:
    """NumPy arrays, worked on by the CPU bodies."""

    on_gpu = False

    def take(self, name: str, value: Any, shape: Sequence[int | str | None], *dtypes: str) -> np.ndarray:
        """`value` as a contiguous array of dtypes[0]; the other dtypes are converted to it. Raises ValueError with expected and got.

        shape  a number for a length that must hold, a text (its name in the message) for any length
        An int64 that is taken as int32 is clamped, so that an index out of every range stays one.
        """
        array = np.asarray(value)
        if array.size == 0 and array.dtype == np.float64 and not isinstance(value, np.ndarray):
            array = array.astype(dtypes[0])  # [] has no dtype of its own
        if array.dtype != dtypes[0]:  # the name of a dtype takes longer than all else here
            _expect_dtype(name, str(array.dtype), dtypes)
        _expect_shape(name, array.shape, shape)
        if dtypes[0] == "int32" and array.dtype == np.int64:
            array = array.clip(-(2**31), 2**31 - 1)
        array = np.ascontiguousarray(array, dtype=dtypes[0])
        return array if array.flags.aligned else array.copy()  # from a buffer that began anywhere

    def take_strided(self, name: str, value: Any, shape: Sequence[int | str | None], *dtypes: str) -> tuple[np.ndarray, tuple[int, ...]]:
        """`value` of one of the dtypes where it lies, and its strides in elements. Copied only where they are no whole numbers."""
        array = np.asarray(value)
        _expect_dtype(name, str(array.dtype), dtypes)
        _expect_shape(name, array.shape, shape)
        if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
            array = np.ascontiguousarray(array)
        return array, tuple(stride // array.itemsize for stride in array.strides)

    def empty(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        """Undefined content; large ones reuse memory of earlier results that are gone."""
        count, kind = int(np.prod(shape, dtype=np.int64)), np.dtype(dtype)
        if count * kind.itemsize < _POOLED:
            return np.empty(shape, kind)
        return _cpu.pooled_bytes(count * kind.itemsize).view(kind).reshape(shape)

    def zeros(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)

    def full(self, shape: Sequence[int], value: int, dtype: str) -> np.ndarray:
        return np.full(shape, value, dtype)

    def numbers(self, array: np.ndarray) -> list[int]:
        """The values of a small array of integers."""
        return array.tolist()

    def call(self, name: str, *arguments: Any) -> Any:
        """Run the compiled body `name`; arrays travel as addresses, None as null."""
        return getattr(_cpu, name)(*[_address(a) if isinstance(a, np.ndarray) else 0 if a is None else a for a in arguments], num_threads())


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@dataclass(frozen=True)
class TorchSpace:
    """torch tensors of one device, worked on by the CPU bodies or, on a GPU, by the CUDA bodies on the caller's stream."""

    device: Any  # torch.device

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def take(self, name: str, value: Any, shape: Sequence[int | str | None], *dtypes: str) -> Any:
        """As NumpySpace.take. The result is detached: gradients are the business of torch_ops."""
        _expect_dtype(name, str(value.dtype).removeprefix("torch."), dtypes)
        _expect_shape(name, tuple(value.shape), shape)
        value = value.detach()
        if dtypes[0] == "int32" and value.dtype == _dtype("int64"):
            value = value.clamp(-(2**31), 2**31 - 1)
        value = value.to(_dtype(dtypes[0])).contiguous()
        return value.clone() if value.data_ptr() % value.element_size() else value

    def take_strided(self, name: str, value: Any, shape: Sequence[int | str | None], *dtypes: str) -> tuple[Any, tuple[int, ...]]:
        """As NumpySpace.take_strided; never copied."""
        _expect_dtype(name, str(value.dtype).removeprefix("torch."), dtypes)
        _expect_shape(name, tuple(value.shape), shape)
        value = value.detach()
        return value, tuple(value.stride())

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        torch = sys.modules["torch"]
        if not self.on_gpu and dtype != "bfloat16":  # which NumPy does not know
            return torch.from_numpy(NumpySpace().empty(shape, dtype))
        return torch.empty(tuple(shape), dtype=_dtype(dtype), device=self.device)

    def zeros(self, shape: Sequence[int], dtype: str) -> Any:
        return sys.modules["torch"].zeros(tuple(shape), dtype=_dtype(dtype), device=self.device)

    def full(self, shape: Sequence[int], value: int, dtype: str) -> Any:
        return sys.modules["torch"].full(tuple(shape), value, dtype=_dtype(dtype), device=self.device)

    def numbers(self, array: Any) -> list[int]:
        """The values of a small tensor of integers; on a GPU this waits for everything before it."""
        return array.tolist()

    def call(self, name: str, *arguments: Any) -> Any:
        """Run the compiled body `name`; tensors travel as addresses, None as null."""
        torch = sys.modules["torch"]
        values = [a.data_ptr() if isinstance(a, torch.Tensor) else 0 if a is None else a for a in arguments]
        if not self.on_gpu:
            return getattr(_cpu, name)(*values, num_threads())
        body = getattr(cuda_module(), name, None)
        if body is None:
            raise ValueError(f"{name}: expected tensors on the CPU, got {self.device}: it has no CUDA body yet; call .cpu() first")
        with torch.cuda.device(self.device):
            return body(*values, torch.cuda.current_stream().cuda_stream)


Space = NumpySpace | TorchSpace


def space_of(operator: str, **arrays: Any) -> Space:
    """The space that all `arrays` (None: left out) live in. Raises ValueError where they are of different kinds or devices, or sparse."""
    given = {name: value for name, value in arrays.items() if value is not None}
    tensors = {name: value for name, value in given.items() if is_tensor(value)}
    if not tensors:
        return NumpySpace()
    (first, tensor), *_ = tensors.items()
    for name, value in given.items():
        if name not in tensors:
            raise ValueError(f"{operator}: {name}: expected a torch tensor on {tensor.device} like {first}, got {type(value).__name__}")
        if value.device != tensor.device:
            raise ValueError(f"{operator}: {name}: expected a tensor on {tensor.device} like {first}, got one on {value.device}")
        if str(value.layout) != "torch.strided":
            raise ValueError(f"{operator}: {name}: expected a dense tensor, got one of layout {value.layout}; call .to_dense() first")
    if tensor.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{operator}: {first}: expected a tensor on the CPU or a CUDA device, got one on {tensor.device}")
    if tensor.device.type == "cuda":
        cuda_module()
    return TorchSpace(tensor.device)


def cuda_module() -> ModuleType:
    """The compiled CUDA bodies. Raises ValueError where they were not built."""
    try:
        from cuda_ops import _cuda  # type: ignore[attr-defined]
    except ImportError as error:
        raise ValueError(
            f"cuda_ops: expected tensors on the CPU, because the CUDA part is not built here ({error}); "
            "install with nvcc on the PATH and without PERCEPTION_CUDA=0, or call .cpu() first"
        ) from error
    return _cuda


def expect_rows(name: str, count: int) -> None:
    """Raise ValueError where indices of `count` rows would not fit an int32."""
    if count >= 2**31:
        raise ValueError(f"{name}: expected fewer than 2^31 rows, got {count}; cut it into pieces")


def _dtype(name: str) -> Any:
    return getattr(sys.modules["torch"], name)


def _expect_dtype(name: str, got: str, dtypes: Sequence[str]) -> None:
    if got not in dtypes:
        raise ValueError(f"{name}: expected dtype {' or '.join(dtypes)}, got {got}")


def _expect_shape(name: str, got: Sequence[int], shape: Sequence[int | str | None]) -> None:
    if len(got) != len(shape) or any(isinstance(want, int) and want != have for want, have in zip(shape, got, strict=True)):
        text = ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name}: expected shape ({text}), got {tuple(got)}")
