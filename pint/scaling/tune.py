"""Errors of gradients as measured, and the fastest way whose error is small enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.data.sequences import Samples, SequenceData
from pint.rnn.losses import Loss
from pint.rnn.network import Network
from pint.rnn.solver import NetworkSolver
from pint.scaling.candidates import Candidate
from pint.scaling.workload import EXACT, GRUWorkload
from pint.train.optimizers import Adam


def trained(
    network: Network, data: SequenceData, loss: Loss, batch: int, epochs: int, tell: Any
) -> None:
    """Train a network by exact stepping: errors at random weights say little about later ones."""
    solver = NetworkSolver(network, data.num_steps, EXACT, EXACT, loss=loss)
    adam = Adam(learning_rate=1e-3)
    state = adam.init(network.parameters)
    for epoch in range(epochs):
        order = np.random.default_rng([0, epoch]).permutation(len(data.y_train))
        parts = np.split(order, range(batch, order.size, batch))
        for index, chosen in enumerate(parts):
            x, y, mask = data.train(chosen)
            update = adam.update(solver.loss_and_gradient(x, y, mask).gradient, state,
                                 network.parameters)  # fmt: skip
            network.parameters += update.change
            state = update.state
            tell((epoch + (index + 1) / len(parts)) / epochs)


def exact_gradients(
    network: Network, batches: Sequence[Samples], loss: Loss
) -> list[NDArray[np.float32]]:
    """Return the gradients of some batches by exact stepping."""
    solver = NetworkSolver(network, batches[0].x.shape[1], EXACT, EXACT, loss=loss)
    return [solver.loss_and_gradient(x, y, mask).gradient for x, y, mask in batches]


def gradient_error(
    way: GRUWorkload, network: Network, batches: Sequence[Samples], exact: Sequence[Any], loss: Loss
) -> float:
    """Return the greatest relative error of the gradients of some batches.

    Parameters
    ----------
    way : GRUWorkload
        How they are computed.
    network : Network
        At which parameters.
    batches : sequence of Samples
        As `NetworkSolver.loss_and_gradient` takes them.
    exact : sequence of ndarray
        Their gradients by exact stepping.
    loss : Loss
        What is differentiated.

    Returns
    -------
    float
        inf where a solve diverged, NaN where an error is.
    """
    if way.levels == 1:
        return 0.0
    kept = network.options
    network.options = replace(kept, coarse_step=way.coarse_step, substep=way.substep)
    try:
        solver = NetworkSolver(network, way.steps, way.options, way.backward, loss=loss)
    finally:
        network.options = kept
    errors = []
    for (x, y, mask), right in zip(batches, exact, strict=True):
        try:
            gradient = solver.loss_and_gradient(x, y, mask).gradient
        except FloatingPointError:
            return float("inf")
        errors.append(np.linalg.norm(gradient - right) / np.linalg.norm(right))
    return float(np.max(errors))


def tune(
    ordered: Sequence[Candidate],
    bound: float,
    error_of: Callable[[GRUWorkload], float],
    most: int,
) -> tuple[Candidate | None, list[Candidate]]:
    """Measure errors, the fastest first, until one is small enough.

    Parameters
    ----------
    ordered : sequence of Candidate
        The fastest first.
    bound : float
        Wanted relative error of gradients.
    error_of : callable
        Measures one.
    most : int
        Greatest number of measurements; exact stepping needs none.

    Returns
    -------
    best : Candidate or None
        The fastest that is accurate enough, or None.
    tried : list of Candidate
        Those whose error is known.
    """
    known: dict[str, float] = {}
    tried = []
    for candidate in ordered:
        key = repr(candidate.workload)
        if key not in known:
            if len(known) >= most and candidate.workload.levels > 1:
                continue
            known[key] = error_of(candidate.workload)
        candidate.error = known[key]
        tried.append(candidate)
        if candidate.error <= bound:
            return candidate, tried
    return None, tried
