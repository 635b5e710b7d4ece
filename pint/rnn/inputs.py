"""Sequences bound to a time grid: which inputs, and how many steps, a gate evaluation sees."""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.propagator import Step
from pint.rnn.coarse_step import GateEvaluation
from pint.simd.products import is_flat

Array = NDArray[Any]
Indices = NDArray[np.int64]


WIDE = 64
"""Numbers of features and sequences from which inputs are read in place, point by point."""


class Reads(NamedTuple):
    """The gate evaluations of a stack of steps, with their inputs and lengths.

    Attributes
    ----------
    table : tuple of GateEvaluation
        P evaluations, the same for each step.
    rows : ndarray of int64, shape (n, P)
        Row of the bound inputs that each evaluation reads.
    num_steps : ndarray of int64, shape (n, P, B)
        Number of finest steps of each evaluation.
    """

    table: tuple[GateEvaluation, ...]
    rows: Indices
    num_steps: Indices

    def at(self, part: Any) -> Reads:
        """Return the entries of some of the steps."""
        return Reads(self.table, self.rows[part], self.num_steps[part])


class BoundInputs:
    """The inputs that a rank needs, one row for each window of a sequence.

    A window of one is the input of a finest step; a longer one is a mean. Where a sequence has no
    element, its input is the previous element, and means leave it out; a mean without any
    element is that input too.

    Parameters
    ----------
    x : ndarray, shape (B, T, F)
        Sequences.
    windows : ndarray of int64, shape (k, 2), or None
        Rows of (last finest step, length); None: every finest step. A repeated one counts once.
    mask : ndarray of bool, shape (B, T), or None
        Where sequences have elements; None: everywhere.
    dtype : dtype
        Of the rows.

    Attributes
    ----------
    rows : ndarray, shape (k, B, F)
        The inputs, finest steps first. Read only: wide ones may be views of `x`.
    num_points : int
        Number of finest steps among them.

    Raises
    ------
    ValueError
        If there is no sequence, or a window or the mask does not fit.
    """

    def __init__(
        self, x: Array, windows: Indices | None, mask: NDArray[np.bool_] | None, dtype: Any
    ) -> None:
        self.batch, self.num_steps, _ = x.shape
        if self.batch == 0:
            raise ValueError("inputs must have at least one sequence, got none")
        self._counts = None if mask is None else _counts(mask, x.shape[:2])
        if mask is not None:
            x = _filled(x, mask)
        self._row_of: dict[int, Indices] = {}
        if windows is None:
            self._row_of[1] = np.arange(-1, self.num_steps)  # -1: there is no step 0
            self.num_points = self.num_steps
            self.rows = _kept(x.swapaxes(0, 1), dtype)
            return
        last, length = windows.T
        if np.any((length < 1) | (last < length) | (last > self.num_steps)):
            raise ValueError(f"windows must lie within 1..{self.num_steps}, got {windows}")
        blocks = [
            self._block(x, mask, windows, n) for n in np.bincount(length).nonzero()[0].tolist()
        ]
        if len(blocks) == 1:
            self.rows = _kept(blocks[0], dtype)
        else:
            none = np.zeros((0, self.batch, x.shape[2]), dtype=dtype)
            self.rows = np.concatenate([none, *blocks], dtype=dtype, casting="same_kind")
        self.num_points = int((self._row_of[1] >= 0).sum()) if 1 in self._row_of else 0

    def _block(
        self, x: Array, mask: NDArray[np.bool_] | None, windows: Indices, length: int
    ) -> Array:
        """Return the inputs of all windows of one length, (number of them, B, F)."""
        last = windows[windows[:, 1] == length, 0]
        if not (last[1:] > last[:-1]).all():
            last = np.unique(last)
        begin = sum(int((row >= 0).sum()) for row in self._row_of.values())
        row_of = np.full(self.num_steps + 1, -1, dtype=np.int64)
        row_of[last] = begin + np.arange(last.size)
        self._row_of[int(length)] = row_of
        if length == 1:
            is_range = last.size == last[-1] - last[0] + 1
            points = x[:, last[0] - 1 : last[-1]] if is_range else x[:, last - 1]
            return points.swapaxes(0, 1)
        if mask is None:
            # One after another, so that rounding does not depend on how many windows there are.
            total = reduce(np.add, (x[:, last - length + index] for index in range(length)))
            means: Array = (total / length).swapaxes(0, 1)
            return means
        return np.stack([self._mean(x, mask, slice(end - length, end)) for end in last])

    def _mean(self, x: Array, mask: NDArray[np.bool_], steps: slice) -> Array:
        """Return the mean over the elements of some steps, (B, F)."""
        here = mask[:, steps].copy()
        here[:, -1] |= ~here.any(axis=1)  # x is filled: the element before
        weight = here / here.sum(axis=1, keepdims=True)
        weighted: Array = np.einsum("bt,btf->bf", weight, x[:, steps])
        return weighted

    def rows_of(self, table: tuple[GateEvaluation, ...], step: Step) -> Indices:
        """Return the row that each gate evaluation of a stack of steps reads, shape (n, P).

        Raises
        ------
        ValueError
            If an input is not bound.
        """
        last = np.atleast_1d(step.last)
        rows = np.empty((last.size, len(table)), dtype=np.int64)
        for length, own, back in _reads(table):
            rows[:, own] = self._rows(last[:, None] - back, length)
        return rows

    def _rows(self, read: Indices, length: int) -> Indices:
        row_of = self._row_of.get(length)
        if read.size and row_of is not None and read.max() < row_of.size:
            rows: Indices = row_of[read]
            if rows.min() >= 0:
                return rows
            read = read[rows < 0]
        if read.size == 0:
            return read
        what = "the input of" if length == 1 else f"the mean of the {length} inputs up to"
        raise ValueError(f"set_inputs left out {what} finest step {read.max()}")

    def steps_of(self, table: tuple[GateEvaluation, ...], step: Step) -> Indices:
        """Return how many finest steps each gate evaluation goes over, (n, P, B); read only."""
        last = np.atleast_1d(step.last)
        shape = (last.size, len(table), self.batch)
        if self._counts is None:
            return _spans(tuple(evaluation.span for evaluation in table), *shape)
        steps = np.empty(shape, dtype=np.int64)
        for index, evaluation in enumerate(table):
            end = last - evaluation.end
            steps[:, index] = self._counts[end] - self._counts[end - evaluation.span]
        return steps


def is_read_in_place(batch: int, num_features: int, *, is_flat: bool) -> bool:
    """Return whether the inputs of consecutive steps are read without a copy."""
    return num_features >= WIDE and (batch >= WIDE or is_flat)


def _kept(rows: Array, dtype: Any) -> Array:
    """Return inputs, (k, B, F), in memory of their own; as they are where a copy costs too much."""
    _, batch, width = rows.shape
    fits = rows.dtype == dtype and rows.strides[2] == rows.itemsize
    if fits and is_read_in_place(batch, width, is_flat=is_flat(rows)):
        return rows
    return np.array(rows, dtype=dtype, order="C")


@lru_cache(maxsize=64)
def _reads(table: tuple[GateEvaluation, ...]) -> tuple[tuple[int, Indices, Indices], ...]:
    """Return, for each length of means, which evaluations read it, and how far back from `last`."""
    lengths, back = (
        np.array([getattr(evaluation, name) for evaluation in table]) for name in ("length", "read")
    )
    places = [(n, np.flatnonzero(lengths == n)) for n in np.unique(lengths).tolist()]
    return tuple((n, own, back[own]) for n, own in places)


@lru_cache(maxsize=8)
def _spans(spans: tuple[int, ...], *shape: int) -> Indices:
    """Return the same numbers for all steps and sequences, shared: not to be written to."""
    # A copy, because a read-only array would have kernels compiled once more.
    return np.broadcast_to(np.array(spans)[:, None], shape).copy()


def _counts(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> Indices:
    """Return the number of elements up to each point, shape (T + 1, B)."""
    if mask.shape != shape or mask.dtype != bool:
        raise ValueError(f"mask must be bool of shape {shape}, got {mask.dtype} {mask.shape}")
    counts = np.zeros((shape[1] + 1, shape[0]), dtype=np.int64)
    np.cumsum(mask.T, axis=0, out=counts[1:])
    return counts


def _filled(x: Array, mask: NDArray[np.bool_]) -> Array:
    """Return sequences with the element before in place of each that is missing."""
    here = np.where(mask, np.arange(mask.shape[1]), 0)
    before = np.maximum.accumulate(here, axis=1)
    return np.where(  # before the first element there is nothing: zero
        mask.cumsum(axis=1)[:, :, None] > 0, np.take_along_axis(x, before[:, :, None], axis=1), 0
    )
