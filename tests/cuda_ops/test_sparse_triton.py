"""The Triton kernels of sparse convolutions without a GPU: run by Triton's interpreter, and compiled for GPUs that are not here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cuda_ops import sparse_torch
from tests.cuda_ops.test_sparse_conv import random_layer, random_table

triton = pytest.importorskip("triton", reason="Triton is not installed")
ROOT = Path(__file__).resolve().parents[2]

# (inputs, outputs, kernel, c_in, c_out)
SHAPES = {
    "stem": (150, 200, (1, 3, 3), 5, 16),
    "one of each": (1, 1, (1, 1, 1), 1, 1),
    "several blocks of channels": (70, 90, (3, 1, 1), 130, 140),
    "wider in than out": (40, 30, (1, 1, 2), 48, 3),
    "no inputs": (0, 10, (1, 1, 2), 4, 4),
    "no outputs": (10, 0, (1, 1, 2), 4, 4),
}
DTYPES = {"float32": torch.float32, "float16": torch.float16}  # the interpreter multiplies the bits of bfloat16 as integers


def make_case(name, dtype):
    num_inputs, num_outputs, kernel, c_in, c_out = SHAPES[name]
    rng = np.random.default_rng(len(name))
    table = random_table(rng, num_outputs, num_inputs, int(np.prod(kernel)))
    layer = [torch.from_numpy(array).to(dtype) for array in random_layer(rng, table, num_inputs, c_in, c_out, kernel)]
    none = table < 0
    table[none] = rng.choice([-1, -7, num_inputs, 2**31 - 1], none.sum())  # out of range: none
    features, weight, bias, residual = layer
    return features, weight.reshape(c_out, table.shape[1], c_in), torch.from_numpy(table), bias, residual


def run_cases(cases, results):
    """Run the kernels on the cases of one file and write what they give to another."""
    from cuda_ops import sparse_triton

    sparse_triton._ROWS_OF_PARTIAL = 50  # several partial sums, which end inside of a block of rows
    found = {
        name: [
            sparse_triton.sparse_conv(features, weight, table, bias, residual, True),
            sparse_triton.sparse_conv(features, weight, table, None, None, False),
            *sparse_triton.sparse_conv_weight_gradient(features, residual, table),
        ]
        for name, (features, weight, table, bias, residual) in torch.load(cases, weights_only=True).items()
    }
    torch.save(found, results)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Results of the kernels for every case, from a process of its own: whether to interpret is decided when the module is imported."""
    folder = tmp_path_factory.mktemp("interpreted")
    torch.save({f"{name}, {dtype}": make_case(name, kind) for name in SHAPES for dtype, kind in DTYPES.items()}, folder / "cases.pt")
    code = "import sys; from tests.cuda_ops.test_sparse_triton import run_cases; run_cases(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(folder / "cases.pt"), str(folder / "results.pt")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, check=True, env=environment, cwd=ROOT)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_interpreted_kernels_equal_float64(interpreted, name, dtype):
    features, weight, table, bias, residual = (
        tensor.double() if tensor.is_floating_point() else tensor for tensor in make_case(name, DTYPES[dtype])
    )
    expected = [
        sparse_torch.sparse_conv(features, weight, table, bias, residual, True),
        sparse_torch.sparse_conv(features, weight, table, None, None, False),
        *sparse_torch.sparse_conv_weight_gradient(features, residual, table),
    ]
    for ours, exact in zip(interpreted[f"{name}, {dtype}"], expected, strict=True):
        assert ours.dtype == DTYPES[dtype]
        assert ours.shape == exact.shape
        # In norm: sums are float32, results are rounded once to the dtype.
        assert (ours.double() - exact).norm() <= 4 * torch.finfo(DTYPES[dtype]).eps * exact.norm()


INSTRUCTIONS = re.compile(r"\b(?:mma\.|wgmma\.mma_async\.|atom\.|red\.)\S+")


@pytest.mark.parametrize(("arch", "c_in", "c_out"), [(80, 5, 16), (90, 64, 64)])
@pytest.mark.parametrize(("number", "size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_kernels_compile_without_atomics_and_multiply_as_they_should(monkeypatch, tmp_path, arch, c_in, c_out, number, size):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from cuda_ops import sparse_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    cuts = (sparse_triton.blocks_for(c_in, c_out, size), sparse_triton.gradient_blocks_for(c_in, c_out))
    for kernel, blocks in zip((sparse_triton._convolve, sparse_triton._differentiate), cuts, strict=True):
        constants = {"offsets": 27, "c_in": c_in, "c_out": c_out, "has_bias": True, "has_residual": True, "relu": True, "tiles_in": 1}
        constants |= {"block_rows": blocks.rows, "block_in": blocks.c_in, "block_out": blocks.c_out}
        types = {"table": "*i32", "sums": "*fp32", "num_inputs": "i32", "num_outputs": "i32", "rows_of_partial": "i32"}
        signature = {name: "constexpr" if name in constants else types.get(name, "*" + number) for name in kernel.arg_names}
        constants = {name: constants[name] for name in kernel.arg_names if name in constants}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        options = {"num_warps": blocks.warps, "enable_fp_fusion": True}
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
        found = set(INSTRUCTIONS.findall(compiled.asm["ptx"]))
        if number == "fp32":
            assert found == set()  # no atomics, and no tensor cores: those would round to tf32
        else:
            kind = number.replace("fp", "f")
            assert found  # nothing but products of halves with sums in float32
            assert all(re.search(rf"mma.*\.f32\.{kind}\.{kind}", name) for name in found), found
        assert "ld.global" in compiled.asm["ptx"]
