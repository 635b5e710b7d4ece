"""The compiled driver: whole sweeps in machine code, around a kernel that the propagator names."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numba.core.registry import CPUDispatcher
from numpy.typing import NDArray

from pint.arrays import empty
from pint.drivers import operations as sweeps
from pint.drivers.driver import Driver
from pint.drivers.loop import LoopDriver
from pint.drivers.replay import Line, RecordedCycle
from pint.drivers.stack import StackDriver
from pint.grid.hierarchy import Hierarchy
from pint.grid.level import Level
from pint.grid.slots import Slots, even_runs, slots_of
from pint.parallel.once import once
from pint.propagator import CoarsensSpace, HasNorm, Propagator, State, declared, has, kernel_of

SPLIT = 1 << 15
"""Numbers that an operation must set before it is worth several threads."""


class CompiledDriver(Driver):
    """Run whole sweeps in one compiled loop around the propagator's kernel.

    On one rank and thread, a cycle is recorded the first time, and is a single call from then on.

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
        self._table = np.zeros((2, sweeps.SHAPE + 1), dtype=np.int64)
        self._line = np.zeros((1, sweeps.NUM_FIELDS), dtype=np.int64)
        self._recording: RecordedCycle | None = None

    def compile(self) -> None:  # noqa: D102
        shape, dtype = declared(self.propagator)
        if shape is not None and dtype is not None:
            self._compile(dtype, len(shape))

    def _compile(self, dtype: np.dtype[Any], ndim: int) -> None:
        """Compile for states of this dtype and number of dimensions."""
        self._compiled = _program_of(self.kernel, dtype, ndim)
        self._plain = sweeps.plain_operations(dtype)
        self._params = [self.propagator.kernel_params() for _ in range(self.threads)]
        size = int(self._table[:, sweeps.SIZE].max())
        self._scratch = [empty((size,), dtype) for _ in range(self.threads)]
        self._run(self._line[:0])
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
        self._table = np.array([*rows, [0] * len(rows[0])], dtype=np.int64)
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
            self._cannot_record()
            super().measure(level)
        else:
            self._do(sweeps.NORM, level, range(level.c_rows.start, level.c_rows.stop))

    def measure_f_points(self, level: Level) -> None:  # noqa: D102
        self._cannot_record()
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
            self._cannot_record()
            super().restrict_state(level, coarse)

    def restrict_residual(self, level: Level, coarse: Level) -> None:  # noqa: D102
        if not self._copies:
            self._cannot_record()
            super().restrict_residual(level, coarse)

    def correct(self, level: Level, coarse: Level) -> None:  # noqa: D102
        if self._copies:
            self._do_at(sweeps.CORRECT, level, level.c_points, 1)
        else:
            self._cannot_record()
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
            recorded: RecordedCycle = hierarchy.recorded[key]
            with hierarchy.watch.phase("cycle"):
                self._run(recorded.program)
            for level, relaxed in zip(levels, recorded.relaxed, strict=True):
                level.relaxed = relaxed
        else:
            recorded = self._record(cycle, hierarchy)
            if recorded.complete:
                hierarchy.recorded[key] = recorded
        for level in levels:
            self._count(level, recorded.num_steps.get(level.index, 0))

    def _record(self, cycle: Callable[[Hierarchy], None], hierarchy: Hierarchy) -> RecordedCycle:
        """Run a cycle operation by operation, and return what it did."""
        alone = hierarchy.comm.size == self.threads == 1
        copies = hierarchy.options.periodic or hierarchy.gathered is not None  # in Python
        recorded = RecordedCycle(complete=alone and not copies)
        before, self.num_steps = self.num_steps, recorded.num_steps
        self._recording = recorded
        try:
            cycle(hierarchy)
        finally:
            self.num_steps, self._recording = before, None
        recorded.relaxed = tuple(level.relaxed for level in hierarchy.levels)
        recorded.finish()
        return recorded

    def _cannot_record(self) -> None:
        """Mark the cycle that is being recorded as one with operations in Python."""
        if self._recording is not None:
            self._recording.complete = False

    def _run(self, program: NDArray[np.int64], thread: int = 0) -> None:
        """Run a program with the parameters and memory of a thread."""
        scratch = int(self._scratch[thread].ctypes.data)
        self._compiled(program, self._table, self._params[thread], scratch, self._plain)

    def _do_at(self, code: int, level: Level, slots: Slots, first_row: int) -> None:
        """Carry out an operation between slots of a level and consecutive rows of the next one."""
        for before, run in even_runs(slots, level.num_slots):
            self._do(code, level, run, first_row + before)

    def _do(self, code: int, level: Level, slots: range, more: int = 0) -> None:
        """Carry out one operation, and record it."""
        if not slots:
            return
        line = (code, level.row, slots.start, slots.stop, slots.step, more)
        if self._recording is not None:
            self._recording.lines.append(line)
        if self._pool is not None and self._is_large(line):
            list(self._pool.map(self._run, _split(line, self.threads), range(self.threads)))
        else:
            self._line[0] = line
            self._run(self._line)

    def _is_large(self, line: Line) -> bool:
        code, row, begin, end, stride, more = line
        per_place = (more if code == sweeps.SWEEP else 1) * self._table[row, sweeps.SIZE]
        return code != sweeps.CHAIN and (end - begin) // stride * per_place >= SPLIT


@once
def _program_of(kernel: Any, dtype: np.dtype[Any], ndim: int) -> sweeps.Run:
    return sweeps.compile_program(kernel, dtype, ndim)


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
    """Split an operation into programs of equal length up to one slot; some may be empty."""
    code, row, begin, end, stride, more = line
    num = len(range(begin, end, stride))
    bounds = [num * part // parts for part in range(parts + 1)]
    lines = [
        (
            code,
            row,
            begin + first * stride,
            min(begin + last * stride, end),
            stride,
            more if code == sweeps.SWEEP else more + first,
        )
        for first, last in pairwise(bounds)
    ]
    return [np.array([part], dtype=np.int64) for part in lines]
