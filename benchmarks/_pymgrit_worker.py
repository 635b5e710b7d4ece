"""Solves one problem with pyMGRIT, in an environment of its own, and prints times as JSON."""

import json
import logging
import sys
import time

import numpy as np
from pymgrit.core.mgrit import Mgrit
from pymgrit.core.simple_setup_problem import simple_setup_problem
from pymgrit.dahlquist.dahlquist import Dahlquist
from pymgrit.heat.heat_1d import Heat1D


def dahlquist():
    """Return u' = -u on [0, 5000], 1e4 steps, for 5 levels with coarsening 4."""
    model = Dahlquist(t_start=0, t_stop=5000, nt=10_001)
    return simple_setup_problem(problem=model, level=5, coarsening=4)


def heat129():
    """Return the driven heat equation on 129 nodes, 1e4 steps, for 3 levels with coarsening 16."""
    model = Heat1D(
        x_start=0,
        x_end=np.pi,
        nx=129,
        a=1,
        init_cond=np.sin,
        rhs=lambda x, t: np.sin(x) * (np.cos(t) - np.sin(t)),
        t_start=0,
        t_stop=2 * np.pi,
        nt=10_001,
    )
    return simple_setup_problem(problem=model, level=3, coarsening=16)


def main():
    """Set up and solve the problem that the command line names."""
    begin = time.perf_counter()
    problem = {"dahlquist": dahlquist, "heat129": heat129}[sys.argv[1]]()
    solver = Mgrit(problem=problem, tol=1e-7, logging_lvl=logging.WARNING)
    ready = time.perf_counter()
    history = solver.solve()["conv"]
    done = time.perf_counter()
    last = np.atleast_1d(solver.u[0][-1].get_values())
    times = {"setup": ready - begin, "solve": done - ready}
    print(json.dumps({**times, "iterations": len(history), "last": last.tolist()}))


if __name__ == "__main__":
    main()
