"""Files that appear complete or not at all, and paths that stay where they belong."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from perception.core.errors import DataError

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")  # the name that a file of atomic_write has before it has its own


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write into; it gets its name only after all of it is on disk.

    On Linux the file has no name until then (O_TMPFILE), so that kill -9 leaves nothing behind, but for one instant where a file is
    replaced; then, and elsewhere, a hidden `.partial` file stands aside (`remove_partial` removes such). An existing file is replaced in
    one step. Missing folders are made. An exception leaves the old state.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    handle, has_name = _open_nameless(path.parent), False
    if handle is None:
        handle, has_name = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666), True
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not has_name:
                # Any src_dir_fd makes Python call linkat, which follows the link in /proc; plain link() would not.
                link = partial(os.link, f"/proc/self/fd/{file.fileno()}", src_dir_fd=file.fileno(), follow_symlinks=True)
                try:
                    link(path)
                except FileExistsError:  # a link cannot replace a file, a rename can: a name of its own first, for an instant
                    link(aside)
                    has_name = True
        if has_name:
            aside.replace(path)
    except BaseException:
        if has_name:
            aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """`content` at `path`, completely or not at all."""
    with atomic_write(path) as file:
        file.write(content)


def remove_partial(folder: Path) -> None:
    """Remove what `atomic_write` left in a folder and the folders in it when it was killed in the instant between name and place."""
    for path in [*folder.glob(".*.partial"), *folder.glob("*/.*.partial")]:
        if _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


def inside(root: Path, relative: str, *, where: str) -> Path:
    """`root / relative`, refused where the text leaves `root`: absolute, drive letters, `..`, on any system. Links in `root` may lead on.

    where  names the file, table or row that `relative` came from, for the DataError
    """
    # A Windows path sees both separators and drive letters, so that what is refused does not depend on the system.
    windows = PureWindowsPath(relative) if isinstance(relative, str) else None
    if windows is None or not windows.parts or "\0" in relative or windows.anchor or ".." in windows.parts:
        raise DataError(f"{where}: expected a path inside of {root}, got {relative!r}; refused")
    return root / relative


def _open_nameless(folder: Path) -> int | None:
    """A descriptor of a file without a name in `folder`, or None where the system has no such thing."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, flag | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError:  # network and overlay file systems may lack it; real trouble (permissions, space) shows at the named file too
        return None


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
