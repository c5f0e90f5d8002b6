"""Fuzzed KITTI recordings: anything but sound frames or a one-line PerceptionError that names the file is a bug."""

import random
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.core import DataError, PerceptionError
from perception.drives import Kitti
from tests.drives.kitti_maker import write_kitti_raw, write_kitti_tracking

WORDS = [
    *("", "x", "nan", "inf", "-inf", "1e999", "-1e308", "1e308", "1e-320", "0", "-1", "1.5", "1_0", "0x10", "9" * 5000, "1" * 18, "½", "²"),
    *("Car", "Tram", "DontCare", "Pedestrian", "../../x", "\0", "\x1b[0m", "\u2028", "é😀", "R0_rect:", "P2:", "2011-09-26", "13:04:36.9"),
]
RAW = [
    b"\xff\xfe",
    b"\0",
    b"\n\n",
    b"\r",
    b"\xef\xbb\xbf",
    b" " * 3000,
    b"<",
    b"</item>",
    b"<item>",
    b"<!DOCTYPE a>",
    b"<!ENTITY a 'b'>",
    b"&a;",
]
RAW += [b"&#0;", b"<![CDATA[", b"<!--", b"<a>" * 3000, b"<count>1</count>", b"<?xml version='1.0' encoding='cp037'?>", b"-", b"e9"]


def mutated(content: bytes, rng: random.Random) -> bytes:
    kind = rng.choice(["word", "word", "word", "word", "line", "twice", "swap", "cut", "flip", "insert", "replace", "empty"])
    place, length = rng.randrange(len(content) + 1), rng.choice([1, 2, 5, 40])
    lines = content.split(b"\n")
    row, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    if kind == "word":
        separator = rng.choice([b">", b"<"]) if b"<" in lines[row] else b" "
        fields = lines[row].split(separator)
        fields[rng.randrange(len(fields))] = rng.choice(WORDS).encode()
        lines[row] = separator.join(fields)
    elif kind == "line":
        del lines[row]
    elif kind == "twice":
        lines.insert(other, lines[row])
    elif kind == "swap":
        lines[row], lines[other] = lines[other], lines[row]
    elif kind == "cut":
        return content[:place]
    elif kind == "empty":
        return b""
    elif kind == "flip":
        changed = bytearray(content)
        changed[place % len(content)] ^= 1 << rng.randrange(8)
        return bytes(changed)
    else:
        return content[:place] + rng.choice(RAW) + content[place + (length if kind == "replace" else 0) :]
    return b"\n".join(lines)


def read_everything(root) -> int:
    """Frames, truth, cameras and clouds of all drives; the number of true objects."""
    count = 0
    for drive in Kitti(root).drives():
        for frame in drive:
            count += len(frame.truth or ())
            assert np.isfinite(frame.lidar_to_global.matrix).all()
            assert len(repr(frame).splitlines()) == 1
            assert len(frame.cloud) == 5
            assert all(np.isfinite(camera.intrinsics).all() for camera in frame.cameras.values())
            if frame.truth is not None:
                assert np.isfinite(frame.truth.boxes.center).all()
                assert frame.labelled_view.contains(frame.truth.boxes.center).shape == (len(frame.truth),)
    return count


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    root = write_kitti_raw(write_kitti_tracking(tmp_path_factory.mktemp("kitti"), sequences=("0000",), images=False), images=False)
    (root / "training/poses").mkdir()
    return root, sorted(path for path in root.rglob("*") if path.suffix in (".txt", ".xml"))


def test_the_recording_that_is_mutated_is_sound(recording):
    assert read_everything(recording[0]) == 10  # two drives of 2 + 2 + 1 objects
    assert len(recording[1]) == 3 + 3 + 3 + 1 + 1  # tracking; the day; packets, times and tracklets


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(0, 2**63), st.integers(1, 3))
def test_mutated_files_never_give_a_traceback(recording, seed, num_mutations):
    root, paths = recording
    rng = random.Random(seed)
    before = {path: path.read_bytes() for path in rng.choices(paths, k=num_mutations)}
    message = ""
    try:
        for path, content in before.items():
            path.write_bytes(mutated(content, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_everything(root)
    except PerceptionError as error:
        message = str(error)
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    if message:
        assert len(message.splitlines()) == 1
        assert len(message) < 1000
        assert message.isprintable()
        assert str(root) in message


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=200), whole=st.booleans())
def test_any_bytes_are_a_cloud_or_an_error(tmp_path_factory, content, whole):
    root = tmp_path_factory.getbasetemp() / "any-kitti-bytes"
    if not root.is_dir():
        write_kitti_tracking(root, sequences=("0000",))
    path = root / "training/velodyne/0000/000001.bin"
    path.write_bytes(content[: len(content) // 16 * 16] if whole else content)
    try:
        cloud = Kitti(root).drive("training-0000")[1].cloud
    except DataError as error:
        message = str(error)
    else:
        message = f"{path}: expected " if len(cloud) == len(content) // 16 else "points are lost"
    assert message.startswith(f"{path}: expected ")
