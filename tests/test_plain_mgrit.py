"""The engine against a plain recursion that shares no code with it, for any options."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pint import MGRIT, MGRITOptions, check_propagator
from tests.plain_mgrit import PlainMGRIT, Pull

PLAIN = {
    "levels": 4,
    "coarsening": (2,),
    "min_coarse": 1,
    "cycle": "F",
    "v_cycles_per_level": 1,
    "f_cycle_iterations": None,
    "relax": (1,),
    "relax_weight": (1.0,),
    "skip_first_down": False,
    "coarsest": "gather",
}


def tuples(entries, most):
    return st.lists(entries, min_size=1, max_size=most).map(tuple)


@st.composite
def entries_of_coarsening(draw, num_steps, most):
    """Factors, and lists of C-points that lie on their level."""
    entries = []
    while len(entries) < most:
        chooses = num_steps > 0 and draw(st.integers(0, 4)) == 0
        if chooses:
            others = st.sets(st.integers(1, num_steps), min_size=1)
            entries.append((0, *sorted(draw(others))))
            num_steps = len(entries[-1]) - 1
        else:
            entries.append(draw(st.sampled_from([1, 2, 2, 3, 4, 5])))
            num_steps //= entries[-1]
        if draw(st.booleans()):
            break
    return tuple(entries)


@st.composite
def solves(draw):
    """Return the number of steps and the options."""
    num_steps = draw(st.integers(1, 45))
    relax = draw(tuples(st.integers(0, 2), 4))
    weights = tuples(st.sampled_from([0.7, 1.0, 1.3]), 4) if any(relax) else st.just((1.0,))
    cycle = draw(st.sampled_from("VFW"))
    return num_steps, {
        "levels": draw(st.integers(1, 5)),
        "coarsening": draw(entries_of_coarsening(num_steps, 4)),
        "min_coarse": draw(st.integers(1, 3)),
        "cycle": cycle,
        "v_cycles_per_level": draw(st.integers(1, 3)) if cycle == "F" else 1,
        "f_cycle_iterations": draw(st.sampled_from([None, 1, 2])) if cycle == "F" else None,
        "relax": relax,
        "relax_weight": draw(weights),
        "skip_first_down": draw(st.booleans()),
        "coarsest": draw(st.sampled_from(["gather", "pipelined", "relaxation"])),
    }


def uneven(num_steps):
    lengths = 0.1 + np.random.default_rng(num_steps).uniform(0, 0.5, num_steps)
    return np.concatenate([[0.3], 0.3 + np.cumsum(lengths)])


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
@given(solves())
@example((37, PLAIN | {"levels": 5, "skip_first_down": True, "v_cycles_per_level": 2}))
@example((41, PLAIN | {"levels": 4, "relax": (1, 0, 2), "relax_weight": (1.3, 1.0, 0.7)}))
@example((40, PLAIN | {"relax": (0, 2), "coarsest": "relaxation", "coarsening": (3, 2)}))
@example((23, PLAIN | {"levels": 5, "coarsening": (5, 1, 2), "skip_first_down": True}))
@example((3, PLAIN | {"coarsening": ((0, 1, 2), 2), "coarsest": "relaxation", "cycle": "W"}))
@settings(max_examples=60, deadline=None)
def test_residuals_and_states_are_those_of_a_plain_recursion(driver, problem):
    num_steps, ways = problem
    times, start = uneven(num_steps), np.array([0.4, -0.9])
    guess = np.random.default_rng(5).normal(size=(num_steps + 1, 2))
    plain = PlainMGRIT(times, ways, start, guess)
    expected = plain.run(5)
    options = MGRITOptions(max_iterations=5, driver=driver, **ways)
    result = MGRIT(Pull(batched=driver == "stack"), times, options).solve(start, guess)
    assert len(result.coarsening) + 1 == len(plain.points)
    # Heavy weights make residuals grow at first; what they round then is left.
    atol = 1e-12 * np.nanmax([1.0, *expected])
    np.testing.assert_allclose(result.residuals, expected, rtol=1e-12, atol=atol)
    states = np.array([plain.u[0][i] for i in range(num_steps + 1)])
    np.testing.assert_allclose(result.u, states, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("batched", [False, True])
def test_the_model_keeps_the_contract(batched):
    """Its kernel is its step, so that all drivers are compared with one recursion."""
    assert "kernel" in " ".join(check_propagator(Pull(batched), np.ones(2), uneven(16)))
