"""Events of ranks over time as arrays, measured or simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """Events of ranks over time, measured or simulated: one entry of each array is one event.

    Two events of a rank are nested or disjoint, like calls of functions.

    Parameters
    ----------
    rank : array_like of int, shape (n,)
        Rank of each event.
    phase : array_like of str, shape (n,)
        Phase of each event.
    level, iteration : array_like of int, shape (n,)
        Level (0 is the finest) and cycle; for whole batches the number of the update; -1 without a
        level or cycle.
    begin, end : array_like of float, shape (n,)
        Seconds since a common time.

    Raises
    ------
    ValueError
        If shapes differ, or an event ends before it begins.

    Examples
    --------
    >>> events = Events(rank=[0, 0], phase=["relaxation", "messages"], level=[0, 0],
    ...                 iteration=[0, 0], begin=[0.0, 2.0], end=[5.0, 3.0])
    >>> {phase: seconds.tolist() for phase, seconds in events.seconds().items()}
    {'messages': [1.0], 'relaxation': [4.0]}
    """

    rank: NDArray[np.int64]
    phase: NDArray[np.str_]
    level: NDArray[np.int64]
    iteration: NDArray[np.int64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]

    def __post_init__(self) -> None:
        for field, kind in zip(fields(self), (int, str, int, int, float, float), strict=True):
            object.__setattr__(self, field.name, np.asarray(getattr(self, field.name), dtype=kind))
            shape = getattr(self, field.name).shape
            if shape != (self.rank.size,):
                raise ValueError(f"{field.name} has shape {shape}, expected {(self.rank.size,)}")
        if not (self.end >= self.begin).all():
            raise ValueError("an event ends before it begins")

    @property
    def num_ranks(self) -> int:
        """The greatest rank plus one."""
        return int(self.rank.max(initial=-1)) + 1

    def rows(self) -> Iterator[tuple[int, str, int, int, float, float]]:
        """Yield the events with plain numbers, in the order of the fields."""
        columns = (getattr(self, field.name).tolist() for field in fields(self))
        return zip(*columns, strict=True)

    def innermost(self) -> Events:
        """Return disjoint pieces: at each time the innermost event of a rank; new."""
        order = np.lexsort((-self.end, self.begin, self.rank))
        begin, end, rank = self.begin.tolist(), self.end.tolist(), self.rank.tolist()
        pieces: list[tuple[int, float, float]] = []
        inside: list[int] = []
        since = 0.0

        def leave(now: float, last_rank: int) -> None:
            """Advance to a time, and leave the events that have ended by then."""
            nonlocal since
            while inside and (end[inside[-1]] <= now or rank[inside[-1]] != last_rank):
                pieces.append((inside[-1], since, end[inside[-1]]))
                since = max(since, end[inside.pop()])
            if inside:
                pieces.append((inside[-1], since, now))
            since = now

        for event in order.tolist():
            leave(begin[event], rank[event])
            inside.append(event)
        leave(np.inf, -1)
        kept = [piece for piece in pieces if piece[2] > piece[1]]
        which = np.array([piece[0] for piece in kept], dtype=np.int64)
        return Events(
            rank=self.rank[which],
            phase=self.phase[which],
            level=self.level[which],
            iteration=self.iteration[which],
            begin=np.array([piece[1] for piece in kept]),
            end=np.array([piece[2] for piece in kept]),
        )

    def seconds(self) -> dict[str, NDArray[np.float64]]:
        """Return seconds by phase, (ranks,) each, without the time of inner events; new.

        For the events of one solve, these are the seconds of `Result.phases`.
        """
        pieces = self.innermost()
        phases, number = np.unique(pieces.phase, return_inverse=True)
        total = np.zeros((phases.size, self.num_ranks))
        np.add.at(total, (number, pieces.rank), pieces.end - pieces.begin)
        return dict(zip(phases.tolist(), total, strict=True))
