"""The Delta correction: exact where it must be, Lyapunov exponents."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, Delta, MGRITOptions, TimeGrid
from pint.mgrit.lyapunov import orthonormal
from pint.models.dahlquist import Dahlquist
from pint.models.lorenz import Lorenz
from tests.engine_models import Drift, Shear, Swirl, stepped, uneven_times

START = np.array([9.614521163788712, 17.519127090401067, 13.94230712158098])
UNIT = math.log(10) / 0.9  # time in which an error grows tenfold
HISTORY = MGRITOptions(relax=0, skip_first_down=False, tolerance=1e-4, delta=Delta("full"))


def solve_lorenz(options, units=0.5, num_steps=256, method="euler"):
    grid = TimeGrid.uniform(0.0, UNIT * units, num_steps)
    return MGRIT(Lorenz(method=method), grid, options).solve(START, START)


# --- Full rank ------------------------------------------------------------------------------------


@pytest.mark.parametrize("relax", [0, 1])
@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_linear_problems_are_solved_by_one_cycle(levels, m, relax):
    """Corrected coarse steps are the products of the fine ones: nothing is left to iterate for."""
    model, times = Shear(3, batched=relax == 0), uneven_times(50)
    options = MGRITOptions(
        levels=levels,
        coarsening=m,
        relax=relax,
        delta=Delta("full"),
        skip_first_down=False,
        max_iterations=1,
    )
    exact = stepped(model, times, np.ones(3))
    result = MGRIT(model, times, options).solve(np.ones(3), guess=5.0)
    np.testing.assert_allclose(result.u, exact, atol=1e-12)
    plain = replace(options, delta=None)
    assert np.abs(MGRIT(model, times, plain).solve(np.ones(3), guess=5.0).u - exact).max() > 0.1


@pytest.mark.parametrize("batched", [False, True])
def test_levels_in_space(batched):
    """D restricts the product of fine steps: after one cycle no residual is left on its nodes."""
    model, times = Drift(7, batched), np.linspace(0, 0.2, 13)
    options = MGRITOptions(delta=Delta("full"), relax=0, max_iterations=1, skip_first_down=False)

    def restricted_residual(delta):
        u = (
            MGRIT(model, times, replace(options, delta=delta and Delta(delta)))
            .solve(np.ones(7), 0.5)
            .u
        )
        new = [Drift(7).step(u[i - 1], TimeGrid(times).steps(i)) for i in range(2, 13, 2)]
        return np.abs(model.restrict(np.array(new) - u[2::2], 0)).max()

    assert restricted_residual("full") < 1e-14
    assert restricted_residual(7 // 2) < 1e-14
    assert restricted_residual(1) > 1e-4
    assert restricted_residual(None) > 1e-4


def test_convergence_is_quadratic():
    """As fast as Newton's method; the plain iteration gains about the same factor every time."""
    r = solve_lorenz(replace(HISTORY, tolerance=1e-11)).residuals
    orders = np.log(r[2:] / r[1:-1]) / np.log(r[1:-1] / r[:-2])
    assert orders[1:3].min() > 1.5


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("batched", [False, True])
def test_it_solves_nonlinear_problems(levels, batched):
    model, times = Swirl(0.9, batched=batched), uneven_times(61)
    options = MGRITOptions(levels=levels, coarsening=3, tolerance=1e-12, delta=Delta("full"))
    result = MGRIT(model, times, options).solve(np.ones(3))
    np.testing.assert_allclose(result.u, stepped(model, times, np.ones(3)), atol=1e-11)
    plain = MGRIT(model, times, replace(options, delta=None)).solve(np.ones(3))
    assert result.num_iterations < plain.num_iterations


def test_a_second_solve_starts_anew():
    options = replace(HISTORY, delta=Delta(2))
    solver = MGRIT(Lorenz(method="euler"), TimeGrid.uniform(0, UNIT / 2, 64), options)
    first = solver.solve(START, START)
    second = solver.solve(START, START)
    assert np.array_equal(first.residuals, second.residuals)
    assert np.array_equal(first.lyapunov.vectors, second.lyapunov.vectors)
    assert not np.shares_memory(first.lyapunov.vectors, second.lyapunov.vectors)


def test_the_adjoint_of_a_corrected_solve():
    model, grid = Lorenz(), TimeGrid.uniform(0, 0.2, 32)
    options = MGRITOptions(tolerance=1e-11)
    gradients = []
    for delta in (None, "full"):
        forward = MGRIT(model, grid, replace(options, delta=delta and Delta(delta)))
        result = forward.solve(START)
        gradients.append(AdjointSolver(forward).solve(result, START).initial_gradient)
    np.testing.assert_allclose(*gradients, rtol=1e-8)


# --- Low rank -------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 4])
def test_as_many_vectors_as_entries_are_full_rank(levels):
    full = solve_lorenz(replace(HISTORY, levels=levels))
    low = solve_lorenz(replace(HISTORY, levels=levels, delta=Delta(3)))
    np.testing.assert_allclose(low.residuals[:-1], full.residuals[:-1], rtol=1e-6)
    np.testing.assert_allclose(low.u, full.u, atol=1e-6)


def test_the_more_vectors_the_fewer_cycles():
    cycles = [
        solve_lorenz(
            replace(HISTORY, delta=delta and Delta(delta)), units=1, num_steps=512
        ).num_iterations
        for delta in ("full", 2, 1, None)
    ]
    assert cycles == sorted(cycles)
    assert cycles[0] < cycles[2] < cycles[3]


def test_deferred_to_a_later_cycle():
    """Before that the residuals equal the plain iteration's, to the last bit."""
    plain = solve_lorenz(replace(HISTORY, delta=None, driver="loop"))
    late = solve_lorenz(replace(HISTORY, delta=Delta(iteration=2), driver="loop"))
    assert np.array_equal(late.residuals[:3], plain.residuals[:3])
    assert late.residuals[4] < 0.1 * plain.residuals[4]


def test_deferred_to_a_coarser_level():
    """A linear second level is then solved by one cycle: residuals equal the two-level ones."""
    model, times = Shear(3), uneven_times(50)
    options = MGRITOptions(skip_first_down=False, max_iterations=5)
    two = MGRIT(model, times, options).solve(np.ones(3))
    options = replace(options, levels=4, delta=Delta(level=2))
    four = MGRIT(model, times, options).solve(np.ones(3))
    np.testing.assert_allclose(four.residuals, two.residuals, rtol=1e-9)


# --- Lyapunov vectors -----------------------------------------------------------------------------


def lorenz_exponents(num_steps, stop, cycles):
    """Start with the trajectory, so that only the vectors are solved for."""
    grid, model = TimeGrid.uniform(0.0, stop, num_steps), Lorenz()
    states = MGRIT(model, grid, MGRITOptions(levels=1)).solve(START).u
    options = MGRITOptions(
        coarsening=4, relax=0, skip_first_down=False, delta=Delta(3), max_iterations=cycles
    )
    return MGRIT(model, grid, options).solve(START, guess=states).lyapunov


def test_exponents_of_lorenz():
    """Published: 0.9056, 0 and -14.5723 (Sprott 2003); means over 50 units scatter.

    Their standard deviation is 0.03, by a plain loop over 64 trajectories.
    """
    exponents = lorenz_exponents(6000, 60.0, 2).exponents(10.0)
    assert exponents == pytest.approx([0.9056, 0.0, -14.5723], abs=0.05)


def test_the_sum_of_the_exponents_is_the_divergence():
    """Volumes shrink at the rate -(sigma + 1 + beta) everywhere, but for the error of RK4."""
    rate = -(10 + 1 + 8 / 3)
    errors = [lorenz_exponents(n, 4.0, 2).exponents().sum() - rate for n in (400, 800)]
    assert abs(errors[0]) < 1e-3
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)


def test_vectors_are_those_of_a_plain_loop():
    """Vectors moved by every fine step and orthonormalised by LAPACK at the C-points."""
    model, grid, m = Lorenz(), TimeGrid.uniform(0.0, 2.0, 400), 4
    options = MGRITOptions(coarsening=m, tolerance=1e-9, delta=Delta(2), max_iterations=30)
    lyapunov = MGRIT(model, grid, options).solve(START).lyapunov
    states, V = stepped(model, grid.times, START), np.eye(3)[:, :2]
    for i in range(1, grid.num_steps + 1):
        step = grid.steps(slice(i, i + 1, 1))
        V = np.stack([model.tangent_step(v[None], states[i - 1 : i], step)[0] for v in V.T], axis=1)
        if i % m == 0:
            V, R = np.linalg.qr(V)
            signs = np.sign(np.diag(R))
            V = V * signs
            np.testing.assert_allclose(
                lyapunov.growth[i // m - 1], np.log(abs(np.diag(R))), atol=1e-5
            )
            np.testing.assert_allclose(lyapunov.vectors[i // m], V.T, atol=1e-5)


def test_vectors_of_several_levels_are_those_of_two():
    model, grid = Lorenz(), TimeGrid.uniform(0.0, 1.0, 256)
    options = MGRITOptions(tolerance=1e-10, delta=Delta(2), max_iterations=40)
    two, four = (
        MGRIT(model, grid, replace(options, levels=levels)).solve(START).lyapunov
        for levels in (2, 4)
    )
    np.testing.assert_allclose(four.growth, two.growth, atol=1e-4)
    np.testing.assert_allclose(four.vectors, two.vectors, atol=1e-4)


def test_orthonormal_vectors_span_what_they_are_made_of():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 2, 4))
    Q, growth = orthonormal(A)
    expected, R = np.linalg.qr(A.reshape(3, 8).T)
    np.testing.assert_allclose(Q.reshape(3, 8).T, expected * np.sign(np.diag(R)), atol=1e-14)
    np.testing.assert_allclose(growth, np.log(np.abs(np.diag(R))), rtol=1e-13)


def test_dependent_vectors_give_way():
    Q, growth = orthonormal(np.array([[3.0, 0, 0, 0], [2.0, 0, 0, 0], [0.0, 0, 0, 0]]))
    np.testing.assert_allclose(Q @ Q.T, np.eye(3), atol=1e-15)
    assert growth == [math.log(3), -math.inf, -math.inf]


def test_no_vectors_without_a_basis():
    assert solve_lorenz(HISTORY).lyapunov is None
    assert solve_lorenz(replace(HISTORY, delta=None)).lyapunov is None
    assert solve_lorenz(replace(HISTORY, delta=Delta(1, iteration=99))).lyapunov is None


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"directions": 0}, "directions must be at least 1, got 0"),
        ({"directions": "all"}, "directions must be one of full, diagonal, got 'all'"),
        ({"directions": 1.5}, r"directions must be an integer, got 1\.5"),
        ({"level": 0}, "level must be at least 1, got 0"),
        ({"level": 2}, "no step would be corrected"),
        ({"iteration": -1}, "iteration must be at least 0, got -1"),
        ({"directions": "diagonal", "level": 2}, "leave level at 1, got 2"),
    ],
)
def test_bad_options_are_refused(group, message):
    with pytest.raises(ValueError, match=message):
        MGRITOptions(delta=Delta(**group))


def test_more_vectors_than_entries_are_refused():
    solver = MGRIT(Lorenz(), TimeGrid.uniform(0, 1, 8), MGRITOptions(delta=Delta(4)))
    with pytest.raises(ValueError, match="directions must be at most 3, the number of entries"):
        solver.solve(START)


def test_models_without_a_tangent_are_refused():
    with pytest.raises(ValueError, match="Dahlquist has no tangent_step"):
        MGRIT(Dahlquist(), np.arange(9.0), MGRITOptions(delta=Delta("full")))


def test_complex_states_are_refused():
    model = Shear(2)
    model.dtype = np.dtype(np.complex128)
    with pytest.raises(ValueError, match="needs real states, the states of Shear are complex"):
        MGRIT(model, np.arange(9.0), MGRITOptions(delta=Delta("full"))).solve(np.ones(2, complex))


def test_exponents_from_a_time_after_the_end_are_refused():
    lyapunov = solve_lorenz(replace(HISTORY, delta=Delta(1))).lyapunov
    with pytest.raises(ValueError, match="start must be before the last interval"):
        lyapunov.exponents(100.0)
