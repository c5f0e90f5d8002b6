"""The emulation of CUDA (`make emulate`): kernels with known results, and kernels with faults that it must find."""

import subprocess
import sys

import numpy as np
import pytest

from cuda_ops import _cpu

pytestmark = pytest.mark.skipif(not getattr(_cpu, "emulated", False), reason="tests the emulation of CUDA: make emulate")
SCHEDULES = range(24)


def run(name: str, values: np.ndarray, schedule: int = 0) -> list[int]:
    """The values after kernel `name`; the input is left alone."""
    values = np.array(values, np.int64)
    _cpu.set_schedule(schedule)
    _cpu.selftest(name, values.ctypes.data, len(values))
    return values.tolist()


NUMBERS = np.arange(192) * 7 % 100
REVERSED = NUMBERS.reshape(3, 64)[:, ::-1].ravel().tolist()
IN_WARPS = np.where(np.arange(192) // 32 % 2, NUMBERS, NUMBERS.reshape(6, 32)[:, ::-1].ravel()).tolist()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_barriers_and_shuffles_hold(schedule):
    assert run("reverse", NUMBERS, schedule) == REVERSED
    assert run("reverse warps", NUMBERS, schedule) == IN_WARPS
    halves = NUMBERS.reshape(12, 16).sum(axis=1).repeat(16)
    assert run("sum halves", NUMBERS, schedule) == halves.tolist()
    lanes = NUMBERS.reshape(6, 32)
    same = [sum(1 << int(j) for j in np.flatnonzero(warp == value)) for warp in lanes for value in warp]
    odd = (lanes % 2).sum(axis=1).repeat(32)
    assert run("vote", NUMBERS, schedule) == [(int(count) << 32) + mask for count, mask in zip(odd, same, strict=True)]


@pytest.mark.parametrize(("name", "expected"), [("reverse", REVERSED), ("reverse warps", IN_WARPS)])
def test_a_missing_barrier_shows_in_most_orders(name, expected):
    wrong = sum(run(f"{name} without a barrier", NUMBERS, schedule) != expected for schedule in SCHEDULES)
    assert wrong == len(SCHEDULES)  # half of the values are read before they are written, whatever the order


def test_blocks_come_in_every_order():
    tickets = [tuple(run("tickets", np.zeros(9), schedule)[1:]) for schedule in SCHEDULES]
    assert all(sorted(order) == list(range(8)) for order in tickets)
    assert {tuple(range(8)), tuple(range(7, -1, -1))} < set(tickets)
    assert len(set(tickets)) > 4


def test_the_same_schedule_gives_the_same_orders():
    assert run("reverse without a barrier", NUMBERS, 5) == run("reverse without a barrier", NUMBERS, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unequal barriers", r"unequal_barriers_kernel: threads stand at different barriers, in lines \d+ and \d+"),
        ("barrier and shuffle", r"barrier_and_shuffle_kernel: thread .* waits at the .* for ever"),
        ("not in mask", "not_in_mask_kernel: line .* lane 0 is not in its own mask"),
        ("missing lanes", "missing_lanes_kernel: thread .* waits at the .* in line .* for ever, thread .* at the .* in line"),
        ("too many threads", "vote_kernel: a GPU would refuse these blocks or threads"),
        ("no blocks", "vote_kernel: a GPU would refuse these blocks or threads"),
        ("too much shared memory", "reverse_kernel: 49153 bytes of shared memory were not asked for"),
        ("default stream", "vote_kernel: not on the caller's stream"),
    ],
)
def test_faults_are_said(name, message):
    for schedule in SCHEDULES:
        with pytest.raises(RuntimeError, match=message):
            run(name, NUMBERS, schedule)
    assert run("reverse", NUMBERS) == REVERSED  # and the next launch is a fresh one


@pytest.mark.skipif(not getattr(_cpu, "sanitized", False), reason="built without the address sanitizer: make emulate")
def test_a_step_beyond_shared_memory_ends_the_process():
    program = "import numpy as np; from cuda_ops import _cpu; v = np.zeros(64, np.int64); _cpu.selftest({!r}, v.ctypes.data, 64)"
    ended = [
        subprocess.run([sys.executable, "-c", program.format(name)], capture_output=True, text=True)
        for name in ("reverse", "beyond shared memory")
    ]
    assert ended[0].returncode == 0, ended[0].stderr
    assert ended[1].returncode != 0
    assert "heap-buffer-overflow" in ended[1].stderr
    assert "in beyond_shared_kernel, block 0 0 0, thread 63" in ended[1].stderr


def test_an_operator_without_a_cuda_body_skips():
    with pytest.raises(pytest.skip.Exception, match="no_such_operator has no CUDA body"):
        _cpu.no_such_operator(1, 2)
