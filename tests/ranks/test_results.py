"""Run files from the callbacks of a solve on many processes."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, open_run
from pint.parallel.comm import world
from pint.results import write_iteration, write_result, write_visit
from tests.engine_models import Swirl, uneven_times

TIMES = uneven_times(40)


@pytest.mark.parametrize("coarsening", [(1, 3), ((0, 1, 2, 9, 30, 40), 2)], ids=str)
def test_each_callback_writes_what_all_ranks_have(coarsening):
    made = tempfile.mkdtemp() if world().rank == 0 else ""
    folder = Path(world().allgather_text(made)[0])
    options = MGRITOptions(levels=3, coarsening=coarsening, max_iterations=2, driver="loop")
    start = np.array([0.5, -0.3, 0.8])
    solver = MGRIT(Swirl(), TIMES, options, world())
    result = solver.solve(
        start,
        on_iteration=lambda k, norm: write_iteration(folder / f"{k}.h5", solver, k, norm),
        on_visit=lambda visit: write_visit(folder / f"level{visit.level}.h5", solver, visit),
        on_end=lambda result: write_result(folder / "end.h5", result, options),
    )
    serial = MGRIT(Swirl(), TIMES, options).solve(start)
    end = open_run(folder / "end.h5")
    assert np.array_equal(end.solution, serial.u)
    assert end.coarsening == serial.coarsening
    assert end.work["steps"][world().rank].tolist() == [
        result.num_steps.get(k, 0) for k in range(3)
    ]
    assert end.work["bytes"][world().rank] == result.num_bytes
    assert len(end.timings["messages"]) == world().size
    assert end.work["steps"][:, 0].sum() == serial.num_steps[0]
    assert np.array_equal(open_run(folder / "1.h5").solution, serial.u)
    coarsest = open_run(folder / "level2.h5")
    assert np.array_equal(coarsest.times, solver.hierarchy.levels[2].grid.times)
    assert len(coarsest.solution) == len(coarsest.times)
    world().barrier()  # all have read
    if world().rank == 0:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
