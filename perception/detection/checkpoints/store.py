"""Our own weight files: safetensors with one entry of metadata that says where the numbers come from."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from perception.core.errors import CheckpointError, shown
from perception.core.files import write_bytes

_KEY = "perception"  # one entry, because safetensors writes several in any order, and equal input shall give equal files
_FORMAT = 1
_MAX_BYTES = 2 << 30
_FACTORS = "#factors"  # behind the name of a tensor of whole numbers: what its rows are to be multiplied by
_FEW = 4096  # numbers, with fewer of which a matrix is not worth a factor for each row


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
    return _multiplied(tensors, path), metadata


def shrunk(source: Path, out: Path, *, bits: Literal[8, 16] = 16) -> tuple[int, int]:
    """Write a weight file anew with its matrices and kernels in float16; vectors, such as statistics, stay as they are.

    bits  8: matrices of at least 4,096 numbers become whole numbers, -127 to 127, with one factor for each of their rows (the first axis:
          what a convolution puts out); `load` multiplies them
    Returns the bytes of both files. Raises CheckpointError for a file that is none of ours and for a number that float16 has not.
    """
    tensors, metadata = load(source)
    smaller: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or not tensor.is_floating_point():
            smaller[name] = tensor
        elif bits == 8 and tensor.numel() >= _FEW:
            smaller[name], smaller[name + _FACTORS] = _whole_numbers(tensor.float())
        else:
            smaller[name] = tensor.half()
    if lost := [name for name, tensor in smaller.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        name = lost[0].removesuffix(_FACTORS)
        raise CheckpointError(f"{source}: {name}: expected numbers up to 65504, the largest that 16 bits hold, got a larger one or none")
    save(out, smaller, metadata)
    return Path(source).stat().st_size, Path(out).stat().st_size


def _whole_numbers(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A float32 tensor as int8 of its shape, and the factor of each row (rows,): that with the least squared error of a few."""
    rows = tensor.flatten(1)
    largest = rows.abs().amax(dim=1).clamp(min=1e-30)
    best, factors = torch.full_like(largest, torch.inf), largest / 127
    for cut in torch.linspace(0.5, 1.0, 26).tolist():
        tried = largest * (cut / 127)
        error = ((rows / tried[:, None]).round().clamp(-127, 127) * tried[:, None] - rows).square().sum(dim=1)
        factors, best = torch.where(error < best, tried, factors), torch.minimum(error, best)
    numbers = (rows / factors[:, None]).round().clamp(-127, 127).to(torch.int8)
    return numbers.view(tensor.shape), factors


def _multiplied(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Tensors of a file, those that `_whole_numbers` made as float32 again."""
    found = {}
    for name, tensor in tensors.items():
        if (factors := tensors.get(name + _FACTORS)) is not None:
            if tensor.ndim < 2 or factors.shape != tensor.shape[:1]:
                raise CheckpointError(f"{path}: {name}: expected a factor for each row of {list(tensor.shape)}, got {list(factors.shape)}")
            found[name] = (tensor.flatten(1).float() * factors[:, None]).view(tensor.shape)
        elif not name.endswith(_FACTORS):
            found[name] = tensor
    return found


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
