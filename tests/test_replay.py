"""Recorded cycles, replayed as one call, and their events in a timeline."""

from itertools import groupby

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions
from pint.drivers import replay, tiling
from pint.drivers.operations import CHAIN, CORRECT, FIRST_PART, NORM, RESIDUAL_AT, SWEEP, TICK
from pint.drivers.replay import Replay, Tape
from pint.drivers.tiling import num_items
from pint.stopwatch import Stopwatch
from pint.timeline import Timeline
from tests.engine_models import CompiledSwirl, uneven_times

START = np.array([0.5, -0.3, 0.8])
OPTIONS = MGRITOptions(levels=3, max_iterations=4, driver="compiled")
RELAXED, RESIDUAL, STEPPED = ("relaxation", 0), ("residual", 0), ("coarsest level", 1)
CORRECTED = ("correction", 0)
NOTED = [
    (SWEEP, 0, 1, 102, 4, 3, RELAXED),
    (SWEEP, 0, 4, 102, 4, 1, RELAXED),
    (RESIDUAL_AT, 0, 5, 102, 4, 2, RESIDUAL),
    (NORM, 0, 2, 27, 1, 0, RESIDUAL),
    (CHAIN, 1, 1, 26, 1, 0, STEPPED),
    (CORRECT, 0, 1, 102, 4, 1, CORRECTED),
    (SWEEP, 0, 1, 102, 4, 3, RELAXED),
]


@pytest.fixture
def solver(monkeypatch):
    """A solver whose cycles are noted down, and in many chunks."""
    monkeypatch.setattr(tiling, "CHUNK_BYTES", 300)
    made = MGRIT(CompiledSwirl(coarsening=(2, 2)), uneven_times(200), OPTIONS)
    made.solve(START)
    return made


def recorded(solver):
    timeline = Timeline()
    with timeline:
        result = solver.solve(START)
    return result, timeline.events()


def taped():
    tape = Tape(seconds=1.0)
    for *line, part in NOTED:
        tape.note(tuple(line), part)
    return tape


def test_parts_of_a_tape_are_runs_of_one_phase_and_level():
    tape = taped()
    assert tape.parts == [RELAXED, RESIDUAL, STEPPED, CORRECTED, RELAXED]
    assert [line[-1] for line in tape.lines] == [0, 0, 1, 1, 2, 3, 4]


@pytest.mark.parametrize("per_chunk", [1, 7, 26])
def test_pieces_count_for_the_part_that_they_belong_to(monkeypatch, per_chunk):
    """A count of the places that were gone through is in the place of the clock."""
    monkeypatch.setattr(tiling, "CHUNK_BYTES", per_chunk * 4 * 16)
    again, watch, timeline = Replay(taped(), 16), Stopwatch(), Timeline()
    codes = []

    def run(program):
        count = 0
        for line in program.tolist():
            codes.append(line[0])
            if line[0] == TICK:
                again._ticks[FIRST_PART + line[-1]] += count
            count = 0 if line[0] == TICK else count + num_items(tuple(line))

    with timeline, watch.phase("rest"):
        again.play(run, watch)
    marks = timeline.marks[1:-1]
    spans = np.array(marks[1::2]) - np.array([mark[-1] for mark in marks[::2]])
    assert [mark[:2] for mark in marks[::2]] == again.tape.parts
    assert np.rint(1e9 * spans).tolist() == [26 + 25, 25 + 25, 1, 26, 26]
    assert per_chunk < 26 or codes.count(TICK) == len(again.tape.parts)
    with timeline, watch.phase("rest"):
        again.play(lambda program: None, watch)  # brief, as it turned out
    assert timeline.marks[-3][0] == "cycle"


def test_recorded_replays_tell_what_the_operations_one_by_one_would(solver, monkeypatch):
    """But for neighbours of one phase and level, which are one event of a replay."""
    monkeypatch.setattr(replay, "BRIEF", 0.0)
    plain = solver.solve(START)
    one_by_one = recorded(MGRIT(CompiledSwirl(coarsening=(2, 2)), uneven_times(200), OPTIONS))[1]
    result, events = recorded(solver)
    assert np.array_equal(result.u, plain.u)
    assert np.array_equal(result.residuals, plain.residuals, equal_nan=True)
    assert result.num_steps == plain.num_steps
    for iteration in range(OPTIONS.max_iterations):
        assert _phases(events, iteration) == [
            part for part, _ in groupby(_phases(one_by_one, iteration))
        ]


def _phases(events, iteration):
    rows = [row for row in events.rows() if row[3] == iteration]
    return [(row[1], row[2]) for row in rows if row[1] != "messages"]


def test_seconds_of_recorded_replays_are_those_of_the_result(solver, monkeypatch):
    monkeypatch.setattr(replay, "BRIEF", 0.0)
    result, events = recorded(solver)
    seconds = events.seconds()
    assert set(seconds) == set(result.phases)
    assert {"relaxation", "residual", "restriction", "coarsest level", "correction"} < set(seconds)
    rounding = len(events.begin) * np.spacing(events.end.max())  # of differences of clock times
    for phase, expected in result.phases.items():
        assert seconds[phase] == pytest.approx([expected], rel=1e-9, abs=rounding)
    assert sum(result.phases.values()) == pytest.approx(result.seconds, abs=1e-3)
    assert events.begin.min() == events.begin[0]
    assert events.end.max() == events.end[0]


@pytest.mark.parametrize("has_clock", [True, False])
def test_brief_cycles_and_those_without_a_clock_are_one_event(solver, monkeypatch, has_clock):
    monkeypatch.setattr(replay, "BRIEF", np.inf if has_clock else 0.0)
    if not has_clock:
        monkeypatch.setattr(replay, "clock_address", lambda: 0)
    plain, (result, events) = solver.solve(START), recorded(solver)
    assert _phases(events, 1) == [("cycle", -1)]
    assert result.phases["cycle"] == pytest.approx(events.seconds()["cycle"][0], rel=1e-9)
    assert np.array_equal(result.u, plain.u)
    assert "cycle" not in plain.phases
