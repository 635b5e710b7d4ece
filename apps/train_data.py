"""What apps.train can be trained on: data sets, and generated sequences of any length."""

from __future__ import annotations

import argparse
import inspect

from pint.comm import Communicator
from pint.results import check_target
from pint.rnn.losses import CrossEntropy, Loss, SquaredError
from pint.train.data import SequenceData
from pint.train.datasets import load_digits, load_har
from pint.train.features import load_features
from pint.train.tasks import BASELINES, TASKS

SETS = ("digits", "har", "hmdb51", *TASKS)


def prepare(args: argparse.Namespace, comm: Communicator) -> SequenceData:
    """Check the output file and load the data, the same on every rank; collective.

    Rank 0 goes first, because it may have to download.
    """
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
    if args.data in TASKS:  # processors may round differently, and chaos magnifies that
        for array in (data.x_train, data.y_train, data.x_test, data.y_test):
            comm.bcast(array, 0)
    return data


def _load(args: argparse.Namespace) -> SequenceData:
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
        return make(length, samples, args.seed)
    for name in ("length", "samples"):
        if getattr(args, name) is not None:
            raise ValueError(
                f"--{name} is for --data {', '.join(TASKS)}; {args.data} has sequences of its own"
            )
    if args.data == "hmdb51":
        return load_features(args.features)
    return load_digits() if args.data == "digits" else load_har(args.data_dir)


def loss_of(data: SequenceData) -> Loss:
    """Return what is to be small for targets of this kind."""
    return CrossEntropy() if data.is_classification else SquaredError()


def kind_of(data: SequenceData) -> str:
    """Say in words what is to be told of the sequences."""
    what = f"{data.num_classes} classes" if data.is_classification else "numbers to be predicted"
    return what + (" at every step" if data.is_per_step else "")


def baseline_of(name: str, data: SequenceData) -> tuple[str, float] | None:
    """Return what a result is to be held against, and its meaning; None for data sets."""
    for task, baseline in BASELINES.items():
        if task == name:
            return baseline.says, baseline.of(data)
    return None
