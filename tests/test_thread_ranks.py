"""Ranks that are threads: messages, collectives, errors, and deadlocks."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest

from pint.parallel import DeadlockError, run, run_on_threads, world
from pint.parallel.blas_threads import limited_blas
from pint.parallel.once import once

SIZES = [1, 2, 3, 4, 7]


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_has_its_number_and_returns_its_result(size):
    assert run_on_threads(size, lambda comm: (comm.rank, comm.size)) == [
        (rank, size) for rank in range(size)
    ]
    assert world().size == 1
    assert run_on_threads(size, lambda comm: world() is comm) == [True] * size


def test_at_least_one_rank():
    with pytest.raises(ValueError, match="num_ranks must be at least 1, got 0"):
        run_on_threads(0, lambda comm: None)


@pytest.mark.parametrize("size", SIZES)
def test_messages_arrive_in_order_and_may_be_waited_for_in_any(size):
    def pass_on(comm):
        sent = np.array([comm.rank, 0.0])
        received = [np.empty(2), np.empty(2)]
        right, left = (comm.rank + 1) % size, (comm.rank - 1) % size
        expected = [comm.irecv(each, left) for each in received]
        leaving = [comm.isend(sent, right)]
        sent[1] = 1.0
        leaving.append(comm.isend(sent, right))
        for request in (*expected[::-1], *leaving, *expected):
            request.wait()
        return [each.tolist() for each in received] == [[left, 0.0], [left, 1.0]]

    assert all(run_on_threads(size, pass_on))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64, np.complex128])
def test_collectives(size, dtype):
    def collect(comm):
        own = np.full((comm.rank, 2), comm.rank, dtype=dtype)
        rows = np.arange(size)
        sent = np.array([[comm.rank, 5]], dtype=dtype)
        comm.barrier()
        total = comm.sum(sent)
        return (
            comm.allgather_blocks(own),
            comm.allgather_blocks(own, rows),
            comm.gather_blocks(own, size - 1),
            total,
            comm.bcast(sent, size - 1),
            comm.any(comm.rank == size - 1),
            comm.allgather_text("é" * comm.rank),
        )

    blocks = np.repeat(np.arange(size), np.arange(size))[:, None].repeat(2, axis=1)
    for rank, (every, known, first, total, sent, found, texts) in enumerate(
        run_on_threads(size, collect)
    ):
        assert every.dtype == total.dtype == dtype
        assert np.array_equal(every, blocks)
        assert np.array_equal(known, blocks)
        assert (first is None) == (rank < size - 1)
        assert first is None or np.array_equal(first, blocks)
        assert total.tolist() == [[size * (size - 1) // 2, 5 * size]]
        assert sent.tolist() == [[size - 1, 5]]
        assert found
        assert texts == ["é" * other for other in range(size)]


def test_sums_are_new_arrays_with_the_same_bits():
    def add(comm):
        own = np.random.default_rng(comm.rank).normal(size=100)
        total = comm.sum(own)
        total_before = total.copy()
        total *= 0
        return total_before.tobytes()

    assert len({*run_on_threads(7, add)}) == 1


@pytest.mark.parametrize("size", SIZES)
def test_groups(size):
    def look(comm):
        groups = (comm.duplicate(), comm.reversed(), comm.split(3), comm.across(3))
        assert groups == (comm.duplicate(), comm.reversed(), comm.split(3), comm.across(3))
        return [group.allgather_blocks(np.array([comm.rank])).tolist() for group in groups] + [
            [group.rank, group.size] for group in groups
        ]

    everyone = list(range(size))
    for rank, found in enumerate(run_on_threads(size, look)):
        first = rank // 3 * 3
        in_group, across = everyone[first : first + 3], everyone[rank % 3 :: 3]
        assert found == [
            everyone,
            everyone[::-1],
            in_group,
            across,
            [rank, size],
            [size - 1 - rank, size],
            [rank - first, len(in_group)],
            [rank // 3, len(across)],
        ]


def test_messages_of_a_duplicate_are_apart():
    def cross(comm):
        if comm.rank == 0:
            requests = [comm.isend(np.array([1]), 1), comm.duplicate().isend(np.array([2]), 1)]
        else:
            first, second = np.zeros(1, int), np.zeros(1, int)
            requests = [comm.duplicate().irecv(second, 0), comm.irecv(first, 0)]
        for request in requests:
            request.wait()
        return None if comm.rank == 0 else (first[0], second[0])

    assert run_on_threads(2, cross) == [None, (1, 2)]


class TestDeadlock:
    def test_says_where_each_rank_stands(self):
        errors = [None] * 4
        lines = [0] * 4

        def wait(comm):
            here = threading.get_ident  # the next lines are counted from this one
            lines[comm.rank] = wait.__code__.co_firstlineno
            assert here
            try:
                if comm.rank == 0:
                    comm.irecv(np.empty(2), 1).wait()
                elif comm.rank == 1:
                    comm.duplicate().isend(np.empty(2), 2).wait()
                elif comm.rank == 2:
                    comm.sum(np.zeros(3))
            except DeadlockError as error:
                errors[comm.rank] = str(error)
                raise

        with pytest.raises(DeadlockError) as caught:
            run_on_threads(4, wait)
        first, file = lines[0], Path(__file__)
        assert str(caught.value) == (
            "all ranks wait, and no message can come:\n"
            f"  rank 0 waits for message 0 of rank 1, at {file}:{first + 6}\n"
            "  rank 1 waits until rank 2 receives its message 0 (communicator: duplicate), "
            f"at {file}:{first + 8}\n"
            f"  rank 2 waits in sum of float64 (3,), at {file}:{first + 10}\n"
            "  rank 3 has ended"
        )
        assert errors == [str(caught.value)] * 3 + [None]

    def test_is_found_when_the_last_rank_ends(self):
        def leave(comm):
            if comm.rank < 2:
                comm.barrier()
            return comm.rank

        with pytest.raises(DeadlockError, match="rank 2 has ended"):
            run_on_threads(3, leave)

    def test_is_not_seen_while_a_rank_works(self):
        def late(comm):
            if comm.rank == 1:
                threading.Event().wait(0.05)
            comm.barrier()
            return comm.rank

        assert run_on_threads(2, late) == [0, 1]


class TestErrors:
    def test_of_one_rank_ends_the_waits_of_others(self):
        seen = {}

        def fail(comm):
            if comm.rank == 1:
                raise LookupError("gone")
            try:
                comm.barrier()
            except RuntimeError as error:
                seen[comm.rank] = error
                raise

        with pytest.raises(LookupError, match="gone") as caught:
            run_on_threads(3, fail)
        assert {*seen} == {0, 2}
        for error in seen.values():
            assert str(error) == "rank 1 has failed: LookupError('gone')"
            assert error.__cause__ is caught.value

    def test_that_all_ranks_share_is_raised(self):
        def check(comm):
            with comm.collective():
                if comm.rank == 1:
                    raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            run_on_threads(3, check)

    def test_different_collectives(self):
        def differ(comm):
            comm.barrier() if comm.rank else comm.any(True)

        with pytest.raises(RuntimeError, match=r"'(barrier|sum of int64 \(1,\))' on rank"):
            run_on_threads(2, differ)

    @pytest.mark.parametrize(
        ("sent", "message"),
        [
            (np.zeros(3), r"rank 0 sent float64 \(3,\), rank 1 expected float64 \(2,\)"),
            (np.zeros(2, "f4"), r"rank 0 sent float32 \(2,\), rank 1 expected float64"),
            (np.zeros((2, 2))[:, 0], "must be C-contiguous"),
        ],
        ids=["shape", "dtype", "strides"],
    )
    def test_messages_that_do_not_fit(self, sent, message):
        def send(comm):
            if comm.rank == 0:
                comm.isend(sent, 1).wait()
            else:
                comm.irecv(np.zeros(2), 0).wait()

        with pytest.raises(ValueError, match=message):
            run_on_threads(2, send)

    def test_wrong_number_of_rows(self):
        def gather(comm):
            comm.allgather_blocks(np.zeros(2), np.array([2, 3]))

        with pytest.raises(ValueError, match=r"\[2, 2\] rows, expected \[2, 3\]"):
            run_on_threads(2, gather)

    def test_no_such_rank(self):
        with pytest.raises(ValueError, match="there is no rank 2 among 2"):
            run_on_threads(2, lambda comm: comm.isend(np.zeros(1), 2))

    def test_under_run_are_those_of_the_rank(self, capsys):
        def fail(comm):
            def main():
                if comm.rank == 0:
                    raise LookupError("gone")
                comm.barrier()
                return 0

            return run(main, comm)

        with pytest.raises(LookupError, match="gone"):
            run_on_threads(2, fail)
        assert "LookupError" in capsys.readouterr().err

    def test_abort_ends_all_ranks(self):
        def stop(comm):
            if comm.rank == 0:
                comm.abort()
            comm.barrier()

        with pytest.raises(SystemExit) as caught:
            run_on_threads(2, stop)
        assert caught.value.code == 1


def test_ranks_of_ranks():
    def outer(comm):
        inner = run_on_threads(2, lambda own: int(own.sum(np.array([comm.rank + 1]))[0]))
        assert world() is comm
        return int(comm.sum(np.array(inner[:1]))[0])

    assert run_on_threads(3, outer) == [12] * 3


def test_threads_compute_a_cached_result_once():
    calls = []
    gate = threading.Barrier(3)

    @once
    def slow(argument):
        calls.append(argument)
        threading.Event().wait(0.05)
        return object()

    def ask(comm):
        gate.wait(10)
        return slow(3)

    assert len({*run_on_threads(3, ask)}) == 1
    assert calls == [3]


def test_the_limit_of_blas_threads_ends_with_the_last_solve():
    from threadpoolctl import threadpool_info

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()

    def overlap(comm):
        if comm.rank == 0:
            with limited_blas(1):
                comm.barrier()
                comm.barrier()
            comm.barrier()
            return None
        comm.barrier()  # rank 0 has entered
        with limited_blas(1):
            comm.barrier()
            comm.barrier()  # rank 0 has left
            return threads()

    assert run_on_threads(2, overlap)[1] == [1] * len(before)
    assert threads() == before


def test_scripts_of_the_manual(capsys):
    page = (Path(__file__).parents[1] / "docs" / "parallel.md").read_text()
    first, second, third = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(first, names)
    assert capsys.readouterr().out == "".join(
        f"rank {rank} has {points} points after 8 iterations\n"
        for rank, points in enumerate([16, 16, 16, 17])
    )
    exec(compile(second, "script.py", "exec"), names)
    assert capsys.readouterr().out in re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    exec(third, names)
    assert callable(names["read"])
