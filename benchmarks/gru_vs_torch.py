"""pint's exact time stepping against torch.nn.GRU: one layer on the CPU, in single precision."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from pint import MGRIT, AdjointSolver, MGRITOptions, TimeGrid
from pint.parallel.thread_team import ThreadTeam
from pint.rnn.network import Network
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.simd.products import add_product, multiply
from pint.train.accuracy import exact_solver
from pint.train.optimizers import Adam

Array = NDArray[Any]
Run = Callable[[], Any]
Product = Callable[[Array, Array, Array], Any]
RESULTS = Path(__file__).parent / "results" / "gru_vs_torch.json"
NUM_CLASSES, LEARNING_RATE = 6, 1e-3
TURN = 0.02
"""Seconds that one side works before it is the other's turn."""


class Case(NamedTuple):
    """Length and number of sequences, width of the inputs and of the state."""

    T: int
    B: int
    inputs: int
    H: int


CASES = (
    Case(128, 100, 9, 100),
    Case(128, 100, 1000, 100),
    Case(1024, 1, 9, 64),
    Case(1024, 16, 9, 64),
)
FLOOR = CASES[0]
"""The case whose time is also compared with the time of its matrix products alone."""


def main() -> int:
    """Measure both sides in turn; print a table and, as the last line, JSON."""
    args = _parse()
    torch.set_num_threads(args.threads)
    numba.set_num_threads(args.threads)
    clock = {"wall": time.perf_counter, "process": time.process_time}[args.clock]
    with threadpool_limits(args.threads):
        outcome = _measure(args, clock)
    _print_table(outcome)
    if args.output:
        args.output.write_text(json.dumps({**outcome, "machine": _machine(args)}, indent=1) + "\n")
    print(json.dumps(outcome))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="of BLAS, Numba and torch alike")
    parser.add_argument("--repeats", type=int, default=21, help="turns of each side")
    parser.add_argument(
        "--clock",
        choices=("wall", "process"),
        default="wall",
        help="process: CPU time of all threads, for one thread on a busy machine",
    )
    parser.add_argument(
        "--training-step", action="store_true", help="also a whole training step of UCI-HAR's shape"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of results")
    return parser.parse_args()


def _measure(args: argparse.Namespace, clock: Callable[[], float]) -> dict[str, Any]:
    cases: list[dict[str, Any]] = []
    floor_ratios: list[float] = []
    for case in CASES:
        pint_runs, torch_runs = _pint_runs(case, args.threads), _torch_runs(case)
        forward = _medians([*pint_runs.forward, *torch_runs.forward], args.repeats, clock)
        floors = [
            _products(case, np.matmul, _by_blas), _products(case, multiply, _by_kernels)
        ]  # fmt: skip
        both = [*pint_runs.backward, *torch_runs.backward, *floors]
        backward = _medians(both, args.repeats, clock)
        row = {**case._asdict(), "threads": args.threads}
        for name, seconds in (("forward", forward), ("forward_backward", backward)):
            ours, theirs = min(seconds[:2]), min(seconds[2:4])
            row |= {name: theirs / ours, f"{name}_pint_ms": 1e3 * ours}
            row[f"{name}_torch_ms"] = 1e3 * theirs
        if case == FLOOR:
            floor_ratios = [min(backward[:2]) / seconds for seconds in backward[4:]]
        cases.append(row)
    names = "floor_ratio", "floor_ratio_own_products"
    outcome = {"cases": cases, **dict(zip(names, floor_ratios, strict=True)), "clock": args.clock}
    if args.training_step:
        ours, theirs = _medians(
            [_pint_training(args.threads), _torch_training()], args.repeats, clock
        )
        outcome["training_step"] = {
            "ratio": theirs / ours, "pint_ms": 1e3 * ours, "torch_ms": 1e3 * theirs
        }  # fmt: skip
    return outcome


def _medians(runs: list[Run], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Return the median time of each run; all take their turn, and the first round is for free.

    A turn is the number of calls that take `TURN` seconds, so that the contents of the caches
    before it do not count.
    """
    calls = [1] * len(runs)
    seconds: list[list[float]] = [[] for _ in runs]
    for round_ in range(-1, repeats + 1):
        for index, run in enumerate(runs):
            begin = clock()
            for _ in range(calls[index]):
                run()
            mean = (clock() - begin) / calls[index]
            if round_ == 0:  # everything is compiled
                calls[index] = max(1, round(TURN / mean))
            elif round_ > 0:
                seconds[index].append(mean)
    return [statistics.median(own) for own in seconds]


class Runs(NamedTuple):
    """Forward alone, and forward and backward, each for (T, B, F) and for (B, T, F) in memory."""

    forward: list[Run]
    backward: list[Run]


def _pint_runs(case: Case, threads: int = 1) -> Runs:
    """Return exact stepping, inputs bound in each run, and its adjoint from the last state."""
    options = RecurrenceOptions(num_features=case.inputs, hidden=case.H, cell="classic")
    model = Recurrence(options)
    model.team = ThreadTeam(threads)
    exact = MGRITOptions(levels=1)
    solver = MGRIT(model, TimeGrid.uniform(0.0, float(case.T), case.T), exact)
    adjoint = AdjointSolver(solver)
    start = np.zeros((1, case.B, case.H), dtype=np.float32)
    d_final = np.ones_like(start)

    def forward(x: Array) -> Any:
        model.set_inputs(x)
        return solver.solve(start)

    def backward(x: Array) -> None:
        model.recording = True
        result = forward(x)
        model.recording = False
        adjoint.solve(result, d_final)

    time_major, batch_major = _sequences(case)
    layouts = time_major.swapaxes(0, 1), batch_major  # a view of the first is as (B, T, F)
    return Runs(*([_bound(run, x) for x in layouts] for run in (forward, backward)))


def _torch_runs(case: Case) -> Runs:
    """Return torch's forward pass in inference mode, and both passes from the last state."""
    runs = Runs([], [])
    for batch_first, x in enumerate(map(torch.from_numpy, _sequences(case))):
        gru = torch.nn.GRU(case.inputs, case.H, batch_first=bool(batch_first))
        d_final = torch.ones(1, case.B, case.H)

        def forward(gru: torch.nn.GRU = gru, x: torch.Tensor = x) -> None:
            with torch.inference_mode():
                gru(x)

        def backward(
            gru: torch.nn.GRU = gru, x: torch.Tensor = x, d_final: torch.Tensor = d_final
        ) -> None:
            gru.zero_grad(set_to_none=True)
            gru(x)[1].backward(d_final)

        runs.forward.append(forward)
        runs.backward.append(backward)
    return runs


def _sequences(case: Case) -> tuple[Array, Array]:
    """Return the same sequences, contiguous as (T, B, F) and as (B, T, F)."""
    shape = case.T, case.B, case.inputs
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return x, np.ascontiguousarray(x.swapaxes(0, 1))


def _by_blas(a: Array, b: Array, out: Array) -> None:
    np.matmul(a.T, b, out=out)


def _by_kernels(a: Array, b: Array, out: Array) -> None:
    add_product(a, b, out, np.zeros((0, b.shape[1]), b.dtype))


def _products(case: Case, multiply: Product, multiply_transposed: Product) -> Run:
    """Return the matrix products of both passes, and nothing else, by BLAS or by pint's kernels.

    Products with W_ih, and of both gradients (a.T @ b), are one product each. Products with W_hh
    are T consecutive ones, forwards and backwards.
    """
    T, B, F, H = case
    rng = np.random.default_rng(0)
    x, h, d_gates = (rng.standard_normal((T * B, n), dtype=np.float32) for n in (F, H, 3 * H))
    W_ih, W_hh = (rng.standard_normal((3 * H, n), dtype=np.float32) for n in (F, H))
    W_ih_t, W_hh_t = (np.ascontiguousarray(W.T) for W in (W_ih, W_hh))
    gi, gh, out = np.empty_like(d_gates), np.empty_like(d_gates[:B]), np.empty_like(h[:B])
    d_W_ih, d_W_hh = np.empty_like(W_ih_t), np.empty_like(W_hh_t)

    def run() -> None:
        multiply(x, W_ih_t, gi)
        for i in range(T):
            multiply(h[i * B : (i + 1) * B], W_hh_t, gh)
        for i in range(T):
            multiply(d_gates[i * B : (i + 1) * B], W_hh, out)
        multiply_transposed(x, d_gates, d_W_ih)
        multiply_transposed(h, d_gates, d_W_hh)

    return run


TRAINING = Case(T=128, B=100, inputs=9, H=100)
LAYERS = 2


def _pint_training(threads: int) -> Run:
    """Return a step of training by exact stepping: both passes, and Adam's update."""
    options = RecurrenceOptions(
        num_features=TRAINING.inputs, hidden=TRAINING.H, layers=LAYERS, cell="classic"
    )
    model = Network(options, NUM_CLASSES)
    solver, optimizer = (
        exact_solver(model, TRAINING.T, threads=threads),
        Adam(learning_rate=LEARNING_RATE),
    )
    _, x = _sequences(TRAINING)
    y = np.arange(TRAINING.B) % NUM_CLASSES
    state = optimizer.init(model.parameters)

    def step() -> None:
        nonlocal state
        gradient = solver.loss_and_gradient(x, y).gradient
        change, state = optimizer.update(gradient, state, model.parameters)
        model.parameters += change

    return step


def _torch_training() -> Run:
    """Return the same step of torch.nn.GRU, Linear and Adam."""
    gru = torch.nn.GRU(TRAINING.inputs, TRAINING.H, LAYERS, batch_first=True)
    head = torch.nn.Linear(TRAINING.H, NUM_CLASSES)
    optimizer = torch.optim.Adam([*gru.parameters(), *head.parameters()], lr=LEARNING_RATE)
    x = torch.from_numpy(_sequences(TRAINING)[1])
    y = torch.arange(TRAINING.B) % NUM_CLASSES

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(head(gru(x)[1][-1]), y).backward()
        optimizer.step()

    return step


def _bound(run: Callable[[Array], Any], x: Array) -> Run:
    return lambda: run(x)


def _machine(args: argparse.Namespace) -> dict[str, Any]:
    names = [
        line.partition(":")[2].strip()
        for line in _lines("/proc/cpuinfo")
        if line.startswith("model name")
    ]
    packages = ("pint-mgrit", "numpy", "numba", "torch")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "repeats": args.repeats,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str:
    from pint import __version__

    return __version__ if package == "pint-mgrit" else version(package)


def _print_table(outcome: dict[str, Any]) -> None:
    table = Table(title="torch's time / pint's time (their milliseconds)")
    for heading in ("T", "B", "inputs", "H", "threads", "forward", "forward + backward"):
        table.add_column(heading, justify="right")
    for row in outcome["cases"]:
        shape = (str(row[name]) for name in ("T", "B", "inputs", "H", "threads"))
        table.add_row(*shape, _cell(row, "forward"), _cell(row, "forward_backward"))
    console = Console(width=110)
    console.print(table)
    console.print(
        f"{FLOOR}: {outcome['floor_ratio']:.2f} times its matrix products alone by BLAS, "
        f"{outcome['floor_ratio_own_products']:.2f} times those by pint"
    )
    if "training_step" in outcome:
        step = outcome["training_step"]
        console.print(
            f"training step: {step['ratio']:.2f} ({step['torch_ms']:.1f} / {step['pint_ms']:.1f})"
        )


def _cell(row: dict[str, Any], name: str) -> str:
    theirs, ours = row[f"{name}_torch_ms"], row[f"{name}_pint_ms"]
    return f"{row[name]:.2f} ({theirs:.1f} / {ours:.1f})"


if __name__ == "__main__":
    sys.exit(main())
