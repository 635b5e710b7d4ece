"""Backward differentiation of any order, with variable steps."""

import math

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Propagator, Status, Step, TimeGrid, check_propagator
from pint.models import dahlquist, heat
from pint.models.bdf import BDF, tuples

ORDERS = range(1, 7)
STEPPING = MGRITOptions(levels=1)


def solve(problem, options=STEPPING):
    grid = TimeGrid.uniform(*problem.span, problem.num_steps)
    return MGRIT(problem.propagator, grid, options).solve(problem.initial_value)


@pytest.mark.parametrize("order", ORDERS)
def test_observed_order(order):
    steps = 64 if order == 1 else 16
    errors = []
    for num_steps in (steps, 2 * steps):
        problem = tuples(dahlquist.problem(), order, num_steps)
        end = solve(problem).u[-1]
        errors.append(abs(end[0] - problem.exact(problem.span[1])[0]))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


class Polynomial(Propagator):
    """y' = degree t^(degree - 1), by backward Euler."""

    state_shape, dtype, batched, backward_euler = (), np.dtype(float), True, True

    def __init__(self, degree):
        self.degree = degree

    def step(self, u, step):
        return u + step.dt * self.degree * step.stop ** (self.degree - 1)


@pytest.mark.parametrize("order", ORDERS)
def test_exact_for_polynomials_whatever_the_steps(order):
    """One degree more is not exact, so that the test is one of this order."""
    lengths = np.random.default_rng(2).uniform(0.5, 0.8, 12)
    times, d = np.concatenate([[0.0], np.cumsum(lengths)]) / 4, 0.4 / 4 / order
    at = times[:, None] + d * np.arange(order)
    for degree in (order, order + 1):
        exact = at**degree
        model = BDF(Polynomial(degree), d, order)
        error = 0.0
        for i in range(1, 13):  # step by step, as variable steps of high order are unstable
            step = Step(0, times[i - 1 : i], times[i : i + 1], np.array([i]), np.array([i]))
            new = model.step(exact[i - 1 : i], step)[0]
            error = max(error, np.abs(new - exact[i]).max() / exact[i].max())
        assert (error < 1e-9) == (degree == order), error


@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("coarse_order", [1, 2])
def test_contract_and_adjoint(order, coarse_order):
    if coarse_order > order:
        return
    model = BDF(heat.problem(18).propagator, 0.01, order, coarse_order)
    check_propagator(model, grid=TimeGrid.uniform(0.0, 0.08 * 8, 8), levels=2)


@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_mgrit_converges_to_the_steps(order):
    problem = tuples(dahlquist.problem(), order, 32)
    exact = solve(problem).u
    for levels in (2, 3):
        result = solve(problem, MGRITOptions(levels=levels, tolerance=1e-11))
        assert result.status is Status.CONVERGED
        assert result.num_iterations < 10
        np.testing.assert_allclose(result.u, exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 7}, "order must be at most 6"),
        ({"order": 0}, "order must be at least 1"),
        ({"order": 2, "coarse_order": 3}, "coarse_order at most order, got 2 and 3"),
    ],
)
def test_orders_that_there_are_not(settings, message):
    with pytest.raises(ValueError, match=message):
        BDF(dahlquist.Dahlquist(), 0.1, **settings)


def test_a_step_must_pass_all_values():
    with pytest.raises(ValueError, match="BDF3 must be longer than distance"):
        MGRIT(BDF(dahlquist.Dahlquist(), 0.5, 3), [0.0, 0.9], STEPPING).solve(np.ones(3))
