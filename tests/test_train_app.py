"""The training driver as users start it: in process, under mpiexec, without mpi4py, interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from apps import train_results, train_run
from apps.train import main
from pint import open_run
from pint.cli.main import main as inspect
from pint.data.digits import load_digits
from pint.data.generated import BASELINES, TASKS
from pint.data.loss import loss_of
from pint.data.sequences import SequenceData
from pint.results import write_run
from pint.rnn.losses import CrossEntropy
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.train.accuracy import exact_solver
from pint.train.optimizers import Adam
from pint.train.trainer import Trainer, TrainingOptions
from tests.launcher import environment, heed_ctrl_c, mpiexec

SMALL = ["--hidden", "8", "--epochs", "1", "--batch", "400", "--levels", "2"]
ADDING = [
    *("--data", "adding", "--length", "9", "--samples", "4", "--hidden", "3"),
    *("--serial", "--epochs", "4", "--json"),
]
KEYS = {
    "exact_test_accuracy",
    "parallel_test_accuracy",
    "train_loss",
    "seconds_per_epoch",
    "forward_residual",
    "ranks",
    "output",
}


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def test_json_line_and_file_agree(tmp_path, capsys):
    output, trace = tmp_path / "run.h5", tmp_path / "traces" / "run.json"
    traced = ["--trace", str(trace), "--trace-batches", "2"]
    assert main([*SMALL, "--output", str(output), "--json", *traced]) == 0
    said = last_json(capsys.readouterr().out)
    events = json.loads(trace.read_text())["traceEvents"]
    assert [event["name"] for event in events].count("batch") == 2
    assert set(said) == KEYS
    assert said["ranks"] == 1
    assert said["output"] == str(output)
    assert said["forward_residual"] > 0
    run = open_run(output)
    assert run.finished
    assert run.training["exact_test_accuracy"][-1] == said["exact_test_accuracy"]
    assert run.training["train_loss"][-1] == said["train_loss"]
    assert run.history["forward_residual"][-1, -1] == said["forward_residual"]
    assert run.options["hidden"] == 8
    assert run.coarsening == (4,)
    assert run.model["weight_hh_l0"].shape == (24, 8)


def test_table_names_both_accuracies_and_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # a long path would be cut to fit the table
    assert main([*SMALL, "--output", "a.h5"]) == 0
    text = capsys.readouterr().out
    for words in ("test accuracy, parallel", "test accuracy, exact", "seconds per epoch", "a.h5"):
        assert words in text


def test_serial_is_exact(tmp_path, capsys):
    main([*SMALL, "--serial", "--json", "--output", str(tmp_path / "run.h5")])
    said = last_json(capsys.readouterr().out)
    assert said["exact_test_accuracy"] == said["parallel_test_accuracy"]
    assert said["forward_residual"] is None  # time stepping has none


def test_enough_iterations_train_as_serial_does(tmp_path, capsys):
    """FCF on two levels is exact after N / 2m iterations, so the losses equal --serial."""
    losses = []
    exact = ["--forward-iterations", "9", "--backward-iterations", "9", "--coarsening", "4"]
    few = ["--forward-iterations", "3", "--backward-iterations", "3", "--coarsening", "4"]
    diagonals = ["--delta", "diagonal"]
    for how in (["--serial"], exact, [*exact, *diagonals], few, [*few, *diagonals]):
        main([*SMALL, "--dtype", "float64", *how, "--json", "--output", str(tmp_path / "run.h5")])
        losses.append(last_json(capsys.readouterr().out)["train_loss"])
    assert losses[1:3] == pytest.approx([losses[0]] * 2, rel=1e-12)
    assert losses[3] != losses[4]


@pytest.mark.parametrize("ranks", [1, 2])
def test_networks_of_all_kinds(ranks, tmp_path):
    """Two directions, the mean over time, a learned start and weights of classes, as in Python."""
    output = tmp_path / "run.h5"
    chosen = "--bidirectional --pooling mean --learned-start --class-weights balanced"
    options = ["--dtype", "float64", "--serial", "--clip", "none", "--schedule", "constant"]
    run = [*SMALL, *chosen.split(), *options, "--output", str(output)]
    if ranks == 1:
        assert main(run) == 0
    else:
        done = subprocess.run(
            [*mpiexec(ranks), sys.executable, "-m", "apps.train", *run],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    saved, data = open_run(output).model, load_digits()
    counts = np.bincount(data.y_train, minlength=10)
    loss = CrossEntropy(class_weights=tuple(len(data.y_train) / (10 * counts)))
    cell = RecurrenceOptions(num_features=data.num_features, hidden=8, dtype="float64")
    network = Network(cell, 10, pooling="mean", bidirectional=True, learned_start=True)
    solver = exact_solver(network, data.num_steps, loss)
    options = TrainingOptions(epochs=1, batch=400, optimizer=Adam(learning_rate=1e-2))
    Trainer(solver, data, options).train()
    assert set(saved) == set(network.weights)
    for name, expected in network.weights.items():
        np.testing.assert_allclose(saved[name], expected, rtol=1e-7, atol=1e-9, err_msg=name)
    assert np.abs(saved["initial_state"]).max() > 0


def test_balanced_weights_count_what_has_labels():
    """Elements behind the end of a sequence have none, and a class without elements counts not."""
    x = np.zeros((2, 3, 1), dtype=np.float32)
    y, mask = np.array([[0, 0, 0], [2, 1, 1]]), np.array([[True] * 3, [True, False, False]])
    names = ("a", "b", "c")
    data = SequenceData(
        name="few", x_train=x, y_train=y, x_test=x, y_test=y, class_names=names, mask_train=mask
    )
    assert loss_of(data, "balanced").class_weights == (4 / (2 * 3), 1, 4 / (2 * 1))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_shrinks_by_its_part(tmp_path, optimizer):
    """Against the same single update without it; both decays are alike in the first one."""
    arguments = ["--optimizer", optimizer, "--lr", "0.01", "--schedule", "constant", "--serial"]
    after = []
    for decay in ("0", "0.9"):
        output = ["--output", str(tmp_path / "run.h5")]
        main([*SMALL, *arguments, "--batch", "9999", "--weight-decay", decay, *output])
        after.append(open_run(tmp_path / "run.h5").model["head.bias"])
    before = Network(RecurrenceOptions(num_features=1, hidden=8), num_outputs=10).weights[
        "head.bias"
    ]
    np.testing.assert_allclose(after[1] - after[0], -0.01 * 0.9 * before, rtol=0, atol=1e-7)
    assert abs(before).max() > 0.1


def test_the_learning_rate_falls_in_steps(tmp_path):
    output = tmp_path / "run.h5"
    schedule = ["--schedule", "step", "--period", "2", "--decay", "0.1", "--lr", "0.5"]
    assert main([*ADDING, *schedule, "--output", str(output)]) == 0  # an update in each epoch
    run = open_run(output)
    np.testing.assert_allclose(run.training["learning_rate"], [0.5, 0.5, 0.05, 0.05])
    assert (run.options["period"], run.options["substep"]) == (2, 4)


def test_adaptive_accuracy_tells_how_many_batches_were_stepped_exactly(tmp_path, capsys):
    arguments = [one for one in ADDING if one not in ("--serial", "--json")]
    output = tmp_path / "run.h5"
    assert main([*arguments, "--accuracy", "adaptive", "--output", str(output)]) == 0
    exact = np.count_nonzero(open_run(output).history["forward_iterations"] == 0)
    assert re.search(rf"batches stepped exactly\W+{exact} of 4\b", capsys.readouterr().out)


def test_help_gives_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    names = (
        "data hidden layers batch epochs lr seed levels coarsening forward-iterations json output "
        "backward-iterations relax coarse-step serial"
    )
    for name in names.split():
        assert re.search(rf"--{name}[ ,]", text)
    assert "default: averaged" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "0"], "hidden must be at least 1, got 0"),
        (["--coarsening", "0"], "coarsening must be at least 1, got 0"),
        (["--lr", "-1"], "learning_rate must be a positive number, got -1.0"),
        (["--weight-decay", "0.1"], "--weight-decay is for --optimizer adamw or sgd, got adam"),
        (["--data", "har", "--data-dir", "no/such/folder"], "no/such/folder"),
        (["--trace-batches", "2"], "--trace-batches belongs to --trace"),
        (["--trace", "run.doc"], "--trace must end with one of"),
        (["--length", "9"], "--length is for --data adding, oscillator, lorenz; digits has sequen"),
        (["--data", "har", "--samples", "9"], "--samples is for --data adding, oscillator, lorenz"),
        (
            ["--data", "lorenz", "--data-dir", "."],
            "--data-dir is for --data har; lorenz needs none",
        ),
        (["--data", "oscillator", "--length", "9"], "length must be at least 50, got 9"),
        (["--bound", "0.1"], "--bound is for --accuracy adaptive, got fixed"),
        (["--momentum", "0.5"], "--momentum is for --optimizer sgd, got adam"),
        (
            ["--coarse-step", "matched", "--substep", "2"],
            "--substep is for --coarse-step averaged or midpoint, got matched",
        ),
        (["--class-weights", "1,2"], "must be 10 numbers, one for each class of digits, got 2"),
        (["--class-weights", ",".join("0" * 10)], "class_weights must be finite, at least 0 and"),
        (["--data", "adding", "--class-weights", "1,2"], "are for labels; adding has numbers"),
        (["--data", "lorenz", "--pooling", "mean"], "--pooling is for one target of a sequence"),
        (["--period", "9"], "--period is for --schedule step, got cosine"),
        (["--decay", "0.1"], "--decay is for --schedule step, got cosine"),
        (["--schedule", "step", "--decay", "2"], "decay must be in (0, 1], got 2.0"),
        (["--output", "no/such/folder/run.h5"], "folder 'no/such/folder' does not exist"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, capsys, tmp_path):
    output = [] if "--output" in arguments else ["--output", str(tmp_path / "run.h5")]
    assert main([*SMALL, *output, *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    (error,) = [line for line in lines if "compiling kernels" not in line]
    assert message in error


@pytest.mark.parametrize(
    ("name", "what"), [("adding", "error"), ("oscillator", "accuracy"), ("lorenz", "error")]
)
def test_generated_tasks(name, what, tmp_path, monkeypatch, capsys):
    """Head, pooling and loss follow from the data; the baseline stands beside the result."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", name, "--length", "70", "--samples", "24", "--batch", "8", "--json"]
    assert main([*SMALL, *arguments, "--batch", "8"]) == 0
    text = capsys.readouterr().out
    said = last_json(text)
    assert set(said) == {key.replace("accuracy", what) for key in KEYS} | {"baseline"}
    data = TASKS[name](70, 24, 0)
    assert said["baseline"] == BASELINES[name].of(data)
    assert BASELINES[name].says in text
    run = open_run("run.h5")
    assert run.training[f"exact_test_{what}"][-1] == said[f"exact_test_{what}"]
    assert ("train_accuracy" in run.training) == (what == "accuracy")
    assert run.options["architecture"]["pooling"] == ("every" if name == "lorenz" else "last")
    assert run.options["length"] == 70
    assert inspect(["inspect", "run.h5"]) == 0
    assert f"{said[f'exact_test_{what}']:.4g}" in capsys.readouterr().out


def test_har_subset_learns(tmp_path, capsys):
    folder = os.environ.get("PINT_DATA_DIR")
    if not folder:
        pytest.skip("PINT_DATA_DIR does not name a folder with the UCI-HAR subset")
    arguments = "--data har --hidden 24 --epochs 4 --batch 50 --lr 1e-2 --relax 0,1 --substep 8"
    iterations = "--forward-iterations 2 --backward-iterations 2"
    output = ["--output", str(tmp_path / "har.h5"), "--data-dir", folder, "--json"]
    assert main([*arguments.split(), *iterations.split(), *output]) == 0
    said = last_json(capsys.readouterr().out)
    assert said["exact_test_accuracy"] > 0.5  # the most frequent class has 18 %
    assert abs(said["exact_test_accuracy"] - said["parallel_test_accuracy"]) < 0.03


def start(tmp_path, ranks, *arguments):
    """Run the driver under mpiexec; return what it printed."""
    command = [*mpiexec(ranks), sys.executable, "-m", "apps.train", *SMALL, *arguments]
    output = ["--output", str(tmp_path / f"run{ranks}.h5")]
    return subprocess.run(
        [*command, *output], env=environment(), capture_output=True, text=True, timeout=200
    )


def test_ranks_train_alike(tmp_path):
    said = []
    for ranks in (1, 2, 3):
        done = start(tmp_path, ranks, "--json", "--dtype", "float64")
        assert done.returncode == 0, done.stderr
        said.append(last_json(done.stdout))
        assert said[-1]["ranks"] == ranks
        assert done.stdout.count("epoch   1") == 1  # one rank speaks
        assert open_run(tmp_path / f"run{ranks}.h5").timings["training"].shape == (ranks,)
    for other in said[1:]:
        assert other["train_loss"] == pytest.approx(said[0]["train_loss"], rel=1e-10)
        assert other["forward_residual"] == pytest.approx(said[0]["forward_residual"], rel=1e-8)


def test_comparisons_warm_starts_and_groups_of_ranks(tmp_path, capsys):
    """The file has the measurements of each batch; groups of ranks measure equal values."""
    cycles = ["--forward-iterations", "2", "--backward-iterations", "2", "--check-every", "3"]
    arguments = [*cycles, "--dtype", "float64", "--epochs", "2", "--json"]
    done = start(tmp_path, 2, *arguments, "--time-ranks", "1")
    assert done.returncode == 0, done.stderr
    output = ["--output", str(tmp_path / "one.h5")]
    assert main([*SMALL, *arguments, *output]) == 0
    capsys.readouterr()
    two, one = (open_run(tmp_path / name).history for name in ("run2.h5", "one.h5"))
    measured = one["measured_error"]
    assert np.flatnonzero(~np.isnan(measured)).tolist() == [0, 3, 6]
    assert 1e-8 < np.nanmin(measured) <= np.nanmax(measured) < 1
    np.testing.assert_array_less(1 - one["cosine"][[0, 3]], measured[[0, 3]])
    for name in ("measured_error", "cosine", "estimated_error", "forward_relative"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-6, err_msg=name)
    assert main([*SMALL, *arguments, "--warm-start", "--accuracy", "adaptive", *output]) == 0
    warm = open_run(tmp_path / "one.h5").history
    assert warm["estimated_error"][0] == warm["measured_error"][0] == measured[0]  # a cold start
    assert warm["forward_iterations"].size == measured.size


def test_ranks_forecast_alike(tmp_path, capsys):
    """Targets at every step: two processes under mpiexec, and this one."""
    arguments = ["--data", "lorenz", "--length", "50", "--samples", "8", "--batch", "4", "--json"]
    done = start(tmp_path, 2, *arguments, "--dtype", "float64")
    assert done.returncode == 0, done.stderr
    output = ["--output", str(tmp_path / "run.h5")]
    assert main([*SMALL, *arguments, "--dtype", "float64", *output]) == 0
    two, one = last_json(done.stdout), last_json(capsys.readouterr().out)
    for name in ("train_loss", "exact_test_error", "parallel_test_error", "baseline"):
        assert two[name] == pytest.approx(one[name], rel=1e-9), name


def test_bad_input_under_mpiexec_ends_with_one_message(tmp_path):
    done = start(tmp_path, 2, "--hidden", "0")
    assert done.returncode != 0
    assert done.stderr.count("hidden must be at least 1, got 0") == 1


DIVERGES = "--data adding --length 20 --samples 20 --batch 4 --epochs 30 --hidden 4 --clip none"


@pytest.mark.parametrize("ranks", [1, 2])
def test_diverged_training_ends_with_one_message_and_keeps_the_file(ranks, tmp_path):
    arguments = [*DIVERGES.split(), "--optimizer", "sgd", "--lr", "1e3"]
    done = start(tmp_path, ranks, *arguments)
    assert done.returncode == 2
    (error,) = [x for x in done.stderr.splitlines() if not x.startswith("apps.train: compiling")]
    assert error.startswith("apps.train: the ")
    assert "smaller learning rate or clipping" in error
    run = open_run(tmp_path / f"run{ranks}.h5")
    assert not run.finished
    assert run.training["epoch"].tolist() == [1]


def writes_that_fail(monkeypatch, *epochs):
    """Have files of these epochs fail; return the epochs whose files are tried."""
    tried = []

    def write(path, record):
        tried.append(record.training["epoch"].size)
        if tried[-1] in epochs:
            raise OSError("no space left")
        write_run(path, record)

    monkeypatch.setattr(train_results, "write_run", write)
    return tried


def test_a_file_that_cannot_be_written_after_an_epoch_is_told_once(tmp_path, monkeypatch, capsys):
    tried = writes_that_fail(monkeypatch, 1, 2)
    assert main([*ADDING, "--output", str(tmp_path / "run.h5")]) == 0
    assert tried == [1, 2, 3, 4]
    assert capsys.readouterr().err == (
        "apps.train: no space left; training goes on, and tries again\n"
    )
    assert open_run(tmp_path / "run.h5").finished


def test_a_file_that_cannot_be_written_at_the_end_is_an_error(tmp_path, monkeypatch, capsys):
    writes_that_fail(monkeypatch, 4)
    assert main([*ADDING, "--output", str(tmp_path / "run.h5")]) == 2
    said = capsys.readouterr()
    assert said.err == "apps.train: no space left\n"
    assert last_json(said.out)["train_loss"] > 0
    assert open_run(tmp_path / "run.h5").training["epoch"].size == 3


def test_a_folder_that_is_gone_ends_no_rank_before_the_end(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    script = (
        "import shutil, sys\nfrom apps import train_results\nfrom apps.train import main\n"
        f"whole = train_results.write_run\n"
        "def write(path, record):\n"
        "    whole(path, record)\n"
        f"    shutil.rmtree({str(folder)!r})\n"
        "train_results.write_run = write\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [*mpiexec(2), sys.executable, "-c", script, *ADDING]
    done = subprocess.run(
        [*command, "--output", str(folder / "run.h5")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2
    assert done.stdout.count("epoch   4") == 1
    lines = [x for x in done.stderr.splitlines() if "does not exist" in x]
    assert len(lines) == 2  # a warning, and the error at the end
    assert "Traceback" not in done.stderr


def test_a_trace_that_cannot_be_written_is_told_after_the_report(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(train_run, "save_trace", fail)
    files = ["--output", str(tmp_path / "run.h5"), "--trace", str(tmp_path / "trace.json")]
    assert main([*ADDING, *files]) == 2
    said = capsys.readouterr()
    assert said.err == "apps.train: no space left\n"
    assert last_json(said.out)["train_loss"] > 0
    assert open_run(tmp_path / "run.h5").finished


CTRL_C = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


def test_ctrl_c_while_packages_are_imported(tmp_path):
    (tmp_path / "h5py.py").write_text(CTRL_C)
    env = environment() | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    command = [sys.executable, "-m", "apps.train"]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=100, preexec_fn=heed_ctrl_c
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_while_data_are_generated(tmp_path, ranks):
    script = (
        f"{CTRL_C.splitlines()[0]}, sys\nfrom apps.train import main\n"
        "from pint.data.generated import TASKS\n"
        "def adding(length, samples, seed):\n"
        f"    {CTRL_C.splitlines()[1]}\n"
        "TASKS['adding'] = adding\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [*mpiexec(ranks), sys.executable, "-c", script, *ADDING]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "run.h5")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=heed_ctrl_c,
    )
    assert done.returncode == 130 if ranks == 1 else done.returncode != 0
    assert "Traceback" not in done.stderr


def test_ctrl_c_under_mpiexec_leaves_a_readable_file(tmp_path):
    output = tmp_path / "run.h5"
    command = [*mpiexec(2), sys.executable, "-u", "-m", "apps.train", *SMALL, "--epochs", "100000"]
    with subprocess.Popen(
        [*command, "--output", str(output)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch   2"):
                break
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()  # until all ranks have ended
    print(said)
    run = open_run(output)
    assert not run.finished
    assert run.training["epoch"].size >= 1
    assert np.isfinite(run.model["head.weight"]).all()
    with h5py.File(output) as file:
        assert file["training/train_loss"].shape[0] == run.training["epoch"].size


def test_runs_without_mpi4py(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('mpi4py is not installed')\n")
    env = environment() | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    command = [sys.executable, "-m", "apps.train", *SMALL, "--json"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "run.h5")],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert last_json(done.stdout)["ranks"] == 1


def test_a_rank_that_fails_ends_all(tmp_path):
    """An exception on one rank must not leave the other waiting."""
    script = tmp_path / "fail.py"
    script.write_text(
        "from pint.parallel.comm import run, world\n"
        "comm = world()\n"
        "def main():\n"
        "    if comm.rank == 1:\n"
        "        raise RuntimeError('rank 1 gives up')\n"
        "    comm.barrier()\n"
        "    return 0\n"
        "run(main, comm)\n"
    )
    begin = time.monotonic()
    done = subprocess.run(
        [*mpiexec(2), sys.executable, str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode != 0
    assert "rank 1 gives up" in done.stderr
    assert time.monotonic() - begin < 60
