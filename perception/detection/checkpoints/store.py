"""Our own weight files: safetensors with one entry of metadata that says where the numbers come from."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.core.errors import CheckpointError, shown
from perception.core.files import write_bytes

_KEY = "perception"  # one entry, because safetensors writes several in any order, and equal input shall give equal files
_FORMAT = 1
_MAX_BYTES = 2 << 30


@dataclass(frozen=True)
class Metadata:
    """What a weight file of ours says about itself.

    config, config_name   the resolved configuration of the network (JSON object) and the file that it came from
    layout, convention    code base that wrote the source, and what its boxes and layers meant there; `perception` for our own training
    sparse                layout of the source's sparse weights, or `none`
    notes                 decisions of the conversion, one line each
    source_name, source_sha256, source_says   the file converted: its name, hash, and the plain values beside its weights (epoch, versions)
    converter             version of this library
    tensors_sha256        of names, shapes and numbers, checked by `load`
    """

    config: dict[str, Any]
    config_name: str
    layout: str
    convention: str
    sparse: str
    notes: tuple[str, ...]
    source_name: str
    source_sha256: str
    source_says: dict[str, str]
    converter: str
    tensors_sha256: str = ""
    format: int = field(default=_FORMAT)


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Metadata) -> Metadata:
    """Write a weight file, completely or not at all. Equal arguments give equal bytes. Returns the metadata with the tensors' hash."""
    from safetensors.torch import save as to_bytes

    ordered = {name: tensors[name].detach().clone(memory_format=torch.contiguous_format) for name in sorted(tensors)}
    metadata = dataclasses.replace(metadata, tensors_sha256=_digest(ordered))
    text = json.dumps(dataclasses.asdict(metadata), sort_keys=True, allow_nan=False)
    write_bytes(Path(path), to_bytes(ordered, {_KEY: text}))
    return metadata


def load(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    """The state dict of a weight file of ours, ready for `load_state_dict(strict=True)`, and its metadata.

    Raises CheckpointError for a missing, cut short or changed file and for one that `convert` did not write.
    """
    path = Path(path)
    tensors, metadata = read_own(path)
    if metadata is None:
        raise CheckpointError(f"{path}: expected a weight file of perception, got another one; convert it: perception checkpoint convert")
    if _digest(tensors) != metadata.tensors_sha256:
        raise CheckpointError(f"{path}: its numbers do not fit their checksum; the file is damaged, convert it again")
    return tensors, metadata


def shrunk(source: Path, out: Path) -> tuple[int, int]:
    """Write a weight file anew with its matrices and kernels in float16; vectors, such as statistics, stay as they are.

    Returns the bytes of both files. Raises CheckpointError for a file that is none of ours and for a number that float16 has not.
    """
    tensors, metadata = load(source)
    smaller = {name: tensor.half() if tensor.ndim > 1 and tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if lost := [name for name, tensor in smaller.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise CheckpointError(f"{source}: {lost[0]}: expected numbers up to 65504, the largest that 16 bits hold, got a larger one")
    save(out, smaller, metadata)
    return Path(source).stat().st_size, Path(out).stat().st_size


def read_own(path: Path) -> tuple[dict[str, Tensor], Metadata | None]:
    """Tensors and metadata of a safetensors file, None where it is not of ours; the checksum is not looked at."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{path}: expected at most {_MAX_BYTES >> 30} GiB, got more; is it a checkpoint of one model?")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            text = (file.metadata() or {}).get(_KEY)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a weight file, got {error.strerror or error}") from None
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: expected a complete .safetensors file, got something else or a part of one ({error}); a .pth file is converted first"
        ) from None
    return tensors, None if text is None else _parse(text, path)


def _parse(text: str, path: Path) -> Metadata:
    try:
        values = json.loads(text)
        if values["format"] != _FORMAT:
            raise CheckpointError(f"{path}: expected weight format {_FORMAT}, got {shown(values['format'])}; convert it with this version")
        values["notes"] = tuple(values["notes"])
        metadata = Metadata(**values)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata is broken ({error}); convert it again") from None
    if not isinstance(metadata.config, dict) or not isinstance(metadata.source_says, dict):
        raise CheckpointError(f"{path}: its metadata is broken (no objects); convert it again")
    return metadata


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
