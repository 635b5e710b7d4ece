"""Read a run file."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pint._version import __version__
from pint.optional import import_extra
from pint.options import Coarsening
from pint.results.record import Options, OptionValue
from pint.results.schema import ARRAY_GROUPS, FORMAT_VERSION, axis_names

if TYPE_CHECKING:
    import xarray

__all__ = ["Run", "open_run"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Contents of a run file; made by `open_run`.

    Everything but the solution is in memory, as it was when the file was opened. The file itself
    is closed, so that a running program can replace it. Absent contents are empty or None.

    Parameters
    ----------
    path : Path
        The run file.
    attributes : mapping of str to bool, int, float or str
        The file's own attributes: command, created, ranks, ...
    options : mapping
        Settings of the run, at most one level deep.
    times : (N+1,) array of float64, or None
        Times of the fine grid.
    coarsening : tuple
        For each level but the last, a factor, or the indices of the C-points as a tuple.
    history, timings, work, training, model : mapping of str to array
        As in `RunRecord`, in the order of writing.
    solution_shape : tuple of int, or None
        Shape (N+1, ...state) of the solution; None if the file has none.
    solution_dtype : dtype, or None
        Its dtype.
    solution_files : tuple of Path
        The files with the solution's points, if they are not in the run file.
    """

    path: Path
    attributes: Mapping[str, OptionValue]
    options: Options
    times: NDArray[np.float64] | None
    coarsening: tuple[Coarsening, ...]
    history: Mapping[str, NDArray[Any]]
    timings: Mapping[str, NDArray[Any]]
    work: Mapping[str, NDArray[Any]]
    training: Mapping[str, NDArray[Any]]
    model: Mapping[str, NDArray[Any]]
    solution_shape: tuple[int, ...] | None
    solution_dtype: np.dtype[Any] | None
    solution_files: tuple[Path, ...]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end; also False while it is under way."""
        return bool(self.attributes["finished"])

    @cached_property
    def solution(self) -> NDArray[Any] | None:
        """(N+1, ...state) array, read whole on first use and then kept; None if absent.

        Raises the errors of `read_solution`.
        """
        return None if self.solution_shape is None else self.read_solution()

    def read_solution(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read the states at the points ``start:stop``.

        Parameters
        ----------
        start, stop : int, optional
            Points of the fine grid, as in a slice; all by default.

        Returns
        -------
        (n, ...state) array
            New on every call.

        Raises
        ------
        ValueError
            If the file holds no solution, or was replaced since it was opened, or if a file
            with a part of the solution belongs to another run.
        FileNotFoundError
            If the run file, or a file with a part of the solution, is missing.
        """
        with _opened(self.path) as file:
            if file.attrs.get("created") != self.attributes["created"]:
                raise ValueError(f"{str(self.path)!r} was replaced meanwhile: open it again")
            if "solution" not in file:
                raise ValueError(f"{str(self.path)!r} holds no solution")
            states = file["solution/u"]
            _check_parts(self.solution_files, states)
            return np.asarray(states[start:stop])

    def to_xarray(self) -> dict[str, "xarray.Dataset"]:
        """Return one labelled dataset per group. Reads the whole solution.

        Returns
        -------
        dict of str to xarray.Dataset
            Keys are solution, history, timings, work, training and model, if the file has them.
            Axes have names, and the coordinates ``time`` and ``epoch`` where known.
            ``xarray.DataTree.from_dict`` makes one tree of it.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        xarray = import_extra("xarray", "report")
        datasets = {}
        if self.solution is not None:
            datasets["solution"] = xarray.Dataset(_solution_variables(self.solution, self.times))
        for group in ARRAY_GROUPS:
            arrays = getattr(self, group)
            if arrays:
                datasets[group] = xarray.Dataset(_variables(group, arrays))
        return datasets


def open_run(path: str | os.PathLike[str]) -> Run:
    """Read a run file.

    Parameters
    ----------
    path : path-like
        File written by `write_run` or `write_solution`, by this version of pint or an older one.

    Returns
    -------
    Run
        Its contents, in memory; only the solution is read later, on demand.

    Raises
    ------
    OSError
        If the file does not exist (FileNotFoundError), or cannot be read.
    ValueError
        If it is not HDF5, not a run file, or of a newer format version.
    """
    path = Path(path).resolve()
    with _opened(path) as file:
        _check_format(path, file)
        shape, dtype, files = _solution_header(path, file)
        groups = {group: _read_arrays(file, group) for group in ARRAY_GROUPS}
        return Run(
            path=path,
            attributes=_read_attributes(file),
            options=_read_options(file),
            times=np.asarray(file["grid/times"]) if "grid/times" in file else None,
            coarsening=_read_coarsening(file),
            solution_shape=shape,
            solution_dtype=dtype,
            solution_files=files,
            **groups,
        )


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file, with an error that names its defect."""
    with open(path, "rb"):  # HDF5's own errors do not show whether a file is missing or forbidden
        pass
    if not h5py.is_hdf5(path):
        raise ValueError(f"{str(path)!r} is not an HDF5 file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{str(path)!r} is a damaged HDF5 file: {error}") from error
    with file:
        yield file


def _check_format(path: Path, file: h5py.File) -> None:
    if not {"format_version", "pint_version", "created", "finished"} <= set(file.attrs):
        kind = file.attrs.get("kind")
        what = "not a run file of pint" if kind is None else f"holds {kind}: no run file of pint"
        raise ValueError(f"{str(path)!r} is HDF5, but {what}")
    found = int(file.attrs["format_version"])
    if found > FORMAT_VERSION:
        raise ValueError(
            f"{str(path)!r} has format version {found}, but pint {__version__} reads versions "
            f"up to {FORMAT_VERSION}: update with `pip install -U pint-mgrit`"
        )


def _read_attributes(node: h5py.HLObject) -> dict[str, OptionValue]:
    return {name: _plain(value) for name, value in node.attrs.items()}


def _plain(value: Any) -> OptionValue:
    """Return an attribute as the written Python value."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    plain: OptionValue = value.item() if isinstance(value, np.generic) else value
    return plain


def _read_options(file: h5py.File) -> Options:
    if "options" not in file:
        return {}
    outer = file["options"]
    options: dict[str, OptionValue | Mapping[str, OptionValue]] = {**_read_attributes(outer)}
    for name, group in outer.items():
        if isinstance(group, h5py.Group):
            options[name] = _read_attributes(group)
    return options


def _read_coarsening(file: h5py.File) -> tuple[Coarsening, ...]:
    if "grid" not in file:
        return ()
    grid = file["grid"]
    return tuple(
        tuple(grid[f"c_points_{level}"][:].tolist()) if f"c_points_{level}" in grid else int(factor)
        for level, factor in enumerate(grid.attrs["coarsening"])
    )


def _read_arrays(file: h5py.File, group: str) -> dict[str, NDArray[Any]]:
    return {
        name: np.asarray(dataset)
        for name, dataset in file.get(group, {}).items()
        if isinstance(dataset, h5py.Dataset)
    }


def _solution_header(
    path: Path, file: h5py.File
) -> tuple[tuple[int, ...] | None, np.dtype[Any] | None, tuple[Path, ...]]:
    """Return shape and dtype of the solution, and the files that it is joined from."""
    if "solution" not in file:
        return None, None, ()
    states = file["solution/u"]
    sources = states.virtual_sources() if states.is_virtual else ()
    return states.shape, states.dtype, tuple(path.parent / part.file_name for part in sources)


def _check_parts(files: tuple[Path, ...], states: h5py.Dataset) -> None:
    """Raise if a part is missing or foreign; HDF5 would silently return fill values."""
    for path in files:
        with _opened(path) as part:
            if part.attrs.get("join") != states.attrs["join"]:
                raise ValueError(f"{str(path)!r} belongs to another run: solution incomplete")


Variables = dict[str, tuple[tuple[str, ...], NDArray[Any]]]


def _solution_variables(solution: NDArray[Any], times: NDArray[np.float64] | None) -> Variables:
    """Return the solution with its axes, and the times as their coordinate."""
    states = tuple(f"state_{axis}" for axis in range(solution.ndim - 1))
    if times is None:
        return {"u": (("point", *states), solution)}
    return {"u": (("time", *states), solution), "time": (("time",), times)}


def _variables(group: str, arrays: Mapping[str, NDArray[Any]]) -> Variables:
    """Return the arrays of a group with their axes; a mismatched array gets its own axes."""
    sizes: dict[str, int] = {}
    variables: Variables = {}
    for name, array in arrays.items():
        axes = axis_names(group, name, array.ndim)
        if any(sizes.get(axis, n) != n for axis, n in zip(axes, array.shape, strict=True)):
            axes = axis_names("", name, array.ndim)
        sizes.update(zip(axes, array.shape, strict=True))
        variables[name] = (axes, array)
    return variables
