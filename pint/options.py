"""Options of the solver: frozen, validated where they are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any, Literal, TypeVar, get_args

PerLevel = int | tuple[int, ...]
Coarsening = int | tuple[int, ...]
"""Between a level and the next: a factor, or the indices of the C-points."""
T = TypeVar("T")

Cycle = Literal["V", "F", "W"]
ResidualPoints = Literal["c_points", "all_points", "none"]
CoarseSolve = Literal["gather", "pipelined", "relaxation"]
Storage = Literal["all", "c_points"]
DriverName = Literal["auto", "loop", "stack", "compiled"]


@dataclass(frozen=True)
class LocalGrids:
    """Solve the coarsest level on local grids (AT-MGRIT): no rank waits for a chain of messages.

    Each coarsest point is the end of a local solve over the `points` points that end with it, from
    the state at the first of them.

    Parameters
    ----------
    points : int
        Number of points of a local grid, at least 2. With all points of the coarsest level, the
        local solves are the serial solve.

    Raises
    ------
    ValueError
        If `points` is out of its range.

    References
    ----------
    Hahne, Southworth, Friedhoff, "Asynchronous truncated multigrid-reduction-in-time", SIAM J. Sci.
    Comput. 45 (2023), S281-S306 (arXiv 2107.09596).
    """

    points: int

    def __post_init__(self) -> None:
        at_least("points", self.points, 2)


@dataclass(frozen=True)
class Delta:
    """Correct coarse steps by the derivatives of the fine ones (`docs/delta.md`).

    Needs the driver "loop" or "stack"; "auto" chooses between these.

    Parameters
    ----------
    directions : int, "full" or "diagonal", default "full"
        All directions; this number of directions, those that grow fastest; or the diagonals of the
        derivatives in place of coarse steps.
    level : int, default 1
        The finest level with corrected steps; 1 for "diagonal".
    iteration : int, default 0
        The first cycle with corrected steps, numbered from 0.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    directions: int | Literal["full", "diagonal"] = "full"
    level: int = 1
    iteration: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.directions, str):
            one_of("directions", self.directions, ("full", "diagonal"))
        else:
            at_least("directions", self.directions, 1)
        at_least("level", self.level, 1)
        if self.directions == "diagonal" and self.level != 1:
            raise ValueError(
                "directions 'diagonal' takes derivatives of finest steps: leave level at 1, got "
                f"{self.level}"
            )
        at_least("iteration", self.iteration, 0)


@dataclass(frozen=True)
class Richardson:
    """Estimate the error of every step from the two finest levels (`docs/refinement.md`).

    The estimates are `Result.error_estimates`.

    Parameters
    ----------
    integrator_order : int
        Order of the integrator, 1 for backward Euler.
    extrapolate : bool, default False
        Extrapolate the C-points of the finest level, which raises their order by one.

    Raises
    ------
    ValueError
        If `integrator_order` is out of its range.
    """

    integrator_order: int
    extrapolate: bool = False

    def __post_init__(self) -> None:
        at_least("integrator_order", self.integrator_order, 1)


@dataclass(frozen=True)
class Refinement:
    """Refine the finest level during a solve (`docs/refinement.md`).

    The model's `refine` or `refined_model`, or `error_tolerance`, ask for a refinement after a
    cycle.

    Parameters
    ----------
    max_refinements : int
        Greatest number of refinements.
    error_tolerance : float, optional
        Split steps with an estimated error above this; needs `MGRITOptions.richardson`.
    factor : int, default 2
        Greatest number of parts of one step in one refinement; needs `error_tolerance`.
    below_residual : float, optional
        Refine only after a cycle with a residual below this; after any cycle, if left out.
    max_points : int, optional
        Keep the grid where a refinement would give it more points.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    max_refinements: int
    error_tolerance: float | None = None
    factor: int = 2
    below_residual: float | None = None
    max_points: int | None = None

    def __post_init__(self) -> None:
        at_least("max_refinements", self.max_refinements, 1)
        positive("error_tolerance", self.error_tolerance)
        at_least("factor", self.factor, 2)
        positive("below_residual", self.below_residual)
        if self.max_points is not None:
            at_least("max_points", self.max_points, 2)
        if self.error_tolerance is None and self.factor != 2:
            raise ValueError("factor needs error_tolerance: set it, or leave factor out")


@dataclass(frozen=True, kw_only=True)
class MGRITOptions:
    """How MGRIT iterates.

    A tuple gives a value per level, from the finest; its last entry holds for all coarser levels.
    Groups of options are objects: `LocalGrids`, `Delta`, `Richardson`, `Refinement`.

    Parameters
    ----------
    levels : int, default 2
        Greatest number of levels; 1 is plain time stepping.
    coarsening : int or tuple, default 2
        Factor m between a level and the next: the multiples of m are the C-points. Factor 1 keeps
        all points, for a level that is coarser in space only. An entry of a tuple may also be a
        sequence of indices of C-points, 0 first and increasing. Indices as the last entry make the
        next level the coarsest.
    min_coarse : int, default 2
        Least number of steps of a coarser level.
    cycle : {"V", "F", "W"}, default "V"
        Order in which a cycle visits the levels. For 4 levels, V is 0 1 2 3 2 1 0, F is
        0 1 2 3 2 3 2 1 2 3 2 1 0, and W is 0 1 2 3 2 3 2 1 2 3 2 3 2 1 0.
    v_cycles_per_level : int, default 1
        Number of V-cycles of an F-cycle on every level between the finest and the coarsest.
    f_cycle_iterations : int, optional
        Number of F-cycles, V-cycles follow; all cycles, if left out.
    relax : int or tuple of int, default 1
        Number of CF-sweeps before the F-relaxation: 0 is F-relaxation, 1 is FCF-relaxation.
    relax_weight : float or tuple of float, default 1.0
        Weight w of C-relaxation, u_C <- w (Phi(u_{C-1}) + g_C) + (1 - w) u_C.
    max_iterations : int, default 100
        Greatest number of cycles; the exact number without a tolerance.
    tolerance : float, optional
        Stop after a cycle with a residual, measured before its correction, below this.
    relative_tolerance : float, optional
        Stop after a cycle with a residual below this multiple of the first measured residual.
    time_norm : {1, 2, inf}, default 2
        Norm over the points. The norm at a point is the model's `norm`, or else the 2-norm.
    residual_points : {"c_points", "all_points", "none"}, default "c_points"
        Where the residual is measured. After F-relaxation it is zero at F-points, unless two
        evaluations of a step differ, as with an iterative solver; "all_points" takes one more
        sweep. "none" saves the measurement and its message.
    local_tolerance : float, optional
        Leave points at the left end alone once the residual at every C-point up to them is below
        this. Later cycles work on the other points, and a solve has converged without any.
    skip_first_down : bool, default True
        Begin by stepping through the coarsest level, without a way down. The guess is not used.
        This counts as the first cycle and has no residual.
    coarsest : {"gather", "pipelined", "relaxation"} or LocalGrids, default "gather"
        How the coarsest level is solved: every rank steps through all of it; the ranks step
        through their blocks one after another; by relaxation only; or on local grids.
    periodic : bool, default False
        The first point follows from the last: u_0 = u_N. The initial value of a solve is a guess
        for all points. Points 0 and N are one point, and a C-point of every level; where the
        factor does not divide the number of steps, the last interval is shorter. A coarser level
        has more than `min_coarse` points. On the coarsest level, point 0 is the only C-point:
        relaxation steps around once and sets it, at least once, and then steps around once more.
        "gather" does so on every rank, "pipelined" and "relaxation" rank after rank.
    storage : {"all", "c_points"}, default "all"
        States of the finest level in memory: all, or the C-points. F-points are then computed
        again where they are needed, without additional steps; the result has all other points on
        demand (`Result.trajectory`). Iterates and residuals are equal, to the last bit for the
        drivers "loop" and "stack" and for F-relaxation (the driver "compiled" rounds C-relaxation
        otherwise). Sources and objectives need all points.
    driver : {"auto", "loop", "stack", "compiled"}, default "auto"
        How the model is called: once per point; once for all intervals of a rank; or not at all,
        with its `kernel` compiled into the sweeps. "auto" is "compiled" for a model with a kernel,
        else "stack" for a batched one.
    threads : int, optional
        Greatest number of threads of a rank: of recurrent layers in a network, which share
        sequences and points; of the compiled driver, which work on intervals side by side; or of
        the BLAS library inside a step. If left out, sweeps take one thread and the library keeps
        its own setting.
    delta : Delta, optional
        Correct coarse steps by the derivatives of the fine ones.
    richardson : Richardson, optional
        Estimate the error of every step; extrapolate.
    refinement : Refinement, optional
        Refine the finest level during a solve.
    divergence_factor : float, default 1e8
        Stop, as diverged, when the residual exceeds this multiple of the first residual, or of 1
        where that is smaller.

    Raises
    ------
    ValueError
        If a value is out of its range, or two of them are a pair of `CONFLICTS`.
    TypeError
        If a group is not of its class.

    References
    ----------
    Falgout, Friedhoff, Kolev, MacLachlan, Schroder, "Parallel time integration with multigrid",
    SIAM J. Sci. Comput. 36 (2014), C635-C661.

    Examples
    --------
    >>> MGRITOptions(levels=3, coarsening=(4, 2), relax=(0, 1)).coarsening_of(5)
    2
    """

    levels: int = 2
    coarsening: int | tuple[Coarsening, ...] = 2
    min_coarse: int = 2
    cycle: Cycle = "V"
    v_cycles_per_level: int = 1
    f_cycle_iterations: int | None = None
    relax: PerLevel = 1
    relax_weight: float | tuple[float, ...] = 1.0
    max_iterations: int = 100
    tolerance: float | None = None
    relative_tolerance: float | None = None
    time_norm: float = 2
    residual_points: ResidualPoints = "c_points"
    local_tolerance: float | None = None
    skip_first_down: bool = True
    coarsest: CoarseSolve | LocalGrids = "gather"
    periodic: bool = False
    storage: Storage = "all"
    driver: DriverName = "auto"
    threads: int | None = None
    delta: Delta | None = None
    richardson: Richardson | None = None
    refinement: Refinement | None = None
    divergence_factor: float = 1e8

    def __post_init__(self) -> None:
        object.__setattr__(self, "coarsening", _coarsening(self.coarsening))
        at_least("relax", self.relax, 0)
        for weight in _entries("relax_weight", self.relax_weight):
            positive("relax_weight", weight)
        for name in _COUNTS:
            _count(name, getattr(self, name))
        for name in _POSITIVE:
            positive(name, getattr(self, name))
        for name, kind in _GROUPS.items():
            if getattr(self, name) is not None:
                instance_of(name, getattr(self, name), kind)
        for name, choices in _CHOICES.items():
            if not isinstance(getattr(self, name), LocalGrids) or name != "coarsest":
                one_of(name, getattr(self, name), choices)
        if not isinstance(self.periodic, bool):
            raise ValueError(f"periodic must be True or False, got {self.periodic!r}")
        for one, other, reason in CONFLICTS:
            if _TRAITS[one](self) and _TRAITS[other](self):
                raise ValueError(f"{one} and {other} do not go together: {reason}")

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
        points: int,
        coarsening: int | tuple[Coarsening, ...] = 2,
        levels: int = 2,
        relax: PerLevel = 1,
    ) -> MGRITOptions:
        """Return the options of AT-MGRIT, with local coarse grids of `points` points.

        Its cycles equal MGRIT's cycles on these levels, except on the coarsest one. Use
        `dataclasses.replace` for a tolerance and other options.

        Parameters
        ----------
        points : int
            Number of points of each local coarse grid.
        coarsening, levels, relax
            As in `MGRITOptions`.

        References
        ----------
        Hahne, Southworth, Friedhoff, SIAM J. Sci. Comput. 45 (2023), S281-S306, algorithm 2.

        Examples
        --------
        >>> MGRITOptions.at_mgrit(4, coarsening=8).coarsest
        LocalGrids(points=4)
        """
        return cls(
            levels=levels,
            coarsening=coarsening,
            relax=relax,
            skip_first_down=False,
            coarsest=LocalGrids(points),
        )

    @property
    def local_points(self) -> int | None:
        """Number of points of the local grids of the coarsest level; None without them."""
        return self.coarsest.points if isinstance(self.coarsest, LocalGrids) else None

    @property
    def uses_diagonals(self) -> bool:
        """Whether diagonals of derivatives replace coarse steps."""
        return self.delta is not None and self.delta.directions == "diagonal"

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
        """Whether a residual may end a solve."""
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


_COUNTS = (
    "levels", "min_coarse", "v_cycles_per_level", "f_cycle_iterations", "max_iterations", "threads",
)  # fmt: skip
_POSITIVE = ("tolerance", "relative_tolerance", "local_tolerance", "divergence_factor")
_GROUPS: dict[str, type] = {"delta": Delta, "richardson": Richardson, "refinement": Refinement}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "cycle": get_args(Cycle),
    "time_norm": (1, 2, math.inf),
    "residual_points": get_args(ResidualPoints),
    "coarsest": get_args(CoarseSolve),
    "storage": get_args(Storage),
    "driver": get_args(DriverName),
}

_TRAITS: dict[str, Callable[[MGRITOptions], bool]] = {
    "cycle 'V' or 'W'": lambda o: o.cycle != "F",
    "v_cycles_per_level": lambda o: o.v_cycles_per_level != 1,
    "f_cycle_iterations": lambda o: o.f_cycle_iterations is not None,
    "relax 0": lambda o: not any(_entries("relax", o.relax)),
    "relax_weight": lambda o: any(w != 1 for w in _entries("relax_weight", o.relax_weight)),
    "tolerance, relative_tolerance or local_tolerance": lambda o: o.has_tolerance,
    "local_tolerance": lambda o: o.local_tolerance is not None,
    "residual_points 'none'": lambda o: o.residual_points == "none",
    "residual_points 'all_points'": lambda o: o.residual_points == "all_points",
    "levels 1": lambda o: o.levels == 1,
    "LocalGrids": lambda o: o.local_points is not None,
    "periodic": lambda o: o.periodic,
    "storage 'c_points'": lambda o: o.storage == "c_points",
    "driver 'compiled'": lambda o: o.driver == "compiled",
    "delta": lambda o: o.delta is not None,
    "delta in some directions": lambda o: (
        o.delta is not None and not isinstance(o.delta.directions, str)
    ),
    "delta.level at levels or above": lambda o: o.delta is not None and o.delta.level >= o.levels,
    "richardson": lambda o: o.richardson is not None,
    "no richardson": lambda o: o.richardson is None,
    "coarsening 1 on the finest level": lambda o: o.coarsening_of(0) == 1,
    "coarsening by indices": lambda o: (
        isinstance(o.coarsening, tuple) and any(map(_has_entries, o.coarsening))
    ),
    "refinement": lambda o: o.refinement is not None,
    "refinement.error_tolerance": lambda o: _part(o.refinement, "error_tolerance") is not None,
    "refinement.below_residual": lambda o: _part(o.refinement, "below_residual") is not None,
    "a greater tolerance": lambda o: (
        (_part(o.refinement, "below_residual") or math.inf) < (o.tolerance or 0.0)
    ),
}

_ALL_POINTS = "all points are needed: leave storage out"
CONFLICTS: tuple[tuple[str, str, str], ...] = (
    ("v_cycles_per_level", "cycle 'V' or 'W'", "it counts cycles of an F-cycle: set cycle='F'"),
    ("f_cycle_iterations", "cycle 'V' or 'W'", "it counts F-cycles: set cycle='F'"),
    ("relax_weight", "relax 0", "it weights C-relaxation: set relax to 1 or more"),
    (
        "tolerance, relative_tolerance or local_tolerance",
        "residual_points 'none'",
        "a tolerance needs a residual: leave one out",
    ),
    ("periodic", "levels 1", "a periodic problem cannot be stepped: set levels to 2 or more"),
    ("periodic", "LocalGrids", "local grids begin somewhere: set coarsest='gather'"),
    ("periodic", "local_tolerance", "a ring has no left end: use tolerance"),
    ("periodic", "delta", "the correction begins at an initial value: leave delta out"),
    ("periodic", "richardson", "leave richardson out"),
    ("periodic", "refinement", "leave refinement out"),
    ("storage 'c_points'", "residual_points 'all_points'", _ALL_POINTS),
    ("storage 'c_points'", "periodic", _ALL_POINTS),
    ("storage 'c_points'", "richardson", _ALL_POINTS),
    ("storage 'c_points'", "refinement", _ALL_POINTS),
    ("delta", "driver 'compiled'", "corrected steps have no kernel: use driver 'loop' or 'stack'"),
    ("delta", "delta.level at levels or above", "no step would be corrected: lower delta.level"),
    (
        "delta in some directions",
        "local_tolerance",
        "vectors move along all points: set directions='full', or leave one out",
    ),
    ("richardson", "levels 1", "errors are compared on two levels: set levels to 2 or more"),
    ("richardson", "coarsening 1 on the finest level", "coarse steps are fine ones: set 2 or more"),
    ("richardson", "delta", "corrected steps have other errors: leave one out"),
    ("richardson", "local_tolerance", "points left alone are not extrapolated: leave one out"),
    ("refinement.error_tolerance", "no richardson", "errors are not estimated: set richardson"),
    ("refinement.below_residual", "residual_points 'none'", "set residual_points='c_points'"),
    (
        "refinement.below_residual",
        "a greater tolerance",
        "the solve would end before it refines: lower tolerance",
    ),
    ("refinement", "coarsening by indices", "new grids need coarsening factors"),
    ("refinement", "delta", "a new grid has no directions yet: leave one out"),
    ("refinement", "local_tolerance", "a new grid has other points: leave one out"),
)
"""Pairs of options that do not go together, and the reason or remedy."""


def coarsest_of(name: str, points: int | None) -> Any:
    """Return `MGRITOptions.coarsest` by name, where "truncated" is `LocalGrids(points)`.

    Raises
    ------
    ValueError
        If one of "truncated" and `points` is given without the other.
    """
    if (name == "truncated") != (points is not None):
        raise ValueError(
            "coarsest 'truncated' and truncation go together, got "
            f"coarsest={name!r} and truncation={points}"
        )
    return name if points is None else LocalGrids(points)


def _part(group: Any, name: str) -> Any:
    """Return a value of a group; None without the group."""
    return None if group is None else getattr(group, name)


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


def _count(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is None or one integer of at least 1."""
    if isinstance(value, tuple):
        raise ValueError(f"{name} must be one integer, got {value!r}")
    if value is not None:
        at_least(name, value, 1)


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


def one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")
