"""What apps.train does: load, build, train, write, report."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from rich.console import Console

from pint import MGRITOptions
from pint.data.loss import loss_of
from pint.data.sequences import SequenceData
from pint.options import Delta, coarsest_of
from pint.parallel.comm import Communicator, run
from pint.rnn.architecture import Pooling
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.timeline import Timeline
from pint.train.accuracy import AccuracyOptions
from pint.train.learning_rate import LearningRate
from pint.train.optimizers import SGD, Adam, AdamW, Optimizer
from pint.train.progress import ConsoleProgress
from pint.train.trainer import Trainer, TrainingOptions

from .arguments import refuse
from .compiling import announce
from .tracing import save_trace
from .train_data import kind_of, prepare
from .train_options import PROGRAM, settle
from .train_results import Recorder, report


def train(args: argparse.Namespace, arguments: Sequence[str], comm: Communicator) -> int:
    """Train as the command line says; return the exit status; collective."""
    announce(PROGRAM, comm)
    return run(lambda: _interruptible(args, arguments, comm), comm)


def _interruptible(args: argparse.Namespace, arguments: Sequence[str], comm: Communicator) -> int:
    """Train; Ctrl-C before or after the epochs ends all ranks, without a traceback."""
    try:
        return _train(args, arguments, comm)
    except KeyboardInterrupt:
        if comm.size > 1:
            comm.abort()  # another rank may wait for this one's messages
        return 130


def _train(args: argparse.Namespace, arguments: Sequence[str], comm: Communicator) -> int:
    """Load, build, train, write, report."""
    console = Console(quiet=comm.rank > 0)
    try:
        settle(args)
        data = prepare(args, comm)
        solver = _build(args, data, comm)
        options = TrainingOptions(
            epochs=args.epochs,
            batch=args.batch,
            optimizer=_optimizer(args),
            schedule=_schedule(args),
            clip=args.clip,
            seed=args.seed,
            accuracy=_accuracy(args),
        )
        timeline = _timeline(args, comm)
    except (ValueError, OSError, ImportError) as error:
        return refuse(PROGRAM, error, comm)
    console.print(_headline(data, solver, comm), highlight=False, soft_wrap=True)
    recorder = Recorder(args, arguments, solver, comm)
    with ConsoleProgress(args.epochs, console) as progress:
        trainer = Trainer(
            solver, data, options, comm, progress, recorder.write, timeline, args.trace_batches or 3
        )
        try:
            log = trainer.train()
        except (FloatingPointError, ValueError, OSError) as error:  # on every rank
            return refuse(PROGRAM, error, comm)  # the file of the epochs before stays
    summary = report(args, data, log, comm, console)
    status = 0 if log.finished else 130
    if recorder.error is not None:
        status = refuse(PROGRAM, recorder.error, comm)
    if timeline is not None:
        try:
            save_trace(timeline, args.trace)
        except OSError as error:  # on every rank
            status = refuse(PROGRAM, error, comm)
    if args.json and comm.rank == 0:
        print(json.dumps(summary), flush=True)
    return status


def _build(args: argparse.Namespace, data: SequenceData, comm: Communicator) -> NetworkSolver:
    cell = RecurrenceOptions(
        num_features=data.num_features,
        hidden=args.hidden,
        layers=args.layers,
        cell=args.cell,
        coarse_step=args.coarse_step,
        substep=RecurrenceOptions.substep if args.substep is None else args.substep,
        dtype=args.dtype,
    )
    network = Network(
        cell,
        data.num_outputs,
        pooling=_pooling(args, data),
        bidirectional=args.bidirectional,
        learned_start=args.learned_start,
        seed=args.seed,
    )
    forward = backward = MGRITOptions(levels=1, threads=args.threads)
    if not args.serial:
        forward = dataclasses.replace(
            forward,
            levels=args.levels,
            coarsening=args.coarsening,
            relax=args.relax,
            max_iterations=args.forward_iterations,
            coarsest=coarsest_of(args.coarsest, args.truncation),
            delta=None if args.delta is None else Delta(args.delta),
        )
        backward = dataclasses.replace(forward, max_iterations=args.backward_iterations)
    return NetworkSolver(
        network,
        data.num_steps,
        forward,
        backward,
        comm,
        loss_of(data, args.class_weights),
        time_ranks=args.time_ranks,
        warm_start_sequences=len(data.y_train) if args.warm_start else 0,
    )


def _pooling(args: argparse.Namespace, data: SequenceData) -> Pooling:
    if data.is_per_step and args.pooling is not None:
        raise ValueError(f"--pooling is for one target of a sequence; {data.name} has one a step")
    return "every" if data.is_per_step else args.pooling or "last"


def _accuracy(args: argparse.Namespace) -> AccuracyOptions:
    bound = AccuracyOptions.bound if args.bound is None else args.bound
    return AccuracyOptions(mode=args.accuracy, bound=bound, check_every=args.check_every)


def _timeline(args: argparse.Namespace, comm: Communicator) -> Timeline | None:
    if args.trace is None and args.trace_batches is not None:
        raise ValueError("--trace-batches belongs to --trace: add it, or leave it out")
    return None if args.trace is None else Timeline(comm)


def _schedule(args: argparse.Namespace) -> LearningRate:
    if args.schedule != "step":
        return LearningRate(kind=args.schedule, warm_up=args.warm_up)
    return LearningRate(kind="step", warm_up=args.warm_up, period=args.period, decay=args.decay)


def _optimizer(args: argparse.Namespace) -> Optimizer:
    if args.optimizer == "sgd":
        return SGD(learning_rate=args.lr, momentum=args.momentum, weight_decay=args.weight_decay)
    if args.optimizer == "adamw":
        return AdamW(learning_rate=args.lr, weight_decay=args.weight_decay)
    return Adam(learning_rate=args.lr)


def _headline(data: SequenceData, solver: NetworkSolver, comm: Communicator) -> str:
    levels = [
        str(level.grid.num_steps) for level in solver.layer_solvers[0].forward.hierarchy.levels
    ]
    how = "serial stepping" if len(levels) == 1 else f"MGRIT on levels of {', '.join(levels)} steps"
    return (
        f"{data.name}: {len(data.y_train)} training and {len(data.y_test)} test sequences of "
        f"{data.num_steps} steps x {data.num_features}, {kind_of(data)}; "
        f"{solver.network.parameters.size} parameters; {how}; {comm.size} rank(s)"
    )
