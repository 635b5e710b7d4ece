"""Check that functions stay below the limits of size, up to the exceptions listed here.

`python -m tests.lint.limits` runs ruff's C901 (complexity), PLR0913 (arguments) and PLR0915
(statements), with the numbers of pyproject.toml, on the whole project.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_EXCEPTIONS = 25

OWN = "names every option of a public call, as SciPy and torch do"
KERNEL = "a compiled kernel: arrays are separate arguments, and one loop is one pass over memory"

# "file::function": the reason, for the function and all inside it. The list only shrinks.
EXCEPTIONS: dict[str, str] = {
    "pint/adjoint/solver.py::AdjointSolver.solve": OWN,
    "pint/check.py::_Check.level": "one line for each method of a model",
    "pint/drivers/operations.py::compile_program": KERNEL,
    "pint/drivers/operations.py::_work": KERNEL,
    "pint/drivers/operations.py::plain_operations": KERNEL,
    "pint/mgrit/solver.py::MGRIT.solve": OWN,
    "pint/options.py::MGRITOptions.__post_init__": "one line for each rule of the options",
    "pint/rnn/kernels.py::_backward": KERNEL,
    "pint/rnn/kernels.py::_forward": KERNEL,
    "pint/rnn/kernels.py::_gru_point": KERNEL,
    "pint/rnn/kernels.py::_lstm_point": KERNEL,
    "pint/rnn/layer_solver.py::LayerSolver.__init__": "takes what NetworkSolver was given",
    "pint/rnn/solver.py::NetworkSolver.__init__": OWN,
    "pint/scaling/samples.py::WorkSamples.watch_driver": "one line for each operation",
    "pint/scaling/simulate.py::_run": KERNEL,
    "pint/torch.py::_Layers.__init__": "takes the arguments of torch.nn.GRU",
    "pint/train/trainer.py::Trainer.__init__": OWN,
    "pint/windows.py::solve_in_windows": OWN,
    "tests/engine_models.py::naive_mgrit": "a second MGRIT on one page, to compare with",
}


def function_at(path: Path, line: int) -> str:
    """Return the qualified name of the function whose `def` is in a line."""

    def search(node: ast.AST, names: tuple[str, ...]) -> str | None:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            inner = (*names, child.name) if named else names
            if named and child.lineno == line:
                return ".".join(inner)
            if found := search(child, inner):
                return found
        return None

    return search(ast.parse(path.read_text(encoding="utf-8")), ()) or f"line {line}"


def exceeded() -> dict[str, list[str]]:
    """Return the messages of ruff for each function above a limit, under its name."""
    rules = "C901,PLR0913,PLR0915"
    command = [Path(sys.executable).with_name("ruff"), "check", "--select", rules]
    command += ["--ignore-noqa", "--exit-zero", "--output-format", "json", "."]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    above: dict[str, list[str]] = {}
    for found in json.loads(report.stdout):
        path = Path(found["filename"])
        name = function_at(path, found["location"]["row"])
        key = f"{path.resolve().relative_to(ROOT).as_posix()}::{name}"
        above.setdefault(key, []).append(f"{found['code']} {found['message']}")
    return above


def entry_of(key: str) -> str | None:
    """Return the exception of a function, or of a function around it."""
    found = [entry for entry in EXCEPTIONS if key == entry or key.startswith(f"{entry}.")]
    return found[0] if found else None


def main() -> int:
    """Print functions above a limit that are not listed, and exceptions without a use."""
    above = exceeded()
    entries = {key: entry_of(key) for key in above}
    problems = [f"{key}: {'; '.join(above[key])}" for key in sorted(above) if not entries[key]]
    unused = sorted(EXCEPTIONS.keys() - entries.values())
    problems += [f"{key}: is within the limits: remove its exception" for key in unused]
    if len(EXCEPTIONS) > MOST_EXCEPTIONS:
        problems.append(f"{len(EXCEPTIONS)} exceptions: at most {MOST_EXCEPTIONS} are allowed")
    problems += [f"{key}: give a reason" for key, reason in EXCEPTIONS.items() if not reason]
    print("\n".join(problems), end="\n" if problems else "")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
