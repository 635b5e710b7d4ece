"""Cycles that are noted down, and done again as a single call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from pint.drivers.clock import clock_address
from pint.drivers.operations import FIRST_PART, LAST_TICK, NUM_FIELDS, TICK
from pint.drivers.tiling import Line, tiled
from pint.stopwatch import Stopwatch

BRIEF = 1e-2
"""Seconds below which a cycle is one event: its parts would cost a percent of it."""


@dataclass(eq=False)
class Tape:
    """What a cycle did.

    Attributes
    ----------
    lines : list of Line
        Operations, each followed by the number of the part that it belongs to.
    parts : list of (str, int)
        Phase and level of operations that follow one another.
    num_steps : dict of int to int
        Steps by level.
    relaxed : tuple of bool
        Which levels were left relaxed.
    complete : bool
        Whether that is all that it did.
    even : bool
        Whether all C-points are evenly spaced.
    seconds : float
        How long it took, operation by operation.
    """

    lines: list[Line] = field(default_factory=list)
    parts: list[tuple[str, int]] = field(default_factory=list)
    num_steps: dict[int, int] = field(default_factory=dict)
    relaxed: tuple[bool, ...] = ()
    complete: bool = True
    even: bool = True
    seconds: float = 0.0

    def note(self, line: Line, part: tuple[str, int]) -> None:
        """Note an operation down, and the phase and level that it belongs to."""
        if not self.parts or self.parts[-1] != part:
            self.parts.append(part)
        self.lines.append((*line, len(self.parts) - 1))


class Replay:
    """A cycle as a single call.

    Parameters
    ----------
    tape : Tape
        What the cycle did on one rank that owns all points.
    bytes_per_state : int
        What a point takes in memory.
    """

    def __init__(self, tape: Tape, bytes_per_state: int) -> None:
        self.tape = tape
        self._seconds = tape.seconds  # the least so far
        self._lines = tiled(tape.lines, bytes_per_state) if tape.even else tape.lines
        self._program = _array(self._lines)
        self._ticks = np.zeros(FIRST_PART + len(tape.parts), dtype=np.int64)

    def play(self, run: Callable[[NDArray[np.int64]], None], watch: Stopwatch) -> None:
        """Replay the cycle, and record it in a stopwatch.

        Parameters
        ----------
        run : callable
            Runs a program.
        watch : Stopwatch
            Records the parts, or only the phase "cycle" if it is short.
        """
        if watch.recording is None:
            run(self._program)
        elif self._seconds < BRIEF or not clock_address():
            with watch.phase("cycle"):
                run(self._program)
        else:
            self._play_by_parts(run, watch)

    def _play_by_parts(self, run: Callable[[NDArray[np.int64]], None], watch: Stopwatch) -> None:
        """Do the cycle with a look at the clock after each piece of a part."""
        program, begin = self._ticking_program, time.perf_counter_ns()
        self._ticks[FIRST_PART:] = 0
        self._ticks[LAST_TICK] = begin
        run(program)
        nanoseconds = self._ticks.tolist()[FIRST_PART:]
        watch.charge(self.tape.parts, begin, nanoseconds)
        self._seconds = min(self._seconds, sum(nanoseconds) / 1e9)

    @cached_property
    def _ticking_program(self) -> NDArray[np.int64]:
        return _array(list(_with_ticks(self._lines, self._ticks)))


def _with_ticks(lines: list[Line], ticks: NDArray[np.int64]) -> Iterator[Line]:
    """Yield operations, and a tick where the next one belongs to another part."""
    clock = (clock_address(), ticks.ctypes.data, time.CLOCK_MONOTONIC)
    for part, piece in groupby(lines, key=itemgetter(-1)):
        yield from piece
        yield TICK, 0, *clock, part


def _array(lines: list[Line]) -> NDArray[np.int64]:
    rows = [line[:NUM_FIELDS] for line in lines]
    return np.array(rows, dtype=np.int64).reshape(-1, NUM_FIELDS)
