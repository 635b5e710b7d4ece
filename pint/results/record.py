"""A run in memory, checked before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import Coarsening

__all__ = ["OptionValue", "Options", "RunRecord"]

Scalar = bool | int | float | str
OptionValue = Scalar | tuple[Scalar, ...] | None
Options = Mapping[str, OptionValue | Mapping[str, OptionValue]]

# HDF5 keeps an attribute inside the object header, which ends at 64 KiB in files that
# every version can read.
_LONGEST_OPTION = 1024
_STORABLE_KINDS = "biufc"


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
    TypeError
        If a value has a type that a run file cannot hold.
    ValueError
        If a name, a count or a shape is wrong.
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
        """Check every field."""
        _check_text("command", self.command)
        _check_integer("ranks", self.ranks, least=1)
        _check_integer("hosts", self.hosts, least=1)
        _check_options(self.options)
        for entry in self.coarsening:
            _check_coarsening(entry)
        self._check_grid()
        self._check_arrays()

    def _check_grid(self) -> None:
        if self.times is not None:
            _check_times(self.times)
        if self.solution is not None:
            _check_solution(self.solution)
            check_point_count(self.times, len(self.solution))

    def _check_arrays(self) -> None:
        _check_mapping("history", self.history)
        _check_mapping("timings", self.timings)
        _check_mapping("work", self.work)
        _check_mapping("training", self.training)
        _check_mapping("model", self.model)
        for phase, seconds in self.timings.items():
            _check_length(f"timings[{phase!r}]", seconds, self.ranks, "one value per rank")
        for name, values in self.work.items():
            if values.shape[:1] != (self.ranks,):
                raise ValueError(
                    f"work[{name!r}] must have {self.ranks} rows, one per rank, got {values.shape}"
                )
        epochs = max((array.size for array in self.training.values()), default=0)
        for column, values in self.training.items():
            _check_length(f"training[{column!r}]", values, epochs, "one value per epoch")


def check_point_count(times: NDArray[np.float64] | None, points: int) -> None:
    """Raise ValueError unless there is one time for each of the solution's `points`."""
    if times is not None and len(times) != points:
        raise ValueError(f"the solution has {points} points, but the grid has {len(times)} times")


def check_array(name: str, array: object) -> None:
    """Raise TypeError unless `array` is a NumPy array of numbers or booleans."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype.kind not in _STORABLE_KINDS:
        raise TypeError(f"{name} must hold numbers or booleans, got dtype {array.dtype}")


def _check_text(name: str, text: object) -> None:
    """Refuse what an HDF5 string cannot hold."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, got {type(text).__name__}")
    if "\0" in text:
        raise ValueError(f"{name} must not contain the character NUL, got {text!r}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{name} must be encodable as UTF-8, got {text!r}")


def _check_name(name: object) -> None:
    """Refuse names that HDF5 would read as a path."""
    _check_text("a name", name)
    if name in ("", ".") or "/" in str(name):
        raise ValueError(f"a name must be neither empty nor '.' nor contain '/', got {name!r}")


def _check_integer(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_coarsening(entry: object) -> None:
    if not isinstance(entry, tuple):
        _check_integer("a coarsening factor", entry, least=1)
        return
    for point in entry:
        _check_integer("a C-point", point, least=0)


def _check_times(times: NDArray[np.float64]) -> None:
    check_array("times", times)
    if times.dtype != np.float64:
        raise TypeError(f"times must be an array of float64, got dtype {times.dtype}")
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"times must have the shape (N+1,), got {times.shape}")


def _check_solution(solution: NDArray[Any]) -> None:
    check_array("solution", solution)
    if solution.ndim == 0 or solution.size == 0:
        raise ValueError(f"solution must have the shape (N+1, *state), got {solution.shape}")


def _check_length(name: str, array: NDArray[Any], length: int, meaning: str) -> None:
    if array.shape != (length,):
        raise ValueError(f"{name} must have the shape ({length},), {meaning}, got {array.shape}")


def _check_mapping(group: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        _check_name(name)
        check_array(f"{group}[{name!r}]", array)


def _check_options(options: Options) -> None:
    for name, value in options.items():
        _check_name(name)
        if isinstance(value, Mapping):
            _check_inner_options(name, value)
        else:
            _check_option(name, value)


def _check_inner_options(outer: str, options: Mapping[str, OptionValue]) -> None:
    for name, value in options.items():
        _check_name(name)
        _check_option(f"{outer}.{name}", value)


def _check_option(name: str, value: object) -> None:
    """Refuse an option that would not come back as it was."""
    entries = value if isinstance(value, tuple) else () if value is None else (value,)
    if len(entries) > _LONGEST_OPTION:
        raise ValueError(
            f"option {name} must have at most {_LONGEST_OPTION} entries, got {len(entries)}: "
            "store data in history, training or model"
        )
    kinds = {_option_kind(name, entry) for entry in entries}
    if len(kinds) > 1 and kinds != {int, float}:
        raise TypeError(f"option {name} must have entries of one type, got {value!r}")


def _option_kind(name: str, entry: object) -> type:
    """Return the Python type that `entry` is stored as."""
    if isinstance(entry, bool | np.bool_):
        return bool
    if isinstance(entry, int | np.integer):
        return _checked_int(name, int(entry))
    if isinstance(entry, float | np.floating):
        return float
    if isinstance(entry, str):
        _check_text(f"option {name}", entry)
        return str
    raise TypeError(
        f"option {name} must be a bool, int, float, str, None or a tuple of one of these, "
        f"got {type(entry).__name__}"
    )


def _checked_int(name: str, value: int) -> type:
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"option {name} must fit into 64 bits, got {value}")
    return int
