"""Timelines of many processes."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions
from pint.parallel.comm import world
from pint.timeline import Timeline, clock_offset
from tests.engine_models import CompiledSwirl, uneven_times

TIMES = uneven_times(40)
START = np.array([0.5, -0.3, 0.8])


@pytest.mark.parametrize("driver", ["loop", "compiled"])
@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
def test_all_ranks_are_recorded_and_nothing_else_changes(driver, coarsest):
    folder = Path(world().allgather_text(tempfile.mkdtemp() if world().rank == 0 else "")[0])
    options = MGRITOptions(levels=3, max_iterations=3, driver=driver, coarsest=coarsest)
    solver = MGRIT(CompiledSwirl(coarsening=(2, 2)), TIMES, options, world())
    plain, timeline = solver.solve(START), Timeline(world())
    begin = time.perf_counter()
    with timeline:
        result = solver.solve(START)
    end = time.perf_counter()
    assert np.array_equal(result.u, plain.u)
    assert result.num_steps == plain.num_steps
    seconds = result.profile().seconds
    events = timeline.events()
    timeline.write(folder / "trace.json")
    assert (events is None) == (world().rank > 0)
    if events is not None:
        assert events.num_ranks == world().size
        assert {phase for phase in seconds if seconds[phase].any()} == set(events.seconds())
        for phase, measured in events.seconds().items():
            np.testing.assert_allclose(measured, seconds[phase], rtol=1e-9, atol=1e-12)
        own = events.rank == 0
        assert begin <= events.begin[own].min()
        assert events.end[own].max() <= end
        trace = json.loads((folder / "trace.json").read_text())["traceEvents"]
        assert {event["tid"] for event in trace if event["ph"] == "X"} == {
            rank + 1 for rank in range(world().size)
        }
        (folder / "trace.json").unlink()
        folder.rmdir()
    world().barrier()


def test_clocks_that_differ_are_compared_within_the_time_of_a_message():
    ahead = 100.0 * world().rank
    offset, error = clock_offset(world(), lambda: time.perf_counter() + ahead)
    assert abs(offset - ahead) <= error + 1e-9
    assert error < 1.0


def test_a_file_that_cannot_be_written_is_an_error_on_every_rank():
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Timeline(world()).write("/nowhere/at/all/trace.json")
