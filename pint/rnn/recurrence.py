"""A stack of gated recurrent layers as a propagator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.arrays import Workspace
from pint.parallel.thread_team import SERIAL
from pint.propagator import Propagator, Step
from pint.rnn.cells import CELLS
from pint.rnn.coarse_step import GateEvaluation
from pint.rnn.fingerprints import fingerprints
from pint.rnn.inputs import BoundInputs
from pint.rnn.kernels import chain_forward, gates_forward, gates_linearize
from pint.rnn.linearization import Layers, RecurrenceLinearization
from pint.rnn.parameters import num_entries, uniform, views
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.tape import Tape, in_rows, parts, take
from pint.simd.products import PaddedMatrix, product

Array = NDArray[Any]


class Recurrence(Propagator):
    """A stack of recurrent layers; its state is that of all layers, shape (layers, B, W).

    W is H, or 2 H for the long short-term memory, whose states are h followed by c. Finest step i
    takes x_i, the i-th element of the sequence, so that a sequence of T elements is solved on a
    time grid of T steps. Before a solve, `set_inputs` binds the sequences; after a change of
    `parameters` call it again, or `refresh`.

    Parameters
    ----------
    options : RecurrenceOptions
        Shapes and time step.
    parameters : ndarray, shape (num_parameters,), optional
        Flat parameters, shared and not copied; drawn as torch draws them if left out.
    seed : int, default 0
        Seed of that draw.

    Attributes
    ----------
    weights : dict of str to ndarray
        Named views of `parameters`: weight_ih_l0 (G H, num_features), weight_hh_l0 (G H, H),
        bias_ih_l0 (G H,), bias_hh_l0 (G H,), weight_ih_l1, ...; row blocks in the order r, z, n
        (G = 3) or i, f, g, o (G = 4).
    recording : bool
        While True, steps keep the derivatives of finest steps, so that a `linearize` at the same
        states finds them; set it for the last sweep before an adjoint solve.
    team : ThreadTeam
        Threads that share the work, one by default: ``model.team = ThreadTeam(4)``. Results are the same
        for any number.
    input_gradient : ndarray, shape (B, T, num_features), or None
        Where a gradient puts the derivative with respect to the inputs of the finest steps that it
        covers; those of other steps are left as they are. None, the default: it is not computed.

    References
    ----------
    Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014;
    Moon & Cyr, "Parallel training of GRU networks with a multi-grid solver for long sequences",
    ICLR 2022, for the implicit unit; Hochreiter & Schmidhuber, "Long short-term memory", Neural
    Computation 9 (1997), with the forget gate of Gers, Schmidhuber & Cummins (2000).
    """

    batched = True
    prefer_chain = True

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
        self.recording = False
        self.team = SERIAL
        self.input_gradient: Array | None = None
        self._projected: Array = np.empty((0, 0, 0), dtype=self.dtype)
        self._is_projected = False
        self._recorded: Tape | None = None
        self.rooms = Workspace()
        self._spares: dict[tuple[tuple[GateEvaluation, ...], int, int], Tape] = {}

    @property
    def batch(self) -> int:
        """Number of sequences bound by the last `set_inputs`; 0 before it."""
        return 0 if self.bound is None else self.bound.batch

    @property
    def state_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(layers, B, W), with the B of the last `set_inputs`."""
        options = self.options
        return (options.layers, self.batch, self.cell.num_states * options.hidden)

    def set_inputs(
        self,
        x: Array,
        windows: NDArray[np.int64] | None = None,
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
        self._spares = {key: tape for key, tape in self._spares.items() if key[2] == self.batch}
        self.refresh()

    def refresh(self) -> None:
        """Take over the present parameters: products with earlier ones are not used any more."""
        if self.bound is None:
            return  # nothing to multiply yet
        self._recorded, self._is_projected = None, False
        layers, weights = range(self.options.layers), self.weights
        self._input_weights, self._state_weights = (
            [PaddedMatrix.of(weights[f"{name}_l{layer}"].T) for layer in layers]
            for name in ("weight_ih", "weight_hh")
        )
        self._biases = [
            self.cell.bias(weights[f"bias_ih_l{layer}"], weights[f"bias_hh_l{layer}"])
            for layer in layers
        ]

    def project(self) -> None:
        """Multiply the bound inputs with the first layer's weights now, not at the first step."""
        self._input_products(0, None, np.zeros((0, 1), dtype=np.int64))

    def input_windows(self, *stacks: Step) -> NDArray[np.int64]:
        """Return which inputs stacks of steps read: rows of (last finest step, length).

        Each once, in the order of lengths, and of steps among those of one length.
        """
        read: dict[int, list[NDArray[np.int64]]] = {}
        for step in stacks:
            last = np.atleast_1d(step.last)
            for phase in self._phases(step) if last.size else ():
                read.setdefault(phase.length, []).append(last - phase.read)
        windows = [np.zeros((0, 2), dtype=np.int64)]
        for length in sorted(read):
            last = _distinct(read[length])
            windows.append(np.stack([last, np.full_like(last, length)], axis=1))
        return np.concatenate(windows)

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, layers, B, W); new."""
        table, bound = self._phases(step), self._bound()
        u = np.asarray(u, dtype=self.dtype)
        rows, steps = bound.rows_of(table, step), bound.steps_of(table, step)
        tape, slots = None, rows[:, 0]
        if self.recording and _is_finest(step):
            tape = self._recorded = self._recorded or self._tape(table, bound.num_points)
            tape.note(slots, fingerprints(u, self.team))
        out = np.empty(u.shape, dtype=self.dtype)
        for part in parts(u.shape[0], self.batch):
            new = self._run(u[part], table, rows[part], steps[part], tape, slots[part])
            for layer, h in enumerate(new):
                out[part, layer] = h
        return out

    def _run(
        self,
        u: Array,
        table: tuple[GateEvaluation, ...],
        rows: NDArray[np.int64],
        steps: NDArray[np.int64],
        tape: Tape | None,
        slots: NDArray[np.int64],
    ) -> Layers:
        """Go through the gate evaluations of a step; put their derivatives on a tape."""
        layers = range(self.options.layers)
        if u.shape[0] < len(table):  # one step after another: fewer calls of kernels
            out = np.empty(u.shape, dtype=self.dtype)
            at = slots[:, None] * len(table) + np.arange(len(table))
            for i in range(u.shape[0]):
                one = slice(i, i + 1)
                chosen = rows[one], steps[one], tape, at[one]
                self._chain_part(u[i], None, table, *chosen, out[one])
            return [out[:, layer] for layer in layers]
        states = [np.ascontiguousarray(u[:, layer]) for layer in layers]
        seen, hidden = states, self.options.hidden
        for index, phase in enumerate(table):
            new: Layers = []
            own_steps = np.ascontiguousarray(steps[:, index])
            at = slots * len(table) + index
            for layer in range(self.options.layers):
                below = new[-1][..., :hidden] if new else None
                gi, gi_rows = self._input_products(layer, below, rows[:, index])
                weight, shape = self._state_weights[layer], seen[layer].shape[:2]
                room = self.rooms.get("gh", (*shape, weight.width), self.dtype)
                gh = product(seen[layer][..., :hidden], weight, self.team, room)
                gates = gi_rows, gh, states[layer], own_steps
                new.append(self._gates(layer, phase, gi, gates, tape, at))
            seen = new
            if not phase.is_middle:
                states = new
        return states

    def _gates(
        self,
        layer: int,
        phase: GateEvaluation,
        gi: Array,
        points: tuple[Array, ...],
        tape: Tape | None,
        at: NDArray[np.int64],
    ) -> Array:
        """Evaluate a layer's gates at all points; put their derivatives in these rows of a tape."""
        rows, gh, u, steps = points
        code, bias, out = self.cell.code, self._biases[layer], np.empty_like(u)

        def evaluate(own: slice) -> None:
            reach = self._grows, phase.factor, steps[own]
            gates = code, gi, rows[own], gh[own], bias, u[own], *reach, out[own]
            if tape is None:
                gates_forward(*gates)
            else:
                gates_linearize(*gates, at[own], tape.coefficients[layer])

        self.team.share(u.shape[0], evaluate)
        if tape is not None:
            tape.news[layer][at] = out[..., : self.options.hidden]
        return out

    def _input_products(
        self, layer: int, below: Array | None, rows: NDArray[np.int64]
    ) -> tuple[Array, NDArray[np.int64]]:
        """Return products W_ih x of a layer, and the row of each gate evaluation in them."""
        if below is not None:
            shape = *below.shape[:2], self._input_weights[layer].width
            gi = self.rooms.get("gi", shape, self.dtype)
            gi = product(below, self._input_weights[layer], self.team, gi)
            return gi, np.arange(rows.size).reshape(rows.shape)
        if not self._is_projected:
            inputs, weights = self._bound().rows, self._input_weights[0]
            self._projected = product(inputs, weights, self.team, self._projected)
            self._is_projected = True
        return self._projected, np.ascontiguousarray(rows)

    def chain(self, u: Array, step: Step, g: Array | None, out: Array) -> None:
        """Take a stack of steps one after another, in compiled loops; see `Propagator.chain`."""
        table, bound = self._phases(step), self._bound()
        rows, steps = bound.rows_of(table, step), bound.steps_of(table, step)
        u = np.asarray(u, dtype=self.dtype)
        tape, states, starts = None, in_rows(out, self.dtype), []
        if self.recording and _is_finest(step):
            tape = self._recorded = self._recorded or self._tape(table, bound.num_points)
            starts.append(fingerprints(u[None], self.team))
        for part in parts(out.shape[0], self.batch * len(table)):
            right = None if g is None else g[part]
            read = rows[part]  # a finest step has its slot where its input is
            self._chain_part(u, right, table, read, steps[part], tape, read, states[part])
            u = states[part.stop - 1]
            if tape is not None:  # while they are in the cache
                starts.append(fingerprints(states[part], self.team))
        if tape is not None:
            tape.note(rows[:, 0], np.concatenate(starts)[:-1])
        if states is not out:
            out[...] = states

    def _chain_part(
        self,
        u: Array,
        g: Array | None,
        table: tuple[GateEvaluation, ...],
        rows: NDArray[np.int64],
        steps: NDArray[np.int64],
        tape: Tape | None,
        at: NDArray[np.int64],
        states: Array,
    ) -> None:
        """Take some steps, layer after layer, so that each layer's inputs are one product.

        States are put in place, and derivatives in these rows, (n, P), of a tape. A
        chain of finest steps reads each input once: their products are not worth keeping.
        """
        options, batch = self.options, self.batch
        factors = np.array([phase.factor for phase in table])
        middles = np.array([phase.is_middle for phase in table])
        none = np.empty((0, batch, 0), dtype=self.dtype)
        passes_by = len(table) == 1 and table[0].span == 1 and not self._is_projected
        below = take(self._bound().rows, rows[:, 0]) if passes_by else None
        for layer in range(options.layers):
            gi, gi_rows = self._input_products(layer, below, rows)
            right = none if g is None else np.ascontiguousarray(g[:, layer])
            is_read = layer + 1 < options.layers
            news = self._news(layer, tape, at, is_read)
            self.team.share_batch(
                batch, chain_forward,
                self.cell.code, gi, gi_rows, self._state_weights[layer].rows, self._biases[layer],
                np.array(u[layer], order="C"), right, self._grows, factors, middles,
                steps, states, layer, news, at,
                none if tape is None else tape.coefficients[layer],
            )  # fmt: skip
            flat = news.reshape(-1, batch, options.hidden)
            below = flat if is_read else None
            if tape is not None and news.size and not np.may_share_memory(news, tape.news[layer]):
                tape.news[layer][at.reshape(-1)] = flat

    def _news(self, layer: int, tape: Tape | None, at: NDArray[np.int64], is_read: bool) -> Array:
        """Return memory for a layer's h after evaluations `at`, (n, P, B, H).

        That is the tape's own if it is in one piece, and none if nobody reads them.
        """
        shape = *at.shape, self.batch, self.options.hidden
        if tape is not None and (is_read or at.shape[1] > 1):
            own = take(tape.news[layer], at.reshape(-1))
            if own.flags.c_contiguous and np.may_share_memory(own, tape.news[layer]):
                return own.reshape(shape)
        elif not is_read:
            shape = 0, *shape[1:]
        return self.rooms.get(f"news {layer}", shape, self.dtype)

    @property
    def _grows(self) -> bool:
        """Tell whether a longer step has a greater gamma, as published."""
        return self.options.coarse_step == "implicit"

    def _phases(self, step: Step) -> tuple[GateEvaluation, ...]:
        num_fine = np.atleast_1d(step.num_fine)
        if (num_fine != num_fine[0]).any():
            raise ValueError(
                "recurrent layers need coarsening factors: the steps of a level must cover as many "
                "elements of the sequences each"
            )
        return self.options.evaluations_of(step.level, int(num_fine[0]))

    def _bound(self) -> BoundInputs:
        if self.bound is None:
            raise ValueError("set_inputs was not called: bind sequences before stepping")
        return self.bound

    def linearize(self, u: Array, step: Step) -> RecurrenceLinearization:
        """Return the derivative of Phi at a stack of states, for a stack of steps.

        It holds 6 H numbers (7 H for LSTM) for each sequence, point, layer and gate evaluation.
        Finest steps that were taken from the same states while `recording` are not evaluated again.
        Gradients read `u` later: leave it as it is until then.
        """
        table, bound = self._phases(step), self._bound()
        rows, steps = bound.rows_of(table, step), bound.steps_of(table, step)
        u = np.asarray(u, dtype=self.dtype)
        if self._recorded is not None and _is_finest(step):
            tape, slots = self._recorded, rows[:, 0]
            self._recorded = None  # it belongs to the linearisation from now on
            missing = np.flatnonzero(~tape.holds(slots, fingerprints(u, self.team)))
        else:
            tape, slots = self._tape(table, u.shape[0]), np.arange(u.shape[0])
            missing = slots
        for part in parts(missing.size, self.batch):
            chosen = missing[part]
            self._run(u[chosen], table, rows[chosen], steps[chosen], tape, slots[chosen])
        return RecurrenceLinearization(self, u, step, tape, slots, rows, steps)

    def _tape(self, table: tuple[GateEvaluation, ...], num_slots: int) -> Tape:
        """Return an empty tape: a spare one of the right size, or a new one."""
        spare = self._spares.pop((table, num_slots, self.batch), None)
        return Tape(self, table, num_slots) if spare is None else spare

    def spare(self, tape: Tape) -> None:
        """Take a tape that nobody uses any more; its memory serves the next one of its size."""
        tape.clear()
        if tape.key[2] == self.batch:
            self._spares[tape.key] = tape

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new."""
        return self.linearize(u, step).adjoint(w, slice(0, u.shape[0], 1))

    def diagonal(self, u: Array, step: Step) -> Array:
        """Return the diagonals of dPhi/du of finest steps at a stack of states; new.

        Steps that were taken from the same states while `recording` are not evaluated again.
        """
        linearization = self.linearize(u, step)
        own = linearization.diagonal(slice(0, u.shape[0], 1))
        linearization.release()
        return own

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return the gradient with respect to all parameters, summed over the stack."""
        return self.linearize(u, step).gradient(w)


def _is_finest(step: Step) -> bool:
    return int(np.atleast_1d(step.num_fine)[0]) == 1


def _distinct(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return all numbers once, in order; without sorting, for they lie close together."""
    least = min(int(part.min()) for part in parts)
    is_there = np.zeros(max(int(part.max()) for part in parts) - least + 1, dtype=bool)
    for part in parts:
        is_there[part - least] = True
    found: NDArray[np.int64] = np.flatnonzero(is_there) + least
    return found
