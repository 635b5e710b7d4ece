"""A stack of recurrent layers with its sequences: what steps and their derivatives share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.arrays import Workspace
from pint.parallel.thread_team import SERIAL
from pint.propagator import Step
from pint.rnn.cells import CELLS
from pint.rnn.coarse_step import GateEvaluation
from pint.rnn.inputs import BoundInputs
from pint.rnn.parameters import num_entries, uniform, views
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.simd.products import PaddedMatrix, multiply_at, product
from pint.simd.vectors import VECTOR_BYTES

Array = NDArray[Any]
Indices = NDArray[np.int64]


class Layers:
    """Parameters, bound sequences, threads and work memory of a stack of recurrent layers.

    Parameters
    ----------
    options, parameters, seed
        As for `Recurrence`, whose attributes are explained there too.

    Attributes
    ----------
    bound : BoundInputs or None
        Inputs of the last `set_inputs`.
    workspace : Workspace
        Memory of intermediate results.
    """

    def __init__(
        self, options: RecurrenceOptions, parameters: Array | None = None, seed: int = 0
    ) -> None:
        self.options = options
        self.cell = CELLS[options.cell]
        self.dtype = np.dtype(options.dtype)
        self.shapes = options.shapes()
        if parameters is None:
            bound = options.hidden**-0.5
            parameters = uniform(self.shapes, bound, self.dtype, np.random.default_rng(seed))
        if parameters.shape != (num_entries(self.shapes),) or parameters.dtype != self.dtype:
            raise ValueError(
                f"parameters must be {num_entries(self.shapes)} numbers of {self.dtype}, got shape "
                f"{parameters.shape} of {parameters.dtype}"
            )
        self.parameters: Array = parameters
        self.weights = views(parameters, self.shapes)
        self.bound: BoundInputs | None = None
        self.team = SERIAL
        self.input_gradient: Array | None = None
        self.workspace = Workspace()
        self._projected: Array = np.empty((0, 0, 0), dtype=self.dtype)
        self._is_projected = False

    @property
    def batch(self) -> int:
        """Number of sequences bound by the last `set_inputs`; 0 before it."""
        return 0 if self.bound is None else self.bound.batch

    @property
    def state_shape(self) -> tuple[int, ...]:
        """(layers, B, W), with the B of the last `set_inputs`."""
        options = self.options
        return (options.layers, self.batch, self.cell.num_states * options.hidden)

    @property
    def is_narrow(self) -> bool | None:
        """True where a layer is narrower than a vector, else None, as kernels take it."""
        return True if self.options.hidden * self.dtype.itemsize < VECTOR_BYTES else None

    @property
    def multiply_at(self) -> int:
        """Address of the product that kernels call."""
        return multiply_at(self.dtype)

    def set_inputs(
        self,
        x: Array,
        windows: Indices | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Bind sequences; they are multiplied with the first layer's input weights once for all.

        Parameters
        ----------
        x : ndarray, shape (B, T, num_features)
            Sequences; element ``x[:, i - 1]`` belongs to finest step i. Wide ones are not copied:
            leave them as they are while they are bound.
        windows : ndarray of int64, shape (k, 2), optional
            Inputs that this rank needs (see `input_windows`); the inputs of all finest steps, and
            no averages, if left out.
        mask : ndarray of bool, shape (B, T), optional
            False where a sequence has no element: that step keeps its state. All True if left out.

        Raises
        ------
        ValueError
            If shapes do not fit, if there is no sequence, or if windows are outside of the
            sequences.
        """
        if x.ndim != 3 or x.shape[2] != self.options.num_features:
            raise ValueError(
                f"inputs must have shape (batch, time, {self.options.num_features}), got {x.shape}"
            )
        self.bound = BoundInputs(x, windows, mask, self.dtype)
        self.refresh()

    def refresh(self) -> None:
        """Read the present parameters; discard products with earlier ones."""
        if self.bound is None:
            return  # nothing to multiply yet
        self._is_projected = False
        layers, weights, cell = range(self.options.layers), self.weights, self.cell
        self._input_weights, self.state_weights = (
            [PaddedMatrix.of(weights[f"{name}_l{layer}"].T) for layer in layers]
            for name in ("weight_ih", "weight_hh")
        )
        self.biases = [
            cell.bias(weights[f"bias_ih_l{layer}"], weights[f"bias_hh_l{layer}"])
            for layer in layers
        ]

    def project(self) -> None:
        """Multiply the bound inputs with the first layer's weights now, not at the first step."""
        if not self._is_projected:
            inputs, weights = self.bound_inputs().rows, self._input_weights[0]
            self._projected = product(inputs, weights, self.team, self._projected)
            self._is_projected = True

    def first_inputs(
        self, table: tuple[GateEvaluation, ...], rows: Indices, *, is_chain: bool
    ) -> tuple[Array, Indices]:
        """Return products W_ih x of the first layer, and the row of each gate evaluation in them.

        A chain of finest steps reads each input once: its products are not kept.
        """
        if is_chain and len(table) == 1 and table[0].span == 1 and not self._is_projected:
            return self.inputs_from(0, take(self.bound_inputs().rows, rows[:, 0]), rows)
        self.project()
        return self._projected, np.ascontiguousarray(rows)

    def inputs_from(self, layer: int, below: Array, rows: Indices) -> tuple[Array, Indices]:
        """Return as `first_inputs` for what a layer takes from below, (n P, B, H)."""
        weights = self._input_weights[layer]
        gi = self.workspace.get("gi", (*below.shape[:2], weights.width), self.dtype)
        return product(below, weights, self.team, gi), np.arange(rows.size).reshape(rows.shape)

    def input_windows(self, *stacks: Step) -> Indices:
        """Return which inputs stacks of steps read: rows of (last finest step, length).

        Each once, in the order of lengths, and of steps for one length.
        """
        read: dict[int, list[Indices]] = {}
        for step in stacks:
            last = np.atleast_1d(step.last)
            for evaluation in self.evaluations(step) if last.size else ():
                read.setdefault(evaluation.length, []).append(last - evaluation.read)
        windows = [np.zeros((0, 2), dtype=np.int64)]
        for length in sorted(read):
            last = _distinct(read[length])
            windows.append(np.stack([last, np.full_like(last, length)], axis=1))
        return np.concatenate(windows)

    def evaluations(self, step: Step) -> tuple[GateEvaluation, ...]:
        """Return the gate evaluations of each of a stack of steps."""
        num_fine = np.atleast_1d(step.num_fine)
        if (num_fine != num_fine[0]).any():
            raise ValueError(
                "recurrent layers need coarsening factors: steps of a level must cover equal "
                "numbers of elements"
            )
        return self.options.evaluations_of(step.level, int(num_fine[0]))

    def bound_inputs(self) -> BoundInputs:
        """Return the bound inputs, or raise ValueError if there are none."""
        if self.bound is None:
            raise ValueError("set_inputs was not called: bind sequences before stepping")
        return self.bound


def take(held: Array, rows: Indices) -> Array:
    """Return ``held[rows]``, as a view where the rows follow one another, up or down."""
    if rows.size == 0:
        return held[rows]
    by = -1 if rows[-1] < rows[0] else 1
    stop = int(rows[0]) + by * rows.size
    if not (rows == np.arange(rows[0], stop, by)).all():
        return held[rows]
    return held[rows[0] : stop if stop >= 0 else None : by]


def _distinct(parts: list[Indices]) -> Indices:
    """Return all numbers once, in order; without sorting, for they lie close together."""
    least = min(int(part.min()) for part in parts)
    is_there = np.zeros(max(int(part.max()) for part in parts) - least + 1, dtype=bool)
    for part in parts:
        is_there[part - least] = True
    found: Indices = np.flatnonzero(is_there) + least
    return found
