"""How many inputs of the sequences each rank binds in a step of training."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import lcm, prod

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.solver import AdjointSolver
from pint.grid.hierarchy import Hierarchy
from pint.mgrit.solver import MGRIT
from pint.options import MGRITOptions
from pint.propagator import Step
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions


class InputCounts:
    """Counts the inputs that ranks read in both solves, means among them, each once.

    Parameters
    ----------
    layers : RecurrenceOptions
        Whose steps read them.
    forward : MGRIT
        The forward solver.
    adjoint : AdjointSolver
        Its adjoint.
    move : callable
        Puts both solvers in the place of a rank.
    """

    def __init__(
        self,
        layers: RecurrenceOptions,
        forward: MGRIT,
        adjoint: AdjointSolver,
        move: Callable[[int], None],
    ) -> None:
        self.model = Recurrence(layers)
        self.forward, self.adjoint, self.move = forward, adjoint, move

    def of_all_ranks(self) -> NDArray[np.int64]:
        """Return the number of inputs of each rank; one of those in like places is counted."""
        _, first, kinds = np.unique(self._places(), axis=0, return_index=True, return_inverse=True)
        counts = np.array([self._of_rank(rank) for rank in first.tolist()])
        found: NDArray[np.int64] = counts[kinds.reshape(-1)]
        return found

    def _places(self) -> NDArray[np.int64]:
        """Return, for each rank, what its number of inputs depends on.

        That is the length of its block, its place between points that all levels have, and how far
        it is from the ends, as far as its coarse steps reach.
        """
        bounds, num_steps = self.forward.layout.bounds, self.forward.grid.num_steps
        solves = (self.forward.options, self.adjoint.solver.options)
        spacing = lcm(*(_spacing(options, num_steps) for options in solves))
        reach = spacing * (1 + max(options.local_points or 1 for options in solves))
        begins, ends = bounds[:-1], bounds[1:]
        columns = (
            ends - begins,
            begins % spacing,
            np.minimum(begins, reach),
            np.minimum(bounds[-1] - ends, reach),
        )
        return np.stack(columns, axis=1)

    def _of_rank(self, rank: int) -> int:
        self.move(rank)
        own = self._read(self._steps(shared=False))
        places = np.searchsorted(self._shared, own)
        return self._shared.size - 1 + int((self._shared[places] != own).sum())

    @cached_property
    def _shared(self) -> NDArray[np.int64]:
        """What every rank reads, and one number more, greater than any."""
        return np.append(self._read(self._steps(shared=True)), np.iinfo(np.int64).max)

    def _steps(self, *, shared: bool) -> list[Step]:
        """Return the steps in both solves that every rank takes, or all others of this rank."""
        forward, adjoint = self.forward.hierarchy, self.adjoint.solver.hierarchy
        steps: list[Step] = []
        for hierarchy, stacks in (
            (forward, forward.own_steps()),
            (adjoint, self.adjoint.own_steps()),
        ):
            num_own = len(stacks) - _is_shared(hierarchy)
            steps += stacks[num_own:] if shared else stacks[:num_own]
        return steps

    def _read(self, stacks: list[Step]) -> NDArray[np.int64]:
        """Return a number for each input, in order."""
        windows = self.model.input_windows(*stacks)
        numbers: NDArray[np.int64] = windows[:, 1] * (self.forward.grid.num_steps + 1)
        return numbers + windows[:, 0]


def _spacing(options: MGRITOptions, num_steps: int) -> int:
    """Return the steps between points of the coarsest level."""
    return prod(int(np.max(m)) for m in options.factors(num_steps))


def _is_shared(hierarchy: Hierarchy) -> bool:
    """Return whether all ranks take all steps of the coarsest level."""
    return hierarchy.gathers_coarsest and hierarchy.options.local_points is None
