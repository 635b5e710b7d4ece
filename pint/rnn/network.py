"""Recurrent networks: layers in one or both directions, and a linear head."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import MGRITOptions, at_least, instance_of
from pint.parallel.comm import SerialCommunicator
from pint.rnn.architecture import Architecture, Pooling, layer_stacks
from pint.rnn.batch import Batch
from pint.rnn.cells import CellName
from pint.rnn.parameters import uniform, views
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.stage import Stage, forward_pass

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
        What the head takes from the top layer: its state after the whole sequence, its state at
        every time, or the mean of these states.
    bidirectional : bool, default False
        Each layer also runs from the end of the sequence to its beginning, and the next layer takes
        both states, as in torch. The state after the whole sequence is the state of each direction
        at its own end.
    learned_start : bool, default False
        The initial state is a parameter; zero otherwise.
    seed : int, default 0
        Seed of the initial parameters, all uniform in +-hidden^(-1/2) as in torch; a learned
        initial state begins at zero.

    Attributes
    ----------
    architecture : Architecture
        Layers and head, with names and shapes of the tensors.
    parameters : ndarray, shape (num_parameters,)
        All parameters, flat; optimizers change it in place.
    weights : dict of str to ndarray
        A view of `parameters` for each tensor.

    Examples
    --------
    >>> network = Network(RecurrenceOptions(num_features=2, hidden=4), num_outputs=3)
    >>> network
    Network(2 features > implicit 4 > last > 3 outputs, 111 parameters, float32)
    >>> network.predict(np.zeros((5, 10, 2))).shape
    (5, 3)
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
            Seed of the parameters, which `set_weights` replaces.

        Raises
        ------
        ValueError
            If the architecture has no head.
        """
        return cls(
            replace(architecture, bidirectional=False).recurrence_options(),
            architecture.num_outputs,
            pooling=architecture.pooling,
            bidirectional=architecture.bidirectional,
            learned_start=architecture.learned_start,
            seed=seed,
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        cell: CellName | None = None,
        pooling: Pooling | None = None,
    ) -> Network:
        """Return the network of a file of weights or of a run, with default coarse steps.

        Parameters
        ----------
        path, cell, pooling
            As in `pint.rnn.weights.load_architecture`.

        Raises
        ------
        ValueError
            If the file is damaged, has no head, or contradicts `cell` or `pooling`.
        OSError
            If the file cannot be read.

        Examples
        --------
        >>> network = Network.load("weights.safetensors")  # doctest: +SKIP
        """
        from pint.rnn.weights import load, load_architecture  # imports h5py

        network = cls.of(load_architecture(path, cell=cell, pooling=pooling))
        network.set_weights(load(path))
        return network

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all tensors and the architecture to a file; see `pint.rnn.weights.save`.

        Parameters
        ----------
        path : path-like
            ``*.safetensors``, ``*.h5`` or ``*.hdf5``; an existing file is replaced.
        """
        from pint.rnn.weights import save  # imports h5py

        save(path, self.weights, self.architecture)

    def set_weights(self, weights: Mapping[str, Array]) -> None:
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

    def predict(
        self, x: Array, mask: NDArray[np.bool_] | None = None, start: Array | None = None
    ) -> Array:
        """Return scores by exact time stepping, on this process alone; new.

        Parameters
        ----------
        x : ndarray, shape (B, T, num_features)
            Sequences.
        mask : ndarray of bool, shape (B, T), optional
            False where a sequence has no element; all True if left out.
        start : ndarray, shape (layers * directions, B, W), optional
            Initial state; the learned one, or zero, if left out.

        Returns
        -------
        ndarray, shape (B, num_outputs), or (B, T, num_outputs) where pooling is "every"
            Scores.

        Raises
        ------
        ValueError
            If shapes do not fit.
        FloatingPointError
            If a state is not finite.
        """
        given = (None if each is None else np.asarray(each) for each in (mask, start))
        a, batch, exact = self.architecture, Batch(np.asarray(x), *given), MGRITOptions(levels=1)
        num_steps = batch.x.shape[1] if batch.x.ndim == 3 else 0
        batch.check(a, num_steps, 0)
        stages = [
            Stage(stacks, self.parameters, num_steps, exact, exact, SerialCommunicator())
            for stacks in layer_stacks(self.options, bidirectional=a.bidirectional)
        ]
        state = batch.initial_state(a, self.weights.get("initial_state"))
        solved = forward_pass(stages, a.pooling, batch, state)
        if solved.error is not None:
            raise solved.error
        values: Any = solved.features.values
        scores = self.scores(values)
        return scores.swapaxes(0, 1) if a.pooling == "every" else scores

    def scores(self, features: Array) -> Array:
        """Return the head's output, shape (..., num_outputs), for features (..., D H)."""
        out: Array = features @ self.weights["head.weight"].T + self.weights["head.bias"]
        return out

    def __repr__(self) -> str:
        a = self.architecture
        both = " in both directions" if a.bidirectional else ""
        layers = " > ".join([f"{a.cell} {a.hidden}{both}"] * a.layers)
        return (
            f"Network({a.num_features} features > {layers} > {a.pooling} > {a.num_outputs} "
            f"outputs, {self.parameters.size} parameters, {a.dtype})"
        )
