"""Propagators that give their own equation, and those whose steps iterate."""

import math

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Propagator, Status
from tests.engine_models import Drift, stepped, uneven_times

TIMES = uneven_times(29)


class Plain(Propagator):
    """M u_i = u_{i-1} with M = 1 + dt K, as u_i - M^{-1} u_{i-1}."""

    state_shape, dtype = (3,), np.dtype(float)
    K = np.array([[2.0, -1.0, 0.0], [-0.5, 2.0, -1.0], [0.0, -1.0, 1.5]])

    def __init__(self, batched=False):
        self.batched = batched

    def matrix(self, step):
        return np.eye(3) + np.asarray(step.dt)[..., None, None] * self.K

    def step(self, u, step):
        return np.linalg.solve(self.matrix(step), u[..., None])[..., 0]


class Own(Plain):
    """The same as M u_i - u_{i-1}: a product where `Plain` solves."""

    def __init__(self, batched=False):
        super().__init__(batched)
        self.num_solves = 0

    def residual(self, new, u, step):
        assert new.shape == u.shape
        return (self.matrix(step) @ new[..., None])[..., 0] - u

    def solve_step(self, u, step, g, guess):
        assert guess.shape == u.shape
        self.num_solves += len(u) if self.batched else 1
        return self.step(u if g is None else u + g, step)


def solve(model, start=(1.0, -2.0, 0.5), **changes):
    settings = {"levels": 3, "max_iterations": 3, "skip_first_down": False} | changes
    return MGRIT(model, TIMES, MGRITOptions(**settings)).solve(np.array(start), 0.3)


@pytest.mark.parametrize("driver", ["auto", "loop"])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    "ways", [{}, {"cycle": "F"}, {"coarsening": ((0, 2, 9, 11, 20),)}], ids=str
)
def test_iterates_converge_to_the_solution_of_the_equation(ways, batched, driver):
    result = solve(Own(batched), driver=driver, tolerance=1e-12, max_iterations=40, **ways)
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(
        result.u, stepped(Plain(), TIMES, np.array([1.0, -2.0, 0.5])), rtol=0, atol=1e-12
    )


def test_residuals_are_those_of_the_equation():
    """A = M (u_i - Phi(u_{i-1})): after F-relaxation, at the C-points, M times the other ones."""
    plain, own = (
        MGRIT(kind(), TIMES, MGRITOptions(relax=0, max_iterations=1, skip_first_down=False))
        for kind in (Plain, Own)
    )
    for solver in (plain, own):
        solver.solve(np.ones(3), 0.3)
    slots = plain.hierarchy.levels[0].c_rows
    guess = np.full((30, 3), 0.3)
    guess[0] = 1.0
    for i in range(1, 30, 2):
        guess[i] = stepped(Plain(), TIMES[i - 1 : i + 1], guess[i - 1])[1]
    expected = []
    for i in range(2, 30, 2):
        M = np.eye(3) + (TIMES[i] - TIMES[i - 1]) * Plain.K
        expected.append(np.sum((guess[i - 1] - M @ guess[i]) ** 2))
    assert np.allclose(own.hierarchy.levels[0].norms[slots], expected, rtol=1e-12)
    assert not np.allclose(plain.hierarchy.levels[0].norms[slots], expected, rtol=0.01)


def test_residuals_take_no_solves():
    model = Own()
    result = solve(model, residual_points="all_points")
    assert model.num_solves < sum(result.num_steps.values()) - 3 * 29


def test_the_last_state_is_offered_as_a_guess():
    guesses = []

    class Noting(Own):
        def solve_step(self, u, step, g, guess):
            guesses.append(guess.tolist())
            return super().solve_step(u, step, g, guess)

    solve(Noting(), levels=2)
    assert guesses[0] == [0.3, 0.3, 0.3]


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="Own has a residual of its own: use driver 'loop'"):
        solve(Own(), driver="compiled")
    with pytest.raises(ValueError, match="C-relaxation on level 0 has a weight"):
        solve(Own(), relax_weight=1.2)
    with pytest.raises(ValueError, match="C-relaxation on level 0 has a weight or C-points"):
        solve(Own(), coarsening=1)


class Iterating(Plain):
    """Jacobi iterations instead of a solve, as many as the tolerance needs."""

    def __init__(self, least=0.0):
        super().__init__()
        self.least, self.heard, self.work = least, [], []

    def set_outer_residual(self, residual):
        self.heard.append(residual)
        self.work.append(0)

    def step(self, u, step):
        M, new = self.matrix(step), u.copy()
        outer = self.heard[-1] if self.heard else 0.0  # the check of the step, before any cycle
        tolerance = max(self.least, 1e-14, 1e-3 * min(outer, 1.0))
        while np.abs(M @ new - u).max() > tolerance:
            new = new + (u - M @ new) / np.diag(M)
            if self.work:
                self.work[-1] += 1
        return new


def test_an_inner_tolerance_that_follows_the_outer_residual():
    model = Iterating()
    result = solve(model, tolerance=1e-11, max_iterations=40)
    assert result.status is Status.CONVERGED
    assert model.heard == [math.inf, *result.residuals]
    exact = stepped(Plain(), TIMES, np.array([1.0, -2.0, 0.5]))
    np.testing.assert_allclose(result.u, exact, rtol=0, atol=1e-10)
    fixed = Iterating()
    fixed.set_outer_residual = lambda residual: fixed.work.append(0)
    solve(fixed, tolerance=1e-11, max_iterations=40)
    assert sum(model.work) < 0.8 * sum(fixed.work)


def test_one_level_is_stepped_with_the_smallest_tolerance():
    model = Iterating()
    result = solve(model, levels=1)
    assert model.heard == [0.0]
    exact = stepped(Plain(), TIMES, np.array([1.0, -2.0, 0.5]))
    np.testing.assert_allclose(result.u, exact, rtol=0, atol=1e-12)


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    ("name", "function", "kind", "message"),
    [
        ("restrict", lambda u: None, TypeError, "restrict from level 0 returned NoneType"),
        ("restrict", lambda u: u[..., :4], ValueError, "interpolate to level 0 returned shape"),
        (
            "restrict",
            lambda u: u * 1j,
            TypeError,
            "restrict from level 0 returned dtype complex",
        ),
        ("interpolate", lambda u: u, ValueError, "interpolate to level 0 returned shape"),
        ("interpolate", lambda u: None, TypeError, "interpolate to level 0 returned NoneType"),
    ],
)
def test_wrong_transfers_are_told_before_any_work(name, function, kind, message, batched):
    class Wrong(Drift):
        pass

    setattr(Wrong, name, lambda self, u, level: function(u))
    with pytest.raises(kind, match=message):
        MGRIT(Wrong(batched=batched), TIMES).solve(np.zeros(15))


def test_a_transfer_that_loses_the_stack_is_told():
    class Wrong(Drift):
        def restrict(self, u, level):
            return u[0, 1::2]

    with pytest.raises(ValueError, match="for a stack of one state: keep the first axis"):
        MGRIT(Wrong(batched=True), TIMES).solve(np.zeros(15))


@pytest.mark.parametrize("guess", [1j, np.ones(3) * 1j, lambda t: 1j * t])
def test_complex_guesses_of_real_states_are_refused(guess):
    solver = MGRIT(Plain(), TIMES, MGRITOptions(skip_first_down=False))
    with pytest.raises(TypeError, match="guess is complex, the propagator's states are float64"):
        solver.solve(np.ones(3), guess)
