"""Coarse steps of recurrent layers that follow the fine ones in the diagonal of their derivative.

A corrected step is Phi_c(u) + D u with a diagonal D = D_f - D_c: the product of the diagonals of
the fine steps' derivatives, one sequence at a time, minus the derivative of the coarse step.
Backwards it is the transpose, J_c^T w + D w. `docs/gru.md` has the results.

The coefficients belong to gates that the cycle evaluates anyway, at the iterate; so the correction
adds no cell evaluation, only products entry by entry. Here they are evaluated once more, to keep
the engine as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.propagator import AdjointPropagator
from pint.mgrit.delta import CorrectedPropagator, DeltaCorrection
from pint.mgrit.solver import MGRIT
from pint.options import Delta
from pint.propagator import Step
from pint.rnn.layer_solver import LayerSolver
from pint.rnn.layers import Layers
from pint.rnn.linearization import RecurrenceLinearization

if TYPE_CHECKING:
    from pint.grid.hierarchy import Hierarchy
    from pint.grid.level import Level

Array = NDArray[Any]


def correct_by_diagonals(solver: LayerSolver) -> None:
    """Correct the coarse steps of both solves; on one process, with gated recurrent units."""
    _put(solver.forward, ForwardDiagonals)
    _put(solver.backward.solver, BackwardDiagonals)


def _put(solver: MGRIT, kind: type[DeltaCorrection]) -> None:
    driver = solver.driver
    driver.propagator = CorrectedPropagator(solver.propagator)
    driver.correction = kind(driver.propagator, Delta("diagonal"), driver)


@dataclass(eq=False)
class DiagonalCorrection:
    """D of the steps that end with the finest steps `lasts`, in increasing order."""

    lasts: NDArray[np.int64]
    entries: Array

    def times(self, v: Array, step: Step) -> Array:
        """Return D v for one state and step, or for a stack of them."""
        product: Array = self.entries[np.searchsorted(self.lasts, step.last)] * v
        return product


class ForwardDiagonals(DeltaCorrection):
    """Corrects the forward steps of each cycle at its iterate."""

    def linearize(self, level: Level, coarse: Level) -> None:
        """Set the correction of a level; both levels hold the iterate."""
        fine = self._diagonals(level)
        if level.index in self.propagator.corrections:
            fine += self.propagator.corrections[level.index].entries
        _set(self.propagator, coarse, fine, self._diagonals(coarse))

    def _diagonals(self, level: Level) -> Array:
        model: Any = self.propagator.model
        slots, steps = level.targets, level.steps(level.targets)
        linearization = model.linearize(level.u[slots.start - 1 : slots.stop - 1], steps)
        own = diagonals(linearization)
        linearization.release()
        return own


class BackwardDiagonals(DeltaCorrection):
    """Corrects the adjoint steps of a linear problem, once for all cycles."""

    def attach(self, hierarchy: Hierarchy) -> None:
        """Begin a solve, at the forward states at which the steps are linearised already."""
        super().attach(hierarchy)
        model: Any = self.propagator.model
        assert isinstance(model, AdjointPropagator)
        fine = None
        for level, here in zip(hierarchy.levels, model._linearized, strict=True):
            own = diagonals(here.tape)
            fine = own if fine is None else _set(self.propagator, level, fine, own)

    def linearize(self, level: Level, coarse: Level) -> None:
        """Leave the corrections as they are."""


def _set(propagator: CorrectedPropagator, coarse: Level, fine: Array, own: Array) -> Array:
    """Correct the steps to all points of a level; return the diagonals of corrected steps."""
    count = own.shape[0]
    products = fine.reshape(count, -1, *fine.shape[1:]).prod(axis=1)
    lasts = np.asarray(coarse.steps(coarse.targets).last)
    propagator.corrections[coarse.index] = DiagonalCorrection(lasts, products - own)  # type: ignore[assignment]
    return products


def diagonals(linearization: Any) -> Array:
    """Return the diagonals of the derivatives of a stack of steps, (n, layers, B, H).

    The diagonal of an evaluation is q + sum over e, r, z of c_g W_g[j, j], in the letters of
    `docs/gru.md`. Diagonals of consecutive evaluations are multiplied.
    """
    assert isinstance(linearization, RecurrenceLinearization)
    model, tape = linearization.layers, linearization.tape
    assert isinstance(model, Layers)
    assert model.cell.is_gru
    total = np.ones_like(linearization.u)
    for layer in range(total.shape[1]):
        r, z, n = (np.diagonal(W) for W in np.split(model.weights[f"weight_hh_l{layer}"], 3))
        seen = 1.0
        for index, phase in enumerate(tape.table):
            c = tape.coefficients[layer][linearization.slots * len(tape.table) + index]
            c_e, c_r, c_z, _, q = np.split(c, 5, axis=-1)
            diagonal = q + (c_e * n + c_r * r + c_z * z) * seen
            seen = diagonal if phase.is_middle else 1.0
            if not phase.is_middle:
                total[:, layer] *= diagonal
    return total
