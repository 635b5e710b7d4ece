"""The Delta correction on many processes; run under mpiexec, where every rank runs every line."""

from dataclasses import replace

import numpy as np
import pytest

from pint import MGRIT, Delta, MGRITOptions, TimeGrid
from pint.grid.layout import Layout
from pint.models.dahlquist import Dahlquist
from pint.models.lorenz import Lorenz
from pint.parallel.comm import world
from tests.engine_models import Drift, Swirl, uneven_times
from tests.rank_choices import crossed

START = np.array([9.614521163788712, 17.519127090401067, 13.94230712158098])


def same_bits(model, times, options, start, layout=None):
    """Compare with one process, to the last bit, what both solves return; collective."""
    serial = MGRIT(model, times, options).solve(start, 0.5)
    parallel = MGRIT(model, times, options, world(), layout).solve(start, 0.5)
    assert np.array_equal(parallel.gather(), serial.u)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    if serial.lyapunov is not None:
        assert np.array_equal(parallel.lyapunov.growth, serial.lyapunov.growth)
        assert np.array_equal(parallel.lyapunov.times, serial.lyapunov.times)
        first, vectors = parallel.lyapunov.first, parallel.lyapunov.vectors
        own = serial.lyapunov.vectors[first : first + len(vectors)]
        assert np.array_equal(vectors, own)
        total = world().allgather_blocks(np.array([len(vectors)])).sum()
        assert total == len(serial.lyapunov.vectors)


@pytest.mark.parametrize(
    ("shape", "coarsest", "delta"),
    crossed(
        [(2, 5, 37), (3, 2, 26), (4, 2, 33)],
        ["gather", "pipelined", "relaxation"],
        ["full", 2],
        of=3,
    ),
)
def test_bits(shape, coarsest, delta):
    levels, m, num_steps = shape
    options = MGRITOptions(
        levels=levels,
        coarsening=m,
        relax=levels % 2,
        delta=Delta(delta),
        coarsest=coarsest,
        max_iterations=3,
        skip_first_down=num_steps % 2 == 0,
        driver="loop",
    )
    same_bits(Swirl(0.9, batched=levels == 3), uneven_times(num_steps), options, np.ones(3))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5])
@pytest.mark.parametrize("delta", ["full", 1])
def test_few_steps(num_steps, delta):
    options = MGRITOptions(
        levels=3, min_coarse=1, delta=Delta(delta), max_iterations=2, driver="loop"
    )
    same_bits(Swirl(0.9), uneven_times(num_steps), options, np.ones(3))


@pytest.mark.parametrize("seed", range(4))
def test_blocks_of_any_length(seed):
    """Empty ones, and blocks shorter than an interval, which pass vectors on."""
    rng, num_steps = np.random.default_rng(seed), 31
    inner = sorted(rng.integers(0, num_steps + 2, world().size - 1))
    options = MGRITOptions(
        levels=2 + seed % 2,
        coarsening=6 - seed,
        delta=Delta((2, "full")[seed // 2]),
        max_iterations=4,
        skip_first_down=False,
        driver="loop",
    )
    layout = Layout(np.array([0, *inner, num_steps + 1]))
    same_bits(Swirl(0.9), uneven_times(num_steps), options, np.ones(3), layout)


@pytest.mark.parametrize("delta", ["full", 2])
def test_levels_in_space(delta):
    options = MGRITOptions(levels=3, delta=Delta(delta), max_iterations=3, driver="loop")
    times = np.linspace(0, 0.2, 11)
    serial = MGRIT(Drift(15), times, options).solve(np.ones(15))
    parallel = MGRIT(Drift(15), times, options, world()).solve(np.ones(15))
    np.testing.assert_allclose(parallel.gather(), serial.u, rtol=1e-12)


@pytest.mark.parametrize("delta", ["full", 2])
def test_lorenz(delta):
    options = MGRITOptions(
        levels=3,
        relax=0,
        skip_first_down=False,
        max_iterations=4,
        delta=Delta(delta),
        driver="loop",
    )
    times = TimeGrid.uniform(0.0, 0.5, 64)
    same_bits(Lorenz(method="euler"), times, options, START)
    stacks = replace(options, driver="stack")
    loop = MGRIT(Lorenz(method="euler"), times, options).solve(START)
    stack = MGRIT(Lorenz(method="euler"), times, stacks, world()).solve(START)
    np.testing.assert_allclose(stack.gather(), loop.u, rtol=1e-9)


def test_errors_on_every_rank():
    with pytest.raises(ValueError, match="directions must be at most 3"):
        MGRIT(Lorenz(), np.arange(9.0), MGRITOptions(delta=Delta(4)), world()).solve(START)
    with pytest.raises(ValueError, match="no tangent_step"):
        MGRIT(Dahlquist(), np.arange(9.0), MGRITOptions(delta=Delta("full")), world())
