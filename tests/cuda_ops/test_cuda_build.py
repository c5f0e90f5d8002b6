"""The compiled CUDA part, as far as it can be looked at without a GPU: every kernel of the sources is there for every architecture."""

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cuda_ops import arrays

SOURCES = Path(__file__).resolve().parents[2] / "cuda_ops/src/cuda"
pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="looks at the sources, which an installed wheel does not have")


def kernels_of_sources() -> set[str]:
    """Names of kernels, and of what `for_each` runs, in the .cu files."""
    text = "\n".join(path.read_text() for path in SOURCES.glob("*.cu"))
    functors = re.findall(r"struct (\w+) \{(?:(?!\n\};).)*?__device__ void operator\(\)\(int64_t", text, re.DOTALL)
    return {*functors, *re.findall(r"__global__ void\s+(?:__launch_bounds__\(.*?\)\s+)?(\w+)\(", text)}


@pytest.fixture(scope="module")
def symbols() -> dict[str, str]:
    """The functions in the compiled module, as one text for each architecture."""
    try:
        module = arrays.cuda_module()
    except ValueError:
        pytest.skip("the CUDA part is not built: no nvcc when this was installed")
    program = shutil.which("cuobjdump") or next(
        (str(file.locate()) for file in importlib.metadata.files("nvidia-cuda-cuobjdump") or () if file.name == "cuobjdump"), None
    )
    assert program, "cuobjdump comes with `make install` where there is nvcc"
    dump = subprocess.run([program, "--dump-elf-symbols", str(module.__file__)], check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = {}
    for part in re.split(r"^arch = ", dump, flags=re.MULTILINE)[1:]:
        arch, _, body = part.partition("\n")
        found[arch] = found.get(arch, "") + "\n".join(line for line in body.splitlines() if line.startswith("FUNC"))
    return found


def test_every_kernel_is_compiled_for_every_architecture(symbols):
    kernels = kernels_of_sources()
    assert {"keys_kernel", "MeanOfVoxels", "FillVoxels", "CastRays"} <= kernels
    missing = [(arch, kernel) for arch, text in symbols.items() for kernel in kernels if kernel not in text]
    assert symbols
    assert missing == []


def test_every_cpu_body_of_the_bindings_is_offered_once():
    text = (SOURCES.parent / "cpu/bindings.cpp").read_text()
    offered = re.findall(r'ops::offer\(m, "(\w+)"', text)
    assert len(offered) == len(set(offered))
    assert {"voxelize_mean", "voxelize_hard"} <= set(offered)
