"""How a solve ended."""

from __future__ import annotations

import enum


class Status(enum.Enum):
    """How a solve ended, and what to do about it."""

    CONVERGED = "converged: the residual is below the tolerance"
    STEPPED = "one level: solved by time stepping"
    COMPLETED = "the given number of iterations was done; no tolerance was given"
    MAX_ITERATIONS = (
        "not converged: increase max_iterations, use FCF-relaxation (relax=1) or a smaller "
        "coarsening factor"
    )
    DIVERGED = (
        "diverged: the steps are not finite, or the coarse ones do not resemble the fine ones; "
        "use a smaller coarsening factor, fewer levels, or a coarse step that is stable at its "
        "length"
    )
