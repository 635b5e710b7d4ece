"""Train a recurrent network in parallel over time: python -m apps.train --help."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
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

from apps import train_options
from apps.compiling import announced
from apps.tracing import save_trace
from apps.train_data import baseline_of, kind_of, prepare
from pint import MGRITOptions
from pint.comm import Communicator, run, world
from pint.results import RunRecord, write_run
from pint.rnn.architecture import ARCHITECTURE, Pooling
from pint.rnn.evaluation import agreed
from pint.rnn.network import Network
from pint.rnn.recurrence import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.timeline import Timeline
from pint.train.accuracy import AccuracyOptions
from pint.train.data import SequenceData
from pint.train.optimizers import SGD, Adam, AdamW, Optimizer
from pint.train.progress import ConsoleProgress
from pint.train.schedules import Schedule
from pint.train.sources import loss_of
from pint.train.trainer import Trainer, TrainingLog, TrainingOptions, last_residual


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    comm = world()
    arguments = list(sys.argv[1:] if argv is None else argv)
    with _quiet_unless(comm.rank == 0):
        try:
            args = agreed(comm, functools.partial(train_options.read, arguments))
        except (ValueError, OSError) as error:
            return _refuse(error, comm)
    with announced("apps.train", comm):
        return run(lambda: _train(args, arguments, comm), comm)


def _train(args: argparse.Namespace, arguments: Sequence[str], comm: Communicator) -> int:
    """Load, build, train, write, report."""
    console = Console(quiet=comm.rank > 0)
    try:
        data = prepare(args, comm)
        solver = _build(args, data, comm)
        options = TrainingOptions(
            epochs=args.epochs,
            batch=args.batch,
            optimizer=_optimizer(args),
            schedule=Schedule(kind=args.schedule, warm_up=args.warm_up),
            clip=args.clip,
            seed=args.seed,
            accuracy=_accuracy(args),
        )
        timeline = _timeline(args, comm)
    except (ValueError, OSError, ImportError) as error:
        return _refuse(error, comm)
    console.print(_headline(data, solver, comm), highlight=False, soft_wrap=True)
    record = _Recorder(args, arguments, solver, comm)
    with ConsoleProgress(args.epochs, console) as progress:
        trainer = Trainer(
            solver, data, options, comm, progress, record.write, timeline, args.trace_batches or 3
        )
        try:
            log = trainer.train()
        except FloatingPointError as error:  # on every rank; the last file stays
            return _refuse(error, comm)
    if timeline is not None:
        save_trace(timeline, args.trace)
    _report(args, data, log, comm, console)
    return 0 if log.finished else 130


def _refuse(error: Exception, comm: Communicator) -> int:
    """Print an error that all ranks have, once; return the exit status."""
    if comm.rank == 0:
        print(f"apps.train: {error}", file=sys.stderr)
    return 2


def _build(args: argparse.Namespace, data: SequenceData, comm: Communicator) -> NetworkSolver:
    cell = RecurrenceOptions(
        num_features=data.num_features,
        hidden=args.hidden,
        layers=args.layers,
        cell=args.cell,
        coarse_step=args.coarse_step,
        substep=args.substep,
        dtype=args.dtype,
    )
    pooling: Pooling = "every" if data.is_per_step else "last"
    network = Network(cell, data.num_outputs, pooling=pooling, seed=args.seed)
    forward = MGRITOptions(
        levels=1 if args.serial else args.levels,
        coarsening=args.coarsening,
        relax=args.relax,
        max_iterations=args.forward_iterations,
        coarsest=args.coarsest,
        truncation=args.truncation,
        threads=args.threads,
    )
    backward = dataclasses.replace(forward, max_iterations=args.backward_iterations)
    return NetworkSolver(
        network,
        data.num_steps,
        forward,
        backward,
        comm,
        loss_of(data),
        time_ranks=args.time_ranks,
        num_remembered=len(data.y_train) if args.warm_start else 0,
    )


def _accuracy(args: argparse.Namespace) -> AccuracyOptions:
    if args.bound is None:
        return AccuracyOptions(mode=args.accuracy, check_every=args.check_every)
    if args.accuracy != "adaptive":
        raise ValueError("--bound belongs to --accuracy adaptive: add it, or leave --bound out")
    return AccuracyOptions(mode=args.accuracy, bound=args.bound, check_every=args.check_every)


def _timeline(args: argparse.Namespace, comm: Communicator) -> Timeline | None:
    if args.trace is None and args.trace_batches is not None:
        raise ValueError("--trace-batches belongs to --trace: add it, or leave it out")
    return None if args.trace is None else Timeline(comm)


def _optimizer(args: argparse.Namespace) -> Optimizer:
    if args.optimizer == "sgd":
        return SGD(learning_rate=args.lr, momentum=args.momentum, weight_decay=args.weight_decay)
    if args.optimizer == "adamw":
        return AdamW(learning_rate=args.lr, weight_decay=args.weight_decay)
    if args.weight_decay:
        raise ValueError("--weight-decay is for --optimizer adamw or sgd, got adam")
    return Adam(learning_rate=args.lr)


class _Recorder:
    """Writes the run file, on rank 0, whenever the trainer calls."""

    def __init__(
        self,
        args: argparse.Namespace,
        arguments: Sequence[str],
        solver: NetworkSolver,
        comm: Communicator,
    ) -> None:
        self.args = args
        self.command = shlex.join(["python", "-m", "apps.train", *arguments])
        self.solver = solver
        self.comm = comm
        self.hosts = comm.num_hosts()
        self.describes = {ARCHITECTURE: dataclasses.asdict(solver.network.architecture)}

    def write(self, log: TrainingLog) -> None:
        """Replace the file; collective."""
        seconds = np.array([list(log.timings.values())])
        timings = self.comm.gather_blocks(seconds)
        if self.comm.rank > 0 or timings is None:
            return
        options = {name: value for name, value in vars(self.args).items() if name != "json"}
        record = RunRecord(
            command=self.command,
            ranks=self.comm.size,
            hosts=self.hosts,
            options={**{name: _plain(value) for name, value in options.items()}, **self.describes},
            times=self.solver.sweep.forward.grid.times,
            coarsening=self.solver.sweep.forward.options.factors(self.solver.num_steps),
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


def _headline(data: SequenceData, solver: NetworkSolver, comm: Communicator) -> str:
    levels = [str(level.grid.num_steps) for level in solver.sweep.forward.hierarchy.levels]
    how = "serial stepping" if len(levels) == 1 else f"MGRIT on levels of {', '.join(levels)} steps"
    return (
        f"{data.name}: {len(data.y_train)} training and {len(data.y_test)} test sequences of "
        f"{data.num_steps} steps x {data.num_features}, {kind_of(data)}; "
        f"{solver.network.parameters.size} parameters; {how}; {comm.size} rank(s)"
    )


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


def _report(
    args: argparse.Namespace, data: SequenceData, log: TrainingLog, comm: Communicator,
    console: Console,
) -> None:  # fmt: skip
    """Print the closing table, and the JSON line if asked for."""
    baseline = baseline_of(args.data, data) if comm.rank == 0 else None
    summary = _summary(args, log, baseline, comm)
    table = Table(title=None if log.finished else "interrupted", show_header=False)
    show = _percent if data.is_classification else _number
    for name in reversed(_tested(log)):
        how, _, what = name.split("_")
        table.add_row(f"test {what}, {how}", show(summary[name]))
    if baseline is not None:
        table.add_row(baseline[0], show(baseline[1]))
    seconds = summary["seconds_per_epoch"]
    table.add_row("seconds per epoch", "none" if seconds is None else f"{seconds:.2f}")
    table.add_row("seconds to compile", f"{log.timings.get('compile', math.nan):.2f}")
    table.add_row("file", summary["output"])
    console.print(table)
    if args.json and comm.rank == 0:
        print(json.dumps(summary), flush=True)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


@contextlib.contextmanager
def _quiet_unless(speaks: bool) -> Any:
    """Let only one rank print usage errors and help."""
    if speaks:
        yield
        return
    with (
        open("/dev/null", "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


if __name__ == "__main__":
    sys.exit(main())
