"""pint: parallel-in-time solution of initial-value problems, and training of recurrent networks."""

from pint._version import __version__
from pint.adjoint import AdjointPropagator, AdjointResult, AdjointSolver
from pint.mgrit.solver import MGRIT, Result, Status, solve
from pint.options import MGRITOptions
from pint.propagator import Linearization, Propagator, Step
from pint.timegrid import TimeGrid

__all__ = [
    "AdjointPropagator",
    "AdjointResult",
    "AdjointSolver",
    "MGRIT",
    "Linearization",
    "MGRITOptions",
    "Propagator",
    "Result",
    "Status",
    "Step",
    "TimeGrid",
    "__version__",
    "solve",
]
