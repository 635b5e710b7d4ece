"""The order in which cycles visit the levels, and what they compute there."""

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions
from pint.mgrit import cycle as cycles
from tests.engine_models import CompiledSwirl, Swirl, naive_mgrit, uneven_times

START = np.array([0.5, -0.3, 0.8])


@pytest.mark.parametrize(
    ("shape", "v_cycles_per_level", "order"),
    [
        ("V", 1, "0123210"),
        ("F", 1, "0123232123210"),  # as published
        ("F", 2, "01232" + 2 * "32" + "1" + 2 * "2321" + "0"),
        ("W", 1, "012323212323210"),
    ],
)
def test_order_of_levels(monkeypatch, shape, v_cycles_per_level, order):
    visited = []

    def noting(name):
        action = getattr(cycles, name)
        monkeypatch.setattr(
            cycles, name, lambda level, *rest: (visited.append(level.index), action(level, *rest))
        )

    def solve_coarsest(hierarchy, driver):
        visited.append(3)

    for name in ("relax", "correct"):  # the way down, and coming up
        noting(name)
    monkeypatch.setattr(cycles, "solve_coarsest", solve_coarsest)
    options = MGRITOptions(
        levels=4,
        cycle=shape,
        v_cycles_per_level=v_cycles_per_level,
        max_iterations=1,
        skip_first_down=False,
    )
    MGRIT(Swirl(), uneven_times(32), options).solve(START)
    merged = [level for k, level in enumerate(visited) if k == 0 or visited[k - 1] != level]
    assert "".join(map(str, merged)) == order


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(
    "shape",
    [
        {"cycle": "F"},
        {"cycle": "F", "v_cycles_per_level": 3},
        {"cycle": "F", "f_cycle_iterations": 1},
        {"cycle": "W"},
    ],
    ids=str,
)
def test_cycles_do_as_the_naive_solver(shape, skip, driver):
    times = uneven_times(53)
    options = MGRITOptions(
        levels=5, max_iterations=3, skip_first_down=skip, relax=(0, 1), driver=driver, **shape
    )
    guess = np.full((54, 3), 0.1)
    guess[0] = START
    expected, residuals = naive_mgrit(Swirl(1.0), times, options, guess)
    model = CompiledSwirl(1.0, batched=driver == "stack", coarsening=(2,) * 4)
    result = MGRIT(model, times, options).solve(START, 0.1)
    np.testing.assert_allclose(result.u, expected, rtol=0, atol=1e-13)
    norms = [np.linalg.norm(r) for r in residuals]
    np.testing.assert_allclose(result.residuals[-len(norms) :], norms, rtol=1e-11)


def test_a_cycle_of_more_visits_is_a_better_one():
    """On all levels, with F-relaxation: V is the worst, W the best."""
    last = {}
    for shape in ("V", "F", "W"):
        options = MGRITOptions(
            levels=6, relax=0, cycle=shape, max_iterations=4, skip_first_down=False
        )
        result = MGRIT(Swirl(0.5), uneven_times(128), options).solve(START, 0.1)
        last[shape] = result.residuals[-1]
    assert last["W"] < last["F"] < last["V"]
