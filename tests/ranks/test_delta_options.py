"""The Delta correction with every other option on many processes: the bits of one process."""

import numpy as np
import pytest

from pint import MGRIT, Delta, MGRITOptions
from pint.grid.layout import Layout
from pint.parallel.comm import world
from tests.engine_models import Swirl, uneven_times
from tests.option_choices import CHOICES, POINTS
from tests.rank_choices import crossed

EVERY = CHOICES | POINTS
START = np.array([0.5, -0.3, 0.8])


@pytest.mark.parametrize(("choice", "delta"), crossed([*EVERY], ["full", 2], of=2))
def test_bits(choice, delta):
    if choice == "local tolerance" and delta == 2:
        return  # refused
    plain = {"levels": 3, "max_iterations": 4, "skip_first_down": False, "driver": "loop"}
    options, times = MGRITOptions(delta=Delta(delta), **plain | EVERY[choice]), uneven_times(41)
    serial = MGRIT(Swirl(0.9), times, options).solve(START)
    parallel = MGRIT(Swirl(0.9), times, options, world()).solve(START)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.gather(), serial.u)


@pytest.mark.parametrize("delta", ["full", 2])
def test_vectors_that_arrive_in_the_middle_of_an_interval_are_moved_on(delta):
    """Every block but the first begins between two C-points, 7 steps apart."""
    num_points = 7 * world().size + 4
    bounds = [0, *(7 * rank + 3 for rank in range(1, world().size)), num_points]
    times = uneven_times(num_points - 1)
    options = MGRITOptions(
        coarsening=7, min_coarse=1, delta=Delta(delta), max_iterations=3, driver="loop"
    )
    serial = MGRIT(Swirl(0.9), times, options).solve(START)
    parallel = MGRIT(Swirl(0.9), times, options, world(), Layout(np.array(bounds))).solve(START)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.gather(), serial.u)
