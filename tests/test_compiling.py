"""The announcement of compiling: once, on one rank, and only of pint's kernels."""

import os
import subprocess
import sys

import pytest

LINE = "compiling kernels; they are kept for the next time (it can take a minute)\n"
SCRIPT = """
import numba, types
import pint.simd.kernel_cache
def compiled(module, n):
    function = lambda x: x + n
    function.__module__ = module
    return numba.njit(function)(1)
compiled("mine", 1)
print("mine", flush=True)
{before}
assert [compiled("pint.models", 2), compiled("pint.models", 3)] == [3, 4]
"""
CONFIGURED = """
from apps.compiling import announce
from types import SimpleNamespace
announce("apps.demo", SimpleNamespace(rank={rank}))
"""


def said(before="", **variables):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)],
        env={**os.environ, **variables}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stderr


def test_once_from_python():
    assert said() == LINE


@pytest.mark.parametrize(("rank", "line"), [(0, f"apps.demo: {LINE}"), (1, "")])
def test_apps_name_themselves_on_one_rank(rank, line):
    assert said(CONFIGURED.format(rank=rank)) == line


def test_other_ranks_of_a_launcher_are_silent():
    assert said(PMI_RANK="1") == ""
