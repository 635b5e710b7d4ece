"""Data by name: data sets, and generated sequences of any length, with the loss that suits them."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

from pint.cli.arguments import count
from pint.data.digits import load_digits
from pint.data.generated import TASKS
from pint.data.har import load_har
from pint.data.hmdb51 import load_features
from pint.data.sequences import SequenceData

__all__ = ["SETS", "add_source", "load"]

SETS = ("digits", "har", "hmdb51", *TASKS)
"""Names of all data."""


def add_source(group: argparse._ActionsContainer) -> None:
    """Add the arguments that `load` reads."""
    add = group.add_argument
    add("--data", choices=SETS, default="digits", help="what to train on")
    add("--data-dir", type=Path, help="folder of UCI-HAR; downloaded if left out")
    add("--features", type=Path, help="file of apps.hmdb51, for --data hmdb51")
    add("--length", type=count, help="steps of generated sequences; the task's own if left out")
    add("--samples", type=count, help="generated training sequences; the task's own if left out")


def load(args: argparse.Namespace, seed: int) -> SequenceData:
    """Return the data that the arguments of `add_source` name.

    Parameters
    ----------
    args : argparse.Namespace
        With `data`, `data_dir`, `features`, `length` and `samples`.
    seed : int
        Of generated sequences.

    Raises
    ------
    ValueError
        If arguments do not belong together, or the data are not what they should be.
    OSError, ImportError
        If they cannot be read.
    """
    if args.data_dir is not None and args.data != "har":
        raise ValueError(f"--data-dir is for --data har; {args.data} needs none")
    if (args.data == "hmdb51") != (args.features is not None):
        raise ValueError(
            "--data hmdb51 and --features FILE belong together: apps.hmdb51 writes the file"
        )
    if args.data in TASKS:
        make = TASKS[args.data]
        own = inspect.signature(make).parameters
        length = own["length"].default if args.length is None else args.length
        samples = own["samples"].default if args.samples is None else args.samples
        return make(length, samples, seed)
    for name in ("length", "samples"):
        if getattr(args, name) is not None:
            raise ValueError(
                f"--{name} is for --data {', '.join(TASKS)}; {args.data} has sequences of its own"
            )
    if args.data == "hmdb51":
        return load_features(args.features)
    return load_digits() if args.data == "digits" else load_har(args.data_dir)
