"""Published histories on many processes: the bits of one process."""

import numpy as np
import pytest

from pint.comm import world
from tests.histories import CASES, same_as_published, solve

COMM = world()


@pytest.mark.parametrize("driver", ["loop", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_histories_do_not_depend_on_the_number_of_ranks(name, driver):
    parallel, serial = solve(CASES[name], driver, COMM), solve(CASES[name], driver)
    assert same_as_published(CASES[name], parallel.residuals)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.gather(), serial.u)
    assert parallel.status is serial.status
