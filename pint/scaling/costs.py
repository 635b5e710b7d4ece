"""How long work and messages take: tables that were measured, and a machine's network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.scaling.dry_run import Operation
from pint.scaling.machine import Machine, check_number, machine_of, read_toml

__all__ = ["Costs", "Key", "Machine", "Table"]

Key = tuple[str, str, int]
"""Of a table: solve, name of the work, level."""


def amount(one: Operation) -> int:
    """Return the key of the seconds of some work."""
    if one.name == "update":  # of all parameters, whatever the steps
        return 1
    return one.length if one.name.startswith("chain") else one.size


@dataclass(frozen=True, eq=False)
class Table:
    """Seconds of some work by its size, with straight lines between what was measured.

    Attributes
    ----------
    sizes : ndarray of int64, shape (n,)
        Increasing.
    seconds : ndarray of float64, shape (n,)
        For each of them.
    """

    sizes: NDArray[np.int64]
    seconds: NDArray[np.float64]

    def at(self, size: float) -> float:
        """Return the seconds of a size; beyond the largest they grow as between the outermost ones.

        Where there is one size only, in proportion.
        """
        (first, last), (least, most) = self.sizes[[0, -1]], self.seconds[[0, -1]]
        if size > last:
            slope = max(most - least, 0.0) / (last - first) if last > first else most / last
            return float(most + slope * (size - last))
        return float(np.interp(size, self.sizes, self.seconds))


@dataclass(frozen=True, eq=False)
class Costs:
    """What a run's work and messages take.

    Attributes
    ----------
    machine : Machine
        Where it runs.
    tables : dict of (str, str, int) to Table
        By solve, name and level: seconds of one step of n intervals ("sweep"), of n consecutive
        steps ("chain"), else of n points.
    call : float
        Seconds that the solver takes around each piece of work.
    baselines : dict of str to float
        Seconds that other ways take for each step of a sequence, by name.
    problem : dict of str to object
        What was measured: names and values for the reader, and for `pint predict`.
    exact : dict of (str, str, int) to Table
        As `tables`, of exact stepping: a hierarchy of one level.
    alone : float, default 0.0
        Part of the time of a chain that is left where the batch has next to no sequences.
    share : float, default 1.0
        Part of the batch of a rank: the costs are the costs of this part of the states, except for
        chains, see `alone`.
    """

    machine: Machine
    tables: dict[Key, Table]
    call: float = 0.0
    baselines: dict[str, float] = field(default_factory=dict)
    problem: dict[str, Any] = field(default_factory=dict)
    exact: dict[Key, Table] = field(default_factory=dict)
    alone: float = 0.0
    share: float = 1.0

    def stepping(self) -> Costs:
        """Return the costs of exact stepping.

        Raises
        ------
        ValueError
            If it was not measured.
        """
        if not self.exact:
            raise ValueError(
                "the costs have no exact stepping: measure them again with pint calibrate"
            )
        return replace(self, tables=self.exact)

    def of(self, one: Operation, size: int, all_ranks: int) -> tuple[float, float]:
        """Return what an operation takes the rank, and how long a message is under way.

        Parameters
        ----------
        one : Operation
            The operation.
        size : int
            Ranks that share time.
        all_ranks : int
            Ranks of all groups.
        """
        if one.kind == "work":
            return self.work(one), 0.0
        if one.kind == "collective":
            ranks = all_ranks if one.name.startswith("all ") else size
            return self.machine.collective(one.name, one.size, ranks), 0.0
        under_way = self.machine.message(one.size, all_ranks) if one.kind == "send" else 0.0
        return self.machine.overhead, under_way

    def work(self, one: Operation) -> float:
        """Return the seconds of a piece of work.

        Raises
        ------
        ValueError
            If nothing like it was measured.
        """
        one, table = self._found(one)
        times = one.length if one.name.startswith("sweep") else 1
        if one.name.startswith("chain"):
            seconds = table.at(amount(one)) * (self.alone + (1 - self.alone) * self.share)
        else:
            seconds = table.at(amount(one) * self.share) * times
        return (seconds + self.call) / self.machine.speed

    def beyond(self, one: Operation) -> float:
        """Return how many times larger an operation is than the largest like it that was measured.

        1.0 for what is no larger.
        """
        if one.kind != "work":
            return 1.0
        one, table = self._found(one)
        share = 1.0 if one.name.startswith("chain") else self.share
        return max(amount(one) * share / float(table.sizes[-1]), 1.0)

    def _found(self, one: Operation) -> tuple[Operation, Table]:
        """Return work as it was measured, and its table."""
        key, swept = (one.solve, one.name, one.level), one.name.replace("chain", "sweep")
        if key not in self.tables and (one.solve, swept, one.level) in self.tables:
            one = one._replace(name=swept, size=1)  # a chain is one interval
        return one, self._table(one)

    def _table(self, one: Operation) -> Table:
        """Return the table of some work, or of what is most like it."""
        exact = (one.solve, one.name, one.level)
        if exact in self.tables:
            return self.tables[exact]

        def unlikeness(key: Key) -> tuple[bool, bool, int]:
            solve, name, level = key
            return solve != one.solve, name != one.name, abs(level - one.level)

        kind = one.name.split(" ")[0]
        alike = [key for key in self.tables if key[1].split(" ")[0] == kind]
        if not alike:
            raise ValueError(
                f"the costs have no table for {one.name!r} ({one.solve or 'training'}): measure "
                "them with the same options"
            )
        return self.tables[min(alike, key=unlikeness)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a TOML file; an existing one is replaced."""
        Path(path).write_text("\n".join(self._lines()) + "\n")

    def _lines(self) -> Iterator[str]:
        yield from _assignments({"call": self.call, "alone": self.alone})
        machine = {k: v for k, v in asdict(self.machine).items() if v is not None}
        sections = {"machine": machine, "problem": self.problem, "baselines": self.baselines}
        for title, values in sections.items():
            yield f"\n[{title}]"
            yield from _assignments(values)
        for title, tables in (("work", self.tables), ("exact", self.exact)):
            for (solve, name, level), table in sorted(tables.items()):
                yield f"\n[[{title}]]"
                rows = {"sizes": table.sizes.tolist(), "seconds": table.seconds.tolist()}
                yield from _assignments({"solve": solve, "name": name, "level": level, **rows})

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], machine: str | os.PathLike[str] | None = None
    ) -> Costs:
        """Read what `save` wrote, with the network of another machine if one is given.

        Parameters
        ----------
        path : path-like
            TOML file of costs.
        machine : path-like, optional
            TOML file whose section ``[machine]`` has the fields of `Machine`.

        Raises
        ------
        OSError, ValueError
            If a file cannot be read, or does not have what it should.
        """
        content = read_toml(path)
        told = content if machine is None else read_toml(machine)
        try:
            network = machine_of(told)
        except ValueError as error:
            raise ValueError(f"{path if machine is None else machine}: {error}") from None
        try:
            return _costs_of(content, network)
        except ValueError as error:
            raise ValueError(f"{path}: {error}: write it with pint calibrate") from None


def _costs_of(content: dict[str, Any], machine: Machine) -> Costs:
    """Return the costs of a file's content, all of it checked."""
    for name in ("call", "alone"):
        check_number(name, content.get(name, 0.0))
    for name in ("baselines", "problem"):
        if not isinstance(content.get(name, {}), dict):
            raise ValueError(f"{name} must be a section, got {content[name]!r}")
    for name, seconds in content.get("baselines", {}).items():
        check_number(f"baselines: {name}", seconds)
    if "work" not in content:
        raise ValueError("'work' is missing")
    return Costs(
        machine=machine,
        tables=_tables(content, "work"),
        call=float(content.get("call", 0.0)),
        baselines={k: float(v) for k, v in content.get("baselines", {}).items()},
        problem=content.get("problem", {}),
        exact=_tables(content, "exact"),
        alone=float(content.get("alone", 0.0)),
    )


def _tables(content: dict[str, Any], title: str) -> dict[Key, Table]:
    rows = content.get(title, [])
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ValueError(f"{title} must be tables [[{title}]], got {rows!r}")
    tables = {}
    for number, row in enumerate(rows, start=1):
        where = f"[[{title}]] number {number}"
        for name, kind in (
            ("solve", str), ("name", str), ("level", int), ("sizes", list), ("seconds", list)
        ):  # fmt: skip
            if not isinstance(row.get(name), kind):
                raise ValueError(f"{where}: {name} must be a {kind.__name__}, got {row.get(name)}")
        tables[row["solve"], row["name"], row["level"]] = _table(where, row)
    return tables


def _table(where: str, row: dict[str, Any]) -> Table:
    sizes, seconds = row["sizes"], row["seconds"]
    for name in ("sizes", "seconds"):
        for value in row[name]:
            check_number(f"{where}: {name}", value)
    if not sizes or len(sizes) != len(seconds) or sorted(set(sizes)) != sizes:
        raise ValueError(
            f"{where}: sizes must increase, one for each entry of seconds, got {sizes}"
        )
    return Table(np.array(sizes, dtype=np.int64), np.array(seconds, dtype=float))


def _assignments(values: dict[str, Any]) -> Iterator[str]:
    """Yield lines of TOML: strings, numbers, flags and lists of them are written as in JSON."""
    for name, value in values.items():
        yield f"{json.dumps(name)} = {json.dumps(value)}"
