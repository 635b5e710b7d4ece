"""Training: optimizers, learning rates, accuracy control, the trainer and its log."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pint.data.sequences import SequenceData
    from pint.train.accuracy import AccuracyOptions, exact_solver
    from pint.train.learning_rate import LearningRate
    from pint.train.log import TrainingLog, TrainingProgress
    from pint.train.optimizers import SGD, Adam, AdamW, clip_by_norm
    from pint.train.progress import ConsoleProgress
    from pint.train.trainer import Trainer, TrainingOptions

__all__ = [
    "SGD",
    "AccuracyOptions",
    "Adam",
    "AdamW",
    "ConsoleProgress",
    "LearningRate",
    "SequenceData",
    "Trainer",
    "TrainingLog",
    "TrainingOptions",
    "TrainingProgress",
    "clip_by_norm",
    "exact_solver",
]

_MODULES = {
    "pint.data.sequences": ("SequenceData",),
    "pint.train.accuracy": ("AccuracyOptions", "exact_solver"),
    "pint.train.learning_rate": ("LearningRate",),
    "pint.train.log": ("TrainingLog", "TrainingProgress"),
    "pint.train.optimizers": ("SGD", "Adam", "AdamW", "clip_by_norm"),
    "pint.train.progress": ("ConsoleProgress",),
    "pint.train.trainer": ("Trainer", "TrainingOptions"),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: its module may need Numba or rich."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'pint.train' has no attribute {name!r}")
