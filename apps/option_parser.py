"""Command lines of the apps: jsonargparse with lists as 4,2, TOML files, and errors of one line."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from pint.cli.arguments import did_you_mean

Group = argparse._ArgumentGroup


def _load(text: str) -> Any:
    """Return the value of a text: a number, none, a list with commas, or the text itself."""
    entries = [_entry(part) for part in text.split(",")]
    return entries[0] if len(entries) == 1 else entries


def _entry(text: str) -> Any:
    for read in ({"none": None}.__getitem__, int, float):
        try:
            return read(text)
        except (KeyError, ValueError):
            continue
    return text


jsonargparse.set_loader("commas", _load)


def _number(text: str) -> float:
    """Return a float; jsonargparse's own type refuses inf."""
    return float(text)


_number.__name__ = "float"  # argparse prints it

SWITCH = jsonargparse.ActionYesNo(yes_prefix="", no_prefix="no-")


class OptionParser(jsonargparse.ArgumentParser):
    """A parser whose types are annotations such as ``int | tuple[int, ...]``."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            usage=f"python -m {prog} [options]",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            description=f"{description} Start it plainly for one process, or under mpiexec -n P.",
            parser_mode="commas",
            allow_abbrev=False,
        )
        self._reads_file = False

    def add_argument(self, *names: Any, **how: Any) -> Any:
        """Add an option; a float may be inf, which the model or the options then refuse."""
        if how.get("type") is float:
            how["type"] = _number
        return super().add_argument(*names, **how)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line on stderr and exit with status 2; raise ValueError for a file."""
        if self._reads_file:
            raise ValueError(self._reason(message)) from ex
        print(f"{self.prog}: {self._one_line(message)}", file=sys.stderr)
        sys.exit(2)

    def read(self, arguments: Sequence[str]) -> jsonargparse.Namespace:
        """Return all options; the command line wins over the file that its --config names.

        Raises
        ------
        ValueError
            If the file is not TOML, or holds an unknown name or a value of a wrong type.
        OSError
            If it cannot be read.
        SystemExit
            If the command line is wrong.
        """
        found: jsonargparse.Namespace = self.parse_args(arguments)
        if found.config is not None:
            found = self.parse_args(arguments, namespace=self._read_file(found.config))
        return found

    def _read_file(self, path: Path) -> jsonargparse.Namespace:
        self._reads_file = True
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
            self._check_names(given)
            return self.parse_object({name: self._checked(name, given[name]) for name in given})
        except ValueError as error:  # also bytes that are no text
            raise ValueError(f"{path}: {error}") from error
        finally:
            self._reads_file = False

    def _checked(self, name: str, value: Any) -> Any:
        """Return a file's value as an option has it."""
        name = name.replace("-", "_")
        try:
            return self.parse_object({name.replace("-", "_"): value})[name]
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"{name} = {value!r}: {error}") from error

    def _check_names(self, given: Mapping[str, Any]) -> None:
        names = [name.replace("_", "-") for name in given]
        unknown = [did_you_mean(name, self._names()) for name in names if name not in self._names()]
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown)}")
        if len(set(names)) < len(names):
            raise ValueError(f"a name is given with dashes and with underscores: {list(given)}")

    def _names(self) -> list[str]:
        """Return the names of all options that a file may set."""
        given = [a.dest for a in self._actions if a.dest not in ("help", "config")]
        return [name.replace("_", "-") for name in given]

    def _one_line(self, message: str) -> str:
        """Return an error of the command line as one line."""
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        if unknown:
            return f"unknown option {did_you_mean(unknown[1], self._option_string_actions)}"
        value = re.match(r'Parser key "(\w+)":(?s:.*)(?:Got|Given) value: (.*)', message)
        if value:
            return f"--{value[1].replace('_', '-')}: {self._reason(message)}, got {value[2]}"
        return " ".join(message.split())

    def _reason(self, message: str) -> str:
        """Return what is wrong with a value."""
        key, rest = re.match(r'(?:Parser key "(\w+)":)?\s*(?s:(.*))', message).groups()
        if "Expected a" not in rest:
            return " ".join(rest.split())
        (action,) = [a for a in self._actions if a.dest == key]
        return f"expected {form_of(getattr(action, '_typehint', action.type))}"


def form_of(hint: Any) -> str:
    """Return what the values of a type look like: ``int|int,int,...`` for an int or a tuple."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return "|".join(map(form_of, parts))
    if origin is typing.Literal:
        return "|".join(map(str, parts))
    if origin is tuple:
        entry = form_of(parts[0]).split("|")[0]
        return f"{entry},{entry},..."
    return "none" if hint is types.NoneType else str(hint.__name__)


# --- Options from fields -------------------------------------------------------------------------


def add_option(group: Group, name: str, hint: Any, **how: Any) -> None:
    """Add an option of a type; a `bool` is a switch, ``--name`` and ``--no-name``."""
    flag = f"--{name.replace('_', '-')}"
    if hint is bool:
        group.add_argument(flag, action=SWITCH, **how)
    elif typing.get_origin(hint) is typing.Literal:
        group.add_argument(flag, choices=typing.get_args(hint), **how)
    else:
        kind = _number if hint is float else hint
        group.add_argument(flag, type=kind, metavar=form_of(kind), **how)


def field_types(options: type) -> dict[str, Any]:
    """Return name and type of each field that has a form on the command line."""
    hints = typing.get_type_hints(options)
    names = [field.name for field in dataclasses.fields(options)]
    return {name: hints[name] for name in names if "Callable" not in str(hints[name])}


def descriptions(options: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says about each field."""
    found = re.findall(r"^(\w+) : .*\n((?:    .*\n)+)", inspect.getdoc(options) or "", re.M)
    return {name: " ".join(text.split()).replace("%", "%%") for name, text in found}
