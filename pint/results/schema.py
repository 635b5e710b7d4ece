"""Schema of a run file: its format version and the standard datasets (docs/results.md)."""

from dataclasses import dataclass

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


_TIMING = Quantity(unit="s", description="wall time each rank spent in this phase", axes=("rank",))

# Forward and backward solves differ in their number of iterations, so their axes differ in name.
_TABLE = """
history  residual               1  iteration  norm of the residual, NaN where not recorded
history  seconds                s  iteration  wall time of the iteration
history  forward_residual       1  batch,forward_iteration   norm of the forward residual, NaN where not recorded
history  backward_residual      1  batch,backward_iteration  norm of the adjoint residual, NaN where not recorded
history  forward_iterations     1  batch  forward cycles, 0 where it was stepped exactly
history  backward_iterations    1  batch  backward cycles, 0 where it was stepped exactly
history  forward_relative       1  batch  forward residual of the last cycle over norm of the states
history  backward_relative      1  batch  adjoint residual of the last cycle over norm of the states
history  estimated_error        1  batch  estimated relative error of the gradient, NaN where unknown
history  measured_error         1  batch  relative error of the gradient, NaN where not measured
history  cosine                 1  batch  cosine between gradient and exact one, NaN where not measured
training epoch                  1  epoch  number of the epoch
training train_loss             1  epoch  mean loss over the training set
training train_accuracy         1  epoch  fraction of the training set classified correctly
training parallel_test_accuracy 1  epoch  test accuracy with the parallel-in-time solve
training exact_test_accuracy    1  epoch  test accuracy with exact time stepping
training parallel_test_error    1  epoch  mean test loss with the parallel-in-time solve
training exact_test_error       1  epoch  mean test loss with exact time stepping
training seconds                s  epoch  wall time of the epoch
training forward_residual       1  epoch  norm of the forward residual after the last iteration
training backward_residual      1  epoch  norm of the adjoint residual after the last iteration
training gradient_norm          1  epoch  Euclidean norm of the parameter gradient
training learning_rate          1  epoch  step size of the optimizer
work     steps                  1  rank,level  steps that each rank took on each level
work     bytes               byte  rank   size of the arrays of all levels of a rank
"""  # noqa: E501
"""Group, name, unit, axes and description of each known dataset, as the files have them."""

_KNOWN = {
    (group, name): Quantity(unit=unit, description=text, axes=tuple(axes.split(",")))
    for group, name, unit, axes, text in (
        line.split(maxsplit=4) for line in _TABLE.strip().splitlines()
    )
}


def known_quantity(group: str, name: str) -> Quantity | None:
    """Return the quantity of the dataset `name` in `group`, None for a user's own name."""
    if group == "timings":
        return _TIMING
    return _KNOWN.get((group, name))


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
