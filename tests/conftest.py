"""What all tests share: no test touches the home, and tests marked `shared` find the recordings or are skipped with a reason."""

import os
from pathlib import Path

# Workers of pytest-xdist share the cores, and threads that wait for each other spin: before anything loads OpenMP, so also for the
# processes that tests start.
if count := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // int(count), 1)))

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("PERCEPTION_SHARED") or ROOT.parent / "shared")

# Landing must not hang on luck: CI tries the same examples each time, everybody else new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.is_dir():
        return
    skip = pytest.mark.skip(reason=f"needs recordings and oracles, and {SHARED} is not there; PERCEPTION_SHARED names their folder")
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and oracles; for tests marked `shared`."""
    return SHARED


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices and the like go to a folder of the test, in processes that it starts too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
