"""Options: what is refused, with which words, and what the levels get."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from pint import MGRITOptions
from pint.options import CONFLICTS, per_level


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"levels": 0}, "levels must be at least 1, got 0"),
        ({"levels": 2.0}, "levels must be an integer, got 2.0"),
        ({"levels": True}, "levels must be an integer, got True"),
        ({"levels": (2, 3)}, "levels must be one integer, got (2, 3)"),
        ({"coarsening": 0}, "coarsening must be at least 1, got 0"),
        ({"coarsening": (4, -1)}, "coarsening must be at least 1, got -1"),
        ({"coarsening": ((0, 2.5),)}, "coarsening must be an integer, got 2.5"),
        ({"coarsening": (2, "04")}, "coarsening must be an integer, got '04'"),
        *(
            (
                {"coarsening": (2, points)},
                "coarsening must give indices of C-points that begin with 0 and increase, got "
                f"{points}",
            )
            for points in [(), (0,), (1, 2), (0, 2, 2), (0, 3, 1)]
        ),
        ({"relax_weight": 0.0}, "relax_weight must be a positive number, got 0.0"),
        ({"relax_weight": (1.0, -1.0)}, "relax_weight must be a positive number, got -1.0"),
        (
            {"relax_weight": 1.5, "relax": 0},
            "relax_weight and relax 0 do not go together: it weights C-relaxation: set relax to 1 "
            "or more",
        ),
        ({"coarsening": (4, 2.5)}, "coarsening must be an integer, got 2.5"),
        ({"coarsening": ()}, "coarsening must have at least one entry, got ()"),
        ({"coarsening": [4, 2]}, "coarsening must be an integer or a tuple of them, got [4, 2]"),
        ({"min_coarse": 0}, "min_coarse must be at least 1, got 0"),
        ({"min_coarse": (2,)}, "min_coarse must be one integer, got (2,)"),
        ({"relax": -1}, "relax must be at least 0, got -1"),
        ({"relax": (1, -2)}, "relax must be at least 0, got -2"),
        ({"cycle": "X"}, "cycle must be one of V, F, W, got 'X'"),
        ({"v_cycles_per_level": 0}, "v_cycles_per_level must be at least 1, got 0"),
        ({"f_cycle_iterations": 0}, "f_cycle_iterations must be at least 1, got 0"),
        (
            {"v_cycles_per_level": 2},
            "v_cycles_per_level and cycle 'V' or 'W' do not go together: it counts cycles of an "
            "F-cycle: set cycle='F'",
        ),
        ({"max_iterations": 0}, "max_iterations must be at least 1, got 0"),
        ({"max_iterations": (9,)}, "max_iterations must be one integer, got (9,)"),
        ({"tolerance": 0.0}, "tolerance must be a positive number, got 0.0"),
        ({"tolerance": float("nan")}, "tolerance must be a positive number, got nan"),
        ({"tolerance": float("inf")}, "tolerance must be a positive number, got inf"),
        ({"relative_tolerance": -1e-3}, "relative_tolerance must be a positive number, got -0.001"),
        ({"time_norm": 3}, "time_norm must be one of 1, 2, inf, got 3"),
        ({"time_norm": "2"}, "time_norm must be one of 1, 2, inf, got '2'"),
        (
            {"residual_points": "full"},
            "residual_points must be one of c_points, all_points, none, got 'full'",
        ),
        (
            {"residual_points": "none", "tolerance": 1e-6},
            "tolerance, relative_tolerance or local_tolerance and residual_points 'none' do not go "
            "together: a tolerance needs a residual: leave one out",
        ),
        ({"local_tolerance": -1.0}, "local_tolerance must be a positive number, got -1.0"),
        ({"divergence_factor": 0}, "divergence_factor must be a positive number, got 0"),
        (
            {"coarsest": "serial"},
            "coarsest must be one of gather, pipelined, relaxation, got 'serial'",
        ),
        ({"driver": "fast"}, "driver must be one of auto, loop, stack, compiled, got 'fast'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"threads": (2, 1)}, "threads must be one integer, got (2, 1)"),
    ],
    ids=lambda value: "-".join(map(str, next(iter(value.items())))) if type(value) is dict else "",
)
def test_bad_values_are_refused_with_the_value_and_the_remedy(bad, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared in full
        MGRITOptions(**bad)
    assert str(caught.value) == message
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(MGRITOptions(), **bad)


def test_groups_are_of_their_class():
    with pytest.raises(TypeError, match="delta must be of Delta, got 'full'"):
        MGRITOptions(delta="full")


def test_the_manual_has_the_table_of_conflicts():
    manual = (Path(__file__).parents[1] / "docs" / "engine.md").read_text(encoding="utf-8")
    rows = [f"| {one} | {other} | {reason} |" for one, other, reason in CONFLICTS]
    assert "\n".join(rows) in manual


def test_options_are_frozen_and_named():
    options = MGRITOptions()
    with pytest.raises(FrozenInstanceError):
        options.levels = 3
    with pytest.raises(TypeError):
        MGRITOptions(3)
    assert options == MGRITOptions()
    assert hash(options) == hash(MGRITOptions())


@pytest.mark.parametrize(
    ("value", "expected"), [(4, [4, 4, 4, 4]), ((8, 2), [8, 2, 2, 2]), ((5,), [5, 5, 5, 5])]
)
def test_last_entry_holds_for_coarser_levels(value, expected):
    assert [per_level(value, level) for level in range(4)] == expected
    options = MGRITOptions(coarsening=value, relax=value)
    assert [options.coarsening_of(level) for level in range(4)] == expected
    assert [options.relax_of(level) for level in range(4)] == expected


@pytest.mark.parametrize(
    ("options", "num_steps", "factors"),
    [
        # 100, 50, 25, 12, 6, 3 steps: the 6 levels of the published case scalar-100-V.
        ({"levels": 10}, 100, (2, 2, 2, 2, 2)),
        # The 8 levels of the published case heat1d-128-space-coarsening.
        ({"levels": 20, "min_coarse": 1}, 128, (2,) * 7),
        ({"levels": 3, "coarsening": 4}, 100, (4, 4)),
        ({"levels": 1}, 100, ()),
        ({"levels": 2, "coarsening": 2}, 3, ()),
        ({"levels": 2, "coarsening": 2}, 4, (2,)),
        ({"levels": 2, "coarsening": 2, "min_coarse": 1}, 2, (2,)),
        ({"levels": 4, "coarsening": (8, 2)}, 128, (8, 2, 2)),
        ({"levels": 4, "coarsening": (2, 50, 3)}, 100, (2,)),
        ({"levels": 4, "coarsening": (2, 1, 2)}, 10, (2, 1, 2)),
        ({"levels": 3, "coarsening": 1}, 5, (1, 1)),
        ({"levels": 9, "coarsening": (np.array([0, 1, 5, 9]),)}, 10, ((0, 1, 5, 9),)),
        ({"levels": 9, "coarsening": ([0, 1, 5, 9, 10], 2)}, 10, ((0, 1, 5, 9, 10), 2)),
        ({"levels": 9, "coarsening": ((0, 9), 2)}, 10, ()),  # one step is too few
    ],
    ids=str,
)
def test_levels_exist_while_they_have_enough_steps(options, num_steps, factors):
    assert MGRITOptions(**options).factors(num_steps) == factors


def test_c_points_beyond_their_level_are_refused():
    options = MGRITOptions(levels=3, coarsening=(2, (0, 3, 6)))
    with pytest.raises(ValueError, match=r"has the C-point 6 on level 1, whose points are 0\.\.5"):
        options.factors(10)


def test_behind_indices_the_coarsest_level_is_relaxed_by_twos():
    options = MGRITOptions(coarsening=(3, (0, 1, 5)))
    assert [options.coarsening_of(level) for level in range(4)] == [3, (0, 1, 5), 2, 2]


def test_numpy_integers_are_integers():
    assert MGRITOptions(levels=np.int64(3)).levels == 3
