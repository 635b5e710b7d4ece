"""Convergence of MGRIT for linear problems, predicted from eigenvalues before anything is run.

Where the steps of all levels share their eigenvectors, the error in the direction of one of them is
a scalar problem u_i = phi_i u_{i-1} with one number phi per step and level. A cycle multiplies that
error by a matrix over time. `docs/theory.md` derives the matrix, and says what its norm bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pint.grid.timegrid import TimeGrid, as_grid
from pint.options import Coarsening, MGRITOptions, at_least, one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Complex = NDArray[np.complex128]
Quantity = Literal["error", "residual"]


def runge_kutta(A: ArrayLike, b: ArrayLike) -> Callable[[Complex], Complex]:
    """Return the stability function R(z) = 1 + z b^T (I - z A)^{-1} 1 of a Runge-Kutta method.

    Parameters
    ----------
    A : array_like of float64, shape (s, s)
        Butcher's matrix; backward Euler is ``[[1]]``.
    b : array_like of float64, shape (s,)
        Weights.

    Returns
    -------
    callable
        R, which takes an array of complex numbers of any shape.

    Raises
    ------
    ValueError
        If the shapes do not fit, or an entry is not finite.

    References
    ----------
    Hairer & Wanner, "Solving Ordinary Differential Equations II", 2nd edition, IV.3, eq. (3.2).

    Examples
    --------
    >>> backward_euler = runge_kutta([[1.0]], [1.0])
    >>> float(backward_euler(np.array(-1.0)).real)
    0.5
    """
    matrix, weights = np.array(A, dtype=np.float64), np.array(b, dtype=np.float64)
    stages = weights.size
    if weights.ndim != 1 or stages == 0 or matrix.shape != (stages, stages):
        raise ValueError(f"A and b must be (s, s) and (s,), got {matrix.shape} and {weights.shape}")
    if not (np.isfinite(matrix).all() and np.isfinite(weights).all()):
        raise ValueError("A and b must be finite")

    def stability(z: Complex) -> Complex:
        z = np.asarray(z, dtype=np.complex128)
        system = np.eye(stages) - z[..., None, None] * matrix
        inner = np.linalg.solve(system, np.ones((*z.shape, stages, 1)))
        grown: Complex = 1 + z * (inner[..., 0] @ weights)
        return grown

    return stability


def step_factors(
    eigenvalues: ArrayLike,
    grid: TimeGrid | ArrayLike,
    options: MGRITOptions,
    stability: Callable[[Complex], Complex],
) -> list[Complex]:
    """Return what every step of every level multiplies an eigenvector of u' = L u by.

    Parameters
    ----------
    eigenvalues : array_like of complex128, shape (n,)
        Eigenvalues of L, per unit of time.
    grid : TimeGrid or array_like of float64, shape (N + 1,)
        Time points of the finest level, of any spacing.
    options : MGRITOptions
        Levels and coarsening.
    stability : callable
        Stability function of the method that all levels use, see `runge_kutta`.

    Returns
    -------
    list of ndarray of complex128, shape (n, N_l)
        For each level, R(xi dt_i) of every eigenvalue xi and every step i.

    Raises
    ------
    ValueError
        If the eigenvalues are not a finite array of one dimension.

    Examples
    --------
    >>> grid, options = TimeGrid.uniform(0, 4, 4), MGRITOptions()
    >>> fine, coarse = step_factors([-1.0], grid, options, runge_kutta([[1]], [1]))
    >>> coarse.real.round(4)
    array([[0.3333, 0.3333]])
    """
    xi = _finite_row(eigenvalues, "eigenvalues")
    levels = [as_grid(grid)]
    for m in _even_factors(options, levels[0].num_steps):
        levels.append(levels[-1].coarsen(m))
    return [stability(xi[:, None] * np.diff(level.times)) for level in levels]


def two_level_bound(
    fine: ArrayLike,
    coarse: ArrayLike,
    m: int,
    relax: int = 1,
    num_coarse: int | None = None,
) -> NDArray[np.float64]:
    """Return the two-level bound of (F C)^nu F relaxation, for steps that are all alike.

    It is ``|phi|^(m nu) |phi^m - mu| (1 + |mu| + ... + |mu|^(N_c - 2 - nu))``, an upper bound of
    the error propagator's 2-norm, and its exact 1- and infinity-norm.

    Parameters
    ----------
    fine, coarse : array_like of complex128, shapes that broadcast
        Eigenvalues phi of the fine and mu of the coarse step, of the same eigenvectors.
    m : int
        Coarsening factor.
    relax : int, default 1
        Number nu of CF-sweeps.
    num_coarse : int, optional
        Number N_c of coarse steps; infinitely many if left out.

    Returns
    -------
    ndarray of float64
        Bound for each pair; inf where there are infinitely many steps and the coarse step does not
        damp.

    Raises
    ------
    ValueError
        If a value is out of its range or not finite.

    References
    ----------
    Dobrev, Kolev, Petersson, Schroder, "Two-level convergence theory for multigrid reduction in
    time (MGRIT)", SIAM J. Sci. Comput. 39 (2017), S501-S527, theorems 3.1 and 3.3.

    Examples
    --------
    >>> float(two_level_bound(0.5, 0.25, 2))  # an exact coarse step
    0.0
    """
    at_least("m", m, 1)
    at_least("relax", relax, 0)
    phi, mu = np.broadcast_arrays(*(np.asarray(x, dtype=np.complex128) for x in (fine, coarse)))
    if not (np.isfinite(phi).all() and np.isfinite(mu).all()):
        raise ValueError("fine and coarse must be finite")
    size = np.abs(mu)
    with np.errstate(divide="ignore", invalid="ignore"):
        if num_coarse is None:
            series = np.where(size < 1, 1 / (1 - size), np.inf)
        else:
            at_least("num_coarse", num_coarse, 1)
            terms = max(num_coarse - 1 - relax, 0)
            series = np.where(size == 1, terms, (1 - size**terms) / (1 - size))
        bound = np.abs(phi) ** (m * relax) * np.abs(phi**m - mu) * series
    return np.where(phi**m == mu, 0.0, bound)


def cycle_matrix(
    factors: Sequence[ArrayLike],
    options: MGRITOptions,
    num_steps: int,
    *,
    iteration: int = 0,
    quantity: Quantity = "error",
) -> Complex:
    """Return what one cycle multiplies the error, or the residual, at the C-points by.

    The C-points are m, 2m, ..., N_c m of the finest level; point 0 is exact. All coarser levels,
    their F-points and those behind the last C-point are taken into account as the solver does,
    which has no `skip_first_down` here and leaves space as it is.

    Parameters
    ----------
    factors : sequence of array_like of complex128, shape (n,) or (n, N_l)
        For each level, what its steps multiply each of n eigenvectors by: one number for all steps,
        or one for each. See `step_factors`.
    options : MGRITOptions
        Levels, coarsening, sweeps and weights of relaxation, the cycle, and how the coarsest level
        is solved.
    num_steps : int
        Number N of steps of the finest level.
    iteration : int, default 0
        Number of the cycle, which matters if `MGRITOptions.f_cycle_iterations` changes the cycle.
    quantity : {"error", "residual"}, default "error"
        Errors after the cycle from errors before it; or residuals from residuals of the previous
        iteration, as `Result.residuals` measures them (on the way down, after the relaxation).

    Returns
    -------
    ndarray of complex128, shape (n, N_c, N_c)
        One matrix for each eigenvector.

    Raises
    ------
    ValueError
        If there is no coarser level, or `factors` does not have an entry of the right shape for
        each level.

    References
    ----------
    Hessenthaler, Southworth, Nordsletten, Röhrle, Falgout, Schroder, "Multilevel convergence
    analysis of multigrid-reduction-in-time", SIAM J. Sci. Comput. 42 (2020), A771-A796.

    Examples
    --------
    >>> cycle_matrix([[0.5], [0.2]], MGRITOptions(relax=0), 6)[0].real.round(4)
    array([[0.  , 0.  , 0.  ],
           [0.05, 0.  , 0.  ],
           [0.01, 0.05, 0.  ]])
    """
    at_least("iteration", iteration, 0)
    one_of("quantity", quantity, ("error", "residual"))
    levels = _levels(factors, options, num_steps)
    finest = levels[0]
    corrected = _correction(levels, options.shape_of(iteration), options.v_cycles_per_level)
    relaxed = finest.relaxation
    if quantity == "error":
        return corrected @ relaxed
    A = _bidiagonal(finest.interval_factors)
    return A @ relaxed @ corrected @ np.linalg.inv(A)


def convergence_factors(
    factors: Sequence[ArrayLike],
    options: MGRITOptions,
    num_steps: int,
    *,
    iteration: int = 0,
    quantity: Quantity = "error",
    norm: float = 2,
) -> NDArray[np.float64]:
    """Return the norm of `cycle_matrix` for each eigenvector: the worst factor of one cycle.

    If the eigenvectors are orthonormal, no cycle of a linear problem multiplies the 2-norm over
    all C-points by more than the greatest of these numbers; `docs/theory.md` says what holds else.

    Parameters
    ----------
    factors, options, num_steps, iteration, quantity
        As in `cycle_matrix`.
    norm : {1, 2, inf}, default 2
        Norm over the C-points.

    Returns
    -------
    ndarray of float64, shape (n,)
        A factor for each eigenvector; below 1 where every cycle reduces it.

    Raises
    ------
    ValueError
        As `cycle_matrix`, or if the norm is another one.

    Examples
    --------
    >>> factors = step_factors([-1.0], TimeGrid.uniform(0, 50, 100), MGRITOptions(levels=3),
    ...                        runge_kutta([[1]], [1]))
    >>> convergence_factors(factors, MGRITOptions(levels=3), 100).round(3)
    array([0.061])
    """
    if norm not in (1, 2, np.inf):
        raise ValueError(f"norm must be 1, 2 or inf, got {norm!r}")
    matrix = cycle_matrix(factors, options, num_steps, iteration=iteration, quantity=quantity)
    return np.asarray(np.linalg.norm(matrix, ord=norm, axis=(1, 2)), dtype=np.float64)


def plot_convergence(
    z: ArrayLike,
    choices: Mapping[str, MGRITOptions],
    stability: Callable[[Complex], Complex],
    num_steps: int = 64,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw the convergence factor of several choices of options over z, one curve for each.

    Parameters
    ----------
    z : array_like of complex128, shape (n,)
        Eigenvalues times the finest step length, for example along the negative real axis; the
        horizontal axis is their absolute value.
    choices : mapping of str to MGRITOptions
        What to compare, by the name in the legend.
    stability : callable
        Stability function of the steps, see `runge_kutta`.
    num_steps : int, default 64
        Number of finest steps; the cost grows with its cube.
    ax : matplotlib Axes, optional
        Where to draw; new if left out.

    Returns
    -------
    matplotlib Axes
        The diagram.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If an argument is out of its range.
    """
    z, grid = _finite_row(z, "z"), TimeGrid.uniform(0.0, float(num_steps), num_steps)
    curves = {
        name: convergence_factors(step_factors(z, grid, options, stability), options, num_steps)
        for name, options in choices.items()
    }
    ax = _new_axes() if ax is None else ax
    for name, factors in curves.items():
        ax.loglog(np.abs(z), np.maximum(factors, 1e-16), label=name)
    ax.axhline(1.0, color="black", linewidth=0.8)
    ax.set_xlabel("|eigenvalue x step length|")
    ax.set_ylabel("convergence factor")
    ax.legend()
    return ax


def _new_axes() -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'pint-mgrit[report]'") from error
    return Figure(layout="constrained").subplots()


class _Level:
    """The linear algebra of one level, for n eigenvectors at once; point 0 is left out."""

    def __init__(self, phi: Complex, m: int, relax: int, weight: float) -> None:
        self.phi = phi
        self.m = m
        self.relax = relax
        self.weight = weight
        self.solved = False  # by stepping: the coarsest level
        self.num_steps = phi.shape[1]
        self.num_c = self.num_steps // m

    @property
    def c_rows(self) -> slice:
        """Rows of the C-points."""
        return slice(self.m - 1, self.num_c * self.m, self.m)

    @property
    def interval_factors(self) -> Complex:
        """What all m steps between two C-points multiply by, shape (n, N_c)."""
        whole = self.phi[:, : self.num_c * self.m]
        products: Complex = whole.reshape(len(whole), self.num_c, self.m).prod(axis=2)
        return products

    @property
    def relaxation(self) -> Complex:
        """Errors at the C-points after (F C)^nu, from those before, shape (n, N_c, N_c)."""
        sweep = np.eye(self.num_c) - self.weight * _bidiagonal(self.interval_factors)
        return np.linalg.matrix_power(sweep, self.relax)

    def everywhere(self, E: Complex) -> Complex:
        """Go from errors at the C-points to those at all points, by F-relaxation at the end."""
        n = len(self.phi)
        rows = np.zeros((n, self.num_steps, self.num_c), dtype=np.complex128)
        rows[:, self.c_rows] = E
        for i in range(self.m, self.num_steps):  # before the first C-point all is exact
            if (i + 1) % self.m:
                rows[:, i] = self.phi[:, i, None] * rows[:, i - 1]
        whole = np.zeros((n, self.num_steps, self.num_steps), dtype=np.complex128)
        whole[:, :, self.c_rows] = rows
        return whole


def _levels(factors: Sequence[ArrayLike], options: MGRITOptions, num_steps: int) -> list[_Level]:
    """Return all levels, after a check that there are factors for each of them."""
    at_least("num_steps", num_steps, 1)
    if options.periodic:
        raise ValueError("the theory needs an initial value: leave periodic out")
    if options.local_points is not None:
        raise ValueError("the theory solves the whole coarsest level: leave LocalGrids out")
    coarsening = options.factors(num_steps)
    if not coarsening:
        raise ValueError(
            f"{num_steps} steps have no coarser level with these options: there is no cycle"
        )
    if len(factors) != len(coarsening) + 1:
        raise ValueError(
            f"factors must have one entry for each of {len(coarsening) + 1} levels, "
            f"got {len(factors)}"
        )
    _even_factors(options, num_steps)
    levels: list[_Level] = []
    for index, given in enumerate(factors):
        phi = _constant_or_varying(given, num_steps, index)
        if levels and len(phi) != len(levels[0].phi):
            raise ValueError(
                f"factors of level {index} are for {len(phi)} eigenvectors, factors of level 0 for "
                f"{len(levels[0].phi)}"
            )
        m = _even(options.coarsening_of(index))
        levels.append(_Level(phi, m, options.relax_of(index), options.relax_weight_of(index)))
        num_steps //= m
    levels[-1].solved = options.coarsest != "relaxation"
    return levels


def _even_factors(options: MGRITOptions, num_steps: int) -> tuple[int, ...]:
    """Return the coarsening factors of the levels that exist."""
    return tuple(_even(m) for m in options.factors(num_steps))


def _even(m: Coarsening) -> int:
    if not isinstance(m, int):
        raise ValueError("the theory needs coarsening factors, not chosen C-points")
    return m


def _constant_or_varying(given: ArrayLike, num_steps: int, level: int) -> Complex:
    """Return the factors of a level as an array of shape (n, N_l)."""
    phi = np.asarray(given, dtype=np.complex128)
    phi = phi[:, None] if phi.ndim == 1 else phi
    if phi.ndim != 2 or phi.shape[1] not in (1, num_steps):
        raise ValueError(
            f"factors of level {level} have shape {np.shape(given)}, expected (n,) or "
            f"(n, {num_steps})"
        )
    if not np.isfinite(phi).all():
        raise ValueError(f"factors of level {level} must be finite")
    return np.broadcast_to(phi, (len(phi), num_steps))


def _correction(levels: list[_Level], shape: str, v_cycles_per_level: int) -> Complex:
    """Return I - (I - E) A_c^{-1} A at the C-points, E what the coarser levels leave."""
    fine, coarse = levels[:2]
    one: Complex = np.eye(coarse.num_steps, dtype=np.complex128)
    ratio = np.linalg.solve(_bidiagonal(coarse.phi), _bidiagonal(fine.interval_factors))
    left = _error_matrix(levels[1:], shape, v_cycles_per_level)
    corrected: Complex = one - (one - left) @ ratio
    return corrected


def _error_matrix(levels: list[_Level], shape: str, v_cycles_per_level: int) -> Complex:
    """Return what the visits of a cycle to its second level multiply the errors there by."""
    level = levels[0]
    if len(levels) == 1:
        left = level.everywhere(level.relaxation)
        return np.zeros_like(left) if level.solved else left

    def once(below: str) -> Complex:
        return level.everywhere(_correction(levels, below, v_cycles_per_level) @ level.relaxation)

    if shape == "F":
        return np.linalg.matrix_power(once("V"), v_cycles_per_level) @ once("F")
    return np.linalg.matrix_power(once(shape), {"V": 1, "W": 2}[shape])


def _bidiagonal(factors: Complex) -> Complex:
    """Return I - diag(factors) L, L the shift to the next point, shape (n, N, N)."""
    n, size = factors.shape
    A = np.zeros((n, size, size), dtype=np.complex128)
    A[:, range(size), range(size)] = 1
    A[:, range(1, size), range(size - 1)] = -factors[:, 1:]
    return A


def _finite_row(values: ArrayLike, name: str) -> Complex:
    row = np.asarray(values, dtype=np.complex128)
    if row.ndim != 1 or row.size == 0 or not np.isfinite(row).all():
        raise ValueError(f"{name} must be a finite array of shape (n,), n >= 1, got {values!r}")
    return row
