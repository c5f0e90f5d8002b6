"""Class-balanced resampling (CBGS): samples with rare classes come more often.

Source: Zhu et al., Class-balanced Grouping and Sampling for Point Cloud 3D Object Detection; det3d `datasets/nuscenes/nuscenes.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def class_balanced(indices_by_class: Mapping[Any, Sequence[int] | np.ndarray], seed: int) -> np.ndarray:
    """(L,) int64 numbers of samples, class after class: the order is for the caller to shuffle.

    indices_by_class  for each class the samples that hold at least one object of it, each once; a sample may be in several lists

    With S the length of all C lists together, floor(S / C) samples are drawn from each list, with replacement: each class is met as often
    as any other through its own list, and L is about S. Classes without a sample are left out and do not count in C. No samples: (0,).
    Drawn once for a whole training, as published. (det3d writes a tenth for 1 / C whatever classes there are.)
    """
    lists = [np.asarray(indices, np.int64) for indices in indices_by_class.values() if len(indices)]
    rng = np.random.default_rng(seed)
    each = sum(map(len, lists)) // max(len(lists), 1)
    return np.concatenate([np.zeros(0, np.int64), *(rng.choice(indices, each) for indices in lists)])
