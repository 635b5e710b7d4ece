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
    "Architecture": "architecture",
    "CrossEntropy": "losses",
    "LossAndGradient": "solver",
    "Network": "network",
    "NetworkSolver": "solver",
    "RecurrenceOptions": "recurrence_options",
    "SquaredError": "losses",
    "from_torch": "torch_cell",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: its module may need Numba."""
    if name == "losses":
        return import_module("pint.rnn.losses")
    if name in _MODULES:
        return getattr(import_module(f"pint.rnn.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'pint.rnn' has no attribute {name!r}")
