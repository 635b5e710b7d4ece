"""The derivative of recurrent steps: coefficients noted once, products for each adjoint state."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.propagator import Linearization, Step
from pint.rnn.cells import Cell
from pint.rnn.gradient import GradientSums
from pint.rnn.inputs import Reads
from pint.rnn.kernels import step_diagonals
from pint.rnn.layers import Layers, take
from pint.rnn.tape import DerivativeTape, TapePool, in_rows, parts
from pint.simd.products import PaddedMatrix, is_flat, product

Array = NDArray[Any]
Indices = NDArray[np.int64]


class RecurrenceLinearization(Linearization):
    """The derivative of a stack of steps of recurrent layers.

    Parameters
    ----------
    layers : Layers
        The layers.
    u : ndarray, shape (n, layers, B, W)
        States at which the steps start.
    step : Step
        Stack of n steps.
    tape : DerivativeTape
        The noted derivatives.
    slots : ndarray of int64, shape (n,)
        Where the tape has each step.
    reads : Reads
        Gate evaluations of the steps.
    pool : TapePool
        Takes the tape back.
    """

    def __init__(
        self,
        layers: Layers,
        u: Array,
        step: Step,
        tape: DerivativeTape,
        slots: Indices,
        reads: Reads,
        pool: TapePool,
    ) -> None:
        self.layers, self.cell, self.u, self.step = layers, layers.cell, u, step
        self.tape, self.pool = tape, pool
        self.slots, self.reads = slots, reads
        numbers, weights = range(layers.options.layers), layers.weights
        W_ih = [weights[f"weight_ih_l{layer}"] for layer in numbers]
        self.W_ih = [PaddedMatrix(matrix, matrix.shape[1]) for matrix in W_ih]
        self.W_hh = [
            PaddedMatrix.of(self.cell.state_rows(weights[f"weight_hh_l{layer}"]))
            for layer in numbers
        ]

    def adjoint(self, w: Array, rows: slice) -> Array:
        """Apply (dPhi/du)^T of the steps `rows` to a stack of adjoint states; a new array."""
        steps = np.arange(*rows.indices(self.u.shape[0]))
        w = np.asarray(w, dtype=self.layers.dtype)
        out = np.empty(w.shape, dtype=w.dtype)
        for part in self._parts(steps.size):
            self._backward(w[part], None, steps[part], None, out[part])
        return out

    def adjoint_chain(self, w: Array, rows: slice, g: Array | None, out: Array) -> Array | None:
        """Apply steps one after another, in compiled loops; see `Linearization.adjoint_chain`.

        If these are all finest steps, the parameter gradient is computed on the way.
        """
        steps = np.arange(*rows.indices(self.u.shape[0]))
        are_all = steps.size == self.slots.size and bool(np.all(self.step.num_fine == 1))
        gradient = GradientSums(self.layers) if are_all else None
        w = np.asarray(w, dtype=self.layers.dtype)[None]
        states = in_rows(out, self.layers.dtype)
        for part in self._parts(steps.size):
            right = None if g is None else g[part]
            self._backward(w, right, steps[part], gradient, states[part], is_chain=True)
            w = states[part][-1:]
        if states is not out:
            out[...] = states
        return None if gradient is None else gradient.total()

    def gradient(self, w: Array) -> Array:
        """Apply (dPhi/dtheta)^T of all steps; the sum over the stack, shape (num_parameters,)."""
        gradient, w = GradientSums(self.layers), np.asarray(w, dtype=self.layers.dtype)
        steps = np.arange(w.shape[0])
        for part in self._parts(steps.size):
            none = np.empty((0, *w.shape[1:]), dtype=w.dtype)
            self._backward(w[part], None, steps[part], gradient, none)
        return gradient.total()

    def diagonal(self, rows: slice) -> Array:
        """Return the diagonals of dPhi/du of the finest steps `rows`, (n, layers, B, W); new.

        They take no product of matrices. What runs through other units, layers, or from h to c is
        left out.
        """
        steps = np.arange(*rows.indices(self.u.shape[0]))
        num_steps = np.ascontiguousarray(self.reads.num_steps[steps, 0])
        out = np.empty((self.u.shape[1], steps.size, *self.u.shape[2:]), dtype=self.u.dtype)
        for layer, entries in enumerate(out):
            own = _own_weights(self.cell, self.layers.weights[f"weight_hh_l{layer}"])
            coefficients, slots = self.tape.coefficients[layer], self.slots[steps]
            step_diagonals(not self.cell.is_gru, coefficients, slots, own, num_steps, entries)
        return out.swapaxes(0, 1)

    def release(self) -> None:
        """Give the tape back, whose memory serves again."""
        self.pool.put(self.tape)

    def _parts(self, count: int) -> Any:
        return parts(count, self.layers.batch * len(self.tape.table))

    def _backward(
        self,
        w: Array,
        g: Array | None,
        steps: Indices,
        gradient: GradientSums | None,
        out: Array,
        *,
        is_chain: bool = False,
    ) -> None:
        """Apply some steps, layer after layer from the top; see `Recurrence._advance`.

        `out` has no row where the states are not wanted; `gradient` takes the parameter gradient.
        """
        layers, table, batch = self.layers, self.tape.table, w.shape[2]
        hidden, num_rows, count = layers.options.hidden, w.shape[0] * batch, steps.size * batch
        slots = self.tape.rows(self.slots[steps])
        middles = np.array([evaluation.is_middle for evaluation in table])
        none = np.empty((0, batch, 0), dtype=w.dtype)
        d_above = np.empty((0, count, hidden), dtype=w.dtype)
        in_order = steps[::-1] if is_chain else steps
        for layer in range(w.shape[1] - 1, -1, -1):
            d_gates = layers.workspace.get("gates", (len(table), count, 4 * hidden), w.dtype)
            layers.team.split_batch(
                num_rows, self.cell.backward, layers.is_narrow, is_chain, layers.multiply_at,
                np.require(w[:, layer], None, ["C", "W"]).reshape(num_rows, w.shape[3]),
                none if g is None else np.ascontiguousarray(g[:, layer]), d_above,
                self.W_hh[layer].rows, middles, self.reads.num_steps[steps], slots,
                self.tape.coefficients[layer], out, layer, d_gates,
            )  # fmt: skip
            d_points = d_gates.reshape(len(table), steps.size, batch, 4 * hidden)
            if layer > 0:
                flat = self.cell.input_gates(d_points.reshape(-1, batch, 4 * hidden))
                memory = layers.workspace.get("above", (*flat.shape[:2], hidden), w.dtype)
                d_above = product(flat, self.W_ih[layer], layers.team, memory)
                d_above = d_above.reshape(len(table), count, hidden)
            for index in range(len(table) - 1, -1, -1) if gradient is not None else ():
                self._add_gradient(gradient, index, layer, in_order, d_points[index])

    def _add_gradient(
        self, gradient: Any, index: int, layer: int, steps: Indices, d_gates: Array
    ) -> None:
        """Add products of what the gates read, below and before them, and their adjoints."""
        hidden, layers, tape = self.layers.options.hidden, self.layers, self.tape
        at = tape.rows(self.slots[steps])[:, index]
        if layer == 0:
            x = take(layers.bound_inputs().rows, self.reads.rows[steps, index])
        else:
            x = take(tape.hidden_after[layer - 1], at)
        if index == 0:
            gate_input = take(self.u, steps)[:, layer, :, :hidden]
            if not is_flat(gate_input):
                gate_input = np.ascontiguousarray(gate_input)
        else:
            gate_input = take(tape.hidden_after[layer], at - 1)
        gradient.add(layer, x, gate_input, d_gates, layers.team)
        if layer == 0 and layers.input_gradient is not None and np.all(self.step.num_fine == 1):
            d_x = product(self.cell.input_gates(d_gates), self.W_ih[0], layers.team)
            last = np.atleast_1d(self.step.last)[steps]
            layers.input_gradient[:, last - 1] = d_x.swapaxes(0, 1)


def _own_weights(cell: Cell, weight_hh: Array) -> Array:
    """Return how each unit's gates see its own h, (G, H), in the order of the gate adjoints."""
    rows = cell.state_rows(weight_hh)
    return np.stack([np.diagonal(block) for block in np.split(rows, cell.num_gates)])
