"""`perception checkpoint` at the command line."""

import pytest

pytest.importorskip("torch", reason="weights need torch")

from perception.cli.main import main
from perception.detection.checkpoints import load
from tests.detection.checkpoints.files import as_det3d, as_openpcdet, proof, random_state, small_settings, write_config, write_pth


@pytest.fixture
def files(tmp_path):
    """A file of OpenPCDet's and the settings of its model."""
    settings = small_settings()
    foreign = {"model_state": as_openpcdet(as_det3d(random_state(settings))), "epoch": 20}
    return write_pth(tmp_path / "in.pth", foreign), write_config(tmp_path / "model.yaml", settings)


def test_convert_then_show(files, tmp_path, capsys):
    source, config = files
    out = tmp_path / "out.safetensors"
    assert main(["checkpoint", "convert", str(source), str(out), "--config", str(config)]) == 0
    printed = capsys.readouterr().out.splitlines()
    state, metadata = load(out)
    num_parameters = sum(v.numel() for n, v in state.items() if n.endswith((".weight", ".bias")))
    assert printed[0] == f"{len(state)} tensors, {num_parameters:,} parameters, all placed"
    assert "openpcdet: by its names" in printed
    assert printed[-1] == str(out)
    assert main(["checkpoint", "show", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{out}: perception, voxels, sparse encoder 4 6 7 8, neck 9 11, 2 tasks of 1 2 classes\n")
    assert f"converted from: in.pth, openpcdet, sha256 {metadata.source_sha256}" in shown
    assert "configuration: model.yaml" in shown
    assert "trainer epoch: 20" in shown
    assert f"{num_parameters:,}" in shown
    assert main(["checkpoint", "shrink", str(out), str(tmp_path / "half.safetensors")]) == 0
    assert capsys.readouterr().out.endswith(f"MB  ({tmp_path / 'half.safetensors'})\n")
    assert sorted(load(tmp_path / "half.safetensors")[0]) == sorted(state)
    assert main(["checkpoint", "shrink", str(out), str(tmp_path / "quarter.safetensors"), "--small"]) == 0
    assert sorted(load(tmp_path / "quarter.safetensors")[0]) == sorted(state)
    assert (tmp_path / "quarter.safetensors").stat().st_size <= (tmp_path / "half.safetensors").stat().st_size


def test_show_a_published_file_with_its_tensors(files, capsys):
    source, _ = files
    assert main(["checkpoint", "show", str(source), "--tensors"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{source}: openpcdet, voxels, sparse encoder 4 6 7 8, ")
    assert "backbone_3d.conv_input.0.weight [4, 3, 3, 3, 5]" in shown
    assert "convention: size l, w, h; rot cos yaw, sin yaw" in shown


@pytest.mark.parametrize("command", ["convert", "show"])
def test_a_malicious_file_is_one_line_and_exit_code_4(command, tmp_path, capsys):
    trace = tmp_path / "code ran"
    source = write_pth(tmp_path / "in.pth", {"state_dict": {"a": proof(trace)}})
    rest = [str(tmp_path / "out.safetensors"), "--config", "centerpoint_voxel0075"] if command == "convert" else []
    assert main(["checkpoint", command, str(source), *rest]) == 4
    error = capsys.readouterr().err
    assert error.startswith(f"error: {source}: expected tensors and plain values, got Python objects: ")
    assert error.count("\n") == 1
    assert not trace.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_misfits_are_exit_code_4_and_a_missing_config_is_2(files, tmp_path, capsys):
    source, _ = files
    arguments = ["checkpoint", "convert", str(source), str(tmp_path / "out.safetensors")]
    assert main([*arguments, "--config", "centerpoint_voxel0075"]) == 4
    assert "of wrong shape: backbone_3d.conv_input.0.weight" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "--config" in capsys.readouterr().err
