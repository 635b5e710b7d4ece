"""The derivative of recurrent steps: coefficients noted once, products for each adjoint state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pint.propagator import Linearization, Step
from pint.rnn.diagonal import own_weights, step_diagonals
from pint.rnn.gradient import GradientSums
from pint.rnn.kernels import chain_backward, gates_backward
from pint.rnn.tape import Tape, in_rows, parts, take
from pint.simd.products import PaddedMatrix, is_flat, product

if TYPE_CHECKING:
    from pint.rnn.recurrence import Recurrence

Array = NDArray[Any]
Indices = NDArray[np.int64]
Layers = list[Array]
"""One array of shape (n, B, ...) for each layer."""


class RecurrenceLinearization(Linearization):
    """The derivative of a stack of steps of recurrent layers.

    Parameters
    ----------
    model : Recurrence
        The layers.
    u : ndarray, shape (n, layers, B, W)
        States at which the steps start.
    step : Step
        Stack of n steps.
    tape : Tape
        The noted derivatives.
    slots : ndarray of int64, shape (n,)
        Where the tape has each step.
    rows : ndarray of int64, shape (n, P)
        Row of the bound inputs that each gate evaluation reads.
    num_steps : ndarray of int64, shape (n, P, B)
        How many finest steps it goes over.
    """

    def __init__(
        self,
        model: Recurrence,
        u: Array,
        step: Step,
        tape: Tape,
        slots: Indices,
        rows: Indices,
        num_steps: Indices,
    ) -> None:
        super().__init__(model, u, step)
        self.model, self.cell, self.tape = model, model.cell, tape
        self.slots, self.rows, self.num_steps = slots, rows, num_steps
        layers, weights = range(model.options.layers), model.weights
        W_ih = [weights[f"weight_ih_l{layer}"] for layer in layers]
        self.W_ih = [PaddedMatrix(matrix, matrix.shape[1]) for matrix in W_ih]
        self.W_hh = [
            PaddedMatrix.of(self.cell.state_rows(weights[f"weight_hh_l{layer}"]))
            for layer in layers
        ]

    def adjoint(self, w: Array, rows: slice) -> Array:
        """Apply (dPhi/du)^T of the steps `rows` to a stack of adjoint states; a new array."""
        steps = np.arange(rows.start, rows.stop, rows.step)
        w = np.asarray(w, dtype=self.model.dtype)
        out = np.empty(w.shape, dtype=w.dtype)
        for part in parts(w.shape[0], self.model.batch):
            for layer, d_u in enumerate(self._backward(w[part], steps[part], None)):
                out[part, layer] = d_u
        return out

    def diagonal(self, rows: slice) -> Array:
        """Return the diagonals of dPhi/du of the finest steps `rows`, (n, layers, B, W); new."""
        steps = np.arange(*rows.indices(self.u.shape[0]))
        num_steps = np.ascontiguousarray(self.num_steps[steps, 0])
        out = np.empty((self.u.shape[1], steps.size, *self.u.shape[2:]), dtype=self.u.dtype)
        for layer, entries in enumerate(out):
            own = own_weights(self.cell, self.model.weights[f"weight_hh_l{layer}"])
            coefficients, slots = self.tape.coefficients[layer], self.slots[steps]
            step_diagonals(self.cell.code, coefficients, slots, own, num_steps, entries)
        return out.swapaxes(0, 1)

    def gradient(self, w: Array) -> Array:
        """Apply (dPhi/dtheta)^T of all steps; the sum over the stack, shape (num_parameters,)."""
        gradient, w = GradientSums(self.model), np.asarray(w, dtype=self.model.dtype)
        steps = np.arange(w.shape[0])
        for part in parts(w.shape[0], self.model.batch):
            self._backward(w[part], steps[part], gradient)
        return gradient.total()

    def release(self) -> None:
        """Give the tape back to the model, which uses its memory again."""
        self.model.spare(self.tape)

    def adjoint_chain(self, w: Array, rows: slice, g: Array | None, out: Array) -> Array | None:
        """Apply steps one after another, in compiled loops; see `Linearization.adjoint_chain`.

        If these are all finest steps, the parameter gradient is computed on the way.
        """
        steps = np.arange(*rows.indices(self.u.shape[0]))
        are_all = steps.size == self.slots.size and bool(np.all(self.step.num_fine == 1))
        gradient = GradientSums(self.model) if are_all else None
        w, states = np.asarray(w, dtype=self.model.dtype), in_rows(out, self.model.dtype)
        for part in parts(steps.size, self.model.batch * len(self.tape.table)):
            right = None if g is None else g[part]
            self._chain_part(w, right, steps[part], gradient, states[part])
            w = states[part.stop - 1]
        if states is not out:
            out[...] = states
        return None if gradient is None else gradient.total()

    def _chain_part(
        self,
        w: Array,
        g: Array | None,
        steps: Indices,
        gradient: GradientSums | None,
        states: Array,
    ) -> None:
        """Apply some steps, layer after layer from the top; put the states in place."""
        table, (_, batch, _) = self.tape.table, w.shape
        shape, hidden = (steps.size, len(table), batch), self.model.options.hidden
        slots = self.slots[steps][:, None] * len(table) + np.arange(len(table))
        middles = np.array([phase.is_middle for phase in table])
        none = np.empty((0, batch, 0), dtype=w.dtype)
        d_above = np.empty((0, *shape[1:], hidden), dtype=w.dtype)
        for layer in range(w.shape[0] - 1, -1, -1):
            d_gates = self.model.rooms.get("gates", (*shape, 4 * hidden), w.dtype)
            self.model.team.share_batch(
                batch, chain_backward, self.cell.code, np.array(w[layer], order="C"),
                none if g is None else np.ascontiguousarray(g[:, layer]), d_above,
                self.W_hh[layer].rows, middles, self.num_steps[steps], slots,
                self.tape.coefficients[layer], states, layer, d_gates,
            )  # fmt: skip
            if layer > 0:
                flat = self.cell.input_gates(d_gates.reshape(-1, batch, 4 * hidden))
                room = self.model.rooms.get("above", (*flat.shape[:2], hidden), w.dtype)
                d_above = product(flat, self.W_ih[layer], self.model.team, room)
                d_above = d_above.reshape(*shape, hidden)
            if gradient is not None:
                for index in range(len(table)):
                    in_time = steps[::-1]
                    self._add_gradient(gradient, index, layer, in_time, d_gates[:, index])

    def _backward(self, w: Array, steps: Indices, gradient: GradientSums | None) -> Layers:
        """Go through the phases backwards; add to `gradient` on the way if there is one."""
        d_u = [np.ascontiguousarray(w[:, layer]) for layer in range(w.shape[1])]
        d_middle: Layers = []
        for index in range(len(self.tape.table) - 1, -1, -1):
            if self.tape.table[index].is_middle:
                d_seen, d_blended = self._phase_backward(index, d_middle, steps, gradient)
                d_u = [a + _with(b, c) for a, b, c in zip(d_u, d_blended, d_seen, strict=True)]
                continue
            d_seen, d_blended = self._phase_backward(index, d_u, steps, gradient)
            if index > 0 and self.tape.table[index - 1].is_middle:
                d_middle = [_with(np.zeros_like(u), h) for u, h in zip(d_u, d_seen, strict=True)]
                d_u = d_blended
            else:
                d_u = [_with(a, b) for a, b in zip(d_blended, d_seen, strict=True)]
        return d_u

    def _phase_backward(
        self, index: int, d_new: Layers, steps: Indices, gradient: GradientSums | None
    ) -> tuple[Layers, Layers]:
        """Return the adjoints of the h that the gates saw and of the states that were blended.

        Before the first gate evaluation nobody asks a parameter gradient for the former.
        """
        num_layers, hidden = len(d_new), self.model.options.hidden
        slots = self.slots[steps] * len(self.tape.table) + index
        num_steps = np.ascontiguousarray(self.num_steps[steps, index])
        d_seen: Layers = [d_new[0][..., :hidden]] * num_layers
        d_blended: Layers = [d_new[0]] * num_layers
        d_input: Array | None = None
        for layer in range(num_layers - 1, -1, -1):
            v = d_new[layer] if d_input is None else _with(d_new[layer].copy(), d_input)
            d_gates = self.model.rooms.get("gates", (*v.shape[:2], 4 * hidden), v.dtype)
            d_blended[layer] = np.empty_like(v)
            coefficients = self.tape.coefficients[layer]
            self._transpose(v, slots, coefficients, num_steps, d_gates, d_blended[layer])
            team = self.model.team
            if gradient is None or index > 0:
                d_seen[layer] = product(self.cell.state_gates(d_gates), self.W_hh[layer], team)
            if layer > 0:
                d_input = product(self.cell.input_gates(d_gates), self.W_ih[layer], team)
            if gradient is not None:
                self._add_gradient(gradient, index, layer, steps, d_gates)
        return d_seen, d_blended

    def _transpose(
        self, v: Array, slots: Indices, coefficients: Array, num_steps: Indices, d_gates: Array,
        d_blended: Array,
    ) -> None:  # fmt: skip
        """Multiply by the coefficients at all points."""

        def transpose(own: slice) -> None:
            points = v[own], slots[own], coefficients, num_steps[own], d_gates[own], d_blended[own]
            gates_backward(self.cell.code, *points)

        self.model.team.share(v.shape[0], transpose)

    def _add_gradient(
        self,
        gradient: GradientSums,
        index: int,
        layer: int,
        steps: Indices,
        d_gates: Array,
    ) -> None:
        """Add products of what the gates read, below and before them, and their adjoints."""
        num_phases, hidden = len(self.tape.table), self.model.options.hidden
        slots = self.slots[steps] * num_phases + index
        if layer == 0:
            x = take(self._inputs, self.rows[steps, index])
        else:
            x = take(self.tape.news[layer - 1], slots)
        if index == 0:
            seen = take(self.u, steps)[:, layer, :, :hidden]
            seen = seen if is_flat(seen) else np.ascontiguousarray(seen)
        else:
            seen = take(self.tape.news[layer], slots - 1)
        gradient.add(layer, x, seen, d_gates, self.model.team)
        if layer == 0 and self.model.input_gradient is not None and np.all(self.step.num_fine == 1):
            d_x = product(self.cell.input_gates(d_gates), self.W_ih[0], self.model.team)
            last = np.atleast_1d(self.step.last)[steps]
            self.model.input_gradient[:, last - 1] = d_x.swapaxes(0, 1)

    @property
    def _inputs(self) -> Array:
        assert self.model.bound is not None  # bound since the steps were linearised
        return self.model.bound.rows


def _with(d_u: Array, d_h: Array) -> Array:
    """Add to the h of adjoint states, in place; return them."""
    d_u[..., : d_h.shape[-1]] += d_h
    return d_u
