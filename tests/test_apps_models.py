"""The apps of the models as users start them: in process, under mpiexec, and wrongly."""

import importlib
import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest

from apps.command_line import App, options_of, parser_of
from apps.heat import APP
from pint import MGRITOptions, open_run
from pint.models import control, heat
from tests.launcher import ROOT, environment, mpiexec

SMALL = {
    "dahlquist": [],
    "heat": ["--nodes", "17", "--steps", "64"],
    "heat2d": ["--nodes", "9", "--steps", "64"],
    "advection": ["--nodes", "32", "--steps", "64"],
    "burgers": ["--nodes", "65", "--steps", "64"],
    "brusselator": [],
    "arenstorf": ["--method", "rk4", "--steps", "20000"],
    "allen_cahn": ["--cells", "32", "--steps", "64"],
    "control": ["--steps", "64"],
    "lorenz": ["--time", "2", "--steps", "200", "--delta", "full"],
}
ERRORS = {
    # What the errors of time and space amount to at these sizes, at most twice of it: for
    # backward Euler t dt / 2 |lambda|^2 exp(lambda t), and for the eigenvalues in space their
    # error, dx^2 / 12 for each direction, times t exp(lambda t).
    "dahlquist": 0.0184,
    "heat": 0.06,
    "heat2d": 0.0209,
    "advection": 0.4,
    "burgers": 0.05,
    "brusselator": 1e-5,
    "arenstorf": 0.5,
    "allen_cahn": 0.02,
    "control": 0.02,
    "lorenz": 1e-3,
}


def said(text, name):
    """Return the number that a report gives under this name."""
    return float(re.search(rf"^{name} +(\S+)", text, re.M)[1])


@pytest.mark.parametrize("name", SMALL)
def test_app_solves_writes_and_draws(name, tmp_path, capsys):
    main = importlib.import_module(f"apps.{name}").main
    output, plot = tmp_path / "runs" / "a.h5", tmp_path / "figures" / "a.png"
    assert main([*SMALL[name], "--output", str(output), "--plot", str(plot)]) == 0
    text = capsys.readouterr().out
    assert "status      converged" in text
    assert said(text, "iterations") >= 1
    assert 0 < said(text, "error") < ERRORS[name]
    run = open_run(output)
    assert run.history["residual"].size == said(text, "iterations")
    assert run.solution.shape[0] == run.times.size
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_a_trace_or_a_figure_of_what_was_done_when(tmp_path, capsys):
    from apps.dahlquist import main

    trace, figure = tmp_path / "traces" / "a.json", tmp_path / "a.png"
    for path in (trace, figure):
        assert main(["--steps", "64", "--driver", "compiled", "--trace", str(path)]) == 0
        assert said_file(capsys.readouterr().out) == str(path)
    assert "relaxation" in {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert main(["--trace", str(tmp_path / "a.doc")]) == 2
    assert "--trace must end with one of" in capsys.readouterr().err


def said_file(text):
    """Return the name of the trace that a report gives."""
    return re.search(r"^trace +(\S+)", text, re.M)[1]


def test_bdf2_is_more_accurate_than_backward_euler_with_as_many_values(tmp_path, capsys):
    from apps.heat import main

    errors = []
    for method, steps in (("backward_euler", "128"), ("bdf2", "64")):
        plot = str(tmp_path / "a.png")
        arguments = ["--method", method, "--steps", steps, "--nodes", "129", "--plot", plot]
        assert main(arguments) == 0
        errors.append(said(capsys.readouterr().out, "error"))
    assert errors[1] < errors[0] / 5


def test_chosen_steps_beat_thirteen_times_as_many_equal_ones(tmp_path, capsys):
    from apps.arenstorf import main

    chosen = ["--steps", "200", "--order", "4", "--refinements", "20", "--error-tolerance", "1e-7"]
    chosen += ["--refinement-factor", "4", "--refine-below", "0.1", "--tolerance", "1e-8"]
    output, plot = str(tmp_path / "a.h5"), tmp_path / "a.png"
    more = ["--output", output, "--plot", str(plot)]
    assert main(["--method", "rk4", *chosen, *more]) == 0
    error = said(capsys.readouterr().out, "error")
    times = np.asarray(open_run(output).times)
    assert times.size < 1000
    assert np.diff(times).min() < 0.01 * np.diff(times).max()
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert main(["--method", "rk4", "--steps", str(13 * times.size)]) == 0
    assert error < said(capsys.readouterr().out, "error")


def test_the_error_is_that_of_the_solution_in_the_file(tmp_path, capsys):
    from apps.heat import main

    main(["--nodes", "17", "--steps", "64", "--output", str(tmp_path / "a.h5")])
    run, x = open_run(tmp_path / "a.h5"), np.linspace(0, np.pi, 17)
    exact = np.cos(run.times)[:, None] * np.sin(x)
    error = np.abs(np.asarray(run.solution) - exact).max()
    assert said(capsys.readouterr().out, "error") == pytest.approx(error, rel=1e-6)


def test_control_comes_as_near_to_the_optimum_as_its_steps_allow(capsys):
    from apps.control import main

    assert main(["--steps", "64"]) == 0
    text = capsys.readouterr().out
    assert said(text, "objective") == pytest.approx(control.optimum()[2], rel=0.03)
    assert float(re.search(r"within (\S+) of", text)[1]) < 0.15
    warm = int(re.search(r"^cycles +(\d+)", text, re.M)[1])
    assert main(["--steps", "64", "--cold"]) == 0
    cold = int(re.search(r"^cycles +(\d+)", capsys.readouterr().out, re.M)[1])
    assert warm < cold


@pytest.mark.mpi
@pytest.mark.xdist_group("mpi")  # one at a time: they fill the machine
def test_an_app_says_the_same_on_three_ranks(tmp_path, capsys):
    from apps.heat import main

    arguments = ["--nodes", "17", "--steps", "50", "--levels", "3", "--relax", "1,0"]
    main(arguments)
    alone = capsys.readouterr().out
    output = tmp_path / "a.h5"
    command = [*mpiexec(3), sys.executable, "-m", "apps.heat", *arguments, "--output", str(output)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("iterations", "residual", "error"):
        assert said(done.stdout, name) == said(alone, name)
    assert "3 rank(s)" in done.stdout
    with h5py.File(output) as file:
        assert file.attrs["ranks"] == 3


@pytest.mark.mpi
@pytest.mark.xdist_group("mpi")  # one at a time: they fill the machine
def test_wrong_options_are_told_once_on_all_ranks():
    command = [*mpiexec(2), sys.executable, "-m", "apps.heat", "--levels", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("levels must be at least 1, got 0") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--levels", "0"], "levels must be at least 1, got 0"),
        (["--nodes", "2"], "num_nodes must be at least 3, got 2"),
        (["--plot", "a.txt"], "--plot must end with one of"),
        (["--output", "/dev/null/a.h5"], "/dev/null"),
    ],
)
def test_values_out_of_range_are_told_in_one_line(arguments, message, capsys):
    from apps.heat import main

    assert main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("apps.heat: ")
    assert message in written.err
    assert written.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--relax", "many"], "expected int|int,int,..., got many"),
        (["--relax", "1,x"], "expected int|int,int,..., got [1, 'x']"),
        (["--tolerance", "x"], "expected float|none, got x"),
        (["--driver", "fast"], "invalid choice: 'fast' (choose from "),
        (["--steps", "0"], "must be at least 1, got 0"),
        (["--colour", "red"], "unknown option '--colour' (did you mean"),
    ],
)
def test_wrong_words_are_told_with_what_was_expected(arguments, message, capsys):
    from apps.heat import main

    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_every_option_of_the_solver_has_an_argument():
    arguments = ["--levels", "4", "--coarsening", "4,2", "--tolerance", "none", "--threads", "2"]
    arguments += ["--no-skip-first-down", "--coarsest", "pipelined", "--relative-tolerance", "1e-3"]
    expected = MGRITOptions(
        levels=4,
        coarsening=(4, 2),
        tolerance=None,
        threads=2,
        skip_first_down=False,
        coarsest="pipelined",
        relative_tolerance=1e-3,
    )
    assert options_of(parser_of(APP).parse_args(arguments)) == expected


def test_help_says_what_the_options_say(capsys):
    parser = parser_of(APP)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Greatest number of levels; 1 is plain time stepping." in text
    assert "(default: 1e-08)" in text


def test_defaults_are_the_apps_own():
    app = App(
        name="a",
        description="",
        build=lambda args: heat.problem(),
        draw=None,
        defaults=MGRITOptions(levels=7),
    )
    assert options_of(parser_of(app).parse_args([])) == MGRITOptions(levels=7)


def test_not_to_converge_is_an_exit_status(capsys):
    from apps.heat import main

    assert main(["--max-iterations", "2"]) == 1
    assert "not converged" in capsys.readouterr().out
    assert main(["--max-iterations", "2", "--tolerance", "none"]) == 0
