"""BDF2 with variable steps, for any model that steps by backward Euler."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.models.problem import Problem
from pint.options import at_least, positive
from pint.propagator import Propagator, Step, changes_space

Array = NDArray[Any]


class BDF2(Propagator):
    """Two values in one state, (y(t), y(t + d)), so that a method of two steps is one of one step.

    A step to the time t' finds y(t') from the pair, then y(t' + d) from y(t') and y(t + d), each by

        c y_0 - (r + 1) y_1 + r^2 / (r + 1) y_2 = h f(t_0, y_0),

    with h = t_0 - t_1, r = h / (t_1 - t_2) and c = (2 r + 1) / (r + 1). That is a backward Euler
    step of length h / c from ((r + 1) y_1 - r^2 / (r + 1) y_2) / c, which the model takes. d is the
    same on all levels; with d half of the finest step, all finest steps are alike.

    Parameters
    ----------
    model : Propagator
        Batched, with `backward_euler` True: its step is one of backward Euler. `parameters` are
        its own.
    distance : float
        d, in units of time.

    Raises
    ------
    ValueError
        If the model does not step by backward Euler, is not batched, or changes space from level
        to level; or, in a step, if that is not longer than `distance`.

    References
    ----------
    Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", Springer 1993, III.5.
    Falgout, Lecouvez, Woodward, "A parallel-in-time algorithm for variable step multistep methods",
    J. Comput. Sci. 37 (2019), 101029, for several values in one state.
    """

    batched = True

    def __init__(self, model: Propagator, distance: float) -> None:
        name = type(model).__name__
        if not getattr(model, "backward_euler", False):
            raise ValueError(
                f"BDF2 needs a model that steps by backward Euler, and {name} does not: "
                "set backward_euler = True on one whose step does"
            )
        if not model.batched or changes_space(model):
            raise ValueError(f"BDF2 needs a batched model with one space for all levels: {name}")
        positive("distance", distance)
        self.model = model
        self.distance = float(distance)
        self.dtype = model.dtype
        self.state_shape = (2, *model.state_shape)
        self.parameters = model.parameters

    def refresh(self) -> None:
        """Let the model hear that its parameters were changed."""
        self.model.refresh()

    def _formulas(self, step: Step) -> list[tuple[Array, Array, Step]]:
        """Return weights of y_1 and -y_2, and the backward Euler step, of both halves."""
        d = self.distance
        ahead = np.atleast_1d(step.dt) - d
        if not (ahead > 0).all():
            raise ValueError(
                f"a step of BDF2 must be longer than distance {d}, got {float(ahead.min()) + d}"
            )
        halves = []
        for h, before, stop in (
            (ahead, np.full_like(ahead, d), step.stop),
            (np.full_like(ahead, d), ahead, step.stop + d),
        ):
            r = h / before
            c = (2 * r + 1) / (r + 1)
            inner = Step(step.level, stop - h / c, stop, step.first, step.last)
            halves.append((self._column((r + 1) / c), self._column(r * r / (r + 1) / c), inner))
        return halves

    def _column(self, weights: Array) -> Array:
        return weights.reshape(-1, *(1 for _ in self.model.state_shape))

    def step(self, u: Array, step: Step) -> Array:
        """Return the pairs at the end of a stack of steps, shape (n, 2, ...); new."""
        out = np.empty_like(u)
        (a1, a2, first), (b1, b2, second) = self._formulas(step)
        out[:, 0] = self.model.step(a1 * u[:, 1] - a2 * u[:, 0], first)
        out[:, 1] = self.model.step(b1 * out[:, 0] - b2 * u[:, 1], second)
        return out

    def _backward(self, w: Array, u: Array, step: Step) -> tuple[Array, Array]:
        """Go through both halves backwards; return what comes of u, and of the parameters."""
        (a1, a2, first), (b1, b2, second) = self._formulas(step)
        begin = a1 * u[:, 1] - a2 * u[:, 0]
        middle = b1 * self.model.step(begin, first) - b2 * u[:, 1]
        d_middle = self.model.adjoint_step(w[:, 1], middle, second)
        d_first = w[:, 0] + b1 * d_middle
        d_begin = self.model.adjoint_step(d_first, begin, first)
        gradient = self.model.adjoint_gradient(w[:, 1], middle, second)
        gradient = gradient + self.model.adjoint_gradient(d_first, begin, first)
        return np.stack([-a2 * d_begin, a1 * d_begin - b2 * d_middle], axis=1), gradient

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint pairs; new."""
        return self._backward(w, u, step)[0]

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return (dPhi/dtheta)^T w, summed over the stack, shape (num_parameters,)."""
        return self._backward(w, u, step)[1]


def pairs(problem: Problem, num_steps: int | None = None) -> Problem:
    """Return a problem of backward Euler as one of BDF2.

    `num_steps` pairs, half as many as the problem's steps if left out, cover its span; the second
    value of the last pair lies half a step beyond. That of the first pair comes from one step and
    two half steps of backward Euler, extrapolated, so that it belongs to the model and not, as the
    exact one would, to an equation without errors in space.
    """
    n = max(problem.num_steps // 2, 1) if num_steps is None else num_steps
    at_least("num_steps", n, 1)
    begin, end = problem.span
    distance = (end - begin) / (2 * n)

    def exact(t: float) -> Array:
        return np.stack([problem.exact(t), problem.exact(t + distance)])

    return Problem(
        name=f"{problem.name}, in pairs for BDF2",
        propagator=BDF2(problem.propagator, distance),
        initial_value=np.stack([problem.initial_value, _second(problem, begin, distance)]),
        span=problem.span,
        num_steps=n,
        exact=exact,
        order=2,
        source=problem.source,
    )


def _second(problem: Problem, begin: float, distance: float) -> Array:
    """Return the value at begin + distance, with an error of the third power of the distance."""

    def stepped(u: Array, start: float, stop: float) -> Array:
        one = np.ones(1, dtype=np.int64)
        new: Array = problem.propagator.step(
            u, Step(0, np.array([start]), np.array([stop]), one, one)
        )
        return new

    u = np.asarray(problem.initial_value)[None]
    middle, stop = begin + distance / 2, begin + distance
    twice = stepped(stepped(u, begin, middle), middle, stop)
    second: Array = (2 * twice - stepped(u, begin, stop))[0]
    return second
