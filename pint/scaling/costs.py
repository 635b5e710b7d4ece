"""How long work and messages take: tables that were measured, and a machine's network."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import positive
from pint.scaling.walk import Operation

Key = tuple[str, str, int]
"""Of a table: solve, name of the work, level."""


def amount(one: Operation) -> int:
    """Return by what the seconds of some work are told apart."""
    return one.length if one.name.startswith("chain") else one.size


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What messages take, and how fast ranks work.

    Parameters
    ----------
    name : str
        What it is called in tables and figures.
    latency, bandwidth : float
        Of a message between two ranks: seconds, and bytes per second.
    overhead : float, default 0.0
        Seconds that sending takes the sender, and receiving the receiver.
    collective_latency, collective_bandwidth : float, optional
        The same for one round of a collective call, of which there are log2 of the number of ranks;
        those of a message if left out.
    node_latency, node_bandwidth : float, optional
        Those of a message on a machine whose ranks are all on one node; the others' if left out.
    ranks_per_node : int, default 1
        Ranks of a node.
    speed : float, default 1.0
        How much faster its ranks do the work than those on which the costs were measured.
    """

    name: str = "this machine"
    latency: float
    bandwidth: float
    overhead: float = 0.0
    collective_latency: float | None = None
    collective_bandwidth: float | None = None
    node_latency: float | None = None
    node_bandwidth: float | None = None
    ranks_per_node: int = 1
    speed: float = 1.0

    def __post_init__(self) -> None:
        for name in ("latency", "bandwidth", "speed"):
            positive(name, getattr(self, name))

    def message(self, num_bytes: int, size: int) -> float:
        """Return how long a message is under way between two of `size` ranks."""
        latency, bandwidth = self.latency, self.bandwidth
        if size <= self.ranks_per_node:
            latency = latency if self.node_latency is None else self.node_latency
            bandwidth = bandwidth if self.node_bandwidth is None else self.node_bandwidth
        return latency + num_bytes / bandwidth

    def collective(self, name: str, num_bytes: int, size: int) -> float:
        """Return how long a collective call of `size` ranks takes, each with so many bytes."""
        if size == 1:
            return 0.0
        latency = self.latency if self.collective_latency is None else self.collective_latency
        bandwidth = self.collective_bandwidth or self.bandwidth
        rounds = math.ceil(math.log2(size))
        if name.endswith("gather"):  # every round doubles what a rank has
            return rounds * latency + (size - 1) * num_bytes / bandwidth
        return rounds * (latency + num_bytes / bandwidth)


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
        By solve, name and level: seconds of one step of so many intervals at once ("sweep"), of so
        many steps one after another ("chain"), else of so many points.
    call : float
        Seconds that the solver takes around each piece of work.
    baselines : dict of str to float
        Seconds that other ways take for each step of a sequence, by name.
    problem : dict of str to object
        What was measured: names and values for the reader, and for `pint predict`.
    share : float, default 1.0
        Part of the batch that a rank works on: so many states cost as much as that part of them.
    """

    machine: Machine
    tables: dict[Key, Table]
    call: float = 0.0
    baselines: dict[str, float] = field(default_factory=dict)
    problem: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0

    def of(self, one: Operation, size: int, everybody: int) -> tuple[float, float]:
        """Return what an operation takes the rank, and how long a message is under way.

        Parameters
        ----------
        one : Operation
            The operation.
        size : int
            Ranks that share time.
        everybody : int
            Ranks of all groups.
        """
        if one.kind == "work":
            return self.work(one), 0.0
        if one.kind == "collective":
            ranks = everybody if one.name.startswith("all ") else size
            return self.machine.collective(one.name, one.size, ranks), 0.0
        under_way = self.machine.message(one.size, everybody) if one.kind == "send" else 0.0
        return self.machine.overhead, under_way

    def work(self, one: Operation) -> float:
        """Return the seconds of a piece of work.

        Raises
        ------
        ValueError
            If nothing like it was measured.
        """
        key, swept = (one.solve, one.name, one.level), one.name.replace("chain", "sweep")
        if key not in self.tables and (one.solve, swept, one.level) in self.tables:
            one = one._replace(name=swept, size=1)  # a chain is one interval
        table = self._table(one)
        times = one.length if one.name.startswith("sweep") else 1
        return (table.at(amount(one) * self.share) * times + self.call) / self.machine.speed

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
        yield f"call = {self.call!r}"
        machine = {k: v for k, v in asdict(self.machine).items() if v is not None}
        sections = {"machine": machine, "problem": self.problem, "baselines": self.baselines}
        for title, values in sections.items():
            yield f"\n[{title}]"
            yield from _assignments(values)
        for (solve, name, level), table in sorted(self.tables.items()):
            yield "\n[[work]]"
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
        content = _read(path)
        told = content if machine is None else _read(machine)
        try:
            tables = {
                (row["solve"], row["name"], row["level"]): Table(
                    np.array(row["sizes"], dtype=np.int64), np.array(row["seconds"], dtype=float)
                )
                for row in content["work"]
            }
        except KeyError as error:
            raise ValueError(f"{path}: {error} is missing: write it with pint calibrate") from None
        return cls(
            machine=_machine(told.get("machine"), path if machine is None else machine),
            tables=tables,
            call=float(content.get("call", 0.0)),
            baselines={k: float(v) for k, v in content.get("baselines", {}).items()},
            problem=content.get("problem", {}),
        )


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from None


def _machine(values: Any, path: object) -> Machine:
    known = {one.name for one in fields(Machine)}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a section [machine] is missing")
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{path}: [machine] has no {unknown[0]!r}; it has {sorted(known)}")
    missing = sorted({"latency", "bandwidth"} - set(values))
    if missing:
        raise ValueError(f"{path}: [machine] lacks {missing[0]!r}")
    try:
        return Machine(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: [machine] {error}") from None


def _assignments(values: dict[str, Any]) -> Iterator[str]:
    """Yield lines of TOML: strings, numbers, flags and lists of them are written as in JSON."""
    for name, value in values.items():
        yield f"{json.dumps(name)} = {json.dumps(value)}"
