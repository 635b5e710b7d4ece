"""The examples of README and docs run as they stand."""

import math
import pkgutil
import re
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise

import pytest

from pint import MGRITOptions
from tests.launcher import ROOT, environment, mpiexec


def scripts(page):
    """Return the Python blocks of a page that are whole scripts."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [block for block in blocks if "import" in block]


def start(script, folder, *launcher):
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [*launcher, sys.executable, "script.py"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pendulum_prints_the_same_on_one_and_two_ranks(tmp_path):
    script, _ = scripts("README.md")
    alone = start(script, tmp_path)
    assert "converged" in alone
    assert start(script, tmp_path, *mpiexec(2)) == alone


def test_gradient_of_the_pendulum(tmp_path):
    """Against central differences of the same model, by time stepping."""
    _, script = scripts("docs/adjoint.md")
    names = {}
    exec(script, names)
    solve, state = names["pint"].solve, names["np"].array([1.0, 0.0])
    options = names["pint"].MGRITOptions(levels=1)

    def objective(friction):
        model = names["Pendulum"](friction)
        return (solve(model, names["grid"], state, options).u[-1] ** 2).sum() / 2

    slope = (objective(0.2 + 1e-5) - objective(0.2 - 1e-5)) / 2e-5
    assert names["gradient"].parameter_gradient[0] == pytest.approx(slope, rel=1e-7)


def test_objective_of_another_rate(tmp_path):
    """The sum of q^i / 50, i = 0..50, with q = 1 / 1.45^2, and its derivative."""
    script, _ = scripts("docs/adjoint.md")
    value, slope = start(script, tmp_path).replace("[", "").replace("]", "").split()
    powers = [1.45 ** (-2 * i) for i in range(51)]
    assert float(value) == pytest.approx(sum(powers) / 50, rel=1e-9)
    expected = sum(i * power / 1.45 for i, power in enumerate(powers)) / 50
    assert float(slope) == pytest.approx(expected, rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_training_script(tmp_path, ranks):
    (script,) = scripts("docs/training.md")
    said = start(script, tmp_path, *(mpiexec(ranks) if ranks > 1 else []))
    exact = [float(found) for found in re.findall(r"([\d.]+)% exact", said)]
    assert len(exact) == 12  # one line for each epoch, of one rank
    assert exact[-1] > 90
    assert (tmp_path / "frequencies.h5").exists()


def test_training_script_is_short():
    (script,) = scripts("docs/training.md")
    lines = script.splitlines()
    assert len(lines) <= 30
    assert sum(line.startswith(("import ", "from ")) for line in lines) <= 4


def test_weights_and_export(tmp_path):
    for package in ("onnx", "onnxruntime", "safetensors", "torch"):
        pytest.importorskip(package, reason="pint[weights,onnx,test,torch]")
    out_and_in, from_torch = scripts("docs/weights.md")
    assert start(out_and_in, tmp_path) == "True\n"
    assert start(from_torch, tmp_path) == "True\n"
    assert start(BACK_TO_TORCH, tmp_path) == "True\n"


@pytest.mark.parametrize("ranks", [1, 2])
def test_torch_modules(tmp_path, ranks):
    pytest.importorskip("torch", reason="torch is an optional extra: pint[torch]")
    classify, parallel = scripts("docs/torch.md")
    assert start(parallel, tmp_path, *(mpiexec(ranks) if ranks > 1 else [])) == "True\n"
    if ranks == 1:
        trained, same = start(classify, tmp_path).splitlines()
        assert float(re.findall(r"accuracy (\d+)%", trained)[0]) >= 90
        assert same == "True"
        _, example = scripts("README.md")
        assert start(example, tmp_path) == "True\n"


BACK_TO_TORCH = """
import torch
from safetensors.torch import load_file
state = load_file("weights.safetensors")
head = state.pop("head.weight"), state.pop("head.bias")
print(str(torch.nn.GRU(3, 16, 2).load_state_dict(state)) == "<All keys matched successfully>")
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_networks(tmp_path, ranks):
    launcher = mpiexec(ranks) if ranks > 1 else []
    every, both_ends = scripts("docs/networks.md")
    losses = [float(loss) for loss in re.findall(r"error (\S+)", start(every, tmp_path, *launcher))]
    assert losses[-1] < 0.1 * losses[0]
    right, all_of_them = re.findall(r"\d+", start(both_ends, tmp_path, *launcher))
    assert int(right) > 0.95 * int(all_of_them) > 90
    assert (tmp_path / "ends.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["numpy", "torch"])
def test_own_cell_trains_alike_on_one_and_two_ranks(tmp_path, way):
    numpy_script, torch_script = scripts("docs/own_cell.md")
    script = numpy_script if way == "numpy" else torch_script
    if way == "torch":
        pytest.importorskip(
            "torch", reason="torch is not installed: pip install 'pint-mgrit[torch]'"
        )
    said = start(script, tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", said)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.05 * losses[0]
    assert start(script, tmp_path, *mpiexec(2)) == said


def test_kernel_of_the_logistic_equation(tmp_path):
    """u = 1 / (1 + 9 exp(-2 t)), to the error of 1000 explicit Euler steps."""
    (script,) = scripts("docs/performance.md")
    status, value = start(script, tmp_path).split()
    assert status == "CONVERGED"
    assert abs(float(value) - 1 / (1 + 9 * math.exp(-2))) < 1e-3


def test_convergence_theory(tmp_path):
    """The numbers that the page says it prints are those that it prints."""
    pytest.importorskip("matplotlib", reason="matplotlib is an optional extra: pint[report]")
    choose, draw = scripts("docs/theory.md")
    page = (ROOT / "docs/theory.md").read_text()
    said = start(choose, tmp_path).splitlines()
    assert len(said) == 5
    assert "\n".join(f"    {line}" for line in said) in page
    start(draw, tmp_path)
    assert (tmp_path / "convergence.png").exists()


def test_every_line_of_the_feature_table_has_its_test():
    """Tests of these names exist, and no option is left out."""
    page = (ROOT / "docs/engine.md").read_text().split("\nPairs of options")[0]
    lines = re.findall(r"^\| (?!option|guess|place|combination \|)(?!-)(.*) \|$", page, re.M)
    assert len(lines) > 40
    for line in lines:
        file, name = re.search(r"`((?:ranks/)?test_\w+\.py)::(\w+)`$", line).groups()
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), line
    for option in fields(MGRITOptions):
        assert re.search(f"`{option.name}[`=]", page), option.name


def test_delta_correction(tmp_path):
    """The cycles that the page says it takes are those that it takes."""
    (script,) = scripts("docs/delta.md")
    said = start(script, tmp_path).splitlines()
    assert len(said) == 4
    page = (ROOT / "docs/delta.md").read_text()
    assert "\n".join(f"    {line}" for line in said) in page


def test_burgers_from_python(tmp_path):
    """The front to the accuracy of 64 steps of backward Euler."""
    (script,) = scripts("docs/models.md")
    status, error = start(script, tmp_path).split()
    assert status == "CONVERGED"
    assert 0 < float(error) < 0.05


def test_refinement_in_time_and_space(tmp_path):
    """What the page says its scripts print they print, and it is as good as the page says."""
    page, said = (ROOT / "docs/refinement.md").read_text(), []
    for script in scripts("docs/refinement.md"):
        said.append(start(script, tmp_path).splitlines())
        assert "\n".join(f"    {line}" for line in said[-1]) in page
    in_time, in_space = ([float(line.split()[-1]) for line in lines] for lines in said)
    assert in_time[2] < in_time[1] < in_time[0]
    assert all(after < 0.3 * before for before, after in pairwise(in_space))


def test_every_name_of_the_reference_exists():
    sections = re.findall(
        r"currentmodule:: (\S+)\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.S
    )
    names = [
        f"{top}.{name}"
        for top, text in sections
        for name in re.findall(r"^   (\w[\w.]+)$", text, re.M)
    ]
    assert len(names) > 100
    for name in names:
        assert pkgutil.resolve_name(name), name
