"""Options of a recurrent network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from pint.options import PerLevel, at_least, one_of, per_level
from pint.rnn.cells import CELLS, CellName
from pint.rnn.coarse_step import CoarseStep, GateEvaluation, gate_evaluations
from pint.rnn.parameters import layer_shapes


@dataclass(frozen=True, kw_only=True)
class RecurrenceOptions:
    """Shape and time step of a stack of recurrent layers.

    Parameters
    ----------
    num_features : int
        Width of the input.
    hidden : int, default 100
        Width H of a layer.
    layers : int, default 1
        Number of layers; each takes the new state of the layer below as its input.
    cell : {"implicit", "classic", "lstm"}, default "implicit"
        The implicit gated recurrent unit h' = (h + a n) / (1 + a), a = 1 - z; the classic one, as
        torch.nn.GRU, h' = z h + (1 - z) n; or the long short-term memory, as torch.nn.LSTM.
    coarse_step : {"averaged", "midpoint", "matched", "implicit"}, default "averaged"
        What a coarse step does, see `pint.rnn.coarse_step.gate_evaluations`; "implicit" needs the
        implicit unit.
    substep : int or tuple of int, default 4
        Greatest number of finest steps that a part of a midpoint or averaged step covers; a tuple
        gives it level by level, from the first coarse one.
    dtype : dtype, default float32
        float32 or float64.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    num_features: int
    hidden: int = 100
    layers: int = 1
    cell: CellName = "implicit"
    coarse_step: CoarseStep = "averaged"
    substep: PerLevel = 4
    dtype: DTypeLike = np.float32

    def __post_init__(self) -> None:
        at_least("num_features", self.num_features, 1)
        at_least("hidden", self.hidden, 1)
        at_least("layers", self.layers, 1)
        at_least("substep", self.substep, 1)
        one_of("cell", self.cell, tuple(CELLS))
        one_of("coarse_step", self.coarse_step, ("averaged", "midpoint", "matched", "implicit"))
        if self.cell != "implicit" and self.coarse_step == "implicit":
            raise ValueError("coarse_step 'implicit' needs cell 'implicit'; use 'averaged'")
        if np.dtype(self.dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"dtype must be float32 or float64, got {np.dtype(self.dtype)}")

    def evaluations_of(self, level: int, num_fine: int) -> tuple[GateEvaluation, ...]:
        """Return the gate evaluations of a step on `level` that covers `num_fine` finest steps."""
        substep = per_level(self.substep, max(level - 1, 0))
        return gate_evaluations(num_fine, self.coarse_step, substep)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the tensors, as in torch.nn.GRU or torch.nn.LSTM."""
        num_gates = CELLS[self.cell].num_gates
        return layer_shapes(num_gates, self.num_features, self.hidden, self.layers)
