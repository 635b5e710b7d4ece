"""Record the phases of this rank, and merge the events of all ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import Token
from pathlib import Path
from typing import Any

import numpy as np

from pint.parallel.comm import as_communicator
from pint.stopwatch import RECORDING, Mark
from pint.timeline.clocks import clock_offset
from pint.timeline.events import Events
from pint.timeline.figure import save_figure
from pint.timeline.trace import write_trace


class Timeline:
    """Records the phases of solves and of training in a ``with`` block on this rank.

    Every solve in the block is recorded, forward or adjoint, alone or inside training or windows.
    Several blocks may follow one another. Threads that begin in the block are not
    recorded. A cycle that the compiled driver replays is an event for each phase of each level,
    laid one after another, or a single one if it is short.

    Parameters
    ----------
    comm : mpi4py communicator or Communicator, optional
        The ranks whose events are merged; None is one process.

    Examples
    --------
    >>> from pint import MGRIT, MGRITOptions, TimeGrid
    >>> from pint.models.dahlquist import Dahlquist
    >>> solver = MGRIT(Dahlquist(-1.0), TimeGrid.uniform(0, 5, 64), MGRITOptions(max_iterations=2))
    >>> with Timeline() as timeline:
    ...     result = solver.solve(1.0)
    >>> events = timeline.events()
    >>> sorted(set(events.phase[events.level == 1].tolist()))
    ['coarsest level']
    """

    def __init__(self, comm: Any = None) -> None:
        self.comm = as_communicator(comm).duplicate()
        self.marks: list[Mark] = []
        self._tokens: list[Token[list[Mark] | None]] = []

    def __enter__(self) -> Timeline:
        self._tokens.append(RECORDING.set(self.marks))
        return self

    def __exit__(self, *error: object) -> None:
        RECORDING.reset(self._tokens.pop())

    def events(self) -> Events | None:
        """Return the events of all ranks on rank 0, None on the others; collective.

        Times are times of rank 0's clock. Ranks of one machine share it. Between machines this
        call measures the offset, see `clock_offset`. Open phases end now.
        """
        comm, rows = self.comm, _rows(self.marks, time.perf_counter())
        own = "\n".join({str(row[0]) for row in rows})
        names = sorted({name for text in comm.allgather_text(own) for name in text.split("\n")})
        numbers = {name: index for index, name in enumerate(names)}
        table = np.array([(comm.rank, numbers[name], *rest) for name, *rest in rows], dtype=float)
        if comm.num_hosts() > 1:
            table.reshape(-1, 6)[:, 4:] -= clock_offset(comm)[0]
        gathered = comm.gather_blocks(table.reshape(-1, 6))
        if gathered is None:
            return None
        rank, phase, level, iteration = gathered[:, :4].astype(np.int64).T
        return Events(
            rank=rank,
            phase=np.array(names)[phase],
            level=level,
            iteration=iteration,
            begin=gathered[:, 4],
            end=gathered[:, 5],
        )

    def write(self, path: str | Path) -> None:
        """Write a trace of all ranks, see `write_trace`; collective."""
        self._on_first_rank(lambda events: write_trace(path, events))

    def draw(self, path: str | Path) -> None:
        """Save a figure of all ranks over time, see `draw_events`; collective."""
        self._on_first_rank(lambda events: save_figure(path, events))

    def _on_first_rank(self, action: Callable[[Events], None]) -> None:
        events = self.events()
        with self.comm.collective():
            if events is not None:
                action(events)


Row = tuple[str, int, int, float, float]


def _rows(marks: list[Mark], now: float) -> list[Row]:
    """Return phase, level, iteration, begin and end of each event; open events end now."""
    rows: list[Row] = []
    inside: list[int] = []
    for mark in marks:
        if isinstance(mark, tuple):
            inside.append(len(rows))
            rows.append((*mark, now))
        else:
            which = inside.pop()
            rows[which] = (*rows[which][:-1], mark)
    return rows
