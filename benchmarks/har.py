"""UCI-HAR: exact and parallel test accuracy of serial, midpoint and published training."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COMMON = "--data har --hidden 100 --layers 2 --batch 100 --lr 1e-3 --schedule constant --clip none"
MGRIT = "--levels 3 --coarsening 4 --relax 0,1"
CASES = {
    "serial": (1, "--serial"),
    "midpoint, 2+2": (
        2,
        f"{MGRIT} --substep 8 --forward-iterations 2 --backward-iterations 2",
    ),
    "midpoint of at most 4 steps, 2+2": (
        2,
        f"{MGRIT} --substep 4 --forward-iterations 2 --backward-iterations 2",
    ),
    "implicit, 2+1 (published)": (
        2,
        f"{MGRIT} --coarse-step implicit --forward-iterations 2 --backward-iterations 1",
    ),
}


def main() -> int:
    """Train each case in turn; print a table and, as the last line, JSON."""
    args = _parse()
    cases = {name: CASES[name] for name in args.cases} if args.cases else CASES
    rows = {name: _train(name, *case, args) for name, case in cases.items()}
    _print_table(rows, args)
    print(json.dumps([{"case": name, **row} for name, row in rows.items()]))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder of UCI-HAR")
    parser.add_argument("--epochs", type=int, default=25, help="passes through the data")
    parser.add_argument("--seed", type=int, default=0, help="seed of parameters and batches")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="all if left out")
    parser.add_argument("--mpiexec", default=os.environ.get("MPIEXEC", "mpiexec"))
    return parser.parse_args()


def _train(name: str, ranks: int, options: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run the driver; pass its progress on; return its JSON line."""
    print(f"--- {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *([] if ranks == 1 else [*shlex.split(args.mpiexec), "-n", str(ranks)]),
            *(sys.executable, "-u", "-m", "apps.train", *COMMON.split(), *options.split()),
            *("--data-dir", args.data_dir, "--epochs", str(args.epochs), "--seed", str(args.seed)),
            *("--json", "--output", str(Path(folder) / "run.h5")),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        last = ""
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                last = line
                if line.startswith("epoch"):
                    print(line, end="", flush=True)
        if process.returncode != 0:
            raise SystemExit(f"{shlex.join(command)} failed")
    row: dict[str, Any] = json.loads(last)
    del row["output"]
    return row


def _print_table(rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    table = Table(title=f"UCI-HAR, {args.epochs} epochs, seed {args.seed}: test accuracy")
    for heading in ("training", "ranks", "exact", "parallel", "s/epoch"):
        table.add_column(heading, justify="left" if heading == "training" else "right")
    for name, row in rows.items():
        accuracies = (f"{row[f'{kind}_test_accuracy']:.1%}" for kind in ("exact", "parallel"))
        table.add_row(name, str(row["ranks"]), *accuracies, f"{row['seconds_per_epoch']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
