"""The product of kernels against NumPy's: every way in which tiles can fit, and strides."""

from itertools import product

import numpy as np
import pytest

from pint.rnn.kernels import multiply

ROWS, INNER, COLUMNS = (1, 2, 7, 8, 9, 17), (0, 1, 5, 64), (1, 7, 8, 15, 16, 17, 33, 64, 65, 100)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-12)])
@pytest.mark.parametrize("layout", ["contiguous", "a transposed", "b between other columns"])
def test_equals_numpy(dtype, tolerance, layout):
    rng = np.random.default_rng(0)
    for rows, inner, columns in product(ROWS, INNER, COLUMNS):
        a = rng.standard_normal((rows, inner)).astype(dtype)
        b = rng.standard_normal((inner, columns + 5)).astype(dtype)[:, 2:-3]
        a = np.asfortranarray(a) if layout == "a transposed" else a
        b = b if layout == "b between other columns" else np.ascontiguousarray(b)
        around = np.full((rows + 2, columns), 7, dtype=dtype)
        multiply(a, b, around[1:-1])
        np.testing.assert_allclose(around[1:-1], a @ b, rtol=0, atol=tolerance)
        assert np.all(around[[0, -1]] == 7)  # nothing beside the result is touched


@pytest.mark.parametrize("rows", [3, 20])
def test_nan_stays_in_its_row(rows):
    a, out = np.ones((rows, 6)), np.zeros((rows, 40))
    a[1, 4] = np.nan
    multiply(a, np.ones((6, 40)), out)
    assert np.isnan(out[1]).all()
    assert np.isfinite(np.delete(out, 1, axis=0)).all()
