"""The app of Lorenz's equations: in process, under mpiexec, and with wrong arguments."""

import json
import subprocess
import sys

import numpy as np
import pytest

from apps.lorenz import main
from pint import open_run
from tests.launcher import ROOT, environment, mpiexec

HISTORY = [
    *("--method", "euler", "--time", "1.2792139405522479", "--steps", "256", "--coarsening", "2"),
    *("--relax", "0", "--tolerance", "1e-4", "--no-skip-first-down"),
]


def said(capsys, *arguments):
    status = main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("delta", "name"), [("none", "lorenz-plain"), ("full", "lorenz-delta-full")]
)
def test_published_histories(tmp_path, capsys, delta, name):
    cases = json.loads((ROOT / "tests" / "data" / "mgrit_histories.json").read_text())["cases"]
    (case,) = (case for case in cases if case["name"] == name)
    output = tmp_path / "run.h5"
    status, summary = said(capsys, *HISTORY, "--delta", delta, "--output", str(output))
    assert status == 0
    assert summary["residuals"] == pytest.approx(case["residuals"], rel=1e-6)
    run = open_run(output)
    assert run.finished
    assert run.history["residual"].tolist() == summary["residuals"]
    assert run.solution.shape == (257, 3)


def test_error_against_the_reference(tmp_path, capsys):
    """Of order 4: half the step, a sixteenth of the error."""
    errors = []
    for steps in ("400", "800"):
        arguments = ["--time", "0.5", "--steps", steps, "--output", str(tmp_path / "run.h5")]
        errors.append(said(capsys, *arguments, "--tolerance", "1e-12")[1]["error"])
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)


def test_exponents_are_the_same_on_two_ranks(tmp_path, capsys):
    arguments = ["--time", "1", "--steps", "100", "--delta", "2", "--driver", "loop"]
    arguments += ["--output", str(tmp_path / "run.h5"), "--json"]
    assert main(arguments) == 0
    alone = json.loads(capsys.readouterr().out)
    assert len(alone["exponents"]) == 2
    done = subprocess.run(
        [*mpiexec(2), sys.executable, "-m", "apps.lorenz", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == alone | {"ranks": 2}


def test_report(tmp_path, capsys):
    arguments = [
        "--time",
        "1",
        "--steps",
        "100",
        "--delta",
        "1",
        "--output",
        str(tmp_path / "a.h5"),
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for line in ("CONVERGED after", "error at the last time", "Lyapunov exponents"):
        assert line in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--delta", "4"], "delta must be at most 3"),
        (["--delta", "1", "--time", "1", "--settled", "9"], "start must be before the last"),
        (["--time", "-1"], "stop must be later than start"),
        (["--output", "/nowhere/run.h5"], "/nowhere"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
