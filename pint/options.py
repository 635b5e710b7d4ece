"""Options of the solver: frozen, validated where they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any, Literal, TypeVar

PerLevel = int | tuple[int, ...]
Coarsening = int | tuple[int, ...]
"""Between a level and the next: a factor, or which points of the level are those of the next."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class MGRITOptions:
    """How MGRIT iterates.

    Where a value may differ from level to level, a tuple gives it level by level from the finest,
    and its last entry holds for all coarser levels.

    Parameters
    ----------
    levels : int, default 2
        Greatest number of levels; 1 is plain time stepping.
    coarsening : int or tuple, default 2
        Factor m between a level and the next: the multiples of m are the C-points. With factor 1
        the next level has the same points, and may be coarser in space. An entry of a tuple may
        also be a sequence of indices, 0 first and increasing: the points of that level that are
        C-points. Where the last entry is such a sequence, there are no levels after it.
    min_coarse : int, default 2
        A coarser level exists only while it has at least this many steps.
    cycle : {"V", "F", "W"}, default "V"
        Order in which a cycle visits the levels. For 4 levels, V is 0 1 2 3 2 1 0, F is
        0 1 2 3 2 3 2 1 2 3 2 1 0, and W is 0 1 2 3 2 3 2 1 2 3 2 3 2 1 0.
    v_cycles_per_level : int, default 1
        Number of V-cycles that an F-cycle does on every level between the finest and the coarsest
        when it has come up to it.
    f_cycle_iterations : int, optional
        Number of cycles that are F-cycles, those after them are V-cycles; all, if left out.
    relax : int or tuple of int, default 1
        Number of CF-sweeps before the F-relaxation: 0 is F-relaxation, 1 is FCF-relaxation.
    relax_weight : float or tuple of float, default 1.0
        Weight w of C-relaxation, u_C <- w (Phi(u_{C-1}) + g_C) + (1 - w) u_C.
    max_iterations : int, default 100
        Greatest number of cycles; the exact number where neither tolerance is given.
    tolerance : float, optional
        Stop after the cycle whose residual, measured before its correction, is below this.
    relative_tolerance : float, optional
        The same, relative to the first residual that is measured.
    norm : {1, 2, inf}, default 2
        Which norm of the numbers that are the norms of the residual at each point; those are
        `Propagator.norm`, the 2-norm unless a model has its own.
    residual : {"c_points", "all_points", "none"}, default "c_points"
        Where the residual is measured. After F-relaxation it is zero at F-points, unless two
        evaluations of a step differ, as those of an iterative solver do; to look there takes one
        more sweep. "none" saves the measurement and its message, for a fixed number of cycles.
    local_tolerance : float, optional
        Points at the left end are left alone, and counted in the residual no more, once the
        residual at every C-point up to them is below this: the cycles that follow work on the
        rest, from a point of the coarsest level on. A solve has converged when all are.
    skip_first_down : bool, default True
        Begin by stepping through the coarsest level, without a way down: the initial guess is
        used no further than the initial value. This counts as the first cycle and has no residual.
    coarsest : {"gather", "pipelined", "relaxation", "truncated"}, default "gather"
        How the coarsest level is solved: every rank steps through all of it; the ranks step
        through their blocks one after another; it is only relaxed, with its `relax` sweeps; or
        each point gets the end of a solve of its own, on the `truncation` points that end with it,
        from the state that the first of them has (AT-MGRIT). Then no rank waits for one that waits.
    truncation : int, optional
        Number of points k of such a local coarse grid, at least 2; with as many as the coarsest
        level has, the solves are the whole one.
    periodic : bool, default False
        The first point follows from the last: u_0 = u_N. There is no initial value then, the
        argument is what the states begin with where no guess is given. Points 0 and N are one
        point, and a C-point of every level; where the factor does not divide the number of steps,
        the last interval is shorter. A coarser level exists while it has more than `min_coarse`
        points. On the coarsest level, point 0 is the only C-point: relaxation steps once around and
        sets it, `relax` times but at least once, and then steps around once more. "gather" does
        that on every rank, "pipelined" and "relaxation" are the same, rank after rank.
    storage : {"all", "c_points"}, default "all"
        Which states of the finest level are kept: all, or those of the C-points, so that memory is
        divided by the first coarsening factor. F-points are computed again where they are needed,
        which takes as many steps as before; the result has the C-points, and all others on demand
        (`Result.trajectory`). Iterates and residuals are the same, to the last bit for the drivers
        "loop" and "stack" and for F-relaxation (the driver "compiled" rounds C-relaxation
        otherwise). Sources, objectives and `residual` "all_points" need all points.
    driver : {"auto", "loop", "stack", "compiled"}, default "auto"
        How the propagator is called: once per point; once for all intervals of a rank; or not at
        all, where its `kernel` is compiled into the sweeps. "auto" is "compiled" where the
        propagator has a kernel, else "stack" where it is batched.
    threads : int, optional
        Greatest number of threads of a rank: those of recurrent layers in a network, which share
        sequences and points; those of the compiled driver, which work on intervals
        side by side, or those of the BLAS library inside a step. If left out, sweeps take one
        thread and the library keeps its own setting.
    delta : int, "full" or "diagonal", optional
        Correct coarse steps by the derivatives of the fine ones, in all directions or in so many
        that grow fastest; or put the diagonals of these derivatives in the place of coarse steps
        (`docs/delta.md`). Drivers "loop" and "stack"; "auto" chooses of these.
    delta_level : int, default 1
        The finest level whose steps are corrected.
    delta_iteration : int, default 0
        The first cycle that corrects them, numbered from 0.
    order : int, optional
        Order of the integrator, 1 for backward Euler. With it the differences between the steps of
        the two finest levels tell the error of every step, `Result.error_estimates`
        (`docs/refinement.md`).
    richardson : bool, default False
        Extrapolate the C-points of the finest level from both, which raises their order by one;
        needs `order`.
    refinements : int, default 0
        Greatest number of refinements of the finest level, where `Propagator.refine`, `refined_model` or
        `error_tolerance` ask for them after a cycle (`docs/refinement.md`).
    error_tolerance : float, optional
        Split steps whose estimated error is above this; needs `order`.
    refinement_factor : int, default 2
        Greatest number of parts that an estimated error splits a step into at once.
    refine_below : float, optional
        Refine only after cycles whose residual is below this; after any, if left out.
    max_points : int, optional
        Leave the grid as it is where a refinement would give it more points.
    divergence_factor : float, default 1e8
        Stop, as diverged, when the residual exceeds this multiple of the first one, or of 1 where
        the first one is smaller.

    Raises
    ------
    ValueError
        If a value is out of its range.

    References
    ----------
    Falgout, Friedhoff, Kolev, MacLachlan, Schroder, "Parallel time integration with multigrid",
    SIAM J. Sci. Comput. 36 (2014), C635-C661.
    Hahne, Southworth, Friedhoff, "Asynchronous truncated multigrid-reduction-in-time", SIAM J. Sci.
    Comput. 45 (2023), S281-S306 (arXiv 2107.09596), for truncated coarse grids.

    Examples
    --------
    >>> MGRITOptions(levels=3, coarsening=(4, 2), relax=(0, 1)).coarsening_of(5)
    2
    """

    levels: int = 2
    coarsening: int | tuple[Coarsening, ...] = 2
    min_coarse: int = 2
    cycle: Literal["V", "F", "W"] = "V"
    v_cycles_per_level: int = 1
    f_cycle_iterations: int | None = None
    relax: PerLevel = 1
    relax_weight: float | tuple[float, ...] = 1.0
    max_iterations: int = 100
    tolerance: float | None = None
    relative_tolerance: float | None = None
    norm: float = 2
    residual: Literal["c_points", "all_points", "none"] = "c_points"
    local_tolerance: float | None = None
    skip_first_down: bool = True
    coarsest: Literal["gather", "pipelined", "relaxation", "truncated"] = "gather"
    truncation: int | None = None
    periodic: bool = False
    storage: Literal["all", "c_points"] = "all"
    driver: Literal["auto", "loop", "stack", "compiled"] = "auto"
    threads: int | None = None
    delta: int | Literal["full", "diagonal"] | None = None
    delta_level: int = 1
    delta_iteration: int = 0
    order: int | None = None
    richardson: bool = False
    refinements: int = 0
    error_tolerance: float | None = None
    refinement_factor: int = 2
    refine_below: float | None = None
    max_points: int | None = None
    divergence_factor: float = 1e8

    def __post_init__(self) -> None:
        for name in (
            "levels",
            "min_coarse",
            "v_cycles_per_level",
            "f_cycle_iterations",
            "max_iterations",
            "threads",
        ):
            if isinstance(getattr(self, name), tuple):
                raise ValueError(f"{name} must be one integer, got {getattr(self, name)!r}")
        at_least("levels", self.levels, 1)
        object.__setattr__(self, "coarsening", _coarsening(self.coarsening))
        at_least("min_coarse", self.min_coarse, 1)
        at_least("relax", self.relax, 0)
        for weight in _entries("relax_weight", self.relax_weight):
            positive("relax_weight", weight)
            if weight != 1 and not any(_entries("relax", self.relax)):
                raise ValueError(
                    f"relax_weight {weight} needs C-relaxation: set relax to 1 or more"
                )
        at_least("max_iterations", self.max_iterations, 1)
        positive("tolerance", self.tolerance)
        positive("relative_tolerance", self.relative_tolerance)
        positive("divergence_factor", self.divergence_factor)
        one_of("cycle", self.cycle, ("V", "F", "W"))
        at_least("v_cycles_per_level", self.v_cycles_per_level, 1)
        if self.f_cycle_iterations is not None:
            at_least("f_cycle_iterations", self.f_cycle_iterations, 1)
        if self.cycle != "F" and (
            self.v_cycles_per_level != 1 or self.f_cycle_iterations is not None
        ):
            raise ValueError(
                f"v_cycles_per_level and f_cycle_iterations belong to cycle 'F', got cycle {self.cycle!r}: leave them "
                "out or set cycle='F'"
            )
        if self.norm not in (1, 2, math.inf):
            raise ValueError(f"norm must be one of 1, 2, inf, got {self.norm!r}")
        one_of("residual", self.residual, ("c_points", "all_points", "none"))
        positive("local_tolerance", self.local_tolerance)
        if self.residual == "none" and self.has_tolerance:
            raise ValueError("a tolerance needs a residual, and residual is 'none': leave one out")
        one_of("coarsest", self.coarsest, ("gather", "pipelined", "relaxation", "truncated"))
        self._check_truncation()
        one_of("driver", self.driver, ("auto", "loop", "stack", "compiled"))
        if self.threads is not None:
            at_least("threads", self.threads, 1)
        self._check_delta()
        self._check_order()
        self._check_refinement()
        self._check_periodic()
        one_of("storage", self.storage, ("all", "c_points"))
        if self.storage == "c_points" and self.residual == "all_points":
            raise ValueError(
                "residual 'all_points' looks at F-points, which storage 'c_points' does not keep"
            )
        if self.storage == "c_points" and (self.order is not None or self.refinements):
            raise ValueError("order and refinements need all points: leave storage 'c_points' out")
        if self.storage == "c_points" and self.periodic:
            raise ValueError("a periodic problem needs all points: leave storage 'c_points' out")

    def _check_truncation(self) -> None:
        if self.truncation is not None:
            at_least("truncation", self.truncation, 2)
        if (self.coarsest == "truncated") != (self.truncation is not None):
            raise ValueError(
                "coarsest 'truncated' and truncation go together, got "
                f"coarsest={self.coarsest!r} and truncation={self.truncation}"
            )
        if self.periodic and self.truncation is not None:
            raise ValueError("a periodic problem has no truncated coarse grids: choose 'gather'")

    def _check_periodic(self) -> None:
        if not isinstance(self.periodic, bool):
            raise ValueError(f"periodic must be True or False, got {self.periodic!r}")
        if self.periodic and self.local_tolerance is not None:
            raise ValueError(
                "local_tolerance leaves points at the left end alone, and a periodic problem has "
                "no left end: use tolerance"
            )
        if self.periodic and self.delta is not None:
            raise ValueError("a periodic problem has no Delta correction: leave delta out")
        if self.periodic and (self.order is not None or self.refinements):
            raise ValueError("a periodic problem has no order and no refinements: leave them out")
        if self.periodic and self.levels == 1:
            raise ValueError("a periodic problem cannot be stepped: set levels to 2 or more")

    def _check_delta(self) -> None:
        if isinstance(self.delta, str):
            one_of("delta", self.delta, ("full", "diagonal"))
        elif self.delta is not None:
            at_least("delta", self.delta, 1)
        at_least("delta_level", self.delta_level, 1)
        if self.delta == "diagonal" and self.delta_level != 1:
            raise ValueError(
                "delta='diagonal' takes derivatives of finest steps: leave delta_level at 1, got "
                f"{self.delta_level}"
            )
        at_least("delta_iteration", self.delta_iteration, 0)
        if self.delta is None and (self.delta_level, self.delta_iteration) != (1, 0):
            raise ValueError(
                "delta_level and delta_iteration need delta: set it, or leave them out"
            )
        if self.delta is not None and self.delta_level >= self.levels:
            raise ValueError(
                f"delta_level must be below levels, got delta_level={self.delta_level} and "
                f"levels={self.levels}: no step would be corrected"
            )
        if isinstance(self.delta, int) and self.local_tolerance is not None:
            raise ValueError(
                f"local_tolerance leaves points alone along which delta={self.delta} moves "
                "vectors: set delta='full', or leave one out"
            )
        if self.delta is not None and self.driver == "compiled":
            raise ValueError(
                "driver 'compiled' has no Delta correction: use driver 'loop' or 'stack'"
            )

    def _check_order(self) -> None:
        if self.order is None:
            if self.richardson:
                raise ValueError("richardson needs the order of the integrator: set order")
            return
        at_least("order", self.order, 1)
        if self.levels == 1:
            raise ValueError("order compares two levels, and levels is 1: use 2 or more")
        if self.coarsening_of(0) == 1:
            raise ValueError("order needs a coarsening of at least 2 on the finest level, got 1")
        for name in ("delta", "local_tolerance"):
            if getattr(self, name) is not None:
                raise ValueError(f"order and {name} do not go together: leave one out")

    def _check_refinement(self) -> None:
        at_least("refinements", self.refinements, 0)
        positive("error_tolerance", self.error_tolerance)
        at_least("refinement_factor", self.refinement_factor, 2)
        positive("refine_below", self.refine_below)
        if self.max_points is not None:
            at_least("max_points", self.max_points, 2)
        if self.refinements == 0:
            given = (self.error_tolerance, self.refinement_factor, self.refine_below)
            if (*given, self.max_points) != (None, 2, None, None):
                raise ValueError(
                    "error_tolerance, refinement_factor, refine_below and max_points need "
                    "refinements: set it, or leave them out"
                )
            return
        if self.error_tolerance is not None and self.order is None:
            raise ValueError("error_tolerance needs the order of the integrator: set order")
        if self.error_tolerance is None and self.refinement_factor != 2:
            raise ValueError("refinement_factor needs error_tolerance: set it, or leave it out")
        if self.refine_below is not None and self.residual == "none":
            raise ValueError("refine_below needs a residual, and residual is 'none'")
        if self.refine_below is not None and self.refine_below < (self.tolerance or 0.0):
            raise ValueError(
                f"refine_below must be at least the tolerance, got {self.refine_below} and "
                f"{self.tolerance}: the solve would end before it refines"
            )
        if isinstance(self.coarsening, tuple) and any(map(_has_entries, self.coarsening)):
            raise ValueError("refinements need coarsening factors, not indices of C-points")
        for name in ("delta", "local_tolerance"):
            if getattr(self, name) is not None:
                raise ValueError(f"refinements and {name} do not go together: leave one out")

    @classmethod
    def parareal(cls, coarsening: int | tuple[Coarsening, ...] = 2) -> MGRITOptions:
        """Return the options that make MGRIT the Parareal algorithm.

        Two levels and F-relaxation, beginning with the coarse solve: the C-points are Parareal's
        points, m fine steps its fine propagator and a coarse step its coarse one. Cycle k, counted
        from 0, gives the iterate k. Use `dataclasses.replace` for a tolerance and other options.

        Parameters
        ----------
        coarsening : int or tuple, default 2
            Number of fine steps in a coarse one, or the indices of the points.

        References
        ----------
        Lions, Maday, Turinici, C. R. Acad. Sci. Paris 332 (2001), 661-668.
        Gander, Vandewalle, SIAM J. Sci. Comput. 29 (2007), 556-578, section 3.

        Examples
        --------
        >>> MGRITOptions.parareal(10).relax
        0
        """
        return cls(levels=2, coarsening=coarsening, relax=0)

    @classmethod
    def at_mgrit(
        cls,
        truncation: int,
        coarsening: int | tuple[Coarsening, ...] = 2,
        levels: int = 2,
        relax: PerLevel = 1,
    ) -> MGRITOptions:
        """Return the options of AT-MGRIT, with local coarse grids of `truncation` points.

        Its cycles are those of MGRIT on the same levels, but for the coarsest one. Use
        `dataclasses.replace` for a tolerance and other options.

        Parameters
        ----------
        truncation : int
            Number of points of each local coarse grid.
        coarsening, levels, relax
            As in `MGRITOptions`.

        References
        ----------
        Hahne, Southworth, Friedhoff, SIAM J. Sci. Comput. 45 (2023), S281-S306, algorithm 2.

        Examples
        --------
        >>> MGRITOptions.at_mgrit(4, coarsening=8).coarsest
        'truncated'
        """
        return cls(
            levels=levels,
            coarsening=coarsening,
            relax=relax,
            skip_first_down=False,
            coarsest="truncated",
            truncation=truncation,
        )

    def coarsening_of(self, level: int) -> Coarsening:
        """Return what is between `level` and the next: a factor, or the indices of the C-points.

        Behind the last entry, where that is one of indices, it is 2.
        """
        given = self.coarsening
        if not isinstance(given, tuple):
            return given
        entry = given[min(level, len(given) - 1)]
        return 2 if level >= len(given) and isinstance(entry, tuple) else entry

    def relax_weight_of(self, level: int) -> float:
        """Return the weight of C-relaxation on `level`."""
        return per_level(self.relax_weight, level)

    def relax_of(self, level: int) -> int:
        """Return the number of CF-sweeps on `level`."""
        return per_level(self.relax, level)

    @property
    def has_tolerance(self) -> bool:
        """Tell whether a residual may end a solve."""
        given = (self.tolerance, self.relative_tolerance, self.local_tolerance)
        return given != (None, None, None)

    def shape_of(self, iteration: int) -> str:
        """Return whether a cycle, numbered from 0, is a V-, F- or W-cycle."""
        return (
            "V"
            if self.f_cycle_iterations is not None and iteration >= self.f_cycle_iterations
            else self.cycle
        )

    def factors(self, num_steps: int) -> tuple[Coarsening, ...]:
        """Return what is between the levels that exist for `num_steps` steps.

        Raises
        ------
        ValueError
            If indices of C-points lie beyond their level, or a periodic problem has one level only.
        """
        factors: list[Coarsening] = []
        while len(factors) < self.levels - 1:
            m = self.coarsening_of(len(factors))
            given = isinstance(m, tuple)
            if isinstance(m, tuple) and m[-1] > num_steps:
                raise ValueError(
                    f"coarsening has the C-point {m[-1]} on level {len(factors)}, whose points are "
                    f"0..{num_steps}"
                )
            if self.periodic:
                m = _closed(m, num_steps, len(factors))
            num_steps = len(m) - 1 if isinstance(m, tuple) else num_steps // m
            if num_steps - self.periodic < self.min_coarse:
                break
            factors.append(m)
            if given and len(factors) == len(self.coarsening):  # type: ignore[arg-type]
                break
        if self.periodic and not factors:
            raise ValueError(
                f"a periodic problem needs a coarser level, and {num_steps} points are what "
                f"coarsening leaves, no more than min_coarse={self.min_coarse}: lower min_coarse"
            )
        return tuple(factors)


def _closed(m: Coarsening, num_steps: int, level: int) -> Coarsening:
    """Return the coarsening of a ring, in which point `num_steps` is point 0, a C-point."""
    if isinstance(m, int):
        return m if num_steps % m == 0 else (*range(0, num_steps, m), num_steps)
    if m[-1] != num_steps:
        raise ValueError(
            f"coarsening must end with {num_steps} on level {level}, got {m[-1]}: in a periodic "
            "problem the last point is point 0"
        )
    return m


def per_level(value: T | tuple[T, ...], level: int) -> T:
    """Return the entry of `value` for `level`; the last one holds for all coarser levels."""
    return value[min(level, len(value) - 1)] if isinstance(value, tuple) else value


def _coarsening(given: Any) -> int | tuple[Coarsening, ...]:
    """Return validated factors and indices of C-points, all of them hashable."""
    if not isinstance(given, tuple):
        return _factor(given)
    entries = _entries("coarsening", given)
    return tuple(_indices(entry) if _has_entries(entry) else _factor(entry) for entry in entries)


def _factor(given: Any) -> int:
    at_least("coarsening", given, 1)
    return int(given)


def _has_entries(given: Any) -> bool:
    return hasattr(given, "__len__") and not isinstance(given, str | dict)


def _indices(given: Any) -> tuple[int, ...]:
    """Return validated indices of C-points."""
    for point in given:
        at_least("coarsening", point, 0)
    points = tuple(int(point) for point in given)
    increasing = all(before < after for before, after in pairwise(points))
    if len(points) < 2 or points[0] != 0 or not increasing:
        raise ValueError(
            f"coarsening must give indices of C-points that begin with 0 and increase, got {points}"
        )
    return points


def _entries(name: str, value: T | tuple[T, ...]) -> tuple[T, ...]:
    """Return the entries of a value for each level."""
    if not isinstance(value, tuple):
        return (value,)
    if not value:
        raise ValueError(f"{name} must have at least one entry, got ()")
    return value


def at_least(name: str, value: PerLevel, least: int) -> None:
    """Raise ValueError unless every entry of `value` is an integer of at least `least`."""
    entries: tuple[Any, ...] = _entries(name, value)
    for entry in entries:
        if isinstance(entry, list):
            raise ValueError(f"{name} must be an integer or a tuple of them, got {entry!r}")
        if isinstance(entry, bool) or not hasattr(entry, "__index__"):
            raise ValueError(f"{name} must be an integer, got {entry!r}")
        if entry < least:
            raise ValueError(f"{name} must be at least {least}, got {entry}")


def positive(name: str, value: float | None) -> None:
    """Raise ValueError unless `value` is None or a finite number above zero."""
    is_number = isinstance(value, Real)
    if value is not None and not (is_number and value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def instance_of(name: str, value: Any, kind: type) -> None:
    """Raise TypeError unless `value` is of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of {kind.__name__}, got {value!r:.80}")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
