"""Describe a run file for `pint inspect`."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pint.results.reader import Run
from pint.results.record import OptionValue

__all__ = ["glance", "summarize"]

_MOST_ROWS = 12
_FEW_ROWS = 5  # of a page
_RANGE = ("min", "median", "max")
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
    return _page(
        _header(run),
        _grid(run),
        *_training(run.training, _FEW_ROWS),
        _histories(run.history),
        _timings(run.timings),
        _rest(run),
    )


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
    return _page(
        _header(run),
        _table("Options", list(_flat(run.options))),
        _grid(run),
        *_training(run.training, _MOST_ROWS),
        *(_history(name, values) for name, values in run.history.items()),
        _timings(run.timings),
        _work(run.work),
        _model(run.model),
    )


def _page(*sections: RenderableType | None) -> Group:
    return Group(*(part for section in sections if section for part in (section, Text())))


# --- sections -----------------------------------------------------------------------------------


def _header(run: Run) -> RenderableType | None:
    about = run.attributes
    state = "finished" if run.finished else "interrupted, or still running"
    status = about.get("status")
    facts = {
        "command": about.get("command"),
        "written": about["created"],
        "state": f"{state}: {status}" if status else state,
        "ranks": f"{about.get('ranks')} on {about.get('hosts')} host(s)",
        "versions": f"pint {about['pint_version']}, python {about.get('python_version')}, "
        f"numpy {about.get('numpy_version')}",
        "commit": about.get("git_commit") or "unknown",
    }
    return _table(str(run.path), list(facts.items()))


def _flat(options: Mapping[str, Any]) -> Iterable[tuple[str, OptionValue]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", entry) for inner, entry in value.items())
        else:
            yield name, value


def _grid(run: Run) -> RenderableType | None:
    facts = {}
    if run.times is not None:
        facts["time"] = f"{_number(run.times[0])} to {_number(run.times[-1])}"
        steps = [len(run.times) - 1]
        for m in run.coarsening:
            steps.append(steps[-1] // m if isinstance(m, int) else len(m) - 1)
        facts["steps"] = f"{', '.join(map(str, steps))} (finest level first)"
    if run.times is not None or run.coarsening:
        facts["levels"] = str(len(run.coarsening) + 1)
        factors = (m if isinstance(m, int) else f"{len(m)} chosen points" for m in run.coarsening)
        facts["coarsening"] = ", ".join(map(str, factors)) or "none"
    if run.solution_shape is not None:
        facts["solution"] = f"{_shape(run.solution_shape)} {run.solution_dtype}"
    if run.solution_files:
        missing = sum(not path.exists() for path in run.solution_files)
        absent = f", {missing} of them missing" if missing else ""
        facts["solution files"] = f"{len(run.solution_files)}{absent}"
    return _table("Grid", list(facts.items()))


def _training(
    columns: Mapping[str, NDArray[Any]], most_rows: int
) -> Iterable[RenderableType | None]:
    """Return the columns in tables of at most 80 characters, each with the epoch."""
    if not columns:
        return
    names = [name for name in columns if name != "epoch"]
    parts = max(1, ceil(len(names) / _MOST_COLUMNS))
    width = max(1, ceil(len(names) / parts))
    epochs = columns.get("epoch", np.arange(1, max(map(len, columns.values())) + 1))
    for part in range(parts):
        shown = names[part * width : (part + 1) * width]
        rows = list(zip(epochs, *(columns[name] for name in shown), strict=True))
        yield _series("Training", rows, ["epoch", *shown], most_rows)


def _history(name: str, values: NDArray[Any]) -> RenderableType | None:
    """Return the values of each iteration, or their range where there are several."""
    title = f"History of {name}"
    if values.ndim == 0:
        return _table(f"{title}, scalar", [("value", values.item())])
    if values.ndim == 1:
        given = {name: values}
        if "residual" in name:
            with np.errstate(all="ignore"):
                given["factor"] = np.append(np.nan, values[1:] / values[:-1])[: len(values)]
        rows = list(zip(range(1, len(values) + 1), *given.values(), strict=True))
        return _series(title, rows, ["iteration", *given])
    by_iteration = np.moveaxis(values, -1, 0).reshape(values.shape[-1], prod(values.shape[:-1]))
    rows = [(index, *_spread(column)) for index, column in enumerate(by_iteration, start=1)]
    return _series(f"{title}, {_shape(values.shape)}", rows, ["iteration", *_RANGE])


def _histories(history: Mapping[str, NDArray[Any]]) -> RenderableType | None:
    """Return one row for each history: its range, and its last value."""
    rows = []
    for name, values in history.items():
        real = values if values.dtype.kind != "c" else np.abs(values)
        last = real.ravel()[-1] if real.size else np.nan
        rows.append((name, _shape(values.shape), *_spread(real), last))
    return _table("Histories", rows, ["name", "shape", *_RANGE, "last"])


def _rest(run: Run) -> RenderableType | None:
    """Return what else the file has, and the command that shows it."""
    parameters = sum(array.size for array in run.model.values())
    counts = {"options": len(list(_flat(run.options))), "model parameters": parameters}
    held = [f"{count} {name}" for name, count in counts.items() if count]
    if run.work:
        held.append("work of the ranks")
    return _cell(f"Also {', '.join(held)}: pint inspect --all") if held else None


def _timings(timings: Mapping[str, NDArray[Any]]) -> RenderableType | None:
    rows = [(phase, *_spread(seconds)) for phase, seconds in timings.items()]
    return _table("Timings in seconds, over ranks", rows, ["phase", *_RANGE])


def _work(work: Mapping[str, NDArray[Any]]) -> RenderableType | None:
    rows: list[tuple[Any, ...]] = []
    for name, counts in work.items():
        for level, column in enumerate(counts.reshape(len(counts), -1).T):
            label = f"{name}, level {level}" if counts.ndim == 2 else name
            rows.append((label, *_spread(column), column.sum()))
    return _table("Work of the ranks", rows, ["count", *_RANGE, "total"])


def _model(model: Mapping[str, NDArray[Any]]) -> RenderableType | None:
    size = sum(array.size for array in model.values())
    rows = [(name, _shape(x.shape), str(x.dtype), _norm(x)) for name, x in model.items()]
    return _table(f"Model, {size} parameters", rows, ["name", "shape", "dtype", "norm"])


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


def _series(
    title: str, rows: Sequence[Sequence[Any]], columns: Sequence[str], most_rows: int = _MOST_ROWS
) -> RenderableType:
    """Return a table of rows over time, at most the last ones; its heading alone without rows."""
    if len(rows) > most_rows:
        title = f"{title} (last {most_rows} of {len(rows)} rows)"
    return _table(title, rows[-most_rows:], columns) or _titled(title, Table())


def _table(
    title: str, rows: Sequence[Sequence[Any]], columns: Sequence[str] = ()
) -> RenderableType | None:
    """Return a table with its text left-aligned and its numbers right-aligned; None without rows.

    Without columns there is no header, and all is text.
    """
    if not rows:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(columns))
    for index, column in enumerate(columns or ("name", "value")):
        is_text = not (columns and index) or all(isinstance(row[index], str) for row in rows)
        table.add_column(
            _cell(column.replace("_", " ")),
            justify="left" if is_text else "right",
            overflow="fold",
            no_wrap=not columns and index == 0,
        )
    for row in rows:
        table.add_row(*map(_cell, row))
    return _titled(title, table)


def _titled(title: str, table: Table) -> Group:
    """Put a title above a table; the table's own title would wrap at the table's width."""
    heading = _cell(title)
    heading.stylize("bold")
    return Group(heading, table)
