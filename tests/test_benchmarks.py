"""Benchmarks are not run here; but that they can be imported, and tell their options."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._diagonal_delta import correct_by_diagonals, diagonals
from pint import MGRITOptions, TimeGrid
from pint.rnn.network import Network
from pint.rnn.recurrence import Recurrence, RecurrenceOptions
from pint.rnn.solver import NetworkSolver

ROOT = Path(__file__).resolve().parents[1]
NEEDS = {"gru_vs_torch": "torch", "time_parallel": "torch"}
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_help(name):
    needed = NEEDS.get(name)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"benchmarks.{name} needs {needed}")
    assert output_of(name, "--help").startswith("usage:")


def output_of(name, *options):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_case_of_timelines_is_measured_and_not_saved():
    kept = ROOT / "benchmarks" / "results" / "timeline_1.json"
    before = kept.read_bytes()
    last = output_of("timeline", "--cases", "scalar", "--seconds", "0").splitlines()[-1]
    ratios = json.loads(last)
    assert set(ratios) == {"scalar_1"}
    assert ratios["scalar_1"] > 0
    assert kept.read_bytes() == before


@pytest.mark.parametrize("cell", ["implicit", "classic"])
def test_diagonals_are_those_of_the_derivative(cell):
    """Of single evaluations; where several follow one another they are an approximation."""
    options = RecurrenceOptions(num_features=2, hidden=4, layers=2, cell=cell, dtype=np.float64)
    model = Recurrence(options)
    model.parameters *= 3
    rng = np.random.default_rng(1)
    model.set_inputs(rng.standard_normal((1, 5, 2)))
    steps = TimeGrid.uniform(0.0, 5.0, 5).steps(np.arange(1, 6))
    linearization = model.linearize(rng.standard_normal((5, 2, 1, 4)), steps)
    expected = np.empty((5, 2, 1, 4))
    for layer in range(2):
        for unit in range(4):
            w = np.zeros((5, 2, 1, 4))
            w[:, layer, 0, unit] = 1
            transposed = linearization.adjoint(w, slice(0, 5, 1))
            expected[:, layer, 0, unit] = transposed[:, layer, 0, unit]
    np.testing.assert_allclose(diagonals(linearization), expected, rtol=1e-13)


def test_corrected_steps_converge_to_exact_gradients():
    options = RecurrenceOptions(num_features=2, hidden=4, layers=2, substep=16, dtype=np.float64)
    network, rng = Network(options, 3), np.random.default_rng(2)
    network.parameters *= 2
    x, y = rng.standard_normal((3, 32, 2)), np.array([0, 1, 2])
    stepping = MGRITOptions(levels=1)
    exact = NetworkSolver(network, 32, stepping, stepping).loss_and_gradient(x, y).gradient
    errors = []
    for cycles, corrects in ((3, False), (3, True), (9, True)):
        few = MGRITOptions(levels=3, coarsening=4, relax=(0, 1), max_iterations=cycles)
        solver = NetworkSolver(network, 32, few, few)
        if corrects:
            correct_by_diagonals(solver.sweep)
        gradient = solver.loss_and_gradient(x, y).gradient
        errors.append(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))
    assert errors[2] < 1e-12
    assert errors[1] < 0.5 * errors[0]
