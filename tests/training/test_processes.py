import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from perception.core.errors import UsageError
from perception.detection.pillar_readers import WeightedNorm
from perception.training.processes import Processes
from perception.training.sync_norm import SyncNorm
from tests.training.two_processes import CURVES, STEPS, curve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What two processes over gloo found, by rank."""
    out = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tests/training/two_processes.py"), str(out)]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("kind", CURVES)
def test_two_processes_have_the_losses_of_one_with_the_same_batch(ranks, kind):
    one, found = curve(Processes(), **CURVES[kind]), ranks[0][kind]
    # In float32 sums in another order differ in the fifth digit, and AdamW, which divides by the size of a gradient, makes more of it.
    # What is told of losses is float32.
    first, last, rounding = (1e-4, 5e-2, 0) if kind == "published" else (1e-12, 1e-8, 2e-7)
    assert len(one["losses"]) == STEPS
    assert one["losses"][-1]["loss"] < one["losses"][0]["loss"]
    assert found["norms"][0] == pytest.approx(one["norms"][0], rel=first)
    assert found["norms"] == pytest.approx(one["norms"], rel=last)
    for step, (ours, expected) in enumerate(zip(found["losses"], one["losses"], strict=True)):
        assert ours == pytest.approx(expected, rel=max(last if step else first, rounding)), step
    assert found["samples"] == one["samples"]
    for name, tensor in found["weights"].items():
        if kind != "published":  # statistics of normalisations too, over rows of unequal number
            assert torch.allclose(tensor, one["weights"][name], rtol=1e-6, atol=1e-6), name


def test_processes_end_with_the_same_weights(ranks):
    for key in ("weights", "mean"):
        first, second = (found["published"][key] for found in ranks)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert ranks[0]["published"]["losses"] == ranks[1]["published"]["losses"]
    assert ranks[0]["published"]["random"] == 2


def test_a_loss_that_is_no_number_in_one_process_stops_all(ranks):
    for found in ranks:
        assert "step 2: expected finite losses, got loss nan" in found["failure"]
        assert "sample 3;" in found["failure"]
        assert "sample 2" not in found["failure"]  # that one, of the other process, is sound


def test_words_and_numbers_go_round(ranks):
    assert [found["texts"] for found in ranks] == [["rank 0", "rank 1"]] * 2
    assert [found["of first"] for found in ranks] == [7.0, 7.0]


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def _twins(kind: type[nn.Module], **options) -> tuple[nn.Module, SyncNorm]:
    torch.manual_seed(0)
    norm = kind(3, **options)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    same = kind(3, **options)
    same.load_state_dict(norm.state_dict())
    return norm, SyncNorm(same)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_the_norm_of_one_process_is_torchs(alone, kind):
    norm, ours = _twins(kind, eps=1e-3, momentum=0.2)
    x = (torch.randn((7, 3) if kind is nn.BatchNorm1d else (2, 3, 4, 5)) * 2 + 100).requires_grad_()
    weight = torch.rand(x.shape)
    gradients = [torch.autograd.grad((one(x) * weight).sum(), [x, one.weight, one.bias]) for one in (norm, ours)]
    for expected, found in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
    for name, tensor in norm.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], tensor, rtol=1e-5, atol=1e-5), name
    with torch.no_grad():
        assert torch.allclose(ours.eval()(x), norm.eval()(x), rtol=1e-4, atol=1e-4)


def test_the_norm_counts_rows_that_stand_for_several(alone):
    norm, ours = _twins(WeightedNorm, eps=1e-3, momentum=0.2)
    x, count = torch.randn(4, 3), torch.tensor([1.0, 3.0, 2.0, 1.0])
    written_out = torch.cat([x[i : i + 1].expand(int(n), 3) for i, n in enumerate(count)])  # 7 rows
    expected = norm(written_out)
    assert torch.allclose(ours(x, count), expected[[0, 1, 4, 6]], atol=1e-5)
    assert torch.allclose(ours.running_var, norm.running_var, atol=1e-6)
    plain, _ = _twins(WeightedNorm, eps=1e-3, momentum=0.2)
    assert torch.allclose(plain(x, count), expected[[0, 1, 4, 6]], atol=1e-5)
    assert torch.allclose(plain.running_var, norm.running_var, atol=1e-6)


def test_a_process_without_a_row_is_no_fault(alone):
    _, ours = _twins(nn.BatchNorm1d)
    assert ours(torch.zeros(0, 3)).shape == (0, 3)
    assert ours.running_mean.isfinite().all()


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(UsageError, match="device"):
        Processes(name)


def test_one_process_needs_nobody():
    one = Processes()
    tensor = torch.ones(3)
    assert (one.rank, one.count, one.is_first) == (0, 1, True)
    assert one.sum(tensor) is tensor
    assert one.gather(tensor) == [tensor]
    assert one.gather_texts(["a"]) == ["a"]
    assert one.of_first(2.5) == 2.5
