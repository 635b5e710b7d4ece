"""A small model that flatters no solver, and plain serial loops to hold the engine against."""

import math
from itertools import accumulate
from operator import mul

import numba
import numpy as np

from pint.propagator import Propagator, Step

WAVES = np.array([1.3, -2.1, 0.7])
TURN, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))
OTHER_TURN = np.array([[0.9, -0.3, 0.0], [0.3, 0.9, 0.0], [0.0, 0.0, 1.0]])


class Swirl(Propagator):
    """u_i = gain (Q u_{i-1} + 0.4 tanh(W u_{i-1} + b + sin(t_i waves) + dt_i)), Q a rotation.

    Nonlinear, and steps do not commute. With gain 1 nothing is forgotten: what happens at the
    first point is felt at the last one. A small gain converges within few iterations.

    A coarse step is another map: it also turns by some angle of its own, takes the transpose of W,
    and no account of the steps in between. Where MGRIT is exact, it is so in spite of it.

    The parameters are the entries of W, row by row, then b.
    """

    state_shape = (3,)

    def __init__(self, gain=0.5, batched=False, dtype=np.float64):
        self.gain = gain
        self.dtype = np.dtype(dtype)
        self.batched = batched
        W = np.random.default_rng(8).normal(size=9) / 2
        self.parameters = np.concatenate([W, [0.3, -0.2, 0.1]]).astype(dtype)

    def matrices(self, step):
        """Return gain Q, one for all steps or one for each, and W."""
        W = self.parameters[:9].reshape(3, 3)
        if step.level == 0:
            return (self.gain * TURN).astype(self.dtype), W
        num_fine = np.max(step.num_fine)
        if np.any(step.num_fine != num_fine):
            one_by_one = [self.matrices(step.at(row))[0] for row in range(len(step.last))]
            return np.array(one_by_one), W.T
        Q = OTHER_TURN @ np.linalg.matrix_power(self.gain * TURN, int(num_fine))
        return Q.astype(self.dtype), W.T

    def bend(self, u, step):
        """Return tanh(...)."""
        stop, dt = np.asarray(step.stop)[..., None], np.asarray(step.dt)[..., None]
        offset = (np.sin(stop * WAVES) + dt).astype(self.dtype)
        _, W = self.matrices(step)
        return np.tanh(product(u, W) + self.parameters[9:] + offset)

    def step(self, u, step):
        Q, _ = self.matrices(step)
        return product(u, Q) + 0.4 * self.gain * self.bend(u, step)

    def slope(self, w, u, step):
        return 0.4 * self.gain * w * (1 - self.bend(u, step) ** 2)

    def tangent_step(self, v, u, step):
        Q, W = self.matrices(step)
        return product(v, Q) + self.slope(product(v, W), u, step)

    def adjoint_step(self, w, u, step):
        Q, W = self.matrices(step)
        return w @ Q + self.slope(w, u, step) @ W

    def adjoint_gradient(self, w, u, step):
        d_b = np.atleast_2d(self.slope(w, u, step))
        d_W = d_b.T @ np.atleast_2d(u)
        return np.concatenate([d_W.ravel(), d_b.sum(axis=0)])


@numba.njit
def swirl(u, start, stop, level, params, out):
    turns, W, b = params
    for i in range(3):
        total = b[i] + math.sin(stop * WAVES[i]) + (stop - start)
        turned = 0.0
        for j in range(3):
            total += (W[j, i] if level else W[i, j]) * u[j]
            turned += turns[level, i, j] * u[j]
        out[i] = turned + turns[0, 3, 3] * math.tanh(total)


class CompiledSwirl(Swirl):
    """Swirl with a kernel, for levels with these coarsening factors."""

    kernel = swirl

    def __init__(self, gain=0.5, batched=False, coarsening=(2,)):
        super().__init__(gain, batched)
        self.coarsening = coarsening

    def kernel_params(self):
        turns = np.zeros((len(self.coarsening) + 1, 4, 4))
        for level, num_fine in enumerate(accumulate(self.coarsening, mul, initial=1)):
            turns[level, :3, :3] = self.matrices(Step(level, 0.0, 1.0, 1, num_fine))[0]
        turns[0, 3, 3] = 0.4 * self.gain
        return turns, self.parameters[:9].reshape(3, 3), self.parameters[9:]


def product(u, matrix):
    """Return matrix u of one state or of each of a stack, without BLAS: one rounding for all."""
    return (u[..., None, :] * matrix).sum(axis=-1)


@numba.njit
def forced(u, start, stop, level, params, out):
    out[0] = u[0] + (stop - start) * ((-4 * u[0] + 1 - stop) / (1 + 4 * (stop - start)))


class Forced(Propagator):
    """u' = -4 u - t + 1, u(0) = 1 by backward Euler, as u + dt k."""

    state_shape, dtype, batched, kernel = (), np.dtype(float), True, forced

    def step(self, u, step):
        return u + step.dt * ((-4 * u + 1 - step.stop) / (1 + 4 * step.dt))

    @staticmethod
    def exact(t):
        return (-4 * t + 11 * np.exp(-4 * t) + 5) / 16


@numba.njit
def driven(u, start, stop, level, params, out):
    out[0] = (u[0] + (stop - start) * math.cos(stop)) / (1 + params * (stop - start))


class Driven(Propagator):
    """u' = cos(t) - rate u by backward Euler."""

    state_shape = ()
    dtype = np.dtype(np.float64)
    batched = True
    kernel = driven

    def __init__(self, rate=0.0):
        self.rate = rate

    def kernel_params(self):
        return self.rate

    def step(self, u, step):
        if np.ndim(step.stop) == 0:
            cosine = math.cos(step.stop)
        else:
            cosine = np.array([math.cos(t) for t in step.stop])  # the kernel's bits
        return (u + step.dt * cosine) / (1 + self.rate * step.dt)


class Drift(Propagator):
    """u_t + u_x = u_xx on (0, 1) with zero ends, by backward Euler and upwind differences.

    A level keeps every other node of the one above it; states come back by linear interpolation.
    Not symmetric, so that the adjoint is another problem.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, num_nodes=15, batched=False):
        self.state_shape = (num_nodes,)
        self.batched = batched

    def solve(self, u, step, transposed):
        n = u.shape[-1]
        dt = np.asarray(step.dt)[..., None, None]
        diffusion, drift = dt * (n + 1) ** 2, dt * (n + 1)
        matrix = (
            np.eye(n) * (1 + 2 * diffusion + drift)
            - np.eye(n, k=1) * diffusion
            - np.eye(n, k=-1) * (diffusion + drift)
        )
        matrix = np.swapaxes(matrix, -1, -2) if transposed else matrix
        return np.linalg.solve(matrix, u[..., None])[..., 0]

    def step(self, u, step):
        return self.solve(u, step, transposed=False)

    def tangent_step(self, v, u, step):
        assert v.shape == u.shape
        return self.solve(v, step, transposed=False)

    def adjoint_step(self, w, u, step):
        assert w.shape == u.shape
        return self.solve(w, step, transposed=True)

    def restrict(self, u, level):
        assert u.shape[-1] == (self.state_shape[0] + 1) // 2**level - 1
        return u[..., 1::2]

    def interpolate(self, u, level):
        zero = np.zeros((*u.shape[:-1], 1))
        padded = np.concatenate([zero, u, zero], axis=-1)
        fine = np.zeros((*u.shape[:-1], 2 * u.shape[-1] + 1))
        fine[..., 1::2] = u
        fine[..., ::2] = (padded[..., 1:] + padded[..., :-1]) / 2
        return fine


class Shear(Propagator):
    """u -> A(level) u + b, where A of a coarse step has nothing to do with the fine one."""

    dtype = np.dtype(np.float64)

    def __init__(self, size, batched=False):
        self.state_shape, self.batched = (size,), batched
        rng = np.random.default_rng(size)
        self.matrices = 0.6 * rng.normal(size=(4, size, size)) / math.sqrt(size)

    def step(self, u, step):
        return self.tangent_step(u, u, step) + np.cos(step.stop)[..., None]

    def tangent_step(self, v, u, step):
        dt = np.asarray(step.dt)[..., None]
        return (v[..., None, :] * self.matrices[step.level]).sum(axis=-1) / (1 + dt)


@numba.njit
def plate(u, start, stop, level, params, out):
    inverse = params[level]
    rows, columns = u.shape
    for i in range(rows):
        for j in range(columns):
            total = 0.0
            for k in range(rows):
                for m in range(columns):
                    total += inverse[i * columns + j, k * columns + m] * u[k, m]
            out[i, j] = total


class Plate(Propagator):
    """u_t = u_xx + u_yy on [0, pi]^2, zero at the boundary, by backward Euler at the inner nodes.

    One step is a product with the inverse of its matrix; level l has steps of 2^l dt.
    """

    dtype = np.dtype(np.float64)
    kernel = plate

    def __init__(self, num_inner, dt, levels=3):
        self.state_shape = (num_inner, num_inner)
        one, dx = np.eye(num_inner), math.pi / (num_inner + 1)
        bend = (2 * one - np.eye(num_inner, k=1) - np.eye(num_inner, k=-1)) / dx**2
        laplacian = np.kron(bend, one) + np.kron(one, bend)
        self.inverses = np.array(
            [np.linalg.inv(np.eye(num_inner**2) + 2**k * dt * laplacian) for k in range(levels)]
        )

    def kernel_params(self):
        return self.inverses

    def step(self, u, step):
        return (self.inverses[step.level] @ u.ravel()).reshape(u.shape)


def one_step(propagator, u, times, i):
    """Return the step to point i and its arguments, written without the engine's grid."""
    start, stop = float(times[i - 1]), float(times[i])
    if propagator.batched:
        stack = (np.array([field]) for field in (start, stop, i, i))
        return u[None], Step(0, *stack)
    return u, Step(0, start, stop, i, i)


def stepped(propagator, times, initial_value, sources=None):
    """Return u_0..u_N of u_i = Phi(u_{i-1}) + g_i by a plain loop."""
    states = [np.asarray(initial_value, dtype=propagator.dtype)]
    for i in range(1, len(times)):
        u, step = one_step(propagator, states[-1], times, i)
        new = np.asarray(propagator.step(u, step)).reshape(propagator.state_shape)
        states.append(new if sources is None else new + sources[i])
    return np.array(states)


def backpropagated(propagator, times, states, d_states):
    """Return w_0..w_N and dJ/dtheta by a plain loop backwards; row i of `d_states` is dj_i/du_i."""
    w = [d_states[-1]]
    d_parameters = np.zeros_like(propagator.parameters)
    for i in range(len(times) - 1, 0, -1):
        u, step = one_step(propagator, states[i - 1], times, i)
        w_end = w[-1].reshape(u.shape)
        d_parameters += propagator.adjoint_gradient(w_end, u, step)
        back = propagator.adjoint_step(w_end, u, step).reshape(propagator.state_shape)
        w.append(back + d_states[i - 1])
    return np.array(w[::-1]), d_parameters


def uneven_times(num_steps):
    """Return increasing times with step lengths between 0.05 and 0.25."""
    lengths = 0.15 + 0.1 * np.sin(1.7 * np.arange(num_steps))
    return np.concatenate([[0.0], np.cumsum(lengths)])


def naive_mgrit(propagator, times, options, u, g=None):
    """Iterate on u (N + 1 states, the initial value first) by MGRIT, point by point.

    Returns the iterate after the cycles, and for each cycle that measures one the residual at the
    C-points but point 0. Only for propagators that are not batched; the coarsest level is the one
    that `options.factors` leaves.
    """
    u = list(u)
    num_steps = len(u) - 1
    g = [np.zeros_like(u[0])] * len(u) if g is None else g
    factors = options.factors(num_steps)
    fine = [list(range(num_steps + 1))]  # by level, the finest index of each point
    kept = []  # by level, which of its points are C-points
    for level in range(len(factors) + 1):
        m = factors[level] if level < len(factors) else options.coarsening_of(level)
        number = isinstance(m, int)
        kept.append(list(range(0, len(fine[level]), m)) if number else list(m))
        fine.append([fine[level][i] for i in kept[level]])
    residuals = []

    def phi(level, u, i):
        first, last = fine[level][i - 1] + 1, fine[level][i]
        return propagator.step(u, Step(level, times[first - 1], times[last], first, last))

    def visit(level, u, g, points):
        for i in points:
            u[i] = phi(level, u[i - 1], i) + g[i]

    def f_relax(level, u, g):
        visit(level, u, g, [i for i in range(1, len(u)) if i not in kept[level]])

    def relax(level, u, g):
        weight = options.relax_weight_of(level)
        for _ in range(options.relax_of(level)):
            f_relax(level, u, g)
            new = {i: phi(level, u[i - 1], i) + g[i] for i in kept[level][1:]}
            for i, state in new.items():
                u[i] = weight * state + (1 - weight) * u[i]
        f_relax(level, u, g)

    def solve_coarsest(level, u, g):
        if options.coarsest == "relaxation" and level > 0:
            relax(level, u, g)
        else:
            visit(level, u, g, range(1, len(u)))

    def correct(level, u, g, v, v_new):
        for c, (old, new) in enumerate(zip(v, v_new, strict=True)):
            i = kept[level][c]
            u[i] = u[i] + propagator.interpolate(new - old, level)
        f_relax(level, u, g)

    def below(level, shape):
        """The cycles of the next level, written down for each shape and not by a rule."""
        if level + 1 == len(factors):
            return ["V"]
        return {"V": ["V"], "W": ["W", "W"], "F": ["F"] + options.v_cycles_per_level * ["V"]}[shape]

    def full_cycle(level, u, g, shape):
        if level == len(factors):
            solve_coarsest(level, u, g)
            return
        relax(level, u, g)
        r = [phi(level, u[i - 1], i) + g[i] - u[i] for i in kept[level][1:]]
        if level == 0:
            residuals.append(np.array(r))
        v = [propagator.restrict(u[i], level) for i in kept[level]]
        g_c = [np.zeros_like(v[0])] + [
            propagator.restrict(r[c - 1], level) + v[c] - phi(level + 1, v[c - 1], c)
            for c in range(1, len(v))
        ]
        v_new = list(v)
        for next_shape in below(level, shape):
            full_cycle(level + 1, v_new, g_c, next_shape)
        correct(level, u, g, v, v_new)

    def upward_cycle(level, u, g, shape):
        if level == len(factors):
            solve_coarsest(level, u, g)
            return
        v = [propagator.restrict(u[i], level) for i in kept[level]]
        v_new = list(v)
        zero = [np.zeros_like(v[0])] * len(v)
        first, *others = below(level, shape)
        upward_cycle(level + 1, v_new, zero, first)
        for next_shape in others:
            full_cycle(level + 1, v_new, zero, next_shape)
        correct(level, u, g, v, v_new)

    for cycle in range(options.max_iterations):
        shape = (
            "V"
            if options.f_cycle_iterations is not None and cycle >= options.f_cycle_iterations
            else options.cycle
        )
        (upward_cycle if cycle == 0 and options.skip_first_down else full_cycle)(0, u, g, shape)
    return np.array(u), residuals
