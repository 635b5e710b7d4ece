"""The MGRIT solver: checks, and the start of a solve."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import array_api_compat
import numpy as np

from pint.drivers.driver import Driver
from pint.grid.hierarchy import Hierarchy
from pint.grid.layout import Layout
from pint.grid.level import Level
from pint.grid.timegrid import TimeGrid, as_grid
from pint.mgrit.c_points import Composed, Trajectory, on_c_points
from pint.mgrit.corrections import make_corrected_driver
from pint.mgrit.guess import Guess, Random, fill, states_of
from pint.mgrit.iteration import Iteration
from pint.mgrit.refinement import check_refinement
from pint.mgrit.relaxation import step_in_turn
from pint.mgrit.result import Result, Visit
from pint.mgrit.richardson import add_richardson, check_model
from pint.mgrit.status import Status
from pint.options import MGRITOptions, instance_of
from pint.parallel.blas_threads import limited_blas
from pint.parallel.comm import as_communicator
from pint.propagator import (
    CoarsensSpace,
    HasResidual,
    Propagator,
    State,
    as_state,
    check_capabilities,
    declared,
    declares_states,
    has,
)
from pint.stopwatch import NOWHERE


class MGRIT:
    """Multigrid reduction in time for u_i = Phi_i(u_{i-1}) + g_i, u_0 given.

    Construction is collective over `comm`; solve as often as you like, also with states of another
    shape.

    Parameters
    ----------
    propagator : Propagator
        The model.
    grid : TimeGrid or array_like of float64, shape (N + 1,)
        Time points.
    options : MGRITOptions, optional
        How to iterate.
    comm : mpi4py communicator or Communicator, optional
        The ranks that share the work; None is one process. It is duplicated.
    layout : Layout, optional
        Which rank owns which points; evenly split if left out.
    driver : Driver, optional
        What takes the steps; the driver that the options name if left out.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, on every rank.

    References
    ----------
    Falgout, Friedhoff, Kolev, MacLachlan, Schroder, "Parallel time integration with multigrid",
    SIAM J. Sci. Comput. 36 (2014), C635-C661.

    Examples
    --------
    >>> from pint.models.dahlquist import Dahlquist
    >>> solver = MGRIT(Dahlquist(-1.0), TimeGrid.uniform(0, 50, 100),
    ...                MGRITOptions(levels=3, coarsening=4, tolerance=1e-9))
    >>> result = solver.solve(1.0)
    >>> bool(abs(result.u[2] - (2 / 3) ** 2) < 1e-9)
    True
    """

    def __init__(
        self,
        propagator: Propagator,
        grid: TimeGrid | Any,
        options: MGRITOptions | None = None,
        comm: Any = None,
        layout: Layout | None = None,
        driver: Driver | None = None,
    ) -> None:
        if not isinstance(propagator, Propagator):
            raise TypeError(f"propagator must be a Propagator, got {type(propagator).__name__}")
        check_capabilities(propagator)
        self.propagator = propagator
        self.grid = as_grid(grid)
        self.options = MGRITOptions() if options is None else options
        instance_of("options", self.options, MGRITOptions)
        self.comm = as_communicator(comm).duplicate()
        self._check_same_problem()
        self.model, self.fine_grid, self.given = propagator, self.grid, self.options
        self.keeps_all = self.options.storage == "all"
        if not self.keeps_all:
            composed = on_c_points(propagator, self.grid, self.options)
            self.propagator, self.grid, self.options = composed
            layout = None if layout is None else layout.coarsen(composed[0].m)
        factors = self.options.factors(self.grid.num_steps)
        if layout is None:
            layout = Layout.balanced(self.grid.num_steps, self.comm.size, factors)
        layout.check(self.grid.num_steps, self.comm.size)
        begin = time.perf_counter()
        self.driver = self._make_driver() if driver is None else driver
        self.compile_seconds = time.perf_counter() - begin
        self.hierarchy = Hierarchy.build(self.grid, layout, self.options, self.comm)
        add_richardson(self.hierarchy.levels, self.options)
        self._check_relaxation()
        self._check_order()
        check_refinement(self.propagator, self.options)
        self._checked = False
        self.value_name = "initial value"  # as error messages call it

    def _check_same_problem(self) -> None:
        """Raise on every rank unless all have the same times and options; collective."""
        with self.comm.collective():
            if self.grid.level != 0:
                raise ValueError(f"grid must be a finest grid, got one of level {self.grid.level}")
        key = zlib.crc32(repr(self.options).encode(), zlib.crc32(self.grid.times.data))
        if np.unique(self.comm.allgather_blocks(np.array([key]))).size > 1:
            raise ValueError("the ranks differ in their times or options: give all the same")

    def _make_driver(self) -> Driver:
        """Return the compiled driver; collective."""
        with self.comm.collective():
            driver = make_corrected_driver(self.propagator, self.options)
            driver.compile()
        return driver

    def _check_relaxation(self) -> None:
        """Raise where C-relaxation would add a residual that is not one of states."""
        adds = [level.index for level in self.hierarchy.levels if level.relaxes_by_residual]
        if adds and has(self.propagator, HasResidual):
            raise ValueError(
                f"C-relaxation on level {adds[0]} has a weight or C-points that are neighbours, "
                "which a propagator with a residual of its own does not allow"
            )

    def _check_order(self) -> None:
        """Raise where errors cannot be estimated."""
        if self.options.richardson is not None:
            check_model(self.propagator)
            if len(self.hierarchy.levels) == 1:
                raise ValueError(
                    f"richardson compares two levels, and {self.grid.num_steps} steps give one: "
                    "lower min_coarse or coarsening, or leave richardson out"
                )

    @property
    def layout(self) -> Layout:
        """Which rank owns which points of the finest level."""
        return self.hierarchy.levels[0].layout

    @property
    def block(self) -> range:
        """Points of the finest level that this rank owns."""
        return self.hierarchy.levels[0].block

    def solve(
        self,
        initial_value: State,
        guess: Guess = None,
        sources: State | None = None,
        on_iteration: Callable[[int, float], None] | None = None,
        on_visit: Callable[[Visit], None] | None = None,
        on_end: Callable[[Result], None] | None = None,
        *,
        max_iterations: int | None = None,
        skip_first_down: bool | None = None,
        out: State | None = None,
        error: Exception | None = None,
        local_status: bool = False,
    ) -> Result:
        """Solve for the states at all points; collective.

        Parameters
        ----------
        initial_value : array_like, shape state_shape
            u_0. The value on the rank that owns point 0 counts (rank 0 unless a layout is given);
            others only need its shape and dtype. In a periodic problem, on every rank, what all
            points begin with where `guess` is None.
        guess : None, float, array, callable, "sequential", Random or Result, optional
            States to begin with at the points after point 0: zero, a constant, one state, an array
            of one state for each own point (as `Result.u`), a function of time that returns a
            state, the solution by time stepping, random numbers, or the states of an earlier solve
            (interpolated linearly, where that was on other times: a solve on few points may so
            begin one on many). `skip_first_down` makes no use of it, and refuses the last three.
        sources : array, shape (number of own points, ...state_shape), optional
            Right-hand side g at this rank's points (point 0 is ignored); zero by default.
        on_iteration : callable, optional
            Called after each cycle with its number and its residual norm; `states` are those that
            it left.
        on_visit : callable, optional
            Called at the end of every visit to a level. Cycles are not replayed then.
        on_end : callable, optional
            Called with the result, before it is returned. All three are called on every rank, so
            that they may be collective.
        max_iterations, skip_first_down : optional
            Used for this solve in place of the options of the same names.
        out : array, shape (number of own points + 1, ...state_shape), optional
            Memory for the states, overwritten: `Result.u` is a view of it. A new array if left
            out. Its shape belongs to the finest level before any refinement.
        error : Exception, optional
            An error of this rank, which is raised on every rank before the first cycle.
        local_status : bool, default False
            Whether only this rank's states decide that a solve whose residuals are finite has
            diverged. It saves a message where the caller informs the other ranks.

        Returns
        -------
        Result
            States and how they were obtained.

        Raises
        ------
        TypeError, ValueError
            If shapes or dtypes do not fit, before any iteration and on every rank.
        RuntimeError
            If an error has ended an earlier solve on these ranks in the middle of a cycle.
        """
        self.comm.check_usable()
        begin = time.perf_counter()
        changes: Any = {
            name: value
            for name, value in (
                ("max_iterations", max_iterations),
                ("skip_first_down", skip_first_down),
            )
            if value is not None
        }
        options = replace(self.options, **changes)
        history = self._history = Iteration(self.hierarchy, self.driver, options, on_iteration)
        watch = self.hierarchy.watch
        watch.seconds, watch.iteration = {}, NOWHERE
        self.hierarchy.on_visit = _telling(on_visit, history)
        with watch.phase("rest"), limited_blas(self.driver.blas_threads):
            with watch.phase("start"):
                if isinstance(guess, Result):
                    guess = self._states_of(guess)
                agree = self._ranks_agree(initial_value)
                with self.comm.collective():
                    if error is not None:
                        raise error
                    if not agree:
                        raise ValueError(
                            f"the ranks differ in shape or dtype of the {self.value_name}: give "
                            "all the same"
                        )
                    self._check_guess(guess)
                    self._start(initial_value, guess, sources, out)
                self._checked = True
                if isinstance(guess, str):
                    with self.comm.exchange():
                        step_in_turn(self.hierarchy.levels[0], self.driver)
            status = history.run()
            if status is not Status.DIVERGED and not history.check_states(local=local_status):
                status = Status.DIVERGED
        whole, driver = history.hierarchy.whole, history.driver
        finest = whole.levels[0]
        if history.hierarchy is not whole:  # points were left alone on the way
            driver.reattach(whole)
        num_bytes = whole.num_bytes
        u, finest.u = finest.u, None
        del self._history  # with the arrays of refined levels
        correction = driver.correction
        result = Result(
            u=u[finest.shown],
            first=finest.first_shown,
            times=finest.grid.times,
            status=status,
            options=options if self.keeps_all else replace(self.given, **changes),
            detail=history.detail,
            residuals=np.array(history.residuals, dtype=np.float64),
            num_steps=driver.num_steps,
            coarsening=self.options.factors(finest.grid.num_steps),
            seconds=time.perf_counter() - begin,
            phases=watch.seconds,
            num_bytes=num_bytes,
            compile_seconds=self.compile_seconds,
            lyapunov=None if correction is None else correction.lyapunov(),
            error_estimates=history.error_estimates(),
            grid_steps=np.array(history.grid_steps),
            refinement_limit=history.refinement.limit,
            propagator=driver.propagator,
            layout=finest.layout.opened(),
            comm=self.comm,
        )
        if not self.keeps_all:
            result = self._with_trajectory(result)
        if on_end is not None:
            on_end(result)
        return result

    def _with_trajectory(self, result: Result) -> Result:
        """Return a result on C-points with what leads to all points, counted in fine steps."""
        m = cast(Composed, self.propagator).m
        trajectory = Trajectory(
            model=self.model,
            grid=self.fine_grid,
            m=m,
            u=result.u,
            layout=result.layout,
            comm=self.comm,
        )
        num_steps = {level: n * (m if level == 0 else 1) for level, n in result.num_steps.items()}
        coarsening = (m, *result.coarsening[1:])
        return replace(result, trajectory=trajectory, num_steps=num_steps, coarsening=coarsening)

    @property
    def states(self) -> State:
        """States at this rank's points, for callbacks; a view, to be read only, of this solve."""
        return self.finest.u

    @property
    def finest(self) -> Visit:
        """The finest level of this solve, for callbacks; after refinement it is the new grid."""
        level = self._history.hierarchy.whole.levels[0]
        return Visit(
            iteration=len(self._history.residuals) - 1,
            level=0,
            first=level.first_shown,
            times=level.grid.times,
            u=level.u[level.shown],
        )

    def _states_of(self, guess: Result) -> Any:
        """Return the states of a result as a guess; collective."""
        with self.comm.collective():
            self._check_guess(guess)
        return states_of(guess, self.hierarchy.levels[0])

    def _check_guess(self, guess: Guess) -> None:
        costly = isinstance(guess, str | Random | Result)
        if costly and len(self.hierarchy.levels) > 1 and not self._uses_guess:
            raise ValueError(
                "skip_first_down begins without a guess: set skip_first_down=False to use one"
            )
        shape = declared(self.propagator)[0]
        if isinstance(guess, Result) and shape not in (None, tuple(guess.u.shape[1:])):
            raise ValueError(
                f"guess is a result with states of shape {tuple(guess.u.shape[1:])}, expected "
                f"{shape}"
            )
        if isinstance(guess, str) and self.options.periodic:
            raise ValueError(
                "guess 'sequential' begins at an initial value, a periodic problem "
                "has none: give states, or a function of time"
            )

    def _start(
        self, initial_value: State, guess: Guess, sources: State | None, out: State | None
    ) -> None:
        """Check the input, then bring the levels' arrays to the state before iteration 0."""
        first = self._as_state(initial_value)
        self._check_transfers(first)
        has_sources = sources is not None
        self.hierarchy.allocate(first, self.driver.restrict, has_sources, out)
        self.driver.attach(self.hierarchy)
        self._check_step(first)
        self._fill(first, guess, sources)

    def _as_state(self, value: State) -> State:
        """Return an initial value as an array with the shape and dtype of the states."""
        what, (shape, _) = self.value_name, declared(self.propagator)
        value = as_state(self.propagator, value, what)
        if shape not in (None, tuple(value.shape)):
            raise ValueError(f"{what} has shape {tuple(value.shape)}, expected {shape}")
        if (0 in self.block or self.options.periodic) and not np.isfinite(np.asarray(value)).all():
            raise ValueError(f"{what} has NaN or inf")
        return value

    def _ranks_agree(self, value: State) -> bool:
        """Return whether all ranks have initial values of one shape and dtype; collective."""
        if declares_states(self.propagator):
            return True  # each rank checks its own
        try:
            state = as_state(self.propagator, value, self.value_name)
            kind = f"{tuple(state.shape)} {state.dtype}"
        except (TypeError, ValueError):  # raised again where all ranks raise
            kind = ""
        key = np.array([zlib.crc32(kind.encode())])
        return np.unique(self.comm.allgather_blocks(key)).size == 1

    def _check_transfers(self, first: State) -> None:
        """Try the transfers in space between levels, so that a wrong one is reported."""
        if self._checked or not has(self.propagator, CoarsensSpace):
            return
        model, xp = self.propagator, array_api_compat.array_namespace(first)
        state = xp.reshape(first, (1, *first.shape)) if model.batched else first
        for level in self.hierarchy.levels[:-1]:
            coarse = model.restrict(state, level.index)
            _check_array(coarse, state, f"restrict from level {level.index}")
            if model.batched and coarse.shape[:1] != (1,):
                raise ValueError(
                    f"restrict from level {level.index} returned shape {tuple(coarse.shape)} for a "
                    "stack of one state: keep the first axis"
                )
            back = model.interpolate(coarse, level.index)
            _check_state(back, state, f"interpolate to level {level.index}")
            state = coarse

    def _check_step(self, first: State) -> None:
        """Try each level's step once, so that a wrong one is reported before any message."""
        if self._checked:
            return
        xp = array_api_compat.array_namespace(first)
        state = xp.reshape(first, (1, *first.shape))
        driver = self.driver
        for level in self.hierarchy.levels:
            if level.index > 0:
                state = driver.restrict(state, level.index - 1)
            point = max(level.block.start, 1)
            if point not in level.block:
                continue  # no step of this rank
            if self.propagator.batched:
                like, step = state, level.grid.steps(slice(point, point + 1, 1))
            else:
                like, step = state[0, ...], level.grid.steps(point)
            given, what = xp.asarray(like, copy=True), f"step on level {level.index}"
            new = self.propagator.step(given, step)
            _check_state(new, like, what)
            if not bool(xp.all((given == like) | (like != like))):
                raise ValueError(f"{what} changed the state that it was given: return a new one")
            if 0 in level.block and not _is_finite(new):  # later steps start from other states
                raise ValueError(f"{what} returned NaN or inf for the initial value")

    def _fill(self, first: State, guess: Guess, sources: State | None) -> None:
        finest = self.hierarchy.levels[0]
        if sources is not None:
            self._set_sources(finest, as_state(self.propagator, sources, "sources"))
        if self.options.periodic and guess is None:
            guess = first
        if self._uses_guess:
            fill(finest, first, guess)
        if 0 in finest.block:
            finest.u[1, ...] = first

    def _set_sources(self, finest: Level, sources: State) -> None:
        if not self.keeps_all:
            raise ValueError("sources need all points: leave storage 'c_points' out")
        expected = tuple(finest.u[finest.shown].shape)
        if tuple(sources.shape) != expected:
            raise ValueError(
                f"sources have shape {tuple(sources.shape)} on rank {self.comm.rank}, expected "
                f"{expected}: one state for each own point"
            )
        if self.options.richardson is not None:
            raise ValueError("coarse steps have no sources: leave out richardson")
        if self.options.refinement is not None:
            raise ValueError("sources are not known at new points: leave out refinement")
        finest.g[finest.shown] = sources

    @property
    def _uses_guess(self) -> bool:
        """Whether the first cycle reads more of the iterate than the initial value."""
        begins = self.options.local_points is None and not self.hierarchy.relaxes_coarsest
        skips = self._history.options.skip_first_down and begins
        return len(self.hierarchy.levels) > 1 and not skips


def _telling(
    on_visit: Callable[[Visit], None] | None, history: Iteration
) -> Callable[[Level], None] | None:
    """Return the callback of the cycles, None without `on_visit`."""
    if on_visit is None:
        return None

    def tell(level: Level) -> None:
        if level.layout.is_ring:
            level.exchange()  # point 0 of a ring is a copy of the last one
        iteration, u = len(history.residuals), level.u[level.shown]
        on_visit(Visit(iteration, level.index, level.first_shown, level.grid.times, u))

    return tell


def _check_state(new: State, like: State, what: str) -> None:
    if isinstance(new, float):
        new = np.asarray(new)
    if array_api_compat.is_array_api_obj(new) and tuple(new.shape) != tuple(like.shape):
        raise ValueError(f"{what} returned shape {tuple(new.shape)}, expected {tuple(like.shape)}")
    _check_array(new, like, what)


def _check_array(new: State, like: State, what: str) -> None:
    if not array_api_compat.is_array_api_obj(new):
        raise TypeError(f"{what} returned {type(new).__name__}, expected an array")
    if new.dtype != like.dtype:
        raise TypeError(f"{what} returned dtype {new.dtype}, expected {like.dtype}")


def _is_finite(u: State) -> bool:
    if isinstance(u, float):
        return math.isfinite(u)
    xp = array_api_compat.array_namespace(u)
    return bool(xp.all(xp.isfinite(xp.asarray(u))))


def solve(
    propagator: Propagator,
    grid: TimeGrid | Any,
    initial_value: State,
    options: MGRITOptions | None = None,
    comm: Any = None,
    guess: Guess = None,
) -> Result:
    """Solve once with `MGRIT`, with the parameters of the class and of its `solve`."""
    return MGRIT(propagator, grid, options, comm).solve(initial_value, guess)
