"""What the head takes from the top layer, and the way of its derivative back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.rnn.architecture import Pooling
from pint.rnn.stages import Results, Stage

Array = NDArray[Any]
Mask = NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class Features:
    """What the head takes on this rank.

    Attributes
    ----------
    values : ndarray, shape (B, D H), or (number of times, B, D H)
        Of the top layer.
    times : ndarray of int64, or None
        Where pooling is "every": this rank's elements, counted from 1, each on one rank only.
        None: `values` are the same on every rank.
    """

    values: Array
    times: NDArray[np.int64] | None = None


def pool(pooling: Pooling, top: Stage, results: Results, mask: Mask) -> Features:
    """Return what the head takes from the states of the top stage; collective."""
    if pooling == "last":
        return Features(top.finals(results))
    if pooling == "mean":
        weights = _mean_weights(top, results, mask)
        pairs = zip(top.sweeps, results, weights, strict=True)
        sums = [np.einsum("nb,nbh->bh", own, sweep.outputs(result)) for sweep, result, own in pairs]
        return Features(top.comm.sum(np.concatenate(sums, axis=1)))
    if len(top.sweeps) == 1:
        sweep, result = top.sweeps[0], results[0]
        return Features(sweep.outputs(result), sweep.times(result))
    times = _shared_out(top)  # the directions of a time lie on different ranks
    return Features(top.outputs(results)[:, times - 1].swapaxes(0, 1), times)


def transposed_pool(
    pooling: Pooling, top: Stage, results: Results, mask: Mask, d_values: Array
) -> tuple[Array | None, list[Array] | None]:
    """Return the derivatives by `Stage.finals` and by each sweep's outputs; collective.

    Parameters
    ----------
    pooling, top, results, mask
        As given to `pool`.
    d_values : ndarray
        Derivative by the `values` of its `Features`.
    """
    if pooling == "last":
        return d_values, None
    if pooling == "mean":
        weights = _mean_weights(top, results, mask)
        parts = np.split(d_values, len(top.sweeps), axis=1)
        return None, [own[:, :, None] * d for own, d in zip(weights, parts, strict=True)]
    if len(top.sweeps) == 1:
        return None, [d_values]
    rows = top.comm.allgather_blocks(np.ascontiguousarray(d_values))
    return None, top.own(results, rows.swapaxes(0, 1))


def _mean_weights(top: Stage, results: Results, mask: Mask) -> list[Array]:
    """Return each sweep's weights of its own times in the sequences' means, (times, B)."""
    sweep = top.sweeps[0]
    if mask is None:
        mask = np.ones((sweep.model.batch, sweep.num_steps), dtype=np.bool_)
    weights = (mask / mask.sum(axis=1, keepdims=True)).T.astype(sweep.model.dtype)
    return [weights[s.times(r) - 1] for s, r in zip(top.sweeps, results, strict=True)]


def _shared_out(top: Stage) -> NDArray[np.int64]:
    """Return the elements, counted from 1, for which this rank computes scores."""
    times = np.arange(1, top.sweeps[0].num_steps + 1)
    return np.array_split(times, top.comm.size)[top.comm.rank]
