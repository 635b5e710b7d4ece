"""A stack of gated recurrent units as a propagator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pint.options import PerLevel, at_least, one_of, per_level
from pint.propagator import Propagator, Step
from pint.rnn.kernels import gates_forward, gates_linearize
from pint.rnn.linearization import GRULinearization, Layers, Tape, parts, product
from pint.rnn.parameters import gru_shapes, num_entries, uniform, views
from pint.rnn.schedule import CoarseStep, Phase, phases

Array = NDArray[Any]


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
    recording : bool
        While True, `step` keeps the derivatives of finest steps, so that a `linearize` at the same
        states finds them; set it for the last sweep before an adjoint solve.
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
        self.recording = False
        self._recorded: Tape | None = None

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
            If shapes do not fit, if there is no sequence, or if points are outside the sequences
            or do not increase.
        """
        if x.ndim != 3 or x.shape[2] != self.options.num_features:
            raise ValueError(
                f"inputs must have shape (batch, time, {self.options.num_features}), got {x.shape}"
            )
        if x.shape[0] == 0:
            raise ValueError("inputs must have at least one sequence, got none")
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
        if self.batch == 0:
            return  # nothing is bound yet
        # Point by point, so that its bits do not depend on which points this rank holds.
        self._recorded = None
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
        table = self._phases(step)
        rows = [self._rows(phase, step) for phase in table]
        tape, slots = None, rows[0]
        if self.recording and self._is_finest(step):
            tape = self._recorded = self._recorded or Tape(self, table, self._row_of.max() + 1)
        out = np.empty(u.shape, dtype=self.dtype)
        for part in parts(u.shape[0], self.batch):
            new = self._run(u[part], table, [row[part] for row in rows], tape, slots[part])
            for layer, h in enumerate(new):
                out[part, layer] = h
        return out

    def _run(
        self,
        u: Array,
        table: tuple[Phase, ...],
        rows: list[NDArray[np.int64]],
        tape: Tape | None,
        slots: NDArray[np.int64],
    ) -> Layers:
        """Go through the gate evaluations of a step; note their derivatives if there is a tape."""
        h = [np.ascontiguousarray(u[:, layer]) for layer in range(self.options.layers)]
        seen = h
        for index, phase in enumerate(table):
            new: Layers = []
            for layer in range(self.options.layers):
                arguments = self._gate_arguments(phase, layer, rows[index], seen, h, new)
                out = np.empty_like(h[layer])
                if tape is None:
                    gates_forward(*arguments, out)
                else:
                    tape.note(index, layer, slots, seen, new)
                    gates_linearize(*arguments, out, slots, *tape.derivative(index, layer))
                new.append(out)
            seen = new
            if not phase.is_middle:
                h = new
        return h

    def _is_finest(self, step: Step) -> bool:
        return int(np.atleast_1d(step.num_fine)[0]) == 1

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
            gi = product(below[-1], self.weights[f"weight_ih_l{layer}"].T)
            rows = np.arange(rows.size)
        gh = product(gates_from[layer], self.weights[f"weight_hh_l{layer}"].T)
        classic = self.options.cell == "classic"
        gamma = self.dtype.type(phase.gamma)
        return gi, rows, gh, self._biases[layer], h[layer], classic, gamma, phase.power2

    def linearize(self, u: Array, step: Step) -> GRULinearization:
        """Return the derivative of Phi at a stack of states, for a stack of steps.

        It holds about 6 H numbers for each sequence, point, layer and gate evaluation. Finest steps
        that were taken from the same states while `recording` are not evaluated again.
        """
        table = self._phases(step)
        rows = [self._rows(phase, step) for phase in table]
        if self._recorded is not None and self._is_finest(step):
            tape, slots = self._recorded, rows[0]
            self._recorded = None  # it belongs to the linearisation from now on
            missing = np.flatnonzero(~tape.holds(u, slots))
        else:
            tape, slots = Tape(self, table, u.shape[0]), np.arange(u.shape[0])
            missing = slots
        for part in parts(missing.size, self.batch):
            chosen = missing[part]
            self._run(u[chosen], table, [row[chosen] for row in rows], tape, slots[chosen])
        return GRULinearization(self, u, step, tape, slots, rows)

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new."""
        return self.linearize(u, step).adjoint(w, slice(0, u.shape[0], 1))

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return the gradient with respect to all parameters, summed over the stack."""
        return self.linearize(u, step).gradient(w)
