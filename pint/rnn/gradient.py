"""The parameter gradient of recurrent layers: sums over points and sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pint.rnn.parameters import views
from pint.rnn.products import add_product
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
        # Each matrix transposed, so that rows are long; a row of sums belongs to the inputs' one.
        widths = [model.options.num_features + 1, *(hidden for _ in layers[1:])]
        columns = self.cell.num_gates * hidden
        self._ih, self._hh = (
            [np.zeros((rows, columns), dtype=model.dtype) for rows in heights]
            for heights in (widths, [hidden] * len(widths))
        )
        self._sums = [np.zeros(4 * hidden, dtype=model.dtype) for _ in layers]

    def add(self, layer: int, x: Array, seen: Array, d_gates: Array, team: Team) -> None:
        """Add the products of some rows, points and sequences of one layer.

        Parameters
        ----------
        layer : int
            Whose gates.
        x : ndarray, shape (rows, F + 1) or (rows, H)
            What they read from below; a one is behind each input of the first layer.
        seen : ndarray, shape (rows, H)
            The h that they saw.
        d_gates : ndarray, shape (rows, 4 H)
            Their adjoints.
        team : Team
            Threads that share the work.
        """
        d_input = self.cell.input_gates(d_gates)
        _add(x, d_input, self._ih[layer], team)
        _add(seen, self.cell.state_gates(d_gates), self._hh[layer], team)
        done = d_input.shape[1] if layer == 0 else 0  # with the inputs' ones
        rest = d_gates[:, : d_gates.shape[1] - done]
        if rest.shape[1]:
            self._sums[layer][: rest.shape[1]] += np.ones(rest.shape[0], rest.dtype) @ rest

    def flat(self) -> Array:
        """Return the gradient in the order of the model's parameters, (num_parameters,); new."""
        flat, cell = np.empty_like(self.model.parameters), self.cell
        tensors = views(flat, self.model.shapes)
        for layer, (ih, hh, sums) in enumerate(zip(self._ih, self._hh, self._sums, strict=True)):
            if layer == 0:
                sums[sums.size - ih.shape[1] :] = ih[-1]
                ih = ih[:-1]
            tensors[f"weight_ih_l{layer}"][...] = ih.T
            tensors[f"weight_hh_l{layer}"][...] = cell.torch_rows(hh.T)
            tensors[f"bias_ih_l{layer}"][...] = cell.input_gates(sums)
            tensors[f"bias_hh_l{layer}"][...] = cell.torch_rows(cell.state_gates(sums))
        return flat


def _add(a: Array, b: Array, out: Array, team: Team) -> None:
    """Add a.T @ b, the rows of `out` shared by threads that have at least so many each."""
    team.share(out.shape[0], lambda own: add_product(a[:, own], b, out[own]), least=16)
