"""A stack of gated recurrent units as a propagator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pint.options import PerLevel, at_least, one_of, per_level
from pint.propagator import Linearization, Propagator, Step
from pint.rnn.kernels import gates_backward, gates_forward, gates_linearize
from pint.rnn.parameters import gru_shapes, num_entries, uniform, views
from pint.rnn.schedule import CoarseStep, Phase, phases

Array = NDArray[Any]
Layers = list[Array]
"""One array of shape (n, B, H) for each layer."""


@dataclass(frozen=True, kw_only=True)
class GRUOptions:
    """Shape and time step of a stack of gated recurrent units.

    Parameters
    ----------
    num_features : int
        Width of the input.
    hidden : int, default 100
        Width H of the state.
    layers : int, default 1
        Number of layers; each takes the new state of the layer below as its input.
    cell : {"implicit", "classic"}, default "implicit"
        The implicit unit h' = (h + a n) / (1 + a), a = 1 - z, or the classic one, as
        torch.nn.GRU, h' = z h + (1 - z) n.
    coarse_step : {"midpoint", "matched", "implicit"}, default "midpoint"
        What a coarse step does, see `pint.rnn.schedule.phases`; "implicit" needs the implicit unit.
    substep : int or tuple of int, default 8
        Greatest number of finest steps that a part of a midpoint step covers; a tuple gives it
        level by level, from the first coarse one.
    dtype : dtype, default float32
        float32 or float64.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    num_features: int
    hidden: int = 100
    layers: int = 1
    cell: Literal["implicit", "classic"] = "implicit"
    coarse_step: CoarseStep = "midpoint"
    substep: PerLevel = 8
    dtype: DTypeLike = np.float32

    def __post_init__(self) -> None:
        at_least("num_features", self.num_features, 1)
        at_least("hidden", self.hidden, 1)
        at_least("layers", self.layers, 1)
        at_least("substep", self.substep, 1)
        one_of("cell", self.cell, ("implicit", "classic"))
        one_of("coarse_step", self.coarse_step, ("midpoint", "matched", "implicit"))
        if self.cell == "classic" and self.coarse_step == "implicit":
            raise ValueError("coarse_step 'implicit' needs cell 'implicit'; use 'midpoint'")
        if np.dtype(self.dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"dtype must be float32 or float64, got {np.dtype(self.dtype)}")

    def phases_of(self, level: int, num_fine: int) -> tuple[Phase, ...]:
        """Return the gate evaluations of a step on `level` that covers `num_fine` finest steps."""
        substep = per_level(self.substep, max(level - 1, 0))
        return phases(num_fine, self.coarse_step, substep)


class GRU(Propagator):
    """A stack of gated recurrent units; its state is that of all layers, shape (layers, B, H).

    Finest step i takes x_i, the i-th element of the sequence, so that a sequence of T elements is
    solved on a time grid of T steps. Before a solve, `set_inputs` binds the sequences; after a
    change of `parameters` call it again, or `refresh`.

    Parameters
    ----------
    options : GRUOptions
        Shapes and time step.
    parameters : ndarray, shape (num_parameters,), optional
        Flat parameters, shared and not copied; drawn as torch.nn.GRU draws them if left out.
    seed : int, default 0
        Seed of that draw.

    Attributes
    ----------
    weights : dict of str to ndarray
        Named views of `parameters`: weight_ih_l0 (3 H, num_features), weight_hh_l0 (3 H, H),
        bias_ih_l0 (3 H,), bias_hh_l0 (3 H,), weight_ih_l1, ...; rows in the order r, z, n.

    References
    ----------
    Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014;
    Moon & Cyr, "Parallel training of GRU networks with a multi-grid solver for long sequences",
    ICLR 2022, for the implicit unit.
    """

    batched = True

    def __init__(self, options: GRUOptions, parameters: Array | None = None, seed: int = 0) -> None:
        self.options = options
        self.dtype = np.dtype(options.dtype)
        self.shapes = gru_shapes(options.num_features, options.hidden, options.layers)
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
        self.batch = 0

    @property
    def state_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(layers, B, H), with the B of the last `set_inputs`."""
        return (self.options.layers, self.batch, self.options.hidden)

    def set_inputs(self, x: Array, points: NDArray[np.int64] | None = None) -> None:
        """Bind sequences, and multiply them with the first layer's input weights, once for all.

        Parameters
        ----------
        x : ndarray, shape (B, T, num_features)
            Sequences; element ``x[:, i - 1]`` belongs to finest step i.
        points : ndarray of int64, optional
            Finest steps whose input this rank needs (see `input_points`), increasing; all if
            left out.

        Raises
        ------
        ValueError
            If shapes do not fit, or points are outside the sequences or do not increase.
        """
        if x.ndim != 3 or x.shape[2] != self.options.num_features:
            raise ValueError(
                f"inputs must have shape (batch, time, {self.options.num_features}), got {x.shape}"
            )
        if points is None:
            points = np.arange(1, x.shape[1] + 1)
        inside = points.size == 0 or (points[0] >= 1 and points[-1] <= x.shape[1])
        if not (inside and (np.diff(points) > 0).all()):
            raise ValueError(f"points must increase within 1..{x.shape[1]}, got {points}")
        self.batch = x.shape[0]
        self.inputs = np.ascontiguousarray(x[:, points - 1].swapaxes(0, 1), dtype=self.dtype)
        self._row_of = np.full(x.shape[1] + 1, -1, dtype=np.int64)
        self._row_of[points] = np.arange(points.size)
        self.refresh()

    def refresh(self) -> None:
        """Multiply the bound inputs with the present input weights; sum the present biases."""
        # Point by point, so that its bits do not depend on which points this rank holds.
        self._projected = self.inputs @ self.weights["weight_ih_l0"].T
        self._biases = [self._bias(layer) for layer in range(self.options.layers)]

    def _bias(self, layer: int) -> Array:
        """Return b_ir + b_hr, b_iz + b_hz, b_in, b_hn of a layer."""
        ih, hh = self.weights[f"bias_ih_l{layer}"], self.weights[f"bias_hh_l{layer}"]
        bias = np.concatenate([ih, hh[-self.options.hidden :]])
        bias[: 2 * self.options.hidden] += hh[: 2 * self.options.hidden]
        return bias

    def input_points(self, step: Step) -> NDArray[np.int64]:
        """Return the finest steps whose inputs a stack of steps reads."""
        last = np.atleast_1d(step.last)
        num_fine = int(np.atleast_1d(step.num_fine)[0])
        table = self.options.phases_of(step.level, num_fine)
        return np.unique(np.concatenate([last - phase.offset for phase in table]))

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, layers, B, H); new."""
        h = [np.ascontiguousarray(u[:, layer]) for layer in range(self.options.layers)]
        gates_from = h
        for phase in self._phases(step):
            gates_from = self._forward(phase, gates_from, h, step)
            if not phase.is_middle:
                h = gates_from
        return _stack(h)

    def _phases(self, step: Step) -> tuple[Phase, ...]:
        return self.options.phases_of(step.level, int(np.atleast_1d(step.num_fine)[0]))

    def _rows(self, phase: Phase, step: Step) -> NDArray[np.int64]:
        if self.batch == 0:
            raise ValueError("set_inputs was not called: bind sequences before stepping")
        read = np.atleast_1d(step.last - phase.offset)
        rows: NDArray[np.int64] = self._row_of[np.minimum(read, self._row_of.size - 1)]
        missing = (rows < 0) | (read >= self._row_of.size)
        if missing.any():
            raise ValueError(f"set_inputs left out the input of finest step {read[missing][0]}")
        return rows

    def _forward(self, phase: Phase, gates_from: Layers, h: Layers, step: Step) -> Layers:
        """Return the layers' states after one gate evaluation."""
        rows = self._rows(phase, step)
        new: Layers = []
        for layer in range(self.options.layers):
            arguments = self._gate_arguments(phase, layer, rows, gates_from, h, new)
            new.append(np.empty_like(h[layer]))
            gates_forward(*arguments, new[-1])
        return new

    def _gate_arguments(
        self,
        phase: Phase,
        layer: int,
        rows: NDArray[np.int64],
        gates_from: Layers,
        h: Layers,
        below: Layers,
    ) -> tuple[Any, ...]:
        """Return what the gate kernels take, up to their outputs."""
        gi = self._projected
        if layer > 0:
            gi = _product(below[-1], self.weights[f"weight_ih_l{layer}"].T)
            rows = np.arange(rows.size)
        gh = _product(gates_from[layer], self.weights[f"weight_hh_l{layer}"].T)
        classic = self.options.cell == "classic"
        gamma = self.dtype.type(phase.gamma)
        return gi, rows, gh, self._biases[layer], h[layer], classic, gamma, phase.power2

    def linearize(self, u: Array, step: Step) -> GRULinearization:
        """Return the derivative at a stack of states.

        It holds about 6 H numbers for each sequence, point, layer and gate evaluation.
        """
        return GRULinearization(self, u, step)

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new."""
        return self.linearize(u, step).adjoint(w, slice(0, u.shape[0], 1))

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return the gradient with respect to all parameters, summed over the stack."""
        return self.linearize(u, step).gradient(w)


@dataclass(eq=False)
class _Tape:
    """What the derivative of one gate evaluation of one layer needs.

    c and q are the outputs of `gates_linearize`; seen is the state that the gates saw; below is
    the input from the layer below, or None in the first layer.
    """

    c: Array
    q: Array
    seen: Array
    below: Array | None


class GRULinearization(Linearization):
    """The derivative of a stack of GRU steps: coefficients once, products for each adjoint state.

    Parameters
    ----------
    gru : GRU
        The model.
    u : ndarray, shape (n, layers, B, H)
        States at which the steps start.
    step : Step
        Stack of n steps.
    """

    def __init__(self, gru: GRU, u: Array, step: Step) -> None:
        super().__init__(gru, u, step)
        self.gru = gru
        self.phases = gru._phases(step)
        self.rows = [gru._rows(phase, step) for phase in self.phases]
        self.W_ih = [gru.weights[f"weight_ih_l{i}"] for i in range(gru.options.layers)]
        self.W_hh = [_nrz(gru.weights[f"weight_hh_l{i}"]) for i in range(gru.options.layers)]
        self.tapes = self._record(u)

    def _record(self, u: Array) -> list[list[_Tape]]:
        """Run the step forward; return the tape of each phase and layer."""
        h = [np.ascontiguousarray(u[:, layer]) for layer in range(u.shape[1])]
        gates_from = h
        tapes: list[list[_Tape]] = []
        for phase, rows in zip(self.phases, self.rows, strict=True):
            new: Layers = []
            tapes.append([])
            for layer, seen in enumerate(gates_from):
                n, batch, hidden = seen.shape
                arguments = self.gru._gate_arguments(phase, layer, rows, gates_from, h, new)
                out, q = np.empty_like(seen), np.empty_like(seen)
                c = np.empty((n, batch, 4 * hidden), dtype=seen.dtype)
                gates_linearize(*arguments, out, c, q)
                tapes[-1].append(_Tape(c, q, seen, new[-1] if new else None))
                new.append(out)
            gates_from = new
            if not phase.is_middle:
                h = new
        return tapes

    def adjoint(self, w: Array, rows: slice) -> Array:
        """Apply (dPhi/du)^T of the steps `rows` to a stack of adjoint states; a new array."""
        return self._backward(w, rows, None)

    def gradient(self, w: Array) -> Array:
        """Apply (dPhi/dtheta)^T of all steps; the sum over the stack, shape (num_parameters,)."""
        flat = np.zeros_like(self.gru.parameters)
        self._backward(w, slice(0, w.shape[0], 1), views(flat, self.gru.shapes))
        return flat

    def _backward(self, w: Array, rows: slice, gradient: dict[str, Array] | None) -> Array:
        """Go through the phases backwards; add to `gradient` on the way if there is one."""
        d_h = [np.ascontiguousarray(w[:, layer]) for layer in range(w.shape[1])]
        d_middle: Layers = []
        for index in range(len(self.phases) - 1, -1, -1):
            if self.phases[index].is_middle:
                d_seen, d_blended = self._phase_backward(index, d_middle, rows, gradient)
                d_h = _sums(d_h, _sums(d_seen, d_blended))
                continue
            d_seen, d_blended = self._phase_backward(index, d_h, rows, gradient)
            if index > 0 and self.phases[index - 1].is_middle:
                d_h, d_middle = d_blended, d_seen
            else:
                d_h = _sums(d_seen, d_blended)
        return _stack(d_h)

    def _phase_backward(
        self, index: int, d_new: Layers, rows: slice, gradient: dict[str, Array] | None
    ) -> tuple[Layers, Layers]:
        """Return the adjoints of the states that the gates saw and of those that were blended."""
        d_seen: Layers = [d_new[0]] * len(d_new)
        d_blended: Layers = [d_new[0]] * len(d_new)
        d_input: Array | None = None
        for layer in range(len(d_new) - 1, -1, -1):
            tape = self.tapes[index][layer]
            v = d_new[layer] if d_input is None else d_new[layer] + d_input
            n, batch, hidden = v.shape
            d_gates = np.empty((n, batch, 4 * hidden), dtype=v.dtype)
            d_blended[layer] = np.empty_like(v)
            gates_backward(v, rows.start, rows.step, tape.c, tape.q, d_gates, d_blended[layer])
            d_seen[layer] = _product(d_gates[:, :, : 3 * hidden], self.W_hh[layer])
            if layer > 0:
                d_input = _product(d_gates[:, :, hidden:], self.W_ih[layer])
            if gradient is not None:
                self._add_gradient(gradient, index, layer, d_gates)
        return d_seen, d_blended

    def _add_gradient(
        self, gradient: dict[str, Array], index: int, layer: int, d_gates: Array
    ) -> None:
        """Add the products of gate adjoints and states, one for all points and sequences."""
        tape = self.tapes[index][layer]
        x = tape.below
        if x is None:
            x = _take(self.gru.inputs, self.rows[index])
        hidden = tape.q.shape[-1]
        flat = d_gates.reshape(-1, 4 * hidden)
        d_hh, d_ih = flat[:, : 3 * hidden], flat[:, hidden:]
        gradient[f"weight_ih_l{layer}"] += d_ih.T @ x.reshape(-1, x.shape[-1])
        gradient[f"weight_hh_l{layer}"] += _rzn(d_hh.T @ tape.seen.reshape(-1, hidden))
        sums = np.ones(flat.shape[0], dtype=flat.dtype) @ flat
        gradient[f"bias_ih_l{layer}"] += sums[hidden:]
        gradient[f"bias_hh_l{layer}"] += _rzn(sums[: 3 * hidden])


def _product(a: Array, b: Array) -> Array:
    """Return a @ b for a of shape (n, B, K), as one matrix product; new, shape (n, B, M)."""
    n, batch, width = a.shape
    flat = a.reshape(n * batch, width)  # a view, also of columns of a contiguous array
    return (flat @ b).reshape(n, batch, b.shape[1])


def _stack(layers: Layers) -> Array:
    """Return (n, layers, B, H)."""
    return layers[0][:, None] if len(layers) == 1 else np.stack(layers, axis=1)


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
    if rows.size and (np.diff(rows) == 1).all():
        return held[rows[0] : rows[-1] + 1]
    return held[rows]
