"""The parameter gradient of recurrent layers: sums over points and sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pint.rnn.inputs import WIDE
from pint.rnn.parameters import views
from pint.rnn.products import add_product, flat, pairs_of
from pint.rnn.team import Team

if TYPE_CHECKING:
    from pint.rnn.recurrence import Recurrence

Array = NDArray[Any]


class GradientSums:
    """Sums of products of what gates read and their adjoints.

    Parameters
    ----------
    model : Recurrence
        The layers.
    """

    def __init__(self, model: Recurrence) -> None:
        self.model, self.cell = model, model.cell
        hidden, layers = model.options.hidden, range(model.options.layers)
        # Each matrix transposed, so that rows are long, but for that of wide inputs.
        num_features, columns = model.options.num_features, self.cell.num_gates * hidden
        self._is_wide = num_features >= WIDE
        shapes = [(num_features, columns), *((hidden, columns) for _ in layers[1:])]
        self._hh = [np.zeros((hidden, columns), dtype=model.dtype) for _ in layers]
        self._ih = [
            np.zeros(shape[::-1] if self._is_wide and layer == 0 else shape, dtype=model.dtype)
            for layer, shape in enumerate(shapes)
        ]
        self._sums = [np.zeros(4 * hidden, dtype=model.dtype) for _ in layers]

    def add(self, layer: int, x: Array, seen: Array, d_gates: Array, team: Team) -> None:
        """Add the products of some points and sequences of one layer.

        Parameters
        ----------
        layer : int
            Whose gates.
        x : ndarray, shape (n, B, F) or (n, B, H)
            What they read from below.
        seen : ndarray, shape (n, B, H)
            The h that they saw.
        d_gates : ndarray, shape (n, B, 4 H)
            Their adjoints.
        team : Team
            Threads that share the work.
        """
        d_input = self.cell.input_gates(d_gates)
        pair = (d_input, x) if self._is_wide and layer == 0 else (x, d_input)
        _add(*pair, self._ih[layer], team)
        _add(seen, self.cell.state_gates(d_gates), self._hh[layer], team)
        rows = flat(d_gates)
        self._sums[layer] += np.ones(rows.shape[0], rows.dtype) @ rows

    def total(self) -> Array:
        """Return the gradient in the order of the model's parameters, (num_parameters,); new."""
        total, cell = np.empty_like(self.model.parameters), self.cell
        tensors = views(total, self.model.shapes)
        for layer, (ih, hh, sums) in enumerate(zip(self._ih, self._hh, self._sums, strict=True)):
            tensors[f"weight_ih_l{layer}"][...] = ih if self._is_wide and layer == 0 else ih.T
            tensors[f"weight_hh_l{layer}"][...] = cell.torch_rows(hh.T)
            tensors[f"bias_ih_l{layer}"][...] = cell.input_gates(sums)
            tensors[f"bias_hh_l{layer}"][...] = cell.torch_rows(cell.state_gates(sums))
        return total


def _add(a: Array, b: Array, out: Array, team: Team) -> None:
    """Add a.T @ b of all points; threads share the rows of `out`, if each has so many."""
    pairs = pairs_of(a, b)

    def add(own: slice) -> None:
        for left, right in pairs:
            add_product(left[:, own], right, out[own])

    team.share(out.shape[0], add, least=16)
