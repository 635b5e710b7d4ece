"""Residual norms: the correctly rounded sum, however the terms are split over ranks."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pint.drivers import operations as sweeps
from pint.parallel.comm import SerialCommunicator
from pint.parallel.exact_sum import exact_sum, integer_digits, squared_norms

LARGEST = np.finfo(np.float64).max
LEAST = 5e-324
TERMS = st.lists(st.floats(min_value=0, allow_infinity=False), max_size=40)
LIKE_SIZED = st.lists(st.floats(1e-3, 1e3), max_size=200)
ONE = SerialCommunicator()


class Terms(SerialCommunicator):
    """Notes what a rank sends; then answers with the sum of what all ranks sent."""

    def __init__(self):
        self.sent = []
        self.noting = True

    def sum(self, array):
        if self.noting:
            self.sent.append(array)
        return np.sum(self.sent, axis=0)


@pytest.fixture(params=[integer_digits, sweeps.integer_digits], ids=["numpy", "compiled"])
def digits_of(request):
    return request.param


def sums_on_ranks(blocks, digits_of):
    """Return what each rank gets when the terms are split into `blocks`."""
    comm = Terms()
    for block in blocks:
        exact_sum(digits_of(block), comm)
    comm.noting = False
    return [exact_sum(digits_of(block), comm) for block in blocks]


def fsum(values):
    """The reference: Python's correctly rounded sum; inf where it overflows."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TERMS)
@example([])
@example([0.0, -0.0])
@example([LEAST, LEAST, LEAST])
@example([LARGEST, LEAST])
@example([LARGEST, LARGEST])
@example([1.0, 2.0**-53])
@example([1.0, 2.0**-53, LEAST])
@example([1.0, 2.0**-52, 2.0**-53])
@example([2.0**-1022, LEAST])
def test_sum_is_correctly_rounded(digits_of, values):
    assert exact_sum(digits_of(np.array(values, dtype=np.float64)), ONE) == fsum(values)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LIKE_SIZED)
def test_sum_of_terms_of_like_size_is_correctly_rounded(digits_of, values):
    assert exact_sum(digits_of(np.array(values, dtype=np.float64)), ONE) == math.fsum(values)


def test_many_terms(digits_of):
    values = np.random.default_rng(3).random(50_000) ** 8
    assert exact_sum(digits_of(values), ONE) == math.fsum(values)
    exact = sum(map(Fraction, values.tolist()))
    assert exact_sum(digits_of(values), ONE) == float(exact)


def test_many_equal_terms_fill_one_bin(digits_of):
    values = np.full(100_000, np.nextafter(1.0, 0.0))
    assert exact_sum(digits_of(values), ONE) == float(100_000 * Fraction(values[0]))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    TERMS | LIKE_SIZED,
    st.lists(st.integers(0, 200), max_size=6),
    st.randoms(use_true_random=False),
)
@example([0.1] * 9, [3, 6], random.Random(0))  # three rounded sums of 0.1 do not add up
def test_any_split_over_ranks_gives_the_same_bits(digits_of, values, cuts, shuffler):
    shuffler.shuffle(values)
    blocks = np.split(np.array(values, dtype=np.float64), sorted(cuts))
    assert sums_on_ranks(blocks, digits_of) == [fsum(values)] * len(blocks)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([[1.0, math.nan], [2.0]], math.nan),
        ([[1.0], [math.inf, 2.0]], math.inf),
        ([[math.inf], [math.nan]], math.nan),
        ([[math.inf, math.nan], []], math.nan),
        ([[], []], 0.0),
        ([[LARGEST], [LARGEST]], math.inf),
    ],
    ids=["nan", "inf", "nan-and-inf-apart", "nan-and-inf", "empty", "overflow"],
)
def test_terms_that_are_not_finite_reach_every_rank(digits_of, blocks, expected):
    results = sums_on_ranks([np.array(block, dtype=np.float64) for block in blocks], digits_of)
    assert np.array_equal(results, [expected, expected], equal_nan=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
def test_squared_norms(shape, dtype):
    r = np.random.default_rng(1).normal(size=(4, *shape)).astype(dtype)
    norms = squared_norms(r)
    assert norms.dtype == np.float64
    expected = [math.fsum(float(x) ** 2 for x in np.atleast_1d(row).ravel()) for row in r]
    np.testing.assert_allclose(norms, expected, rtol=1e-14)


def test_squared_norms_of_complex_states():
    np.testing.assert_allclose(squared_norms(np.array([[3 + 4j, 0], [1j, 1]])), [25, 2], rtol=1e-14)


def test_squared_norms_of_no_states():
    assert squared_norms(np.zeros((0, 3))).shape == (0,)


def test_squared_norms_of_a_stack_are_those_of_its_states():
    """To the last bit: a rank's stack is as long as the rank is given points."""
    r = np.random.default_rng(2).normal(size=(7, 1000))
    assert squared_norms(r).tolist() == [float(squared_norms(row[None])[0]) for row in r]
