"""Exceptions that the library raises on purpose; the command line turns each into one line and its exit code.

A message says where, what was expected, what was found, and what to do.
"""

import re
from importlib import import_module
from types import ModuleType
from typing import Any

# It is not on PyPI; its build asks for torch, which an isolated one does not see, and for a module that setuptools 81 lost.
DETECTRON2_COMMAND = (
    "pip install 'setuptools<81' wheel && pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"
)


def torchvision_command(torch: str) -> str:
    """The command that installs the torchvision that belongs to a torch, whose version says "2.13.0+cpu": 0.28, built likewise.

    Each minor version of torch has one of torchvision, 15 higher. Beside a torch of another build its operators are missing.
    """
    version, _, build = torch.partition("+")
    match = re.match(r"2\.(\d+)", version)
    wanted = f"torchvision==0.{int(match[1]) + 15}.*" if match else "torchvision"
    index = f" --index-url https://download.pytorch.org/whl/{build}" if re.fullmatch(r"cpu|cu\d+|rocm[\d.]+", build) else ""
    return f"pip install '{wanted}'{index}"


class PerceptionError(Exception):
    """An expected failure: the message is for the user, no traceback needed."""

    exit_code = 1


class UsageError(PerceptionError, ValueError):
    """The call cannot be carried out as asked: unknown option, split or class, impossible configuration."""

    exit_code = 2


class DataError(PerceptionError, ValueError):
    """Data is missing, cut short or contradicts itself."""

    exit_code = 3


class CheckpointError(PerceptionError, ValueError):
    """A weight file does not fit the network."""

    exit_code = 4


class MissingPackage(UsageError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


def require_package(module: str, *, extra: str, why: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Raises MissingPackage where the module, or something that it needs itself, cannot be imported.
    """
    try:
        return import_module(module)
    except Exception as error:  # a broken binary fails with OSError, the devkit with unittest.SkipTest
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingPackage(
            f"{why} needs {module.split('.')[0]} ({reason}); install it with: pip install 'perception[{extra}]'"
        ) from error


def shown(value: Any) -> str:
    """A value on one line, at most 60 characters, for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest_hint(name: str, known: list[str] | tuple[str, ...]) -> str:
    """`"; did you mean 'car'?"` for a misspelt name, or nothing where no known name is close."""
    import difflib

    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
