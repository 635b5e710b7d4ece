"""Costs of levels and batches that were not measured."""

from dataclasses import replace

import numpy as np
import pytest

from pint.scaling.costs import Table
from pint.scaling.fit import fitted, run_of, share_of
from pint.scaling.measurement import exactly, measured
from pint.scaling.predict import predict
from pint.scaling.schedule import Schedule
from pint.scaling.workload import GRUWorkload, HeatWorkload
from tests.made_up_costs import made_up

SMALL = GRUWorkload(steps=64, batch=4, features=1, hidden=4, outputs=10, coarsening=4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"levels": 2},
        {"levels": 2, "coarsening": 16, "substep": 2},
        {"levels": 4, "coarsening": (2, 4), "relax": 0},
        {"coarsening": (8, 4), "relax": (0, 1), "forward_iterations": 3},
        {"levels": 2, "coarsening": 8, "coarse_step": "implicit"},
        {"levels": 2, "coarsening": 8, "coarse_step": "midpoint", "substep": 8, "relax": 2},
    ],
)
def test_takes_what_its_evaluations_do(changes):
    whole = SMALL.changed(steps=63)  # every interval, of every level, is as long as the others
    way = whole.changed(**changes)
    costs = made_up(whole, second=1e-6)
    (steps,) = Schedule.of(way.run(), 1).steps()
    evaluations = way.evaluations()
    expected = 1e-6 * sum(count * evaluations[level] for (_, level), count in steps.items())
    seconds = predict(run_of(way, costs), fitted(costs, way), 1).seconds
    assert seconds == pytest.approx(expected, rel=1e-9)


def test_what_a_coarse_step_takes_besides_its_evaluations_is_found():
    """Measured with 2 and 8 evaluations on two levels; wanted with 16."""
    costs = made_up(SMALL)
    assert SMALL.evaluations() == [1, 2, 8]  # 4 and 16 finest steps in parts of 4, 2 for each part
    for level, count in ((1, 2), (2, 8)):
        table = Table(np.array([1, 10]), 5e-5 + 1e-6 * count * np.array([1.0, 10.0]))
        costs.tables["forward", "coarse_rhs", level] = table
    wanted = SMALL.changed(levels=2, coarsening=16, substep=2)
    assert wanted.evaluations() == [1, 16]
    table = fitted(costs, wanted).tables["forward", "coarse_rhs", 1]
    np.testing.assert_allclose(table.seconds, [5e-5 + 1.6e-5, 5e-5 + 1.6e-4])


def test_refuses_levels_of_which_nothing_is_known():
    alone = SMALL.changed(levels=1)
    with pytest.raises(ValueError, match="measure them with --levels 3"):
        fitted(made_up(alone), SMALL)
    with pytest.raises(ValueError, match="no exact stepping: measure them again"):
        fitted(replace(made_up(SMALL), exact={}), alone)


def test_exact_stepping_takes_all_steps_and_a_part_of_each_for_a_part_of_the_batch():
    exact = exactly(SMALL)
    costs = replace(made_up(SMALL, second=1e-6), alone=0.6)
    for groups, part in ((1, 1.0), (2, 0.8), (3, 0.8), (4, 0.7), (32, 0.7)):
        run, share = run_of(exact, costs, groups), share_of(exact, groups)
        seconds = predict(run, fitted(costs, exact), groups, share).seconds
        assert seconds == pytest.approx(2 * 64 * 1e-6 * part, rel=1e-6)


def test_exact_stepping_is_measured_with_what_it_takes_around_the_steps():
    costs = measured(SMALL, [32, 64], 2)
    assert {key[1] for key in costs.exact} >= {"chain recorded", "update", "bind", "gradient"}
    assert 0.0 <= costs.alone <= 1.0
    whole = predict(exactly(SMALL).run(), fitted(costs, exactly(SMALL)), 1)
    chains = [table for key, table in costs.exact.items() if key[1].startswith("chain")]
    assert len(chains) == 2
    steps = sum(table.at(64) for table in chains)
    assert whole.seconds > steps + costs.exact["", "update", -1].at(1)


def test_replayed_cycles_are_those_that_were_measured():
    heat = HeatWorkload(nodes=9, steps=64, levels=3)
    costs = heat.measure([32, 64], repeats=1)
    costs = replace(costs, problem=heat.described())
    assert run_of(heat.changed(steps=128), costs).replays
    for changes in ({"levels": 2}, {"coarsening": 2}, {"relax": 0}):
        assert not run_of(heat.changed(**changes), costs).replays
    one, two = (
        predict(run_of(way, costs), fitted(costs, way), 1).seconds
        for way in (heat.changed(relax=0), heat.changed(relax=2))
    )
    assert one < two
