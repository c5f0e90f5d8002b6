"""The tensors of a foreign weight file (`.pth` of any torch, `.safetensors`), read as untrusted data."""

import hashlib
import tarfile
import warnings
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.core.errors import CheckpointError, shown
from perception.detection.checkpoints.pickles import (
    MAX_PICKLE_BYTES,
    TENSOR_NAMES,
    TRAINER_NAMES,
    names_in_legacy_file,
    names_in_pickle,
)

MAX_BYTES = 2 << 30  # published files have 23 to 120 MB
_MAX_RECORDS = 100_000
_LONGEST_NAME = 300
_STATE_KEYS = ("state_dict", "model_state", "model_state_dict", "model")  # det3d and mmdet3d, OpenPCDet, others
_ZIP, _LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0a"


@dataclass(frozen=True)
class Source:
    """A weight file as found: names and tensors of its state dict (CPU), nothing renamed.

    meta     plain texts and numbers that the trainer wrote beside the weights (epoch, versions), for messages and metadata
    skipped  names of Python objects in the file that were not opened
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    meta: dict[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def read_source(path: Path) -> Source:
    """The state dict in a file. Nothing in the file is executed, and no more memory is used than a few times its size.

    Raises CheckpointError, one line, for a missing, empty, cut short or corrupt file, one with Python objects other than tensors and
    known leftovers of trainers (all are named), a zip archive that unpacks to more than it holds, and one without a state dict.
    """
    path = Path(path)
    data = _read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if data.startswith((_ZIP, _LEGACY)):
        content, skipped = _read_pth(data, str(path))
    elif tensors := _read_safetensors(data, path):
        content, skipped = tensors, ()
    else:
        raise CheckpointError(f"{path}: expected a .pth file of torch.save or a .safetensors file, got {shown(data[:8])} at its start")
    tensors, meta = _state_dict(content, str(path))
    return Source(path=path, sha256=digest, tensors=tensors, meta=meta, skipped=skipped)


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a weight file, got {error.strerror}") from None
    if not data:
        raise CheckpointError(f"{path}: expected a weight file, got an empty one; copy it again")
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{path}: expected at most {MAX_BYTES >> 30} GiB, got more; is it a checkpoint of one model?")
    return data


def _read_pth(data: bytes, where: str) -> tuple[Any, tuple[str, ...]]:
    """What torch.save wrote, with inert stand-ins for objects of the trainer, and the names of those."""
    if data.startswith(_ZIP):
        names = names_in_pickle(_checked_archive(data, where), where=where)
    else:
        if tarfile.is_tarfile(BytesIO(data)):  # torch would unpack it
            raise CheckpointError(f"{where}: expected a file of torch.save, got a tar archive; refused unopened")
        names = names_in_legacy_file(data, where=where)
    if foreign := sorted(names - TENSOR_NAMES - TRAINER_NAMES):
        raise CheckpointError(_foreign_message(where, foreign))
    skipped = tuple(sorted(names & TRAINER_NAMES))
    try:
        with torch.serialization.safe_globals([(_StandIn, name) for name in skipped]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about storages of old files
            content = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    # torch reports a broken file by whatever its parser stumbled over.
    except Exception as error:  # noqa: BLE001
        reason = (str(error).split("\n")[0] or type(error).__name__)[:160]
        raise CheckpointError(f"{where}: expected a complete file of torch.save, got a broken one ({reason}); copy it again") from None
    return content, skipped


class _StandIn:
    """Takes the place of any object of a trainer: accepts every argument and every state, keeps none."""

    def __new__(cls, *_: Any) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _foreign_message(where: str, foreign: list[str]) -> str:
    listed = ", ".join(foreign[:8]) + (f" and {len(foreign) - 8} more" if len(foreign) > 8 else "")
    return (
        f"{where}: expected tensors and plain values, got Python objects: {listed}; refused unopened. If you know who wrote the file, keep "
        f"its weights alone, on a machine that may run it: python -c \"import torch; c = torch.load('IN.pth', weights_only=False, "
        f"map_location='cpu'); torch.save({{'state_dict': c['state_dict']}}, 'OUT.pth')\""
    )


def _checked_archive(data: bytes, where: str) -> bytes:
    """The pickle in a zip archive of torch.save, after the archive's sizes and checksums were found right."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = archive.infolist()
            pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or any(entry.filename.endswith("/constants.pkl") for entry in entries):
                raise CheckpointError(f"{where}: expected a file of torch.save with one data.pkl, got another archive (TorchScript, zip)")
            if len(entries) > _MAX_RECORDS or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise CheckpointError(f"{where}: expected the plain records that torch.save writes, got packed or countless ones; refused")
            if sum(entry.file_size for entry in entries) > len(data):
                raise CheckpointError(f"{where}: expected records that fit the file of {len(data)} bytes, got larger ones; refused")
            if pickles[0].file_size > MAX_PICKLE_BYTES:
                raise CheckpointError(f"{where}: expected at most {MAX_PICKLE_BYTES >> 20} MiB of structure, got {pickles[0].file_size} B")
            if (broken := archive.testzip()) is not None:
                raise CheckpointError(f"{where}: {shown(broken)}: its checksum does not fit; the file is damaged, copy it again")
            return archive.read(pickles[0])
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{where}: expected a complete file of torch.save, got a broken archive ({error}); copy it again") from None


def _read_safetensors(data: bytes, path: Path) -> dict[str, Tensor] | None:
    """The tensors of a safetensors file, or None where the data does not begin like one."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if data[8:9] != b"{":
        return None
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: expected a complete safetensors file, got a broken one ({error}); copy it again") from None


def _state_dict(content: Any, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict, bare or wrapped, and the plain values beside it."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: expected a state dict, got {type(content).__name__}")
    wrapper = next((key for key in _STATE_KEYS if isinstance(content.get(key), dict)), None)
    state = content if wrapper is None else content[wrapper]
    # Names are printed: none may hold control characters or fill the screen.
    if not state or not all(isinstance(key, str) and key.isprintable() and len(key) <= _LONGEST_NAME for key in state):
        raise CheckpointError(f"{where}: expected a state dict (names and tensors), got {len(state)} entries; keys: {shown(list(state))}")
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{where}: expected tensors only in the state dict, got {len(others)} other values: {', '.join(map(shown, others[:6]))}; "
            f"known wrappers: {', '.join(_STATE_KEYS)}"
        )
    for key, tensor in state.items():
        # A tensor with strides of 0 claims more numbers than the file holds; copying it would fill the memory.
        if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{where}: {shown(key)}: expected a plain tensor, got {tensor.numel()} numbers of which the file has less"
            )
    beside = {} if wrapper is None else {key: value for key, value in content.items() if key != wrapper}
    return {key: tensor.detach() for key, tensor in state.items()}, _plain(beside)


def _plain(beside: dict[Any, Any]) -> dict[str, str]:
    """Short plain values beside the weights, one level deep: `epoch`, `meta.epoch`, `meta.mmdet3d_version`, ..."""
    found: dict[str, str] = {}
    nested = [("", beside)] + [(f"{key}.", value) for key, value in beside.items() if key == "meta" and isinstance(value, dict)]
    for prefix, values in nested:
        for key, value in values.items():
            text = f"{prefix}{key}", str(value)
            if isinstance(key, str) and isinstance(value, (str, int, float)) and all(t.isprintable() and len(t) <= 100 for t in text):
                found[text[0]] = text[1]
    return found
