"""The figures of the paper: a run of tiny problems writes them all, and wrong use is refused."""

import csv
import importlib.util
import json
import platform
import subprocess
import sys

import pytest

from benchmarks import _measure, _paper_figures, paper
from benchmarks._measure import RESULTS
from tests.launcher import ROOT, environment, mpiexec

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

COMMON = ["method", "kind", "machine", "ranks", "threads"]
COLUMNS = {
    "accuracy": [
        *COMMON, "data", "seed", "epochs",
        "exact_test_accuracy", "parallel_test_accuracy", "seconds_per_epoch",
    ],
    "ranks": [
        *COMMON, "steps", "batch", "features", "hidden",
        "forward_seconds", "backward_seconds", "seconds", "gradient_error",
    ],
}  # fmt: skip
COLUMNS["length"] = COLUMNS["ranks"]
"""The columns, in their order; a time is in seconds, which its name says."""


def run(*arguments, **variables):
    *launcher, _, _ = mpiexec(2)
    inherited = {name: x for name, x in environment().items() if name != "PINT_DATA_DIR"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.paper", *arguments],
        cwd=ROOT,
        env=inherited | {"MPIEXEC": " ".join(launcher)} | variables,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a quick run on 3 ranks; on its way it must not ask for data."""
    output = tmp_path_factory.mktemp("paper")
    kept = sorted(RESULTS.iterdir())
    done = run("--quick", "--ranks=3", f"--output={output}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["output"] == str(output)
    for text in ("figure 1 of 3: accuracy", "training 3 of 3: ", "round 1 of 1", "length 2 of 2"):
        assert text in done.stdout
    assert sorted(RESULTS.iterdir()) == kept  # which is for full runs
    return output


def rows_of(folder, name):
    """Return the rows of a table, whose two files must agree."""
    record = json.loads((folder / f"{name}.json").read_text())
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["numpy"]
    assert record["command"].startswith("python -m benchmarks.paper --quick --ranks=3")
    with (folder / f"{name}.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == COLUMNS[name]
    rows = record["rows"]
    assert all(list(row) == header for row in rows)
    assert lines == [["" if x is None else str(x) for x in row.values()] for row in rows]
    machine = f"{record['machine']['processor']}, {record['machine']['cores']} cores"
    for row in rows:
        assert row["kind"] in ("measured", "predicted")
        assert row["machine"] == machine
        assert row["ranks"] >= 1
        assert row["threads"] >= 1
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return rows


@pytest.mark.slow
def test_accuracy(folder):
    rows = rows_of(folder, "accuracy")
    assert [(row["method"], row["kind"], row["ranks"]) for row in rows] == [
        ("classic, serial", "measured", 1),
        ("implicit, serial", "measured", 1),
        ("implicit, parallel", "measured", 3),
    ]
    for row in rows:
        assert (row["data"], row["seed"], row["epochs"]) == ("digits", 0, 1)
        assert 0 < row["exact_test_accuracy"] <= 1
        assert 0 < row["seconds_per_epoch"] < 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ranks", "length"])
def test_times(folder, name):
    rows = rows_of(folder, name)
    for row in rows:
        assert 0 < row["forward_seconds"] < row["seconds"] < 5
        total = row["forward_seconds"] + row["backward_seconds"]
        assert row["seconds"] == pytest.approx(total)
        is_parallel = row["method"].startswith("implicit, parallel")
        is_compared = row["kind"] == "measured" and is_parallel
        assert (row["gradient_error"] is not None) == is_compared
        assert is_parallel or (row["kind"], row["ranks"]) == ("measured", 1)
        assert not is_parallel or row["threads"] == 1
    classic = {row["method"] for row in rows if row["method"].startswith("classic")}
    has_torch = importlib.util.find_spec("torch") is not None
    assert len(classic) == 1
    assert ("torch.nn.GRU" in classic.pop()) == has_torch


def workers_of(rows, kind, begin):
    own = [row for row in rows if row["kind"] == kind and row["method"].startswith(begin)]
    return [(row["steps"], row["ranks"], row["threads"]) for row in own]


@pytest.mark.slow
def test_times_over_ranks(folder):
    rows = rows_of(folder, "ranks")
    assert workers_of(rows, "measured", "classic") == [(32, 1, n) for n in (1, 2, 3)]
    for name in ("implicit, parallel, published 2 + 1", "implicit, parallel, averaged 2 + 2"):
        assert workers_of(rows, "measured", name) == [(32, n, 1) for n in (1, 2, 3)]
        counts = (1, 2, 3, 4, 8, 16, 32)
        assert workers_of(rows, "predicted", name) == [(32, n, 1) for n in counts]


@pytest.mark.slow
def test_times_over_the_length(folder):
    rows = rows_of(folder, "length")
    assert workers_of(rows, "measured", "classic") == [
        (32, 1, 1), (32, 1, 3), (64, 1, 1), (64, 1, 3)
    ]  # fmt: skip
    assert workers_of(rows, "measured", "implicit, parallel") == [(32, 3, 1), (64, 3, 1)]
    assert workers_of(rows, "predicted", "implicit, parallel") == [(32, 32, 1), (64, 32, 1)]


def test_one_rank_has_a_measured_network():
    """Messages between two processes go into predictions, though one of them works alone."""
    program = (
        "from benchmarks import _paper_times as times\n"
        "inner = times.simulate\n"
        "def recorded(schedule, costs, **options):\n"
        "    print('...', costs.machine.name, flush=True)\n"
        "    return inner(schedule, costs, **options)\n"
        "times.simulate = recorded\n"
        "raise SystemExit(times.main())\n"
    )
    done = subprocess.run(
        [*mpiexec(2), sys.executable, "-c", program, "length",
         "--ranks", "1", "--lengths", "32", "--quick"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"... {platform.node() or 'this machine'}\n" in done.stdout
    assert "one process" not in done.stdout
    rows = json.loads(done.stdout.splitlines()[-1])
    assert {row["ranks"] for row in rows if row["kind"] == "measured"} == {1}


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["--epochs", "0"], {}, "--epochs: must be at least 1, got 0"),
        (["--ranks", "0"], {}, "--ranks: must be at least 1, got 0"),
        (["--seeds", "0", "-1"], {}, "--seeds: must be at least 0, got -1"),
        (["--lengths", "128", "0"], {}, "--lengths: must be at least 7, got 0"),
        (["--figures", "speed"], {}, "--figures: invalid choice: 'speed'"),
        (["--data-dir=a", "--features=b"], {}, "--data-dir is for UCI-HAR and --features for HMD"),
        (["--data-dir", "nowhere"], {}, "nowhere"),
        (["--features", "nowhere.h5"], {}, "nowhere.h5"),
        ([], {"PINT_DATA_DIR": "nowhere"}, "nowhere"),
        (["--quick"], {"MPIEXEC": "no-such-launcher"}, "no-such-launcher: not found"),
        (["--output", "setup.cfg"], {}, "setup.cfg"),
    ],
)
def test_arguments_are_checked_before_any_work(tmp_path, arguments, variables, message):
    done = run("--output", str(tmp_path), *arguments, **variables)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("paper.py: error: ")
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])


def parsed(monkeypatch, *arguments):
    monkeypatch.delenv("PINT_DATA_DIR", raising=False)
    monkeypatch.setattr(sys, "argv", ["paper", *arguments])
    return paper._parse()


@pytest.mark.parametrize(
    ("arguments", "is_full"),
    [
        (["--figures", "accuracy"], True),
        (["--ranks", "4"], True),
        (["--ranks", "3"], False),
        (["--quick"], False),
        (["--epochs", "2"], False),
        (["--seeds", "0"], False),
        (["--lengths", "128"], False),
    ],
)
def test_full_runs_keep_their_tables(monkeypatch, tmp_path, arguments, is_full):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setattr(_measure, "RESULTS", results)
    args = parsed(monkeypatch, "--output", str(tmp_path / "out"), *arguments)
    row = dict.fromkeys(COLUMNS["accuracy"], 1) | {"kind": "measured"}
    paper._finish("accuracy", [row], args)
    kept = [path.name for path in results.iterdir()]
    assert kept == (["paper_accuracy_digits.json"] if is_full else [])


def test_figures_that_were_done_stay(monkeypatch, tmp_path):
    def interrupted(figure, args):
        raise KeyboardInterrupt

    row = dict.fromkeys(COLUMNS["accuracy"], 1) | {"kind": "measured"}
    monkeypatch.setattr(paper, "_accuracy", lambda args: [row])
    monkeypatch.setattr(paper, "_times", interrupted)
    monkeypatch.setattr(sys, "argv", ["paper", "--quick", "--output", str(tmp_path)])
    assert paper.main() == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "accuracy.csv", "accuracy.json", "accuracy.png"
    ]  # fmt: skip


def test_quick_runs_hear_what_is_asked(monkeypatch, tmp_path):
    out = ("--output", str(tmp_path))
    args = parsed(monkeypatch, "--quick", "--epochs", "3", "--lengths", "64", "16", "64", *out)
    assert (args.epochs, args.seeds, args.lengths) == (3, [0], [16, 64])
    args = parsed(monkeypatch, *out)
    assert (args.epochs, args.seeds, args.lengths[-1]) == (15, [0, 1, 2], 32_768)


def test_lines_are_of_one_kind_and_named():
    row = {"method": "implicit, parallel", "steps": 32}
    rows = [row | {"kind": kind} for kind in ("measured", "predicted", "measured")]
    lines = _paper_figures._lines(rows, lambda row: "2 ranks")
    assert {name: len(own) for name, own in lines.items()} == {
        "measured: implicit, parallel, 2 ranks": 2, "predicted: implicit, parallel, 2 ranks": 1
    }  # fmt: skip
    styles = [
        _paper_figures._style([row | {"kind": k, "threads": 1}]) for k in ("measured", "predicted")
    ]
    assert [style["linestyle"] for style in styles] == ["-", "--"]
