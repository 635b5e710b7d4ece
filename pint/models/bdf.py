"""Backward differentiation of order 1 to 6 with variable steps, for models of backward Euler."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.models.problem import Problem
from pint.options import at_least, positive
from pint.propagator import CoarsensSpace, Propagator, Step, has

Array = NDArray[Any]

HIGHEST = 6
"""Formulas of higher order are unstable, even with equal steps."""


class BDF(Propagator):
    """A k-step method as a one-step method: a state is y(t), ..., y(t + (k-1) d).

    A step to the time t' computes y(t'), y(t' + d), ... one after another, each from the k previous
    values: the polynomial through the values at s_1, ..., s_k and the new one at s has the slope
    f(s, y(s)) at s. By Newton's divided differences (derived in `docs/models.md`) this is

        a_0 y(s) + sum_j a_j y(s_j) = f(s, y(s)),    a_0 = sum_j 1 / (s - s_j),
        a_j = -1 / (s - s_j) prod_{i != j} (s - s_i) / (s_j - s_i),

    a backward Euler step of length 1 / a_0 from -sum_j (a_j / a_0) y(s_j), which the model takes.
    All levels have one d; with d = dt / k on the finest, all finest steps are equal. On coarser
    levels the k values lie close together and the next ones far ahead. Formulas of high order are
    unstable there: these levels use the last `coarse_order` values only.

    Parameters
    ----------
    model : Propagator
        A batched model with `backward_euler` True: its step is a step of backward Euler. The
        composed model has its `parameters`.
    distance : float
        d, in units of time.
    order : int, default 2
        k, from 1 to 6.
    coarse_order : int, optional
        Order on the coarser levels, at most k; by default the minimum of k and 2.

    Raises
    ------
    ValueError
        If the model does not step by backward Euler, is not batched, or changes space from level
        to level; if an order is out of its range; or if a step is not longer than all distances of
        its state.

    References
    ----------
    Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", Springer 1993, III.3
    and III.5.
    Falgout, Lecouvez, Woodward, "A parallel-in-time algorithm for variable step multistep methods",
    J. Comput. Sci. 37 (2019), 101029, for several values in one state.
    """

    batched = True

    def __init__(
        self, model: Propagator, distance: float, order: int = 2, coarse_order: int | None = None
    ) -> None:
        name = type(model).__name__
        if not getattr(model, "backward_euler", False):
            raise ValueError(
                f"BDF{order} needs a model that steps by backward Euler, and {name} does not: "
                "set backward_euler = True on one whose step does"
            )
        if not model.batched or has(model, CoarsensSpace):
            raise ValueError(
                f"BDF{order} needs a batched model with one space for all levels: {name}"
            )
        positive("distance", distance)
        at_least("order", order, 1)
        coarse_order = min(order, 2) if coarse_order is None else coarse_order
        at_least("coarse_order", coarse_order, 1)
        if not coarse_order <= order <= HIGHEST:
            raise ValueError(
                f"order must be at most {HIGHEST} and coarse_order at most order, got {order} and "
                f"{coarse_order}"
            )
        self.model = model
        self.distance = float(distance)
        self.order = order
        self.coarse_order = coarse_order
        self.dtype = model.dtype
        self.state_shape = (order, *model.state_shape)
        self.parameters = model.parameters

    def refresh(self) -> None:
        """Refresh the model after a change of its parameters."""
        self.model.refresh()

    def _formulas(self, step: Step) -> list[tuple[list[Array], Step]]:
        """Return for each value the weights of the previous values, and the backward Euler step.

        The last weight belongs to the previous value; their number is the order.
        """
        k, d = self.order, self.distance
        start, stop = np.atleast_1d(step.start), np.atleast_1d(step.stop)
        offsets = d * np.arange(k)
        if not (stop - start > offsets[-1]).all():
            raise ValueError(
                f"a step of BDF{k} must be longer than distance {offsets[-1]}, got "
                f"{float((stop - start).min())}"
            )
        dt = stop - start
        nodes = [np.full_like(dt, offset) for offset in offsets]  # after the start of the step
        used = k if step.level == 0 else self.coarse_order
        formulas = []
        for offset in offsets:
            new = dt + offset
            weights, length = _weights(new, nodes[-used:])
            inner = Step(step.level, stop + offset - length, stop + offset, step.first, step.last)
            formulas.append(([self._column(w) for w in weights], inner))
            nodes.append(new)
        return formulas

    def _column(self, weights: Array) -> Array:
        return weights.reshape(-1, *(1 for _ in self.model.state_shape))

    def _values(self, u: Array, step: Step) -> tuple[list[Array], list[Array]]:
        """Return all 2k values in their order, and the starts of the inner steps."""
        values, begins = [u[:, j] for j in range(self.order)], []
        for weights, inner in self._formulas(step):
            latest = values[-len(weights) :]
            begin: Any = sum(w * y for w, y in zip(weights, latest, strict=True))
            begins.append(begin)
            values.append(self.model.step(begin, inner))
        return values, begins

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, k, ...); new."""
        return np.stack(self._values(u, step)[0][self.order :], axis=1)

    def _backward(self, w: Array, u: Array, step: Step) -> tuple[Array, Array]:
        """Go through the values backwards; return the derivatives by u and by the parameters."""
        k, begins = self.order, self._values(u, step)[1]
        d_values = [np.zeros_like(w[:, 0]) for _ in range(k)] + [w[:, j] for j in range(k)]
        gradient: Any = 0.0
        formulas = self._formulas(step)
        for j in reversed(range(k)):
            weights, inner = formulas[j]
            d_begin = self.model.adjoint_step(d_values[k + j], begins[j], inner)
            if self.parameters is not None:
                gradient = gradient + self.model.adjoint_gradient(d_values[k + j], begins[j], inner)
            first = k + j - len(weights)
            for i, weight in enumerate(weights):
                d_values[first + i] = d_values[first + i] + weight * d_begin
        return np.stack(d_values[:k], axis=1), gradient

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new."""
        return self._backward(w, u, step)[0]

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return (dPhi/dtheta)^T w, summed over the stack, shape (num_parameters,)."""
        return self._backward(w, u, step)[1]


def _weights(new: Array, nodes: list[Array]) -> tuple[list[Array], Array]:
    """Return -a_j / a_0 of the nodes, and 1 / a_0."""
    length: Any = 1 / sum(1 / (new - s) for s in nodes)
    weights: list[Array] = []
    for j, s in enumerate(nodes):
        weight = length / (new - s)
        for i, other in enumerate(nodes):
            if i != j:
                weight = weight * (new - other) / (s - other)
        weights.append(weight)
    return weights, length


def tuples(problem: Problem, order: int, num_steps: int | None = None) -> Problem:
    """Convert a problem of backward Euler to BDF of an order.

    `num_steps` states of `order` values cover the span, by default one value for each step of the
    problem; the last values of the last state lie beyond. The values of the first state come from
    backward Euler, extrapolated to this order (Aitken and Neville on 1, 2, ..., k parts). They
    therefore satisfy the model, whereas exact values would have no errors in space.
    """
    at_least("order", order, 1)
    n = max(problem.num_steps // order, 1) if num_steps is None else num_steps
    at_least("num_steps", n, 1)
    begin, end = problem.span
    d = (end - begin) / (order * n)
    values = [np.asarray(problem.initial_value)]
    for j in range(order - 1):
        values.append(_extrapolated(problem.propagator, values[-1], begin + j * d, d, order))

    def exact(t: float) -> Array:
        return np.stack([problem.exact(t + j * d) for j in range(order)])

    return Problem(
        name=f"{problem.name}, by BDF{order}",
        propagator=BDF(problem.propagator, d, order),
        initial_value=np.stack(values),
        span=problem.span,
        num_steps=n,
        exact=exact,
        order=order,
        source=problem.source,
    )


def _extrapolated(model: Propagator, u: Array, start: float, d: float, order: int) -> Array:
    """Return the value at start + d, with an error of the power order + 1 of d."""
    table = []
    for parts in range(1, order + 1):
        times, new, one = start + d * np.arange(parts + 1) / parts, u[None], np.ones(1, np.int64)
        for j in range(parts):
            new = model.step(new, Step(0, times[j : j + 1], times[j + 1 : j + 2], one, one))
        table.append(new[0])
    for column in range(1, order):
        table = [
            after + (after - before) / ((j + column + 1) / (j + 1) - 1)
            for j, (before, after) in enumerate(pairwise(table))
        ]
    result: Array = table[0]
    return result
