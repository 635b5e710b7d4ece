"""BLAS threads: what the user asked for during a solve, and what they were after it."""

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - Numba loads its BLAS library
import threadpoolctl

from pint import MGRIT, MGRITOptions, Propagator
from pint.models.dahlquist import Dahlquist


def blas_threads():
    pools = threadpoolctl.threadpool_info()
    return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}


class Watching(Propagator):
    """Notes how many threads the BLAS library has when a step is taken."""

    state_shape, dtype = (2,), np.dtype(np.float64)

    def __init__(self, batched):
        self.batched = batched
        self.seen = set()

    def step(self, u, step):
        self.seen |= blas_threads()
        return u / 2


@pytest.fixture(autouse=True)
def three_threads():
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        if blas_threads() != {3}:
            pytest.skip("threadpoolctl finds no BLAS library that takes 3 threads")
        yield


@pytest.mark.parametrize(("threads", "expected"), [(None, 3), (1, 1), (2, 2)])
@pytest.mark.parametrize(("driver", "batched"), [("loop", False), ("loop", True), ("stack", True)])
def test_blas_is_limited_during_a_solve_only(driver, batched, threads, expected):
    model = Watching(batched)
    options = MGRITOptions(driver=driver, threads=threads, max_iterations=1)
    MGRIT(model, np.arange(5.0), options).solve([1.0, 2.0])
    assert model.seen == {expected}
    assert blas_threads() == {3}


@pytest.mark.parametrize(("threads", "expected"), [(None, 3), (1, 1), (2, 1)])
def test_sweeps_on_several_threads_leave_one_to_blas(threads, expected):
    """`step` is tried once before the sweeps, and shows what holds for them."""

    class Both(Dahlquist):
        def step(self, u, step):
            self.seen = blas_threads()
            return super().step(u, step)

    model = Both()
    MGRIT(model, np.arange(9.0), MGRITOptions(threads=threads)).solve(1.0)
    assert model.seen == {expected}


def test_limits_end_with_a_solve_that_fails():
    class Broken(Watching):
        def step(self, u, step):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        MGRIT(Broken(False), np.arange(9.0), MGRITOptions(threads=1)).solve([1.0, 2.0])
    assert blas_threads() == {3}
