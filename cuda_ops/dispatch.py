"""How a public function reaches its body: directly with NumPy arrays, through `torch.ops.cuda_ops` with tensors."""

from collections.abc import Callable
from typing import Any

from cuda_ops.arrays import is_tensor


def dispatch(name: str, body: Callable[..., Any], *arguments: Any) -> Any:
    """body(*arguments), or the registered operator `name` where one of the arguments is a torch tensor.

    Through the registered operator the call can be traced, compiled and differentiated (see `cuda_ops.torch_ops`).
    """
    if not any(is_tensor(argument) for argument in arguments):
        return body(*arguments)
    from cuda_ops.torch_ops import registered

    return registered(name)(*arguments)
