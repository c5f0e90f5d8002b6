"""Random numbers of points by their sample's seed and their number in it alone, on any device, whoever else is in the batch.

Counters are mixed by multiplications and shifts. Source of the constants: C. Wellons, hash-prospector, the best 32-bit hash of two rounds.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_STEP = 0x9E3779B9  # from point to point: odd, so that no two of 2^32 points meet
_NUM_VECTORS = 1 << 16


def counters(seeds: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(B,) int32: what `point_bits` takes, of samples with seeds (B,) int64 whose first points are the rows `starts` (B,) of a batch."""
    return ((seeds - starts * _STEP) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def point_bits(rows: Tensor, counter: Tensor) -> Tensor:
    """(N,) int32 random bits of points: their rows (N,) int32 in a batch, and the `counters` of their samples, (N,) or (1,) int32."""
    bits = (rows * _signed(_STEP)).add_(counter)
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 1)):
        bits ^= (bits >> shift) & ((1 << (32 - shift)) - 1)
        if factor != 1:
            bits *= _signed(factor)
    return bits


def evenly(bits: Tensor) -> Tensor:
    """(N,) float32 of 0 <= x < 1 in steps of 2^-16, of the upper half of the bits (N,) int32."""
    return (bits >> 16).to(torch.float32).mul_(2**-16).add_(0.5)


def normal_vectors(bits: Tensor) -> Tensor:
    """(3, N) float32, each normal with deviation 1: one of 65,536 vectors, by the lower half of the bits (N,) int32."""
    return _vectors(bits.device).index_select(1, bits & (_NUM_VECTORS - 1))


@lru_cache(maxsize=8)
def _vectors(device: torch.device) -> Tensor:
    vectors = np.random.default_rng(0).standard_normal((3, _NUM_VECTORS))
    return torch.from_numpy(vectors.astype(np.float32)).to(device)


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number
