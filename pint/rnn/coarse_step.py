"""What a coarse step of a gated recurrent layer does: a table of gate evaluations."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

CoarseStep = Literal["implicit", "matched", "midpoint", "averaged"]


class GateEvaluation(NamedTuple):
    """One gate evaluation: a part of a step, or the first half of one.

    Parameters
    ----------
    end : int
        Its part ends at the finest step ``step.last - end``.
    span : int
        Number of finest steps of its part.
    read : int
        It reads the input of the finest step ``step.last - read``,
    length : int
        averaged over the last `length` inputs up to there.
    is_middle : bool
        It covers half of its part, and its result is only the state of which the next evaluation
        takes its gates. Any other evaluation blends the state at the part's start, and ends it.

    Examples
    --------
    >>> GateEvaluation(end=0, span=4, read=2, length=1, is_middle=True).factor
    1
    """

    end: int
    span: int
    read: int
    length: int
    is_middle: bool = False

    @property
    def factor(self) -> int:
        """Twice the exponent of q for each finest step of the part."""
        return 1 if self.is_middle else 2


@cache
def gate_evaluations(
    num_fine: int, coarse_step: CoarseStep, substep: int
) -> tuple[GateEvaluation, ...]:
    """Return the gate evaluations of a step that stands for `num_fine` finest steps.

    Parameters
    ----------
    num_fine : int
        1 is a finest step: one evaluation.
    coarse_step : {"implicit", "matched", "midpoint", "averaged"}
        "implicit": gamma is multiplied by `num_fine` (Moon & Cyr, ICLR 2022). "matched": q is
        taken to the power `num_fine`, which is exact while gates do not change. "midpoint": a
        matched half step leads to the middle, whose gates then take the state over the interval.
        "averaged": as "midpoint", with the mean of the inputs of the first half in place of the
        middle's input, and the mean of the second half in place of the last input.
    substep : int
        A midpoint or averaged step is split into parts of at most this many finest steps; a part
        of one or two is taken by finest steps, which cost no more.

    Examples
    --------
    >>> gate_evaluations(4, "averaged", 8)  # doctest: +NORMALIZE_WHITESPACE
    (GateEvaluation(end=0, span=4, read=2, length=2, is_middle=True),
     GateEvaluation(end=0, span=4, read=0, length=2, is_middle=False))
    """
    if num_fine == 1 or coarse_step in ("implicit", "matched"):
        return (GateEvaluation(0, num_fine, 0, 1),)
    num_parts = -(-num_fine // substep)
    ends = [part * num_fine // num_parts for part in range(num_parts + 1)]
    table: list[GateEvaluation] = []
    for begin, end in pairwise(ends):
        table += _part(num_fine - end, end - begin, averaged=coarse_step == "averaged")
    return tuple(table)


def _part(end: int, span: int, *, averaged: bool) -> list[GateEvaluation]:
    """Return the evaluations of the part of `span` finest steps that ends `end` before the last."""
    if span <= 2:  # exact, with the number of evaluations of a midpoint
        return [GateEvaluation(end + left, 1, end + left, 1) for left in range(span - 1, -1, -1)]
    second = span // 2
    first = span - second
    return [
        GateEvaluation(end, span, end + second, first if averaged else 1, is_middle=True),
        GateEvaluation(end, span, end, second if averaged else 1),
    ]
