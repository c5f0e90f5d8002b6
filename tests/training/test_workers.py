"""Work ahead in processes: results in order, errors with their number, and nobody stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perception.core import DataError
from perception.training.workers import Workers
from tests.training import feed_makers as makers


def is_alive(process_id: int) -> bool:
    """Whether a process runs; one that has ended but was not asked for its exit code does not."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def has_ended(process_ids: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while any(map(is_alive, process_ids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(is_alive, process_ids))


def opened(work, *, workers=1, ahead=4, first=0):
    return Workers(work, int, what="scene", workers=workers, ahead=ahead, first=first)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_whoever_is_first(workers):
    with opened(makers.doubled, workers=workers, first=5) as team:
        assert [team.take() for _ in range(8)] == [10, 12, 14, 16, 18, 20, 22, 24]
        assert team.next_number == 13
        assert team.wait_seconds > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_seek_goes_on_elsewhere(workers):
    with opened(makers.doubled, workers=workers) as team:
        assert team.take() == 0
        team.seek(100)
        assert [team.take(), team.take()] == [200, 202]
        team.seek(1)
        assert [team.take(), team.take()] == [2, 4]


def test_results_of_before_a_seek_take_no_room():
    with opened(makers.doubled, workers=2, ahead=2) as team:
        team.take()
        team.seek(100)
        assert team.take() == 200
        time.sleep(0.5)
        assert min(team._arrived) == 101


def test_what_has_arrived_is_taken_once():
    with opened(makers.doubled, workers=2, ahead=3) as team:
        found = team.take_arrived(7)  # more than may wait at a time
        while not {0, 2, 4, 6, 8, 10} <= set(found):
            found += team.take_arrived()
    assert len(set(found)) == len(found) >= 7


def test_nobody_works_further_ahead_than_asked():
    with opened(makers.doubled, workers=1, ahead=2) as team:
        assert team.take() == 0
        time.sleep(1)
        assert sorted(team._arrived) == [1, 2]


def take_five(work, workers):
    with opened(work, workers=workers) as team:
        return [team.take() for _ in range(5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_with_its_number(workers):
    with pytest.raises(RuntimeError, match=r"^scene 3: ZeroDivisionError: one third of nothing"):
        take_five(makers.fails_at_three, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_expected_error_stays_what_it_is(workers):
    with pytest.raises(DataError, match=r"^000003\.bin: cut short$"):
        take_five(makers.bad_data_at_three, workers)


def test_a_process_that_is_gone_is_missed():
    with pytest.raises(RuntimeError, match="scene 3: its worker process ended with exit code 7"):
        take_five(makers.dies_at_three, 1)


def test_workers_have_one_thread_and_no_gpu(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with opened(makers.surroundings) as team:
        assert team.take() == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    assert (os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]) == ("2", "0")


def test_closing_leaves_no_process():
    team = opened(makers.sleeps, workers=2)
    ids = team.process_ids
    assert len(ids) == 2
    team.close()
    assert has_ended(ids)
    team.close()
    with pytest.raises(RuntimeError, match="after the workers were closed"):
        team.take()


_SCRIPT = """
import sys, time
from perception.training.workers import Workers
from tests.training import feed_makers as makers
if __name__ == "__main__":
    team = Workers(makers.doubled if sys.argv[1] == "ends" else makers.sleeps, int, what="scene", workers=2, ahead=2)
    if sys.argv[1] == "ends":
        team.take()
    print(*team.process_ids, flush=True)
    time.sleep(0 if sys.argv[1] == "ends" else 60)
"""


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_workers_end_with_the_process_that_started_them(how, tmp_path):
    script, root = tmp_path / "script.py", Path(__file__).parents[2]
    script.write_text(_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, str(script), how], stdout=subprocess.PIPE, text=True, env=environment, cwd=root) as parent:
        assert parent.stdout is not None
        ids = [int(word) for word in parent.stdout.readline().split()]
        assert len(ids) == 2
        if how == "is killed":
            parent.send_signal(signal.SIGKILL)
        parent.wait(20)
    assert has_ended(ids)
