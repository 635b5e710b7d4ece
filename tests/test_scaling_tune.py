"""The fastest way to train at a wanted gradient error."""

import itertools
import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from apps.train_options import read, settle
from pint.cli.main import main
from pint.data.sequences import Samples
from pint.rnn.losses import CrossEntropy
from pint.scaling.candidates import Candidate, candidates, hierarchies
from pint.scaling.fit import fitted, run_of
from pint.scaling.predict import predict
from pint.scaling.tune import exact_gradients, gradient_error, tune
from pint.scaling.workload import GRUWorkload
from tests.made_up_costs import made_up

SMALL = GRUWorkload(steps=64, batch=4, features=1, hidden=4, outputs=10, coarsening=4)


def test_the_fastest_way_that_is_accurate_enough():
    ways = [Candidate(SMALL.changed(substep=k), 1, seconds=float(k)) for k in (1, 2, 3, 4)]
    errors = {1: 0.5, 2: 0.04, 3: 0.01, 4: 0.0}
    best, tried = tune(ways, 0.05, lambda way: errors[way.substep], most=10)
    assert best is ways[1]
    assert [one.error for one in tried] == [0.5, 0.04]
    assert tune(ways, 1e-9, lambda way: errors[way.substep], most=2)[0] is None


def test_exact_stepping_is_left_when_no_more_errors_are_measured():
    ways = [Candidate(SMALL.changed(substep=k), 1, seconds=float(k)) for k in (1, 2, 3)]
    exact = Candidate(SMALL.changed(levels=1), 1, seconds=4.0)
    best, tried = tune([*ways, exact], 0.05, lambda way: float(way.levels > 1), most=2)
    assert best is exact
    assert len(tried) == 3


def test_an_error_that_is_no_number_is_not_small():
    network = SMALL.network()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 64, 1)).astype(np.float32)
    batches = [Samples(part, np.array([0, 1, 2, 3]), None) for part in x]
    exact = exact_gradients(network, batches, CrossEntropy())
    assert 0 < gradient_error(SMALL, network, batches, exact, CrossEntropy()) < 10
    exact[1] = np.full_like(exact[1], np.nan)
    assert np.isnan(gradient_error(SMALL, network, batches, exact, CrossEntropy()))


def test_candidates_come_in_order_and_exact_stepping_is_the_last():
    alone = SMALL.changed(batch=1)
    costs = made_up(alone, stacked=1e-6)
    found = candidates(alone, costs, 4)
    seconds = [one.seconds for one in found]
    assert seconds == sorted(seconds)
    assert [one.workload.levels == 1 for one in found[-2:]] == [False, True]
    assert len({one.workload.coarse_step for one in found}) == 3
    for one in found[:: len(found) // 5]:  # times of the whole prediction
        way = one.workload
        again = predict(run_of(way, costs), fitted(costs, way), 4)
        assert one.seconds == pytest.approx(again.seconds, rel=0.05)


def test_hierarchies_of_long_sequences():
    ways = list(hierarchies(SMALL.changed(steps=4096), 16))
    assert {way.levels for way in ways} == {2, 3, 4, 5, 6}
    assert {way.coarsening[1] for way in ways if way.levels == 3} == {2, 4, 8}
    assert {way.truncation for way in ways} == {0, 4, 8}
    assert {way.relax for way in ways} == {0, 1, (0, 1)}
    assert 257 in {way.coarsening[0] for way in ways}  # one interval for each rank


def test_more_ranks_are_never_worse():
    """With more groups than sequences, some ranks have no work, and none has more."""
    costs = made_up(SMALL)
    found = [candidates(SMALL, costs, ranks) for ranks in (1, 2, 3, 4, 5, 8)]
    for fewer, more in itertools.pairwise(found):
        assert more[0].seconds <= fewer[0].seconds * (1 + 1e-6)
    assert found[-1][-1].seconds == pytest.approx(2 * 64 * 1e-6 / 4, rel=1e-6)
    labels = [one.label for one in candidates(SMALL.changed(batch=3), costs, 7)]
    assert labels[-1] == "exact stepping, 7 x batch (on 3 of 7)"


@pytest.fixture
def costs_file(tmp_path):
    path = tmp_path / "costs.toml"
    made_up(SMALL, stacked=1e-6).save(path)
    return path


def tuned(costs_file, output, *arguments):
    few = ["--epochs", "0", "--batches", "1", "--ranks", "2", "--output", str(output)]
    return main(["tune", str(costs_file), *few, *arguments])


def test_tuned_options_are_those_of_the_train_app(costs_file, tmp_path):
    pytest.importorskip("sklearn", reason="digits need the extra data")
    output = tmp_path / "tuned.toml"
    assert tuned(costs_file, output, "--bound", "0.5") == 0
    args = read(["--config", str(output)])
    assert (args.batch, args.hidden, args.data) == (4, 4, "digits")
    assert args.levels == tomllib.loads(output.read_text())["levels"]


@pytest.mark.parametrize(("task", "features"), [("adding", 2), ("oscillator", 1), ("lorenz", 3)])
def test_generated_sequences_are_tuned_for_and_named(tmp_path, task, features):
    workload = SMALL.changed(features=features, steps=64, outputs=1)
    path, output = tmp_path / "costs.toml", tmp_path / "tuned.toml"
    made_up(workload, stacked=1e-6).save(path)
    given = ["--data", task, "--length", "64", "--samples", "8"]
    assert tuned(path, output, *given, "--most", "2") == 0
    args = read(["--config", str(output)])
    assert (args.data, args.length, args.samples) == (task, 64, 8)


def test_costs_of_other_data_are_refused_with_the_command_that_measures(
    costs_file, tmp_path, capsys
):
    output = tmp_path / "tuned.toml"
    assert tuned(costs_file, output, "--data", "adding", "--length", "64") == 2
    told = capsys.readouterr().err
    assert "is of features 1, adding needs 2" in told
    assert "pint calibrate gru --steps 64 --features 2 --batch 4 --hidden 4" in told
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "0"], "ranks must be at least 1"),
        (["--data", "har", "--length", "9"], "--length is for --data"),
        (["--data", "hmdb51"], "--features FILE belong together"),
        (["--bound", "-1"], "bound must be a positive number"),
    ],
)
def test_wrong_usage_is_one_line(costs_file, tmp_path, capsys, arguments, message):
    assert tuned(costs_file, tmp_path / "tuned.toml", *arguments) == 2
    assert message in capsys.readouterr().err


def test_costs_without_exact_stepping_are_refused(costs_file, tmp_path, capsys):
    path = tmp_path / "old.toml"
    replace(made_up(SMALL), exact={}).save(path)
    assert tuned(path, tmp_path / "tuned.toml") == 2
    assert "measure them again with pint calibrate" in capsys.readouterr().err


@pytest.mark.parametrize("coarse_step", ["averaged", "midpoint", "implicit"])
@pytest.mark.parametrize("changes", [{"truncation": 4, "coarsest": "truncated"}, {}])
def test_the_train_app_takes_every_way(coarse_step, changes, tmp_path):
    """It refuses options that do not count."""
    way = Candidate(SMALL.changed(coarse_step=coarse_step, **changes), 1, seconds=1.0)
    options = way.options(ranks=2) | {"data": "digits"}
    path = tmp_path / "tuned.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items()))
    args = read(["--config", str(path)])
    settle(args)
    assert args.coarse_step == coarse_step
    assert args.truncation == changes.get("truncation")
