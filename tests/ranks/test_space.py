"""Ranks in time x space: the bits of one process."""

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Status
from pint.models.heat_in_parts import HeatInParts
from pint.parallel.comm import SerialCommunicator, time_by_space, world

TIMES = np.linspace(0.0, 40 * 0.05 / 18**2, 41)


@pytest.mark.parametrize("all_in_space", [False, True])
@pytest.mark.parametrize(
    "ways",
    [{}, {"coarsest": "pipelined", "cycle": "F"}, {"storage": "c_points", "relax": 0}],
    ids=str,
)
def test_heat_is_that_of_one_process(ways, all_in_space):
    space_ranks = world().size if all_in_space else 2 - world().size % 2
    time, space = time_by_space(world(), space_ranks)
    assert (time.size * space.size, space.size) == (world().size, space_ranks)
    options = MGRITOptions(levels=3, coarsening=(4, 2), tolerance=1e-9, **ways)
    model, alone = HeatInParts(17, space), HeatInParts(17, SerialCommunicator())
    start = np.sin(np.pi * alone.nodes) + np.sin(5 * np.pi * alone.nodes)
    result = MGRIT(model, TIMES, options, time).solve(start[model.part])
    serial = MGRIT(alone, TIMES, options).solve(start)
    assert result.status is serial.status is Status.CONVERGED
    assert np.array_equal(result.residuals, serial.residuals, equal_nan=True)
    whole = np.moveaxis(result.gather(), 0, 1)  # the other axis is joined over space
    assert np.array_equal(space.allgather_blocks(np.ascontiguousarray(whole)).T, serial.gather())


@pytest.mark.parametrize("space_ranks", [0, 8])
def test_ranks_that_do_not_divide(space_ranks):
    with pytest.raises(ValueError, match="space_ranks must divide"):
        time_by_space(world(), space_ranks)
