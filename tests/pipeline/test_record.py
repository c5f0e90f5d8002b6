"""What a run finds in its folder: an earlier run goes, what is somebody else's stays, a damaged record is named."""

import json

import pytest

from perception.core import DataError, UsageError
from perception.drives import NuScenes
from tests.pipeline.makers import contents, write_small_nuscenes
from tests.pipeline.test_run import run, three_drives


@pytest.fixture
def root(tmp_path_factory):
    return write_small_nuscenes(tmp_path_factory.mktemp("nuscenes"), num_scenes=2, samples=2)


def test_a_new_run_leaves_nothing_of_the_one_before(root, tmp_path):
    run(tmp_path, NuScenes(root).drives())
    notes = tmp_path / "tracks" / "notes.txt"
    notes.write_text("of the user")
    run(tmp_path, NuScenes(root).drives()[:1], tracker=False)
    assert {name for name in contents(tmp_path) if not name.startswith("frames/")} == {
        "run.json", "detections/scene-0001.parquet", "nuscenes/detections.json", "tracks/notes.txt",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", '{"my": "file"}', "[1, 2]"])
def test_what_is_no_run_is_not_written_over(tmp_path, text):
    mine = tmp_path / "unfinished" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("of the user")
    run(tmp_path, three_drives())
    assert mine.read_text() == "of the user"
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"but its run\.json is none; choose another --out"):
        run(tmp_path, three_drives())
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("versions",), []),
        (("versions",), None),
        (("by_drive", "a", "frames_hash"), 3),
        (("by_drive", "a", "frames"), "4"),
        (("by_drive", "a", "tracks"), None),
        (("seconds", "read"), "long"),
        (("started_us", "a"), 1.5),
    ],
)
def test_a_damaged_record_is_named(tmp_path, path, value):
    run(tmp_path, three_drives())
    info = json.loads((tmp_path / "run.json").read_text())
    *parents, last = path
    part = info
    for key in parents:
        part = part[key]
    part[last] = value
    (tmp_path / "run.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=rf"expected the record of a run, got {'.'.join(path)}: "):
        run(tmp_path, three_drives(), resume=True)
