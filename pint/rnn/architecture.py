"""What a recurrent network is made of: enough to rebuild it, and to check its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.options import at_least, one_of
from pint.rnn.cells import CELLS, CellName
from pint.rnn.parameters import num_entries
from pint.rnn.recurrence_options import RecurrenceOptions

Array = NDArray[Any]
Pooling = Literal["last", "every", "mean"]

ARCHITECTURE = "architecture"
"""Group of a run file's options, and key of a safetensors file's metadata, that describes it."""

POOLINGS = ("last", "every", "mean")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A stack of recurrent layers with or without a linear head.

    Parameters
    ----------
    num_features : int
        Width of the input.
    hidden : int
        Width H of a state.
    layers : int, default 1
        Number of layers.
    cell : {"implicit", "classic", "lstm"}, default "implicit"
        The implicit gated recurrent unit, or the units of torch.nn.GRU and torch.nn.LSTM.
    bidirectional : bool, default False
        Whether each layer also runs from the end of the sequence to its beginning; the next one
        takes both states, forward first.
    num_outputs : int, default 0
        Width of the head's output; 0 without a head.
    pooling : {"last", "every", "mean"}, default "last"
        What the head takes from the top layer: the state after the whole sequence (of both
        directions, each at its own end), that at every time, or their mean.
    learned_start : bool, default False
        Whether the initial state is a tensor, ``initial_state``, one row for each layer and
        direction; it is zero otherwise.
    dtype : {"float32", "float64"}, default "float32"
        Of all tensors.

    Raises
    ------
    ValueError
        If a value is out of its range.

    Examples
    --------
    >>> Architecture(num_features=3, hidden=4, num_outputs=2).shapes["head.weight"]
    (2, 4)
    """

    num_features: int
    hidden: int
    layers: int = 1
    cell: CellName = "implicit"
    bidirectional: bool = False
    num_outputs: int = 0
    pooling: Pooling = "last"
    learned_start: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("num_features", "hidden", "layers"):
            at_least(name, getattr(self, name), 1)
        at_least("num_outputs", self.num_outputs, 0)
        one_of("cell", self.cell, tuple(CELLS))
        one_of("pooling", self.pooling, POOLINGS)
        one_of("dtype", self.dtype, ("float32", "float64"))

    @classmethod
    def of(cls, options: RecurrenceOptions, num_outputs: int = 0) -> Architecture:
        """Return the architecture of a `Network`, or of a `Recurrence` alone."""
        return cls(
            num_features=options.num_features,
            hidden=options.hidden,
            layers=options.layers,
            cell=options.cell,
            num_outputs=num_outputs,
            dtype=str(np.dtype(options.dtype)),
        )

    @classmethod
    def infer(
        cls, weights: Mapping[str, Array], cell: CellName, pooling: Pooling = "last"
    ) -> Architecture:
        """Return the architecture that tensors of these names and shapes belong to.

        Parameters
        ----------
        weights : mapping of str to ndarray
            As in `shapes`.
        cell, pooling : str
            Not determined by shapes; a `cell` of gated recurrent units is read as "lstm" if the
            tensors have the rows of an lstm.

        Raises
        ------
        ValueError
            If the tensors do not fit any architecture.
        """
        first, recurrent = _matrix(weights, "weight_ih_l0"), _matrix(weights, "weight_hh_l0")
        head = weights.get("head.bias", np.zeros(0))
        hidden = recurrent.shape[1]
        architecture = cls(
            num_features=first.shape[1],
            hidden=hidden,
            layers=_num_layers(weights),
            cell="lstm" if len(recurrent) == 4 * hidden else cell,
            bidirectional=any(name.endswith("_reverse") for name in weights),
            num_outputs=head.size,
            pooling=pooling,
            learned_start="initial_state" in weights,
            dtype=str(first.dtype),
        )
        architecture.check(weights)
        return architecture

    def recurrence_options(self) -> RecurrenceOptions:
        """Return the options of a `Recurrence` of this architecture, with default coarse steps.

        Raises
        ------
        ValueError
            If it is none.
        """
        if self.bidirectional:
            raise ValueError(f"RecurrenceOptions describe layers in one direction, not {self}")
        return RecurrenceOptions(
            num_features=self.num_features,
            hidden=self.hidden,
            layers=self.layers,
            cell=self.cell,
            dtype=self.dtype,
        )

    @property
    def num_directions(self) -> int:
        """2 if it is bidirectional, 1 otherwise."""
        return 2 if self.bidirectional else 1

    @property
    def num_states(self) -> int:
        """Number of layers times directions."""
        return self.layers * self.num_directions

    @property
    def state_width(self) -> int:
        """Width W of a layer's state: H, or 2 H for h and c of the long short-term memory."""
        return CELLS[self.cell].num_states * self.hidden

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What stands behind the names of a layer's tensors, for each direction."""
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all tensors, as in torch.nn.GRU or LSTM, then of the head."""
        rows = (4 if self.cell == "lstm" else 3) * self.hidden
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            width = self.num_features if layer == 0 else self.num_directions * self.hidden
            for suffix in self.suffixes:
                shapes[f"weight_ih_l{layer}{suffix}"] = (rows, width)
                shapes[f"weight_hh_l{layer}{suffix}"] = (rows, self.hidden)
                shapes[f"bias_ih_l{layer}{suffix}"] = (rows,)
                shapes[f"bias_hh_l{layer}{suffix}"] = (rows,)
        if self.learned_start:
            shapes["initial_state"] = (self.num_states, self.state_width)
        if self.num_outputs:
            shapes["head.weight"] = (self.num_outputs, self.num_directions * self.hidden)
            shapes["head.bias"] = (self.num_outputs,)
        return shapes

    def check(self, weights: Mapping[str, Array]) -> None:
        """Raise unless tensors fit.

        Parameters
        ----------
        weights : mapping of str to ndarray
            All tensors.

        Raises
        ------
        ValueError
            If a tensor is missing or unknown, has another shape or dtype, or holds NaN or inf.
        """
        shapes = self.shapes
        if set(weights) != set(shapes):
            missing, unknown = sorted(shapes.keys() - weights), sorted(weights.keys() - shapes)
            raise ValueError(
                f"tensors do not fit {self}: missing {missing}, unknown {unknown}; found "
                f"{sorted(weights)}, expected {sorted(shapes)}"
            )
        for name, shape in shapes.items():
            _check_tensor(name, weights[name], shape, self.dtype)


class LayerStack(NamedTuple):
    """Layers that are solved together along time.

    Attributes
    ----------
    options : RecurrenceOptions
        Shapes of the layers.
    part : slice
        Their part of the network's flat parameters.
    rows : slice
        Their rows among the states of all layers and directions, in torch's order.
    """

    options: RecurrenceOptions
    part: slice
    rows: slice


def layer_stacks(options: RecurrenceOptions, *, bidirectional: bool) -> list[list[LayerStack]]:
    """Return the layers of each stage: one stack for each direction.

    In one direction all layers are one stage. In two directions each layer is a stage, because the
    next layer takes the states of both directions.
    """
    if not bidirectional:
        part = slice(0, num_entries(options.shapes()))
        return [[LayerStack(options, part, slice(0, options.layers))]]
    stages, begin, width = [], 0, options.num_features
    for row in range(0, 2 * options.layers, 2):
        layer = replace(options, layers=1, num_features=width)
        size, width = num_entries(layer.shapes()), 2 * options.hidden
        forward = LayerStack(layer, slice(begin, begin + size), slice(row, row + 1))
        begin += 2 * size
        reverse = LayerStack(layer, slice(begin - size, begin), slice(row + 1, row + 2))
        stages.append([forward, reverse])
    return stages


def _matrix(weights: Mapping[str, Array], name: str) -> Array:
    """Return the tensor from which shapes are derived."""
    if name not in weights:
        raise ValueError(f"missing {name!r}; found {sorted(weights)}")
    if weights[name].ndim != 2 or 0 in weights[name].shape:
        raise ValueError(f"{name!r} must be a matrix, got shape {weights[name].shape}")
    return weights[name]


def _num_layers(weights: Mapping[str, Array]) -> int:
    matches = (re.match(r"weight_ih_l(\d+)", name) for name in weights)
    return 1 + max(int(match[1]) for match in matches if match)


def _check_tensor(name: str, tensor: Array, shape: tuple[int, ...], dtype: str) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name!r} must have shape {shape}, got {tensor.shape}")
    if tensor.dtype != np.dtype(dtype):
        raise ValueError(f"{name!r} must be of {dtype}, got {tensor.dtype}")
    wrong = tensor.size - int(np.isfinite(tensor).sum())
    if wrong:
        raise ValueError(f"{name!r} holds {wrong} numbers that are NaN or inf, of {tensor.size}")
