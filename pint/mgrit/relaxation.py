"""F- and C-relaxation of one level."""

from __future__ import annotations

from pint.drivers.driver import Driver
from pint.grid.level import Level
from pint.grid.slots import shifted
from pint.mgrit.fas import restrict


def f_relax(level: Level, driver: Driver) -> None:
    """Apply F-relaxation: step from every C-point through the F-points behind it.

    The intervals that start at own C-points need no message. If the block starts inside an
    interval, the remaining steps come last, when the ghost point has arrived. Afterwards the ghost
    point is up to date. Nothing is done where the F-points already follow from the C-points.
    """
    if level.relaxed:
        return
    level.relaxed = True
    if not level.block:
        return
    with level.watch.phase("relaxation", level.index):
        arriving = level.receive_ghost()
        ends_with_own = level.first_c < level.num_slots
        leaving = level.send_last() if level.ends_with_c else None
        if ends_with_own:
            for starts, length in level.intervals:
                driver.sweep(level, starts, length)
            if not level.ends_with_c:
                leaving = level.send_last()
        level.wait(arriving)
        if level.block.start > 0:
            driver.chain(level, 0, level.first_c - 1)
        if not ends_with_own:
            leaving = level.send_last()
        level.wait(leaving)


def c_relax(level: Level, driver: Driver) -> None:
    """Apply C-relaxation: step from the last F-point of every interval to the next C-point.

    With a weight the residual is computed first: u_C <- u_C + w r_C. So it is where C-points are
    neighbours, because one step would read the result of another. The residual of Richardson
    extrapolation takes a coarse step too.
    """
    with level.watch.phase("relaxation", level.index):
        extrapolation = level.richardson
        if extrapolation is not None and extrapolation.relaxes:
            driver.residual(level, level.c_steps, level.c_rows.start)
            restrict(level, extrapolation.coarse, driver)
            level.u[level.c_steps] += level.relax_weight * extrapolation.r
        elif level.block and isinstance(level.m, int) and level.m == level.relax_weight == 1:
            driver.relax_all_points(level)
        elif level.block and level.relaxes_by_residual:
            driver.residual(level, level.c_steps, level.c_rows.start)
            driver.add_residual(level)
        elif level.block:
            driver.sweep(level, shifted(level.c_steps, -1), 1)
    level.relaxed = False


def relax(level: Level, driver: Driver) -> None:
    """Relax by (F C)^nu F with the level's number nu of CF-sweeps."""
    for _ in range(level.relax):
        f_relax(level, driver)
        c_relax(level, driver)
    f_relax(level, driver)


def step_in_turn(level: Level, driver: Driver) -> None:
    """Solve a level by stepping through the blocks of the ranks, one rank after another."""
    if not level.block:
        return
    level.wait(level.receive_ghost())
    begin = level.targets.start - 1
    driver.chain(level, begin, level.num_slots - 1 - begin)
    level.wait(level.send_last())
