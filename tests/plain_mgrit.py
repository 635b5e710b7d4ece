"""MGRIT once more, as a plain recursion over dictionaries, to hold the engine against.

It follows the published conventions and shares no code with the engine: no slots, blocks, ghosts,
drivers or replays, and points are looked up one by one.
"""

import math

import numba
import numpy as np

from pint.propagator import Propagator


@numba.njit
def pull(u, start, stop, level, params, out):
    """One step of `Pull` for the compiled driver."""
    dt = stop - start
    for k in range(u.size):
        bent = math.sin(1.7 * u[u.size - 1 - k] + start + k)
        out[k] = (u[k] + 0.6 * dt * bent) / (1 + dt) + 0.03 * level * math.cos(stop)


class Pull(Propagator):
    """A nonlinear step that depends on its level, its length and both its times."""

    state_shape, dtype, kernel = (2,), np.dtype(np.float64), pull

    def __init__(self, batched=False):
        self.batched = batched

    def kernel_params(self):
        return ()

    def step(self, u, step):
        start, stop = (np.asarray(t)[..., None] for t in (step.start, step.stop))
        bent = np.sin(1.7 * u[..., ::-1] + start + np.arange(2.0))
        dt = stop - start
        return (u + 0.6 * dt * bent) / (1 + dt) + 0.03 * step.level * np.cos(stop)


class PlainMGRIT:
    """Cycles on the levels that `options` describe, a mapping with every option that counts."""

    def __init__(self, times, options, start, guess):
        self.options = options
        self.points = [list(range(len(times)))]  # of each level, by the numbers of the finest
        self.times = times
        while len(self.points) < options["levels"]:
            last = len(self.points) - 1
            if last >= len(options["coarsening"]) and not isinstance(
                options["coarsening"][-1], int
            ):
                break
            chosen = [self.points[-1][i] for i in self.c_points(last)]
            if len(chosen) - 1 < options["min_coarse"]:
                break
            self.points.append(chosen)
        self.u = [{} for _ in self.points]
        self.g = [{i: np.zeros(2) for i in range(len(points))} for points in self.points]
        self.u[0] = {i: np.array(guess[i]) for i in range(len(times))}
        self.u[0][0] = np.array(start)

    def entry(self, name, level):
        return self.options[name][min(level, len(self.options[name]) - 1)]

    def c_points(self, level):
        """Of a level, by its own numbers; behind a list that is the last entry the factor is 2."""
        m = self.entry("coarsening", level)
        if not isinstance(m, int):
            if level < len(self.options["coarsening"]):
                return list(m)
            m = 2
        return list(range(0, len(self.points[level]), m))

    def phi(self, level, i):
        """Step from point i - 1 to point i."""
        begin, end = (self.times[self.points[level][k]] for k in (i - 1, i))
        out = np.zeros(2)
        pull.py_func(self.u[level][i - 1], begin, end, level, (), out)
        return out + self.g[level][i]

    def f_relax(self, level):
        c_points = set(self.c_points(level))
        for i in range(1, len(self.points[level])):
            if i not in c_points:
                self.u[level][i] = self.phi(level, i)

    def c_relax(self, level):
        w = self.entry("relax_weight", level)
        new = {
            i: w * self.phi(level, i) + (1 - w) * self.u[level][i]
            for i in self.c_points(level)
            if i > 0
        }
        self.u[level].update(new)

    def relax(self, level):
        for _ in range(self.entry("relax", level)):
            self.f_relax(level)
            self.c_relax(level)
        self.f_relax(level)

    def solve_coarsest(self, level):
        if self.options["coarsest"] == "relaxation" and level > 0:
            self.relax(level)
        else:
            for i in range(1, len(self.points[level])):
                self.u[level][i] = self.phi(level, i)

    def go_down(self, level, injects):
        """Give the next level its start and right-hand side."""
        c_points = self.c_points(level)
        residual = {}
        if not injects:
            self.relax(level)
            residual = {i: self.phi(level, i) - self.u[level][i] for i in c_points if i > 0}
        self.u[level + 1] = {k: self.u[level][i].copy() for k, i in enumerate(c_points)}
        self.g[level + 1] = {k: np.zeros(2) for k in range(len(c_points))}
        if injects:
            return residual
        without = {k: self.phi(level + 1, k) for k in range(1, len(c_points))}
        for k, i in enumerate(c_points[1:], 1):
            self.g[level + 1][k] = residual[i] + self.u[level + 1][k] - without[k]
        return residual

    def cycle(self, shape, level=0, injects=False):
        """Return the residuals at the C-points of this level on the way down."""
        if level == len(self.points) - 1:
            self.solve_coarsest(level)
            return {}
        residual = self.go_down(level, injects)
        before = {k: state.copy() for k, state in self.u[level + 1].items()}
        if level + 1 == len(self.points) - 1:
            below = "V"
        else:
            below = {"V": "V", "W": "WW", "F": "F" + self.options["v_cycles_per_level"] * "V"}[
                shape
            ]
        for number, deeper in enumerate(below):
            self.cycle(deeper, level + 1, injects and number == 0)
        for k, i in enumerate(self.c_points(level)):
            self.u[level][i] = self.u[level][i] + self.u[level + 1][k] - before[k]
        self.f_relax(level)
        return residual

    def run(self, num_cycles):
        """Return the norms of the residuals, NaN where there are none."""
        norms = []
        for k in range(1 if len(self.points) == 1 else num_cycles):
            f_cycle_iterations = self.options["f_cycle_iterations"]
            ended = f_cycle_iterations is not None and k >= f_cycle_iterations
            injects = k == 0 and self.options["skip_first_down"] and len(self.points) > 1
            residual = self.cycle("V" if ended else self.options["cycle"], injects=injects)
            squares = sum((r**2).sum() for r in residual.values())
            norms.append(math.sqrt(squares) if residual else math.nan)
        return np.array(norms)
