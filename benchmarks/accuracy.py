"""UCI-HAR: test accuracy of classic, implicit and parallel implicit training, over seeds."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._measure import last_json, on_ranks, rank_environment, save

COMMON = "--data har --hidden 100 --layers 2 --batch 100 --lr 1e-3"
MGRIT = "--levels 3 --coarsening 4 --relax 0,1 --forward-iterations 2 --backward-iterations"
CASES = {
    "classic, serial": (1, "--cell classic --serial"),
    "implicit, serial": (1, "--serial"),
    "averaged 2+2, 2 ranks": (2, f"{MGRIT} 2"),
    "midpoint 2+2, 2 ranks": (2, f"{MGRIT} 2 --coarse-step midpoint"),
    "averaged 2+2, 4 ranks": (4, f"{MGRIT} 2"),
    "averaged 2+2, 8 ranks": (8, f"{MGRIT} 2"),
    "adaptive, 2 ranks": (2, f"{MGRIT} 2 --accuracy adaptive"),
    "published 2+1, 2 ranks": (2, f"{MGRIT} 1 --coarse-step implicit"),
}
REFERENCE = "implicit, serial"


def main() -> int:
    """Train each case with each seed; print a table and, as the last line, JSON.

    What is known is saved after every run, so that a later one that fails takes nothing with it.
    """
    args = _parse()
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for seed in args.seeds:
        for name in args.cases:
            row = {"case": name, "seed": seed, "epochs": args.epochs, **_train(name, seed, args)}
            rows.append(row)
            result = {"cases": _summaries(rows), "runs": rows}
            save("accuracy", result)
    _print_table(result["cases"], args)
    print(json.dumps(result))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    known = os.environ.get("PINT_DATA_DIR")
    text = "folder of UCI-HAR; PINT_DATA_DIR if left out"
    parser.add_argument("--data-dir", default=known, required=known is None, help=text)
    parser.add_argument("--epochs", type=int, default=25, help="passes through the data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of all choices")
    rates = "of learning rates"
    parser.add_argument("--schedule", choices=("cosine", "constant"), default="cosine", help=rates)
    names = list(CASES)
    cases = f"quote them: {', '.join(map(repr, names))}"
    parser.add_argument(
        "--cases", nargs="+", choices=names, default=names, metavar="CASE", help=cases
    )
    return parser.parse_args()


def _train(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run the driver; pass its progress on; return its JSON line and what it measured."""
    ranks, options = CASES[name]
    print(f"--- {name}, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *([] if ranks == 1 else on_ranks(ranks)),
            *(sys.executable, "-u", "-m", "apps.train", *COMMON.split(), *options.split()),
            *("--data-dir", args.data_dir, "--epochs", str(args.epochs), "--seed", str(seed)),
            *("--schedule", args.schedule, "--json", "--output", str(Path(folder) / "run.h5")),
        ]
        row = last_json(command, rank_environment())
    del row["output"], row["ranks"]
    return row


def _summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each case that has been trained."""
    return [_summary(name, rows) for name in dict.fromkeys(row["case"] for row in rows)]


def _summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the seeds, and differences to exact serial training with the same seed."""
    own = [row for row in rows if row["case"] == name]
    serial = {row["seed"]: row["exact_test_accuracy"] for row in rows if row["case"] == REFERENCE}
    exact = [row["exact_test_accuracy"] for row in own]
    inference = [row["parallel_test_accuracy"] - row["exact_test_accuracy"] for row in own]
    gaps = [
        row["exact_test_accuracy"] - serial[row["seed"]] for row in own if row["seed"] in serial
    ]
    return {
        "case": name,
        "ranks": CASES[name][0],
        "exact_test_accuracy": float(np.mean(exact)),
        "spread": float(np.ptp(exact)),
        "minus_serial": float(np.mean(gaps)) if gaps else None,
        "worst_minus_serial": float(max(gaps, key=abs)) if gaps else None,
        "worst_parallel_minus_exact": float(max(inference, key=abs)),
        "seconds_per_epoch": float(np.median([row["seconds_per_epoch"] for row in own])),
    }


def _print_table(summary: list[dict[str, Any]], args: argparse.Namespace) -> None:
    table = Table(title=f"UCI-HAR, {args.epochs} epochs, seeds {args.seeds}: test accuracy in %")
    for heading in summary[0]:
        table.add_column(heading.replace("_", " "), justify="right")
    for row in summary:
        numbers = [100 * v if isinstance(v, float) else v for v in list(row.values())[2:-1]]
        shown = ["-" if v is None else f"{v:.1f}" for v in numbers]
        table.add_row(row["case"], str(row["ranks"]), *shown, f"{row['seconds_per_epoch']:.2f}")
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
