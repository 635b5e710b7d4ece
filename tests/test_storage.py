"""C-points only, and F-points on demand."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from pint import (
    MGRIT,
    AdjointSolver,
    Delta,
    LocalGrids,
    MGRITOptions,
    Objective,
    value_and_gradient,
)
from pint.models.dahlquist import Dahlquist
from pint.models.heat import Heat
from tests.engine_models import CompiledSwirl, Drift, Swirl, uneven_times

START = np.array([0.5, -0.3, 0.8])
DRIVERS = ["loop", "stack", "compiled"]
WAYS = [
    {"relax": 0, "skip_first_down": False},
    {"relax": 1, "cycle": "F"},
    {"relax": 2, "coarsest": LocalGrids(3)},
    {"levels": 2, "relax_weight": 1.1, "skip_first_down": False},
    {"relax": (0, 1), "local_tolerance": 1e-9, "skip_first_down": False},
]


def solve_both(model, num_steps, ways, driver, start=START, coarsening=(4, 2)):
    options = MGRITOptions(
        **{"levels": 3, "max_iterations": 4, "coarsening": coarsening} | ways, driver=driver
    )
    times = uneven_times(num_steps)
    whole = MGRIT(model, times, options).solve(start)
    lean = MGRIT(model, times, replace(options, storage="c_points")).solve(start)
    return whole, lean


def all_states(result, num_intervals):
    blocks = list(result.trajectory.blocks(num_intervals))
    firsts = np.cumsum([0, *(len(u) for _, u in blocks)])
    assert [first for first, _ in blocks] == firsts[:-1].tolist()
    return np.concatenate([u for _, u in blocks])


@pytest.mark.parametrize(
    ("ways", "driver"),
    [(ways, driver) for ways in WAYS for driver in DRIVERS[: 3 if ways in WAYS[:2] else 2]],
    ids=str,
)
@pytest.mark.parametrize("num_steps", [48, 51])
def test_same_bits_as_with_all_points(num_steps, ways, driver):
    """By construction: the same steps from the same states, rounded alike.

    Not so where a C-point is set from its residual, by the compiled driver or with a weight.
    """
    model = CompiledSwirl(0.9, batched=driver == "stack", coarsening=(4, 2))
    whole, lean = solve_both(model, num_steps, ways, driver)
    relax = ways.get("relax", 1)
    same = (driver != "compiled" and "relax_weight" not in ways) or relax in (0, (0, 1))
    if same:
        assert np.array_equal(lean.residuals, whole.residuals, equal_nan=True)
        assert np.array_equal(lean.u, whole.u[::4])
        exact = 1e-14 if driver == "compiled" else 0  # on demand it is the model's own step
        for num_intervals in (1, 5, 100):
            np.testing.assert_allclose(all_states(lean, num_intervals), whole.u, 0, exact)
    else:
        np.testing.assert_allclose(lean.residuals, whole.residuals, rtol=1e-9)
        np.testing.assert_allclose(all_states(lean, 3), whole.u, rtol=0, atol=1e-13)
    assert np.array_equal(lean.times, whole.times[::4])
    assert lean.coarsening == whole.coarsening
    assert lean.trajectory.state(num_steps).tolist() == all_states(lean, 1)[-1].tolist()
    assert lean.trajectory.state(13).tolist() == all_states(lean, 1)[13].tolist()


def test_coarsening_in_space():
    whole, lean = solve_both(Drift(), 50, {}, "loop", np.linspace(0, 1, 15), 2)
    assert np.array_equal(lean.residuals, whole.residuals, equal_nan=True)
    assert np.array_equal(all_states(lean, 2), whole.u)


@pytest.mark.parametrize("batched", [False, True])
def test_adjoint(batched):
    """Gradients of a function of the last state, through states that are computed again."""
    options = MGRITOptions(levels=3, coarsening=(4, 2), tolerance=1e-13)
    w, gradients = np.array([1.0, -2.0, 0.5]), []
    for storage in ("all", "c_points"):
        solver = MGRIT(Swirl(0.8, batched), uneven_times(48), replace(options, storage=storage))
        gradients.append(AdjointSolver(solver).solve(solver.solve(START), w))
    whole, lean = gradients
    for name in ("initial_gradient", "parameter_gradient"):
        np.testing.assert_allclose(getattr(lean, name), getattr(whole, name), rtol=1e-10)


def test_tangents_for_the_delta_correction():
    options = {"levels": 2, "delta": Delta("full"), "skip_first_down": False, "relax": 0}
    whole, lean = solve_both(Swirl(0.8), 48, options, "loop")
    np.testing.assert_allclose(lean.residuals, whole.residuals, rtol=1e-6, atol=1e-13)
    assert whole.residuals[-1] < 1e-3 * whole.residuals[0]


def test_memory_is_divided_by_the_factor():
    """Peak of a solve: all points keep more than N states, C-points a few N / m."""
    num_steps, nodes, m = 1024, 129, 32
    x = np.linspace(0, 1, nodes)
    peaks = {}
    for storage in ("all", "c_points"):
        options = MGRITOptions(coarsening=m, max_iterations=2, storage=storage, driver="stack")
        solver = MGRIT(Heat(nodes, 1.0), np.linspace(0, 1, num_steps + 1), options)
        tracemalloc.start()
        result = solver.solve(np.sin(np.pi * x))
        peaks[storage] = tracemalloc.get_traced_memory()[1] / (8 * nodes)
        tracemalloc.stop()
    assert peaks["all"] > num_steps
    assert peaks["c_points"] < 12 * num_steps / m
    tracemalloc.start()
    total = sum(len(u) for _, u in result.trajectory.blocks())
    peak = tracemalloc.get_traced_memory()[1] / (8 * nodes)
    tracemalloc.stop()
    assert total == num_steps + 1
    assert peak < 8 * m


def test_counts_are_those_of_fine_steps():
    whole, lean = solve_both(Dahlquist(), 48, {"relax": 0}, "loop", 1.0)
    in_f_points = whole.num_steps[0] - lean.num_steps[0]
    assert in_f_points == 4 * 36 - 3 * 36  # the last F-relaxation of each cycle is left out
    assert lean.num_steps[1] >= whole.num_steps[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual_points": "all_points"}, "all points are needed"),
        ({"periodic": True}, "all points are needed"),
        ({"storage": "some"}, "storage must be one of all, c_points"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        MGRITOptions(**{"storage": "c_points"} | options)


def test_what_needs_all_points():
    times, lean = uneven_times(20), MGRITOptions(storage="c_points")
    solver = MGRIT(Swirl(), times, lean)
    with pytest.raises(ValueError, match="sources need all points"):
        solver.solve(START, sources=np.zeros((11, 3)))
    objective = Objective(terminal=lambda u: (u @ u / 2, u))
    with pytest.raises(ValueError, match="an objective needs all points"):
        value_and_gradient(objective, AdjointSolver(solver), START)
    with pytest.raises(ValueError, match="the adjoint needs the last point"):
        AdjointSolver(MGRIT(Swirl(), uneven_times(21), lean))
    with pytest.raises(ValueError, match="needs a second level"):
        MGRIT(Swirl(), times, MGRITOptions(levels=1, storage="c_points"))
    with pytest.raises(ValueError, match="not indices"):
        MGRIT(Swirl(), times, replace(lean, coarsening=((0, 3, 9),)))
    with pytest.raises(ValueError, match="point must be one of 0"):
        solver.solve(START).trajectory.state(21)
