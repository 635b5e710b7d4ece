"""The compiled driver: whole sweeps in machine code, around a kernel that the propagator names."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numba.core.registry import CPUDispatcher
from numpy.typing import NDArray

from pint.drivers import operations as sweeps
from pint.drivers.driver import Driver
from pint.drivers.loop import LoopDriver
from pint.drivers.replay import Replay, Tape
from pint.drivers.stack import StackDriver
from pint.drivers.tiling import Line, items, num_items
from pint.grid.hierarchy import Hierarchy
from pint.grid.level import Level
from pint.grid.slots import Slots, even_runs, slots_of
from pint.parallel.once import once
from pint.propagator import CoarsensSpace, HasNorm, Propagator, State, declared, has, kernel_of

SPLIT = 1 << 15
"""Numbers that an operation must set before it is worth several threads."""


class CompiledDriver(Driver):
    """Runs whole sweeps in one compiled loop, with the propagator's kernel inlined.

    On one rank and thread, a cycle is noted down the first time, and is a single call from then on
    in which operations follow each other closely through the memory (`pint.drivers.tiling`).

    Parameters
    ----------
    propagator : Propagator
        The model, with a kernel.
    threads : int or None
        Threads that work on intervals side by side; None is one.

    Raises
    ------
    TypeError
        If the kernel is not a function compiled by Numba.
    """

    replays_cycles = True

    def __init__(self, propagator: Propagator, threads: int | None = None) -> None:
        # Threads of a library inside threads of ours would be more than the user asked for.
        super().__init__(propagator, blas_threads=None if threads is None else 1)
        self.kernel = kernel_of(propagator)
        if not isinstance(self.kernel, CPUDispatcher):
            raise TypeError(
                f"kernel must be a function compiled by numba.njit, got {self.kernel!r}"
            )
        self.threads = threads or 1
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        self._in_python = (StackDriver if propagator.batched else LoopDriver)(propagator)
        self._copies = not has(propagator, CoarsensSpace)
        self._table = np.zeros((1, sweeps.SHAPE + 1), dtype=np.int64)
        self._line = np.zeros((1, sweeps.NUM_FIELDS), dtype=np.int64)
        self._tape: Tape | None = None

    def compile(self) -> None:  # noqa: D102
        shape, dtype = declared(self.propagator)
        if shape is not None and dtype is not None:
            self._compile(dtype, len(shape))

    def _compile(self, dtype: np.dtype[Any], ndim: int) -> None:
        """Compile for states of this dtype and number of dimensions."""
        self._dtype = dtype
        self._run = _sweeps_of(self.kernel, dtype, ndim)
        self._params = [self.propagator.kernel_params() for _ in range(self.threads)]
        self._run(self._line[:0], self._table, self._params[0])
        sweeps.integer_digits(np.zeros(0))

    def attach(self, hierarchy: Hierarchy) -> None:
        """Note the addresses of the levels' arrays, and get the kernel's parameters.

        Raises
        ------
        TypeError
            If states are not NumPy arrays.
        """
        super().attach(hierarchy)
        levels = [*hierarchy.levels]
        if hierarchy.gathered is not None:
            levels.append(hierarchy.gathered)
        if not isinstance(levels[0].u, np.ndarray):
            raise TypeError(
                f"driver 'compiled' needs NumPy arrays, got {type(levels[0].u).__name__}: "
                "use driver 'loop' or 'stack'"
            )
        rows = [_row(level) for level in levels]
        self._table = np.array(rows, dtype=np.int64)
        self._compile(levels[0].u.dtype, levels[0].u.ndim - 1)

    def sweep(self, level: Level, starts: Slots, length: int) -> None:  # noqa: D102
        slots = slots_of(starts, level.num_slots)
        if length and len(slots):
            cut = max(int(slots[-1]) + length - (level.num_slots - 1), 0)
            self._count(level, len(slots) * length - cut)
            for _, run in even_runs(starts, level.num_slots):
                self._do(sweeps.SWEEP, level, run, length)

    def chain(self, level: Level, begin: int, length: int) -> None:  # noqa: D102
        self._count(level, length)
        self._do(sweeps.CHAIN, level, range(begin, begin + length))

    def residual(self, level: Level, slots: Slots, first_row: int) -> None:  # noqa: D102
        self._count(level, len(slots_of(slots, level.num_slots)))
        self._do_at(sweeps.RESIDUAL_AT, level, slots, first_row)

    def measure(self, level: Level) -> None:  # noqa: D102
        if has(self.propagator, HasNorm):
            self._leave_tape()
            super().measure(level)
        else:
            self._do(sweeps.NORM, level, range(level.c_rows.start, level.c_rows.stop))

    def measure_f_points(self, level: Level) -> None:  # noqa: D102
        self._leave_tape()
        super().measure_f_points(level)

    def add_residual(self, level: Level) -> None:  # noqa: D102
        self._do_at(sweeps.ADD_RESIDUAL, level, level.c_steps, level.c_rows.start)

    def coarse_rhs(self, coarse: Level) -> None:  # noqa: D102
        self._count(coarse, coarse.num_slots - coarse.targets.start)
        self._do(sweeps.COARSE_RHS, coarse, range(coarse.targets.start, coarse.num_slots))

    def restrict_state(self, level: Level, coarse: Level) -> None:  # noqa: D102
        if self._copies:
            self._do_at(sweeps.RESTRICT, level, level.c_points, 1)
        else:
            self._leave_tape()
            super().restrict_state(level, coarse)

    def restrict_residual(self, level: Level, coarse: Level) -> None:  # noqa: D102
        if not self._copies:
            self._leave_tape()
            super().restrict_residual(level, coarse)

    def correct(self, level: Level, coarse: Level) -> None:  # noqa: D102
        if self._copies:
            self._do_at(sweeps.CORRECT, level, level.c_points, 1)
        else:
            self._leave_tape()
            super().correct(level, coarse)

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        return self._in_python.restrict(u, level)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        return self._in_python.interpolate(u, level)

    def digits(self, values: NDArray[np.float64]) -> NDArray[np.int64]:  # noqa: D102
        exact: NDArray[np.int64] = sweeps.integer_digits(values)
        return exact

    def run_cycle(  # noqa: D102
        self, name: str, cycle: Callable[[Hierarchy], None], hierarchy: Hierarchy
    ) -> None:
        levels = hierarchy.levels
        key = (name, *(level.relaxed for level in levels))
        if key in hierarchy.recorded:
            replay = hierarchy.recorded[key]
            tape = replay.tape
            replay.play(
                lambda program: self._run(program, self._table, self._params[0]), hierarchy.watch
            )
            for level, relaxed in zip(levels, tape.relaxed, strict=True):
                level.relaxed = relaxed
        else:
            tape = self._note_down(cycle, hierarchy)
            if tape.complete:
                bytes_per_state = int(self._table[0, sweeps.SIZE]) * self._dtype.itemsize
                hierarchy.recorded[key] = Replay(tape, bytes_per_state + 8)  # and the time
        for level in levels:
            self._count(level, tape.num_steps.get(level.index, 0))

    def _note_down(self, cycle: Callable[[Hierarchy], None], hierarchy: Hierarchy) -> Tape:
        """Go through a cycle operation by operation, and return what it did."""
        alone = hierarchy.comm.size == self.threads == 1
        copies = hierarchy.options.periodic or hierarchy.gathered is not None  # in Python
        tape = Tape(complete=alone and not copies)
        tape.even = all(isinstance(level.m, int) for level in hierarchy.levels)
        before, self.num_steps, self._tape = self.num_steps, tape.num_steps, tape
        begin = time.perf_counter()
        try:
            cycle(hierarchy)
        finally:
            self.num_steps, self._tape = before, None
        tape.seconds = time.perf_counter() - begin
        tape.relaxed = tuple(level.relaxed for level in hierarchy.levels)
        return tape

    def _leave_tape(self) -> None:
        """Stop the recording before an operation in Python."""
        if self._tape is not None:
            self._tape.complete = False

    def _do_at(self, code: int, level: Level, slots: Slots, first_row: int) -> None:
        """Carry out an operation between slots of a level and consecutive rows of the next one."""
        for before, run in even_runs(slots, level.num_slots):
            self._do(code, level, run, first_row + before)

    def _do(self, code: int, level: Level, slots: range, more: int = 0) -> None:
        """Carry out one operation, and note it down."""
        if not slots:
            return
        line = (code, level.row, slots.start, slots.stop, slots.step, more)
        if self._tape is not None:
            self._tape.note(line, level.watch.current)
        if self._pool is not None and self._is_large(line):
            work = zip(_split(line, self.threads), self._params, strict=True)
            list(self._pool.map(lambda part: self._run(part[0], self._table, part[1]), work))
        else:
            self._line[0] = line
            self._run(self._line, self._table, self._params[0])

    def _is_large(self, line: Line) -> bool:
        code, row, begin, end, stride, more = line
        per_place = (more if code == sweeps.SWEEP else 1) * self._table[row, sweeps.SIZE]
        return code != sweeps.CHAIN and (end - begin) // stride * per_place >= SPLIT


@once
def _sweeps_of(kernel: Any, dtype: np.dtype[Any], ndim: int) -> sweeps.Run:
    return sweeps.compile_sweeps(kernel, dtype, ndim)


def _row(level: Level) -> list[int]:
    """Return the row of a level in the table of levels."""
    shape = level.u.shape[1:]
    times = level.grid.times.ctypes.data + 8 * (level.block.start - 1)
    arrays = (_address(level.u), _address(level.g), times, _address(level.r))
    norms, weight = _address(level.norms), np.float64(level.relax_weight).view(np.int64)
    sizes = (level.num_slots, math.prod(shape), *(shape or (1,)))
    return [level.index, *arrays, norms, int(weight), *sizes]


def _address(array: Any) -> int:
    return 0 if array is None else int(array.ctypes.data)


def _split(line: Line, parts: int) -> list[NDArray[np.int64]]:
    """Split an operation into programs of about equal size; some may be empty."""
    num = num_items(line)
    bounds = [num * part // parts for part in range(parts + 1)]
    return [np.array([items(line, *pair)], dtype=np.int64) for pair in pairwise(bounds)]
