"""How a public function reaches its body: directly with NumPy arrays, through `torch.ops.cuda_ops` with tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cuda_ops.arrays import is_tensor


def dispatch(name: str, body: Callable[..., Any], *arguments: Any) -> Any:
    """body(*arguments), or the registered operator `name` where one of the arguments is a torch tensor.

    Through the registered operator the call can be traced, compiled and differentiated (see `cuda_ops.torch_ops`). Raises ValueError
    where tensors and arrays are mixed.
    """
    tensors = [argument for argument in arguments if is_tensor(argument)]
    if not tensors:
        return body(*arguments)
    if any(isinstance(argument, np.ndarray) for argument in arguments):
        raise ValueError(f"{name}: expected only torch tensors beside one on {tensors[0].device}, got a NumPy array; use torch.from_numpy")
    from cuda_ops.torch_ops import registered

    return registered(name)(*arguments)
