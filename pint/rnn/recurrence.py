"""A stack of gated recurrent layers as a propagator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.propagator import Propagator, Step
from pint.rnn.coarse_step import GateEvaluation
from pint.rnn.inputs import Reads
from pint.rnn.layers import Layers
from pint.rnn.linearization import RecurrenceLinearization
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.tape import DerivativeTape, TapePool, in_rows, parts

Array = NDArray[Any]
Indices = NDArray[np.int64]


class Recurrence(Layers, Propagator):  # type: ignore[misc, override]
    """A stack of recurrent layers; its state has the states of all layers, shape (layers, B, W).

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
        While True, finest steps note their derivatives, which the next `linearize` takes instead of
        evaluating them; before it, `discard` those whose states have changed since.
    team : ThreadTeam
        Threads that share the work, one by default: ``model.team = ThreadTeam(4)``. Results are the
        same for any number.
    input_gradient : ndarray, shape (B, T, num_features), or None
        Array that receives the derivative with respect to the inputs of the finest steps of a
        gradient; other entries do not change. None, the default: it is not computed.

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
        super().__init__(options, parameters, seed)
        self.recording = False
        self._recorded: DerivativeTape | None = None
        self._pool = TapePool()

    def refresh(self) -> None:
        """Read the present parameters; discard products and derivatives of earlier ones."""
        super().refresh()
        self._recorded = None
        self._pool.keep(self.batch)

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, layers, B, W); new."""
        reads, u = self._reads(step), np.asarray(u, dtype=self.dtype)
        tape, out = self._tape_of(step, reads.table), np.empty(u.shape, dtype=self.dtype)
        slots = reads.rows[:, 0]  # a finest step has its slot where its input is
        for part in parts(u.shape[0], self.batch * len(reads.table)):
            self._advance(u[part], None, reads.at(part), tape, slots[part], out[part])
        if tape is not None:
            tape.is_noted[slots] = True
        return out

    def chain(self, u: Array, step: Step, g: Array | None, out: Array) -> None:
        """Take a stack of steps one after another, in compiled loops; see `Propagator.chain`."""
        reads, u = self._reads(step), np.asarray(u, dtype=self.dtype)[None]
        tape, states = self._tape_of(step, reads.table), in_rows(out, self.dtype)
        slots = reads.rows[:, 0]
        for part in parts(out.shape[0], self.batch * len(reads.table)):
            right, own = None if g is None else g[part], reads.at(part)
            self._advance(u, right, own, tape, slots[part], states[part], is_chain=True)
            u = states[part][-1:]
        if tape is not None:
            tape.is_noted[slots] = True
        if states is not out:
            out[...] = states

    def _reads(self, step: Step) -> Reads:
        table, bound = self.evaluations(step), self.bound_inputs()
        return Reads(table, bound.rows_of(table, step), bound.steps_of(table, step))

    def _tape_of(self, step: Step, table: tuple[GateEvaluation, ...]) -> DerivativeTape | None:
        """Return the tape on which steps note their derivatives now."""
        if not (self.recording and _is_finest(step)):
            return None
        if self._recorded is None:
            self._recorded = self._pool.get(self, table, self.bound_inputs().num_points)
        return self._recorded

    def _advance(
        self,
        u: Array,
        g: Array | None,
        reads: Reads,
        tape: DerivativeTape | None,
        slots: Indices,
        out: Array | None,
        *,
        is_chain: bool = False,
    ) -> None:
        """Take some steps, layer after layer, so that each layer's inputs are one product.

        Parameters
        ----------
        u : ndarray, shape (n or 1, layers, B, W)
            States to begin with; one for a chain.
        g : ndarray, shape (n, layers, B, W), or None
            Right-hand side of a chain.
        reads : Reads
            Gate evaluations of these steps.
        tape, slots : DerivativeTape or None, ndarray of int64 of shape (n,)
            Where the derivatives are noted; None: nowhere.
        out : ndarray, shape (n, layers, B, W), or None
            The states after the steps; None where they are not wanted.
        is_chain : bool
            Steps follow one another.
        """
        options, batch, num_layers = self.options, self.batch, self.options.layers
        if out is None:
            out = self.workspace.get("states", u.shape, self.dtype)
        table, rows = reads.table, reads.rows
        factors = np.array([evaluation.factor for evaluation in table])
        middles = np.array([evaluation.is_middle for evaluation in table])
        none = np.empty((0, batch, 0), dtype=self.dtype)
        at = np.ascontiguousarray(rows) if tape is None else tape.rows(slots)
        num_rows = u.shape[0] * batch
        gi, gi_rows = self.first_inputs(table, rows, is_chain=is_chain)
        for layer in range(num_layers):
            is_read = layer + 1 < num_layers
            hidden_after = self._hidden_after(layer, tape, at, is_read)
            self.team.split_batch(
                num_rows, self.cell.forward, self.is_narrow, self.cell.is_classic, is_chain,
                self.multiply_at, gi, gi_rows, self.state_weights[layer].rows, self.biases[layer],
                np.require(u[:, layer], None, ["C", "W"]).reshape(num_rows, u.shape[-1]),
                none if g is None else np.ascontiguousarray(g[:, layer]),
                options.coarse_step == "implicit", factors, middles, reads.num_steps, out, layer,
                hidden_after, at, none if tape is None else tape.coefficients[layer],
            )  # fmt: skip
            after = hidden_after.reshape(-1, batch, options.hidden)
            if is_read:
                gi, gi_rows = self.inputs_from(layer + 1, after, rows)
            if tape is not None and after.size:
                held = tape.hidden_after[layer]
                if not np.may_share_memory(after, held):
                    held[at.reshape(-1)] = after

    def _hidden_after(
        self, layer: int, tape: DerivativeTape | None, at: Indices, is_read: bool
    ) -> Array:
        """Return memory for a layer's h after evaluations `at`, (n, P, B, H).

        That is the tape's own if it is in one piece, and none if nothing reads them.
        """
        shape = *at.shape, self.batch, self.options.hidden
        if tape is not None and (is_read or at.shape[1] > 1):
            own = tape.hidden_rows(layer, at)
            if own is not None:
                return own
        elif not is_read:
            shape = 0, *shape[1:]
        return self.workspace.get(f"hidden after {layer}", shape, self.dtype)

    def linearize(self, u: Array, step: Step) -> RecurrenceLinearization:
        """Return the derivative of Phi at a stack of states, for a stack of steps.

        It holds 6 H numbers (7 H for LSTM) for each sequence, point, layer and gate evaluation.
        Finest steps that were taken while `recording`, and not discarded since, are not evaluated
        again. Gradients read `u` later: leave it as it is until then.
        """
        reads, u = self._reads(step), np.asarray(u, dtype=self.dtype)
        if self._recorded is not None and _is_finest(step):
            tape, slots = self._recorded, reads.rows[:, 0]
            self._recorded = None  # it belongs to the linearisation from now on
        else:
            tape, slots = self._pool.get(self, reads.table, u.shape[0]), np.arange(u.shape[0])
        missing = np.flatnonzero(~tape.is_noted[slots])
        for part in parts(missing.size, self.batch * len(reads.table)):
            own = missing[part]
            self._advance(u[own], None, reads.at(own), tape, slots[own], None)
        return RecurrenceLinearization(self, u, step, tape, slots, reads, self._pool)

    def discard(self, step: Step | None = None) -> None:
        """Discard the noted derivatives of a stack of finest steps, or of all."""
        if step is None:
            self._recorded = None
        elif self._recorded is not None and np.size(step.last):
            rows = self.bound_inputs().rows_of(self._recorded.table, step)
            self._recorded.is_noted[rows[:, 0]] = False

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new."""
        return self.linearize(u, step).adjoint(w, slice(0, u.shape[0], 1))

    def diagonal(self, u: Array, step: Step) -> Array:
        """Return the diagonals of dPhi/du of finest steps at a stack of states; new.

        Noted derivatives are taken as `linearize` takes them.
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
