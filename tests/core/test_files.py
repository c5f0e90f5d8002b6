"""Files that appear complete or not at all, and paths that stay inside."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perception.core import DataError, atomic_write, files
from perception.core.files import inside, write_bytes

ROOT = Path(__file__).resolve().parents[2]
needs_nameless = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without a name (O_TMPFILE)")


@pytest.fixture(params=["without a name", "named .partial"])
def either_way(request, monkeypatch, tmp_path):
    """Both ways to write aside: the nameless file of Linux, and the hidden file of all other systems."""
    if request.param == "named .partial":
        monkeypatch.setattr(files, "_open_nameless", lambda _folder: None)
    elif (handle := files._open_nameless(tmp_path)) is None:
        pytest.skip("this file system has no nameless files")
    else:
        os.close(handle)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_new_file_appears_with_its_content(either_way, tmp_path):
    path = tmp_path / "deep" / "er" / "run.json"
    with atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert names(path.parent) == ["run.json"]


def test_an_existing_file_is_replaced_in_one_step(either_way, tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"an old and longer content")
    with path.open("rb") as reader, atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"an old and longer content"
        assert reader.read() == b"an old and longer content"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["run.json"]


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_state_and_no_litter(either_way, tmp_path, existed, error):
    path = tmp_path / "run.json"
    if existed:
        path.write_bytes(b"old")

    def write_and_fail():
        with atomic_write(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert names(tmp_path) == (["run.json"] if existed else [])
    assert not existed or path.read_bytes() == b"old"


def test_a_folder_in_the_way_stays_and_nothing_is_left_beside_it(either_way, tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(OSError, match=r"run\.json"), atomic_write(tmp_path / "run.json") as file:
        file.write(b"new")
    assert names(tmp_path) == ["run.json"]


def test_the_umask_decides_on_the_permissions(either_way, tmp_path):
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_the_file_can_be_read_back_and_moved_in_while_it_is_written(either_way, tmp_path):
    # Arrow writes its footer with seeks
    with atomic_write(tmp_path / "a") as file:
        file.write(b"0123")
        file.seek(0)
        assert file.read() == b"0123"
        file.seek(1)
        file.write(b"x")
    assert (tmp_path / "a").read_bytes() == b"0x23"


def test_write_bytes_also_writes_nothing(either_way, tmp_path):
    write_bytes(tmp_path / "empty", b"")
    assert (tmp_path / "empty").read_bytes() == b""


def test_content_reaches_the_disk_before_its_name(either_way, tmp_path, monkeypatch):
    path, seen = tmp_path / "a", []
    fsync = os.fsync

    def watch(handle):
        seen.append(path.exists())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    write_bytes(path, b"x")
    assert seen == [False, True]  # the file before, the folder after it has the name


WRITER = """
import sys, time
from pathlib import Path
from perception.core import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"x" * 100_000)
    file.flush()
    print("half way", flush=True)
    time.sleep(60)
"""


@needs_nameless
@pytest.mark.parametrize("existed", [True, False], ids=["over an old file", "a new file"])
def test_kill_9_in_the_middle_leaves_nothing(tmp_path, existed):
    if (handle := files._open_nameless(tmp_path)) is None:
        pytest.skip("this file system has no nameless files")
    os.close(handle)
    path = tmp_path / "run.json"
    if existed:
        path.write_bytes(b"old")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout.readline() == b"half way\n"
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(timeout=20) == -signal.SIGKILL
    assert names(tmp_path) == (["run.json"] if existed else [])
    assert not existed or path.read_bytes() == b"old"


@pytest.mark.parametrize("relative", ["a.bin", "samples/LIDAR_TOP/a__b.pcd.bin", "./a", "a/./b", "..a/b..", "with space/ü"])
def test_paths_inside_are_joined(relative):
    assert inside(Path("/data"), relative, where="table row 3") == Path("/data") / relative


@pytest.mark.parametrize(
    "relative",
    ["", ".", "/etc/passwd", "../x", "a/../../x", "a/..", "..", "a\0b", "C:\\x", "C:x", "\\\\host\\share\\x", "\\x", "a\\..\\x", None, 3],
    ids=repr,
)
def test_paths_that_may_leave_are_refused(relative):
    with pytest.raises(DataError, match=r"table row 3: expected a path inside of /data, got .*; refused"):
        inside(Path("/data"), relative, where="table row 3")
