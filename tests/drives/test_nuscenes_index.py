"""The cached index: built once for a content, found again, rebuilt when it must be, harmless where it cannot be kept."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from perception.core import DataError
from perception.drives import NuScenes, nuscenes_index
from perception.drives.nuscenes_index import open_index
from tests.makers import nuscenes_tables, write_nuscenes

ROOT = Path(__file__).resolve().parents[2]
VERSION = "v1.0-mini"


@pytest.fixture
def root(tmp_path):
    return write_nuscenes(tmp_path / "data", sensor_files=False)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def no_build(monkeypatch):
    """Makes reading the tables a failure, once called."""

    def forbid(names=("_build",)) -> None:
        for name in names:
            monkeypatch.setattr(nuscenes_index, name, lambda *_: pytest.fail("the tables were read"))

    return forbid


def content(index) -> dict:
    """All of an index, to compare."""
    return {part: table.to_pydict() for part, table in index.tables.items()}


def entries(cache: Path) -> list[str]:
    """Names in the cache, without the notes of what was seen."""
    return sorted(path.name for path in cache.iterdir() if path.name != "seen")


def touch(root: Path, table: str = "sample") -> None:
    os.utime(root / VERSION / f"{table}.json", ns=(1, 1))


def test_the_second_opening_reads_no_table(root, cache, no_build):
    told = []
    first = content(open_index(root / VERSION, cache=cache, tell=told.append))
    assert [line.split(" in ")[0] for line in told] == [f"indexing {root / VERSION} (once)", f"indexed {root / VERSION}"]
    no_build(("_build", "_digest"))
    told.clear()
    assert str(content(open_index(root / VERSION, cache=cache, tell=told.append))) == str(first)  # as text: NaN equals NaN
    assert told == []


def test_files_that_were_touched_only_find_their_index_by_content(root, cache, no_build):
    first = content(open_index(root / VERSION, cache=cache))
    touch(root)
    no_build()
    assert str(content(open_index(root / VERSION, cache=cache))) == str(first)
    no_build(("_digest",))
    open_index(root / VERSION, cache=cache)  # noted again


def test_a_copy_of_the_data_finds_the_same_index(root, cache, no_build, tmp_path):
    open_index(root / VERSION, cache=cache)
    shutil.copytree(root, tmp_path / "copy")
    no_build()
    assert open_index(tmp_path / "copy" / VERSION, cache=cache).texts("scene", "name") == ["scene-0103", "scene-0916"]
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("table", ["sample_annotation", "category"])
def test_changed_content_is_indexed_anew(root, cache, table):
    open_index(root / VERSION, cache=cache)
    tables = nuscenes_tables()
    tables["sample_annotation"][0]["num_lidar_pts"] = 77
    tables["category"][0]["name"] = "vehicle.truck"
    (root / VERSION / f"{table}.json").write_text(json.dumps(tables[table]))
    index = open_index(root / VERSION, cache=cache)
    assert (index.numbers("annotation", "num_lidar_pts")[0] == 77) == (table == "sample_annotation")
    assert (index.names["category"][0] == "vehicle.truck") == (table == "category")
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("part", ["names", "scene", "sample", "annotation", "instance", "record", "calibration"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut short", "zeros", "another part", "a folder"])
def test_a_damaged_index_is_built_anew(root, cache, part, damage):
    first = str(content(open_index(root / VERSION, cache=cache)))
    path = cache / entries(cache)[0] / f"{part}.arrow"
    size, other = path.stat().st_size, path.with_name("sample.arrow" if part != "sample" else "scene.arrow").read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "cut short": other[:-10], "zeros": bytes(size), "another part": other}[damage])
    told = []
    assert str(content(open_index(root / VERSION, cache=cache, tell=told.append))) == first
    assert len(told) == 2
    assert str(content(open_index(root / VERSION, cache=cache, tell=told.append))) == first
    assert len(told) == 2  # the third time it is sound
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("note", [b"", b"{}", b"[]", b'{"signature": 1}', b"[" * 100_000, b"\xff", b'{"signature": [], "digest": "../.."}'])
def test_a_damaged_note_is_written_anew(root, cache, no_build, note):
    open_index(root / VERSION, cache=cache)
    (path,) = (cache / "seen").iterdir()
    path.write_bytes(note)
    no_build()
    open_index(root / VERSION, cache=cache)
    no_build(("_digest",))
    open_index(root / VERSION, cache=cache)


def test_a_cache_that_cannot_be_written_does_no_harm(root, cache):
    cache.write_text("a file in the place of the folder")
    told = []
    index = open_index(root / VERSION, cache=cache, tell=told.append)
    assert told[1] == f"the index cannot be kept in {cache}: File exists"
    assert index.texts("scene", "name") == ["scene-0103", "scene-0916"]
    frames = [frame for drive in NuScenes(root, cache=cache, tell=told.append).drives() for frame in drive]
    assert [len(frame.truth) for frame in frames] == [2, 2, 1, 2, 2, 1]


@pytest.mark.parametrize("after", [0, 3])
def test_a_disk_that_fills_up_does_no_harm(root, cache, monkeypatch, after):
    write = nuscenes_index.atomic_write
    calls = []

    def full(path):
        calls.append(path)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        return write(path)

    monkeypatch.setattr(nuscenes_index, "atomic_write", full)
    told = []
    index = open_index(root / VERSION, cache=cache, tell=told.append)
    assert told[1] == f"the index cannot be kept in {cache}: No space left on device"
    assert len(index.texts("record", "token")) == 14  # per scene 3 key frames and a sweep of the lidar, 3 images
    assert entries(cache) == []  # nothing half-written is left


def test_a_read_only_cache_is_read(root, cache, no_build):
    open_index(root / VERSION, cache=cache)
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    no_build()
    try:
        assert len(open_index(root / VERSION, cache=cache).texts("sample", "token")) == 6
    finally:
        for path in [cache, *cache.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_tables_that_change_while_they_are_read_are_not_kept(root, cache, monkeypatch):
    build = nuscenes_index._build

    def build_and_touch(folder):
        yield from build(folder)
        touch(root)

    monkeypatch.setattr(nuscenes_index, "_build", build_and_touch)
    with pytest.raises(DataError, match=rf"{VERSION}: expected tables at rest, they changed while they were read; try again"):
        open_index(root / VERSION, cache=cache)
    assert entries(cache) == []


def test_broken_tables_leave_nothing_in_the_cache(root, cache):
    path = root / VERSION / "sample_data.json"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"sample_data\.json: invalid JSON"):
        open_index(root / VERSION, cache=cache)
    assert entries(cache) == []


def test_another_process_that_was_first_wins(root, cache, monkeypatch):
    """Both build; the index of the first stays in place, because it may be in use."""
    build = nuscenes_index._build

    def build_while_another_does(folder):
        yield from build(folder)
        monkeypatch.setattr(nuscenes_index, "_build", build)
        open_index(folder, cache=cache)
        places.append((cache / entries(cache)[-1]).stat().st_ino)

    places: list[int] = []
    monkeypatch.setattr(nuscenes_index, "_build", build_while_another_does)
    index = open_index(root / VERSION, cache=cache)
    assert len(index.texts("sample", "token")) == 6
    (name,) = entries(cache)
    assert (cache / name).stat().st_ino == places[0]


PROCESS = """
import sys
from perception.drives import NuScenes
sys.stdin.readline()
dataset = NuScenes(sys.argv[1])
print(sum(len(frame.truth) for drive in dataset.drives() for frame in drive))
"""


def test_two_processes_that_build_at_once_both_succeed(root, cache):
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(root)], cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["10\n", "10\n"]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(entries(cache / "perception" / "nuscenes")) == 1


def test_the_cache_lies_under_xdg_cache_home(root, cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    open_index(root / VERSION)
    assert sorted(path.name for path in (cache / "perception/nuscenes").iterdir())[-1] == "seen"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(cache / "home"))
    open_index(root / VERSION)
    assert (cache / "home/.cache/perception/nuscenes/seen").is_dir()


def test_the_index_holds_records_by_scene_channel_and_time_without_radar(root, cache):
    index = open_index(root / VERSION, cache=cache)
    assert index.names["channel"] == ["CAM_FRONT", "LIDAR_TOP"]
    np.testing.assert_array_equal(index.numbers("record", "channel"), [0] * 3 + [1] * 4 + [0] * 3 + [1] * 4)
    times = index.numbers("record", "timestamp")
    assert (np.diff(times)[[0, 1, 3, 4, 5, 7, 8, 10, 11, 12]] > 0).all()
    assert index.numbers("record", "is_key").tolist() == [True] * 3 + [True, False, True, True] + [True] * 3 + [True, False, True, True]
    np.testing.assert_array_equal(index.numbers("sample", "key_record"), [[0, 3], [1, 5], [2, 6], [7, 10], [8, 12], [9, 13]])
    np.testing.assert_allclose(index.numbers("record", "ego_translation")[4], [1, 0, 0])  # the sweep after 0.25 s at 4 m/s
    np.testing.assert_array_equal(index.numbers("scene", "first_sample"), [0, 3])
    assert index.text("scene", "location", 1) == "singapore"


def test_large_tables_are_joined_piece_by_piece_to_the_same_index(root, cache, monkeypatch):
    whole = str(content(open_index(root / VERSION, cache=cache)))
    monkeypatch.setattr(nuscenes_index, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr("perception.core.json_stream.BLOCK_BYTES", 300)
    monkeypatch.setattr("perception.core.json_stream._HEAD_BYTES", 100)
    monkeypatch.setattr("perception.drives.nuscenes_tables._SPLIT_ABOVE", 1)
    assert str(content(open_index(root / VERSION, cache=cache / "other"))) == whole


def test_an_index_that_no_version_has_any_more_goes_after_a_day(root, cache):
    other = write_nuscenes(root.parent / "other", nuscenes_tables(("scene-0001",)), sensor_files=False)
    for folder in (root, other):
        open_index(folder / VERSION, cache=cache)
    (cache / ".01234567-killed.partial").mkdir()
    before = entries(cache)
    for name in before:
        os.utime(cache / name, (1, 1))
    rows = json.loads((root / VERSION / "scene.json").read_text())
    (root / VERSION / "scene.json").write_text(json.dumps([row | {"name": f"renamed-{i}"} for i, row in enumerate(rows)]))
    open_index(root / VERSION, cache=cache)
    assert len(before) == 3
    assert len(set(before) & set(entries(cache))) == 1  # that of the other version
    assert len(entries(cache)) == 2  # and the new one
    assert open_index(other / VERSION, cache=cache, tell=pytest.fail).texts("scene", "name") == ["scene-0001"]


def test_the_index_of_a_data_set_that_is_gone_goes_too_and_nothing_of_others(root, cache):
    other = write_nuscenes(root.parent / "other", nuscenes_tables(("scene-0001",)), sensor_files=False)
    open_index(other / VERSION, cache=cache)
    (index,) = entries(cache)
    mine = [cache / name / "notes.txt" for name in ("2024-05-17_recording_north_route", "0" * 32, "half.partial")]
    for path in mine:
        path.parent.mkdir()
        path.write_text("of the user")
    shutil.rmtree(other)
    for path in cache.iterdir():
        os.utime(path, (1, 1))
    open_index(root / VERSION, cache=cache)
    assert index not in entries(cache)
    assert all(path.read_text() == "of the user" for path in mine)
    assert len(list((cache / "seen").iterdir())) == 1


def test_who_has_no_home_still_reads_data(root, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert open_index(root / VERSION).names["channel"] == ["CAM_FRONT", "LIDAR_TOP"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="none: expected the folder of a nuScenes version with its 13 tables, found none"):
        open_index(tmp_path / "none")


def test_opening_a_known_version_does_not_import_pandas(root, cache):
    # Some of Arrow's ways to NumPy do where pandas is installed, and that alone takes most of a second.
    NuScenes(root, cache=cache)
    code = """if True:
        import pathlib, sys
        from perception.drives import NuScenes
        drives = NuScenes(sys.argv[1], cache=pathlib.Path(sys.argv[2])).drives()
        count = sum(len(frame.truth) for drive in drives for frame in drive)
        print(count, [name for name in ("pandas", "torch", "nuscenes", "numba") if name in sys.modules])
    """
    run = subprocess.run([sys.executable, "-c", code, str(root), str(cache)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "10 []\n"
