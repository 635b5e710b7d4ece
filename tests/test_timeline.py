"""What is recorded of a solve, and what is made of it."""

import json
import threading

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.parallel.comm import SerialCommunicator
from pint.timeline import Events, Timeline, clock_offset, draw_events, save_figure, write_trace
from pint.timeline.figure import COLORS
from tests.engine_models import CompiledSwirl, Swirl, uneven_times

START = np.array([0.5, -0.3, 0.8])
OPTIONS = MGRITOptions(levels=3, max_iterations=2, skip_first_down=False, driver="loop")

# Rank 0: a cycle of 10 s with relaxation, 1 to 7, that waits from 2 to 3 and from 3 to 5; rank 1
# relaxes twice, from 4 to 6 and from 8 to 9.
BY_HAND = Events(
    rank=[0, 0, 0, 0, 1, 1],
    phase=["rest", "relaxation", "messages", "messages", "relaxation", "relaxation"],
    level=[-1, 0, 0, 0, 1, 1],
    iteration=[-1, 0, 0, 0, 0, 1],
    begin=[0.0, 1.0, 2.0, 3.0, 4.0, 8.0],
    end=[10.0, 7.0, 3.0, 5.0, 6.0, 9.0],
)


def recorded(model, options=OPTIONS):
    """Return a solver's result and the events of its solve."""
    solver, timeline = MGRIT(model, uneven_times(40), options), Timeline()
    with timeline:
        result = solver.solve(START)
    return result, timeline.events()


def test_phases_levels_and_iterations_of_v_cycles():
    """Those inside others, restriction of states alone and messages, left out."""
    _, events = recorded(Swirl())
    down = ["relaxation"] * 3 + ["residual", "restriction"]  # F, C, F
    up = ["correction", "relaxation"]
    cycle = [
        *((0, phase) for phase in down),
        *((1, phase) for phase in down),
        (2, "coarsest level"),
        *((1, phase) for phase in up),
        *((0, phase) for phase in up),
    ]
    rows = [row for row in events.rows() if row[1] not in ("rest", "start", "messages")]
    outer = [row for k, row in enumerate(rows) if k == 0 or row[4] >= max(r[5] for r in rows[:k])]
    # The second cycle begins with F-points that are relaxed already, which is no event.
    for iteration, expected in ((0, cycle), (1, cycle[1:])):
        assert [(row[2], row[1]) for row in outer if row[3] == iteration] == expected
    whole = {"rest", "start"}
    assert set(events.phase[events.iteration == -1].tolist()) == whole
    assert set(events.phase[events.level == -1].tolist()) == whole


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
def test_seconds_are_those_of_the_result_and_nothing_else_changes(driver):
    options = MGRITOptions(levels=3, max_iterations=3, driver=driver)
    model = CompiledSwirl(coarsening=(2, 2), batched=driver == "stack")
    result, events = recorded(model, options)
    seconds = events.seconds()
    assert set(seconds) == set(result.phases)
    for phase, expected in result.phases.items():
        assert seconds[phase] == pytest.approx([expected], rel=1e-9, abs=1e-12)
    replayed = [2] if driver == "compiled" else []  # the third begins where the second did
    assert events.iteration[events.phase == "cycle"].tolist() == replayed
    one_by_one = [k for k in range(3) if k not in replayed]
    assert events.iteration[events.phase == "coarsest level"].tolist() == one_by_one
    plain = MGRIT(model, uneven_times(40), options).solve(START)
    assert np.array_equal(result.u, plain.u)
    assert result.num_steps == plain.num_steps


def test_events_lie_inside_one_another_or_apart():
    _, events = recorded(Swirl(), MGRITOptions(levels=3, max_iterations=2, cycle="F"))
    pairs = [(a[-2:], b[-2:]) for a in events.rows() for b in events.rows()]
    assert all(
        b[0] >= a[1] or b[1] <= a[0] or (a[0] <= b[0] and b[1] <= a[1])
        or (b[0] <= a[0] and a[1] <= b[1]) for a, b in pairs
    )  # fmt: skip


def test_blocks_follow_one_another_and_only_they_are_recorded():
    solver, timeline = MGRIT(Swirl(), uneven_times(40), OPTIONS), Timeline()
    counts = []
    for _ in range(2):
        with timeline:
            solver.solve(START)
            elsewhere = threading.Thread(target=solver.solve, args=(START,))
            elsewhere.start()
            elsewhere.join()
        solver.solve(START)
        counts.append(timeline.events().rank.size)
    one = recorded(Swirl())[1].rank.size
    assert counts == [one, 2 * one]


def test_phases_that_are_not_over_end_now():
    solver, timeline, seen = MGRIT(Swirl(), uneven_times(40), OPTIONS), Timeline(), []
    with timeline:
        solver.solve(START, on_iteration=lambda k, norm: seen.append(timeline.events()))
    assert seen[0].phase[0] == "rest"
    assert seen[0].end[0] == seen[0].end.max()
    assert seen[0].end[0] < seen[1].end[0] < timeline.events().end[0]


def test_adjoint_solves_are_recorded():
    timeline = Timeline()
    forward = MGRIT(Dahlquist(-1.0), TimeGrid.uniform(0, 1, 64), MGRITOptions(max_iterations=2))
    with timeline:
        AdjointSolver(forward).solve(forward.solve(1.0), 1.0)
    phases = timeline.events().phase.tolist()
    outer = [phase for phase in phases if phase in ("rest", "linearization", "gradient")]
    assert outer == ["rest", "linearization", "rest", "gradient"]


def test_innermost_pieces_by_hand():
    pieces = BY_HAND.innermost()
    assert [(rank, phase, begin, end) for rank, phase, _, _, begin, end in pieces.rows()] == [
        (0, "rest", 0.0, 1.0),
        (0, "relaxation", 1.0, 2.0),
        (0, "messages", 2.0, 3.0),
        (0, "messages", 3.0, 5.0),
        (0, "relaxation", 5.0, 7.0),
        (0, "rest", 7.0, 10.0),
        (1, "relaxation", 4.0, 6.0),
        (1, "relaxation", 8.0, 9.0),
    ]
    seconds = {phase: values.tolist() for phase, values in BY_HAND.seconds().items()}
    assert seconds == {"messages": [3.0, 0.0], "relaxation": [3.0, 3.0], "rest": [4.0, 0.0]}


def test_a_trace_has_what_the_format_asks_for(tmp_path):
    write_trace(tmp_path / "trace.json", BY_HAND)
    trace = json.loads((tmp_path / "trace.json").read_text())
    names = {
        e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"
    }
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert names == {1: "rank 0", 2: "rank 1"}
    assert complete[1] == {
        "name": "relaxation",
        "ph": "X",
        "ts": 1e6,
        "dur": 6e6,
        "pid": 1,
        "tid": 1,
        "args": {"level": 0, "iteration": 0},
    }
    assert [event["tid"] for event in complete] == [1, 1, 1, 1, 2, 2]
    assert {event["ph"] for event in trace["traceEvents"]} == {"M", "X"}


def test_rounding_leaves_events_inside_others(tmp_path):
    _, events = recorded(Swirl())
    write_trace(tmp_path / "trace.json", events)
    trace = json.loads((tmp_path / "trace.json").read_text())
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    nano = [(round(1000 * e["ts"]), round(1000 * (e["ts"] + e["dur"]))) for e in complete]
    assert len(nano) == events.rank.size
    assert min(begin for begin, _ in nano) == 0
    for one, (begin, end) in zip(events.rows(), nano, strict=True):
        for other, (b, e) in zip(events.rows(), nano, strict=True):
            if one[4] <= other[4] and other[5] <= one[5]:
                assert begin <= b <= e <= end


def test_a_figure_shows_ranks_levels_and_phases(tmp_path):
    """Boxes by colour, in seconds and rows: level 1 is the lower half of its rank's row."""
    pytest.importorskip("matplotlib")
    from matplotlib.colors import to_hex

    axes = draw_events(BY_HAND)
    boxes = {
        to_hex(one.get_facecolor()[0]): [path.get_extents().bounds for path in one.get_paths()]
        for one in axes.collections
    }
    expected = [(4.0, 1.45, 2.0, 0.45), (8.0, 1.45, 1.0, 0.45)]
    np.testing.assert_allclose(boxes[COLORS["relaxation"]][2:], expected, atol=1e-12)
    np.testing.assert_allclose(boxes[COLORS["rest"]][0], (0.0, 0.0, 1.0, 0.9), atol=1e-12)
    assert axes.get_xlabel() == "time in s"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "relaxation",
        "messages",
        "rest",
    ]
    save_figure(tmp_path / "trace.png", BY_HAND)
    assert (tmp_path / "trace.png").read_bytes()[:4] == b"\x89PNG"
    nothing = Events(rank=[], phase=[], level=[], iteration=[], begin=[], end=[])
    assert not draw_events(nothing).collections


def test_nothing_recorded_is_an_empty_trace(tmp_path):
    Timeline().write(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert {event["ph"] for event in trace["traceEvents"]} == {"M"}


def test_wrong_events_and_names(tmp_path):
    one = {"rank": [0], "phase": ["a"], "level": [0], "iteration": [0]}
    with pytest.raises(ValueError, match="an event ends before it begins"):
        Events(**one, begin=[1.0], end=[0.5])
    with pytest.raises(ValueError, match=r"end has shape \(2,\), expected \(1,\)"):
        Events(**one, begin=[1.0], end=[2.0, 3.0])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Timeline().write(tmp_path / "nowhere" / "trace.json")


def test_one_clock_needs_no_comparison():
    assert clock_offset(SerialCommunicator()) == (0.0, 0.0)
