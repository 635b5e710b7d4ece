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

# "file::function": the reason. The list only shrinks.
EXCEPTIONS: dict[str, str] = {}


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


def main() -> int:
    """Print what is above a limit and not listed, and entries that are not needed."""
    above = exceeded()
    problems = [f"{key}: {'; '.join(above[key])}" for key in sorted(above.keys() - EXCEPTIONS)]
    unused = sorted(EXCEPTIONS.keys() - above)
    problems += [f"{key}: is within the limits: remove its exception" for key in unused]
    if len(EXCEPTIONS) > MOST_EXCEPTIONS:
        problems.append(f"{len(EXCEPTIONS)} exceptions: at most {MOST_EXCEPTIONS} are allowed")
    problems += [f"{key}: give a reason" for key, reason in EXCEPTIONS.items() if not reason]
    print("\n".join(problems), end="\n" if problems else "")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
