"""Reading weight files that nobody vouches for."""

import argparse
import contextlib
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from perception.core.errors import CheckpointError
from perception.detection.checkpoints import read_source
from perception.detection.checkpoints.source import MAX_BYTES
from tests.detection.checkpoints.files import write_pth

WEIGHTS = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor(4))


def assert_same(tensors):
    assert set(tensors) == {"a", "b"}
    assert torch.equal(tensors["a"], WEIGHTS["a"])
    assert torch.equal(tensors["b"], WEIGHTS["b"])


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(WEIGHTS, id="bare"),
        pytest.param(
            {"state_dict": WEIGHTS, "meta": {"epoch": 20, "config": "x = 1\n" * 100}, "optimizer": {"state": {}}}, id="det3d, mmdet3d"
        ),
        pytest.param({"model_state": WEIGHTS, "optimizer_state": None, "epoch": 20, "it": 3, "version": "pcdet+0.6.0"}, id="openpcdet"),
    ],
)
def test_state_dict_is_found_in_its_wrapping(content, legacy, tmp_path):
    source = read_source(write_pth(tmp_path / "x.pth", content, legacy=legacy))
    assert_same(source.tensors)
    assert len(source.sha256) == 64
    assert source.skipped == ()


def test_plain_values_beside_the_weights_are_kept_and_texts_of_pages_are_not(tmp_path):
    meta = {"epoch": 20, "mmdet3d_version": "1.1.0", "config": "x" * 5000, "classes": ("car",), "evil": "\x1b[2J"}
    source = read_source(write_pth(tmp_path / "x.pth", {"state_dict": WEIGHTS, "meta": meta, "it": 7}))
    assert source.meta == {"it": "7", "meta.epoch": "20", "meta.mmdet3d_version": "1.1.0"}


def test_safetensors_are_read_too(tmp_path):
    save_file(dict(WEIGHTS), tmp_path / "x.safetensors")
    assert_same(read_source(tmp_path / "x.safetensors").tensors)


def test_parameters_and_shared_storages_are_read(tmp_path):
    base = torch.arange(6.0)
    source = read_source(write_pth(tmp_path / "x.pth", {"a": torch.nn.Parameter(base[2:4]), "b": base}))
    assert torch.equal(source.tensors["a"], torch.tensor([2.0, 3.0]))
    assert not source.tensors["a"].requires_grad


@pytest.mark.parametrize("legacy", [False, True])
def test_what_trainers_leave_is_skipped_and_named(legacy, tmp_path):
    # One-cycle schedules of det3d write learning rates as NumPy numbers.
    optimizer = {"param_groups": [{"lr": np.float64(1e-3), "history": np.arange(3)}]}
    content = {"state_dict": WEIGHTS, "optimizer": optimizer, "args": argparse.Namespace(seed=1)}
    source = read_source(write_pth(tmp_path / "x.pth", content, legacy=legacy))
    assert_same(source.tensors)
    assert "argparse.Namespace" in source.skipped
    assert "numpy.dtype" in source.skipped


def test_numpy_number_in_the_state_dict_is_refused(tmp_path):
    path = write_pth(tmp_path / "x.pth", {"state_dict": {"a": torch.ones(1), "b": np.float64(3)}})
    with pytest.raises(CheckpointError, match="expected tensors only in the state dict, got 1 other values: 'b'"):
        read_source(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_every_truncation_is_refused(legacy, tmp_path):
    data = write_pth(tmp_path / "good.pth", {"state_dict": WEIGHTS}, legacy=legacy).read_bytes()
    for length in [*range(0, len(data), 37), len(data) - 1]:
        (tmp_path / "x.pth").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"x\.pth") as error:
            read_source(tmp_path / "x.pth")
        one_line(error)


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    save_file(dict(WEIGHTS), tmp_path / "good.safetensors")
    data = (tmp_path / "good.safetensors").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "x.safetensors").write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_source(tmp_path / "x.safetensors")


@pytest.mark.parametrize("legacy", [False, True])
def test_bytes_changed_anywhere_are_found_or_harmless(legacy, tmp_path):
    data = bytearray(write_pth(tmp_path / "good.pth", {"state_dict": WEIGHTS}, legacy=legacy).read_bytes())
    generator = np.random.default_rng(0)
    num_read = 0
    for place in generator.choice(len(data), 150, replace=False):
        broken = bytearray(data)
        broken[place] ^= int(generator.integers(1, 256))
        (tmp_path / "x.pth").write_bytes(broken)
        with contextlib.suppress(CheckpointError):  # and no other exception
            read_source(tmp_path / "x.pth")
            num_read += 1
    assert num_read < 75


def test_a_flipped_bit_in_the_numbers_is_found(tmp_path):
    data = bytearray(write_pth(tmp_path / "x.pth", {"a": torch.full((1000,), 1.5)}).read_bytes())
    data[data.index(np.full(10, 1.5, np.float32).tobytes()) + 3] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum does not fit; the file is damaged"):
        read_source(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param([torch.ones(1)], "expected a state dict, got list", id="list"),
        pytest.param({}, "expected a state dict .* got 0 entries", id="empty"),
        pytest.param({3: torch.ones(1)}, "expected a state dict", id="numbers as names"),
        pytest.param({"a\x1b[2J": torch.ones(1)}, "expected a state dict", id="control characters in a name"),
        pytest.param({"weights": {"a": torch.ones(1)}}, "got 1 other values: 'weights'; known wrappers: state_dict", id="unknown wrapper"),
        pytest.param({"a": torch.ones(2).to_sparse()}, r"refused unopened|expected a plain tensor", id="sparse tensor"),
    ],
)
def test_what_is_no_state_dict_is_refused(content, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        read_source(write_pth(tmp_path / "x.pth", content))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "got an empty one", id="empty"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "expected a .pth file", id="pointer of Git LFS"),
        pytest.param(b"<!DOCTYPE html>", "expected a .pth file", id="page of a failed download"),
        pytest.param(b"PK\x03\x04" + bytes(200), "broken archive", id="no archive"),
        pytest.param(b"\x80\x02\x8a\x0a" + bytes(range(10)) + b"." + b"\x80\x02N." * 4, "got another pickle; refused", id="other number"),
        pytest.param(b"\x80\x02\x8a\x0a" + bytes(200), "expected a file of torch.save", id="no pickle"),
    ],
)
def test_other_files_are_refused(data, message, tmp_path):
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as error:
        read_source(tmp_path / "x.pth")
    one_line(error)


def test_missing_file_and_folder_are_errors(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        read_source(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="directory"):
        read_source(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files")
def test_a_file_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("perception.detection.checkpoints.source.MAX_BYTES", 1000)
    assert MAX_BYTES >= 1 << 30
    with pytest.raises(CheckpointError, match="got more"):
        read_source(write_pth(tmp_path / "x.pth", {"a": torch.zeros(1000)}))
