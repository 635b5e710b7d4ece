"""The parameter gradient of recurrent layers: sums over points and sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.parallel.thread_team import ThreadTeam
from pint.rnn.inputs import WIDE
from pint.rnn.layers import Layers
from pint.rnn.parameters import views
from pint.simd.products import add_product, flat, pairs_of

Array = NDArray[Any]


class GradientSums:
    """Sums of products of what gates read and their adjoints.

    Parameters
    ----------
    layers : Layers
        The layers.
    """

    def __init__(self, layers: Layers) -> None:
        self.layers, self.cell, dtype = layers, layers.cell, layers.dtype
        hidden, numbers = layers.options.hidden, range(layers.options.layers)
        # Matrices are transposed, so that rows are long, except for wide inputs.
        num_features, columns = layers.options.num_features, self.cell.num_gates * hidden
        self._is_wide = num_features >= WIDE
        shapes = [(num_features, columns), *((hidden, columns) for _ in numbers[1:])]
        self._hh = [np.zeros((hidden, columns), dtype=dtype) for _ in numbers]
        self._ih = [
            np.zeros(shape[::-1] if self._is_wide and layer == 0 else shape, dtype=dtype)
            for layer, shape in enumerate(shapes)
        ]
        self._sums_ih, self._sums_hh = (
            [np.zeros((1, columns), dtype=dtype) for _ in numbers] for _ in range(2)
        )

    def add(
        self, layer: int, x: Array, gate_input: Array, d_gates: Array, team: ThreadTeam
    ) -> None:
        """Add the products of some points and sequences of one layer.

        Parameters
        ----------
        layer : int
            Whose gates.
        x : ndarray, shape (n, B, F) or (n, B, H)
            Their input from below.
        gate_input : ndarray, shape (n, B, H)
            The h of which they take W_hh h.
        d_gates : ndarray, shape (n, B, 4 H)
            Their adjoints.
        team : ThreadTeam
            Threads that share the work.
        """
        d_input = self.cell.input_gates(d_gates)
        ih, hh = self._sums_ih[layer], self._sums_hh[layer]
        if self._is_wide and layer == 0:
            _add(d_input, x, self._ih[layer], np.zeros((0, x.shape[2]), x.dtype), team)
            rows = flat(d_input)
            ih += np.ones(rows.shape[0], rows.dtype) @ rows
        else:
            _add(x, d_input, self._ih[layer], ih, team)
        _add(gate_input, self.cell.state_gates(d_gates), self._hh[layer], hh, team)

    def total(self) -> Array:
        """Return the gradient in the order of the model's parameters, (num_parameters,); new."""
        total, cell = np.empty_like(self.layers.parameters), self.cell
        tensors = views(total, self.layers.shapes)
        for layer, (ih, hh) in enumerate(zip(self._ih, self._hh, strict=True)):
            tensors[f"weight_ih_l{layer}"][...] = ih if self._is_wide and layer == 0 else ih.T
            tensors[f"weight_hh_l{layer}"][...] = cell.torch_rows(hh.T)
            tensors[f"bias_ih_l{layer}"][...] = self._sums_ih[layer][0]
            tensors[f"bias_hh_l{layer}"][...] = cell.torch_rows(self._sums_hh[layer][0])
        return total


def _add(a: Array, b: Array, out: Array, sums: Array, team: ThreadTeam) -> None:
    """Add a.T @ b of all points, and the sums of b's columns; threads share the rows of `out`."""
    pairs = pairs_of(a, b)

    def add(own: slice) -> None:
        own_sums = sums if own.start == 0 else sums[:0]
        for left, right in pairs:
            add_product(left[:, own], right, out[own], own_sums)

    team.split(out.shape[0], add, least=16)
