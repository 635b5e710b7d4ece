"""What a coarse step of a gated recurrent unit does: a table of gate evaluations."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

CoarseStep = Literal["implicit", "matched", "midpoint"]


class Phase(NamedTuple):
    """One gate evaluation.

    Parameters
    ----------
    offset : int
        It reads the input of the finest step ``step.last - offset``.
    gamma : int
        Step length of the implicit unit.
    power2 : int
        Twice the number of times that q is multiplied with itself.
    is_middle : bool
        Its result is only the state from which the next phase takes its gates. Any other phase
        takes the interval's start as the state to blend, and ends the interval.
    """

    offset: int
    gamma: int
    power2: int
    is_middle: bool = False


@cache
def phases(num_fine: int, coarse_step: CoarseStep, substep: int) -> tuple[Phase, ...]:
    """Return the gate evaluations of a step that stands for `num_fine` finest steps.

    Parameters
    ----------
    num_fine : int
        1 is a finest step: one evaluation with gamma = 1.
    coarse_step : {"implicit", "matched", "midpoint"}
        "implicit": gamma is multiplied by `num_fine` (Moon & Cyr, ICLR 2022). "matched": q is
        taken to the power `num_fine`, which is exact while gates do not change. "midpoint": a
        matched half step leads to the middle, whose gates then take the state over the interval.
    substep : int
        A midpoint step is split into parts of at most this many finest steps; a part of one or
        two is taken by finest steps, which cost no more.

    Examples
    --------
    >>> phases(4, "midpoint", 8)
    (Phase(offset=2, gamma=1, power2=4, is_middle=True), Phase(offset=0, gamma=1, power2=8, is_middle=False))
    """  # noqa: E501
    if num_fine == 1:
        return (Phase(0, 1, 2),)
    if coarse_step == "implicit":
        return (Phase(0, num_fine, 2),)
    if coarse_step == "matched":
        return (Phase(0, 1, 2 * num_fine),)
    num_parts = -(-num_fine // substep)
    ends = [part * num_fine // num_parts for part in range(num_parts + 1)]
    table: list[Phase] = []
    for begin, end in pairwise(ends):
        length, offset = end - begin, num_fine - end
        if length <= 2:  # as many evaluations as a midpoint, and exact
            table += [Phase(offset + left, 1, 2) for left in range(length - 1, -1, -1)]
            continue
        table.append(Phase(offset + length // 2, 1, length, is_middle=True))
        table.append(Phase(offset, 1, 2 * length))
    return tuple(table)
