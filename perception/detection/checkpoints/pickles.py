"""Which Python names a `.pth` file mentions, found without unpickling it.

A pickle is a program: its GLOBAL instructions name functions and classes that the reader would import and call. Reading the
instructions (`pickletools`) runs none of them.
"""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from io import BytesIO

from perception.core.errors import CheckpointError

# What the tensors of a state dict need. Tighter than torch's own list, which holds constructors that allocate what they are asked for.
TENSOR_NAMES = frozenset(
    {
        "_codecs.encode",  # bytes, as protocol 2 spells them
        "builtins.set",
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
    }
    | {f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")}
)
# What trainers leave beside the weights: learning rates as NumPy numbers (one-cycle schedules), the training log, parsed options.
# They are replaced by an empty stand-in, never opened.
TRAINER_NAMES = frozenset(
    {f"numpy.{core}.multiarray.{function}" for core in ("core", "_core") for function in ("scalar", "_reconstruct")}
    | {
        "numpy.ndarray",
        "numpy.dtype",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "builtins.getattr",  # how protocol 2 spells the functions that a HistoryBuffer refers to
        "argparse.Namespace",
        "pathlib.PosixPath",
    }
)
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first of the five pickles of a file that torch < 1.6 wrote
MAX_PICKLE_BYTES = 64 << 20  # of structure, without the numbers of tensors; real files have a megabyte at most
_MAX_INSTRUCTIONS = 4_000_000  # some ten seconds of reading
# Protocol 2, what torch.save writes; other ways to name a class (STACK_GLOBAL, INST, extension codes) do not occur in it.
_UNKNOWN_WAYS = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "REDUCE_EX"})


def names_in_pickle(data: bytes, *, where: str) -> set[str]:
    """The names (`module.name`) that one pickle mentions. Raises CheckpointError for what torch.save does not write."""
    stream = BytesIO(data)
    names, _ = _scan(stream, where)
    return names


def names_in_legacy_file(data: bytes, *, where: str) -> set[str]:
    """The names in the five pickles that begin a file of torch < 1.6: magic number, protocol, system, object, storage keys."""
    stream = BytesIO(data)
    names: set[str] = set()
    for number in range(5):
        found, first = _scan(stream, where)
        names |= found
        if number == 0 and first != LEGACY_MAGIC:
            raise CheckpointError(f"{where}: expected a file of torch.save or safetensors, got another pickle; refused unopened")
    return names


def _scan(stream: BytesIO, where: str) -> tuple[set[str], object]:
    """The names in the next pickle of the stream, and the argument of its first instruction after PROTO."""
    names: set[str] = set()
    first: object = None
    start = stream.tell()
    for count, (code, argument) in enumerate(_instructions(stream, where)):
        if code == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # protocol 2 has Python 2's
            names.add(f"{module}.{name}")
        elif code in _UNKNOWN_WAYS:
            raise CheckpointError(f"{where}: expected the pickle instructions that torch.save writes, got {code}; refused unopened")
        if first is None and code != "PROTO":
            first = argument
        if count > _MAX_INSTRUCTIONS or stream.tell() - start > MAX_PICKLE_BYTES:
            raise CheckpointError(f"{where}: expected at most {MAX_PICKLE_BYTES >> 20} MiB of structure, got more; is it a checkpoint?")
    return names, first


def _instructions(stream: BytesIO, where: str) -> Iterator[tuple[str, object]]:
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument
    except (ValueError, UnicodeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{where}: expected a file of torch.save or safetensors, got broken data ({error}); copy it again") from None
