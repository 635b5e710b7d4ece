"""The figures of the paper: a run of tiny problems writes all tables and figures."""

import csv
import importlib.util
import json
import subprocess
import sys

import pytest

from tests.launcher import ROOT, environment, mpiexec

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

COMMON = {"method", "kind", "machine", "ranks", "threads"}
TIMES = {"steps", "batch", "features", "hidden", "forward", "backward", "seconds", "gradient_error"}
ACCURACY = {"data", "seed", "epochs", "exact_test_accuracy", "parallel_test_accuracy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a quick run on 2 ranks; on its way it must not ask for data."""
    output = tmp_path_factory.mktemp("paper")
    *launcher, _, _ = mpiexec(2)
    variables = {name: x for name, x in environment().items() if name != "PINT_DATA_DIR"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.paper", "--quick", "--ranks=2", f"--output={output}"],
        cwd=ROOT,
        env=variables | {"MPIEXEC": " ".join(launcher)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["output"] == str(output)
    return output


def rows_of(folder, name):
    record = json.loads((folder / f"{name}.json").read_text())
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["numpy"]
    with (folder / f"{name}.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [set(row) for row in table] == [set(row) for row in record["rows"]]
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return record["rows"]


def test_accuracy(folder):
    rows = rows_of(folder, "accuracy")
    assert all(row.keys() >= COMMON | ACCURACY for row in rows)
    assert {(row["method"], row["ranks"]) for row in rows} == {
        ("classic, serial", 1), ("implicit, serial", 1), ("implicit, parallel", 2)
    }  # fmt: skip
    assert all(0 < row["exact_test_accuracy"] <= 1 for row in rows)


@pytest.mark.parametrize("name", ["ranks", "length"])
def test_times(folder, name):
    rows = rows_of(folder, name)
    assert all(row.keys() >= COMMON | TIMES for row in rows)
    for row in rows:
        assert row["forward"] > 0
        assert row["backward"] > 0
        assert row["seconds"] == pytest.approx(row["forward"] + row["backward"])
        is_compared = row["kind"] == "measured" and row["method"].startswith("implicit, parallel")
        assert (row["gradient_error"] is not None) == is_compared
    measured = {row["ranks"] for row in rows if row["kind"] == "measured"}
    predicted = {row["ranks"] for row in rows if row["kind"] == "predicted"}
    assert (measured, max(predicted)) == ({1, 2}, 32)
    classic = {row["method"] for row in rows if row["method"].startswith("classic")}
    has_torch = importlib.util.find_spec("torch") is not None
    assert len(classic) == 1
    assert ("torch.nn.GRU" in classic.pop()) == has_torch
