"""Train a GRU classifier in parallel over time: python -m apps.train --help."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
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

from pint import MGRITOptions
from pint.comm import Communicator, run, world
from pint.results import RunRecord, check_target, write_run
from pint.rnn.architecture import ARCHITECTURE
from pint.rnn.network import Network
from pint.rnn.recurrence import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train.accuracy import AccuracyOptions
from pint.train.datasets import SequenceData, load_digits, load_har
from pint.train.features import load_features
from pint.train.optimizers import SGD, Adam, AdamW, Optimizer
from pint.train.progress import ConsoleProgress
from pint.train.schedules import Schedule
from pint.train.trainer import Trainer, TrainingLog, TrainingOptions, last_residual


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    comm = world()
    arguments = list(sys.argv[1:] if argv is None else argv)
    with _quiet_unless(comm.rank == 0):
        args = _parser().parse_args(arguments)
    return run(lambda: _train(args, arguments, comm), comm)


def _train(args: argparse.Namespace, arguments: Sequence[str], comm: Communicator) -> int:
    """Load, build, train, write, report."""
    console = Console(quiet=comm.rank > 0)
    try:
        data = _prepare(args, comm)
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
    except (ValueError, OSError, ImportError) as error:
        return _refuse(error, comm)
    console.print(_headline(data, solver, comm), highlight=False, soft_wrap=True)
    record = _Recorder(args, arguments, solver, comm)
    with ConsoleProgress(args.epochs, console) as progress:
        trainer = Trainer(solver, data, options, comm, progress, record.write)
        try:
            log = trainer.train()
        except FloatingPointError as error:  # on every rank; the last file stays
            return _refuse(error, comm)
    _report(args, log, comm, console)
    return 0 if log.finished else 130


def _refuse(error: Exception, comm: Communicator) -> int:
    """Print an error that all ranks have, once; return the exit status."""
    if comm.rank == 0:
        print(f"apps.train: {error}", file=sys.stderr)
    return 2


def _prepare(args: argparse.Namespace, comm: Communicator) -> SequenceData:
    """Check the output file and load the data; rank 0 first, because it may have to download."""
    data: SequenceData | None = None
    for turn in (comm.rank == 0, comm.rank > 0):
        error: Exception | None = None
        if turn:
            try:
                check_target(args.output)
                data = _load(args)
            except Exception as caught:  # the other ranks must hear of it
                error = caught
        comm.agree(error)
    assert data is not None
    return data


def _load(args: argparse.Namespace) -> SequenceData:
    """Return the data that the command line names."""
    if args.data != "har" and args.data_dir is not None:
        raise ValueError(f"--data-dir is for --data har; {args.data} need none")
    if (args.data == "hmdb51") != (args.features is not None):
        raise ValueError(
            "--data hmdb51 and --features FILE belong together: apps.hmdb51 writes the file"
        )
    if args.data == "hmdb51":
        return load_features(args.features)
    return load_digits() if args.data == "digits" else load_har(args.data_dir)


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
    network = Network(cell, data.num_classes, seed=args.seed)
    forward = MGRITOptions(
        levels=1 if args.serial else args.levels,
        coarsening=args.coarsening,
        relax=args.relax,
        max_iterations=args.forward_iterations,
        coarsest=args.coarsest,
        threads=args.threads,
    )
    backward = dataclasses.replace(forward, max_iterations=args.backward_iterations)
    return NetworkSolver(
        network,
        data.num_steps,
        forward,
        backward,
        comm,
        time_ranks=args.time_ranks,
        num_remembered=len(data.y_train) if args.warm_start else 0,
    )


def _accuracy(args: argparse.Namespace) -> AccuracyOptions:
    if args.bound is None:
        return AccuracyOptions(mode=args.accuracy, check_every=args.check_every)
    if args.accuracy != "adaptive":
        raise ValueError("--bound belongs to --accuracy adaptive: add it, or leave --bound out")
    return AccuracyOptions(mode=args.accuracy, bound=args.bound, check_every=args.check_every)


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
        f"{data.num_steps} steps x {data.num_features}, {data.num_classes} classes; "
        f"{solver.network.parameters.size} parameters; {how}; {comm.size} rank(s)"
    )


def _summary(args: argparse.Namespace, log: TrainingLog, comm: Communicator) -> dict[str, Any]:
    """Return the keys of the JSON line; None where nothing was measured."""
    last = log.epochs[-1] if log.epochs else {}
    seconds = [row["seconds"] for row in log.epochs]
    residual = last_residual(log.forward_residuals[-1]) if log.forward_residuals else math.nan
    numbers = {
        "exact_test_accuracy": last.get("exact_test_accuracy", math.nan),
        "parallel_test_accuracy": last.get("parallel_test_accuracy", math.nan),
        "train_loss": last.get("train_loss", math.nan),
        "seconds_per_epoch": float(np.median(seconds)) if seconds else math.nan,
        "forward_residual": residual,
    }
    measured = {name: None if math.isnan(value) else value for name, value in numbers.items()}
    return {**measured, "ranks": comm.size, "output": str(args.output)}


def _report(
    args: argparse.Namespace, log: TrainingLog, comm: Communicator, console: Console
) -> None:
    """Print the closing table, and the JSON line if asked for."""
    summary = _summary(args, log, comm)
    table = Table(title=None if log.finished else "interrupted", show_header=False)
    table.add_row("test accuracy, parallel", _percent(summary["parallel_test_accuracy"]))
    table.add_row("test accuracy, exact", _percent(summary["exact_test_accuracy"]))
    seconds = summary["seconds_per_epoch"]
    table.add_row("seconds per epoch", "none" if seconds is None else f"{seconds:.2f}")
    table.add_row("seconds to compile", f"{log.timings.get('compile', math.nan):.2f}")
    table.add_row("file", summary["output"])
    console.print(table)
    if args.json and comm.rank == 0:
        print(json.dumps(summary), flush=True)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


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


def count(text: str) -> int:
    """Read an integer of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def per_level_list(text: str) -> int | tuple[int, ...]:
    """Read "4" or "4,2"."""
    entries = tuple(int(entry) for entry in text.split(","))
    return entries[0] if len(entries) == 1 else entries


def number_or_none(text: str) -> float | None:
    """Read a number or "none"."""
    return None if text == "none" else float(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="apps.train",
        description="Train a GRU classifier in parallel over time. Start it plainly for one "
        "process, or under mpiexec -n P for P.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", choices=("digits", "har", "hmdb51"), default="digits", help="what to train on")
    add("--data-dir", type=Path, help="folder of UCI-HAR; downloaded if left out")
    add("--features", type=Path, help="file of apps.hmdb51, for --data hmdb51")
    add("--hidden", type=int, default=64, help="width of the state")
    add("--layers", type=int, default=1, help="number of stacked layers")
    add("--batch", type=int, default=25, help="sequences per update")
    add("--epochs", type=int, default=30, help="passes through the training data")
    add("--lr", type=float, default=1e-2, help="learning rate")
    add("--optimizer", choices=("adam", "adamw", "sgd"), default="adam", help="update rule")
    add("--weight-decay", type=float, default=0.0, help="weight decay of adamw and sgd")
    add("--momentum", type=float, default=0.9, help="momentum of sgd")
    add(
        "--schedule",
        choices=("constant", "cosine"),
        default="cosine",
        help="learning rate over the run",
    )
    add("--warm-up", type=int, default=0, help="updates over which the learning rate rises")
    add("--clip", type=number_or_none, default=1.0, help="greatest norm of a gradient, or none")
    add("--seed", type=int, default=0, help="seed of the parameters and of the batches")
    add("--levels", type=int, default=2, help="greatest number of time levels")
    add(
        "--coarsening",
        type=per_level_list,
        default=4,
        help="factor between levels, or one for each",
    )
    add(
        "--forward-iterations",
        type=count,
        default=4,
        help="MGRIT cycles forward; the first ones tried, if --accuracy adaptive",
    )
    add("--backward-iterations", type=count, default=4, help="MGRIT cycles backward")
    add(
        "--relax", type=per_level_list, default=1, help="CF-sweeps per level, 0 is F, 1 is FCF: 0,1"
    )
    add(
        "--coarse-step",
        choices=("averaged", "midpoint", "matched", "implicit"),
        default="averaged",
        help="what a coarse step does; implicit is that of Moon & Cyr",
    )
    add(
        "--substep",
        type=per_level_list,
        default=4,
        help="finest steps per part of an averaged or midpoint step",
    )
    add(
        "--coarsest",
        choices=("in_turn", "gather", "relaxation"),
        default="in_turn",
        help="how the coarsest level is solved",
    )
    add("--cell", choices=("implicit", "classic", "lstm"), default="implicit", help="kind of layer")
    add("--time-ranks", type=count, help="ranks that share the time axis; all if left out")
    add("--threads", type=count, help="threads of a rank, which share sequences and time points")
    add(
        "--warm-start",
        action="store_true",
        help="begin with the states that each sequence had an epoch ago; they are kept at C-points",
    )
    add(
        "--accuracy",
        choices=("fixed", "adaptive"),
        default="fixed",
        help="the given iterations, or as many as keep the gradient's error below --bound",
    )
    add("--bound", type=float, help="relative error of gradients, if adaptive; 0.05 if left out")
    add(
        "--check-every",
        type=int,
        default=0,
        help="compare every so many gradients with the exact one; 0 is never, or 25 if adaptive",
    )
    add(
        "--serial",
        action="store_true",
        help="exact serial stepping: options of MGRIT, accuracy and warm starts do not count",
    )
    add("--dtype", choices=("float32", "float64"), default="float32", help="precision")
    add("--output", type=Path, default=Path("run.h5"), help="HDF5 file of the results")
    add("--json", action="store_true", help="print one JSON object as the last line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
