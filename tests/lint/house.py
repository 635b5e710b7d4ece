"""Check the house: unique names, few loose files, no circle of imports, one version.

`python -m tests.lint.house` reads `pint/`. The layers are a contract of import-linter, in
pyproject.toml; circles are looked for here too, because its contract on siblings does not see
those that lead through the `__init__.py` of a package.
"""

import ast
import configparser
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "pint").rglob("*.py"))
REPEATABLE = {"__init__", "solver", "propagator"}
MOST_LOOSE_FILES = 11
MOST_LINES = 27_400  # the limit only shrinks, towards 22,500


def repeated_files() -> Iterator[str]:
    """Yield each file name that stands twice."""
    places = defaultdict(list)
    for path in FILES:
        if path.stem not in REPEATABLE:
            places[path.name].append(path.relative_to(ROOT).as_posix())
    for name, found in places.items():
        if len(found) > 1:
            yield f"file name {name} stands twice: {', '.join(found)}"


def repeated_classes() -> Iterator[str]:
    """Yield each class name that stands twice."""
    places = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT).as_posix()}:{node.lineno}")
    for name, found in places.items():
        if len(found) > 1:
            yield f"class name {name} stands twice: {', '.join(found)}"


def size() -> Iterator[str]:
    """Yield what is too large: the number of loose files, the number of lines."""
    loose = [path.name for path in FILES if path.parent == ROOT / "pint"]
    if len(loose) > MOST_LOOSE_FILES:
        yield f"{len(loose)} loose files in pint, at most {MOST_LOOSE_FILES}: {', '.join(loose)}"
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in FILES)
    if lines > MOST_LINES:
        yield f"pint has {lines} lines, at most {MOST_LINES}"


def circles() -> Iterator[str]:
    """Yield a circle of imports, those in functions and for type checkers included."""
    graph = grimp.build_graph("pint", exclude_type_checking_imports=False, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        yield f"circle of imports: {' <- '.join(error.args[1])}"


def versions() -> Iterator[str]:
    """Yield pages whose version differs from the one in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    version = setup["metadata"]["version"]
    for page, line in {
        "CITATION.cff": f"version: {version}",
        "CHANGELOG.md": f"## [{version}]",
    }.items():
        if f"\n{line}" not in (ROOT / page).read_text(encoding="utf-8"):
            yield f"{page} has no line {line!r}, the version of setup.cfg"


def main() -> int:
    """Print every problem; return 1 when there is one."""
    checks = (repeated_files, repeated_classes, size, circles, versions)
    problems = [problem for check in checks for problem in check()]
    print("\n".join(problems), end="\n" if problems else "")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
