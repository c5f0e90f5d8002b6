"""`perception doctor`: every extra is covered, and whatever is missing or broken becomes a row, never a crash."""

import importlib
import importlib.metadata
import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from packaging.requirements import Requirement
from rich.console import Console
from typer.testing import CliRunner

from perception.core.errors import DETECTRON2_COMMAND, torchvision_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

module = importlib.import_module("perception.cli.doctor")
ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def fake_torch(version="2.13.0+cu126", cuda="12.6", sees_gpu=True):
    return SimpleNamespace(__version__=version, version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(is_available=lambda: sees_gpu))


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setattr(module, "examine_torch", lambda: module.Torch("missing", "not installed", "{}"))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)


@pytest.fixture
def hide(monkeypatch):
    """Make distributions and modules disappear from metadata and find_spec."""
    find_spec, version = importlib.util.find_spec, importlib.metadata.version

    def hide(*, modules=(), distributions=()):
        def version_without(name):
            if name in distributions:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in modules else find_spec(name, *rest))
        monkeypatch.setattr(importlib.metadata, "version", version_without)

    return hide


@pytest.fixture
def record(monkeypatch):
    """Make distributions appear: {distribution: (version, module)}."""

    def record(packages):
        def version(name):
            if name in packages:
                return packages[name][0]
            raise importlib.metadata.PackageNotFoundError(name)

        modules = {module for _, module in packages.values()}
        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: object() if name in modules else None)

    return record


def wanted_names(texts):
    """Names in pyproject.toml that hold on Linux for this Python or for an older one; nested extras of our own are left out."""
    requirements = [Requirement(text) for text in texts]
    environment = {"sys_platform": "linux", "platform_machine": "x86_64"}
    python = "3.11" if sys.version_info < (3, 12) else "3.12"
    return {
        r.name
        for r in requirements
        if r.name != "perception" and (r.marker is None or r.marker.evaluate({**environment, "python_version": python}))
    }


def test_every_extra_of_pyproject_is_covered_and_no_other():
    assert set(module.EXTRAS) == set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_an_extra_has_the_packages_that_pyproject_names(extra):
    assert {package.name for package in module.EXTRAS[extra]} == wanted_names(PROJECT["optional-dependencies"][extra])


def test_the_dependencies_are_those_of_pyproject():
    assert {package.name for package in module.DEPENDENCIES} == wanted_names(PROJECT["dependencies"])


def test_every_part_of_every_extra_has_a_row(no_torch, no_gpu):
    report = module.examine()
    for extra, packages in module.EXTRAS.items():
        for package in packages:
            row = report.row(f"extra {extra}", package.name)
            assert row.state in ("ok", "missing", "problem", "info")
            assert row.detail
            assert (row.state in ("ok", "info")) == (row.remedy == "")
    with pytest.raises(KeyError):
        report.row("extra models", "nonsense")


def test_what_is_installed_has_its_version(no_torch, no_gpu):
    report = module.examine()
    for package in module.DEPENDENCIES:
        row = report.row("dependencies", package.name)
        assert (row.state, row.detail) == ("ok", importlib.metadata.version(package.name))
    assert report.row("system", "Python").detail.startswith(".".join(map(str, sys.version_info[:3])))
    assert re.fullmatch(r"\d+ usable of \d+", report.row("system", "cores").detail)


def test_a_missing_package_names_its_extra(no_torch, no_gpu, hide):
    hide(modules=["motmetrics", "rosbags"], distributions=["motmetrics", "rosbags"])
    report = module.examine()
    row = report.row("extra eval", "motmetrics")
    assert (row.state, row.detail, row.remedy) == ("missing", "not installed", "pip install 'perception[eval]'")
    assert report.row("extra drives", "rosbags").remedy == "pip install 'perception[drives]'"
    assert report.row("extra eval", "nuscenes-devkit").state == "ok"


def test_a_package_whose_module_is_gone_is_a_problem(no_torch, no_gpu, hide):
    hide(modules=["motmetrics"])
    row = module.examine().row("extra eval", "motmetrics")
    assert row.state == "problem"
    assert "1.4.0 is recorded, but its module is gone" in row.detail
    assert row.remedy == "pip install --force-reinstall motmetrics"


def test_numba_missing_takes_the_trackers_kernel_away(no_torch, no_gpu, hide):
    hide(modules=["numba"], distributions=["numba"])
    report = module.examine()
    assert report.row("dependencies", "numba").state == "missing"
    assert report.row("backends", "tracker kernel").state == "problem"


def test_torch_missing_is_named_in_both_of_its_extras(no_torch, no_gpu):
    report = module.examine()
    assert report.row("extra models", "torch").remedy == "pip install 'perception[models]'"
    assert report.row("extra fusion", "torch").remedy == "pip install 'perception[fusion]'"


def test_detectron2_is_no_extra_and_comes_with_its_command(no_torch, no_gpu, record):
    record({})
    row = module.examine().row("extra fusion", "detectron2")
    assert (row.state, row.remedy) == ("missing", DETECTRON2_COMMAND)
    assert "git+https://github.com/facebookresearch/detectron2.git" in DETECTRON2_COMMAND


@pytest.mark.parametrize(
    ("torch", "command"),
    [
        pytest.param("2.13.0+cpu", "pip install 'torchvision==0.28.*' --index-url https://download.pytorch.org/whl/cpu", id="CPU build"),
        pytest.param("2.9.1+cu126", "pip install 'torchvision==0.24.*' --index-url https://download.pytorch.org/whl/cu126", id="CUDA"),
        pytest.param("2.14.1", "pip install 'torchvision==0.29.*'", id="no build told"),
        pytest.param("2.14.0a0+git1f2e", "pip install 'torchvision==0.29.*'", id="built from source"),
        pytest.param("", "pip install 'torchvision'", id="no torch"),
    ],
)
def test_the_torchvision_that_belongs_to_a_torch(torch, command):
    assert torchvision_command(torch) == command


def test_torchvision_is_no_extra_and_comes_with_its_command(monkeypatch, no_gpu, record):
    record({})
    monkeypatch.setattr(module, "examine_torch", lambda: module.Torch("ok", "2.13.0+cpu, CPU build", version="2.13.0+cpu"))
    row = module.examine().row("extra fusion", "torchvision")
    assert (row.state, row.detail, row.remedy) == ("missing", "not installed", torchvision_command("2.13.0+cpu"))


def test_a_torchvision_of_another_build_is_a_problem(monkeypatch, no_gpu, record):
    record({"torchvision": ("0.28.0", "torchvision")})
    found = {"ok": module.Torch("ok", "2.13.0+cpu, CPU build", version="2.13.0+cpu"), "missing": module.Torch("missing", "", "{}")}

    def load(name):
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    row = module.torchvision_row("extra fusion", found["missing"])
    assert (row.state, row.detail) == ("ok", "0.28.0")  # nothing is imported without torch
    monkeypatch.setattr(module, "import_module", lambda _name: None)
    assert module.torchvision_row("extra fusion", found["ok"]).state == "ok"
    monkeypatch.setattr(module, "import_module", load)
    row = module.torchvision_row("extra fusion", found["ok"])
    assert row.state == "problem"
    assert row.detail == "0.28.0 does not work beside torch 2.13.0+cpu: RuntimeError: operator torchvision::nms does not exist"
    assert row.remedy.endswith("whl/cpu --force-reinstall --no-deps")


@pytest.mark.parametrize(
    ("installed", "detail"),
    [
        pytest.param({"spconv-cu120": ("2.3.6", "spconv")}, "2.3.6", id="cu120"),
        pytest.param({"spconv-cu126": ("2.3.8", "spconv")}, "2.3.8 (spconv-cu126)", id="another build counts"),
        pytest.param({"spconv": ("2.3.8", "spconv")}, "2.3.8 (CPU build, not used for results)", id="CPU build is told"),
    ],
)
def test_any_build_of_spconv_is_recognised(record, installed, detail):
    record(installed)
    row = module.package_row("extra cuda", module.Package("spconv-cu120", "spconv"), "-")
    assert (row.state, row.detail) == ("ok", detail)


def test_what_has_no_file_here_is_not_asked_for(record, monkeypatch):
    record({})
    assert module.package_row("g", module.Package("open3d", below_python=(3, 9)), "pip ...").remedy == ""
    assert module.package_row("g", module.Package("open3d", below_python=(9, 9)), "pip ...").remedy == "pip ..."
    monkeypatch.setattr(sys, "platform", "darwin")
    row = module.package_row("g", module.Package("spconv-cu120", "spconv", only_linux=True), "pip ...")
    assert (row.state, row.detail, row.remedy) == ("info", "no files for darwin, Linux only", "")


@pytest.mark.parametrize("error", [ImportError, ValueError])
def test_half_installed_packages_do_not_crash_the_search(monkeypatch, error):
    def broken(_name):
        raise error("no __spec__")

    monkeypatch.setattr(importlib.util, "find_spec", broken)
    assert module.is_importable("torch") is False


@pytest.mark.parametrize(
    "error", [OSError("libcudart.so.12: cannot open\nsecond line"), ImportError("numpy"), RuntimeError("x"), AttributeError("y")]
)
def test_a_broken_torch_is_a_row(monkeypatch, no_gpu, error):
    def broken(name):
        assert name == "torch"
        raise error

    monkeypatch.setattr(module, "is_importable", lambda _name: True)
    monkeypatch.setattr(module, "import_module", broken)
    row = module.examine().row("extra models", "torch")
    assert row.state == "problem"
    assert row.detail == f"does not import: {type(error).__name__}: {error}".splitlines()[0]
    assert row.remedy == "pip install --force-reinstall torch"


@pytest.mark.parametrize(
    ("torch", "state", "detail"),
    [
        pytest.param(fake_torch(), "ok", "2.13.0+cu126, built for CUDA 12.6", id="CUDA build"),
        pytest.param(fake_torch("2.9.0", None, False), "ok", "2.9.0, CPU build", id="CPU build"),
        pytest.param(fake_torch("2.8.1"), "problem", "2.8.1, built for CUDA 12.6: expected 2.9 or newer", id="old"),
        pytest.param(SimpleNamespace(), "problem", "does not import: AttributeError: ", id="a folder called torch"),
    ],
)
def test_torch_tells_its_build(monkeypatch, torch, state, detail):
    monkeypatch.setattr(module, "is_importable", lambda _name: True)
    monkeypatch.setattr(module, "import_module", lambda _name: torch)
    found = module.examine_torch()
    assert found.state == state
    assert found.detail.startswith(detail)


def torch_for(cuda, sees_gpu=True):
    return module.Torch("ok", "2.13.0", "", cuda, sees_gpu)


@pytest.mark.parametrize(
    ("torch", "driver", "state", "detail"),
    [
        pytest.param(torch_for("12.6"), "12.8", "ok", "match: torch is built for CUDA 12.6, the driver reaches 12.8", id="newer driver"),
        pytest.param(torch_for("12.6"), "12.2", "ok", "match: .* 12.6, .* 12.2", id="older minor version of the same major"),
        pytest.param(torch_for("12.6"), "13.0", "ok", "match: .* 12.6, .* 13.0", id="newer major"),
        pytest.param(
            torch_for("13.0"), "12.8", "problem", "mismatch: torch is built for CUDA 13.0, the driver reaches 12.8", id="mismatch"
        ),
        pytest.param(torch_for("12.6", False), "12.8", "problem", "yet torch sees no GPU", id="GPU hidden"),
        pytest.param(torch_for(None), "12.8", "problem", "torch is a CPU build beside a GPU", id="CPU build"),
        pytest.param(torch_for("12.6"), None, "info", "the driver does not say", id="driver silent"),
        pytest.param(module.Torch("missing", "", "{}"), "12.8", "missing", "torch is not installed", id="no torch"),
        pytest.param(module.Torch("problem", "OSError"), "12.8", "problem", "unknown, torch does not import", id="broken torch"),
    ],
)
def test_cuda_of_torch_against_the_driver(torch, driver, state, detail):
    row = module.cuda_match_row(torch, driver)
    assert row.state == state
    assert re.search(detail, row.detail)
    assert (row.remedy == "") == (state in ("ok", "info"))
    assert "\n" not in row.detail


NVIDIA_SMI = """#!/bin/sh
if [ "$1" = "" ]; then
  echo "| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4     |"
else
  echo "NVIDIA H100 80GB HBM3, 550.54.15, 81559 MiB"
fi
"""


def put_nvidia_smi(folder: Path, text: str, monkeypatch):
    program = folder / "nvidia-smi"
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_driver_is_asked_and_compared(tmp_path, monkeypatch):
    put_nvidia_smi(tmp_path, NVIDIA_SMI, monkeypatch)
    card, driver, match = module.gpu_rows(torch_for("13.0"))
    assert (card.state, card.detail) == ("ok", "NVIDIA H100 80GB HBM3, 550.54.15, 81559 MiB")
    assert (driver.state, driver.detail) == ("ok", "reaches CUDA 12.4, cards: 1")
    assert (match.state, match.detail) == ("problem", "mismatch: torch is built for CUDA 13.0, the driver reaches 12.4")
    assert match.remedy == "update the driver, or install a torch built for CUDA 12"


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 9\n", "this is no program\0"], ids=["fails", "does not start"])
def test_a_driver_that_fails_is_a_row(tmp_path, monkeypatch, text):
    put_nvidia_smi(tmp_path, text, monkeypatch)
    (row,) = module.gpu_rows(torch_for("12.6"))
    assert row.state == "problem"
    assert row.detail.startswith("nvidia-smi fails: ")
    assert row.remedy


def test_a_torch_for_cuda_without_a_driver_is_told(no_gpu):
    driver, match = module.gpu_rows(torch_for("12.6"))
    assert "everything runs on the CPU" in driver.detail
    assert match.detail == "torch is built for CUDA 12.6, there is no driver for it"


@pytest.mark.parametrize(
    ("text", "model", "flags"),
    [
        pytest.param(
            "processor : 0\nmodel name : Big 9000\nflags : fpu avx2 fma\n\nmodel name : other\n",
            "Big 9000",
            {"fpu", "avx2", "fma"},
            id="x86",
        ),
        pytest.param("processor : 0\nFeatures : fp asimd\n", None, {"fp", "asimd"}, id="ARM names no model"),
        pytest.param(None, None, set(), id="no such file"),
    ],
)
def test_cpu_is_read_from_proc(tmp_path, text, model, flags):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    found_model, found_flags = module.cpu_model_and_flags(path)
    assert found_flags == flags
    assert found_model == model if model else found_model


def test_features_that_matter_are_spelt_out(monkeypatch):
    monkeypatch.setattr(module, "cpu_model_and_flags", lambda: ("Big 9000", frozenset({"avx2"})))
    (cpu,) = [row for row in module.system_rows() if row.part == "CPU"]
    assert cpu.detail == "Big 9000; avx2 yes, fma no, avx512f no"
    monkeypatch.setattr(module, "cpu_model_and_flags", lambda: ("M9", frozenset()))
    (cpu,) = [row for row in module.system_rows() if row.part == "CPU"]
    assert cpu.detail == "M9; features unknown"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\nHugePages_Total: 0\n", "2.0 GiB, 1.0 GiB free"),
        ("MemTotal: lots\nMemAvailable: 3 kB", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_memory_is_read_from_proc(tmp_path, text, expected):
    path = tmp_path / "meminfo"
    if text is not None:
        path.write_text(text)
    assert module.memory_text(path) == expected


def test_operators_are_reported_with_their_threads(monkeypatch):
    from cuda_ops import arrays

    monkeypatch.setattr(arrays, "num_threads", lambda: 3)
    rows = {row.part: row for row in module.backend_rows()}
    assert (rows["operators"].state, rows["operators"].detail) == ("ok", "C++ on 3 threads")


@pytest.mark.parametrize(("is_built", "state", "detail"), [(True, "ok", "CUDA"), (False, "info", "not built: no CUDA compiler")])
def test_operators_on_a_gpu_are_there_or_not(monkeypatch, is_built, state, detail):
    from cuda_ops import arrays

    def cuda_module():
        if not is_built:
            raise ValueError("cuda_ops: expected tensors on the CPU")

    monkeypatch.setattr(arrays, "cuda_module", cuda_module)
    rows = {row.part: row for row in module.backend_rows()}
    assert rows["operators on a GPU"].state == state
    assert rows["operators on a GPU"].detail.startswith(detail)


def test_operators_that_do_not_load_are_a_problem_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda_ops.arrays", None)  # what importing it then gives is an ImportError
    monkeypatch.delattr(sys.modules["cuda_ops"], "arrays")
    row = {row.part: row for row in module.backend_rows()}["operators"]
    assert (row.state, row.remedy) == ("problem", "pip install --force-reinstall perception")
    assert row.detail.startswith("not built: ")


def test_remedies_are_printed_whole_whatever_the_width():
    long = "pip install " + "x" * 200
    report = module.Report(
        (module.Row("extra [a]", "one", "missing", "not [b]installed", long), module.Row("g", "two", "missing", "", long))
    )
    out = io.StringIO()
    module.print_report(report, Console(file=out, width=60))
    assert f"  {long}  # one, two\n" in out.getvalue()  # on one line, each command once
    assert "extra [a]" in out.getvalue()  # brackets are text, not markup
    assert "not [b]installed" in out.getvalue()


def test_nothing_to_mend_prints_no_heading():
    out = io.StringIO()
    module.print_report(module.Report((module.Row("g", "one", "ok", "1.0"),)), Console(file=out))
    assert "To mend" not in out.getvalue()


def test_the_command_exits_with_0(no_torch, no_gpu):
    app = typer.Typer()
    app.command()(module.doctor)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [])
    assert result.exit_code == 0, result.output
    for text in ("Python", "numpy", "extra models", "pip install 'perception[models]'", "C++ on"):
        assert text in result.output
    assert "Example: perception doctor" in CliRunner().invoke(app, ["--help"]).output


def run_doctor(extra_path: Path) -> tuple[int, str, set[str]]:
    code = (
        f"import sys; sys.path.insert(0, {str(extra_path)!r})\n"
        "from perception.cli.doctor import doctor; doctor()\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    table, _, loaded = done.stdout.partition("LOADED ")
    return done.returncode, table + done.stderr, set(loaded.split())


def test_a_broken_torch_in_a_real_process(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libtorch_cpu.so: undefined symbol')")
    code, output, _ = run_doctor(tmp_path)
    assert code == 0, output
    assert "does not import" in output
    assert "pip install --force-reinstall torch" in output


def test_no_heavy_package_is_imported(tmp_path):
    # What makes it slow, said in modules: seconds depend on the machine. torch alone is asked for its CUDA; here a light one answers.
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('not today')")
    code, output, loaded = run_doctor(tmp_path)
    assert code == 0, output
    assert not loaded & {"torch", "numba", "scipy", "pandas", "pyarrow", "nuscenes", "cv2", "motmetrics"}
