"""Predicted convergence against what the solver does, and against published histories."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.models.heat import Heat
from pint.theory import (
    convergence_factors,
    cycle_matrix,
    plot_convergence,
    runge_kutta,
    step_factors,
    two_level_bound,
)

BACKWARD_EULER = runge_kutta([[1.0]], [1.0])
PUBLISHED = json.loads((Path(__file__).parent / "data" / "mgrit_histories.json").read_text())


# --- Published histories --------------------------------------------------------------------------

# Linear problems, so that the residuals follow from the first one's vector and powers of a matrix.
HISTORIES = {
    "scalar-100-two-level": {"levels": 2},
    "scalar-100-two-level-F-relaxation": {"levels": 2, "relax": 0},
    "scalar-100-two-level-two-CF-sweeps": {"levels": 2, "relax": 2},
    "scalar-100-V": {"levels": 10},
    "scalar-100-F": {"levels": 10, "cycle": "F"},
    "scalar-100-coarsening-4": {"levels": 3, "coarsening": 4},
    "scalar-100-nonuniform": {"levels": 2},
    "scalar-24-two-iterations": {"levels": 3, "relax": (1, 2, 2), "coarsest": "relaxation"},
}


@pytest.mark.parametrize("name", HISTORIES)
def test_residual_matrices_give_the_published_histories(name):
    """r_0 = A S e_0 with e_0 = 0.456 - u at the C-points; then r_k = R^k r_0."""
    (case,) = (case for case in PUBLISHED["cases"] if case["name"] == name)
    num_steps, options = case["options"]["N"], MGRITOptions(**HISTORIES[name])
    lengths = np.full(num_steps, 0.5)
    if name.endswith("nonuniform"):
        lengths = np.repeat([0.25, 0.75], num_steps // 2)
    grid = TimeGrid(np.concatenate([[0.0], np.cumsum(lengths)]))
    factors = step_factors([-1.0], grid, options, BACKWARD_EULER)
    R = cycle_matrix(factors, options, num_steps, quantity="residual")[0]
    m, relax = options.coarsening_of(0), options.relax_of(0)
    u = np.cumprod(1 / (1 + lengths))[m - 1 :: m]
    A = np.eye(len(u)) - np.diag(u[1:] / u[:-1], -1)
    residual = A @ np.linalg.matrix_power(np.eye(len(u)) - A, relax) @ (u - 0.456)
    for given in case["residuals"]:
        assert np.linalg.norm(residual) == pytest.approx(given, rel=1e-9, abs=1e-15)
        residual = R @ residual


RELAXED = {"coarsest": "relaxation", "relax": (1, 0, 2)}


@pytest.mark.parametrize(
    "ways",
    [
        {"levels": 4, "cycle": "W"},
        {"levels": 4, "cycle": "F", "v_cycles_per_level": 2},
        {"levels": 4, "cycle": "F", "f_cycle_iterations": 2, "relax": 0},
        {"levels": 3, "relax_weight": (0.8, 1.3), "relax": 2},
        {"levels": 3, **RELAXED},
        {"levels": 3, "coarsening": (3, 2), "relax_weight": (1.0, 0.9, 0.7), **RELAXED},
        {"levels": 4, "coarsening": (2, 3), "cycle": "W", **RELAXED},
        {"levels": 3, "coarsening": (2, 16), "cycle": "F", **RELAXED},  # one C-point: point 0
        {"levels": 3, "coarsening": (1, 2), "relax": (1, 2)},
        {"levels": 3, "coarsening": (2, 1), "coarsest": "relaxation", "relax_weight": 0.6},
        {"levels": 9, "min_coarse": 1, "coarsening": (2, 3)},
    ],
    ids=str,
)
def test_residual_matrices_give_what_the_solver_does(ways):
    """Cycles, weights and a coarsest level that is only relaxed, on an uneven grid."""
    model, eigenvalues, grid = problem("uneven dahlquist", 31, 0.3)
    options = MGRITOptions(**{"skip_first_down": False, "max_iterations": 5, **ways})
    guess = np.random.default_rng(0).normal(size=32)
    found = MGRIT(model, grid, options).solve(1.0, guess).residuals
    factors, m = step_factors(eigenvalues, grid, options, BACKWARD_EULER), options.coarsening_of(0)
    u = np.cumprod(factors[0][0].real)[m - 1 :: m]
    A = np.eye(len(u)) - np.diag(u[1:] / u[:-1], -1)
    sweep = np.eye(len(u)) - options.relax_weight_of(0) * A
    residual = A @ np.linalg.matrix_power(sweep, options.relax_of(0)) @ (u - guess[m::m])
    for k in range(5):
        assert found[k] == pytest.approx(np.linalg.norm(residual), rel=1e-9, abs=1e-13)
        R = cycle_matrix(factors, options, 31, quantity="residual", iteration=k)[0]
        residual = R @ residual
    assert found[2] > 1e-9  # so that there is something to compare


# --- The solver is never above the bound ----------------------------------------------------------

SETS = [
    # model, N, step length, levels, coarsening, relax, coarsest
    ("dahlquist", 64, 0.5, 2, 2, 0, "gather"),
    ("dahlquist", 64, 0.5, 2, 2, 1, "gather"),
    ("dahlquist", 61, 0.1, 2, 4, 0, "gather"),
    ("dahlquist", 64, 2.0, 2, 8, 1, "gather"),
    ("dahlquist", 65, 0.02, 3, 2, 0, "gather"),
    ("dahlquist", 64, 0.3, 3, 2, 1, "gather"),
    ("dahlquist", 47, 0.3, 3, (4, 2), (0, 1), "gather"),
    ("dahlquist", 64, 1.0, 6, 2, 1, "gather"),
    ("dahlquist", 63, 0.05, 4, 2, 2, "gather"),
    ("dahlquist", 64, 0.7, 3, 2, 1, "relaxation"),
    ("uneven dahlquist", 64, 0.4, 2, 2, 1, "gather"),
    ("uneven dahlquist", 50, 0.2, 3, 3, 0, "gather"),
    ("heat", 32, 0.001, 2, 2, 0, "gather"),
    ("heat", 32, 0.01, 2, 2, 1, "gather"),
    ("heat", 48, 0.1, 2, 4, 1, "gather"),
    ("heat", 33, 0.005, 3, 2, 0, "gather"),
    ("heat", 32, 0.02, 3, 2, 1, "gather"),
    ("heat", 64, 0.003, 4, 2, (0, 1), "gather"),
    ("heat", 50, 0.3, 2, 8, 2, "gather"),
    ("uneven heat", 40, 0.02, 3, (2, 4), 1, "gather"),
    ("uneven heat", 33, 0.004, 2, 3, 0, "gather"),
    ("heat", 64, 0.01, 3, 4, 1, "relaxation"),
]
NUM_NODES = 17


def problem(kind, num_steps, dt):
    """Return a model, its eigenvalues, and a grid."""
    lengths = np.full(num_steps, dt)
    if kind.startswith("uneven"):
        lengths = dt * (1 + 0.8 * np.sin(1.7 * np.arange(num_steps)))
    grid = TimeGrid(np.concatenate([[0.0], np.cumsum(lengths)]))
    if kind.endswith("dahlquist"):
        return Dahlquist(-1.3), np.array([-1.3]), grid
    k, dx = np.arange(1, NUM_NODES - 1), 1 / (NUM_NODES - 1)
    return Heat(NUM_NODES), -4 / dx**2 * np.sin(k * np.pi * dx / 2) ** 2, grid


def histories(model, grid, options, guess):
    """Return residuals, and errors at the C-points after 1, 2, ... cycles, for the solution 0."""
    options = {"skip_first_down": False, **options}
    start, m = np.zeros(model.state_shape), MGRITOptions(**options).coarsening_of(0)
    result = MGRIT(model, grid, MGRITOptions(max_iterations=6, **options)).solve(start, guess)
    errors = [np.linalg.norm(guess[m::m])]
    for cycles in range(1, 5):
        solver = MGRIT(model, grid, MGRITOptions(max_iterations=cycles, **options))
        errors.append(np.linalg.norm(solver.solve(start, guess).u[m::m]))
    return result.residuals, np.array(errors)


def worst_factor(norms):
    """Return the greatest quotient of successive norms, before rounding matters."""
    used = norms[norms > 1e-9 * norms[0]]
    return max(used[1:] / used[:-1], default=0.0)


@pytest.mark.parametrize("which", range(len(SETS)))
def test_measured_factors_are_never_above_the_bound(which):
    kind, num_steps, dt, levels, coarsening, relax, coarsest = SETS[which]
    chosen = {"levels": levels, "coarsening": coarsening, "relax": relax, "coarsest": coarsest}
    model, eigenvalues, grid = problem(kind, num_steps, dt)
    options = MGRITOptions(**chosen)
    factors = step_factors(eigenvalues, grid, options, BACKWARD_EULER)
    by_error, by_residual = (
        convergence_factors(factors, options, num_steps, quantity=quantity).max()
        for quantity in ("error", "residual")
    )
    rng = np.random.default_rng(which)
    guess = rng.normal(size=(num_steps + 1, *model.state_shape))
    guess[0] = 0
    if kind.endswith("heat"):
        guess[:, [0, -1]] = 0  # the given values at both ends
    residuals, errors = histories(model, grid, chosen, guess)
    assert worst_factor(residuals) <= by_residual * (1 + 1e-6)
    assert worst_factor(errors) <= by_error * (1 + 1e-6)
    assert by_error < 1


@pytest.mark.parametrize("which", [0, 1, 4, 6, 10, 12, 15, 19])
def test_the_bound_is_reached_by_the_worst_guess(which):
    """The first right singular vector of the worst eigenvector's matrix."""
    kind, num_steps, dt, levels, coarsening, relax, _ = SETS[which]
    chosen = {"levels": levels, "coarsening": coarsening, "relax": relax}
    model, eigenvalues, grid = problem(kind, num_steps, dt)
    options = MGRITOptions(**chosen)
    factors = step_factors(eigenvalues, grid, options, BACKWARD_EULER)
    norms = convergence_factors(factors, options, num_steps)
    worst = int(norms.argmax())
    matrix = cycle_matrix(factors, options, num_steps)[worst].real
    in_time = np.linalg.svd(matrix)[2][0]
    in_space = np.ones(())
    if kind.endswith("heat"):
        in_space = np.sin((worst + 1) * np.pi * np.linspace(0, 1, NUM_NODES))
    guess, m = np.zeros((num_steps + 1, *model.state_shape)), options.coarsening_of(0)
    guess[m::m] = np.multiply.outer(in_time, in_space)
    _, errors = histories(model, grid, chosen, guess)
    assert errors[1] / errors[0] == pytest.approx(norms[worst], rel=1e-6)


# --- Two levels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("relax", [0, 1, 2])
@pytest.mark.parametrize("m", [2, 4])
def test_two_level_bound(m, relax):
    """It is the exact 1- and infinity-norm, and above the 2-norm, which it approaches for long."""
    rng = np.random.default_rng(m + relax)
    phi = rng.uniform(0.2, 0.99, 8) * np.exp(1j * rng.uniform(0, np.pi, 8))
    mu = rng.uniform(0.2, 0.9, 8) * np.exp(1j * rng.uniform(0, np.pi, 8))
    options, num_coarse = MGRITOptions(coarsening=m, relax=relax), 60
    bound = two_level_bound(phi, mu, m, relax, num_coarse)

    def exact(norm, quantity="error"):
        return convergence_factors(
            [phi, mu], options, m * num_coarse + 1, norm=norm, quantity=quantity
        )

    np.testing.assert_allclose(exact(1), bound, rtol=1e-10)
    np.testing.assert_allclose(exact(np.inf), bound, rtol=1e-10)
    assert (exact(2) <= bound * (1 + 1e-12)).all()
    assert (exact(2) >= 0.9 * bound).any()
    np.testing.assert_allclose(exact(2, "residual"), exact(2), rtol=1e-8)  # both are Toeplitz
    assert (two_level_bound(phi, mu, m, relax) >= bound).all()


def test_exact_after_as_many_cycles_as_there_are_intervals():
    """F-relaxation gains one C-point in each cycle, FCF two: powers of the matrix vanish."""
    for relax in (0, 1):
        options = MGRITOptions(levels=3, relax=relax)
        (E,) = cycle_matrix([[1.1], [0.3], [-0.9]], options, 24)
        needed = -(-12 // (relax + 1))
        assert np.abs(np.linalg.matrix_power(E, needed)).max() < 1e-14
        assert np.abs(np.linalg.matrix_power(E, needed - 1)).max() > 1e-14


def test_coarse_steps_that_do_not_damp():
    assert two_level_bound(0.9, 1.0, 2) == np.inf
    assert two_level_bound(0.9, 1.0, 2, 0, 11) == pytest.approx(0.19 * 10)
    assert two_level_bound(1.0, 1.0, 2) == 0


@pytest.mark.parametrize(
    ("A", "b", "exact"),
    [
        ([[0.0]], [1.0], lambda z: 1 + z),
        ([[1.0]], [1.0], lambda z: 1 / (1 - z)),
        ([[0, 0], [0.5, 0.5]], [0.5, 0.5], lambda z: (1 + z / 2) / (1 - z / 2)),
        (
            [[0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0]],
            [1 / 6, 1 / 3, 1 / 3, 1 / 6],
            lambda z: sum(z**k / math.factorial(k) for k in range(5)),
        ),
    ],
    ids=["forward Euler", "backward Euler", "Crank-Nicolson", "RK4"],
)
def test_stability_functions(A, b, exact):
    z = np.array([[0.3 - 0.2j, -1.5], [2j, -30.0]])
    np.testing.assert_allclose(runge_kutta(A, b)(z), exact(z), rtol=1e-12)


# --- The picture ----------------------------------------------------------------------------------


def test_plot_shows_the_factors():
    pytest.importorskip("matplotlib", reason="matplotlib is an optional extra: pint[report]")
    z = -np.geomspace(1e-2, 1e2, 5)
    choices = {"F": MGRITOptions(relax=0), "FCF": MGRITOptions(relax=1)}
    ax = plot_convergence(z, choices, BACKWARD_EULER, 16)
    curves = {line.get_label(): line.get_xydata() for line in ax.lines}
    for name, options in choices.items():
        factors = step_factors(z, TimeGrid.uniform(0, 16, 16), options, BACKWARD_EULER)
        np.testing.assert_allclose(curves[name][:, 0], -z)
        np.testing.assert_allclose(
            curves[name][:, 1], convergence_factors(factors, options, 16), rtol=1e-12
        )
    assert plot_convergence(z, choices, BACKWARD_EULER, 16, ax=ax) is ax


# --- Bad input ------------------------------------------------------------------------------------

TWO, POINTS = MGRITOptions(), MGRITOptions(coarsening=((0, 1, 4), 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: runge_kutta([[1.0]], [0.5, 0.5]), r"A and b must be \(s, s\) and \(s,\)"),
        (lambda: runge_kutta([[np.nan]], [1.0]), "A and b must be finite"),
        (lambda: two_level_bound(0.5, 0.2, 0), "m must be at least 1, got 0"),
        (lambda: two_level_bound(0.5, 0.2, 2, -1), "relax must be at least 0, got -1"),
        (lambda: two_level_bound(0.5, 0.2, 2, num_coarse=0), "num_coarse must be at least 1"),
        (lambda: two_level_bound(np.inf, 0.2, 2), "fine and coarse must be finite"),
        (lambda: cycle_matrix([[0.5]], TWO, 8), "one entry for each of 2 levels, got 1"),
        (lambda: cycle_matrix([[0.5], [0.2]], TWO, 3), "3 steps have no coarser level"),
        (lambda: cycle_matrix([[0.5], [0.2]], TWO, 0), "num_steps must be at least 1, got 0"),
        (lambda: cycle_matrix([[0.5], [0.2, 0.1]], TWO, 8), "level 1 are for 2 eigenvectors"),
        (lambda: cycle_matrix([[0.5], [[0.2, 0.1]]], TWO, 8), r"level 1 have shape \(1, 2\), exp"),
        (lambda: cycle_matrix([0.5, [0.2]], TWO, 8), r"level 0 have shape \(\)"),
        (lambda: cycle_matrix([[np.nan], [0.2]], TWO, 8), "factors of level 0 must be finite"),
        (
            lambda: cycle_matrix([[0.5], [0.2]], TWO, 8, iteration=-1),
            "iteration must be at least 0, got -1",
        ),
        (lambda: cycle_matrix([[0.5], [0.2]], POINTS, 8), "coarsening factors, not chosen C-poin"),
        (
            lambda: cycle_matrix([[0.5], [0.2]], TWO, 8, quantity="u"),
            "quantity must be one of error, residual",
        ),
        (
            lambda: convergence_factors([[0.5], [0.2]], TWO, 8, norm=3),
            "norm must be 1, 2 or inf, got 3",
        ),
        (lambda: step_factors([], [0.0, 1.0], TWO, BACKWARD_EULER), "eigenvalues must be a finite"),
        (lambda: step_factors([np.nan], [0.0, 1.0], TWO, abs), "eigenvalues must be a finite"),
        (lambda: plot_convergence([np.inf], {"": TWO}, BACKWARD_EULER), "z must be a finite"),
    ],
    ids=[str(k) for k in range(20)],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
