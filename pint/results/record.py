"""A run in memory, checked before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import Coarsening
from pint.results.schema import ARRAY_GROUPS

__all__ = ["OptionValue", "Options", "RunRecord"]

Scalar = bool | int | float | str
OptionValue = Scalar | tuple[Scalar, ...] | None
Options = Mapping[str, OptionValue | Mapping[str, OptionValue]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord:
    """Everything one run file holds. The arrays are kept as they are, not copied.

    Parameters
    ----------
    command : str
        Command line that started the run.
    ranks, hosts : int
        Number of processes, and of machines they ran on; at least 1.
    options : mapping
        Settings of the run: name to bool, int, float, str, None or a tuple of one kind of
        these, or one level deeper, ``{"solver": {...}, "training": {...}}``.
    times : (N+1,) array of float64, optional
        Times of the fine grid.
    coarsening : tuple
        From each level to the next, a factor of at least 1, or the indices of the C-points as a
        tuple; empty for one level.
    solution : (N+1, ...state) array, optional
        State at every time point.
    history : mapping of str to array
        Per iteration, e.g. ``residual`` (iterations,) or ``forward_residual``
        (batches, iterations); NaN where a value was not recorded.
    timings : mapping of str to (ranks,) array
        Seconds per phase and rank.
    work : mapping of str to (ranks, ...) array
        What each rank did, e.g. ``steps`` (ranks, levels).
    training : mapping of str to (epochs,) array
        One column per quantity; all columns have one length.
    model : mapping of str to array
        Parameters of the model.
    finished : bool
        False while the run is under way, and so also after an interruption.
    status : str, optional
        Description of the end, such as a solve that did not converge, or an empty text.

    Raises
    ------
    ValueError
        If a name or a shape is wrong.
    """

    command: str
    ranks: int = 1
    hosts: int = 1
    options: Options = field(default_factory=dict)
    times: NDArray[np.float64] | None = None
    coarsening: tuple[Coarsening, ...] = ()
    solution: NDArray[Any] | None = None
    history: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    timings: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    work: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    training: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    model: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    finished: bool
    status: str = ""

    def __post_init__(self) -> None:
        """Check names and shapes; what HDF5 cannot hold is an error of the writer."""
        inner = [group for group in self.options.values() if isinstance(group, Mapping)]
        for named in (self.options, *inner, *(getattr(self, group) for group in ARRAY_GROUPS)):
            _check_names(named)
        if self.times is not None:
            _check_shape("times", self.times, len(self.times) > 0, "(N+1,)", ndim=1)
        if self.solution is not None:
            shape = np.shape(self.solution)
            _check_shape("solution", self.solution, 0 not in shape and shape != (), "(N+1, *state)")
            check_point_count(self.times, len(self.solution))
        epochs = max((np.size(column) for column in self.training.values()), default=0)
        for group, rows, meaning, ndim in (
            ("timings", self.ranks, "one value per rank", 1),
            ("work", self.ranks, "one row per rank", None),
            ("training", epochs, "one value per epoch", 1),
        ):
            for name, array in getattr(self, group).items():
                fits = np.shape(array)[:1] == (rows,)
                expected = f"({rows}{',' if ndim else ', ...'}), {meaning}"
                _check_shape(f"{group}[{name!r}]", array, fits, expected, ndim)


def check_point_count(times: NDArray[np.float64] | None, points: int) -> None:
    """Raise ValueError unless there is one time for each of the solution's `points`."""
    if times is not None and len(times) != points:
        raise ValueError(f"the solution has {points} points, but the grid has {len(times)} times")


def _check_names(named: Mapping[str, object]) -> None:
    """Refuse names that HDF5 would read as a path."""
    for name in named:
        if name in ("", ".") or "/" in name:
            raise ValueError(f"a name must be neither empty nor '.' nor contain '/', got {name!r}")


def _check_shape(
    name: str, array: NDArray[Any], fits: bool, expected: str, ndim: int | None = None
) -> None:
    shape = np.shape(array)
    if not fits or len(shape) != (len(shape) if ndim is None else ndim):
        raise ValueError(f"{name} must have the shape {expected}, got {shape}")
