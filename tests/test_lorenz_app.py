"""What the app of Lorenz's equations does beside what all apps of models do."""

import re
import subprocess
import sys

import numpy as np
import pytest

from apps.lorenz import main
from pint.models import lorenz
from pint.models.lorenz import Lorenz
from tests.launcher import ROOT, environment, mpiexec


def numbers(text, name):
    """Return the numbers behind a name in the report."""
    return [float(x) for x in re.search(rf"^{name} +(.+)", text, re.M)[1].split()]


def test_order_of_the_error(capsys):
    """Half the step, a sixteenth of the error."""
    errors = []
    for steps in ("400", "800"):
        assert main(["--time", "0.5", "--steps", steps, "--tolerance", "1e-12"]) == 0
        errors.append(float(re.search(r"^error +(\S+)", capsys.readouterr().out, re.M)[1]))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)


def test_the_divergence_is_the_sum_of_the_exponents(capsys):
    """-(sigma + 1 + beta), whatever the parameters are."""
    arguments = ["--time", "2", "--steps", "400", "--sigma", "8", "--beta", "2", "--delta", "3"]
    assert main(arguments) == 0
    assert sum(numbers(capsys.readouterr().out, "exponents")) == pytest.approx(-11, abs=2e-3)


@pytest.mark.mpi
@pytest.mark.xdist_group("mpi")  # one at a time: they fill the machine
def test_exponents_are_the_same_on_two_ranks(capsys):
    arguments = ["--time", "1", "--steps", "100", "--delta", "2", "--driver", "loop"]
    assert main(arguments) == 0
    alone = capsys.readouterr().out
    assert len(numbers(alone, "exponents")) == 2
    done = subprocess.run(
        [*mpiexec(2), sys.executable, "-m", "apps.lorenz", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    for name in ("exponents", "residual", "iterations"):
        assert numbers(done.stdout, name) == numbers(alone, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--delta", "4"], "directions must be at most 3"),
        (["--delta", "1", "--time", "1", "--settled", "9"], "start must be before the last"),
        (["--time", "-1"], "stop must be a positive number, got -1.0"),
        (["--rho", "inf"], "rho must be finite, got inf"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_known_solution_is_that_of_the_models_equations():
    """Its derivative is what small steps of the model do, for parameters of one's own."""
    problem = lorenz.problem(8.0, 20.0, 2.0, "euler", 1.0)
    exact, model = problem.exact, problem.propagator
    assert isinstance(model, Lorenz)
    rate = (exact(0.5 + 1e-5) - exact(0.5 - 1e-5)) / 2e-5
    np.testing.assert_allclose(model._rate(exact(0.5)[None])[0], rate, rtol=1e-6)
