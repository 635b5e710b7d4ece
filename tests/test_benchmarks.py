"""Benchmarks are not run here; but that they can be imported, and tell their options."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _measure, accuracy
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
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")


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


def accuracy_row(case, seed, exact, parallel, seconds):
    return {
        "case": case,
        "seed": seed,
        "exact_test_accuracy": exact,
        "parallel_test_accuracy": parallel,
        "seconds_per_epoch": seconds,
    }


TRAINED = [
    accuracy_row("implicit, serial", 0, 0.90, 0.90, 1.0),
    accuracy_row("averaged 2+2, 2 ranks", 0, 0.92, 0.91, 2.0),
    accuracy_row("implicit, serial", 1, 0.80, 0.80, 1.0),
    accuracy_row("averaged 2+2, 2 ranks", 1, 0.76, 0.78, 4.0),
    accuracy_row("averaged 2+2, 2 ranks", 2, 0.84, 0.84, 3.0),  # no serial run of this seed
]


def test_accuracies_are_compared_with_serial_training_seed_by_seed():
    serial, parallel = accuracy._summaries(TRAINED)
    assert (serial["case"], serial["ranks"]) == ("implicit, serial", 1)
    assert (serial["minus_serial"], serial["worst_minus_serial"]) == (0.0, 0.0)
    assert parallel == {
        "case": "averaged 2+2, 2 ranks",
        "ranks": 2,
        "exact_test_accuracy": pytest.approx(0.84),
        "spread": pytest.approx(0.16),
        "minus_serial": pytest.approx(-0.01),
        "worst_minus_serial": pytest.approx(-0.04),
        "worst_parallel_minus_exact": pytest.approx(0.02),
        "seconds_per_epoch": 3.0,
    }
    (alone,) = accuracy._summaries(TRAINED[-1:])
    assert alone["minus_serial"] is None


def test_finished_accuracies_are_kept_if_a_later_run_fails(tmp_path, monkeypatch):
    runs = iter(TRAINED[:1])

    def last_json(command, environment):
        assert environment["OPENBLAS_NUM_THREADS"] == "1"
        row = next(runs, None)
        if row is None:
            raise SystemExit("failed")
        return {**row, "output": "run.h5", "ranks": 1}

    monkeypatch.setattr(accuracy, "last_json", last_json)
    monkeypatch.setattr(_measure, "RESULTS", tmp_path)
    monkeypatch.setenv("PINT_DATA_DIR", "har")
    monkeypatch.setattr(sys, "argv", ["accuracy", "--cases", "implicit, serial"])
    with pytest.raises(SystemExit, match="failed"):
        accuracy.main()
    kept = json.loads((tmp_path / "accuracy.json").read_text())
    assert [row["seed"] for row in kept["runs"]] == [0]
    assert kept["cases"][0]["exact_test_accuracy"] == 0.9
    assert "machine" in kept
