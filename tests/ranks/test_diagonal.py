"""Diagonals in the place of coarse steps, on many processes; every rank runs every line."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, Delta, MGRITOptions
from pint.options import LocalGrids
from pint.parallel.comm import SerialCommunicator, world
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from tests.engine_models import uneven_times
from tests.rank_choices import crossed
from tests.test_diagonal import Own


@pytest.mark.parametrize(
    ("shape", "coarsest"),
    crossed(
        [(2, 5, 37), (3, 2, 26), (3, 3, 5)],
        ["gather", "pipelined", "relaxation", "truncated"],
        of=2,
    ),
)
def test_bits(shape, coarsest):
    """States, residuals and adjoints equal the results of one process."""
    levels, m, num_steps = shape
    options = MGRITOptions(
        levels=levels,
        coarsening=m,
        relax=num_steps % 2,
        delta=Delta("diagonal"),
        coarsest=LocalGrids(2) if coarsest == "truncated" else coarsest,
        max_iterations=3,
        skip_first_down=num_steps % 2 == 0,
        driver="loop",
    )
    model, times = Own(0.9), uneven_times(num_steps)
    serial, parallel = (MGRIT(model, times, options, comm) for comm in (None, world()))
    expected, got = serial.solve(np.ones(3)), parallel.solve(np.ones(3))
    assert np.array_equal(got.gather(), expected.u)
    assert np.array_equal(got.residuals, expected.residuals, equal_nan=True)
    w = np.array([1.0, -2.0, 0.5])
    of_one = AdjointSolver(serial).solve(expected, w)
    of_many = AdjointSolver(parallel).solve(got, w)
    np.testing.assert_allclose(of_many.initial_gradient, of_one.initial_gradient, rtol=1e-13)
    np.testing.assert_allclose(of_many.parameter_gradient, of_one.parameter_gradient, rtol=1e-12)


@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
@pytest.mark.parametrize("cell", ["implicit", "classic", "lstm"])
def test_networks(cell, coarsest):
    network = Network(
        RecurrenceOptions(num_features=2, hidden=4, layers=2, cell=cell, dtype=np.float64), 3
    )
    network.parameters *= 2
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((3, 43, 2)), rng.integers(0, 3, 3)
    options = MGRITOptions(
        levels=3, coarsening=3, delta=Delta("diagonal"), max_iterations=4, coarsest=coarsest
    )
    got, expected = (
        NetworkSolver(network, 43, options, options, comm).loss_and_gradient(x, y, inputs=True)
        for comm in (world(), SerialCommunicator())
    )
    scale = np.abs(expected.gradient).max()
    assert np.abs(got.gradient - expected.gradient).max() < 1e-12 * scale
    assert abs(got.loss - expected.loss) < 1e-13
