"""Generated sequences of any length, to test training over long times.

| task | input | target | required memory |
|---|---|---|---|
| `adding` | noise with two marks | a number for the sequence | two values, up to the end |
| `oscillator` | smooth, with smooth noise | a class of the sequence | the whole course |
| `lorenz` | chaotic, with noise | three numbers at every step | the last few steps |

All arrays are float32 and are allocated whole; a sequence may have a million steps. `BASELINES`
has a baseline for each task, for comparison with a trained network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.data.sequences import SequenceData
from pint.options import at_least

__all__ = [
    "BASELINES",
    "TASKS",
    "Baseline",
    "TaskName",
    "adding",
    "constant_error",
    "ideal_accuracy",
    "lorenz",
    "oscillator",
    "persistence_error",
]

Array = NDArray[np.float64]
TaskName = Literal["adding", "oscillator", "lorenz"]


def num_tests(samples: int) -> int:
    """Return the number of test sequences: a quarter of the training sequences, at least one.

    Examples
    --------
    >>> num_tests(400), num_tests(2)
    (100, 1)
    """
    return max(1, samples // 4)


def _sizes(length: int, samples: int, seed: int, shortest: int) -> int:
    """Check the arguments of a task; return the number of sequences of both parts."""
    at_least("length", length, shortest)
    at_least("samples", samples, 1)
    at_least("seed", seed, 0)
    return samples + num_tests(samples)


def _split(name: str, x: Any, y: Any, samples: int, names: tuple[str, ...] = ()) -> SequenceData:
    return SequenceData(
        name=name,
        x_train=x[:samples],
        y_train=y[:samples],
        x_test=x[samples:],
        y_test=y[samples:],
        class_names=names,
    )


# --- The adding problem --------------------------------------------------------------------------


def adding(length: int = 200, samples: int = 1000, seed: int = 0) -> SequenceData:
    """Generate sequences of random numbers with two marks; the target is the sum of the marked two.

    Two features: a number, uniform in [0, 1], and a mark, 1 at one step of the first half and
    at one of the second half, 0 elsewhere. The target is the sum of the two marked numbers.

    Parameters
    ----------
    length : int, default 200
        Steps of a sequence, at least 2.
    samples : int, default 1000
        Number of training sequences; the test part has a quarter of this number.
    seed : int, default 0
        Seed of all random numbers.

    Returns
    -------
    SequenceData
        New arrays; 2 features, one number as target of each sequence.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    The best constant answer is 1. Its mean squared error is the variance of a sum of two uniform
    numbers, 1/6.

    References
    ----------
    Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), experiment 4;
    in the form of Le, Jaitly & Hinton, arXiv:1504.00941, section 4.1.

    Examples
    --------
    >>> adding(length=1000, samples=8).x_train.shape
    (8, 1000, 2)
    """
    count, rng = _sizes(length, samples, seed, 2), np.random.default_rng(seed)
    x = np.zeros((count, length, 2), dtype=np.float32)
    x[..., 0] = rng.random((count, length), dtype=np.float32)
    half, every = length // 2, np.arange(count)
    marked = np.stack([rng.integers(0, half, count), rng.integers(half, length, count)], axis=1)
    x[every[:, None], marked, 1] = 1
    y = x[every[:, None], marked, 0].sum(axis=1, keepdims=True)
    return _split("adding", x, y, samples)


def constant_error(data: SequenceData) -> float:
    """Return the test part's mean squared error of the mean of the training targets."""
    axes = tuple(range(data.y_train.ndim - 1))
    return float(np.square(data.y_test - data.y_train.mean(axis=axes, dtype=np.float64)).mean())


# --- Noisy oscillators ---------------------------------------------------------------------------

OSCILLATORS = {
    "slow, ringing": (4.0, 0.5),
    "slow, damped": (4.0, 3.0),
    "fast, ringing": (6.0, 0.5),
    "fast, damped": (6.0, 3.0),
}
"""Number of oscillations in a sequence, and exponent of the decay of the amplitude over it."""

NOISE = 0.5
"""Standard deviation of the noise; the amplitude begins at 1."""

CORRELATION = 0.02
"""Time in which the correlation of the noise decays to 1/e; a sequence takes 1."""

PHASES = 64
"""Points of the trapezoidal rule over the unknown phase; more points change no accuracy."""


def oscillator(length: int = 200, samples: int = 1000, seed: int = 0) -> SequenceData:
    """Generate noisy measurements of an oscillator, slow or fast, ringing or damped.

    The feature is exp(-d t) cos(2 pi f t + phase) + noise, at `length` even times t in [0, 1).
    The phase is random. Frequency f and damping d belong to one of four equally likely classes
    (`OSCILLATORS`). The noise is an Ornstein-Uhlenbeck process with standard deviation `NOISE` and
    correlation time `CORRELATION`. A longer sequence is the same experiment, measured more
    often.

    Parameters
    ----------
    length : int, default 200
        Steps of a sequence, at least 50.
    samples : int, default 1000
        Number of training sequences; the test part has a quarter of this number.
    seed : int, default 0
        Seed of all random numbers.

    Returns
    -------
    SequenceData
        New arrays; one feature, 4 classes.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    `ideal_accuracy` is the accuracy of the best possible classifier. Whitening makes the noise of
    the measurements independent, so that only the phase is unknown in the likelihood of a class.
    Chance is 1/4.

    References
    ----------
    Uhlenbeck & Ornstein, "On the theory of the Brownian motion", Phys. Rev. 36 (1930), for the
    noise; Van Trees, "Detection, Estimation, and Modulation Theory", part I (1968), section 4.4,
    for signals of unknown phase.

    Examples
    --------
    >>> data = oscillator(length=1000, samples=8)
    >>> data.x_train.shape, data.num_classes
    ((8, 1000, 1), 4)
    """
    count, rng = _sizes(length, samples, seed, 50), np.random.default_rng(seed)
    y = rng.integers(0, len(OSCILLATORS), count)
    phase = rng.uniform(0, 2 * np.pi, count)
    quadratures = _quadratures(length)
    x = np.empty((count, length, 1), dtype=np.float32)
    for row, label, angle in zip(x, y, phase, strict=True):  # row by row to save memory
        clean = np.array([np.cos(angle), np.sin(angle)]) @ quadratures[label]
        row[:, 0] = clean + _noise(length, rng)
    return _split("oscillator", x, y, samples, tuple(OSCILLATORS))


def _quadratures(length: int) -> Array:
    """Return each class's signal of phase 0, and of phase pi / 2, shape (4, 2, length)."""
    t = np.arange(length) / length
    signals = [
        [np.exp(-d * t) * np.cos(2 * np.pi * f * t), -np.exp(-d * t) * np.sin(2 * np.pi * f * t)]
        for f, d in OSCILLATORS.values()
    ]
    return np.array(signals)


def _decay(length: int) -> float:
    """Return the correlation of the noise from one step to the next."""
    return math.exp(-1 / (CORRELATION * length))


def _noise(length: int, rng: np.random.Generator) -> Array:
    """Return the process at even times, exactly: n_i = rho n_{i-1} + sqrt(1 - rho^2) NOISE xi_i."""
    from scipy.signal import lfilter  # takes half a second, which --help does not have

    rho = _decay(length)
    driving = rng.standard_normal(length)
    driving[1:] *= math.sqrt(1 - rho * rho)
    process: Array = lfilter([1.0], [1.0, -rho], driving)
    return NOISE * process


def _whitened(values: Array) -> Array:
    """Return values (..., length) with noise that is white and of unit size."""
    rho = _decay(values.shape[-1])
    white = values / NOISE
    white[..., 1:] -= rho * (values[..., :-1] / NOISE)
    white[..., 1:] /= math.sqrt(1 - rho * rho)
    return white


def ideal_accuracy(data: SequenceData) -> float:
    """Return the accuracy of the best possible classifier on the test part of `oscillator`.

    It selects the class of the greatest likelihood, which is the mean over all phases of
    exp(x . s - s . s / 2) for whitened measurements x and signal s.
    """
    from scipy.special import logsumexp

    signals = _whitened(_quadratures(data.num_steps))
    phases = 2 * np.pi * np.arange(PHASES) / PHASES
    turned = np.stack([np.cos(phases), np.sin(phases)])  # (2, PHASES)
    energies = np.einsum("ap,kat,kbt,bp->kp", turned, signals, signals, turned, optimize=True)
    correct = 0
    x_test, y_test, _ = data.test(slice(None))
    for x, label in zip(x_test, y_test, strict=True):
        seen = signals @ _whitened(x[:, 0].astype(np.float64))  # (4, 2)
        correct += int(logsumexp(seen @ turned - energies / 2, axis=1).argmax() == label)
    return correct / len(y_test)


# --- The Lorenz model ----------------------------------------------------------------------------

TIME_STEP = 0.01
"""Time between two measurements, and step of the Runge-Kutta method."""

AHEAD = 10
"""Number of steps from an input to its target."""

MEASUREMENT_ERROR = 0.1
"""Standard deviation of the noise in the input; each variable has standard deviation 1."""

SPIN_UP = 2000
"""Number of steps after which any start is on the attractor."""


def lorenz(length: int = 200, samples: int = 200, seed: int = 0) -> SequenceData:
    """Generate noisy measurements of the Lorenz model; the target is a later state.

    The features are the three variables every 0.01 units of time, shifted and scaled to mean 0 and
    standard deviation 1 over the training part. Noise of standard deviation 0.1 is added. The
    target at every step is the state, without noise, 10 steps later. Sequences are consecutive
    pieces of one trajectory without overlap, with the test part at its end.

    Parameters
    ----------
    length : int, default 200
        Steps of a sequence, at least 2.
    samples : int, default 200
        Number of training sequences; the test part has a quarter of this number.
    seed : int, default 0
        Seed of the first state and of the noise.

    Returns
    -------
    SequenceData
        New arrays; 3 features, three numbers as target of every step.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    Chaos amplifies rounding errors: another processor gives another trajectory on the attractor.
    Generate the sequences on one rank and broadcast them.

    References
    ----------
    Lorenz, "Deterministic nonperiodic flow", J. Atmos. Sci. 20 (1963), 130-141.

    Examples
    --------
    >>> lorenz(length=1000, samples=8).y_train.shape  # doctest: +SKIP
    (8, 1000, 3)
    """
    count, rng = _sizes(length, samples, seed, 2), np.random.default_rng(seed)
    piece = length + AHEAD
    states = _trajectory(rng.uniform(-10, 10, 3), SPIN_UP + count * piece)[SPIN_UP + 1 :]
    train = states[: samples * piece]
    scaled = ((states - train.mean(axis=0)) / train.std(axis=0)).reshape(count, piece, 3)
    x = np.ascontiguousarray(scaled[:, :length], dtype=np.float32)
    x += MEASUREMENT_ERROR * rng.standard_normal(x.shape, dtype=np.float32)
    return _split("lorenz", x, scaled[:, AHEAD:].astype(np.float32), samples)


def _trajectory(start: Array, num_steps: int) -> Array:
    """Return the states at all points, (num_steps + 1, 3)."""
    # Load Numba only for this task.
    from pint import MGRITOptions, TimeGrid, solve
    from pint.models.lorenz import Lorenz

    grid = TimeGrid.uniform(0.0, num_steps * TIME_STEP, num_steps)
    states: Array = solve(Lorenz(), grid, start, MGRITOptions(levels=1, driver="compiled")).u
    return states


def persistence_error(data: SequenceData) -> float:
    """Return the mean squared error of a forecast of no change on the test part of `lorenz`."""
    return float(np.square(data.y_test - data.x_test, dtype=np.float64).mean())


# --- All of them ---------------------------------------------------------------------------------


class Baseline(NamedTuple):
    """A reference value for the result of a trained network.

    Attributes
    ----------
    says : str
        Description of the value.
    of : callable
        Returns the test accuracy or mean squared error for data of the task.
    """

    says: str
    of: Callable[[SequenceData], float]


TASKS: dict[TaskName, Callable[[int, int, int], SequenceData]] = {
    "adding": adding,
    "oscillator": oscillator,
    "lorenz": lorenz,
}
"""Generator of each task, a function of length, samples and seed."""

BASELINES: dict[TaskName, Baseline] = {
    "adding": Baseline("error of a constant answer", constant_error),
    "oscillator": Baseline("accuracy of the ideal classifier", ideal_accuracy),
    "lorenz": Baseline("error of forecasting no change", persistence_error),
}
"""Each task's baseline."""
