"""Check comments, strings and pages for words that are no plain English, and name better ones.

`python -m tests.lint.words [PATH ...]` checks the files and folders given, or the whole project.
Code in backquotes is left alone; a word of ALLOWED stands in the places listed there.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = ["pint", "apps", "benchmarks", "tests", "docs", "README.md", "CONTRIBUTING.md"]
PLACES += ["CHANGELOG.md", "Makefile", "pyproject.toml", "setup.cfg", "constraints.txt"]

# A pattern of whole words, and what to write instead.
REPLACEMENTS = {
    "hears?|heard|hearing": "receive, get, is called with",
    "tells?|told|telling": "report, pass, state, show, distinguish",
    "knows?|knew|knowing": "have, store, hold, or the noun: is known, knowledge",
    "nobody|no one|somebody|someone|everybody|everyone|anybody|anyone": "name the subject",
    "anew": "again",
    "(?:so|as) (?:many|much)": "the number of ..., one per ..., n",
    "(?:those|that) of": "repeat the noun: the gradient of, the values of",
    "who|whom": "which, that, or name the subject",
    "what (?:is|are|was|were) to": "the noun: the loss, the target, the remaining steps",
    "the same(?=[.,;:)])": "repeat the noun after it: the same value",
    "thereof|wherein|therein|hereby|thereby|whereby|thereupon|whereupon": "a plain conjunction",
}
FORBIDDEN = {
    re.compile(
        rf"(?<![\w'-])(?:{words})(?![\w'-])".replace(" ", r"[\s#]+"), re.IGNORECASE | re.MULTILINE
    ): instead
    for words, instead in REPLACEMENTS.items()
}

# Phrases that stay, each for its reason.
ALLOWED = {
    # A comparison of two amounts has no shorter form.
    "as many as",
    "as much as",
}

# This file, and its test, name the words.
EXEMPT = {"tests/lint/words.py", "tests/test_lint.py"}


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the word and its replacement for each forbidden word of a text."""
    hidden = re.sub(r"`[^`\n]*`", lambda code: " " * len(code[0]), text)
    for phrase in ALLOWED:
        hidden = re.sub(rf"\b{phrase}\b", "_" * len(phrase), hidden, flags=re.IGNORECASE)
    for pattern, instead in FORBIDDEN.items():
        for found in pattern.finditer(hidden):
            yield text.count("\n", 0, found.start()) + 1, found[0], instead


def english(path: Path) -> str:
    """Return the words of a file, each in its line: of Python, comments and strings only."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return source
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    lines = [""] * (source.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            text = token.string
            if token.type == tokenize.STRING and "f" in text[: text.index(text[-1])].lower():
                text = re.sub(
                    r"\{[^{}]*\}", "", text
                )  # before Python 3.12 the code is in the token
            for offset, line in enumerate(text.split("\n")):
                lines[token.start[0] - 1 + offset] += " " + line
    return "\n".join(lines)


def files(places: list[Path]) -> Iterator[Path]:
    """Yield the files to check under files and folders."""
    for place in places:
        found = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in found:
            inside = path.resolve().relative_to(ROOT).as_posix()
            wanted = path.suffix in {".py", ".md"} or not place.is_dir()
            if wanted and inside not in EXEMPT and "_build" not in inside:
                yield path


def main(argv: list[str]) -> int:
    """Print every forbidden word with its place; return 1 when there is one."""
    places = [Path(name) for name in argv] or [ROOT / name for name in PLACES]
    count = 0
    for path in files(places):
        for line, word, instead in sorted(findings(english(path))):
            count += 1
            name = path.resolve().relative_to(ROOT)
            print(f"{name}:{line}: {' '.join(word.split())!r}: write {instead}")
    if count:
        print(f"{count} words to replace; the list is in tests/lint/words.py")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
