"""The derivative of GRU steps: coefficients noted once, products for each adjoint state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pint.propagator import Linearization, Step
from pint.rnn.kernels import gates_backward
from pint.rnn.parameters import views
from pint.rnn.schedule import Phase

if TYPE_CHECKING:
    from pint.rnn.gru import GRU

Array = NDArray[Any]
Layers = list[Array]
"""One array of shape (n, B, H) for each layer."""

ROWS = 256
"""Rows of a matrix product (points times sequences) treated at once: they stay in cache."""


def parts(count: int, batch: int) -> Iterator[slice]:
    """Return slices that split `count` points so that each has about `ROWS` rows."""
    size = max(1, ROWS // max(batch, 1))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count), 1)


class Tape:
    """What the derivative of steps needs, for each gate evaluation and layer.

    Parameters
    ----------
    gru : GRU
        The model.
    table : tuple of Phase
        Gate evaluations of the steps.
    num_slots : int
        Steps that can be noted.

    Attributes
    ----------
    c, q : lists (evaluations) of lists (layers) of ndarray, (num_slots, B, 4 H) and (num_slots, B, H)
        Outputs of `gates_linearize`.
    seen, below : likewise, (num_slots, B, H)
        State that the gates saw, and input from the layer below; None in the first layer.
    """  # noqa: E501

    def __init__(self, gru: GRU, table: tuple[Phase, ...], num_slots: int) -> None:
        layers, batch, hidden = gru.state_shape

        def arrays(width: int, first: int = 0) -> list[list[Array]]:
            shape = (num_slots, batch, width)
            return [[np.empty(shape, gru.dtype) for _ in range(first, layers)] for _ in table]

        self.phases = table
        self.c, self.q, self.seen = arrays(4 * hidden), arrays(hidden), arrays(hidden)
        self.below: list[list[Array | None]] = [[None, *inner] for inner in arrays(hidden, 1)]
        self.noted = np.zeros(num_slots, dtype=bool)

    def note(
        self, index: int, layer: int, slots: NDArray[np.int64], seen: Layers, below: Layers
    ) -> None:
        """Keep the states that a gate evaluation starts from."""
        self.noted[slots] = True
        self.seen[index][layer][slots] = seen[layer]
        inputs = self.below[index][layer]
        if inputs is not None:
            inputs[slots] = below[-1]

    def derivative(self, index: int, layer: int) -> tuple[Array, Array]:
        """Return where `gates_linearize` puts its coefficients."""
        return self.c[index][layer], self.q[index][layer]

    def holds(self, u: Array, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which steps were noted from exactly the states u, shape (n, layers, B, H)."""
        seen = self.seen[0]
        return np.array(
            [
                self.noted[slot]
                and all(np.array_equal(seen[layer][slot], h) for layer, h in enumerate(state))
                for slot, state in zip(slots, u, strict=True)
            ],
            dtype=bool,
        )


class GRULinearization(Linearization):
    """The derivative of a stack of GRU steps.

    Parameters
    ----------
    gru : GRU
        The model.
    u : ndarray, shape (n, layers, B, H)
        States at which the steps start.
    step : Step
        Stack of n steps.
    tape : Tape
        The noted derivatives.
    slots : ndarray of int64, shape (n,)
        Where the tape has each step.
    rows : list of ndarray of int64, each of shape (n,)
        Row of ``gru.inputs`` that each gate evaluation reads.
    """

    def __init__(
        self,
        gru: GRU,
        u: Array,
        step: Step,
        tape: Tape,
        slots: NDArray[np.int64],
        rows: list[NDArray[np.int64]],
    ) -> None:
        super().__init__(gru, u, step)
        self.gru, self.tape, self.slots, self.rows = gru, tape, slots, rows
        layers = range(gru.options.layers)
        self.W_ih = [gru.weights[f"weight_ih_l{layer}"] for layer in layers]
        self.W_hh = [_nrz(gru.weights[f"weight_hh_l{layer}"]) for layer in layers]

    def adjoint(self, w: Array, rows: slice) -> Array:
        """Apply (dPhi/du)^T of the steps `rows` to a stack of adjoint states; a new array."""
        steps = np.arange(rows.start, rows.stop, rows.step)
        out = np.empty(w.shape, dtype=w.dtype)
        for part in parts(w.shape[0], self.gru.batch):
            for layer, d_h in enumerate(self._backward(w[part], steps[part], None)):
                out[part, layer] = d_h
        return out

    def gradient(self, w: Array) -> Array:
        """Apply (dPhi/dtheta)^T of all steps; the sum over the stack, shape (num_parameters,)."""
        flat = np.zeros_like(self.gru.parameters)
        named = views(flat, self.gru.shapes)
        steps = np.arange(w.shape[0])
        for part in parts(w.shape[0], self.gru.batch):
            self._backward(w[part], steps[part], named)
        for name, tensor in named.items():
            if "_hh_" in name:
                tensor[...] = _rzn(tensor)  # summed in the order of the gate adjoints
        return flat

    def _backward(
        self, w: Array, steps: NDArray[np.int64], gradient: dict[str, Array] | None
    ) -> Layers:
        """Go through the phases backwards; add to `gradient` on the way if there is one."""
        d_h = [np.ascontiguousarray(w[:, layer]) for layer in range(w.shape[1])]
        d_middle: Layers = []
        for index in range(len(self.tape.phases) - 1, -1, -1):
            if self.tape.phases[index].is_middle:
                d_seen, d_blended = self._phase_backward(index, d_middle, steps, gradient)
                d_h = _sums(d_h, _sums(d_seen, d_blended))
                continue
            d_seen, d_blended = self._phase_backward(index, d_h, steps, gradient)
            if index > 0 and self.tape.phases[index - 1].is_middle:
                d_h, d_middle = d_blended, d_seen
            else:
                d_h = _sums(d_seen, d_blended)
        return d_h

    def _phase_backward(
        self,
        index: int,
        d_new: Layers,
        steps: NDArray[np.int64],
        gradient: dict[str, Array] | None,
    ) -> tuple[Layers, Layers]:
        """Return the adjoints of the states that the gates saw and of those that were blended.

        Before the first gate evaluation nobody asks a parameter gradient for the former: zeros.
        """
        num_layers, slots = len(d_new), self.slots[steps]
        d_seen: Layers = [d_new[0]] * num_layers
        d_blended: Layers = [d_new[0]] * num_layers
        d_input: Array | None = None
        for layer in range(num_layers - 1, -1, -1):
            v = d_new[layer] if d_input is None else d_new[layer] + d_input
            n, batch, hidden = v.shape
            d_gates = np.empty((n, batch, 4 * hidden), dtype=v.dtype)
            d_blended[layer] = np.empty_like(v)
            derivative = self.tape.derivative(index, layer)
            gates_backward(v, slots, *derivative, d_gates, d_blended[layer])
            if gradient is None or index > 0:
                d_seen[layer] = product(d_gates[:, :, : 3 * hidden], self.W_hh[layer])
            if layer > 0:
                d_input = product(d_gates[:, :, hidden:], self.W_ih[layer])
            if gradient is not None:
                self._add_gradient(gradient, index, layer, steps, d_gates)
        return d_seen, d_blended

    def _add_gradient(
        self,
        gradient: dict[str, Array],
        index: int,
        layer: int,
        steps: NDArray[np.int64],
        d_gates: Array,
    ) -> None:
        """Add products of gate adjoints and states; those of W_hh and b_hh in the order n, r, z."""
        x, slots = self.tape.below[index][layer], self.slots[steps]
        x = _take(self.gru.inputs, self.rows[index][steps]) if x is None else _take(x, slots)
        seen = _take(self.tape.seen[index][layer], slots)
        hidden = seen.shape[-1]
        flat = d_gates.reshape(-1, 4 * hidden)
        d_hh, d_ih = flat[:, : 3 * hidden], flat[:, hidden:]
        sums = np.ones(flat.shape[0], dtype=flat.dtype) @ flat
        gradient[f"weight_ih_l{layer}"] += d_ih.T @ x.reshape(-1, x.shape[-1])
        gradient[f"weight_hh_l{layer}"] += d_hh.T @ seen.reshape(-1, hidden)
        gradient[f"bias_ih_l{layer}"] += sums[hidden:]
        gradient[f"bias_hh_l{layer}"] += sums[: 3 * hidden]


def product(a: Array, b: Array) -> Array:
    """Return a @ b for a of shape (n, B, K), as one matrix product; new, shape (n, B, M)."""
    n, batch, width = a.shape
    flat = a.reshape(n * batch, width)  # a view, also of columns of a contiguous array
    return (flat @ b).reshape(n, batch, b.shape[1])


def _sums(a: Layers, b: Layers) -> Layers:
    return [x + y for x, y in zip(a, b, strict=True)]


def _nrz(rows: Array) -> Array:
    """Bring rows from the order r, z, n to n, r, z, in which the kernels give gate adjoints."""
    third = rows.shape[0] // 3
    return np.concatenate([rows[2 * third :], rows[: 2 * third]])


def _rzn(rows: Array) -> Array:
    """Bring rows back to the order r, z, n."""
    third = rows.shape[0] // 3
    return np.concatenate([rows[third:], rows[:third]])


def _take(held: Array, rows: NDArray[np.int64]) -> Array:
    """Return ``held[rows]``, as a view where the rows follow one another."""
    if rows.size == 1 or (np.diff(rows) == 1).all():
        return held[rows[0] : rows[-1] + 1]
    return held[rows]
