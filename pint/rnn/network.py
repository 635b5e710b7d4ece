"""Recurrent networks: layers in one or both directions, and a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import at_least
from pint.rnn.architecture import Architecture, Pooling
from pint.rnn.parameters import num_entries, uniform, views
from pint.rnn.recurrence import RecurrenceOptions

Array = NDArray[Any]


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

    def stages(self) -> list[list[tuple[RecurrenceOptions, slice]]]:
        """Return the sweeps along time: those of a stage, one for each direction, run side by side.

        Each is given by its layers and its part of `parameters`. In one direction all layers make
        one stage; in two, each layer does, because the next one needs both directions.
        """
        if not self.architecture.bidirectional:
            return [[(self.options, slice(0, num_entries(self.options.shapes())))]]
        stages, begin, width = [], 0, self.options.num_features
        for _ in range(self.options.layers):
            layer = replace(self.options, layers=1, num_features=width)
            size, width = num_entries(layer.shapes()), 2 * self.options.hidden
            stages.append(
                [(layer, slice(begin + d * size, begin + (d + 1) * size)) for d in (0, 1)]
            )
            begin += 2 * size
        return stages
