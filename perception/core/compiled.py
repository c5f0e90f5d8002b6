"""numba's compiler for inner loops, with a cache on disk where there is a place for one."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*signature: Any, **options: Any) -> Callable[[Function], Function]:
    """`numba.njit(*signature, cache=True, **options)`; without the cache where neither the package's folder nor the home can be written.

    So it is in a container that runs as a user of its own. Loops are then compiled anew in each process.
    """

    def compile_it(function: Function) -> Function:
        try:
            return numba.njit(*signature, cache=True, **options)(function)  # pyright: ignore[reportReturnType]
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(*signature, **options)(function)  # pyright: ignore[reportReturnType]

    return compile_it
