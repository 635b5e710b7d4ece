"""The contract between a model and the solver: one time step, and how it behaves between levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

State: TypeAlias = Any
"""An array of any array-API library (NumPy, torch, CuPy): one state, or a stack of states."""


class Step(NamedTuple):
    """One time step, or a stack of steps of one level (then all fields but `level` are arrays).

    Parameters
    ----------
    level : int
        Level of the step; 0 is the finest.
    start, stop : float or ndarray of float64, shape (n,)
        Time at which the step starts and at which it ends.
    first, last : int or ndarray of int64, shape (n,)
        The steps of the finest grid that this step stands for, both ends included. Steps of the
        finest grid are numbered 1..N; step ``i`` leads from point ``i - 1`` to point ``i``.

    Examples
    --------
    >>> step = Step(level=1, start=0.5, stop=1.5, first=5, last=8)
    >>> step.dt, step.num_fine
    (1.0, 4)
    """

    level: int
    start: float | NDArray[np.float64]
    stop: float | NDArray[np.float64]
    first: int | NDArray[np.int64]
    last: int | NDArray[np.int64]

    @property
    def dt(self) -> Any:
        """Length of the step in time, float or ndarray of shape (n,)."""
        return self.stop - self.start

    @property
    def num_fine(self) -> Any:
        """Number of finest steps that the step covers, int or ndarray of shape (n,)."""
        return self.last - self.first + 1

    def at(self, row: Any) -> Step:
        """Return one step (integer `row`) or some steps (slice) of a stack."""
        fields = (self.start, self.stop, self.first, self.last)
        return Step(self.level, *(field[row] for field in fields))  # type: ignore[index]


class Linearization:
    """The derivative of Phi at given states, applied backwards as often as the adjoint solve asks.

    This default remembers the states and calls the propagator's `adjoint_step`. A propagator whose
    derivative shares costly parts between applications returns its own subclass from `linearize`.

    Parameters
    ----------
    propagator : Propagator
        The model.
    u : array, shape (n, ...state_shape)
        States at which the steps start.
    step : Step
        Stack of n steps.
    """

    def __init__(self, propagator: Propagator, u: State, step: Step) -> None:
        self.propagator = propagator
        self.u = u
        self.step = step

    def adjoint(self, w: State, rows: slice) -> State:
        """Apply (dPhi/du)^T of the steps `rows` to a stack of adjoint states; a new array."""
        return self.propagator.adjoint_step(w, self.u[rows], self.step.at(rows))

    def adjoint_chain(
        self, w: State, rows: slice, g: State | None, out: State
    ) -> NDArray[Any] | None:
        """Apply the steps `rows` one after another: w_j = (dPhi_j/du)^T w_{j-1} + g_j.

        Parameters
        ----------
        w : array, shape state_shape
            Adjoint state to begin with.
        rows : slice
            Steps, in the order in which they are applied.
        g : array, shape (n, ...state_shape), or None
            Right-hand side; None is zero.
        out : array, shape (n, ...state_shape)
            The adjoint states after each step; overwritten.

        Returns
        -------
        ndarray, shape (num_parameters,), or None
            The sum of (dPhi_j/dtheta)^T w_{j-1}, if these are all steps and it was computed on the
            way, which saves `gradient`; None, as here, if it was not.
        """
        indices = range(*rows.indices(self.u.shape[0]))
        for j, row in enumerate(indices):
            new = self.adjoint(w[None, ...], slice(row, row + 1, 1))
            out[j, ...] = w = new[0, ...] if g is None else new[0, ...] + g[j, ...]
        return None

    def diagonal(self, rows: slice) -> State:
        """Return the diagonals of dPhi/du of the steps `rows`, (n, ...state_shape); new."""
        return self.propagator.diagonal(self.u[rows], self.step.at(rows))

    def gradient(self, w: State) -> NDArray[Any]:
        """Apply (dPhi/dtheta)^T of all steps; the sum over the stack, shape (num_parameters,)."""
        return self.propagator.adjoint_gradient(w, self.u, self.step)

    def release(self) -> None:
        """Hear that nobody will use this object any more; for those that can use memory again."""


class Propagator(ABC):
    """A time-stepping model u_i = Phi_i(u_{i-1}); subclass it and write `step`.

    Everything else has a default. A propagator owns the parameters of the model, and never a time
    grid, a communicator or an iterate. `check_propagator` tells whether a subclass keeps the
    contract, and which method does not.

    Attributes
    ----------
    state_shape : tuple of int
        Shape of one state on the finest level.
    dtype : numpy.dtype
        Type of the entries of a state.
    batched : bool
        False: `step`, `restrict`, `interpolate`, `adjoint_step` and `adjoint_gradient` get one
        state and a `Step` of scalars. True: they get a stack of n >= 1 states, of shape
        (n, ...state_shape), and a `Step` of arrays, and treat all n at once.
    prefer_chain : bool
        Whether `chain` is one call of compiled code: then few intervals are stepped through one
        after another, and not side by side.
    parameters : ndarray, shape (num_parameters,), or None
        Parameters that `adjoint_gradient` differentiates with respect to. Who changes them in
        place calls `refresh`.
    kernel : function compiled by Numba, or None
        The step once more, for the compiled driver: ``kernel(u, start, stop, level, params, out)``
        sets ``out`` to Phi(u), all entries, and changes nothing else. `u` and `out` are arrays of
        shape `state_shape` that do not overlap, of one entry where that is (); `params` is what
        `kernel_params` returns.

    Examples
    --------
    >>> class Decay(Propagator):
    ...     state_shape, dtype = (), np.dtype(float)
    ...     def step(self, u, step):
    ...         return u / (1 + step.dt)
    """

    state_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batched: bool = False
    prefer_chain: bool = False
    parameters: NDArray[Any] | None = None
    kernel: Any = None
    composes: Propagator | None = None  # the model whose space and norm a wrapper has

    @abstractmethod
    def step(self, u: State, step: Step) -> State:
        """Return Phi(u), the state at the end of `step`; a new array, `u` stays unchanged."""

    def chain(self, u: State, step: Step, g: State | None, out: State) -> None:
        """Take a stack of steps one after another: u_j = Phi_j(u_{j-1}) + g_j.

        Only called when `batched`; the default calls `step` with stacks of one. A model that can
        do better overrides it.

        Parameters
        ----------
        u : array, shape state_shape
            State to begin with.
        step : Step
            Stack of n consecutive steps.
        g : array, shape (n, ...state_shape), or None
            Right-hand side; None is zero.
        out : array, shape (n, ...state_shape)
            The states after each step; overwritten.
        """
        for j in range(out.shape[0]):
            new = self.step(u[None, ...], step.at(slice(j, j + 1)))
            out[j, ...] = u = new[0, ...] if g is None else new[0, ...] + g[j, ...]

    def step_into(self, u: State, step: Step, g: State | None, out: State) -> None:
        """Take a stack of steps at once: out = Phi(u) + g.

        Only called when `batched`; the default calls `step`. A model that can write its result
        where it belongs overrides it, and saves a copy.

        Parameters
        ----------
        u : array, shape (n, ...state_shape)
            States to begin with.
        step : Step
            Stack of n steps.
        g : array, shape (n, ...state_shape), or None
            Right-hand side; None is zero.
        out : array, shape (n, ...state_shape)
            Overwritten; it does not overlap `u`.
        """
        new = self.step(u, step)
        if g is not None and isinstance(out, np.ndarray):
            np.add(new, g, out=out)
        else:
            out[...] = new if g is None else new + g

    def kernel_params(self) -> Any:
        """Return what `kernel` gets as `params`: numbers, arrays, or a tuple of them.

        Called once for each thread at the begin of every solve, so that a kernel may keep scratch
        arrays of its own in it.
        """
        return ()

    def restrict(self, u: State, level: int) -> State:
        """Bring a state from `level` to `level` + 1 in space; `u` itself unless overridden."""
        return u

    def interpolate(self, u: State, level: int) -> State:
        """Bring a state from `level` + 1 to `level` in space; `u` itself unless overridden."""
        return u

    def tangent_step(self, v: State, u: State, step: Step) -> State:
        """Return (dPhi/du) v at `u`, the change of Phi(u) when `u` changes by v; a new array.

        Where `batched`, `v` and `u` are stacks of n states and `step` is one of n steps.

        Raises
        ------
        NotImplementedError
            If the model has no tangent.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no tangent_step: write it to use the Delta correction"
        )

    def diagonal(self, u: State, step: Step) -> State:
        """Return the diagonal of dPhi/du at `u` of a finest step, an array like `u`; new.

        Its entries are the derivatives of those of Phi(u), each by the same entry of `u`. Where
        `batched`, `u` is a stack of n states and `step` is one of n steps.

        Raises
        ------
        NotImplementedError
            If the model does not know it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no diagonal: write it to use delta='diagonal'"
        )

    def residual(self, new: State, u: State, step: Step) -> State:
        """Return A(new, u), which `step` makes zero; for models that give their own equation.

        A step then solves A(u_i, u_{i-1}) = g_i, where the default is u_i - Phi(u_{i-1}) = g_i, and
        residuals are g_i - A(u_i, u_{i-1}): without a solve, where an implicit step is one. Such a
        model writes `solve_step` too. Not for the compiled driver.

        Raises
        ------
        NotImplementedError
            Unless overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} has no residual")

    def solve_step(self, u: State, step: Step, g: State | None, guess: State) -> State:
        """Return the state with A(new, u) = g, None for zero; new.

        Parameters
        ----------
        u : array
            State at the begin of the step; a stack if `batched`.
        step : Step
            The step.
        g : array or None
            Right-hand side.
        guess : array
            State that is known so far at the end of the step, for iterative solvers.

        Raises
        ------
        NotImplementedError
            Unless overridden.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has a residual but no solve_step: write it"
        )

    def set_outer_residual(self, residual: float) -> None:  # noqa: B027
        """Hear the norm of the residual, for models whose steps iterate to a tolerance.

        Called on every rank alike: before the first cycle with inf (with 0 where there is one
        level), and after each cycle that has measured its residual. Early cycles may so take
        cheaper steps.
        """

    def norm(self, u: State) -> float:
        """Return the norm of the residual at one point; the 2-norm unless overridden.

        A model may so measure in its own inner product, sqrt(u^T M u) with a mass matrix M. It gets
        one state of the finest level, also when `batched`, so that its result is the same on any
        number of ranks. The adjoint problem has the 2-norm.
        """
        return float(np.linalg.norm(np.asarray(u).ravel()))

    def refine(self, new: State, u: State, step: Step, error: float) -> int | NDArray[np.float64]:
        """Tell into how many equal parts a solve shall split a step of the finest level.

        Asked after cycles, where `MGRITOptions.refinement` allows it, once for each step; with
        single states also when `batched`.

        Parameters
        ----------
        new, u : array, shape state_shape
            States at the end and at the begin of the step, as far as they are known.
        step : Step
            The step.
        error : float
            Estimated norm of its error; NaN without `MGRITOptions.richardson`.

        Returns
        -------
        int or ndarray of float64
            Number of parts, 1 for none; or the ends of the parts, the last of them `step.stop`.
        """
        return 1

    def refined_model(self, refinement: int) -> Propagator | None:
        """Return the model in a finer space that a solve shall go on with; None to stay.

        Asked after cycles, where `MGRITOptions.refinement` allows it. The answer must be the same
        on every rank; this model stays unchanged, so that the next solve begins with it.

        Parameters
        ----------
        refinement : int
            Number of refinements, in time or space, that this solve has had.
        """
        return None

    def prolong(self, u: State, time: float) -> State:
        """Return a state, at some time, in the space of the model that `refined_model` returned; new.

        One state also when `batched`. Who knows the initial value in the finer space may return it.

        Raises
        ------
        NotImplementedError
            Unless overridden.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has refined_model but no prolong: write it"
        )

    def adjoint_step(self, w: State, u: State, step: Step) -> State:
        """Return (dPhi/du)^T w at `u`: <w, J v> = <adjoint_step(w, u, step), v> for every v.

        Raises
        ------
        NotImplementedError
            If the model has no adjoint.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no adjoint_step: write it to solve the adjoint problem"
        )

    def adjoint_gradient(self, w: State, u: State, step: Step) -> NDArray[Any]:
        """Return (dPhi/dtheta)^T w at `u`, summed over the stack, shape (num_parameters,).

        Raises
        ------
        NotImplementedError
            If the model has parameters and does not override this method.
        """
        if self.parameters is None:
            return np.zeros(0, dtype=self.dtype)
        raise NotImplementedError(
            f"{type(self).__name__} has parameters but no adjoint_gradient: write it"
        )

    def refresh(self) -> None:  # noqa: B027
        """Hear that `parameters` were changed in place; for models that keep what follows."""

    def linearize(self, u: State, step: Step) -> Linearization:
        """Return the derivative of Phi at a stack of states, for a stack of steps.

        Only called when `batched`; the default applies `adjoint_step` and `adjoint_gradient`.
        """
        return Linearization(self, u, step)


def kernel_of(propagator: Propagator) -> Any:
    """Return the propagator's kernel; None where it has none."""
    # A compiled function that is a class attribute comes back as a bound method.
    return getattr(propagator.kernel, "__func__", propagator.kernel)


def has_own_norm(propagator: Propagator) -> bool:
    """Tell whether the propagator measures residuals in a norm of its own."""
    return _kind_of(propagator).norm is not Propagator.norm


def has_own_equation(propagator: Propagator) -> bool:
    """Tell whether the propagator gives A(u_i, u_{i-1}) itself."""
    return type(propagator).residual is not Propagator.residual


def check_diagonal(propagator: Propagator) -> None:
    """Raise ValueError unless the propagator knows the diagonals of its derivatives."""
    if _kind_of(propagator).diagonal is Propagator.diagonal:
        raise ValueError(
            f"delta='diagonal' needs the diagonals of derivatives, and {type(propagator).__name__} "
            "has none: write diagonal, or leave delta out"
        )


def refines_time(propagator: Propagator) -> bool:
    """Tell whether the propagator says itself which steps to split."""
    return type(propagator).refine is not Propagator.refine


def refines_space(propagator: Propagator) -> bool:
    """Tell whether the propagator has a finer space to go on with."""
    return type(propagator).refined_model is not Propagator.refined_model


def changes_space(propagator: Propagator) -> bool:
    """Tell whether the propagator's levels differ in space."""
    kind = _kind_of(propagator)
    return not (kind.restrict is Propagator.restrict and kind.interpolate is Propagator.interpolate)


def _kind_of(propagator: Propagator) -> type[Propagator]:
    return type(propagator if propagator.composes is None else propagator.composes)
