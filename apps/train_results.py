"""What apps.train writes and prints: the run file, the closing table and the JSON line."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pint.data.sequences import SequenceData
from pint.parallel.comm import Communicator
from pint.results import RunRecord, write_run
from pint.rnn.architecture import ARCHITECTURE
from pint.rnn.solver import NetworkSolver
from pint.train.log import TrainingLog, last_residual

from .train_data import baseline_of


class Recorder:
    """Writes the run file, on rank 0, whenever the trainer calls.

    Attributes
    ----------
    error : OSError or None
        Why the file could not be written the last time; the same on every rank.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        arguments: Sequence[str],
        solver: NetworkSolver,
        comm: Communicator,
    ) -> None:
        self.args = args
        self.command = shlex.join(["python", "-m", f"{__package__}.train", *arguments])
        self.solver = solver
        self.comm = comm
        self.hosts = comm.num_hosts()
        self.error: OSError | None = None
        self.describes = {ARCHITECTURE: dataclasses.asdict(solver.network.architecture)}

    def write(self, log: TrainingLog) -> None:
        """Replace the file; a failure is reported once, and training goes on; collective."""
        timings = self.comm.gather_blocks(np.array([list(log.timings.values())]))
        try:
            with self.comm.collective():
                self._replace(log, timings)
            self.error = None
        except OSError as error:
            if self.comm.rank == 0 and self.error is None and not log.finished:
                print(f"apps.train: {error}; training goes on, and tries again", file=sys.stderr)
            self.error = error

    def _replace(self, log: TrainingLog, timings: NDArray[np.float64] | None) -> None:
        """Write the file, on rank 0."""
        if timings is None:
            return
        options = {name: value for name, value in vars(self.args).items() if name != "json"}
        record = RunRecord(
            command=self.command,
            ranks=self.comm.size,
            hosts=self.hosts,
            options={**{name: _plain(value) for name, value in options.items()}, **self.describes},
            times=self.solver.layer_solvers[0].forward.grid.times,
            coarsening=self.solver.layer_solvers[0].forward.options.factors(self.solver.num_steps),
            history={
                "forward_residual": _table(log.forward_residuals),
                "backward_residual": _table(log.backward_residuals),
                **log.accuracy.columns(),
            },
            timings=dict(zip(log.timings, timings.T, strict=True)),
            training=log.columns(),
            model=self.solver.network.weights,
            finished=log.finished,
        )
        write_run(self.args.output, record)


def _table(rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return rows of residuals as one array, filled up with NaN."""
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, residuals in zip(table, rows, strict=True):
        row[: residuals.size] = residuals
    return table


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _summary(
    args: argparse.Namespace,
    log: TrainingLog,
    baseline: tuple[str, float] | None,
    comm: Communicator,
) -> dict[str, Any]:
    """Return the keys of the JSON line; None where nothing was measured."""
    last = log.epochs[-1] if log.epochs else {}
    seconds = [row["seconds"] for row in log.epochs]
    residual = last_residual(log.forward_residuals[-1]) if log.forward_residuals else math.nan
    numbers = {
        **{name: last.get(name, math.nan) for name in _tested(log)},
        "train_loss": last.get("train_loss", math.nan),
        "seconds_per_epoch": float(np.median(seconds)) if seconds else math.nan,
        "forward_residual": residual,
    }
    measured = {name: None if math.isnan(value) else value for name, value in numbers.items()}
    known = {} if baseline is None else {"baseline": baseline[1]}
    return {**measured, **known, "ranks": comm.size, "output": str(args.output)}


def _tested(log: TrainingLog) -> list[str]:
    """Return which columns the test part gives: exact and parallel."""
    return sorted(name for name in log.names if "_test_" in name)


def report(
    args: argparse.Namespace, data: SequenceData, log: TrainingLog, comm: Communicator,
    console: Console,
) -> dict[str, Any]:  # fmt: skip
    """Print the closing table, and return the contents of the JSON line."""
    baseline = baseline_of(args.data, data) if comm.rank == 0 else None
    summary = _summary(args, log, baseline, comm)
    table = Table(title=None if log.finished else "interrupted", show_header=False)
    show = _percent if data.is_classification else _number
    for name in reversed(_tested(log)):
        how, _, what = name.split("_")
        table.add_row(f"test {what}, {how}", show(summary[name]))
    if baseline is not None:
        table.add_row(baseline[0], show(baseline[1]))
    if args.accuracy == "adaptive":
        cycles = log.accuracy.forward_iterations
        table.add_row("batches stepped exactly", f"{cycles.count(0)} of {len(cycles)}")
    seconds = summary["seconds_per_epoch"]
    table.add_row("seconds per epoch", "none" if seconds is None else f"{seconds:.2f}")
    table.add_row("seconds to compile", f"{log.timings.get('compile', math.nan):.2f}")
    table.add_row("file", summary["output"])
    console.print(table)
    return summary


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
