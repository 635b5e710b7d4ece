"""Compiles the kernels that many tests use, before several workers of pytest compile each."""

import subprocess
import sys

import numpy as np

from pint import MGRIT, MGRITOptions, TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from tests.engine_models import CompiledSwirl


def compile_models():
    """The compiled driver, with two kernels."""
    options = MGRITOptions(levels=3, max_iterations=2, driver="compiled")
    times = TimeGrid.uniform(0, 1, 40)
    MGRIT(Dahlquist(), times, options).solve(1.0)
    MGRIT(CompiledSwirl(coarsening=(2, 2)), times, options).solve(np.ones(3))


def compile_cells(dtype):
    """One step of training of each cell, by cycles."""
    cycles = MGRITOptions(levels=2, coarsening=4, max_iterations=2)
    x = np.random.default_rng(1).normal(size=(2, 24, 2)).astype(dtype)
    for cell in ("implicit", "classic", "lstm"):
        layers = RecurrenceOptions(num_features=2, hidden=4, layers=2, cell=cell, dtype=dtype)
        solver = NetworkSolver(Network(layers, 3), 24, cycles, cycles)
        solver.loss_and_gradient(x, np.array([0, 1]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        compile_models()
        compile_cells(np.float32)
    else:
        other = subprocess.Popen([sys.executable, "-m", "tests.warm_up", "models and float32"])
        compile_cells(np.float64)
        raise SystemExit(other.wait())
