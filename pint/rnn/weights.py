"""Files of weights: safetensors and HDF5, with the names and layout of torch's state_dict."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.results.atomic import check_folder, put_in_place, temporary_beside
from pint.results.reader import open_run
from pint.results.record import RunRecord
from pint.results.writer import write_run
from pint.rnn.architecture import ARCHITECTURE, Architecture, Pooling
from pint.rnn.cells import CellName

Array = NDArray[Any]
PathLike = str | os.PathLike[str]

SUFFIXES = (".safetensors", ".h5", ".hdf5")


def save(path: PathLike, weights: Mapping[str, Array], architecture: Architecture) -> None:
    """Write tensors and what they belong to; a file of that name is replaced at once, or kept.

    Parameters
    ----------
    path : path-like
        ``*.safetensors``, or ``*.h5`` and ``*.hdf5`` for a run file without a run.
    weights : mapping of str to ndarray
        Tensors with the names and shapes in ``architecture.shapes``.
    architecture : Architecture
        Stored beside them.

    Raises
    ------
    ValueError
        If the suffix is another one, or the tensors do not fit.
    OSError
        If the file cannot be written.
    ImportError
        If safetensors is asked for and not installed.

    Examples
    --------
    >>> save("weights.safetensors", model.weights, architecture)  # doctest: +SKIP
    """
    path = Path(path)
    _check_suffix(path)
    architecture.check(weights)
    ordered = {name: np.ascontiguousarray(weights[name]) for name in architecture.shapes}
    if path.suffix == ".safetensors":
        _write_safetensors(path, ordered, architecture)
        return
    record = RunRecord(
        command="pint.rnn.weights.save",
        options={ARCHITECTURE: asdict(architecture)},
        model=ordered,
        finished=True,
    )
    write_run(path, record)


def load(path: PathLike, *, prefix: str | None = None, head: str | None = None) -> dict[str, Array]:
    """Read tensors.

    Parameters
    ----------
    path : path-like
        A file of `save`, a run file of pint, or a safetensors file with the state_dict of a
        torch.nn.GRU or LSTM, or of a module that holds one.
    prefix : str, optional
        What stands before the names of the recurrent layers, "gru." in a module whose attribute
        `gru` they are; found by itself where there is only one such stack. Other tensors of the
        module are passed over.
    head : str, optional
        What stands before ``weight`` and ``bias`` of the linear head; "head." if left out, and
        then it may be missing.

    Returns
    -------
    dict of str to ndarray
        New arrays, under torch's names: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ...,
        then head.weight and head.bias if there are such.

    Raises
    ------
    ValueError
        If the file is damaged or of another kind, if a tensor is missing or unknown, has another
        shape or dtype than the rest, or holds NaN or inf.
    OSError
        If there is no such file, or it cannot be read.
    ImportError
        If it is a safetensors file and safetensors is not installed.
    """
    with _named(path):
        tensors, described = _read(Path(path))
        weights = _select(tensors, prefix, head)
        architecture = described or Architecture.infer(weights, "classic")
        architecture.check(weights)
    return {name: weights[name] for name in architecture.shapes}


def load_architecture(
    path: PathLike,
    *,
    prefix: str | None = None,
    head: str | None = None,
    cell: CellName | None = None,
    pooling: Pooling | None = None,
) -> Architecture:
    """Read what the tensors of a file belong to.

    Parameters
    ----------
    path, prefix, head
        As in `load`.
    cell : {"implicit", "classic", "lstm"}, optional
        For files that do not say; a safetensors file from elsewhere holds torch's "classic" one.
    pooling : {"last", "every", "mean"}, optional
        For files that do not say; "last" if left out.

    Returns
    -------
    Architecture
        As saved, or else from names and shapes.

    Raises
    ------
    ValueError
        As in `load`; or if the cell is unknown, or the file contradicts an argument.
    """
    with _named(path):
        tensors, described = _read(Path(path))
        weights = _select(tensors, prefix, head)
        if described is None:
            default: CellName | None = "classic" if Path(path).suffix == ".safetensors" else None
            return _inferred(weights, cell or default, pooling or "last")
        described.check(weights)
        for name, given in (("cell", cell), ("pooling", pooling)):
            if given not in (None, getattr(described, name)):
                raise ValueError(f"{name} is {getattr(described, name)!r}, not {given!r}")
        return described


def _inferred(
    weights: Mapping[str, Array], cell: CellName | None, pooling: Pooling
) -> Architecture:
    architecture = Architecture.infer(weights, cell or "classic", pooling)
    if cell is None and architecture.cell != "lstm":
        raise ValueError("does not say of which cell: give cell 'implicit', 'classic' or 'lstm'")
    return architecture


@contextmanager
def _named(path: PathLike) -> Iterator[None]:
    """Have errors about the content say of which file."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(path) in text else f"{str(path)!r}: {text}") from error


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{str(path)!r} must end in one of {', '.join(SUFFIXES)}")


def _read(path: Path) -> tuple[dict[str, Array], Architecture | None]:
    """Return all tensors of a file, and the architecture if it is described there."""
    _check_suffix(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    run = open_run(path)
    if not run.model:
        raise ValueError("holds no model")
    fields = run.options.get(ARCHITECTURE)
    return dict(run.model), _described(fields) if isinstance(fields, Mapping) else None


def _described(fields: Mapping[str, Any]) -> Architecture:
    try:
        return Architecture(**fields)
    except TypeError as error:
        raise ValueError(f"describes its architecture in unknown words: {error}") from error


# --- names --------------------------------------------------------------------------------------


def _select(tensors: Mapping[str, Array], prefix: str | None, head: str | None) -> dict[str, Array]:
    """Return one stack and its head under the names that they have without a module."""
    prefix = _prefix(tensors, prefix)
    expected = "head." if head is None else head
    names = {f"{expected}{part}": f"head.{part}" for part in ("weight", "bias")}
    if head is not None and not names.keys() <= tensors.keys():
        raise ValueError(f"expected {sorted(names)}, found {sorted(tensors)}")
    for name in tensors:
        if name not in names and name.startswith(prefix):
            names[name] = name.removeprefix(prefix)
    return {ours: tensors[theirs] for theirs, ours in names.items() if theirs in tensors}


def _prefix(tensors: Mapping[str, Array], prefix: str | None) -> str:
    """Return what stands before the names of the stack that is meant."""
    first = "weight_ih_l0"
    stacks = [name.removesuffix(first) for name in tensors if name.endswith(first)]
    chosen = [stack for stack in stacks if prefix in (None, stack)]
    if len(chosen) != 1:
        wanted = "one name that ends in" if prefix is None else prefix
        raise ValueError(
            f"expected {wanted}{' ' if prefix is None else ''}{first}, found {sorted(tensors)}; "
            "prefix names the stack that is meant"
        )
    return chosen[0]


# --- safetensors --------------------------------------------------------------------------------


def _write_safetensors(path: Path, weights: dict[str, Array], architecture: Architecture) -> None:
    safetensors = _import_safetensors()
    check_folder(path)
    described = {ARCHITECTURE: json.dumps(asdict(architecture))}
    content = safetensors.numpy.save(weights, metadata=described)
    with temporary_beside(path) as temporary:
        temporary.write_bytes(content)  # their save_file would hide the file from other users
        put_in_place(temporary, path)


def _read_safetensors(path: Path) -> tuple[dict[str, Array], Architecture | None]:
    safetensors = _import_safetensors()
    with open(path, "rb"):  # safetensors' errors do not distinguish a missing file from a folder
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            described = (file.metadata() or {}).get(ARCHITECTURE)
    except (safetensors.SafetensorError, TypeError) as error:  # TypeError: bfloat16 and the like
        raise ValueError(f"cannot be read as float32 or float64: {error}") from error
    return tensors, None if described is None else _described(json.loads(described))


def _import_safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            'safetensors files need safetensors: pip install "pint-mgrit[weights]"',
            name="safetensors",
        ) from error
    return safetensors
