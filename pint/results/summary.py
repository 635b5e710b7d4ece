"""Describe a run file for `pint inspect`."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pint.options import Coarsening
from pint.results.reader import Run
from pint.results.record import OptionValue

__all__ = ["glance", "summarize"]

_MOST_ROWS = 12
_FEW_ROWS = 5  # of a page
_MOST_COLUMNS = 6  # of numbers beside the first column, to stay within 80 characters


def glance(run: Run) -> Group:
    """Return a page on a run file: its origin, its end, and the command for the details.

    Parameters
    ----------
    run : Run
        An open run. Its solution is not read.

    Returns
    -------
    rich.console.Group
        Header, grid, the last epochs, a line for each history, timings, and the numbers of options
        and parameters, in 80 columns.
    """
    sections = [
        _header(run),
        *_grid(run),
        *_training(run.training, _FEW_ROWS),
        *_histories(run.history),
        *_timings(run.timings),
        *_rest(run),
    ]
    return Group(*(part for section in sections for part in (section, Text())))


def summarize(run: Run) -> Group:
    """Return the contents of a run file, as text and tables in 80 columns.

    Parameters
    ----------
    run : Run
        An open run. Its solution is not read.

    Returns
    -------
    rich.console.Group
        Header, options, grid, training, histories, timings, work and model, if present.

    Examples
    --------
    >>> from rich.console import Console
    >>> from pint.results import open_run, summarize
    >>> Console().print(summarize(open_run("run.h5")))  # doctest: +SKIP
    """
    sections = [
        _header(run),
        *_options(run),
        *_grid(run),
        *_training(run.training),
        *(_history(name, values) for name, values in run.history.items()),
        *_timings(run.timings),
        *_work(run.work),
        *_model(run.model),
    ]
    return Group(*(part for section in sections for part in (section, Text())))


# --- sections -----------------------------------------------------------------------------------


def _header(run: Run) -> RenderableType:
    about = run.attributes
    facts = {
        "command": about.get("command"),
        "written": about["created"],
        "state": _state(run),
        "ranks": f"{about.get('ranks')} on {about.get('hosts')} host(s)",
        "versions": f"pint {about['pint_version']}, python {about.get('python_version')}, "
        f"numpy {about.get('numpy_version')}",
        "commit": about.get("git_commit") or "unknown",
    }
    return _pairs(str(run.path), facts.items())


def _state(run: Run) -> str:
    state = "finished" if run.finished else "interrupted, or still running"
    status = str(run.attributes.get("status") or "")
    return f"{state}: {status}" if status else state


def _options(run: Run) -> Iterable[RenderableType]:
    if run.options:
        yield _pairs("Options", _flat(run.options))


def _flat(options: Mapping[str, Any]) -> Iterable[tuple[str, OptionValue]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", entry) for inner, entry in value.items())
        else:
            yield name, value


def _grid(run: Run) -> Iterable[RenderableType]:
    facts = {}
    if run.times is not None:
        facts["time"] = f"{_number(run.times[0])} to {_number(run.times[-1])}"
        steps = _level_steps(len(run.times) - 1, run.coarsening)
        facts["steps"] = ", ".join(str(n) for n in steps) + " (finest level first)"
    if run.times is not None or run.coarsening:
        facts["levels"] = str(len(run.coarsening) + 1)
        factors = (
            str(m) if isinstance(m, int) else f"{len(m)} chosen points" for m in run.coarsening
        )
        facts["coarsening"] = ", ".join(factors) or "none"
    if run.solution_shape is not None:
        facts["solution"] = f"{_shape(run.solution_shape)} {run.solution_dtype}"
    if run.solution_files:
        missing = sum(not path.exists() for path in run.solution_files)
        absent = f", {missing} of them missing" if missing else ""
        facts["solution files"] = f"{len(run.solution_files)}{absent}"
    if facts:
        yield _pairs("Grid", facts.items())


def _level_steps(steps: int, coarsening: tuple[Coarsening, ...]) -> Iterable[int]:
    """Return the number of steps of each level: N // m of the level above, or between C-points."""
    yield steps
    for m in coarsening:
        steps = steps // m if isinstance(m, int) else len(m) - 1
        yield steps


def _training(
    columns: Mapping[str, NDArray[Any]], most_rows: int = _MOST_ROWS
) -> Iterable[RenderableType]:
    """Return the columns in tables of at most 80 characters, each with the epoch."""
    if not columns:
        return
    names = [name for name in columns if name != "epoch"]
    parts = max(1, ceil(len(names) / _MOST_COLUMNS))
    width = max(1, ceil(len(names) / parts))
    epochs = columns.get("epoch", np.arange(1, max(map(len, columns.values())) + 1))
    for part in range(parts):
        shown = names[part * width : (part + 1) * width]
        rows = zip(epochs, *(columns[name] for name in shown), strict=True)
        yield _series("Training", ["epoch", *shown], list(rows), most_rows)


def _history(name: str, values: NDArray[Any]) -> RenderableType:
    """Return the values of each iteration, or their spread where there are several."""
    title, columns = f"History of {name}", ["iteration", name]
    if values.ndim == 0:
        return _pairs(f"{title}, scalar", [("value", values.item())])
    if values.ndim == 1:
        given = [values]
        if "residual" in name:
            with np.errstate(all="ignore"):
                given.append(np.append(np.nan, values[1:] / values[:-1])[: len(values)])
            columns.append("factor")
        return _series(title, columns, list(zip(range(1, len(values) + 1), *given, strict=True)))
    by_iteration = np.moveaxis(values, -1, 0).reshape(values.shape[-1], prod(values.shape[:-1]))
    rows = [(index, *_spread(column)) for index, column in enumerate(by_iteration, start=1)]
    return _series(f"{title}, {_shape(values.shape)}", ["iteration", "min", "median", "max"], rows)


def _histories(history: Mapping[str, NDArray[Any]]) -> Iterable[RenderableType]:
    """Return one row for each history: its range, and its last values."""
    rows = []
    for name, values in history.items():
        real = values if values.dtype.kind != "c" else np.abs(values)
        last = real.ravel()[-1] if real.size else np.nan
        rows.append((name, _shape(values.shape), *_spread(real), last))
    yield from _table("Histories", ["name", "shape", "min", "median", "max", "last"], rows)


def _rest(run: Run) -> Iterable[RenderableType]:
    """Describe the further contents of the file, and the command for them."""
    parameters = sum(array.size for array in run.model.values())
    counts = {"options": len(list(_flat(run.options))), "model parameters": parameters}
    held = [f"{count} {name}" for name, count in counts.items() if count]
    if run.work:
        held.append("work of the ranks")
    if held:
        yield _cell(f"Also {', '.join(held)}: pint inspect --all")


def _timings(timings: Mapping[str, NDArray[Any]]) -> Iterable[RenderableType]:
    rows = [(phase, *_spread(seconds)) for phase, seconds in timings.items()]
    yield from _table("Timings in seconds, over ranks", ["phase", "min", "median", "max"], rows)


def _work(work: Mapping[str, NDArray[Any]]) -> Iterable[RenderableType]:
    rows: list[tuple[Any, ...]] = []
    for name, counts in work.items():
        for level, column in enumerate(counts.reshape(len(counts), -1).T):
            label = f"{name}, level {level}" if counts.ndim == 2 else name
            rows.append((label, *_spread(column), column.sum()))
    yield from _table("Work of the ranks", ["count", "min", "median", "max", "total"], rows)


def _model(model: Mapping[str, NDArray[Any]]) -> Iterable[RenderableType]:
    size = sum(array.size for array in model.values())
    rows = [(name, _shape(x.shape), str(x.dtype), _norm(x)) for name, x in model.items()]
    yield from _table(f"Model, {size} parameters", ["name", "shape", "dtype", "norm"], rows)


# --- numbers and tables -------------------------------------------------------------------------


def _spread(values: NDArray[Any]) -> tuple[float, float, float]:
    """Return minimum, median and maximum of the recorded values, NaN if there are none."""
    recorded = values[~np.isnan(values)]
    if recorded.size == 0:
        return (np.nan, np.nan, np.nan)
    return (recorded.min(), float(np.median(recorded)), recorded.max())


def _norm(array: NDArray[Any]) -> float:
    """Return the Euclidean norm of all entries, in at least double precision."""
    wide = array.astype(np.promote_types(array.dtype, np.float64)).ravel()
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(wide))


def _number(value: Any) -> str:
    """Return a number in at most nine characters if possible, "-" for NaN."""
    if isinstance(value, complex | np.complexfloating):
        return f"{value:.3g}"
    if isinstance(value, float | np.floating):
        return "-" if np.isnan(value) else f"{value:.4g}"
    return str(value)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape) or "scalar"


def _cell(value: Any) -> Text:
    """Return a value as plain text: no markup, and no control characters from the file."""
    entries = (value or ("()",)) if isinstance(value, tuple) else (value,)
    text = ", ".join(_number(entry) for entry in entries)
    return Text(text if text.isprintable() else repr(text), overflow="fold")


def _pairs(title: str, facts: Iterable[tuple[str, Any]]) -> RenderableType:
    table = _empty(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(_cell(name), _cell(value))
    return _titled(title, table)


def _series(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], most_rows: int = _MOST_ROWS
) -> RenderableType:
    """Return a table of rows over time, at most the last ones."""
    if len(rows) > most_rows:
        title = f"{title} (last {most_rows} of {len(rows)} rows)"
    return _numbers(title, columns, rows[-most_rows:])


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Iterable[RenderableType]:
    """Give a table, none without rows."""
    if rows:
        yield _numbers(title, columns, rows)


def _numbers(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> RenderableType:
    """Return a table with its first column left-aligned and all numbers right-aligned."""
    table = _empty(show_header=True)
    for index, column in enumerate(columns):
        text = index == 0 or all(isinstance(row[index], str) for row in rows)
        heading = _cell(column.replace("_", " "))
        table.add_column(heading, justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    return _titled(title, table)


def _empty(*, show_header: bool) -> Table:
    """Return an empty table without rules around or between its cells."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=show_header)


def _titled(title: str, table: Table) -> Group:
    """Add a title above a table; the table's own title would wrap at the table's width."""
    heading = _cell(title)
    heading.stylize("bold")
    return Group(heading, table)
