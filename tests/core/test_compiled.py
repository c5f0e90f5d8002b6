import os
import subprocess
import sys

import pytest

from perception.core.compiled import compiled
from tests.conftest import ROOT

CODE = """
import numba.core.caching as caching
from unittest.mock import patch

def none(cls, py_func, py_file):
    return None

for locator in caching.CacheImpl._locator_classes:
    locator.from_function = classmethod(none)
from perception.core.compiled import compiled

@compiled(nogil=True)
def twice(x):
    return 2 * x

print(twice(21), bool(twice.signatures))
"""


def test_without_a_place_for_a_cache_loops_are_compiled_all_the_same(tmp_path):
    """A read-only package and no home, as in a container that runs as a user of its own."""
    run = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert run.stdout == "42 True\n", run.stderr


def test_what_cannot_be_compiled_raises():
    with pytest.raises(Exception, match=r"(?i)unknown|invalid|undefined|typing|untyped"):
        compiled("int64(int64)")(lambda x: x.no_such_attribute)
