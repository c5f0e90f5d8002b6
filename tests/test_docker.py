"""The images, as far as they can be checked where no Docker engine runs.

The Dockerfiles are parsed (instructions, continuation lines, comments) and compared with the tree, .dockerignore, the Makefile and
pyproject.toml. `problems` lists what is wrong; every kind of problem has an example below that must be found.
"""

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = ("docker/Dockerfile.cpu", "docker/Dockerfile.cuda")
# What `make install` and `make test` read inside of the image.
NEEDED = (
    "CMakeLists.txt",
    "Makefile",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "perception",
    "cuda_ops",
    "configs",
    "tests",
    "tools",
    "docker",
    ".dockerignore",
)
INSTRUCTIONS = re.compile(r"ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR")


@dataclass(frozen=True)
class Instruction:
    word: str  # upper case
    text: str  # the rest, continuation lines joined


@dataclass(frozen=True)
class Tree:
    """What the Dockerfiles are compared with."""

    files: frozenset[str]  # folders and files of the build context, relative
    ignore: str
    makefile: str
    pyproject: dict


def parse(text: str) -> list[Instruction]:
    """Instructions in order; raises ValueError for a word that Docker does not know and for a file that ends in a continuation."""
    found, pending = [], ""
    for line in text.splitlines():
        if line.strip().startswith("#") or (pending and not line.strip()):  # comments may stand between continuation lines
            continue
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1].rstrip() + " "
            continue
        if pending:
            word, _, rest = pending.partition(" ")
            if not INSTRUCTIONS.fullmatch(word.upper()):
                raise ValueError(f"unknown instruction {word}")
            found.append(Instruction(word.upper(), rest.strip()))
        pending = ""
    if pending:
        raise ValueError("the file ends in a continuation line")
    return found


def is_ignored(path: str, ignore: str) -> bool:
    """Whether .dockerignore keeps `path` out: the last pattern that matches it or a folder above it decides."""
    above = ["/".join(path.split("/")[: i + 1]) for i in range(path.count("/") + 1)]
    ignored = False
    for line in ignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keep = pattern.startswith("!")
        pattern = pattern.lstrip("!").strip("/").removeprefix("./")
        if any(re.fullmatch(_as_regex(pattern), part) for part in above):
            ignored = not keep
    return ignored


def _as_regex(pattern: str) -> str:
    """Docker's pattern: `*` and `?` stay within a folder, `**` crosses folders."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(parts.get(piece) or re.escape(piece) for piece in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", pattern))


def copy_sources(text: str) -> list[str]:
    """Sources of COPY or ADD in the build context, flags and destination left out; none where it copies from another stage."""
    words = json.loads(text) if text.startswith("[") else shlex.split(text)
    if any(word.startswith("--from=") for word in words):
        return []
    return [word for word in words if not word.startswith("--")][:-1]


def make_targets(makefile: str) -> set[str]:
    return {name for line in re.findall(r"^([A-Za-z][\w .-]*):(?!=)", makefile, re.MULTILINE) for name in line.split()}


def made(command: str) -> list[str]:
    """Targets of all `make` calls in a shell command, flags and variables left out."""
    calls = [shlex.split(part) for part in re.split(r"&&|\|\||;", command)]
    return [word for call in calls if call[:1] == ["make"] for word in call[1:] if not word.startswith("-") and "=" not in word]


def python_of(instructions: list[Instruction]) -> str | None:
    """Python of the image: the base image's tag, or the package that is installed."""
    for instruction in instructions:
        pattern = r"(?:^|/)python:(\d+\.\d+)" if instruction.word == "FROM" else r"\spython(\d+\.\d+)(?=\s|$)"
        found = re.search(pattern, instruction.text) if instruction.word in ("FROM", "RUN") else None
        if found:
            return found[1]
    return None


def pins(instructions: list[Instruction]) -> dict[str, Requirement]:
    """Requirements that `pip install` gets on its command line."""
    found = {}
    for instruction in instructions:
        if instruction.word == "RUN" and "pip install" in instruction.text:
            for word in shlex.split(instruction.text):
                if re.match(r"[A-Za-z][\w.-]*(\[.*\])?(==|>=)", word):
                    found[Requirement(word).name] = Requirement(word)
    return found


def requirements_of(pyproject: dict, python: str) -> dict[str, SpecifierSet]:
    """All requirements of pyproject.toml that hold for this Python on Linux, extras included."""
    project = pyproject["project"]
    # The extras of users: what tests and benchmarks pin for development binds no image.
    extras = {name: texts for name, texts in project["optional-dependencies"].items() if name not in ("test", "bench", "dev")}
    texts = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    wanted: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, texts):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            wanted[requirement.name] = wanted.get(requirement.name, SpecifierSet()) & requirement.specifier
    return wanted


def problems(dockerfile: str, tree: Tree) -> list[str]:
    """Everything that is wrong with a Dockerfile, one line each."""
    instructions = parse(dockerfile)
    runs = [i for i in instructions if i.word == "RUN"]
    return [
        *copy_problems(instructions, tree),
        *(f"make target {t} is not in the Makefile" for r in runs for t in made(r.text) if t not in make_targets(tree.makefile)),
        *user_problems(instructions),
        *version_problems(instructions, tree.pyproject),
        *([] if instructions and instructions[0].word in ("FROM", "ARG") else ["the first instruction is not FROM"]),
        *([] if instructions and instructions[-1] == Instruction("RUN", "make test") else ["the last step does not run `make test`"]),
    ]


def copy_problems(instructions: list[Instruction], tree: Tree) -> list[str]:
    sources = [s for i in instructions if i.word in ("COPY", "ADD") for s in copy_sources(i.text)]
    wrong = []
    for source in (s.removeprefix("./").rstrip("/") for s in sources):
        if source in (".", ""):
            continue
        if source not in tree.files:
            wrong.append(f"COPY source {source} does not exist")
        elif is_ignored(source, tree.ignore):
            wrong.append(f"COPY source {source} is kept out by .dockerignore")
    for needed in NEEDED:
        top = {s.removeprefix("./").split("/")[0] or "." for s in sources}
        if is_ignored(needed, tree.ignore):
            wrong.append(f"{needed} is kept out by .dockerignore")
        elif not top & {".", needed}:
            wrong.append(f"{needed} is not copied")
    return wrong


def user_problems(instructions: list[Instruction]) -> list[str]:
    last_run = max((n for n, i in enumerate(instructions) if i.word == "RUN"), default=0)
    users = [i.text.partition(":")[0] for i in instructions[:last_run] if i.word == "USER"]
    return [] if users and users[-1] not in ("root", "0") else ["no USER but root before the last RUN"]


def version_problems(instructions: list[Instruction], pyproject: dict) -> list[str]:
    python = python_of(instructions)
    if python is None:
        return ["no Python is installed"]
    wrong = []
    allowed = pyproject["project"]["requires-python"]
    if not SpecifierSet(allowed).contains(f"{python}.0"):
        wrong.append(f"Python {python} is not {allowed}")
    wanted = requirements_of(pyproject, python)
    for name, pin in pins(instructions).items():
        if name not in wanted:
            wrong.append(f"{name} is not in pyproject.toml for Python {python}")
            continue
        for specifier in pin.specifier:
            if not wanted[name].contains(Version(specifier.version)):
                wrong.append(f"{name} {specifier.version} is not {wanted[name]}")
    return wrong + cuda_problems(instructions)


def cuda_problems(instructions: list[Instruction]) -> list[str]:
    """One major version of CUDA in the base image, in torch's build and in spconv and cumm; all three are there."""
    base = re.search(r"nvidia/cuda:(\d+)", instructions[0].text)
    if base is None:
        return []
    wrong = []
    for name in ("torch", "spconv", "cumm"):
        build = next((f"{n}{pin.specifier}" for n, pin in pins(instructions).items() if n.split("-")[0] == name), None)
        found = re.search(r"cu(\d+)\d\b", build or "")
        if build is None:
            wrong.append(f"{name} is not installed with a version")
        elif found is None or found[1] != base[1]:
            wrong.append(f"{build} is not built for CUDA {base[1]}")
    return wrong


@pytest.fixture(scope="module")
def tree() -> Tree:
    files = {path.relative_to(ROOT).as_posix() for top in NEEDED for path in [ROOT / top, *(ROOT / top).rglob("*")] if path.exists()}
    makefile = ROOT / "Makefile"
    return Tree(
        files=frozenset(files),
        ignore=(ROOT / ".dockerignore").read_text(),
        makefile=makefile.read_text() if makefile.exists() else "",
        pyproject=tomllib.loads((ROOT / "pyproject.toml").read_text()),
    )


@pytest.mark.parametrize("name", DOCKERFILES)
def test_nothing_is_wrong_with(name, tree):
    assert problems((ROOT / name).read_text(), tree) == []


@pytest.mark.parametrize("needed", NEEDED)
def test_what_the_images_need_exists(needed, tree):
    assert needed in tree.files


def test_the_images_are_those_that_were_asked_for():
    cpu, cuda = (parse((ROOT / name).read_text()) for name in DOCKERFILES)
    assert cpu[0].text.startswith("python:3.11")
    assert cuda[0].text.startswith("nvidia/cuda:12.")
    assert "spconv-cu120" in pins(cuda)
    assert pins(cpu) == {}


def test_secrets_of_the_checkout_and_what_is_built_stay_outside(tree):
    for path in (".git/config", ".venv/bin/python", "perception/core/__pycache__/boxes.pyc", "out/run.json", "a/b/c.partial", "dist/x.whl"):
        assert is_ignored(path, tree.ignore), path


GOOD = """
# a comment
FROM nvidia/cuda:12.6.3-devel-ubuntu22.04
RUN apt-get update && \\
    # a comment between continuation lines
    apt-get install -y make python3.11 python3.11-venv
USER someone
COPY --chown=someone . .
RUN make install
RUN .venv/bin/pip install "torch==2.9.1+cu126" "spconv-cu120==2.3.6" "cumm-cu120==0.4.11"
RUN make test
"""
SMALL = Tree(
    files=frozenset({*NEEDED, "docker/Dockerfile.cpu"}),
    ignore=".git\n",
    makefile="SHELL := bash\n.PHONY: install test\ninstall: .venv\n\tpip install .\ntest lint: install\n\tpytest\n",
    pyproject={
        "project": {
            "requires-python": ">=3.10",
            "dependencies": ["numpy>=1.26"],
            "optional-dependencies": {
                "models": ["torch>=2.9"],
                "cuda": [
                    "spconv-cu120>=2.3.6; python_version < '3.12' and sys_platform == 'linux'",
                    "cumm-cu120>=0.4.5,<0.5; python_version < '3.12'",
                    "spconv-cu126>=2.3.8; python_version >= '3.12'",
                ],
            },
        }
    },
)


def test_the_good_example_is_good():
    assert problems(GOOD, SMALL) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param("COPY --chown=someone . .", "COPY . .\nCOPY models ./", "COPY source models does not exist", id="missing source"),
        pytest.param(
            "COPY --chown=someone . .", 'COPY . .\nCOPY ["Makefile", "assets", "./"]', "COPY source assets does not exist", id="JSON form"
        ),
        pytest.param("COPY --chown=someone . .", "COPY Makefile ./", "pyproject.toml is not copied", id="not all is copied"),
        pytest.param("COPY --chown=someone . .", "COPY --from=other . .", "Makefile is not copied", id="from another stage only"),
        pytest.param("RUN make install", "RUN make -j2 X=1 instal", "make target instal is not in the Makefile", id="make target"),
        pytest.param("USER someone\n", "", "no USER but root before the last RUN", id="no user"),
        pytest.param("USER someone", "USER root", "no USER but root before the last RUN", id="user root"),
        pytest.param("RUN make install", "RUN make install\nUSER 0:0", "no USER but root before the last RUN", id="back to root"),
        pytest.param("RUN make test\n", "", "the last step does not run `make test`", id="no tests"),
        pytest.param("RUN make test\n", "RUN make test\nRUN true\n", "the last step does not run `make test`", id="tests not last"),
        pytest.param("RUN make test\n", "RUN make test || true\n", "the last step does not run `make test`", id="failure swallowed"),
        pytest.param("python3.11 python3.11-venv", "python3.9", "Python 3.9 is not >=3.10", id="old Python"),
        pytest.param(" python3.11 python3.11-venv", "", "no Python is installed", id="no Python"),
        pytest.param(
            "python3.11 python3.11-venv",
            "python3.12",
            "spconv-cu120 is not in pyproject.toml for Python 3.12",
            id="no file for this Python",
        ),
        pytest.param("spconv-cu120==2.3.6", "spconv-cu120==2.3.5", "spconv-cu120 2.3.5 is not >=2.3.6", id="old spconv"),
        pytest.param("cumm-cu120==0.4.11", "cumm-cu120==0.6.3", "cumm-cu120 0.6.3 is not <0.5,>=0.4.5", id="cumm that spconv refuses"),
        pytest.param("torch==2.9.1+cu126", "torch==2.8.0+cu126", "torch 2.8.0+cu126 is not >=2.9", id="old torch"),
        pytest.param("torch==2.9.1+cu126", "torch==2.9.1+cu130", "torch==2.9.1+cu130 is not built for CUDA 12", id="torch of CUDA 13"),
        pytest.param("torch==2.9.1+cu126", "torch==2.9.1", "torch==2.9.1 is not built for CUDA 12", id="torch of unknown CUDA"),
        pytest.param(' "cumm-cu120==0.4.11"', "", "cumm is not installed with a version", id="cumm without a version"),
        pytest.param("cuda:12.6.3", "cuda:13.0.0", "spconv-cu120==2.3.6 is not built for CUDA 13", id="other base"),
        pytest.param("FROM nvidia/cuda:12.6.3-devel-ubuntu22.04", "RUN true", "the first instruction is not FROM", id="no base"),
    ],
)
def test_each_problem_is_found(old, new, problem):
    assert old in GOOD
    assert problem in problems(GOOD.replace(old, new), SMALL)


@pytest.mark.parametrize(
    ("ignore", "problem"),
    [
        pytest.param("*.toml", "pyproject.toml is kept out by .dockerignore", id="star"),
        pytest.param("docker/", "docker is kept out by .dockerignore", id="folder"),
        pytest.param("**/tests", "tests is kept out by .dockerignore", id="anywhere"),
        pytest.param("*\n!Makefile\n!pyproject.toml", "README.md is kept out by .dockerignore", id="all but some"),
    ],
)
def test_a_dockerignore_that_keeps_too_much_out_is_found(ignore, problem):
    small = Tree(SMALL.files, ignore, SMALL.makefile, SMALL.pyproject)
    assert problem in problems(GOOD, small)
    copies_one = GOOD.replace("COPY --chown=someone . .", "COPY . .\nCOPY docker/Dockerfile.cpu ./")
    assert ("COPY source docker/Dockerfile.cpu is kept out by .dockerignore" in problems(copies_one, small)) == (
        "docker" in ignore or "!" in ignore
    )


@pytest.mark.parametrize(
    ("path", "ignore", "expected"),
    [
        ("a/b.pyc", "*.pyc", False),  # `*` stays at the top
        ("a/b.pyc", "**/*.pyc", True),
        ("b.pyc", "**/*.pyc", True),
        ("build/x", "build", True),  # a folder takes what it holds along
        ("a/build/x", "build", False),
        ("a/build/x", "**/build", True),
        ("README.md", "*.md\n!README.md", False),
        ("README.md", "!README.md\n*.md", True),  # the last one decides
        ("axb", "a?b", True),
        ("a.b", "# a.b\n\n", False),
    ],
)
def test_dockerignore_patterns(path, ignore, expected):
    assert is_ignored(path, ignore) is expected


def test_parsing_joins_lines_and_drops_comments():
    assert [i.word for i in parse(GOOD)] == ["FROM", "RUN", "USER", "COPY", "RUN", "RUN", "RUN"]
    assert parse(GOOD)[1].text == "apt-get update && apt-get install -y make python3.11 python3.11-venv"
    assert made("make -s install && FOO=1 true; make test lint V=1") == ["install", "test", "lint"]
    assert make_targets(SMALL.makefile) == {"install", "test", "lint"}


@pytest.mark.parametrize(("text", "message"), [("FROM x\nRUM make", "unknown instruction RUM"), ("FROM x\nRUN a \\\n", "continuation")])
def test_what_docker_would_not_read_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize("path", DOCKERFILES)
def test_pythons_headers_are_there_for_the_build(path):
    """Debian and Ubuntu have them in a package of their own; the images called python bring theirs."""
    text = (ROOT / path).read_text()
    assert "python3.11-dev" in text or "FROM python:" in text
