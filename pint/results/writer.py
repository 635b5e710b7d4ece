"""Write a run file: by one process, or by many with a block of the solution each."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np
from numpy.typing import NDArray

from pint.parallel.comm import Communicator
from pint.results.atomic import check_folder, put_in_place, temporary_beside
from pint.results.provenance import provenance
from pint.results.record import OptionValue, RunRecord, check_point_count
from pint.results.schema import ARRAY_GROUPS, FORMAT_VERSION, axis_names, known_quantity

__all__ = ["check_target", "write_run", "write_solution"]

AddStates = Callable[[h5py.Group], h5py.Dataset]


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise unless a run file can be written to `path`. Apps call it before a long run.

    Parameters
    ----------
    path : path-like
        The run file; it may exist already.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If its folder does not exist or is a file.
    IsADirectoryError
        If `path` is a folder.
    FileExistsError
        If `path` is a file of another kind.
    PermissionError
        If the folder is not writable.
    """
    path = Path(path)
    check_folder(path)
    if path.exists() and not h5py.is_hdf5(path):
        raise FileExistsError(f"{str(path)!r} is not a run file: it will not be overwritten")


def write_run(path: str | os.PathLike[str], record: RunRecord) -> None:
    """Write a run file, whole or not at all. For one process.

    The file is written under a temporary name in its folder and then renamed, so that a failure or
    an interruption leaves a previous file whole.

    Parameters
    ----------
    path : path-like
        The run file; replaced if it exists. A symbolic link stays, its target is replaced.
    record : RunRecord
        The contents.

    Raises
    ------
    OSError
        If `path` cannot be written; see `check_target`.

    Examples
    --------
    >>> import tempfile
    >>> from pint.results import RunRecord, open_run, write_run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_run(f"{folder}/run.h5", RunRecord(command="demo", finished=True))
    ...     open_run(f"{folder}/run.h5").finished
    True
    """
    target = Path(path).resolve()
    check_target(target)
    with temporary_beside(target) as temporary:
        write_file(temporary, record, _dataset_of(record.solution))
        put_in_place(temporary, target)


def write_solution(
    path: str | os.PathLike[str],
    record: RunRecord,
    block: NDArray[Any],
    first: int,
    comm: Communicator,
    *,
    gather_limit: int = 2**30,
) -> None:
    """Write a run file with a solution that is spread over ranks. Collective.

    Up to `gather_limit` bytes, rank 0 gathers the solution and writes it; a single rank writes any
    size. Above, every rank with points writes them to ``<stem>.rank<p>.h5`` beside the
    run file, and the run file joins these as a virtual dataset: move them together.

    Parameters
    ----------
    path : path-like
        The run file, with one name on every rank.
    record : RunRecord
        The other contents, without solution. The record of rank 0 is written.
    block : (n, ...state) array
        This rank's points; n may be 0. The state's shape and the dtype are equal on all ranks.
    first : int
        Index of the block's first point. Blocks follow each other in rank order.
    comm : Communicator
        The ranks.
    gather_limit : int
        Largest solution, in bytes, that rank 0 gathers; equal on every rank.

    Raises
    ------
    TypeError, ValueError
        If blocks, record or options do not fit together; on every rank, before any work.
    OSError
        If a file cannot be written; on every rank. A failure before the files are renamed
        leaves a previous run whole; a crash between the renames of several files may not.
    """
    target = Path(path).resolve()
    with comm.collective():
        _check_request(record, block, first, gather_limit)
    layout = _agree_on_layout(str(path), block, first, gather_limit, comm)
    with comm.collective():
        check_point_count(record.times, layout.points)
    if comm.size == 1 or layout.nbytes <= gather_limit:
        _write_gathered(target, record, block, comm)
    else:
        _write_joined(target, record, block, layout, comm)


# --- one file -----------------------------------------------------------------------------------


def _dataset_of(solution: NDArray[Any] | None) -> AddStates | None:
    """Return a function that adds the solution to its group as a plain dataset."""
    if solution is None:
        return None
    return lambda group: group.create_dataset("u", data=solution)


def write_file(path: Path, record: RunRecord, add_states: AddStates | None) -> None:
    """Write a file under its own name.

    Raises
    ------
    ValueError
        If the record holds what HDF5 cannot.
    OSError
        If the file cannot be written.
    """
    try:
        with h5py.File(path, "w", track_order=True) as file:
            _write_attributes(file, record)
            _write_options(file, record)
            _write_grid(file, record)
            if add_states is not None:
                _write_states(file, record.times, add_states)
            for group in ARRAY_GROUPS:
                _write_arrays(file, group, getattr(record, group))
    except (TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"a run file cannot hold this record: {text}") from error


def _write_attributes(file: h5py.File, record: RunRecord) -> None:
    file.attrs["format_version"] = FORMAT_VERSION
    for name, value in provenance().items():
        file.attrs[name] = value
    for name in ("command", "ranks", "hosts", "finished", "status"):
        file.attrs[name] = getattr(record, name)


def _write_options(file: h5py.File, record: RunRecord) -> None:
    if not record.options:
        return
    outer = file.create_group("options", track_order=True)
    for name, value in record.options.items():
        if isinstance(value, Mapping):
            inner = outer.create_group(name, track_order=True)
            for inner_name, inner_value in value.items():
                _write_option(inner, inner_name, inner_value)
        else:
            _write_option(outer, name, value)


def _write_option(group: h5py.Group, name: str, value: OptionValue) -> None:
    """Write one attribute. None becomes an attribute without data, unlike any text."""
    if value is None:
        group.attrs[name] = h5py.Empty("S1")
    elif isinstance(value, tuple) and value and isinstance(value[0], str):
        group.attrs.create(name, value, dtype=h5py.string_dtype())
    else:
        group.attrs[name] = value


def _write_grid(file: h5py.File, record: RunRecord) -> None:
    if record.times is None and not record.coarsening:
        return
    grid = file.create_group("grid")
    factors = [m if isinstance(m, int) else 0 for m in record.coarsening]
    grid.attrs["coarsening"] = np.array(factors, dtype=np.int64)
    for level, m in enumerate(record.coarsening):
        if not isinstance(m, int):
            points = grid.create_dataset(f"c_points_{level}", data=np.array(m, dtype=np.int64))
            points.attrs["description"] = f"points of level {level} on the next level"
    if record.times is not None:
        times = grid.create_dataset("times", data=record.times)
        times.attrs["description"] = "times of the points of the finest grid"


def _write_states(
    file: h5py.File, times: NDArray[np.float64] | None, add_states: AddStates
) -> None:
    """Write /solution with a dimension scale on every axis, as netCDF readers expect them."""
    group = file.create_group("solution")
    states = add_states(group)
    states.attrs["description"] = "state at every point of the finest grid"
    if times is None:
        _attach_scale(states, 0, "point", np.arange(states.shape[0]))
    else:
        _attach_scale(states, 0, "time", times)
    for axis in range(1, states.ndim):
        _attach_scale(states, axis, f"state_{axis - 1}", np.arange(states.shape[axis]))


def _attach_scale(states: h5py.Dataset, axis: int, name: str, values: NDArray[Any]) -> None:
    scale = states.parent.create_dataset(name, data=values)
    scale.make_scale(name)
    states.dims[axis].label = name
    states.dims[axis].attach_scale(scale)


def _write_arrays(file: h5py.File, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    if not arrays:
        return
    group = file.create_group(name, track_order=True)
    for key, array in arrays.items():
        dataset = group.create_dataset(key, data=array)
        quantity = known_quantity(name, key)
        if quantity is not None:
            dataset.attrs["unit"] = quantity.unit
            dataset.attrs["description"] = quantity.description
        axes = () if name == "model" else axis_names(name, key, dataset.ndim)
        for axis, label in enumerate(axes):
            dataset.dims[axis].label = label
    if name == "training" and "epoch" in group:  # the dimension scale of every other column
        group["epoch"].make_scale("epoch")
        for key in group.keys() - {"epoch"}:
            group[key].dims[0].attach_scale(group["epoch"])


# --- many ranks ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _BlockLayout:
    """Owners of points, as every rank stores them.

    Rank p owns the points ``starts[p]:starts[p] + counts[p]``.
    """

    starts: tuple[int, ...]
    counts: tuple[int, ...]
    state_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def points(self) -> int:
        return sum(self.counts)

    @property
    def nbytes(self) -> int:
        return self.points * prod(self.state_shape) * self.dtype.itemsize


def _check_request(record: RunRecord, block: NDArray[Any], first: int, gather_limit: int) -> None:
    """Check the arguments of this rank."""
    shape = np.shape(block)
    if record.solution is not None:
        raise ValueError("record.solution must be None: the solution is given as blocks")
    if not shape or 0 in shape[1:]:
        raise ValueError(f"block must have the shape (n, *state), no state empty, got {shape}")
    for name, value in (("first", first), ("gather_limit", gather_limit)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def _agree_on_layout(
    path: str, block: NDArray[Any], first: int, gather_limit: int, comm: Communicator
) -> _BlockLayout:
    """Return the owners of points; raise on every rank if blocks do not fit. Collective."""
    common = {
        "path": path,
        "gather_limit": int(gather_limit),
        "state shape": list(block.shape[1:]),
        "dtype": block.dtype.str,
    }
    everyone = [json.loads(text) for text in comm.allgather_text(json.dumps(common))]
    for rank, other in enumerate(everyone):
        for name, value in everyone[0].items():
            if other[name] != value:
                raise ValueError(
                    f"{name} must be the same on every rank: "
                    f"{value!r} on rank 0, {other[name]!r} on rank {rank}"
                )
    owned = comm.allgather_blocks(np.array([[int(first), len(block)]], dtype=np.int64))
    starts, counts = owned.T.tolist()
    _check_blocks_follow(starts, counts)
    return _BlockLayout(
        starts=tuple(starts),
        counts=tuple(counts),
        state_shape=block.shape[1:],
        dtype=block.dtype,
    )


def _check_blocks_follow(starts: list[int], counts: list[int]) -> None:
    """Raise unless the blocks, in rank order, cover 0, 1, 2, ... without gap or overlap."""
    for rank, (start, count) in enumerate(zip(starts, counts, strict=True)):
        expected = sum(counts[:rank])
        if count and start != expected:
            raise ValueError(
                f"blocks must follow each other in rank order: the block of rank {rank} "
                f"starts at point {start}, expected {expected}"
            )
    if not any(counts):
        raise ValueError("the solution has no points: every rank passed an empty block")


def _write_gathered(
    target: Path, record: RunRecord, block: NDArray[Any], comm: Communicator
) -> None:
    # Check before the gather, and on rank 0 alone: the folder may be on its own disk.
    with comm.collective():
        if comm.rank == 0:
            check_target(target)
    alone = comm.size == 1
    solution = block if alone else comm.gather_blocks(np.ascontiguousarray(block))
    with comm.collective():
        if comm.rank == 0:
            write_run(target, replace(record, solution=solution))


def _write_joined(
    target: Path, record: RunRecord, block: NDArray[Any], layout: _BlockLayout, comm: Communicator
) -> None:
    """Write all files under temporary names, then rename the blocks, then the run file."""
    with comm.collective():
        check_target(target)
    join = comm.allgather_text(uuid4().hex)[0]
    own = _block_path(target, comm.rank)
    with temporary_beside(own) as own_temporary, temporary_beside(target) as temporary:
        with comm.collective():
            if len(block):
                _write_block(own_temporary, block, layout.starts[comm.rank], join)
            if comm.rank == 0:
                write_file(temporary, record, partial(_join_blocks, target, layout, join))
        with comm.collective():
            if len(block):
                put_in_place(own_temporary, own)
        with comm.collective():
            if comm.rank == 0:
                put_in_place(temporary, target)


def _block_path(target: Path, rank: int) -> Path:
    return target.with_name(f"{target.stem}.rank{rank}.h5")


def _write_block(path: Path, block: NDArray[Any], first: int, join: str) -> None:
    """Write one rank's points. `join` identifies the run for a reader."""
    with h5py.File(path, "w") as file:
        file.attrs["join"] = join
        file.attrs["first"] = first
        file.create_dataset("u", data=block)


def _join_blocks(target: Path, layout: _BlockLayout, join: str, group: h5py.Group) -> h5py.Dataset:
    """Add the virtual dataset over all block files, named relative to the run file."""
    virtual = h5py.VirtualLayout((layout.points, *layout.state_shape), layout.dtype)
    for rank, (start, count) in enumerate(zip(layout.starts, layout.counts, strict=True)):
        if count:
            name = _block_path(target, rank).name
            shape = (count, *layout.state_shape)
            virtual[start : start + count] = h5py.VirtualSource(name, "u", shape, layout.dtype)
    # Fill values that plain h5py shows for a missing block file must not look like data.
    missing = layout.dtype.type(np.nan) if layout.dtype.kind in "fc" else None
    states = group.create_virtual_dataset("u", virtual, fillvalue=missing)
    states.attrs["join"] = join
    return states
