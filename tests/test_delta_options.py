"""The Delta correction with every other option: it keeps its promises, or is refused."""

import math

import numpy as np
import pytest

from pint import MGRIT, Delta, MGRITOptions, Random
from tests.engine_models import Shear, Swirl, stepped, uneven_times
from tests.option_choices import CHOICES, POINTS
from tests.test_implicit import Own

TIMES = uneven_times(50)
START = np.array([0.5, -0.3, 0.8])
EVERY = CHOICES | POINTS


def options_of(choice, **changes):
    """Full rank, one cycle, unless the choice or the changes say otherwise."""
    plain = {"levels": 3, "delta": Delta("full"), "max_iterations": 1, "skip_first_down": False}
    return MGRITOptions(**plain | EVERY[choice] | changes)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("choice", EVERY)
def test_linear_problems_are_solved_by_the_first_corrected_cycle(choice, batched):
    """Whatever relaxes and in whatever order levels are visited; unless the coarsest is not solved.

    The coarse steps by themselves have nothing to do with the fine ones.
    """
    options = options_of(choice)
    relaxed = options.coarsest == "relaxation"
    cycles = 60 if relaxed else 1 + options.skip_first_down
    model, exact = Shear(3, batched), stepped(Shear(3), TIMES, START)
    options = options_of(choice, max_iterations=cycles)
    result = MGRIT(model, TIMES, options).solve(START, None if options.skip_first_down else 5.0)
    np.testing.assert_allclose(result.u, exact, atol=1e-11)
    plain = options_of(choice, delta=None, max_iterations=1)
    assert np.abs(MGRIT(model, TIMES, plain).solve(START).u - exact).max() > 1e-3


@pytest.mark.parametrize("guess", [Random(seed=1), "sequential", "result"], ids=str)
def test_guesses(guess):
    """Linearised at the solution, nothing changes it; from anywhere else one cycle is enough."""
    exact = stepped(Shear(3), TIMES, START)
    if guess == "result":
        guess = MGRIT(Shear(3), TIMES[::2], MGRITOptions(levels=1)).solve(START)
    result = MGRIT(Shear(3), TIMES, options_of("F-cycles")).solve(START, guess)
    np.testing.assert_allclose(result.u, exact, atol=1e-12)
    if guess == "sequential":
        assert result.residuals[0] == 0


class Weighing(Swirl):
    """Measures in a norm of its own, and records the residuals that it gets."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def norm(self, u):
        return math.sqrt(u @ np.diag([2.0, 1.0, 3.0]) @ u)

    def set_outer_residual(self, residual):
        self.heard.append(residual)


@pytest.mark.parametrize("norm", [1, 2, np.inf])
def test_norms_are_those_of_the_model(norm):
    """The first residual is measured before a correction, so that it equals the plain one."""
    first, model = {}, Weighing()
    for delta in (None, "full", 2):
        options = options_of(
            "F-cycles", time_norm=norm, delta=delta and Delta(delta), max_iterations=2
        )
        model.heard.clear()
        residuals = MGRIT(model, TIMES, options).solve(START).residuals
        first[delta] = residuals[0]
        assert model.heard == [math.inf, *residuals]
    assert first[None] == first["full"] == first[2]
    plain = MGRIT(Swirl(), TIMES, options_of("F-cycles", time_norm=norm)).solve(START).residuals[0]
    assert first[2] > 1.05 * plain


def test_models_with_an_equation_of_their_own_are_refused():
    class Tangent(Own):
        def tangent_step(self, v, u, step):
            return self.step(v, step)

    with pytest.raises(ValueError, match="Tangent has a residual of its own: leave one out"):
        MGRIT(Tangent(), TIMES, options_of("F-cycles"))


def test_a_basis_is_not_cut_by_a_local_tolerance():
    with pytest.raises(
        ValueError, match="delta in some directions and local_tolerance do not go together"
    ):
        options_of("local tolerance", delta=Delta(2))


@pytest.mark.parametrize("rank", ["full", 3])
@pytest.mark.parametrize("choice", EVERY)
def test_nonlinear_problems_are_solved_too(choice, rank):
    if choice == "local tolerance" and rank == 3:
        return  # refused
    options = options_of(choice, delta=Delta(rank), max_iterations=30)
    result = MGRIT(Swirl(0.6), TIMES, options).solve(START)
    np.testing.assert_allclose(result.u, stepped(Swirl(0.6), TIMES, START), atol=1e-10)


def test_points_left_alone_do_not_defer_the_correction_again():
    """Cycles are counted through the whole solve."""
    steps = {}
    for iteration in (0, 1):
        options = options_of(
            "local tolerance", delta=Delta(iteration=iteration), tolerance=1e-11, max_iterations=40
        )
        steps[iteration] = MGRIT(Swirl(0.9), TIMES, options).solve(START).num_iterations
    assert steps[1] <= steps[0] + 1


def test_who_looks_on_does_not_defer_the_correction():
    options = options_of("F-cycles", delta=Delta(iteration=1), max_iterations=3)
    plain = MGRIT(Swirl(), TIMES, options).solve(START)
    watched = MGRIT(Swirl(), TIMES, options).solve(START, on_visit=lambda visit: None)
    assert np.array_equal(watched.residuals, plain.residuals)


# --- Solves that follow one another ---------------------------------------------------------------


@pytest.mark.parametrize("delta", ["full", 2])
@pytest.mark.parametrize("ways", [{}, {"skip_first_down": True}, {"iteration": 2}], ids=str)
def test_a_second_solve_knows_nothing_of_the_first(ways, delta):
    """Neither of its corrections, nor of its bases, nor of its number of cycles."""
    group = Delta(delta, iteration=ways.pop("iteration", 0))
    options = options_of("F-cycles", delta=group, max_iterations=4, driver="loop", **ways)
    solver = MGRIT(Swirl(0.9), TIMES, options)
    first = solver.solve(START)
    solver.solve(-3 * START)
    again = solver.solve(START)
    assert np.array_equal(again.residuals, first.residuals, equal_nan=True)
    assert np.array_equal(again.u, first.u)
