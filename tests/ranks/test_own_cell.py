"""The three ways to write a cell, on any number of ranks: states and gradients of one process."""

import threading

import numpy as np
import pytest

from apps.own_cell_numba import FusedCell
from apps.own_cell_numpy import LeakyCell
from pint import MGRIT, AdjointSolver, MGRITOptions, Status, TimeGrid
from pint.parallel.comm import world

BATCH, FEATURES, HIDDEN = 2, 3, 4
ONE_AT_A_TIME = threading.Lock()


def make(way):
    """A cell, and how its states are made of NumPy arrays."""
    if way == "torch":
        torch = pytest.importorskip(
            "torch", reason="torch is not installed: pip install 'pint-mgrit[torch]'"
        )
        from apps.own_cell_torch import make_cell

        with ONE_AT_A_TIME:  # torch.manual_seed is for the whole process
            return make_cell(FEATURES, HIDDEN, seed=0), torch.tensor
    return {"numpy": LeakyCell, "numba": FusedCell}[way](FEATURES, HIDDEN, seed=0), np.array


def solve(way, num_steps, options, comm):
    cell, state = make(way)
    rng = np.random.default_rng(num_steps)
    cell.set_inputs(rng.standard_normal((BATCH, num_steps, FEATURES)))
    u, w = rng.standard_normal((2, BATCH, HIDDEN))
    forward = MGRIT(cell, TimeGrid.uniform(0, 6, num_steps), options, comm)
    result = forward.solve(state(u))
    assert isinstance(result.u, type(state(u)))
    adjoint = AdjointSolver(forward).solve(result, state(w))
    assert isinstance(adjoint.w, type(state(w)))
    return result, adjoint


def assert_near(actual, expected, rtol):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 1e-3  # a gradient of zero would prove nothing
    assert np.abs(actual - expected).max() < rtol * scale


@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
@pytest.mark.parametrize(("num_steps", "levels", "coarsening"), [(24, 2, 4), (53, 3, (4, 2))])
@pytest.mark.parametrize("way", ["numpy", "numba", "torch"])
def test_equals_serial_stepping(way, num_steps, levels, coarsening, coarsest):
    serial, exact = solve(way, num_steps, MGRITOptions(levels=1), None)
    options = MGRITOptions(levels=levels, coarsening=coarsening, coarsest=coarsest, tolerance=1e-13)
    result, adjoint = solve(way, num_steps, options, world())
    assert result.status is adjoint.status is Status.CONVERGED
    assert_near(result.gather(), serial.u, 1e-12)
    assert_near(result.final_state(), serial.u[-1], 1e-12)
    assert_near(adjoint.initial_gradient, exact.initial_gradient, 1e-10)
    assert_near(adjoint.parameter_gradient, exact.parameter_gradient, 1e-10)


def test_a_wrong_module_is_the_same_error_on_every_rank():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from pint.rnn import from_torch

    cell = from_torch(torch.nn.Linear(FEATURES, HIDDEN), HIDDEN)  # takes no state
    cell.set_inputs(np.zeros((BATCH, 16, FEATURES)))
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        MGRIT(cell, np.arange(17.0), None, world()).solve(torch.zeros(BATCH, HIDDEN))
