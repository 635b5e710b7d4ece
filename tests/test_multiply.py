"""The products of kernels against NumPy's: every way in which tiles can fit, and strides."""

from itertools import product

import numpy as np
import pytest

from pint.simd.products import add_product, multiply

ROWS, COLUMNS = (0, 1, 3, 4, 5, 6, 10, 11, 17), (1, 7, 8, 15, 16, 17, 33, 64, 65, 100, 193, 300)
INNER = (0, 1, 4, 5, 33, 64)
TOLERANCES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 2e-4), (np.float64, 1e-12)]
)
LAYOUTS = pytest.mark.parametrize(
    "layout", ["contiguous", "between other columns", "rows far apart"]
)


def normal(shape, dtype, layout):
    rows, columns = shape
    more = 1000 if layout == "rows far apart" else 5
    a = np.random.default_rng(rows + columns).standard_normal((rows, columns + more)).astype(dtype)
    a = a[:, 2 : columns + 2]
    return np.ascontiguousarray(a) if layout == "contiguous" else a


@TOLERANCES
@LAYOUTS
def test_equals_numpy(dtype, tolerance, layout):
    for rows, inner, columns in product(ROWS, INNER, COLUMNS):
        a, b = normal((rows, inner), dtype, layout), normal((inner, columns), dtype, layout)
        around = np.full((rows + 2, columns), 7, dtype=dtype)
        multiply(a, b, around[1:-1])
        np.testing.assert_allclose(around[1:-1], a @ b, rtol=0, atol=tolerance)
        assert np.all(around[[0, -1]] == 7)  # nothing beside the result is touched


@TOLERANCES
@LAYOUTS
def test_sums_of_products_equal_numpy(dtype, tolerance, layout):
    for count, rows, columns in product((*INNER, 96, 97, 200), ROWS, COLUMNS):
        a, b = normal((count, rows), dtype, layout), normal((count, columns), dtype, layout)
        around = np.full((rows + 2, columns + 2), 7, dtype=dtype)
        sums = np.full((1, columns), 5, dtype=dtype)
        add_product(a, b, around[1:-1, 1:-1], sums)
        np.testing.assert_allclose(sums[0], 5 + b.sum(axis=0), rtol=0, atol=tolerance)
        np.testing.assert_allclose(around[1:-1, 1:-1], 7 + a.T @ b, rtol=0, atol=tolerance)
        around[1:-1, 1:-1] = 7
        assert np.all(around == 7)


@pytest.mark.parametrize("columns", [5, 40, 200])
def test_rows_do_not_depend_on_their_company(columns):
    """Else results would depend on the number of ranks and threads."""
    a, b = normal((23, 70), np.float32, "contiguous"), normal((70, columns), np.float32, "")
    whole = np.empty((23, columns), np.float32)
    multiply(a, b, whole)
    for begin, end in ((0, 1), (1, 3), (3, 7), (7, 12), (12, 23)):
        part = np.empty((end - begin, columns), np.float32)
        multiply(a[begin:end], b, part)
        np.testing.assert_array_equal(part, whole[begin:end])


@pytest.mark.parametrize("rows", [3, 20])
def test_nan_stays_in_its_row(rows):
    a, out = np.ones((rows, 6)), np.zeros((rows, 40))
    a[1, 4] = np.nan
    multiply(a, np.ones((6, 40)), out)
    assert np.isnan(out[1]).all()
    assert np.isfinite(np.delete(out, 1, axis=0)).all()


def test_sums_are_left_out_where_there_is_no_room_for_them():
    a, b, out = np.ones((5, 2)), np.ones((5, 40)), np.zeros((2, 40))
    add_product(a, b, out, np.zeros((0, 40)))
    np.testing.assert_array_equal(out, 5)
