"""Data by name: data sets, and generated sequences of any length, with the loss that suits them."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Literal

import numpy as np

from pint.arguments import count
from pint.rnn.losses import CrossEntropy, Loss, SquaredError
from pint.train.data import SequenceData
from pint.train.datasets import load_digits, load_har
from pint.train.features import load_features
from pint.train.tasks import TASKS

__all__ = ["SETS", "ClassWeights", "add_source", "load", "loss_of"]

ClassWeights = tuple[float, ...] | Literal["balanced"]

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


def loss_of(data: SequenceData, class_weights: ClassWeights | None = None) -> Loss:
    """Return what is to be small for targets of this kind.

    Parameters
    ----------
    data : SequenceData
        With the targets.
    class_weights : tuple of float or "balanced", optional
        Weight of each class. "balanced" is n / (K n_c), where n_c of n elements of the training
        part are of a class, one of K, so that all classes weigh the same; classes without elements
        are not counted, and have weight 1. All 1 if left out.

    Raises
    ------
    ValueError
        If there are weights and no classes, or not a weight for each.
    """
    if not data.is_classification:
        if class_weights is not None:
            raise ValueError(f"--class-weights are for labels; {data.name} has numbers to predict")
        return SquaredError()
    if class_weights == "balanced":
        class_weights = _balanced(data)
    if class_weights is not None and len(class_weights) != data.num_classes:
        raise ValueError(
            f"--class-weights must be {data.num_classes} numbers, one for each class of "
            f"{data.name}, got {len(class_weights)}"
        )
    return CrossEntropy(class_weights=class_weights)


def _balanced(data: SequenceData) -> tuple[float, ...]:
    has_gaps = data.mask_train is not None and data.is_per_step
    y = data.y_train[data.mask_train] if has_gaps else data.y_train
    counts = np.bincount(y.ravel(), minlength=data.num_classes)
    present = counts > 0
    weights = np.ones(data.num_classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return tuple(weights.tolist())
