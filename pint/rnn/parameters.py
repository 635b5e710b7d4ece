"""Parameters as one flat vector, with a named view on each tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shapes = Mapping[str, tuple[int, ...]]


def num_entries(shapes: Shapes) -> int:
    """Return the length of the flat vector."""
    return sum(math.prod(shape) for shape in shapes.values())


def views(flat: NDArray[Any], shapes: Shapes) -> dict[str, NDArray[Any]]:
    """Return a view of `flat` for each name, in the order of `shapes`; nothing is copied."""
    named: dict[str, NDArray[Any]] = {}
    start = 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        named[name] = flat[start:stop].reshape(shape)
        start = stop
    return named


def uniform(
    shapes: Shapes, bound: float, dtype: np.dtype[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Return a flat vector of entries drawn from [-bound, bound), torch.nn.GRU's initialisation."""
    return rng.uniform(-bound, bound, num_entries(shapes)).astype(dtype)


def layer_shapes(
    num_gates: int, num_features: int, hidden: int, layers: int
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of each tensor of a stack of recurrent layers, as torch has them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        width = num_features if layer == 0 else hidden
        shapes[f"weight_ih_l{layer}"] = (num_gates * hidden, width)
        shapes[f"weight_hh_l{layer}"] = (num_gates * hidden, hidden)
        shapes[f"bias_ih_l{layer}"] = (num_gates * hidden,)
        shapes[f"bias_hh_l{layer}"] = (num_gates * hidden,)
    return shapes
