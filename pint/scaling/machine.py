"""A machine: what messages take between its ranks, and how fast they work."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pint.options import at_least, positive

_NOT_NEGATIVE = ("overhead", "collective_latency", "node_latency")


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
        Latency and bandwidth of one round of a collective call, which has log2 P rounds; by default
        as for a message.
    node_latency, node_bandwidth : float, optional
        Latency and bandwidth of a message inside one node; by default as between nodes.
    ranks_per_node : int, default 1
        Ranks of a node.
    speed : float, default 1.0
        How much faster its ranks do the work than those on which the costs were measured.

    Raises
    ------
    ValueError
        If a value is not a number, or out of its range.
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
        if not isinstance(self.name, str):
            raise ValueError(f"name must be a text, got {self.name!r}")
        at_least("ranks_per_node", self.ranks_per_node, 1)
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("name", "ranks_per_node") or value is None:
                continue
            check_number(one.name, value)
            if one.name not in _NOT_NEGATIVE:
                positive(one.name, value)

    def message(self, num_bytes: int, size: int) -> float:
        """Return how long a message is under way between two of `size` ranks."""
        latency, bandwidth = self.latency, self.bandwidth
        if size <= self.ranks_per_node:
            latency = latency if self.node_latency is None else self.node_latency
            bandwidth = bandwidth if self.node_bandwidth is None else self.node_bandwidth
        return latency + num_bytes / bandwidth

    def collective(self, name: str, num_bytes: int, size: int) -> float:
        """Return the seconds of a collective call of `size` ranks, each with `num_bytes` bytes."""
        if size == 1:
            return 0.0
        latency = self.latency if self.collective_latency is None else self.collective_latency
        bandwidth = self.collective_bandwidth or self.bandwidth
        rounds = math.ceil(math.log2(size))
        if name.endswith("gather"):  # every round doubles what a rank has
            return rounds * latency + (size - 1) * num_bytes / bandwidth
        return rounds * (latency + num_bytes / bandwidth)


def check_number(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number, and not negative."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # also bytes that are no text
        raise ValueError(f"{path}: not a TOML file: {error}") from None


def machine_of(content: dict[str, Any]) -> Machine:
    """Return the machine of a file's section ``[machine]``.

    Raises
    ------
    ValueError
        If the section is missing, or a field is unknown, missing or out of its range.
    """
    known = {one.name for one in fields(Machine)}
    values = content.get("machine")
    if not isinstance(values, dict):
        raise ValueError("a section [machine] is missing")
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"[machine] has no {unknown[0]!r}; it has {sorted(known)}")
    missing = sorted({"latency", "bandwidth"} - set(values))
    if missing:
        raise ValueError(f"[machine] lacks {missing[0]!r}")
    try:
        return Machine(**values)
    except ValueError as error:
        raise ValueError(f"[machine] {error}") from None
