"""What an iteration begins with."""

import re

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Propagator, Random, Status
from tests.engine_models import Drift, Swirl, stepped, uneven_times

START = np.array([0.5, -0.3, 0.8])
TIMES = uneven_times(40)
OPTIONS = MGRITOptions(levels=3, max_iterations=1, skip_first_down=False)


def from_guess(guess, **changes):
    options = MGRITOptions(**{"levels": 3, "max_iterations": 1, "skip_first_down": False} | changes)
    return MGRIT(Swirl(1.0), TIMES, options).solve(START, guess)


@pytest.mark.parametrize("levels", [1, 3])
def test_the_sequential_solution_is_a_fixed_point(levels):
    """But for the rounding of a coarse right-hand side v - Phi(v), to which Phi(v) is added."""
    result = from_guess("sequential", levels=levels, max_iterations=3)
    np.testing.assert_allclose(result.u, stepped(Swirl(1.0), TIMES, START), atol=1e-13)
    if levels > 1:
        assert result.residuals[0] == 0
        assert result.residuals.max() < 1e-13


def test_an_earlier_result_goes_on_where_it_stopped():
    """Two cycles at once, or one after the other."""
    first = from_guess(0.3)
    second = from_guess(first)
    both = from_guess(0.3, max_iterations=2)
    assert np.array_equal(second.u, both.u)
    assert second.residuals[0] == both.residuals[1]


def test_random_states_belong_to_points():
    by_hand = [np.random.default_rng([5, i]).uniform(-1, 2, 3) for i in range(41)]
    guess = Random(seed=5, low=-1, high=2)
    assert np.array_equal(from_guess(guess).u, from_guess(np.array(by_hand)).u)
    assert not np.array_equal(from_guess(guess).u, from_guess(Random(seed=6)).u)
    complex_state = guess.state(3, (50,), np.dtype(complex))
    assert complex_state.imag.min() >= -1
    assert np.ptp(complex_state.imag) > 1
    assert guess.state(3, (), np.dtype(np.float32)).dtype == np.float32


def test_nested_iteration():
    """A solve on every fourth point gives states between, exact for what is linear in time."""

    class Ramp(Propagator):
        state_shape, dtype = (2,), np.dtype(float)

        def step(self, u, step):
            return u + step.dt * np.array([1.0, -2.0])

    coarse = MGRIT(Ramp(), TIMES[::4], MGRITOptions(levels=1)).solve(np.zeros(2))
    result = MGRIT(Ramp(), TIMES, OPTIONS).solve(np.zeros(2), coarse)
    assert result.residuals[0] < 1e-14
    zero = MGRIT(Ramp(), TIMES, OPTIONS).solve(np.zeros(2))
    assert zero.residuals[0] > 1
    shorter = MGRIT(Ramp(), TIMES[4:-4], OPTIONS).solve(np.zeros(2), coarse)
    assert shorter.status is Status.COMPLETED


def test_nested_iteration_begins_nearer_to_the_solution():
    fine = MGRIT(Swirl(0.2), TIMES, OPTIONS)
    coarse = MGRIT(Swirl(0.2), TIMES[::2], MGRITOptions(levels=1)).solve(START)
    assert fine.solve(START, coarse).residuals[0] < fine.solve(START).residuals[0]


@pytest.mark.parametrize(
    ("guess", "message"),
    [
        ("random", "guess must be 'sequential' if it is a string, got 'random'"),
        (np.zeros((40, 3)), "guess has shape (40, 3), expected (), (3,) or (41, 3)"),
    ],
    ids=["string", "rows"],
)
def test_bad_guesses_are_refused(guess, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_guess(guess)


def test_a_result_of_other_states_is_refused():
    other = MGRIT(Drift(), TIMES, MGRITOptions(levels=1)).solve(np.zeros(15))
    with pytest.raises(ValueError, match=r"states of shape \(15,\), expected \(3,\)"):
        from_guess(other)


@pytest.mark.parametrize("guess", ["sequential", Random()], ids=["sequential", "random"])
def test_what_would_be_ignored_is_refused(guess):
    with pytest.raises(ValueError, match="skip_first_down begins without a guess"):
        from_guess(guess, skip_first_down=True)


@pytest.mark.parametrize("bad", [{"seed": -1}, {"low": 1.0}, {"high": np.nan}])
def test_bad_random_numbers_are_refused(bad):
    with pytest.raises(ValueError, match=r"seed must be at least 0|high must be above low"):
        Random(**bad)
