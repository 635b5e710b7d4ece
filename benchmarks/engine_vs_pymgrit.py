"""The engine against pyMGRIT in an environment of its own; equal numbers of cycles, in turn."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._cases import Case, heat, scalar
from benchmarks._measure import in_new_process, print_table, save
from pint import MGRIT, MGRITOptions, TimeGrid

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / "build" / "pymgrit"
REQUIREMENTS = ("numpy<2", "pymgrit>=1.0.6,<2", "mpich>=5.0,<6")
CASES = ("dahlquist", "heat129")


def main() -> int:
    """Measure A B A B, print a table and, as the last line, JSON with ratios of medians."""
    args = _parse()
    if args.ours:
        print(json.dumps(_ours(args.ours[0], int(args.ours[1]))))
        return 0
    python = _environment()
    rows = [_compare(name, python, args.rounds) for name in CASES]
    setup = in_new_process("benchmarks.engine_vs_pymgrit", "--ours", "setup", "1")["setup"]
    ratios = {f"{row['case']}_{kind}_ratio": row[f"{kind}_ratio"] for row in rows
              for kind in ("solve", "setup")} | {"setup_1e5_seconds": setup}  # fmt: skip
    print_table("Medians of runs in turn, seconds", rows)
    command = "python -m benchmarks.engine_vs_pymgrit"
    save("engine_vs_pymgrit", {"command": command, "ratios": ratios, "rows": rows})
    print(json.dumps(ratios))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="runs of each, in turn; %(default)s if left out"
    )
    parser.add_argument("--ours", nargs=2, metavar=("CASE", "CYCLES"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _environment() -> str:
    """Return the Python of the environment, made if it is missing."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        print(f"installing pyMGRIT into {ENVIRONMENT}", file=sys.stderr)
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        subprocess.run(pip, check=True)
    return str(python)


def _compare(name: str, python: str, rounds: int) -> dict[str, Any]:
    """Run both in turn, each time in a new process."""
    theirs, ours = [], []
    for _ in range(rounds):
        command = [python, str(Path(__file__).with_name("_pymgrit_worker.py")), name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        theirs.append(json.loads(done.stdout.splitlines()[-1]))
        # Nested iteration comes before their first cycle, and is the first one of ours.
        cycles = str(theirs[0]["iterations"] + 1)
        ours.append(in_new_process("benchmarks.engine_vs_pymgrit", "--ours", name, cycles))
    row: dict[str, Any] = {"case": name, "cycles": theirs[0]["iterations"]}
    for kind in ("setup", "solve"):
        pair = [statistics.median(run[kind] for run in runs) for runs in (theirs, ours)]
        row[f"pymgrit_{kind}_seconds"], row[f"pint_{kind}_seconds"] = pair
        row[f"{kind}_ratio"] = pair[0] / pair[1]
    last = [np.array(runs[0]["last"]) for runs in (theirs, ours)]
    row["difference_at_end"] = float(np.abs(last[0] - last[1]).max())
    return row


def _ours(name: str, cycles: int) -> dict[str, Any]:
    """Set up and solve with pint; compiling, or loading what was compiled, is not counted."""
    case = _case(name)
    begin = time.perf_counter()
    grid = TimeGrid(case.grid.times)
    options = MGRITOptions(**{**case.options, "tolerance": None, "max_iterations": cycles})

    solver = MGRIT(case.make("compiled"), grid, options)
    setup = time.perf_counter() - begin - solver.compile_seconds
    result = solver.solve(case.initial_value)
    last = np.atleast_1d(result.u[-1])
    inner = last if last.size == 1 else last[1:-1]
    return {"setup": setup, "solve": result.seconds, "last": inner.tolist()}


def _case(name: str) -> Case:
    if name == "heat129":
        return heat(129)
    return scalar(4, 5, 100_000 if name == "setup" else 10_000)


if __name__ == "__main__":
    sys.exit(main())
