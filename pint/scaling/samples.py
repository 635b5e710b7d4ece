"""Work that is timed where it happens: in the driver of a solver that really solves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pint.drivers.driver import Driver
from pint.grid.level import Level
from pint.grid.slots import slots_of
from pint.scaling.costs import Key, Table
from pint.scaling.dry_run import RECORDED


class WorkSamples:
    """Seconds of pieces of work, by solve, name, level and size.

    Attributes
    ----------
    total : float
        Seconds of all pieces since the last `begin`.
    count : int
        Number of pieces since then.
    spent : dict of (str, str) to float
        The total by solve and name.
    """

    def __init__(self) -> None:
        self._seconds: dict[Key, dict[int, dict[int, list[float]]]] = {}
        self._is_inside = False
        self.is_kept, self._run = True, 0
        self.begin()

    def begin(self) -> None:
        """Count and add up from now on, in a run of its own."""
        self._run += 1
        self.total, self.count = 0.0, 0
        self.spent: dict[tuple[str, str], float] = {}

    def add(self, key: Key, size: int, seconds: float) -> None:
        """Take in one piece of work."""
        if self.is_kept and size > 0:
            runs = self._seconds.setdefault(key, {}).setdefault(size, {})
            runs.setdefault(self._run, []).append(seconds)

    def tables(self) -> dict[Key, Table]:
        """Return the medians, over all runs, of the mean in a run.

        Sums of means equal the time of a run; sums of medians are less, since a piece of work is
        sometimes late, but never early.
        """
        tables = {}
        for key, by_size in self._seconds.items():
            sizes = sorted(by_size)
            means = [list(map(statistics.fmean, by_size[size].values())) for size in sizes]
            medians = list(map(statistics.median, means))
            tables[key] = Table(np.array(sizes, dtype=np.int64), np.array(medians))
        return tables

    def watch(self, owner: Any, method: str, describe: Callable[..., tuple[Key, int, int]]) -> None:
        """Time a method of an object from now on.

        Parameters
        ----------
        owner : object
            Whose method it is; that object alone is changed.
        method : str
            Its name.
        describe : callable
            Returns, for the method's arguments, the key, the size, and what to divide by.
        """
        original = getattr(owner, method)

        def timed(*arguments: Any, **more: Any) -> Any:
            if self._is_inside:  # part of another piece of work
                return original(*arguments, **more)
            self._is_inside = True
            begin = time.perf_counter()
            try:
                return original(*arguments, **more)
            finally:
                seconds = time.perf_counter() - begin
                self._is_inside = False
                key, size, times = describe(*arguments, **more)
                self.total += seconds
                self.count += 1
                self.spent[key[:2]] = self.spent.get(key[:2], 0.0) + seconds
                self.add(key, size, seconds / max(times, 1))

        setattr(owner, method, timed)

    def watch_driver(self, driver: Driver, solve: str, recording: int | None = None) -> None:
        """Time all operations of a driver, with the names and sizes of `DryRunDriver`."""

        def key(name: str, level: Level) -> Key:
            is_recorded = level.index == 0 and driver.iteration == recording
            return solve, name + RECORDED * is_recorded, level.index

        def swept(level: Level, starts: Any, length: int) -> tuple[Key, int, int]:
            slots = slots_of(starts, level.num_slots)
            cut = max(int(slots[-1]) + length - (level.num_slots - 1), 0) if len(slots) else 0
            return key("sweep", level), len(slots), length - (cut if len(slots) == 1 else 0)

        def chained(level: Level, begin: int, length: int) -> tuple[Key, int, int]:
            return key("chain", level), length, 1

        def at_slots(level: Level, slots: Any, first_row: int) -> tuple[Key, int, int]:
            return key("residual", level), len(slots_of(slots, level.num_slots)), 1

        def at_targets(coarse: Level) -> tuple[Key, int, int]:
            return key("coarse_rhs", coarse), coarse.num_slots - coarse.targets.start, 1

        def at_c_points(name: str) -> Callable[..., tuple[Key, int, int]]:
            return lambda level, *_: (
                key(name, level), level.c_rows.stop - level.c_rows.start, 1
            )  # fmt: skip

        def between(name: str) -> Callable[..., tuple[Key, int, int]]:
            return lambda level, coarse: (key(name, level), len(coarse.block), 1)

        def repeated(name: str, cycle: Any, hierarchy: Any) -> tuple[Key, int, int]:
            finest = hierarchy.levels[0]
            return (solve, name, 0), finest.num_slots, 1

        self.watch(driver, "sweep", swept)
        self.watch(driver, "chain", chained)
        self.watch(driver, "residual", at_slots)
        self.watch(driver, "coarse_rhs", at_targets)
        for name in ("measure", "add_residual"):
            self.watch(driver, name, at_c_points(name))
        for name in ("restrict_state", "restrict_residual", "correct"):
            self.watch(driver, name, between(name))
        if type(driver).run_cycle is not Driver.run_cycle:
            self.watch(driver, "run_cycle", repeated)


def median_seconds(
    action: Callable[[], object], repeats: int = 5, before: Callable[[], object] = lambda: None
) -> float:
    """Return the median seconds of some calls after a first one.

    Parameters
    ----------
    action : callable
        What is timed.
    repeats : int, default 5
        How often.
    before : callable, optional
        Called before each, and not timed.
    """
    action()
    seconds = []
    for _ in range(repeats):
        before()
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
