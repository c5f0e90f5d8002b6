"""Fuzzed recordings: anything but a frame or a one-line PerceptionError that names the file is a bug."""

import json
import random
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from perception.core import DataError, PerceptionError
from perception.drives import NuScenes
from tests.makers import nuscenes_tables, write_nuscenes

VERSION = "v1.0-mini"
FRONT = "samples/LIDAR_TOP/1500000000500000.pcd.bin"  # of sample scene-0103-1

fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
WEIRD = [
    *(None, True, False, -1, 0, 1, 1.5, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 1e308, -1e308, 1e-320, 5e-7),
    *("", "x", "1.5", "../x", "/x", ".", "C:x", "a\nb", "\0", "é😀\u2028", "x" * 300, "LIDAR_TOP", "lidar", "camera", "scene-0103"),
    *(
        [],
        [[]],
        [None],
        {},
        {"a": 1},
        [""],
        ["x"],
        ["x", "y"],
        [1, 2],
        [0, 0, 0],
        [0, 0, 0, 0],
        [1, 2, 3],
        [1, 0, 0, 0],
        [1e308] * 3,
        [1e308] * 4,
    ),
    *(
        [1e-320] * 3,
        [1e-200] * 4,
        [1e-7, 0, 0, 0],
        [1e11] * 3,
        [1e12] * 4,
        [[1, 2, 3]] * 3,
        [[1e308] * 3] * 3,
        [[0] * 3] * 3,
        [[True] * 3] * 3,
    ),
    *(float("nan"), [float("nan")] * 3, [float("inf")] * 3, [float("nan")] * 4, "DEEP"),
]
RAW = [
    b"NaN",
    b"1e999",
    b"\xff",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b"\0",
    b"\xef\xbb\xbf",
    b"}, {",
    b"],",
    b"[" * 2000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"-",
    b"\n",
]


def mutated_rows(rows: list[Any], rng: random.Random) -> list[Any]:
    rows = [dict(row) for row in rows]
    row, other = (rng.randrange(len(rows)) for _ in range(2))
    field = rng.choice(list(rows[row]))
    kind = rng.choice(["value", "value", "value", "value", "drop", "delete", "twice", "swap", "shuffle", "element", "no row", "none"])
    if kind == "value":
        rows[row][field] = rng.choice(WEIRD)
    elif kind == "drop":
        del rows[row][field]
    elif kind == "delete":
        del rows[row]
    elif kind == "twice":
        rows.insert(other, dict(rows[row]))
    elif kind == "swap":
        rows[row][field], rows[other][field] = rows[other].get(field), rows[row][field]
    elif kind == "shuffle":
        rng.shuffle(rows)
    elif kind == "element" and isinstance(rows[row][field], list) and rows[row][field]:
        rows[row][field] = list(rows[row][field])
        rows[row][field][rng.randrange(len(rows[row][field]))] = rng.choice(WEIRD)
    elif kind == "no row":
        rows[row] = rng.choice(WEIRD)
    elif kind == "none":
        rows = []
    return rows


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    place, length = rng.randrange(len(content) + 1), rng.choice([0, 1, 2, 5, 40])
    kind = rng.choice(["cut", "flip", "insert", "replace", "copy"])
    if kind == "cut":
        return content[:place]
    if kind == "flip":
        changed = bytearray(content)
        changed[place % len(content)] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == "copy":
        return content[:place] + content[max(place - 60, 0) : place] + content[place:]
    return content[:place] + rng.choice(RAW) + content[place + (length if kind == "replace" else 0) :]


def read_everything(root: Path) -> int:
    """Frames, truth, cameras and clouds of all drives; the number of true objects."""
    dataset = NuScenes(root, VERSION, on_missing="empty", cache=root / VERSION / "sample.json" / "no folder")
    count = 0
    for drive in [*dataset.drives(), *dataset.drives("custom")]:
        for frame in drive:
            count += len(frame.truth or ()) + 0 * len(frame.cloud)
            assert np.isfinite(frame.lidar_to_global.matrix).all()
            assert len(repr(frame).splitlines()) == 1
            for camera in frame.cameras.values():
                assert np.isfinite(camera.intrinsics).all()
    return count


@pytest.fixture(scope="module")
def small_version(tmp_path_factory):
    tables = nuscenes_tables()
    return write_nuscenes(tmp_path_factory.mktemp("small"), tables, splits={"custom": ["scene-0916"]}, sensor_files=False), tables


@settings(fuzz, max_examples=500)
@given(st.integers(0, 2**63), st.integers(1, 3))
def test_mutated_tables_never_give_a_traceback(small_version, seed, num_mutations):
    root, tables = small_version
    rng = random.Random(seed)
    contents = {}
    for name in rng.choices([*tables, "splits"], k=num_mutations):
        if name == "splits":
            rows: Any = rng.choice([*WEIRD, {"custom": ["scene-0916", "scene-0916"]}, {"custom": ["a\nb"]}, {"a\nb": []}, {"custom": [[]]}])
        else:
            rows = mutated_rows(tables[name], rng)
        contents[name] = json.dumps(rows).replace('"DEEP"', "[" * 1500 + "]" * 1500).encode()
        if rng.random() < 0.4:
            contents[name] = mutated_bytes(contents[name], rng)
    before = {name: (root / VERSION / f"{name}.json").read_bytes() for name in contents}
    try:
        for name, content in contents.items():
            (root / VERSION / f"{name}.json").write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_everything(root)
    except PerceptionError as error:
        message = str(error)
    else:
        message = ""
    finally:
        for name, content in before.items():
            (root / VERSION / f"{name}.json").write_bytes(content)
    if message:
        assert len(message.splitlines()) == 1
        assert len(message) < 1000
        names_file = f"{root / VERSION}" in message and (".json" in message or "split 'custom'" in message)
        assert names_file or message.startswith("split 'custom': expected one of ")  # where splits.json has no such split any more


def test_the_version_that_is_mutated_is_sound(small_version):
    assert read_everything(small_version[0]) == 15  # two scenes of 2 + 2 + 1 scored objects, and one of them again by its split


@settings(fuzz, max_examples=100)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_cloud_or_an_error(tmp_path_factory, content, whole):
    root = tmp_path_factory.getbasetemp() / "any-bytes"
    if not root.is_dir():
        write_nuscenes(root)
    (root / FRONT).write_bytes(content[: len(content) // 20 * 20] if whole else content)
    try:
        cloud = NuScenes(root).drive("scene-0103")[1].cloud
    except DataError as error:
        message = str(error)
    else:
        message = f"{root / FRONT}: expected " if len(cloud) == len(content) // 20 else "points are lost"
    assert message.startswith(f"{root / FRONT}: expected ")


@settings(fuzz, max_examples=100)
@given(st.sampled_from(["JPEG", "PNG"]), st.integers(0, 10**6), st.binary(min_size=0, max_size=4), st.booleans())
def test_damaged_images_are_an_image_or_an_error(tmp_path_factory, image_format, place, inserted, cut):
    root = tmp_path_factory.getbasetemp() / "any-image"
    if not root.is_dir():
        write_nuscenes(root)
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)).save(buffer, image_format)
    content = buffer.getvalue()
    place %= len(content)
    content = content[:place] + inserted + (b"" if cut else content[place + len(inserted) :])
    camera = NuScenes(root).drive("scene-0103")[0].cameras["CAM_FRONT"]
    (root / "samples/CAM_FRONT/1499999999980000.png").write_bytes(content)
    try:
        message = f"1499999999980000.png: expected {camera.image.ndim} dimensions"
    except DataError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    assert "1499999999980000.png: expected " in message
