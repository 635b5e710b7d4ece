"""The heat equation in one dimension."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pint.models.problem import Problem
from pint.models.transfer import full_weighting, linear
from pint.options import at_least, one_of, positive
from pint.propagator import Propagator, State, Step

Array = NDArray[np.float64]
Method = Literal["backward_euler", "crank_nicolson", "sdirk2"]


@dataclass(frozen=True, kw_only=True)
class _Implicit:
    """A method whose stages are backward Euler steps of a `fraction` of the step.

    `explicit` is the part of the step with the derivative at its start. A second stage starts from
    u + restarts (x - u), where x is the result of the first; None without a second stage.
    """

    order: int
    fraction: float
    explicit: float = 0.0
    restarts: float | None = None


_G = 1 - math.sqrt(0.5)
METHODS = {
    "backward_euler": _Implicit(order=1, fraction=1.0),
    "crank_nicolson": _Implicit(order=2, fraction=0.5, explicit=0.5),
    "sdirk2": _Implicit(order=2, fraction=_G, restarts=(1 - _G) / _G),
}


class Heat(Propagator):
    """u_t = kappa u_xx + p(x) a(t) on [0, length], by central differences.

    States hold all nodes, including both ends with prescribed values. A step of backward Euler
    solves

        -c x_{i-1} + (1 + 2 c) x_i - c x_{i+1} = u_i + dt p_i a(t + dt),    c = kappa dt / dx^2,

    for the inner nodes, by elimination from both ends to the middle. This is twice as fast as
    elimination from one end, because the halves are independent. Crank-Nicolson solves for half a
    step after half a step of forward Euler. sdirk2, the stiffly accurate method of two stages and
    order 2, solves twice. The parameter is kappa.

    A step takes states of any number of nodes. For fewer nodes than on the finest level it uses
    evenly spaced entries of `profile`. A subclass whose levels differ in space therefore writes
    only `restrict` and `interpolate`.

    Parameters
    ----------
    num_nodes : int
        Number of nodes, at least 3.
    length : float, default 1.0
        Length of the interval.
    diffusivity : float, default 1.0
        kappa, length squared per unit of time.
    ends : tuple of float, default (0.0, 0.0)
        Values at both ends.
    profile : array_like of float64, shape (num_nodes,), optional
        The source in space, p at the nodes; no source by default.
    amplitude : callable, optional
        The source in time: a function of one number that Numba can compile.
    method : {"backward_euler", "crank_nicolson", "sdirk2"}
        The integrator in time; of order 1, 2 and 2.

    Raises
    ------
    ValueError
        If a value is out of its range, or of `profile` and `amplitude` one is missing.

    References
    ----------
    Alexander, "Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s", SIAM J. Numer. Anal.
    14 (1977), 1006-1021, for sdirk2.
    Babuška, "Numerical stability in problems of linear algebra", SIAM J. Numer. Anal. 9 (1972),
    53-77, for elimination from both ends.

    Examples
    --------
    >>> from pint import Step
    >>> heat = Heat(5, length=4.0)
    >>> heat.step(np.array([[0.0, 0.0, 8.0, 0.0, 0.0]]), Step(0, np.zeros(1), np.ones(1), 1, 1))
    array([[0.        , 1.14285714, 3.42857143, 1.14285714, 0.        ]])
    """

    dtype = np.dtype(np.float64)
    batched = True

    def __init__(
        self,
        num_nodes: int,
        length: float = 1.0,
        diffusivity: float = 1.0,
        ends: tuple[float, float] = (0.0, 0.0),
        profile: ArrayLike | None = None,
        amplitude: Callable[[float], float] | None = None,
        method: Method = "backward_euler",
    ) -> None:
        at_least("num_nodes", num_nodes, 3)
        positive("length", length)
        positive("diffusivity", diffusivity)
        one_of("method", method, tuple(METHODS))
        if (profile is None) != (amplitude is None):
            raise ValueError("a source needs both a profile and an amplitude, got one of them")
        self.profile = np.zeros(num_nodes) if profile is None else np.array(profile, dtype=float)
        if self.profile.shape != (num_nodes,):
            raise ValueError(f"profile has shape {self.profile.shape}, expected ({num_nodes},)")
        self.state_shape = (num_nodes,)
        self.length = float(length)
        self.ends = (float(ends[0]), float(ends[1]))
        self.amplitude = amplitude
        self.method = METHODS[method]
        self.backward_euler = method == "backward_euler"
        self.parameters: Array = np.array([diffusivity], dtype=np.float64)

    @property
    def nodes(self) -> Array:
        """Positions of the nodes, shape (num_nodes,); new."""
        return np.linspace(0.0, self.length, self.state_shape[0])

    @property
    def kernel(self) -> Any:
        """The step, compiled."""
        from pint.models.compiled_steps import heat

        method = self.method
        return heat(self.amplitude, method.fraction, method.explicit, method.restarts)

    def kernel_params(self) -> Any:
        """Return the parameters of the kernel, with its own scratch arrays."""
        scratch = np.zeros((2, self.state_shape[0]))
        return self.length, float(self.parameters[0]), *self.ends, self.profile, scratch

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, num_nodes); new."""
        out = np.empty(u.shape)
        self.step_into(u, step, None, out)
        return out

    def step_into(self, u: Array, step: Step, g: Array | None, out: Array) -> None:
        """Set out = Phi(u) + g for a stack of steps."""
        self._advance(u, step, self._sources(step), self.ends, out)
        if g is not None:
            out += g

    def _advance(
        self, u: Array, step: Step, sources: list[Array], ends: tuple[float, float], out: Array
    ) -> Array | None:
        """Set `out` to the states after the steps; return the states of the first of two stages."""
        method, scale = self.method, self._scale(step, u)
        d, first = u[:, 1:-1], None
        if method.explicit:
            d = d + _bend(u, ends) * (method.explicit / scale)[:, None]
        self._solve(_add_source(d, sources[:1], self.profile), scale / method.fraction, ends, out)
        if method.restarts is not None:
            first = out.copy()
            d = d + method.restarts * (first[:, 1:-1] - d)
            d = _add_source(d, sources[1:], self.profile)
            self._solve(d, scale / method.fraction, ends, out)
        return first

    def _sources(self, step: Step) -> list[Array]:
        """Return the source term in each stage's right-hand side, (n,); none without a source."""
        if self.amplitude is None:
            return []
        method, dt = self.method, np.atleast_1d(step.dt)
        if method.restarts is not None:
            stops = [step.start + method.fraction * step.dt, step.stop]
            return [method.fraction * dt * self._amplitudes(stop) for stop in stops]
        strength = method.fraction * dt * self._amplitudes(step.stop)
        if method.explicit:
            strength += method.explicit * dt * self._amplitudes(step.start)
        return [strength]

    def _amplitudes(self, times: Any) -> Array:
        amplitude = self.amplitude or _none
        return np.array([amplitude(t) for t in np.atleast_1d(times).tolist()])

    def _scale(self, step: Step, u: Array) -> Array:
        """Return 1 / c of each step."""
        dx = self.length / (u.shape[1] - 1)
        scale: Array = dx * dx / (self.parameters[0] * step.dt)
        return np.atleast_1d(scale)

    def _solve(self, d: Array, scale: Array, ends: tuple[float, float], out: Array) -> None:
        """Solve for a stack of right-hand sides together, node after node."""
        half, last = d.shape[1] // 2, out.shape[1] - 1
        # Row i - 1 holds node i and its mirror image; rows are contiguous for speed.
        pairs = np.empty((half, 2, d.shape[0]))
        pairs[:, 0] = d[:, :half].T
        pairs[:, 1] = d[:, ::-1][:, :half].T
        pairs *= scale
        x = np.empty((2, d.shape[0]))
        x[0], x[1] = ends
        b, e = 2 + scale, np.zeros(d.shape[0])
        factors = np.empty((half, d.shape[0]))
        for row, factor in zip(pairs, factors, strict=True):
            np.divide(1, b - e, out=factor)
            row += x
            row *= factor
            x, e = row, factor
        unknown = half  # remaining pairs
        if last % 2 == 0:
            middle = (x[0] + (d[:, half] * scale + x[1])) / (b - 2 * e)
            out[:, half + 1] = middle
            x = np.stack([middle, middle])
        elif half > 0:
            x[...] = (x + e * x[::-1]) / (1 - e * e)
            unknown -= 1
        change = np.empty_like(x)
        for row, factor in zip(pairs[:unknown][::-1], factors[:unknown][::-1], strict=True):
            row += np.multiply(factor, x, out=change)
            x = row
        out[:, 1 : half + 1] = pairs[:, 0].T
        out[:, last - half : last] = pairs[::-1, 1].T
        out[:, 0], out[:, last] = ends

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new.

        The end values of `u` have no influence; between the inner nodes the step is symmetric.
        """
        out = np.empty(w.shape)
        self._advance(w, step, [], (0.0, 0.0), out)
        return out

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return (dPhi/dkappa)^T w, shape (1,), from <w, D x> with D the second difference.

        A stage x = S d, S = (I - h kappa D)^-1, has the derivative S (h D x + dd/dkappa).
        """
        method, scale, x = self.method, self._scale(step, u), np.empty(u.shape)
        first = self._advance(u, step, self._sources(step), self.ends, x)
        change = method.fraction * _bend(x, self.ends)
        if method.explicit:
            change += method.explicit * _bend(u, self.ends)
        v = np.empty(w.shape)
        self._solve(w[:, 1:-1], scale / method.fraction, (0.0, 0.0), v)
        slope = np.sum(v[:, 1:-1] * change, axis=1)
        if first is not None and method.restarts is not None:
            self._solve(v[:, 1:-1].copy(), scale / method.fraction, (0.0, 0.0), v)
            change = method.restarts * method.fraction * _bend(first, self.ends)
            slope += np.sum(v[:, 1:-1] * change, axis=1)
        return np.array([np.sum(slope / scale) / self.parameters[0]])


class HeatInSpace(Heat):
    """The heat equation with fewer nodes on coarse levels: every other node, level by level.

    States are restricted by full weighting and interpolated linearly; coarse steps are cheaper.
    It suits methods that damp: "crank_nicolson" keeps interpolation errors, and may diverge.

    Parameters
    ----------
    *args, **kwargs
        As for `Heat`.
    num_coarsened : int
        Number of levels, from the first coarse one, that halve the intervals of the level above.

    Raises
    ------
    ValueError
        If the intervals cannot be halved `num_coarsened` times, or as for `Heat`.

    References
    ----------
    Falgout et al., SIAM J. Sci. Comput. 36 (2014), C635-C661, section 4.

    Examples
    --------
    >>> model = HeatInSpace(9, num_coarsened=2)
    >>> model.restrict(model.restrict(np.ones((1, 9)), 0), 1).shape
    (1, 3)
    """

    def __init__(self, *args: Any, num_coarsened: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        at_least("num_coarsened", num_coarsened, 0)
        intervals = self.state_shape[0] - 1
        if intervals % 2**num_coarsened or intervals // 2**num_coarsened < 2:
            raise ValueError(
                f"{intervals + 1} nodes cannot be halved {num_coarsened} times: their number must "
                "be one more than a multiple of 2**num_coarsened, and 3 or more must be left"
            )
        self.num_coarsened = num_coarsened

    def restrict(self, u: State, level: int) -> State:
        """Restrict by full weighting where the next level has half of the intervals."""
        return full_weighting(u) if level < self.num_coarsened else u

    def interpolate(self, u: State, level: int) -> State:
        """Set the nodes in between to the mean of their neighbours."""
        return linear(u) if level < self.num_coarsened else u


def problem(
    num_nodes: int = 65, method: Method = "backward_euler", num_coarsened: int = 0
) -> Problem:
    """Return u_t = u_xx - sin(x) sin(t) + sin(x) cos(t) on [0, pi], t in [0, 2 pi].

    Its solution, from sin(x), is sin(x) cos(t), with zero ends. `num_coarsened` coarse levels halve
    the intervals of the level above (`HeatInSpace`).
    """
    x = np.linspace(0.0, np.pi, num_nodes)
    given: dict[str, Any] = {"profile": np.sin(x), "amplitude": _wave, "method": method}
    model = Heat(num_nodes, np.pi, **given)
    if num_coarsened:
        model = HeatInSpace(num_nodes, np.pi, num_coarsened=num_coarsened, **given)
    return Problem(
        name=f"heat equation, {method.replace('_', ' ')}",
        propagator=model,
        initial_value=np.sin(x),
        span=(0.0, 2 * np.pi),
        num_steps=256,
        exact=lambda t: np.sin(x) * math.cos(t),
        order=model.method.order,
        source="manufactured: sin(x) cos(t)",
    )


def _wave(t: float) -> float:
    return math.cos(t) - math.sin(t)


def _none(t: float) -> float:
    return 0.0


def _bend(u: Array, ends: tuple[float, float]) -> Array:
    """Return the second differences of a stack of states with given ends."""
    v = u.copy()
    v[:, 0], v[:, -1] = ends
    return np.diff(v, 2, axis=1)


def _add_source(d: Array, strength: list[Array], profile: Array) -> Array:
    """Return right-hand sides with a source of a strength; unchanged without a source."""
    if not strength:
        return d
    stride = (profile.size - 1) // (d.shape[1] + 1)
    inner: Array = d + strength[0][:, None] * profile[stride:-1:stride]
    return inner
