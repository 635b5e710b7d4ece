"""Calibration, prediction and tuning, from Python and from the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pint import MGRITOptions
from pint.cli.main import main
from pint.rnn.network import Network
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.tape import DerivativeTape
from pint.scaling.calibrate import lengths
from pint.scaling.costs import Costs, Machine, Table
from pint.scaling.measurement import measured
from pint.scaling.predict import predict
from pint.scaling.workload import GRUWorkload, HeatWorkload, training_run, workload_of

SMALL = GRUWorkload(steps=64, batch=4, features=1, hidden=4, outputs=10, coarsening=4)


@pytest.fixture(scope="module")
def costs_file(tmp_path_factory):
    """Costs of a small network, measured here, with a made-up network of ranks."""
    costs = measured(SMALL, [32, 64], repeats=1)
    machine = Machine(name="test", latency=1e-6, bandwidth=1e10)
    path = tmp_path_factory.mktemp("costs") / "costs.toml"
    replace(costs, machine=machine, baselines={"serial stepping": 1e-4}).save(path)
    return path


def test_one_process_takes_what_its_pieces_take(costs_file):
    """On one rank nothing waits: the time is the sum over the pieces of work."""
    costs = Costs.load(costs_file)
    one = predict(SMALL.run(), costs, 1)
    assert one.seconds == pytest.approx(sum(one.phases.values()))
    assert one.speedup["serial stepping"] == pytest.approx(64 * 1e-4 / one.seconds)
    assert not any("messages" in name for name in one.phases)


@pytest.mark.parametrize("cell", ["classic", "lstm"])
def test_a_tape_is_as_large_as_it_is_said_to_be(cell):
    options = RecurrenceOptions(num_features=3, hidden=5, layers=2, cell=cell)
    network, stepping = Network(options, 2), MGRITOptions(levels=1)
    model = Recurrence(options)
    model.set_inputs(np.zeros((4, 6, 3), dtype=np.float32))
    tape = DerivativeTape(model, options.evaluations_of(0, 1), 6)
    held = sum(array.nbytes for array in (*tape.coefficients, *tape.hidden_after))
    assert training_run(network, 6, 4, stepping, stepping).tape_bytes == (held // 6,)


def test_a_slower_network_never_helps(costs_file):
    costs = Costs.load(costs_file)
    seconds = []
    for latency in (1e-9, 1e-5, 1e-3):
        machine = Machine(latency=latency, bandwidth=1e10)
        slow = Costs(machine, costs.tables, costs.call, costs.baselines)
        seconds.append(predict(SMALL.run(), slow, 4).seconds)
    assert seconds[0] < seconds[1] < seconds[2]
    # A training step has more than ten messages one after another.
    assert seconds[2] - seconds[0] > 10 * 1e-3


def test_faster_ranks_and_more_groups(costs_file):
    costs = Costs.load(costs_file)
    twice = Costs(
        Machine(latency=1e-12, bandwidth=1e30, speed=2.0), costs.tables, costs.call, costs.baselines
    )
    once = Costs(Machine(latency=1e-12, bandwidth=1e30), costs.tables, costs.call, costs.baselines)
    assert predict(SMALL.run(), twice, 2).seconds == pytest.approx(
        predict(SMALL.run(), once, 2).seconds / 2, rel=1e-6
    )
    split = predict(SMALL.run(groups=2), once, 4)
    assert (split.ranks, split.groups) == (4, 2)
    one = np.array([1])
    linear = {k: Table(one, t.seconds[:1] / t.sizes[0]) for k, t in costs.tables.items()}
    even = Costs(once.machine, linear)  # half of the rows take half of the time
    assert predict(SMALL.run(groups=2), even, 4).seconds < predict(SMALL.run(), even, 2).seconds
    with pytest.raises(ValueError, match="groups must divide the ranks"):
        predict(SMALL.run(groups=2), once, 3)
    with pytest.raises(ValueError, match="groups must divide the batch"):
        SMALL.run(groups=3)


def test_interpolates_and_goes_on_alike():
    table = Table(np.array([10, 20]), np.array([1.0, 3.0]))
    assert [table.at(size) for size in (5, 10, 15, 20, 40)] == [1.0, 1.0, 2.0, 3.0, 7.0]
    assert Table(np.array([10]), np.array([2.0])).at(30) == 6.0


def test_lengths_are_halves_down_to_two_intervals():
    assert lengths(1000, 16) == [1000, 500, 250, 125, 62]
    assert lengths(10, 16) == [10]
    assert lengths(10**7, 2, greatest=8) == [8, 4]
    with pytest.raises(ValueError, match=r"at least two intervals, 2 \* 16384 steps, got 16384"):
        lengths(10**7, 16384, greatest=16384)


def test_workloads_are_made_again_from_what_they_tell():
    for workload in (SMALL, HeatWorkload(nodes=33, coarsening=(4, 2), levels=3)):
        assert workload_of(json.loads(json.dumps(workload.described()))) == workload
    with pytest.raises(ValueError, match="kind must be one of"):
        workload_of({"kind": "wave"})


def test_heat_is_predicted_on_any_number_of_ranks():
    heat = HeatWorkload(nodes=17, steps=256, levels=3)
    costs = heat.measure([128, 256], repeats=1)
    costs.baselines.update(heat.baselines(256))
    for ranks in (1, 2, 3, 7, 100):
        one = predict(heat.run(), costs, ranks)
        assert one.seconds > 0
        # u, g of three levels and the residuals, which are the next level's g: 17 floats each.
        states = 257 + 2 * (65 + 17)
        assert one.megabytes * 1e6 >= 8 * 17 * states / ranks


def test_commands(costs_file, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="figures need the extra report")
    plot, table = tmp_path / "p.png", tmp_path / "p.csv"
    arguments = ["--ranks", "1,2,16", "--steps", "1e3", "--plot", str(plot), "--csv", str(table)]
    assert main(["predict", str(costs_file), "--json", *arguments]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["ranks"] for row in last["predictions"]] == [1, 2, 16]
    assert all(row["predicted"] and row["steps"] == 1000 for row in last["predictions"])
    assert plot.stat().st_size > 1000
    assert len(table.read_text().splitlines()) == 4
    assert main(["predict", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err
