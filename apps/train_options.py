"""Options of apps.train: the command line, and a TOML file of the same names."""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pint.cli.arguments import count
from pint.cli.data_sources import ClassWeights, add_source
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.train.accuracy import AccuracyOptions
from pint.train.learning_rate import LearningRate

from .tracing import add_argument

PROGRAM = "apps.train"


class Belongs(NamedTuple):
    """An option that only counts with some choices of another one, and is left out by default."""

    name: str
    to: str
    choices: tuple[str, ...]
    default: Any


BELONGING = (
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
    ValueError
        If the file is not TOML, or holds an unknown name or a value out of its range.
    OSError
        If it cannot be read.
    SystemExit
        If the command line is wrong.
    """
    first = argparse.ArgumentParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    config = first.parse_known_args(arguments)[0].config
    parser = build_parser()
    if config is not None:
        parser.set_defaults(**from_file(parser, config))
    return parser.parse_args(arguments)


def settle(args: argparse.Namespace) -> None:
    """Give options that were left out their values, where they count.

    Raises
    ------
    ValueError
        If one is given that does not count.
    """
    for name, to, choices, default in BELONGING:
        given, chosen = getattr(args, name), getattr(args, to)
        if chosen in choices:
            setattr(args, name, default if given is None else given)
        elif given is not None:
            raise ValueError(
                f"{_flag(name)} is for {_flag(to)} {' or '.join(choices)}, got {chosen}"
            )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def from_file(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """Return the values that a file gives, by the attribute that argparse keeps them under.

    Raises
    ------
    ValueError, OSError
        As `read` does.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also bytes that are no text
        raise ValueError(f"{path}: {error}") from error
    actions = _actions(parser)
    names = {name: name.replace("_", "-") for name in given}
    unknown = [name for name in names if names[name] not in actions]
    if unknown:
        raise ValueError(
            f"{path}: unknown {', '.join(_nearest(name, actions) for name in unknown)}"
        )
    if len(set(names.values())) < len(names):
        raise ValueError(f"{path}: a name is given with dashes and with underscores: {list(names)}")
    values = {}
    for name, value in given.items():
        action = actions[names[name]]
        try:
            values[action.dest] = _value(action, value)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"{path}: {name} = {value!r}: {error}") from error
    return values


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return what a file may set, by the options' names."""
    actions = {a.option_strings[0].lstrip("-"): a for a in parser._actions if a.option_strings}
    return {name: a for name, a in actions.items() if a.dest not in ("help", "config")}


def _nearest(name: str, known: dict[str, argparse.Action]) -> str:
    """Say which name was probably meant."""
    (nearest,) = difflib.get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.0)
    return f"{name!r} (did you mean {nearest!r}?)"


def _value(action: argparse.Action, value: Any) -> Any:
    """Return a value of the file as the command line would give it."""
    if isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise TypeError("must be true or false")
        return value
    entries = value if isinstance(value, list) else [value]
    if any(isinstance(entry, bool | dict | list) for entry in entries):
        raise TypeError("must be a number, a text or a list of them")
    text = ",".join(map(str, entries))
    read: Any = action.type or str
    found = read(text)
    if action.choices is not None and found not in action.choices:
        raise ValueError(f"must be one of {', '.join(map(str, action.choices))}")
    return found


def per_level_list(text: str) -> int | tuple[int, ...]:
    """Read "4" or "4,2"."""
    entries = tuple(int(entry) for entry in text.split(","))
    return entries[0] if len(entries) == 1 else entries


def number_or_none(text: str) -> float | None:
    """Read a number or "none"."""
    return None if text == "none" else float(text)


def balanced_or_numbers(text: str) -> ClassWeights:
    """Read "balanced" or "1,2.5"."""
    return "balanced" if text == "balanced" else tuple(map(float, text.split(",")))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train a recurrent network in parallel over time. Start it plainly for one "
        "process, or under mpiexec -n P for P.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
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


Group = argparse._ArgumentGroup


def _add_network(group: Group) -> None:
    add, switch = group.add_argument, argparse.BooleanOptionalAction
    add("--hidden", type=int, default=64, help="width of the state")
    add("--layers", type=int, default=1, help="number of stacked layers")
    add("--cell", choices=("implicit", "classic", "lstm"), default="implicit", help="kind of layer")
    add("--bidirectional", action=switch, default=False, help="layers in both directions of time")
    pooling = "what a label of a sequence is read from: its last state, or the mean over time"
    add("--pooling", choices=("last", "mean"), help=f"{pooling}; last if left out")
    add("--learned-start", action=switch, default=False, help="train the initial state too")
    add("--dtype", choices=("float32", "float64"), default="float32", help="precision")
    add("--seed", type=int, default=0, help="seed of parameters, batches and generated data")
    add(
        "--warm-start",
        action=switch,
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
    add("--class-weights", type=balanced_or_numbers, help=f"{weights}; all 1 if left out")
    add("--clip", type=number_or_none, default=1.0, help="greatest norm of a gradient, or none")


def _add_solver(group: Group) -> None:
    add, per_level = group.add_argument, per_level_list
    add("--levels", type=int, default=2, help="greatest number of time levels")
    factors = "factor between levels, or one for each"
    add("--coarsening", type=per_level, default=4, help=factors)
    cycles = "MGRIT cycles forward; the first ones tried, if --accuracy adaptive"
    add("--forward-iterations", type=count, default=4, help=cycles)
    add("--backward-iterations", type=count, default=4, help="MGRIT cycles backward")
    sweeps = "CF-sweeps per level, 0 is F, 1 is FCF: 0,1"
    add("--relax", type=per_level, default=1, help=sweeps)
    add(
        "--coarse-step",
        choices=("averaged", "midpoint", "matched", "implicit"),
        default="averaged",
        help="what a coarse step does; implicit is that of Moon & Cyr",
    )
    parts = "finest steps per part of an averaged or midpoint step; 4 if left out"
    add("--substep", type=per_level, help=parts)
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
    add, switch = group.add_argument, argparse.BooleanOptionalAction
    add(
        "--accuracy",
        choices=("fixed", "adaptive"),
        default="fixed",
        help="the given iterations, or as many as keep the gradient's error below --bound",
    )
    add("--bound", type=float, help="relative error of gradients, if adaptive; 0.05 if left out")
    every = "compare every so many gradients with the exact one; 0 is never, or 25 if adaptive"
    add("--check-every", type=int, default=0, help=every)
    add(
        "--serial",
        action=switch,
        default=False,
        help="exact serial stepping: options of MGRIT, accuracy and warm starts do not count",
    )


def _add_results(group: Group) -> None:
    add, switch = group.add_argument, argparse.BooleanOptionalAction
    add("--output", type=Path, default=Path("run.h5"), help="HDF5 file of the results")
    add_argument(group)
    add("--trace-batches", type=count, help="so many first batches, if --trace; 3 if left out")
    line = "print one JSON object as the last line"
    add("--json", action=switch, default=False, help=line)
