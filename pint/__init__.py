"""pint: parallel-in-time solution of initial-value problems, and training of recurrent networks."""

from typing import TYPE_CHECKING, Any

from pint._version import __version__
from pint.adjoint.objective import Evaluation, Objective, value_and_gradient
from pint.adjoint.propagator import AdjointPropagator
from pint.adjoint.solver import AdjointResult, AdjointSolver
from pint.check import ContractError, check_propagator
from pint.grid.timegrid import TimeGrid
from pint.mgrit.guess import Random
from pint.mgrit.result import Profile, Result, Visit
from pint.mgrit.solver import MGRIT, solve
from pint.mgrit.status import Status
from pint.options import Delta, LocalGrids, MGRITOptions, Refinement, Richardson
from pint.parallel import run, run_on_threads, world
from pint.propagator import Linearization, Propagator, Step
from pint.windows import solve_in_windows

if TYPE_CHECKING:
    from pint.results.reader import open_run

__all__ = [
    "MGRIT",
    "AdjointPropagator",
    "AdjointResult",
    "AdjointSolver",
    "ContractError",
    "Delta",
    "Evaluation",
    "Linearization",
    "LocalGrids",
    "MGRITOptions",
    "Objective",
    "Profile",
    "Propagator",
    "Random",
    "Refinement",
    "Result",
    "Richardson",
    "Status",
    "Step",
    "TimeGrid",
    "Visit",
    "__version__",
    "check_propagator",
    "open_run",
    "run",
    "run_on_threads",
    "solve",
    "solve_in_windows",
    "value_and_gradient",
    "world",
]


def __getattr__(name: str) -> Any:
    """Import what needs h5py only when it is asked for."""
    if name == "open_run":
        from pint.results.reader import open_run

        return open_run
    raise AttributeError(f"module 'pint' has no attribute {name!r}")
