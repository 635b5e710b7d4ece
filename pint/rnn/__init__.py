"""Recurrent networks, trained in parallel over time."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pint.rnn import losses
    from pint.rnn.architecture import Architecture
    from pint.rnn.losses import CrossEntropy, SquaredError
    from pint.rnn.network import Network
    from pint.rnn.recurrence_options import RecurrenceOptions
    from pint.rnn.solver import LossAndGradient, NetworkSolver
    from pint.rnn.torch_cell import from_torch

__all__ = [
    "Architecture",
    "CrossEntropy",
    "LossAndGradient",
    "Network",
    "NetworkSolver",
    "RecurrenceOptions",
    "SquaredError",
    "from_torch",
    "losses",
]

_MODULES = {
    "architecture": ("Architecture",),
    "losses": ("CrossEntropy", "SquaredError"),
    "network": ("Network",),
    "recurrence_options": ("RecurrenceOptions",),
    "solver": ("LossAndGradient", "NetworkSolver"),
    "torch_cell": ("from_torch",),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: its module may need Numba."""
    for module, names in _MODULES.items():
        if name in (module, *names):
            found = import_module(f"pint.rnn.{module}")
            return found if name == module else getattr(found, name)
    raise AttributeError(f"module 'pint.rnn' has no attribute {name!r}")
