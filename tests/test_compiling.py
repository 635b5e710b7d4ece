"""The word that is said while kernels are compiled: once, on one rank, and only then."""

from types import SimpleNamespace

import numba
import pytest

from apps.compiling import announced
from pint.parallel.comm import SerialCommunicator


def compile_two():
    """Compile two functions that are in no cache; return their results."""
    return [numba.njit(lambda x, n=n: x + n)(1) for n in (2, 3)]


def test_once(capsys):
    with announced("apps.demo", SerialCommunicator()):
        assert compile_two() == [3, 4]
    error = capsys.readouterr().err
    assert error.startswith("apps.demo: compiling kernels")
    assert error.count("\n") == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_silent_where_nothing_is_compiled_or_on_another_rank(rank, capsys):
    with announced("apps.demo", SimpleNamespace(rank=rank)):
        if rank == 1:
            compile_two()
    compile_two()  # behind the block
    assert capsys.readouterr().err == ""
