"""What the tests of the operators share."""

import zlib
from typing import Any

import pytest

from cuda_ops import _cpu  # type: ignore[attr-defined]  # compiled

EMULATED = getattr(_cpu, "emulated", False)  # the CUDA bodies run in the place of the CPU's: `make emulate`


def _skip_without_body(name: str) -> Any:
    """What `_cpu` gives where it lacks a function: an operator without a CUDA body skips the tests that call it."""
    if name.startswith("_"):
        raise AttributeError(name)
    return lambda *_: pytest.skip(f"emulated CUDA: {name} has no CUDA body", allow_module_level=True)


if EMULATED:
    _cpu.__getattr__ = _skip_without_body


@pytest.fixture(autouse=True)
def _schedule(request: pytest.FixtureRequest) -> None:
    """Under the emulation, each test sees orders of threads of its own, the same in every run."""
    if EMULATED:
        _cpu.set_schedule(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def cuda_device():
    """A CUDA device that the operators can use; skips, with the reason, where there is none."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device, or a torch without CUDA")
    from cuda_ops import arrays

    arrays.cuda_module()  # a GPU without the compiled part is an error, not a reason to skip
    return torch.device("cuda")
