"""What an import brings along. Seconds depend on the machine, the modules do not: these are what makes an import slow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "pyarrow",
    "numba",
    "pandas",
    "scipy",
    "matplotlib",
    "PIL",
    "pydantic",
    "yaml",
    "orjson",
    "rich",
    "typer",
    "nuscenes",
    "cv2",
}


def modules_after(statement: str) -> set[str]:
    """Names of all modules in a fresh interpreter after `statement`."""
    code = f"import sys, json\nbefore = set(sys.modules)\n{statement}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    return set(json.loads(done.stdout))


def test_import_perception_loads_none_of_its_rooms():
    modules = modules_after("import perception; perception.__version__")
    assert {name for name in modules if name.startswith("perception")} == {"perception"}
    assert "numpy" not in modules
    assert len(modules) < 20, sorted(modules)  # typing and what it needs


def test_import_core_needs_numpy_alone():
    modules = modules_after("import perception.core")
    assert not {name.partition(".")[0] for name in modules} & HEAVY
    assert "numpy" in modules
    assert {".".join(name.split(".")[:2]) for name in modules if name.startswith("perception.")} == {"perception.core"}


@pytest.mark.parametrize("package", ["torch", "pyarrow", "numba", "pandas"])
def test_the_check_sees_a_package_that_is_loaded(package, tmp_path):
    (tmp_path / f"{package}.py").write_text("")
    assert package in modules_after(f"sys.path.insert(0, {str(tmp_path)!r}); import {package}")


def test_unknown_names_are_attribute_errors():
    import perception

    with pytest.raises(AttributeError, match="module 'perception' has no attribute 'nonsense'"):
        _ = perception.nonsense
    assert not hasattr(perception, "__path_to_nowhere__")
