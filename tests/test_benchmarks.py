"""What benchmarks say of themselves and refuse; of those that take minutes, only a part is run."""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import _measure, accuracy
from benchmarks._diagonal_delta import correct_by_diagonals, diagonals
from benchmarks._measure import RESULTS, rank_counts
from pint import MGRITOptions, TimeGrid
from pint.rnn.network import Network
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from tests.launcher import ROOT, environment, mpiexec

STRONG_SCALING = ["-m", "benchmarks.strong_scaling"]
NEEDS = {"gru_vs_torch": "torch", "time_parallel": "torch"}
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_help(name, monkeypatch, capsys):
    needed = NEEDS.get(name)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"benchmarks.{name} needs {needed}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        importlib.import_module(f"benchmarks.{name}").main()
    shown = capsys.readouterr().out
    assert shown.startswith("usage:")
    _, options = shown.split("\noptions:\n")
    for line, following in pairwise([*options.splitlines(), ""]):
        is_explained = len(re.split(" {2,}", line.strip())) > 1 or following.startswith(" " * 20)
        assert is_explained or not line.startswith("  -"), line


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
            correct_by_diagonals(solver.layer_solvers[0])
        gradient = solver.loss_and_gradient(x, y).gradient
        errors.append(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))
    assert errors[2] < 1e-12
    assert errors[1] < 0.5 * errors[0]


def test_rank_counts():
    counts = {size: rank_counts(size) for size in (1, 2, 3, 8, 12)}
    assert counts == {
        1: [1], 2: [1, 2], 3: [1, 2, 3], 8: [1, 2, 4, 8], 12: [1, 2, 4, 8, 12]
    }  # fmt: skip


def strong_scaling(launcher, *arguments):
    return subprocess.run(
        [*launcher, sys.executable, *STRONG_SCALING, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.xdist_group("mpi")
def test_strong_scaling_of_one_case(tmp_path):
    """All ranks are measured, and the results are where they were wanted, and only there."""
    kept = {path: path.read_bytes() for path in RESULTS.iterdir()}
    output = tmp_path / "scaling.json"
    arguments = ("--cases", "gru_har", "--rounds", "1", "--output", str(output))
    done = strong_scaling(mpiexec(3), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(output.read_text())
    assert [row["ranks"] for row in record["rows"]] == [1, 1, 2, 3]
    assert record["command"].startswith("mpiexec -n 3 python -m benchmarks.strong_scaling --cases")
    assert json.loads(done.stdout.splitlines()[-1]) == record["ratios"]
    assert {path: path.read_bytes() for path in RESULTS.iterdir()} == kept


@pytest.mark.xdist_group("mpi")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: must be at least 1, got 0"),
        (["--driver", "fast"], "--driver: invalid choice: 'fast'"),
        (["--accuracy-check", "--cases", "gru_har"], "--accuracy-check has cases of its own"),
        (["--output", "nowhere/results.json"], "--output: there is no folder nowhere"),
    ],
)
def test_strong_scaling_refuses(arguments, message):
    done = strong_scaling(mpiexec(2), *arguments)
    assert done.returncode == 2
    assert done.stderr.count(message) == 1


@pytest.mark.xdist_group("mpi")
def test_arguments_that_are_wrong_on_one_rank():
    *launcher, _, _ = mpiexec(2)
    right = ["-n", "1", sys.executable, *STRONG_SCALING, "--rounds", "1"]
    wrong = ["-n", "1", sys.executable, *STRONG_SCALING, "--rounds", "0", ":"]
    done = strong_scaling([*launcher, *wrong, *right[:2]], *right[4:])
    assert done.returncode == 2, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "size", "kept"),
    [
        ("", 2, "strong_scaling.json"),
        ("--weak --rounds 5", 3, "weak_scaling.json"),
        ("--accuracy-check", 2, "prediction.json"),
        ("", 1, None),
        ("--rounds 4", 2, None),
        ("--cases gru_har", 2, None),
        ("--driver stack", 2, None),
        ("--rounds 1 --output mine.json", 2, "mine.json"),
    ],
)
def test_only_full_runs_are_kept(monkeypatch, arguments, size, kept):
    pytest.importorskip("mpi4py")
    benchmark = importlib.import_module("benchmarks.strong_scaling")
    monkeypatch.setattr(sys, "argv", ["strong_scaling", *arguments.split()])
    output = benchmark._parse(size).output
    assert (output.name if output else None) == kept


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
