"""What a run knows of itself: run.json when it is finished, and until then a record that `resume` goes on from."""

import contextlib
import hashlib
import json
import platform
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

import perception
from perception.core.errors import DataError, UsageError, shown
from perception.core.files import remove_partial, write_bytes
from perception.export import SCHEMA_VERSION
from perception.pipeline.exporters import remove_results

ASIDE = ".unfinished-perception-run"  # folder in a run's folder, gone when all drives are finished; nobody else has one of that name


@dataclass
class Counts:
    """What a run saw and wrote."""

    drives: int = 0
    frames: int = 0
    detections: int = 0
    tracks: int = 0
    boxes_written: int = 0
    frames_missing: int = 0
    samples_foreign: int = 0

    def add(self, other: "Counts") -> None:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


@dataclass(frozen=True)
class Identity:
    """What the results of a run depend on; a run is resumed only where all of it is the same.

    command  "track", "detect" or "run"
    config   the resolved configuration
    inputs   what is read, by name and hash
    drives   names of all drives, in order
    """

    command: str
    config: dict[str, Any]
    inputs: dict[str, Any]
    drives: list[str]

    @property
    def config_hash(self) -> str:
        """First 16 hex digits of the BLAKE2b hash of the configuration."""
        return hashlib.blake2b(json.dumps(self.config, sort_keys=True).encode(), digest_size=8).hexdigest()

    def to_json(self) -> dict[str, Any]:
        versions = {"perception": perception.__version__, "python": platform.python_version(), "numpy": np.__version__}
        text = json.dumps({"command": self.command, "versions": versions, "config": self.config, "inputs": self.inputs})
        return json.loads(text)  # as it reads back: lists for tuples, texts for keys


@dataclass
class Record:
    """The state of a run, kept in its folder.

    by_drive    of each finished drive its counts and a hash of its frames (tokens, times, poses)
    failed      name -> what went wrong with a drive
    earlier     seconds per stage of the calls before this one
    call        of this one, a dict that grows
    started_us  when each finished drive was begun; like the seconds no two runs share it
    """

    out: Path
    identity: Identity
    by_drive: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    earlier: dict[str, float] = field(default_factory=dict)
    call: dict[str, float] = field(default_factory=dict)
    started_us: dict[str, int] = field(default_factory=dict)
    is_complete: bool = False

    @classmethod
    def start(cls, out: Path, identity: Identity) -> "Record":
        """A run from the beginning; what an earlier one left goes, and until the new one is finished the folder holds no finished run.

        Raises UsageError where run.json is a file of something else.
        """
        _remove_results(out)
        shutil.rmtree(out / ASIDE, ignore_errors=True)
        remove_partial(out)
        record = cls(out, identity)
        record.save()
        return record

    @classmethod
    def resume(cls, out: Path, identity: Identity) -> "Record | None":
        """The state that an earlier call with the same identity left in the folder, or None where there is none.

        Raises UsageError with the first thing that differs.
        """
        path, is_complete = out / ASIDE / "record.json", False
        if not path.is_file():
            path, is_complete = out / "run.json", True
        if not path.is_file():
            return None
        old = _read(path)
        if difference := _first_difference(_compared(old), _compared(identity.to_json() | {"drives": identity.drives})):
            raise UsageError(f"{out}: this run cannot be resumed: {difference}; leave out --resume to start over")
        if is_complete:  # killed while it cleared up
            shutil.rmtree(out / ASIDE, ignore_errors=True)
        remove_partial(out)
        return cls(out, identity, old["by_drive"], {}, old["seconds"], {}, old["started_us"], is_complete)

    def finish_drive(self, drive: str, counts: Counts, frames_hash: str, started_us: int) -> None:
        """Note that the files of a drive are there."""
        self.started_us[drive] = started_us
        self.by_drive[drive] = asdict(counts) | {"frames_hash": frames_hash}
        self.save()

    def save(self) -> None:
        """Write the record of an unfinished run."""
        self._write(self.out / ASIDE / "record.json", self.identity.drives)

    def finish(self, counts: Counts) -> None:
        """Write run.json. What the unfinished run needed goes, unless drives failed and may be tried again."""
        self._write(self.out / "run.json", self.finished, counts)
        if not self.failed:
            (self.out / ASIDE / "record.json").unlink(missing_ok=True)  # first: without it nobody looks at the rest
            shutil.rmtree(self.out / ASIDE, ignore_errors=True)

    @property
    def seconds(self) -> dict[str, float]:
        """Per stage, of all calls."""
        return {stage: self.earlier.get(stage, 0.0) + self.call.get(stage, 0.0) for stage in {**self.earlier, **self.call}}

    @property
    def finished(self) -> list[str]:
        """Names of the finished drives, in the run's order."""
        return [name for name in self.identity.drives if name in self.by_drive]

    @property
    def counts(self) -> Counts:
        """Of all finished drives."""
        total, names = Counts(), [item.name for item in fields(Counts)]
        for name in self.finished:
            total.add(Counts(**{key: self.by_drive[name][key] for key in names}))
        return total

    def _write(self, path: Path, drives: list[str], counts: Counts | None = None) -> None:
        info = {"schema_version": SCHEMA_VERSION, **self.identity.to_json(), "config_hash": self.identity.config_hash, "drives": drives}
        info |= {"failed": self.failed, "counts": asdict(counts or self.counts)}
        info |= {"by_drive": {name: self.by_drive[name] for name in self.finished}}
        info |= {"seconds": {stage: round(value, 3) for stage, value in self.seconds.items()}}
        info |= {"started_us": {name: self.started_us[name] for name in self.finished}}
        write_bytes(path, json.dumps(info, indent=2).encode() + b"\n")


def named_hash(path: Path) -> dict[str, str]:
    """A file among the inputs: its name, and the BLAKE2b hash of its content (32 hex digits)."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"name": path.name, "blake2b": digest.hexdigest()}


# what is known of a finished drive
_COUNTS: dict[str, Any] = {item.name: (int, ...) for item in fields(Counts)}
_Drive = create_model("_Drive", __config__=ConfigDict(strict=True), frames_hash=(str, ...), **_COUNTS)


class _Info(BaseModel, strict=True, extra="allow"):
    """What is read again of a record."""

    schema_version: int
    versions: dict[str, Any]
    config: dict[str, Any]
    inputs: dict[str, Any]
    by_drive: dict[str, _Drive]  # pyright: ignore[reportInvalidTypeForm]
    seconds: dict[str, float]
    started_us: dict[str, int]


def _read(path: Path) -> dict[str, Any]:
    """The record in a file; DataError where it is none."""
    try:
        info = json.loads(path.read_bytes())
        _Info.model_validate(info)
        return info
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        reason = f"{place}: {error.errors()[0]['msg']}" if place else "one of another form"
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__} {error}"
    raise DataError(f"{path}: expected the record of a run, got {reason}; move it away and leave out --resume to start over")


def _remove_results(out: Path) -> None:
    """What an earlier run left in its folder: run.json, the submissions, and the files of the drives that it names."""
    path, names = out / "run.json", set[str]()
    if path.exists():
        try:
            names = set(_read(path)["by_drive"])
        except DataError:
            raise UsageError(f"{out}: expected a new folder or that of a run, but its run.json is none; choose another --out") from None
        path.unlink()
    with contextlib.suppress(DataError):
        names |= set(_read(out / ASIDE / "record.json")["by_drive"])
    remove_results(out, names)


def _compared(info: dict[str, Any]) -> dict[str, Any]:
    """What two calls of one run have in common. Other versions of Python and NumPy give the same, as far as anybody knows."""
    return {key: info.get(key) for key in ("command", "config", "inputs", "drives")} | {
        "versions": {"perception": info.get("versions", {}).get("perception")}
    }


def _first_difference(was: Any, now: Any, path: str = "") -> str:
    """The first place where two values of JSON differ, in words; file names do not count, their hashes do."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            if key == "name" and "blake2b" in now:
                continue
            if difference := _first_difference(was.get(key), now.get(key), f"{path}.{key}" if path else key):
                return difference
        return ""
    if was == now:
        return ""
    if isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            return f"{path} was {len(was)} entries, is now {len(now)}"
        i = next(i for i, (a, b) in enumerate(zip(was, now, strict=True)) if a != b)
        was, now, path = was[i], now[i], f"{path}[{i}]"
    return f"{path} was {shown(was)}, is now {shown(now)}"
