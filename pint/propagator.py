"""The contract between a model and the solver: one time step, and how it behaves between levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import array_api_compat
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
        if self.propagator.parameters is None:
            return np.zeros(0, dtype=np.asarray(self.u[:0]).dtype)
        gradient: NDArray[Any] = self.propagator.adjoint_gradient(w, self.u, self.step)
        return gradient

    def release(self) -> None:
        """Release cached derivatives. Called after the last adjoint application."""


class Propagator(ABC):
    """A time-stepping model u_i = Phi_i(u_{i-1}); subclass it and write `step`.

    `step` is all that a model must have. Each other method is a capability (`CAPABILITIES`): the
    model has it by having the method, and `repr(model)` lists the present and the missing ones.
    A propagator owns the parameters of the model, and never a time grid, a communicator or an
    iterate. `check_propagator` tests a model, and names a method that breaks the contract.

    Attributes
    ----------
    state_shape : tuple of int, optional
        Shape of one state on the finest level; of the initial value, if left out.
    dtype : numpy.dtype, optional
        Type of the entries of a state; of the initial value, if left out.
    batched : bool
        False: `step`, `restrict`, `interpolate`, `adjoint_step` and `adjoint_gradient` get one
        state and a `Step` of scalars. True: they get a stack of n >= 1 states, of shape
        (n, ...state_shape), and a `Step` of arrays, and treat all n at once.
    prefer_chain : bool
        Whether `chain` is one call of compiled code: then few intervals are stepped through one
        after another, and not side by side.
    parameters : ndarray, shape (num_parameters,), or None
        Parameters for `adjoint_gradient`. Call `refresh` after a change in place.
    kernel : function compiled by Numba, or None
        The step once more, for the compiled driver: ``kernel(u, start, stop, level, params, out)``
        sets ``out`` to Phi(u), all entries, and changes nothing else. `u` and `out` are arrays of
        shape `state_shape` that do not overlap, of one entry where that is (); `params` is what
        `kernel_params` returns.

    Examples
    --------
    >>> class Decay(Propagator):
    ...     def step(self, u, step):
    ...         return u / (1 + step.dt)
    """

    state_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batched: bool = False
    prefer_chain: bool = False
    parameters: NDArray[Any] | None = None
    kernel: Any = None

    if TYPE_CHECKING:  # capabilities, which `has` finds

        def __getattr__(self, name: str) -> Any: ...

    @abstractmethod
    def step(self, u: State, step: Step) -> State:
        """Return Phi(u), the state at the end of `step`; a new array, `u` stays unchanged."""

    def chain(self, u: State, step: Step, g: State | None, out: State) -> None:
        """Take a stack of steps one after another: u_j = Phi_j(u_{j-1}) + g_j.

        Only called when `batched`; the default calls `step` with stacks of one.

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

        Only called when `batched`; the default calls `step`, and copies.

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

    def refresh(self) -> None:  # noqa: B027
        """Update what follows from `parameters`. Called after they were changed in place."""

    def linearize(self, u: State, step: Step) -> Linearization:
        """Return the derivative of Phi at a stack of states, for a stack of steps.

        Only called when `batched`; the default applies `adjoint_step` and `adjoint_gradient`.
        """
        return Linearization(self, u, step)

    def __repr__(self) -> str:
        present, missing = capabilities(self)
        lines = [f"{type(self).__name__}, a model with {', '.join(['step', *present])}"]
        lines += [f"  without {name}: no {gives}" for name, gives in missing.items()]
        return "\n".join(lines)


class Wrapper(Propagator):
    """A model made of another one, with no capability that the other one lacks.

    Parameters
    ----------
    model : Propagator
        The other one.

    Attributes
    ----------
    passes_on : tuple of str
        Capabilities and attributes that it takes from the other model.
    """

    passes_on: tuple[str, ...] = ("state_shape", "dtype")

    def __init__(self, model: Propagator) -> None:
        self.model = model
        self.batched = model.batched

    def __getattr__(self, name: str) -> Any:
        if name in type(self).passes_on:
            return getattr(self.model, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def restrict(self, u: State, level: int) -> State:
        """Restrict as the model does."""
        return self.model.restrict(u, level)

    def interpolate(self, u: State, level: int) -> State:
        """Interpolate as the model does."""
        return self.model.interpolate(u, level)


@runtime_checkable
class CoarsensSpace(Protocol):
    """Bring states between levels that differ in space."""

    def restrict(self, u: State, level: int) -> State:
        """Bring a state from `level` to `level` + 1 in space; new."""

    def interpolate(self, u: State, level: int) -> State:
        """Bring a state from `level` + 1 to `level` in space; new."""


@runtime_checkable
class HasAdjoint(Protocol):
    """Apply the transposed derivative of a step."""

    def adjoint_step(self, w: State, u: State, step: Step) -> State:
        """Return (dPhi/du)^T w at `u`: <w, J v> = <adjoint_step(w, u, step), v> for every v."""


@runtime_checkable
class HasGradient(Protocol):
    """Apply the transposed derivative by the parameters."""

    def adjoint_gradient(self, w: State, u: State, step: Step) -> NDArray[Any]:
        """Return (dPhi/dtheta)^T w at `u`, summed over the stack, shape (num_parameters,)."""


@runtime_checkable
class HasTangent(Protocol):
    """Apply the derivative of a step."""

    def tangent_step(self, v: State, u: State, step: Step) -> State:
        """Return (dPhi/du) v at `u`, the change of Phi(u) when `u` changes by v; a new array.

        Where `batched`, `v` and `u` are stacks of n states and `step` is one of n steps.
        """


@runtime_checkable
class HasDiagonal(Protocol):
    """Give the diagonal of the derivative of a step."""

    def diagonal(self, u: State, step: Step) -> State:
        """Return the diagonal of dPhi/du at `u` of a finest step, an array like `u`; new.

        Entry j is the derivative of entry j of Phi(u) with respect to entry j of `u`. Where
        `batched`, `u` is a stack of n states and `step` is one of n steps.
        """


@runtime_checkable
class HasResidual(Protocol):
    """Give the equation of a step."""

    def residual(self, new: State, u: State, step: Step) -> State:
        """Return A(new, u), which `step` makes zero; for models that give their own equation.

        A step then solves A(u_i, u_{i-1}) = g_i, where the default is u_i - Phi(u_{i-1}) = g_i, and
        residuals are g_i - A(u_i, u_{i-1}): without a solve, where an implicit step is one. Such a
        model writes `solve_step` too. Not for the compiled driver.
        """

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
        """


@runtime_checkable
class HasNorm(Protocol):
    """Measure residuals in an own norm."""

    def norm(self, u: State) -> float:
        """Return the norm of the residual at one point.

        A model may so measure in its own inner product, sqrt(u^T M u) with a mass matrix M. It gets
        one state of the finest level, also when `batched`, so that its result is the same on any
        number of ranks. The adjoint problem has the 2-norm.
        """


@runtime_checkable
class FollowsResidual(Protocol):
    """Adapt an inner tolerance to the residual."""

    def set_outer_residual(self, residual: float) -> None:
        """Take the norm of the residual, for steps that iterate to a tolerance.

        Called on every rank alike: before the first cycle with inf (with 0 where there is one
        level), and after each cycle that has measured its residual. Early cycles may so take
        cheaper steps.
        """


@runtime_checkable
class RefinesTime(Protocol):
    """Choose the steps that a solve splits."""

    def refine(self, new: State, u: State, step: Step, error: float) -> int | NDArray[np.float64]:
        """Return into how many equal parts a solve splits a step of the finest level.

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


@runtime_checkable
class RefinesSpace(Protocol):
    """Give a model in a finer space."""

    def refined_model(self, refinement: int) -> Propagator | None:
        """Return the model in a finer space that a solve shall go on with; None to stay.

        Asked after cycles, where `MGRITOptions.refinement` allows it. The answer must be the same
        on every rank; this model stays unchanged, so that the next solve begins with it.

        Parameters
        ----------
        refinement : int
            Number of refinements, in time or space, that this solve has had.
        """

    def prolong(self, u: State, time: float) -> State:
        """Return a state at a time in the space of the model of `refined_model`; new.

        One state also when `batched`. At the initial time it may be the finer initial value.
        """


CAPABILITIES: dict[type, str] = {
    CoarsensSpace: "coarser states on coarser levels",
    HasAdjoint: "gradients (AdjointSolver)",
    HasGradient: "gradients by parameters",
    HasTangent: "Delta correction",
    HasDiagonal: "Delta correction by diagonals",
    HasResidual: "residuals of the equation, without a solve",
    HasNorm: "norm of the model in place of the 2-norm",
    FollowsResidual: "inner tolerance that follows the residual",
    RefinesTime: "choice of the steps to refine",
    RefinesSpace: "refinement in space",
}
"""What each protocol gives to a model with its methods."""

_FASTER = {
    "kernel": "compiled sweeps",
    "chain": "faster chains of steps (for batched models)",
    "step_into": "steps written in place (for batched models)",
    "linearize": "derivatives that share work (for batched models)",
}


def has(propagator: Any, capability: type) -> bool:
    """Return whether a model has all methods of a protocol, and a wrapped model too."""
    return all(provides(propagator, name) for name in _methods(capability))


def capabilities(propagator: Propagator) -> tuple[list[str], dict[str, str]]:
    """Return the names of the optional methods of a model, and what each missing one would give."""
    table = {" and ".join(_methods(kind)): (kind, gives) for kind, gives in CAPABILITIES.items()}
    present = [name for name, (kind, _) in table.items() if has(propagator, kind)]
    present += [name for name in _FASTER if provides(propagator, name)]
    missing = {name: gives for name, (_, gives) in table.items() if name not in present}
    missing |= {name: gives for name, gives in _FASTER.items() if name not in present}
    return present, missing


def provides(propagator: Propagator, name: str) -> bool:
    """Return whether a model has a method or attribute that is not a default of `Propagator`."""
    default = getattr(Propagator, name, None)
    if default is None and getattr(propagator, name, None) is None:
        return False
    if default is not None and getattr(type(propagator), name) is default:
        return False
    return not isinstance(propagator, Wrapper) or provides(propagator.model, name)


def _methods(capability: type) -> list[str]:
    return [name for name in vars(capability) if not name.startswith("_")]


def check_capabilities(propagator: Propagator) -> None:
    """Raise ValueError if a model has one method of a capability and lacks another."""
    for kind, gives in CAPABILITIES.items():
        missing = [name for name in _methods(kind) if not provides(propagator, name)]
        if missing and len(missing) < len(_methods(kind)):
            (given,) = set(_methods(kind)) - set(missing)
            raise ValueError(
                f"{type(propagator).__name__} has {given} but no {missing[0]}, and {gives} needs "
                "both: write it"
            )


def check_adjoint(propagator: Propagator) -> None:
    """Raise NotImplementedError unless a model has what the adjoint problem needs."""
    name, linearizes = type(propagator).__name__, provides(propagator, "linearize")
    if not (linearizes or has(propagator, HasAdjoint)):
        raise NotImplementedError(
            f"{name} has no adjoint_step: write it to solve the adjoint problem"
        )
    has_parameters = propagator.parameters is not None
    if has_parameters and not (linearizes or has(propagator, HasGradient)):
        raise NotImplementedError(f"{name} has parameters but no adjoint_gradient: write it")


def kernel_of(propagator: Propagator) -> Any:
    """Return the propagator's kernel; None where it has none."""
    # A compiled function that is a class attribute comes back as a bound method.
    return getattr(propagator.kernel, "__func__", propagator.kernel)


def declared(propagator: Propagator) -> tuple[tuple[int, ...] | None, np.dtype[Any] | None]:
    """Return shape and dtype of the states as a model declares them; None if it does not."""
    shape, dtype = getattr(propagator, "state_shape", None), getattr(propagator, "dtype", None)
    return None if shape is None else tuple(shape), None if dtype is None else np.dtype(dtype)


def declares_states(propagator: Propagator) -> bool:
    """Return whether a model declares both shape and dtype."""
    return all(part is not None for part in declared(propagator))  # a dtype may equal None


def as_state(propagator: Propagator, value: State, what: str) -> State:
    """Return a state as an array; one of NumPy gets the dtype that the model declares.

    Without a declared dtype, integers become float64.

    Raises
    ------
    TypeError
        If the dtype is not one of the model's.
    """
    if not array_api_compat.is_array_api_obj(value):
        value = np.asarray(value)
    if isinstance(value, np.ndarray | np.generic):
        dtype = declared(propagator)[1]
        if dtype is None:
            dtype = np.result_type(value.dtype, np.float64) if value.dtype.kind in "biu" else None
        if dtype is not None and not np.can_cast(value.dtype, dtype, "same_kind"):
            raise TypeError(f"{what} is {value.dtype}, the propagator's states are {dtype}")
        value = np.asarray(value).astype(dtype or value.dtype, copy=False)
    return value


def check_diagonal(propagator: Propagator) -> None:
    """Raise ValueError unless the propagator has the diagonals of its derivatives."""
    if not has(propagator, HasDiagonal):
        raise ValueError(
            "delta='diagonal' needs the diagonals of derivatives, and "
            f"{type(propagator).__name__} has none: write diagonal, or leave delta out"
        )
