"""Exceptions: their exit codes, hints for misspelt names, and optional packages."""

import sys

import pytest

from perception.core import CheckpointError, DataError, MissingPackage, PerceptionError, UsageError
from perception.core.errors import nearest_hint, require_package


@pytest.mark.parametrize(
    ("kind", "code"), [(PerceptionError, 1), (UsageError, 2), (DataError, 3), (CheckpointError, 4), (MissingPackage, 2)]
)
def test_each_kind_has_its_exit_code(kind, code):
    assert kind.exit_code == code
    assert issubclass(kind, PerceptionError)
    assert str(kind("file: expected a, got b")) == "file: expected a, got b"


def test_they_can_be_caught_as_what_python_programmers_expect():
    for kind in (UsageError, DataError, CheckpointError):
        assert issubclass(kind, ValueError)
    assert issubclass(MissingPackage, ImportError)
    assert not issubclass(PerceptionError, ValueError)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("padestrian", "; did you mean 'pedestrian'?"),
        ("cars", "; did you mean 'car'?"),
        ("zebra", ""),
        ("", ""),
        (3, ""),
    ],
)
def test_the_nearest_name_is_proposed_where_one_is_near(name, hint):
    assert nearest_hint(name, ("car", "pedestrian", "bus")) == hint
    assert nearest_hint(name, []) == ""


def test_a_package_that_is_there_is_given():
    import numpy.linalg

    assert require_package("numpy.linalg", extra="models", why="training") is numpy.linalg


def test_a_missing_package_names_the_extra_that_brings_it():
    with pytest.raises(
        MissingPackage,
        match=r"^training needs no_such_package \(ModuleNotFound.*\); install it with: pip install 'perception\[models\]'$",
    ):
        require_package("no_such_package.part", extra="models", why="training")


def test_a_broken_package_is_missing_too_and_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_binary.py").write_text("raise OSError('libcuda.so: cannot open\\nand more')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackage, match=r"drawing needs broken_binary \(OSError: libcuda.so: cannot open\); install") as caught:
        require_package("broken_binary", extra="viz", why="drawing")
    assert isinstance(caught.value.__cause__, OSError)
    assert "broken_binary" not in sys.modules
