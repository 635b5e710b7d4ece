"""Options of apps.train: the command line, and a TOML file of the same names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pint.cli.arguments import count
from pint.cli.data_sources import add_source
from pint.data.loss import ClassWeights
from pint.options import PerLevel

from .option_parser import SWITCH, Group, OptionParser
from .tracing import add_argument

PROGRAM = "apps.train"


class Belongs(NamedTuple):
    """An option that only counts with some choices of another one, and is left out by default."""

    name: str
    to: str
    choices: tuple[str, ...]
    default: Any


def _belonging() -> tuple[Belongs, ...]:
    """Return all of them; imports what defines the defaults, which --help does not need."""
    from pint.rnn.recurrence_options import RecurrenceOptions
    from pint.train.accuracy import AccuracyOptions
    from pint.train.learning_rate import LearningRate

    return (
        Belongs("substep", "coarse_step", ("averaged", "midpoint"), RecurrenceOptions.substep),
        Belongs("weight_decay", "optimizer", ("adamw", "sgd"), 0.0),
        Belongs("momentum", "optimizer", ("sgd",), 0.9),
        Belongs("period", "schedule", ("step",), LearningRate.period),
        Belongs("decay", "schedule", ("step",), LearningRate.decay),
        Belongs("bound", "accuracy", ("adaptive",), AccuracyOptions.bound),
    )


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """Return all options; the command line wins over the file that its --config names.

    Raises
    ------
    ValueError, OSError, SystemExit
        As `OptionParser.read` does.
    """
    return build_parser().read(arguments)


def settle(args: argparse.Namespace) -> None:
    """Give options that were left out their values, where they count.

    Raises
    ------
    ValueError
        If one is given that does not count.
    """
    for name, to, choices, default in _belonging():
        given, chosen = getattr(args, name), getattr(args, to)
        if chosen in choices:
            setattr(args, name, default if given is None else given)
        elif given is not None:
            raise ValueError(
                f"{_flag(name)} is for {_flag(to)} {' or '.join(choices)}, got {chosen}"
            )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def build_parser() -> OptionParser:
    """Return the parser of the command line."""
    parser = OptionParser(PROGRAM, "Train a recurrent network in parallel over time.")
    parser.add_argument("--config", type=Path, help="TOML file of options; the command line wins")
    for title, add_options in (
        ("data", add_source),
        ("network", _add_network),
        ("training", _add_training),
        ("time-parallel solver", _add_solver),
        ("accuracy of gradients", _add_accuracy),
        ("results", _add_results),
    ):
        add_options(parser.add_argument_group(title))
    return parser


def _add_network(group: Group) -> None:
    add = group.add_argument
    add("--hidden", type=int, default=64, help="width of the state")
    add("--layers", type=int, default=1, help="number of stacked layers")
    add("--cell", choices=("implicit", "classic", "lstm"), default="implicit", help="kind of layer")
    add("--bidirectional", action=SWITCH, default=False, help="layers in both directions of time")
    pooling = "what a label of a sequence is read from: its last state, or the mean over time"
    add("--pooling", choices=("last", "mean"), help=f"{pooling}; last if left out")
    add("--learned-start", action=SWITCH, default=False, help="train the initial state too")
    add("--dtype", choices=("float32", "float64"), default="float32", help="precision")
    add("--seed", type=int, default=0, help="seed of parameters, batches and generated data")
    add(
        "--warm-start",
        action=SWITCH,
        default=False,
        help="begin with the states that each sequence had an epoch ago; they are kept at C-points",
    )


def _add_training(group: Group) -> None:
    add = group.add_argument
    add("--batch", type=int, default=25, help="sequences per update")
    add("--epochs", type=int, default=30, help="passes through the training data")
    add("--lr", type=float, default=1e-2, help="learning rate")
    add("--optimizer", choices=("adam", "adamw", "sgd"), default="adam", help="update rule")
    add("--weight-decay", type=float, help="weight decay of adamw and sgd; 0 if left out")
    add("--momentum", type=float, help="momentum of sgd; 0.9 if left out")
    schedules = ("constant", "step", "cosine")
    add("--schedule", choices=schedules, default="cosine", help="learning rate over the run")
    add("--period", type=int, help="updates between decays, if step; 1000 if left out")
    add("--decay", type=float, help="factor of each decay, if step; 0.5 if left out")
    add("--warm-up", type=int, default=0, help="updates over which the learning rate rises")
    weights = "weight of each class in the loss: 1,2.5, or balanced, by how rare it is in training"
    add("--class-weights", type=ClassWeights, help=f"{weights}; all 1 if left out")
    add("--clip", type=float | None, default=1.0, help="greatest norm of a gradient, or none")


def _add_solver(group: Group) -> None:
    add = group.add_argument
    add("--levels", type=int, default=2, help="greatest number of time levels")
    factors = "factor between levels, or one for each"
    add("--coarsening", type=PerLevel, default=4, help=factors)
    cycles = "MGRIT cycles forward; the first ones tried, if --accuracy adaptive"
    add("--forward-iterations", type=count, default=4, help=cycles)
    add("--backward-iterations", type=count, default=4, help="MGRIT cycles backward")
    sweeps = "CF-sweeps per level, 0 is F, 1 is FCF: 0,1"
    add("--relax", type=PerLevel, default=1, help=sweeps)
    add(
        "--coarse-step",
        choices=("averaged", "midpoint", "matched", "implicit"),
        default="averaged",
        help="formula of a coarse step; implicit is Moon & Cyr's",
    )
    parts = "finest steps per part of an averaged or midpoint step; 4 if left out"
    add("--substep", type=PerLevel, help=parts)
    diagonal = "diagonals of derivatives in the place of coarse steps, for many ranks; takes some "
    add("--delta", choices=("diagonal",), help=f"{diagonal}20 cycles in either solve")
    add(
        "--coarsest",
        choices=("pipelined", "gather", "relaxation", "truncated"),
        default="pipelined",
        help="how the coarsest level is solved",
    )
    add("--truncation", type=count, help="points of a local coarse grid, if --coarsest truncated")
    add("--time-ranks", type=count, help="ranks that share the time axis; all if left out")
    add("--threads", type=count, help="threads of a rank, which share sequences and time points")


def _add_accuracy(group: Group) -> None:
    add = group.add_argument
    add(
        "--accuracy",
        choices=("fixed", "adaptive"),
        default="fixed",
        help="the given iterations, or as many as keep the gradient's error below --bound",
    )
    add("--bound", type=float, help="relative error of gradients, if adaptive; 0.05 if left out")
    every = "compare one gradient of this number with the exact one; 0 is never, or 25 if adaptive"
    add("--check-every", type=int, default=0, help=every)
    add(
        "--serial",
        action=SWITCH,
        default=False,
        help="exact serial stepping: options of MGRIT, accuracy and warm starts do not count",
    )


def _add_results(group: Group) -> None:
    add = group.add_argument
    add("--output", type=Path, default=Path("run.h5"), help="HDF5 file of the results")
    add_argument(group)
    add("--trace-batches", type=count, help="number of first batches for --trace; 3 by default")
    line = "print one JSON object as the last line"
    add("--json", action=SWITCH, default=False, help=line)
