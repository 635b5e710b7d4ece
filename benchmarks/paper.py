"""The figures of the paper on GRUs: accuracy, time over ranks, and time over the length."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import _measure
from benchmarks._paper_figures import draw_accuracy, draw_length, draw_ranks

MGRIT = "--levels 3 --coarsening 4 --relax 0,1 --forward-iterations 2 --backward-iterations 2"
METHODS = {
    "classic, serial": "--cell classic --serial",
    "implicit, serial": "--serial",
    "implicit, parallel": MGRIT,
}
"""What is trained, and its options of apps.train."""

DATA = {
    "digits": "--hidden 64 --batch 25 --lr 1e-2",
    "har": "--hidden 100 --layers 2 --batch 100 --lr 1e-3",
    "hmdb51": "--hidden 100 --batch 100 --lr 1e-3",
}
"""Options of apps.train by data set; those of the paper are the last ones."""

LENGTHS = [128 << k for k in range(9)]

EPOCHS = {"digits": 15, "har": 25, "hmdb51": 25}


DRAW = {"accuracy": draw_accuracy, "ranks": draw_ranks, "length": draw_length}
"""The figures by name."""


def main() -> int:
    """Measure, write tables and draw figures; the last line is JSON."""
    args = _parse()
    args.output.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    timed = [name for name in args.figures if name != "accuracy"]
    if "accuracy" in args.figures:
        print(f"accuracy on {args.data}: {len(args.seeds)} seed(s), {args.epochs} epoch(s) each")
        _finish("accuracy", _accuracy(args), args)
    if timed:
        print(f"times on up to {args.ranks} rank(s), {_minutes(begin)} so far", flush=True)
        for name, rows in _times(timed, args).items():
            _finish(name, rows, args)
    print(f"done in {_minutes(begin)}")
    print(json.dumps({"output": str(args.output), "figures": args.figures}))
    return 0


def _finish(name: str, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print, write and draw what was measured."""
    _measure.print_table(name, [_shown(row) for row in rows])
    _write(args.output / name, rows, args)
    DRAW[name](args.output / f"{name}.png", rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--figures", nargs="+", choices=list(DRAW), default=list(DRAW), help="which of them")
    add("--output", type=Path, default=Path("runs/paper"), help="folder of tables and figures")
    add("--data-dir", help="folder of UCI-HAR; PINT_DATA_DIR if left out, and else the digits")
    add("--features", type=Path, help="file of apps.hmdb51: HMDB51 in place of the digits")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the weights and the batches")
    add("--epochs", type=int, help="passes through the data; 15 for digits, else 25")
    add("--ranks", type=int, default=_default_ranks(), help="greatest number of ranks")
    add("--lengths", type=int, nargs="+", default=LENGTHS, help="of sequences, at fixed ranks")
    add("--quick", action="store_true", help="one epoch, one seed, tiny problems: does it work?")
    args = parser.parse_args()
    if args.ranks < 1:
        parser.error(f"--ranks must be at least 1, got {args.ranks}")
    if args.data_dir is not None and args.features is not None:
        parser.error("--data-dir is for UCI-HAR and --features for HMDB51: give one of them")
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("figures need matplotlib: pip install 'pint-mgrit[report]'")
    args.data_dir = args.data_dir or os.environ.get("PINT_DATA_DIR")
    args.data = "hmdb51" if args.features else "har" if args.data_dir else "digits"
    args.epochs = args.epochs or EPOCHS[args.data]
    if args.quick:
        args.data, args.epochs, args.seeds = "digits", 1, args.seeds[:1]
        args.lengths = [32, 64]
    return args


def _default_ranks() -> int:
    """Return the greatest power of two that is no more than the cores."""
    return 1 << ((os.cpu_count() or 1).bit_length() - 1)


def _accuracy(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train each method with each seed; return a row for each."""
    told, rows = _measure.machine(), []
    for seed in args.seeds:
        for method, options in METHODS.items():
            print(f"--- {method}, seed {seed}", flush=True)
            ranks = args.ranks if "--serial" not in options else 1
            result = _train(options.split(), ranks, seed, args)
            row = {
                "method": method,
                "kind": "measured",
                "machine": f"{told['processor']}, {told['cores']} cores",
                "ranks": ranks,
                "threads": 1,
                "data": args.data,
                "seed": seed,
                "epochs": args.epochs,
                "exact_test_accuracy": result["exact_test_accuracy"],
                "parallel_test_accuracy": result["parallel_test_accuracy"],
                "seconds_per_epoch": result["seconds_per_epoch"],
            }
            rows.append(row)
    return rows


def _train(options: list[str], ranks: int, seed: int, args: argparse.Namespace) -> Any:
    """Run apps.train; return its JSON line."""
    where = {
        "digits": [],
        "har": ["--data-dir", str(args.data_dir)],
        "hmdb51": ["--features", str(args.features)],
    }[args.data]
    if args.quick:
        options = [*options, "--hidden", "4", "--batch", "500"]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *([] if ranks == 1 else _measure.on_ranks(ranks)),
            *(sys.executable, "-u", "-m", "apps.train", "--data", args.data, *where),
            *DATA[args.data].split(), *options,
            *("--epochs", str(args.epochs), "--seed", str(seed)),
            *("--json", "--output", str(Path(folder) / "run.h5")),
        ]  # fmt: skip
        return _measure.last_json(command, _measure.rank_environment())


def _times(figures: list[str], args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Time training steps on all ranks; return rows over ranks, and over the length."""
    command = [
        *_measure.on_ranks(args.ranks),
        *(sys.executable, "-u", "-m", "mpi4py", "-m", "benchmarks._paper_times", *figures),
        *("--lengths", *map(str, args.lengths)),
        *(["--quick"] if args.quick else []),
    ]
    found: dict[str, list[dict[str, Any]]] = _measure.last_json(
        command, _measure.rank_environment(), shown="..."
    )
    return found


def _write(stem: Path, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Write a table as JSON, with machine, versions and command, and as CSV."""
    record = {
        "machine": _measure.machine(),
        "versions": _measure.versions((*_measure.PACKAGES, "torch")),
        "command": " ".join(["python -m benchmarks.paper", *sys.argv[1:]]),
        "rows": rows,
    }
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it is printed: without what is the same in all."""
    return {name: value for name, value in row.items() if name not in ("machine", "data")}


def _minutes(begin: float) -> str:
    return f"{(time.perf_counter() - begin) / 60:.1f} minutes"


if __name__ == "__main__":
    sys.exit(main())
