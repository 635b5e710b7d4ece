"""A batch of sequences and its targets, with their checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.rnn.architecture import Architecture
from pint.rnn.losses import Loss

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences with their masks and initial states.

    Attributes
    ----------
    x : ndarray, shape (B, T, num_features)
        Sequences.
    mask : ndarray of bool, shape (B, T), or None
        Where they have elements; None: everywhere.
    start : ndarray, shape (layers * directions, B, W), or None
        Initial state; None: the initial state of the network.
    sequence_ids : ndarray of int64, shape (B,), or None
        Ids of the sequences for warm starts; None: no warm start.
    """

    x: Array
    mask: NDArray[np.bool_] | None = None
    start: Array | None = None
    sequence_ids: NDArray[np.int64] | None = None

    def check(self, a: Architecture, num_steps: int, warm_start_sequences: int) -> None:
        """Raise ValueError unless the batch fits a network, its steps and its warm starts."""
        x, mask, start = self.x, self.mask, self.start
        if x.ndim != 3 or x.shape[1:] != (num_steps, a.num_features) or len(x) == 0:
            raise ValueError(
                f"sequences must have shape (batch, {num_steps}, {a.num_features}), batch at "
                f"least 1, got {x.shape}"
            )
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != bool):
            raise ValueError(f"mask must be bool {x.shape[:2]}, got {mask.dtype} {mask.shape}")
        if mask is not None and not mask.any(axis=1).all():
            raise ValueError("mask leaves a sequence without any element")
        if not np.isfinite(x if mask is None else x[mask]).all():
            raise ValueError("sequences must not hold NaN or inf, but where mask is False")
        shape = (a.num_states, len(x), a.state_width)
        if start is not None and start.shape != shape:
            raise ValueError(f"start must have shape {shape}, got {start.shape}")
        if start is not None and not np.isfinite(start).all():
            raise ValueError("start must not hold NaN or inf")
        if self.sequence_ids is not None:
            _check_ids(self.sequence_ids, len(x), warm_start_sequences)

    def initial_state(self, a: Architecture, learned: Array | None) -> Array:
        """Return the initial state, shape (layers * directions, B, W); new."""
        state = np.zeros((a.num_states, len(self.x), a.state_width), dtype=np.dtype(a.dtype))
        if self.start is not None:
            state[...] = self.start
        elif learned is not None:
            state[...] = learned[:, None]
        return state

    def rows(self, own: NDArray[np.int64]) -> Batch:
        """Return some of the sequences."""
        mask = None if self.mask is None else self.mask[own]
        start = None if self.start is None else self.start[:, own]
        sequence_ids = None if self.sequence_ids is None else self.sequence_ids[own]
        return Batch(x=self.x[own], mask=mask, start=start, sequence_ids=sequence_ids)


def _check_ids(sequence_ids: NDArray[np.int64], count: int, warm_start_sequences: int) -> None:
    if sequence_ids.shape != (count,) or sequence_ids.dtype.kind not in "iu":
        raise ValueError(
            f"sequence_ids must be {count} integers, got {sequence_ids.shape} {sequence_ids.dtype}"
        )
    if not (sequence_ids.min() >= 0 and sequence_ids.max() < warm_start_sequences):
        raise ValueError(
            f"sequence_ids must be below warm_start_sequences, {warm_start_sequences}, and at "
            f"least 0, got {sequence_ids.min()}..{sequence_ids.max()}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Targets of a batch, and the weight of each element in the loss.

    Attributes
    ----------
    y : ndarray, shape (B, ...)
        Target of each element: a sequence, or with pooling "every" a time of a sequence.
    weights : ndarray of float64, shape (B,) or (B, T)
        Weights in the loss of the whole batch; their sum is 1, or 0 if all weights are 0.
    total : float
        Sum of the weights before they were scaled.
    """

    y: Array
    weights: NDArray[np.float64]
    total: float

    @classmethod
    def of(cls, y: Array, batch: Batch, loss: Loss, a: Architecture) -> Targets:
        """Return checked targets of a whole batch; targets of missing elements do not matter.

        Raises
        ------
        ValueError
            If targets do not fit.
        """
        elements = batch.x.shape[:2] if a.pooling == "every" else batch.x.shape[:1]
        mask = batch.mask if a.pooling == "every" else None
        if mask is not None and y.shape[:2] == elements:
            y = np.where(mask.reshape(*mask.shape, *(1 for _ in y.shape[2:])), y, 0)
        loss.check(y, (*elements, a.num_outputs))
        weights = loss.weights(y) * (1.0 if mask is None else mask)
        total = float(weights.sum())
        return cls(y=y, weights=weights / total if total > 0 else weights, total=total)

    def rows(self, own: NDArray[np.int64]) -> Targets:
        """Return the targets of some of the sequences."""
        return replace(self, y=self.y[own], weights=self.weights[own])

    def at(self, times: NDArray[np.int64] | None) -> Targets:
        """Return the targets of some elements, counted from 1, with time as the first axis."""
        if times is None:
            return self
        y, weights = (a[:, times - 1].swapaxes(0, 1) for a in (self.y, self.weights))
        return replace(self, y=y, weights=weights)
