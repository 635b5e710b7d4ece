"""The figures of the paper on GRUs: accuracy, time over ranks, and time over the length."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import _measure
from benchmarks._paper_figures import draw_accuracy, draw_length, draw_ranks
from pint.cli.arguments import at_least
from pint.data.digits import load_digits
from pint.data.har import load_har
from pint.data.hmdb51 import load_features

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
"""Options of apps.train by data set; the options of the paper are the last ones."""

EPOCHS = {"digits": 15, "har": 25, "hmdb51": 25}
SEEDS = [0, 1, 2]
LENGTHS = [128 << k for k in range(9)]
SHORTEST = 7
"""Steps that have a second level."""

DRAW = {"accuracy": draw_accuracy, "ranks": draw_ranks, "length": draw_length}
"""The figures by name."""


def main() -> int:
    """Measure, write tables and draw figures; the last line is JSON."""
    args = _parse()
    begin = time.perf_counter()
    try:
        for count, name in enumerate(args.figures, 1):
            print(
                f"figure {count} of {len(args.figures)}: {name}, {_minutes(begin)} so far",
                flush=True,
            )
            rows = _accuracy(args) if name == "accuracy" else _times(name, args)
            _finish(name, rows, args)
    except KeyboardInterrupt:
        print(f"interrupted: figures that were done are in {args.output}", file=sys.stderr)
        return 130
    print(f"done in {_minutes(begin)}")
    print(json.dumps({"output": str(args.output), "figures": args.figures}))
    return 0


def _finish(name: str, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print, write and draw what was measured."""
    _measure.print_table(name, [_shown(row) for row in rows])
    stem = args.output / name
    kept = [stem.with_suffix(".json")]
    if args.is_full:
        kept.append(_measure.RESULTS / f"paper_{_result(name, args.data)}.json")
    command = " ".join(["python -m benchmarks.paper", *sys.argv[1:]])
    for path in kept:
        packages = (*_measure.PACKAGES, "torch")
        _measure.write(path, {"command": command, "rows": rows}, packages)
    _write_csv(stem.with_suffix(".csv"), rows)
    DRAW[name](stem.with_suffix(".png"), rows)
    print(f"{stem}.png and .csv; {', '.join(map(str, kept))}", flush=True)


def _result(name: str, data: str) -> str:
    """Return the ending that distinguishes kept tables: accuracies by their data."""
    return f"{name}_{data}" if name == "accuracy" else name


def _parse() -> argparse.Namespace:
    """Return the arguments, all checked."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--figures", nargs="+", choices=list(DRAW), default=list(DRAW), help="all if left out")
    add("--output", type=Path, default=Path("runs/paper"),
        help="folder of tables and figures; %(default)s if left out. Runs on all cores without "
        "the last four options also write tables to benchmarks/results")  # fmt: skip
    add("--data-dir", help="folder of UCI-HAR; PINT_DATA_DIR if left out, and else the digits")
    add("--features", type=Path, help="file of apps.hmdb51: HMDB51 in place of the digits")
    add("--ranks", type=at_least(1), default=os.cpu_count() or 1, metavar="N",
        help="greatest number of ranks; as many as cores, %(default)s, if left out")  # fmt: skip
    add("--seeds", type=at_least(0), nargs="+", metavar="N",
        help=f"of the weights and the batches; {_listed(SEEDS)} if left out")  # fmt: skip
    add("--epochs", type=at_least(1), metavar="N",
        help="passes through the data; 15 for digits, else 25, if left out")  # fmt: skip
    add("--lengths", type=at_least(SHORTEST), nargs="+", metavar="N",
        help=f"of sequences; {_listed(LENGTHS)} if left out")  # fmt: skip
    add("--quick", action="store_true",
        help="tiny problems, one epoch, one seed, no PINT_DATA_DIR: does it work?")  # fmt: skip
    args = parser.parse_args()
    if args.data_dir is not None and args.features is not None:
        parser.error("--data-dir is for UCI-HAR and --features for HMDB51: give one of them")
    _complete(args)
    try:
        _check(args)
    except (ImportError, OSError, ValueError, SystemExit) as error:
        parser.error(str(error))
    return args


def _listed(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


def _complete(args: argparse.Namespace) -> None:
    """Put in what was left out."""
    is_part = args.quick or args.seeds or args.epochs or args.lengths
    args.is_full = not is_part and args.ranks >= (os.cpu_count() or 1)
    if not args.quick and args.features is None:
        args.data_dir = args.data_dir or os.environ.get("PINT_DATA_DIR")
    args.data = "hmdb51" if args.features else "har" if args.data_dir else "digits"
    args.epochs = args.epochs or (1 if args.quick else EPOCHS[args.data])
    args.seeds = list(dict.fromkeys(args.seeds or (SEEDS[:1] if args.quick else SEEDS)))
    args.lengths = sorted(set(args.lengths or ([32, 64] if args.quick else LENGTHS)))
    args.figures = list(dict.fromkeys(args.figures))


def _check(args: argparse.Namespace) -> None:
    """Find out now what would stop the run later.

    Raises
    ------
    ImportError, OSError, ValueError
        If a package is missing, a folder cannot be made, or data cannot be read.
    """
    needed = [("matplotlib", "report")]
    if args.ranks > 1 or args.figures != ["accuracy"]:
        needed.append(("mpi4py", "mpi"))
        launcher = _measure.on_ranks(2)[0]
        if shutil.which(launcher) is None:
            raise FileNotFoundError(f"{launcher}: not found; MPIEXEC names what starts ranks")
    for module, extra in needed:
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"{module} is missing: pip install 'pint-mgrit[{extra}]'")
    args.output.mkdir(parents=True, exist_ok=True)
    if "accuracy" in args.figures:
        load = {"digits": load_digits, "har": load_har, "hmdb51": load_features}[args.data]
        load(*filter(None, (args.data_dir, args.features)))


def _accuracy(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train each method with each seed; return a row for each."""
    facts, rows = _measure.machine(), []
    runs = [(seed, *method) for seed in args.seeds for method in METHODS.items()]
    for count, (seed, method, options) in enumerate(runs, 1):
        ranks = args.ranks if "--serial" not in options else 1
        print(
            f"training {count} of {len(runs)}: {method}, {args.data}, seed {seed}, "
            f"{args.epochs} epoch(s), {ranks} rank(s)",
            flush=True,
        )
        result = _train(options.split(), ranks, seed, args)
        row = {
            "method": method,
            "kind": "measured",
            "machine": f"{facts['processor']}, {facts['cores']} cores",
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


def _times(figure: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time training steps; return the rows of a figure.

    Two processes at least, since one cannot measure messages.
    """
    command = [
        *_measure.on_ranks(max(args.ranks, 2)),
        *(sys.executable, "-u", "-m", "mpi4py", "-m", "benchmarks._paper_times", figure),
        *("--ranks", str(args.ranks), "--lengths", *map(str, args.lengths)),
        *(["--quick"] if args.quick else []),
    ]
    rows: list[dict[str, Any]] = _measure.last_json(
        command, _measure.rank_environment(), shown="..."
    )
    return rows


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
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
