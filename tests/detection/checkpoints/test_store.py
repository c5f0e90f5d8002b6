"""Weight files of ours."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from perception.core.errors import CheckpointError
from perception.detection.checkpoints import Metadata, load, save
from perception.detection.checkpoints.store import shrunk

WEIGHTS = {"b.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(4), "c.half": torch.ones(3, dtype=torch.bfloat16)}
METADATA = Metadata(
    config={"detector": {"x": [1, 2.5]}},
    config_name="x.yaml",
    layout="det3d",
    convention="c",
    sparse="none",
    notes=("one", "two"),
    source_name="in.pth",
    source_sha256="0" * 64,
    source_says={"epoch": "3"},
    converter="0.1",
)


def test_what_is_saved_is_loaded(tmp_path):
    written = save(tmp_path / "deep/x.safetensors", WEIGHTS, METADATA)
    tensors, metadata = load(tmp_path / "deep/x.safetensors")
    assert metadata == written
    assert dataclasses.replace(metadata, tensors_sha256="") == METADATA
    assert list(tensors) == sorted(WEIGHTS)
    assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS)
    assert set(load_file(tmp_path / "deep/x.safetensors")) == set(WEIGHTS)  # others can read it


def test_views_are_saved_as_what_they_show(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    save(tmp_path / "x.safetensors", {"a": base.T, "b": base[1], "c": base[1]}, METADATA)
    tensors, _ = load(tmp_path / "x.safetensors")
    assert torch.equal(tensors["a"], base.T)
    assert torch.equal(tensors["b"], tensors["c"])


def test_matrices_are_halved_and_vectors_stay(tmp_path):
    weights = {"a.weight": torch.linspace(-3, 3, 12_000).reshape(3, 4000), "a.norm": torch.linspace(0, 1e6, 5), "a.steps": torch.tensor(7)}
    save(tmp_path / "x.safetensors", weights, METADATA)
    before, after = shrunk(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert (before, after) == tuple((tmp_path / name).stat().st_size for name in ("x.safetensors", "y.safetensors"))
    assert 0.4 < after / before < 0.6
    tensors, metadata = load(tmp_path / "y.safetensors")
    assert dataclasses.replace(metadata, tensors_sha256="") == METADATA
    assert tensors["a.weight"].dtype == torch.float16
    torch.testing.assert_close(tensors["a.weight"].float(), weights["a.weight"], rtol=2**-11, atol=1e-7)
    assert torch.equal(tensors["a.norm"], weights["a.norm"])
    assert torch.equal(tensors["a.steps"], weights["a.steps"])


def test_large_matrices_take_a_quarter_and_keep_their_rows_scales(tmp_path):
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 20, 3, 3, generator=rng) * torch.logspace(-4, 3, 40)[:, None, None, None]
    rows[7], rows[8, 0, 0, 0] = 0.0, 1e6  # nothing at all, and one number that 16 bits have not
    weights = {"a.weight": rows, "b.weight": torch.randn(10, 10, generator=rng), "a.norm": torch.linspace(0, 1e6, 5)}
    save(tmp_path / "x.safetensors", weights, METADATA)
    before, after = shrunk(tmp_path / "x.safetensors", tmp_path / "y.safetensors", bits=8)
    assert after / before < 0.4
    tensors, _ = load(tmp_path / "y.safetensors")
    assert sorted(tensors) == sorted(weights)
    assert tensors["a.weight"].dtype == torch.float32
    assert tensors["b.weight"].dtype == torch.float16  # too few numbers to be worth it
    assert torch.equal(tensors["a.norm"], weights["a.norm"])
    error = (tensors["a.weight"] - rows).flatten(1)
    largest = rows.flatten(1).abs().amax(dim=1)
    usual = [i for i in range(40) if i != 8]
    assert (error.square().mean(dim=1).sqrt()[usual] <= 0.011 * rows.flatten(1).square().mean(dim=1).sqrt()[usual]).all()
    assert (error.abs().amax(dim=1) <= 0.5 * largest).all()
    assert (error[7] == 0).all()
    assert tensors["a.weight"][8, 0, 0, 0] == pytest.approx(1e6, rel=1e-6)


def test_whole_numbers_without_their_factors_are_refused(tmp_path):
    save(tmp_path / "x.safetensors", {"a": torch.ones(3, 2, dtype=torch.int8), "a#factors": torch.ones(2)}, METADATA)
    with pytest.raises(CheckpointError, match=r"a: expected a factor for each row of \[3, 2\], got \[2\]"):
        load(tmp_path / "x.safetensors")


def test_a_matrix_that_16_bits_do_not_hold_is_refused(tmp_path):
    save(tmp_path / "x.safetensors", {"a.weight": torch.full((2, 2), 1e5)}, METADATA)
    with pytest.raises(CheckpointError, match=r"a\.weight: expected numbers up to 65504"):
        shrunk(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()


def test_every_truncation_is_refused(tmp_path):
    save(tmp_path / "good.safetensors", WEIGHTS, METADATA)
    data = (tmp_path / "good.safetensors").read_bytes()
    for length in [*range(0, len(data), 13), len(data) - 1]:
        (tmp_path / "x.safetensors").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            load(tmp_path / "x.safetensors")


def test_changed_numbers_are_found(tmp_path):
    save(tmp_path / "x.safetensors", WEIGHTS, METADATA)
    data = bytearray((tmp_path / "x.safetensors").read_bytes())
    data[-2] ^= 1
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="numbers do not fit their checksum"):
        load(tmp_path / "x.safetensors")


def test_other_files_are_told_apart(tmp_path):
    save_file(WEIGHTS, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="expected a weight file of perception, got another one; convert it"):
        load(tmp_path / "x.safetensors")
    torch.save(WEIGHTS, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"a \.pth file is converted first"):
        load(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="No such file"):
        load(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError):
        load(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '{"format": 2}', '{"format": 1}', '{"format": 1, "notes": 3}', "[" * 100_000],
    ids=["empty", "half", "list", "number", "null", "newer", "keys missing", "wrong type", "nested"],
)
def test_broken_metadata_are_told(text, tmp_path):
    save_file(WEIGHTS, tmp_path / "x.safetensors", {"perception": text})
    with pytest.raises(CheckpointError, match=r"metadata is broken|expected weight format 1, got 2"):
        load(tmp_path / "x.safetensors")
