"""Recorded cycles, replayed as one call, and their events in a timeline."""

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions
from pint.timeline import Timeline
from tests.engine_models import CompiledSwirl, uneven_times

START = np.array([0.5, -0.3, 0.8])
OPTIONS = MGRITOptions(levels=3, max_iterations=4, driver="compiled")


@pytest.fixture
def solver():
    """A solver whose cycles are recorded."""
    made = MGRIT(CompiledSwirl(coarsening=(2, 2)), uneven_times(200), OPTIONS)
    made.solve(START)
    return made


def recorded(solver):
    timeline = Timeline()
    with timeline:
        result = solver.solve(START)
    return result, timeline.events()


def test_replayed_cycles_give_the_bits_and_steps_of_the_first_solve(solver):
    first = MGRIT(CompiledSwirl(coarsening=(2, 2)), uneven_times(200), OPTIONS).solve(START)
    again = solver.solve(START)
    assert np.array_equal(again.u, first.u)
    assert np.array_equal(again.residuals, first.residuals, equal_nan=True)
    assert again.num_steps == first.num_steps


def test_a_replayed_cycle_is_one_event(solver):
    result, events = recorded(solver)
    for iteration in range(OPTIONS.max_iterations):
        rows = [row for row in events.rows() if row[3] == iteration]
        assert [(row[1], row[2]) for row in rows if row[1] != "messages"] == [("cycle", -1)]
    assert result.phases["cycle"] == pytest.approx(events.seconds()["cycle"][0], rel=1e-9)


def test_seconds_of_a_recorded_solve_are_the_seconds_of_the_result(solver):
    result, events = recorded(solver)
    seconds = events.seconds()
    assert set(seconds) == set(result.phases)
    rounding = len(events.begin) * np.spacing(events.end.max())  # of differences of clock times
    for phase, expected in result.phases.items():
        assert seconds[phase] == pytest.approx([expected], rel=1e-9, abs=rounding)
    assert sum(result.phases.values()) == pytest.approx(result.seconds, abs=1e-3)
    assert events.begin.min() == events.begin[0]
    assert events.end.max() == events.end[0]
