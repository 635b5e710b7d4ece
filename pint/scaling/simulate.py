"""The clock of every rank while all of them go through their programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pint.scaling.costs import Costs
from pint.scaling.dry_run import Operation, Program
from pint.scaling.schedule import Schedule

_KINDS = {"work": 0, "send": 1, "wait": 2, "collective": 3}
_WORK, _SEND, _WAIT = 0, 1, 2


class Event(NamedTuple):
    """What a rank did, and when.

    Attributes
    ----------
    rank : int
        Which rank.
    operation : Operation
        What; for a collective call, the waiting for the last rank too.
    begin, end : float
        Seconds since the begin of the run.
    """

    rank: int
    operation: Operation
    begin: float
    end: float


@dataclass(frozen=True, eq=False)
class Timing:
    """How long a run takes.

    Attributes
    ----------
    seconds : float
        Until the last rank is done.
    phases : dict of str to ndarray of float64, shape (size,)
        Seconds of each rank by phase, "messages" for all waiting; solve and phase as
        "forward relaxation".
    clocks : ndarray of float64, shape (size,)
        When each rank is done.
    events : list of Event
        All of them, if they were wanted.
    """

    seconds: float
    phases: dict[str, NDArray[np.float64]]
    clocks: NDArray[np.float64]
    events: list[Event]


def simulate(schedule: Schedule, costs: Costs, *, events: bool = False) -> Timing:
    """Let all ranks go through their programs.

    A message takes a latency and its bytes over the bandwidth; a waiting rank goes on at its
    arrival. A collective call begins when the last rank has come to it.

    Parameters
    ----------
    schedule : Schedule
        What every rank does.
    costs : Costs
        How long work and messages take.
    events : bool, default False
        Also return what every rank did when; meant for few ranks.

    Raises
    ------
    RuntimeError
        If ranks wait for each other for ever, which would be an error of the schedule.
    """
    flat = _Flat.of(schedule, costs)
    per_rank = flat.ends[schedule.kinds] - flat.begins[schedule.kinds]
    places = np.concatenate([[0], np.cumsum(per_rank)]) if events else np.zeros(1, dtype=np.int64)
    stamps = np.zeros((int(places[-1]) if events else 0, 2))
    clocks = np.zeros(schedule.size)
    spent = np.zeros((len(flat.phases), schedule.size))
    done = _run(
        schedule.kinds, flat.begins, flat.ends, flat.table, flat.seconds, flat.sends,
        clocks, spent, places.astype(np.int64), stamps,
    )  # fmt: skip
    if not done:
        raise RuntimeError("the ranks of the schedule wait for each other: please report this")
    return Timing(
        seconds=float(clocks.max()),
        phases=dict(zip(flat.phases, spent, strict=True)),
        clocks=clocks,
        events=_events(schedule, places, stamps) if events else [],
    )


def _events(schedule: Schedule, places: NDArray[Any], stamps: NDArray[Any]) -> list[Event]:
    found = []
    for rank, kind in enumerate(schedule.kinds):
        for index, operation in enumerate(schedule.programs[kind].operations):
            begin, end = stamps[places[rank] + index].tolist()
            found.append(Event(rank, operation, begin, end))
    return found


@dataclass(eq=False)
class _Flat:
    """All programs, one after another, as arrays.

    Attributes
    ----------
    begins, ends : ndarray of int64, shape (number of programs,)
        Rows of each program.
    table : ndarray of int64, shape (rows, 5)
        Kind of operation, phase, rank at the other end as a difference, channel, and which message
        between the two, counted from 0; of a collective call, which one.
    seconds : ndarray of float64, shape (rows, 2)
        What it takes the rank, and how long a message is under way.
    sends : ndarray of int64, shape (rows,)
        Where a rank keeps the time of a message it sends; -1 for other operations.
    phases : list of str
        Names of phases.
    """

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    table: NDArray[np.int64]
    seconds: NDArray[np.float64]
    sends: NDArray[np.int64]
    phases: list[str]

    @classmethod
    def of(cls, schedule: Schedule, costs: Costs) -> _Flat:
        size = schedule.size * schedule.run.groups
        names: dict[str, int] = {}
        known: dict[tuple[object, ...], tuple[float, float]] = {}
        rows: list[tuple[int, ...]] = []
        seconds: list[tuple[float, float]] = []
        sends: list[int] = []
        bounds = [0]
        for program in schedule.programs:
            rows += _rows(program, names)
            for one in program.operations:
                key = (one.kind, one.name, one.solve, one.level, one.size, one.length)
                if key not in known:
                    known[key] = costs.of(one, schedule.size, size)
                seconds.append(known[key])
            count = 0
            for one in program.operations:
                sends.append(count if one.kind == "send" else -1)
                count += one.kind == "send"
            bounds.append(len(rows))
        return cls(
            np.array(bounds[:-1], dtype=np.int64),
            np.array(bounds[1:], dtype=np.int64),
            np.array(rows, dtype=np.int64).reshape(-1, 5),
            np.array(seconds, dtype=np.float64).reshape(-1, 2),
            np.array(sends, dtype=np.int64),
            list(names),
        )


def _rows(program: Program, names: dict[str, int]) -> list[tuple[int, ...]]:
    counts: dict[tuple[str, int, int], int] = {}
    rows: list[tuple[int, ...]] = []
    for one in program.operations:
        phase = "messages" if one.kind in ("wait", "collective") else one.phase
        number = names.setdefault(f"{one.solve} {phase}".strip(), len(names))
        key = (one.kind, one.other, one.channel)
        which = counts[key] = counts.get(key, -1) + 1
        rows.append((_KINDS[one.kind], number, one.other, one.channel, which))
    return rows


@njit(cache=True)
def _run(
    kinds: Any, begins: Any, ends: Any, table: Any, seconds: Any, sends: Any,
    clocks: Any, spent: Any, places: Any, stamps: Any,
) -> bool:  # fmt: skip
    """Move the ranks on, up and down their row, until all are done or none can move."""
    size = kinds.size
    num_sends = 0
    num_calls = 0
    for kind in range(begins.size):
        count = 0
        calls = 0
        for row in range(begins[kind], ends[kind]):
            count += sends[row] >= 0
            calls += table[row, 0] > _WAIT
        num_sends = max(num_sends, count)
        num_calls = max(num_calls, calls)
    sent = np.full((size, num_sends), np.nan)
    arrived = np.zeros(num_calls, dtype=np.int64)
    latest = np.zeros(num_calls)
    came = np.full(size, -1, dtype=np.int64)
    place = begins[kinds]
    num_done = 0
    upwards = True
    moved = True
    while moved and num_done < size:
        moved = False
        for index in range(size):
            rank = index if upwards else size - 1 - index
            kind = kinds[rank]
            row = place[rank]
            if row == ends[kind]:
                continue
            while row < ends[kind]:
                operation, phase, other, channel, which = table[row]
                begin = clocks[rank]
                end = begin + seconds[row, 0]
                if operation == _SEND:
                    sent[rank, sends[row]] = end + seconds[row, 1]
                elif operation == _WAIT:
                    from_rank = rank + other
                    at = _find(table, sends, begins[kinds[from_rank]], ends[kinds[from_rank]],
                               -other, channel, which)  # fmt: skip
                    if np.isnan(sent[from_rank, at]):
                        break
                    end = max(begin, sent[from_rank, at]) + seconds[row, 0]
                elif operation > _WAIT:
                    call = which
                    if came[rank] < call:
                        came[rank] = call
                        arrived[call] += 1
                        latest[call] = max(latest[call], begin)
                    if arrived[call] < size:
                        break
                    end = latest[call] + seconds[row, 0]
                clocks[rank] = end
                spent[phase, rank] += end - begin
                if stamps.shape[0] > 0:
                    stamps[places[rank] + row - begins[kind], 0] = begin
                    stamps[places[rank] + row - begins[kind], 1] = end
                row += 1
                moved = True
            place[rank] = row
            num_done += row == ends[kind]
        upwards = not upwards
    return bool(num_done == size)


@njit(cache=True)
def _find(
    table: Any, sends: Any, begin: int, end: int, other: int, channel: int, which: int
) -> int:
    """Return where a program keeps the time of a message."""
    for row in range(begin, end):
        if (
            table[row, 0] == _SEND
            and table[row, 2] == other
            and table[row, 3] == channel
            and table[row, 4] == which
        ):
            return int(sends[row])
    raise RuntimeError("no rank sends a message that a rank waits for")
