"""Malicious weight files: nothing in them runs, and none fills the memory."""

import io
import os
import subprocess
import tarfile
import zipfile
from collections import OrderedDict

import pytest
import torch

from perception.core.errors import CheckpointError
from perception.detection.checkpoints import read_source
from tests.detection.checkpoints.files import edited_archive, proof, runs, write_pth

WEIGHTS = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor(4))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


class Custom:
    pass


def test_foreign_objects_are_named_with_the_way_to_strip_them(tmp_path):
    path = write_pth(tmp_path / "x.pth", {"state_dict": WEIGHTS, "meta": {"hook": Custom(), "env": subprocess.Popen}})
    with pytest.raises(CheckpointError) as error:
        read_source(path)
    text = one_line(error)
    assert "Custom" in text
    assert "subprocess.Popen" in text
    assert "refused unopened" in text
    assert "torch.save({'state_dict': c['state_dict']}" in text


@pytest.mark.parametrize("place", ["state_dict", "meta", "top"])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(place, legacy, tmp_path):
    trace = tmp_path / "code ran"
    content = {"state_dict": dict(WEIGHTS), "meta": {}}
    (content if place == "top" else content[place])["x"] = proof(trace)
    path = write_pth(tmp_path / "x.pth", content, legacy=legacy)
    torch.load(path, weights_only=False)
    assert trace.exists()  # the proof works: a careless reader runs it
    trace.unlink()
    with pytest.raises(CheckpointError, match=r"got Python objects: .*open"):
        read_source(path)
    assert not trace.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_not_run_even_where_the_look_at_its_names_failed(legacy, tmp_path, monkeypatch):
    for look in ("names_in_pickle", "names_in_legacy_file"):
        monkeypatch.setattr(f"perception.detection.checkpoints.source.{look}", lambda *_, **__: set())
    trace = tmp_path / "code ran"
    path = write_pth(tmp_path / "x.pth", {"state_dict": {"x": proof(trace)}}, legacy=legacy)
    with pytest.raises(CheckpointError, match=r"Weights only load failed|broken one") as error:
        read_source(path)
    one_line(error)
    assert not trace.exists()


def test_a_bare_pickle_with_code_is_refused_and_not_run(tmp_path):
    import pickle

    trace = tmp_path / "code ran"
    for protocol in range(6):
        data = pickle.dumps({"state_dict": proof(trace)}, protocol=protocol)
        runs(data)
        assert trace.exists()
        trace.unlink()
        (tmp_path / "x.pth").write_bytes(data)
        with pytest.raises(CheckpointError) as error:
            read_source(tmp_path / "x.pth")
        one_line(error)
        assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", id="STACK_GLOBAL"),
        pytest.param(b"(S'true'\nios\nsystem\n.", id="INST"),
        pytest.param(b"(cos\nsystem\nS'true'\no.", id="OBJ"),
        pytest.param(b"\x80\x02\x82\x01)R.", id="EXT1"),
        pytest.param(b"cos\nsystem\n(S'true'\ntR.", id="GLOBAL"),
    ],
)
def test_every_way_to_name_a_function_is_refused(code, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("ran"))
    good = write_pth(tmp_path / "good.pth", dict(WEIGHTS)).read_bytes()
    bad = edited_archive(good, lambda name, data: code if name.endswith("data.pkl") else data)
    (tmp_path / "x.pth").write_bytes(bad)
    with pytest.raises(CheckpointError, match=r"refused unopened"):
        read_source(tmp_path / "x.pth")


def test_a_zip_bomb_is_refused(tmp_path):
    good = write_pth(tmp_path / "good.pth", {"a": torch.zeros(10_000_000)}).read_bytes()
    bomb = edited_archive(good, lambda _, data: data, zipfile.ZIP_DEFLATED)
    assert len(bomb) < len(good) / 500
    (tmp_path / "x.pth").write_bytes(bomb)
    with pytest.raises(CheckpointError, match=r"expected the plain records that torch.save writes"):
        read_source(tmp_path / "x.pth")


def test_records_that_overlap_are_refused(tmp_path):
    data = bytearray(write_pth(tmp_path / "x.pth", {"a": torch.zeros(1000)}).read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(entry.filename for entry in archive.infolist() if entry.filename.endswith("data/0"))
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    data[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") * 2  # sizes in the directory: 2 GiB
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="expected records that fit the file"):
        read_source(tmp_path / "x.pth")


CLAIMS = {  # numbers in the pickle of a tensor of 5: of its storage, of its shape, of its stride
    "storage": lambda data: _replaced(data, b"K\x05", 0),
    "shape": lambda data: _replaced(data, b"K\x05", 1),
    "both": lambda data: _replaced(_replaced(data, b"K\x05", 1), b"K\x05", 0),
    "shape with strides of zero": lambda data: _replaced(data, b"K\x05", 1).replace(b"K\x01\x85", b"K\x00\x85"),
}


def _replaced(data, what, which):
    place = -1
    for _ in range(which + 1):
        place = data.index(what, place + 1)
    return data[:place] + b"J" + (2_000_000_000).to_bytes(4, "little") + data[place + len(what) :]


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_claims_more_than_the_file_has_is_refused(claim, legacy, tmp_path):
    good = write_pth(tmp_path / "x.pth", {"a": torch.arange(5.0)}, legacy=legacy).read_bytes()
    if legacy:
        bad = CLAIMS[claim](good)
    else:
        bad = edited_archive(good, lambda name, data: CLAIMS[claim](data) if name.endswith("data.pkl") else data)
    assert bad != good
    (tmp_path / "x.pth").write_bytes(bad)
    with pytest.raises(CheckpointError) as error:
        read_source(tmp_path / "x.pth")
    one_line(error)


def test_a_tar_archive_is_refused_unopened(tmp_path):
    """torch < 0.1 wrote tar archives, and torch still unpacks them. One may begin with the bytes of a pickle."""
    with tarfile.open(tmp_path / "x.pth", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("aaaa"), io.BytesIO())
    data = bytearray((tmp_path / "x.pth").read_bytes())
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    data[: len(magic)] = magic  # the first member's name
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "x.pth").write_bytes(data)
    assert tarfile.is_tarfile(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="got a tar archive; refused unopened"):
        read_source(tmp_path / "x.pth")


class Doubler(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path):
    torch.jit.script(Doubler()).save(str(tmp_path / "x.pth"))
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_source(tmp_path / "x.pth")
