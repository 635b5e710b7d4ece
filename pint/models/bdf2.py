"""BDF2 with variable steps, for any model that steps by backward Euler."""

from __future__ import annotations

from dataclasses import replace

from pint.models.bdf import BDF, tuples
from pint.models.problem import Problem
from pint.propagator import Propagator


class BDF2(BDF):
    """`BDF` of order 2 on all levels: a state is the pair y(t), y(t + d).

    With h = t_0 - t_1, r = h / (t_1 - t_2) and c = (2 r + 1) / (r + 1) its formula is

        c y_0 - (r + 1) y_1 + r^2 / (r + 1) y_2 = h f(t_0, y_0).

    Parameters
    ----------
    model : Propagator
        A batched model with `backward_euler` True: its step is a step of backward Euler. The
        composed model has its `parameters`.
    distance : float
        d, in units of time.

    Raises
    ------
    ValueError
        As in `BDF`.

    References
    ----------
    Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", Springer 1993, III.5.
    """

    def __init__(self, model: Propagator, distance: float) -> None:
        super().__init__(model, distance, order=2)


def pairs(problem: Problem, num_steps: int | None = None) -> Problem:
    """Convert a problem of backward Euler to BDF2, see `pint.models.bdf.tuples`."""
    made = tuples(problem, 2, num_steps)
    return replace(made, name=f"{problem.name}, in pairs for BDF2")
