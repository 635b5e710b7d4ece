"""Small data of every kind that can be trained: labels or numbers, at the end or at every step."""

import numpy as np

from pint.data.sequences import SequenceData
from pint.rnn.losses import CrossEntropy, SquaredError

KINDS = ("labels", "labels per step", "numbers", "numbers per step")


def make(kind, masked=True, num_steps=12, samples=(9, 5)):
    """Return data whose missing elements hold NaN, and the labels there no class."""
    parts = [_part(kind, masked, num_steps, count, seed) for seed, count in enumerate(samples)]
    (x_train, y_train, mask_train), (x_test, y_test, mask_test) = parts
    return SequenceData(
        name="waves",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=("low", "middle", "high") if kind.startswith("labels") else (),
        mask_train=mask_train,
        mask_test=mask_test,
    )


def _part(kind, masked, num_steps, count, seed):
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (count, 1, 2))
    x = np.sin(np.arange(num_steps)[:, None] / 3 + phase) + 0.1 * rng.standard_normal(phase.shape)
    elements = (count, num_steps) if "per step" in kind else (count,)
    y = rng.integers(0, 3, elements) if kind.startswith("labels") else rng.random((*elements, 3))
    x = x.astype(np.float32)
    y = y if kind.startswith("labels") else y.astype(np.float32)
    if not masked:
        return x, y, None
    mask = rng.random((count, num_steps)) < 0.7
    mask[:, 1] = True
    mask[0] = np.arange(num_steps) < 3
    x[~mask] = np.nan
    if "per step" in kind:
        y[~mask] = -7 if kind.startswith("labels") else np.nan
    return x, y, mask


def loss_of(data):
    return CrossEntropy() if data.is_classification else SquaredError()


def pooling_of(data):
    return "every" if data.is_per_step else "last"
