"""Schema of a run file: its format version and the standard datasets (docs/results.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["ARRAY_GROUPS", "FORMAT_VERSION", "Quantity", "axis_names", "known_quantity"]

FORMAT_VERSION = 1
"""Raised only when a reader of the previous version would misread the file."""

ARRAY_GROUPS = ("history", "timings", "work", "training", "model")
"""Groups whose datasets are a flat mapping from name to array."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Quantity of a dataset.

    Parameters
    ----------
    unit : str
        Unit of the values, "1" for dimensionless ones.
    description : str
        One line for the reader of the file.
    axes : tuple of str
        Name of each axis. Datasets of one group that share an axis share its length.
    """

    unit: str
    description: str
    axes: tuple[str, ...]


def _per_epoch(unit: str, description: str) -> Quantity:
    return Quantity(unit=unit, description=description, axes=("epoch",))


_TIMING = Quantity(unit="s", description="wall time each rank spent in this phase", axes=("rank",))


def _per_batch(description: str) -> Quantity:
    return Quantity(unit="1", description=description, axes=("batch",))


# Forward and backward solves differ in their number of iterations, so their axes differ in name.
_HISTORY = {
    "residual": Quantity(
        unit="1", description="norm of the residual, NaN where not recorded", axes=("iteration",)
    ),
    "seconds": Quantity(unit="s", description="wall time of the iteration", axes=("iteration",)),
    "forward_residual": Quantity(
        unit="1",
        description="norm of the forward residual, NaN where not recorded",
        axes=("batch", "forward_iteration"),
    ),
    "backward_residual": Quantity(
        unit="1",
        description="norm of the adjoint residual, NaN where not recorded",
        axes=("batch", "backward_iteration"),
    ),
    "forward_iterations": _per_batch("forward cycles, 0 where it was stepped exactly"),
    "backward_iterations": _per_batch("backward cycles, 0 where it was stepped exactly"),
    "forward_relative": _per_batch("forward residual of the last cycle over norm of the states"),
    "backward_relative": _per_batch("adjoint residual of the last cycle over norm of the states"),
    "estimated_error": _per_batch("estimated relative error of the gradient, NaN where unknown"),
    "measured_error": _per_batch("relative error of the gradient, NaN where not measured"),
    "cosine": _per_batch("cosine between gradient and exact one, NaN where not measured"),
}

_TRAINING = {
    "epoch": _per_epoch("1", "number of the epoch"),
    "train_loss": _per_epoch("1", "mean loss over the training set"),
    "train_accuracy": _per_epoch("1", "fraction of the training set classified correctly"),
    "parallel_test_accuracy": _per_epoch("1", "test accuracy with the parallel-in-time solve"),
    "exact_test_accuracy": _per_epoch("1", "test accuracy with exact time stepping"),
    "parallel_test_error": _per_epoch("1", "mean test loss with the parallel-in-time solve"),
    "exact_test_error": _per_epoch("1", "mean test loss with exact time stepping"),
    "seconds": _per_epoch("s", "wall time of the epoch"),
    "forward_residual": _per_epoch("1", "norm of the forward residual after the last iteration"),
    "backward_residual": _per_epoch("1", "norm of the adjoint residual after the last iteration"),
    "gradient_norm": _per_epoch("1", "Euclidean norm of the parameter gradient"),
    "learning_rate": _per_epoch("1", "step size of the optimizer"),
}

_WORK = {
    "steps": Quantity(
        unit="1", description="steps that each rank took on each level", axes=("rank", "level")
    ),
    "bytes": Quantity(
        unit="byte", description="size of the arrays of all levels of a rank", axes=("rank",)
    ),
}

_KNOWN: Mapping[str, Mapping[str, Quantity]] = MappingProxyType(
    {"history": _HISTORY, "work": _WORK, "training": _TRAINING}
)


def known_quantity(group: str, name: str) -> Quantity | None:
    """Return the quantity of the dataset `name` in `group`, None for a user's own name."""
    if group == "timings":
        return _TIMING
    return _KNOWN.get(group, {}).get(name)


def axis_names(group: str, name: str, ndim: int) -> tuple[str, ...]:
    """Return one name per axis of a dataset.

    Parameters
    ----------
    group, name : str
        Place of the dataset in the file.
    ndim : int
        Number of its axes.

    Returns
    -------
    tuple of str
        The axes of a standard quantity; ``("epoch",)`` for any column of /training; and
        ``<name>_0, <name>_1, ...`` for everything else.
    """
    quantity = known_quantity(group, name)
    if quantity is not None and len(quantity.axes) == ndim:
        return quantity.axes
    if group == "training" and ndim == 1:
        return ("epoch",)
    return tuple(f"{name}_{axis}" for axis in range(ndim))
