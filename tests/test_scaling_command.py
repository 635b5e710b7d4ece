"""`pint calibrate` and `pint predict` from the command line."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pint.cli.main import main
from pint.parallel.comm import SerialCommunicator
from pint.scaling.costs import Costs, Machine, Table
from pint.scaling.measurement import joined, mean_costs
from pint.scaling.predict import Prediction, crossover
from pint.scaling.schedule import Schedule
from pint.scaling.workload import GRUWorkload
from tests.launcher import environment, mpiexec
from tests.made_up_costs import made_up

SMALL = GRUWorkload(steps=63, batch=4, features=1, hidden=4, outputs=10, coarsening=4)
HERE = "[machine]\nlatency = 1e-6\nbandwidth = 1e9\n"


@pytest.fixture
def costs_file(tmp_path):
    path = tmp_path / "costs.toml"
    made_up(SMALL).save(path)
    return path


def predicted(path, capsys, *arguments):
    """Return the JSON object of the command, and what it says on stderr."""
    assert main(["predict", str(path), "--json", *arguments]) == 0
    said = capsys.readouterr()
    return json.loads(said.out.splitlines()[-1]), said.err


def test_other_options_than_measured_count(costs_file, capsys):
    """A microsecond for each evaluation: their numbers by level."""
    changes = [
        ([], SMALL),
        (["--levels", "2"], SMALL.changed(levels=2)),
        (["--levels", "2", "--coarsening", "16"], SMALL.changed(levels=2, coarsening=16)),
        (["--relax", "0"], SMALL.changed(relax=0)),
        (["--substep", "2"], SMALL.changed(substep=2)),
        (["--forward-iterations", "4"], SMALL.changed(forward_iterations=4)),
    ]
    found = []
    for arguments, way in changes:
        (steps,) = Schedule.of(way.run(), 1).steps()
        per_step = way.evaluations()
        expected = 1e-6 * sum(count * per_step[level] for (_, level), count in steps.items())
        told, _ = predicted(costs_file, capsys, "--ranks", "1", *arguments)
        assert told["predictions"][0]["seconds"] == pytest.approx(expected, rel=1e-9)
        found.append(expected)
    assert len(set(found)) == len(found)


def test_phases_are_told_in_seconds_for_each_split(costs_file, capsys):
    assert main(["predict", str(costs_file), "--ranks", "1,2,8", "--groups", "1,2"]) == 0
    out = capsys.readouterr().out
    for groups in (1, 2):
        assert f"seconds by phase, {groups} x batch" in out
        assert f"{groups} x batch, faster than serial stepping: " in out
    assert "forward relaxation" in out
    told, _ = predicted(costs_file, capsys, "--ranks", "1,2,8", "--groups", "1,2")
    assert [(one["groups"], one["ranks"]) for one in told["predictions"]] == [
        (1, 1), (1, 2), (1, 8), (2, 2), (2, 8)
    ]  # fmt: skip
    assert set(told["crossover"]) == {"1", "2"}
    for one in told["predictions"]:
        parts = [value for name, value in one.items() if name.startswith("seconds of ")]
        assert sum(parts) == pytest.approx(one["seconds"])


def faster_on(speedups):
    one = {"steps": 1, "seconds": 1.0, "efficiency": 1.0, "megabytes": 1.0, "phases": {}}
    return crossover(
        [Prediction(ranks=n, speedup={"x": s}, **one) for n, s in speedups.items()], "x"
    )


def test_the_crossover_is_from_where_on_it_stays_faster():
    one = faster_on({1: 0.5, 2: 2.0, 4: 0.9, 8: 1.5, 16: 3.0})
    assert (one.ranks, one.slower_at, one.faster) == (8, 4, [(2, 2), (8, 16)])
    one = faster_on({1: 0.5, 2: 2.0, 4: 0.9})
    assert (one.ranks, one.faster) == (None, [(2, 2)])
    assert faster_on({2: 1.5, 4: 3.0}).slower_at is None
    assert faster_on({}).faster == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--groups", "0"], "groups must be at least 1"),
        (["--ranks", "2", "--groups", "3"], "groups must divide the ranks, [2], got 3"),
        (["--ranks", "0"], "ranks must be at least 1"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--levels", "0"], "levels must be at least 1"),
        (["--forward-iterations", "0"], "forward_iterations must be at least 1"),
        (["--coarsest", "truncated", "--truncation", "0"], "truncation"),
        (["--plot", "nowhere/figure.png"], "folder 'nowhere' does not exist: create it first"),
        (["--csv", "nowhere/table.csv"], "folder 'nowhere' does not exist: create it first"),
        (["--plot", "figure.doc"], "--plot must end with one of"),
    ],
)
def test_wrong_values_are_one_line(costs_file, capsys, arguments, message):
    """Before anything is predicted."""
    if "--plot" in arguments:
        pytest.importorskip("matplotlib", reason="figures need the extra report")
    assert main(["predict", str(costs_file), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out


def test_wrong_usage(costs_file, tmp_path, capsys):
    for steps in ("1e400", "1.5", "x"):
        with pytest.raises(SystemExit, match="2"):
            main(["predict", str(costs_file), "--steps", steps])
    heat = {"kind": "heat", "nodes": 9, "steps": 64}
    Costs(Machine(latency=1.0, bandwidth=1.0), {}, problem=heat).save(tmp_path / "h.toml")
    text = (tmp_path / "h.toml").read_text() + "\n[[work]]\nsolve = ''\nname = 'x'\nlevel = 0\n"
    (tmp_path / "h.toml").write_text(text + "sizes = [1]\nseconds = [1.0]\n")
    assert main(["predict", str(tmp_path / "h.toml"), "--backward-iterations", "2"]) == 2
    assert "--backward-iterations is not for costs of heat" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('ranks_per_node = "many"', "ranks_per_node must be an integer"),
        ("ranks_per_node = 0", "ranks_per_node must be at least 1"),
        ("node_bandwidth = 0", "node_bandwidth must be a positive number"),
        ('collective_bandwidth = "fast"', "collective_bandwidth must be a number"),
        ("overhead = -1.0", "overhead must be a number of at least 0"),
        ("collective_latency = -1e-6", "collective_latency must be a number of at least 0"),
        ("speed = true", "speed must be a number"),
        ("name = 3", "name must be a text"),
    ],
)
def test_every_field_of_a_machine_is_checked(costs_file, tmp_path, capsys, line, message):
    machine = tmp_path / "machine.toml"
    machine.write_text(HERE + line)
    assert main(["predict", str(costs_file), "--machine", str(machine)]) == 2
    assert f"machine.toml: [machine] {message}" in capsys.readouterr().err


WORK = "[[work]]\nsolve = ''\nname = 'x'\nlevel = 0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HERE, "'work' is missing"),
        ("work = [1, 2]\n" + HERE, "work must be tables [[work]]"),
        ("baselines = 3\n" + HERE, "baselines must be a section"),
        (HERE + WORK + "sizes = []\nseconds = []", "sizes must increase"),
        (HERE + WORK + "sizes = [2, 1]\nseconds = [1.0, 1.0]", "sizes must increase"),
        (HERE + WORK + "sizes = [1, 2]\nseconds = [1.0]", "one for each entry of seconds"),
        (HERE + WORK + "sizes = [1]\nseconds = ['x']", "seconds must be a number"),
        (HERE + WORK + "sizes = [1]", "seconds must be a list"),
        (HERE + WORK.replace("= 0", "= 'x'"), "level must be a int"),
        ("call = 'x'\n" + HERE, "call must be a number"),
        (HERE + "[baselines]\nx = 'fast'", "baselines: x must be a number"),
        (HERE + WORK + "sizes = [1]\nseconds = [1.0]", "kind must be one of"),
    ],
)
def test_every_field_of_costs_is_checked(tmp_path, capsys, text, message):
    path = tmp_path / "costs.toml"
    path.write_text(text)
    assert main(["predict", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_far_extrapolation_is_warned_of(costs_file, tmp_path, capsys):
    _, said = predicted(costs_file, capsys, "--ranks", "1")
    assert said == ""
    _, said = predicted(costs_file, capsys, "--ranks", "1,64", "--steps", "1e5")
    assert "times larger than the largest measured" in said
    assert "messages were measured among the 1 ranks of a node" in said
    (tmp_path / "machine.toml").write_text(HERE)
    named = ["--machine", str(tmp_path / "machine.toml")]
    assert "a node" not in predicted(costs_file, capsys, "--ranks", "64", *named)[1]


def test_the_update_takes_as_long_for_any_number_of_steps(costs_file, capsys):
    costs = made_up(SMALL)
    costs.tables["", "update", -1] = Table(np.array([8, 64]), np.array([1e-3, 2e-3]))
    costs.save(costs_file)
    rows = [
        predicted(costs_file, capsys, "--ranks", "1", "--steps", steps)[0]["predictions"][0]
        for steps in ("63", "1e5")
    ]
    assert [row["seconds of rest"] for row in rows] == [pytest.approx(1e-3)] * 2


def test_medians_of_what_several_lengths_have():
    machine = Machine(latency=1.0, bandwidth=1.0)

    def part(size, seconds):
        rest = Table(np.array([1]), np.array([seconds]))
        step = Table(np.array([size]), np.array([seconds]))
        return Costs(machine, {("", "rest", -1): rest, ("", "step", 0): step}, call=seconds)

    whole = joined([part(8, 1.0), part(16, 2.0), part(32, 90.0)])
    assert whole.tables["", "rest", -1].seconds.tolist() == [2.0]
    assert whole.tables["", "step", 0].sizes.tolist() == [8, 16, 32]
    assert whole.call == 2.0


class Twins(SerialCommunicator):
    """Two ranks, of which the other one has measured three times the seconds."""

    size = 2

    def sum(self, array):
        return 4 * array


def test_costs_are_the_mean_of_all_ranks():
    costs = made_up(SMALL)
    mean = mean_costs(costs, Twins())
    for before, after in ((costs.tables, mean.tables), (costs.exact, mean.exact)):
        for key, table in before.items():
            np.testing.assert_allclose(after[key].seconds, 2 * table.seconds)
    assert mean.baselines == {name: 2 * value for name, value in costs.baselines.items()}


CALIBRATE = ["calibrate", "gru", "--steps", "32", "--batch", "2", "--hidden", "4", "--repeats", "1"]


def test_calibrates_and_predicts(tmp_path, capsys):
    path = tmp_path / "costs.toml"
    assert main([*CALIBRATE, "--output", str(path), "--mpiexec", mpiexec(2)[0]]) == 0
    costs = Costs.load(path)
    assert costs.exact
    assert costs.problem["steps"] == 32
    assert "serial stepping" in costs.baselines
    told, _ = predicted(path, capsys, "--ranks", "1,2", "--levels", "1")
    assert all(row["seconds"] > 0 for row in told["predictions"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "repeats must be at least 1"),
        (["--longest", "4"], "longest must be at least two intervals"),
        (["--mpiexec", "/nowhere/mpiexec"], "does not start two ranks"),
        (["--output", "/nowhere/costs.toml"], "does not exist: create it first"),
    ],
)
def test_calibrate_checks_before_it_measures(monkeypatch, tmp_path, capsys, arguments, message):
    def never(*_):
        raise AssertionError("measured before the arguments were checked")

    monkeypatch.setattr("pint.cli.calibrate_command.measured", never)
    output = ["--output", str(tmp_path / "costs.toml")]
    assert main([*CALIBRATE, *output, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_one_of_several_ranks_tells_what_is_wrong(tmp_path):
    command = [*mpiexec(2), sys.executable, "-m", "pint.cli", *CALIBRATE, "--repeats", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode != 0
    assert done.stderr.count("repeats must be at least 1") == 1
