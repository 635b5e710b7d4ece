"""Recurrent networks: layers in one or both directions, and a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.options import at_least, instance_of
from pint.rnn.architecture import Architecture, Pooling
from pint.rnn.parameters import num_entries, uniform, views
from pint.rnn.recurrence_options import RecurrenceOptions

Array = NDArray[Any]


class LayerStack(NamedTuple):
    """Layers that are solved together, in one sweep along time.

    Attributes
    ----------
    options : RecurrenceOptions
        Their shapes.
    part : slice
        Their part of the network's flat parameters.
    rows : slice
        Their rows among the states of all layers and directions, in torch's order.
    """

    options: RecurrenceOptions
    part: slice
    rows: slice


class Network:
    """Parameters of recurrent layers with a linear head.

    Parameters
    ----------
    options : RecurrenceOptions
        The recurrent layers.
    num_outputs : int
        Width of the output: number of classes, or of predicted numbers.
    pooling : {"last", "every", "mean"}, default "last"
        What the head takes from the top layer: its state after the whole sequence, that at every
        time, or their mean.
    bidirectional : bool, default False
        Each layer also runs from the end of the sequence to its beginning, and the next one takes
        both states, as in torch. The state after the whole sequence is that of each direction at
        its own end.
    learned_start : bool, default False
        The initial state is a parameter; zero otherwise.
    seed : int, default 0
        Seed of the initial parameters, all uniform in +-hidden^(-1/2), as torch draws them; a
        learned initial state begins at zero.

    Attributes
    ----------
    architecture : Architecture
        What it is made of, and names and shapes of its tensors.
    parameters : ndarray, shape (num_parameters,)
        All parameters, flat; optimizers change it in place.
    weights : dict of str to ndarray
        A view of `parameters` for each tensor.
    """

    def __init__(
        self,
        options: RecurrenceOptions,
        num_outputs: int,
        *,
        pooling: Pooling = "last",
        bidirectional: bool = False,
        learned_start: bool = False,
        seed: int = 0,
    ) -> None:
        instance_of("options", options, RecurrenceOptions)
        instance_of("bidirectional", bidirectional, bool)
        instance_of("learned_start", learned_start, bool)
        at_least("num_outputs", num_outputs, 1)
        at_least("seed", seed, 0)
        self.options = options
        self.architecture = replace(
            Architecture.of(options, num_outputs),
            pooling=pooling,
            bidirectional=bidirectional,
            learned_start=learned_start,
        )
        shapes, rng = self.architecture.shapes, np.random.default_rng(seed)
        dtype = np.dtype(options.dtype)
        self.parameters: Array = uniform(shapes, options.hidden**-0.5, dtype, rng)
        self.weights = views(self.parameters, shapes)
        if learned_start:
            self.weights["initial_state"][...] = 0

    @classmethod
    def of(cls, architecture: Architecture, seed: int = 0) -> Network:
        """Return a network of an architecture, with default coarse steps.

        Parameters
        ----------
        architecture : Architecture
            For example ``pint.rnn.weights.load_architecture("weights.safetensors")``.
        seed : int, default 0
            Of its parameters, which `load` replaces.

        Raises
        ------
        ValueError
            If it has no head.
        """
        return cls(
            replace(architecture, bidirectional=False).recurrence_options(),
            architecture.num_outputs,
            pooling=architecture.pooling,
            bidirectional=architecture.bidirectional,
            learned_start=architecture.learned_start,
            seed=seed,
        )

    def load(self, weights: Mapping[str, Array]) -> None:
        """Copy tensors into the parameters, for example ``pint.open_run("run.h5").model``.

        Parameters
        ----------
        weights : mapping of str to ndarray
            All tensors, with the names and shapes of `architecture`.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape is wrong; nothing is changed then.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if shapes != self.architecture.shapes:
            raise ValueError(
                f"weights must have the shapes {self.architecture.shapes}, got {shapes}"
            )
        for name, tensor in weights.items():
            self.weights[name][...] = tensor

    def scores(self, features: Array) -> Array:
        """Return the head's output, shape (..., num_outputs), for features (..., D H)."""
        out: Array = features @ self.weights["head.weight"].T + self.weights["head.bias"]
        return out

    def stages(self) -> list[list[LayerStack]]:
        """Return what is solved along time: stage after stage, one stack for each direction.

        In one direction all layers make one stage; in two, each layer does, because the next one
        needs both directions.
        """
        if not self.architecture.bidirectional:
            part = slice(0, num_entries(self.options.shapes()))
            return [[LayerStack(self.options, part, slice(0, self.options.layers))]]
        stages, begin, width = [], 0, self.options.num_features
        for row in range(0, self.architecture.num_states, 2):
            layer = replace(self.options, layers=1, num_features=width)
            size, width = num_entries(layer.shapes()), 2 * self.options.hidden
            forward = LayerStack(layer, slice(begin, begin + size), slice(row, row + 1))
            begin += 2 * size
            reverse = LayerStack(layer, slice(begin - size, begin), slice(row + 1, row + 2))
            stages.append([forward, reverse])
        return stages
