"""Vectors in kernels: every operation against NumPy, and kernels with vectors of other widths."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from pint.simd.functions import exp
from pint.simd.vectors import (
    VECTOR_BYTES,
    fused,
    lanes,
    load,
    single,
    splat,
    square_root,
    store,
    wide,
)

ROOT = Path(__file__).resolve().parents[1]
FLOATS = [np.float32, np.float64]


@njit
def operate(like, a, b, out):
    """All operations, each in a row of `out`; from the second column on, which is not aligned."""
    for begin in range(1, a.size, lanes(like)):
        x, y = load(like, a, (begin,)), load(like, b, (begin,))
        store(x + y, out, (0, begin))
        store(x - y, out, (1, begin))
        store(x * y, out, (2, begin))
        store(x / y, out, (3, begin))
        store(fused(x, y, splat(like, 0.5)), out, (4, begin))
        store(square_root(x), out, (5, begin))
        store(exp(x), out, (6, begin))


@njit
def zeros(array):
    return wide(array), single(array)


@njit
def by_vectors(a, b, out):
    operate(wide(a), a, b, out)


@njit
def one_by_one(a, b, out):
    operate(single(a), a, b, out)


@njit
def width(a):
    return lanes(wide(a)), lanes(single(a))


@pytest.mark.parametrize("dtype", FLOATS)
def test_operations(dtype):
    """Those that are rounded once equal NumPy's to the last bit, in vectors and one by one."""
    size = 1 + 2 * (VECTOR_BYTES // np.dtype(dtype).itemsize)
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(0.5, 2, size).astype(dtype) for _ in range(2))
    out, singly = (np.full((7, size), np.nan, dtype) for _ in range(2))
    by_vectors(a, b, out)
    one_by_one(a, b, singly)
    np.testing.assert_array_equal(out, singly)
    assert np.isnan(out[:, 0]).all()  # nothing before the first element is touched
    for row, expected in zip(out, (a + b, a - b, a * b, a / b), strict=False):
        np.testing.assert_array_equal(row[1:], expected[1:])
    np.testing.assert_array_equal(out[5, 1:], np.sqrt(a)[1:])
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(out[4, 1:], (a * b + dtype(0.5))[1:], rtol=eps)
    np.testing.assert_allclose(out[6, 1:], np.exp(a)[1:], rtol=4 * eps)


def test_widths():
    assert width(np.zeros(1, np.float32)) == (VECTOR_BYTES // 4, 1)
    assert width(np.zeros(1, np.float64)) == (VECTOR_BYTES // 8, 1)


NARROW = """
import llvmlite.binding
found = llvmlite.binding.get_host_cpu_features()
for name in {without!r}:
    found[name] = False
llvmlite.binding.get_host_cpu_features = lambda: found

from pint.simd import vectors
assert vectors.VECTOR_BYTES == {width}, vectors.VECTOR_BYTES

import numpy as np
from pint import MGRIT, AdjointSolver, MGRITOptions, TimeGrid
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.recurrence import Recurrence

for cell in "implicit", "lstm":
    options = RecurrenceOptions(num_features=3, hidden=21, layers=2, cell=cell, dtype=np.float64)
    model = Recurrence(options, seed=3)
    solver = MGRIT(model, TimeGrid.uniform(0.0, 6.0, 6), MGRITOptions(levels=1))
    model.set_inputs(np.random.default_rng(1).standard_normal((9, 6, 3)))
    result = solver.solve(np.zeros(model.state_shape))
    adjoint = AdjointSolver(solver).solve(result, np.ones(model.state_shape))
    print(*(float(x).hex() for x in (result.u[-1].sum(), np.abs(adjoint.parameter_gradient).sum())))
"""


def sums(width, without, **variables):
    """What the program prints."""
    done = subprocess.run(
        [sys.executable, "-c", NARROW.format(width=width, without=without)],
        env=os.environ | {"PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [float.fromhex(word) for word in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(VECTOR_BYTES < 64, reason="this processor has no vectors of 64 bytes")
def test_narrower_vectors_give_the_same_numbers(tmp_path):
    """As on processors without AVX-512; 21 units are no multiple of any width."""
    expected = sums(64, ())
    got = sums(32, ("avx512f",), NUMBA_CACHE_DIR=str(tmp_path))
    np.testing.assert_allclose(got, expected, rtol=1e-13)
