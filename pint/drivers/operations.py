"""Compiled sweeps: a program of operations on the levels of one rank, with no Python inside.

`compile_sweeps` makes one function for a kernel, into which the kernel is inlined: it runs a list
of operations, which are relaxation, residual, restriction, coarse right-hand side and correction,
and looks at the clock between them, if a program says so.
One file, because Numba's cache does not notice edits in other files; edits of the kernel are
noticed by `pint.simd.kernel_cache`.

Levels are described by a table of addresses, one row each, so that one compiled function serves
any number of levels of any length. In loops over states, ``u[i]`` is the state at slot i.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.cpython.unsafe.tuple import tuple_setitem
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from pint.parallel.exact_sum import NUM_DIGITS
from pint.simd.kernel_cache import cached, fingerprint, named, named_by_content

Run = Callable[[NDArray[np.int64], NDArray[np.int64], Any], None]

# Columns of the table of levels: arrays by the address of slot 0 (0 where there is none), bits of
# the weight of C-relaxation, number of slots, entries of a state, shape of a state.
INDEX, U, G, TIMES, RESIDUAL, NORMS, WEIGHT, NUM_SLOTS, SIZE, SHAPE = range(10)

# Operations, and what a row of a program holds besides: level, begin, end, stride, and one more.
# A tick: 0, the addresses of `clock_gettime` and of the ticks, the clock, the part.
CHAIN, SWEEP, RESIDUAL_AT, NORM, RESTRICT, COARSE_RHS, CORRECT, ADD_RESIDUAL, TICK = range(9)
NUM_FIELDS = 6

# Ticks are an array of int64: the clock, as two numbers, when it was read last, in nanoseconds, and
# from here on the nanoseconds of each part of the program.
SECONDS, NANOSECONDS, LAST_TICK, FIRST_PART = range(4)

_TOGETHER = 32
"""Numbers of small states that are worked on side by side."""


def _typed_pointer(typing_context: Any, address: Any, dtype: Any) -> Any:
    """Return an integer as a pointer to numbers of a type."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], kind)

    kind: Any = types.CPointer
    return kind(dtype.dtype)(types.int64, dtype), codegen


def _typed_register(typing_context: Any, dtype: Any) -> Any:
    """Return a pointer to one number on the stack, which the compiler turns into a register."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_data_type(signature.return_type.dtype)
        return cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]

    kind: Any = types.CPointer
    return kind(dtype.dtype)(dtype), codegen


def _typed_clock(typing_context: Any, function: Any, clock: Any, address: Any) -> Any:
    """Return the status of the C function `clock_gettime`, itself given by its address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        status, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(status, (status, pointer)).as_pointer()
        where, number, address = arguments
        call = (builder.trunc(number, status), builder.inttoptr(address, pointer))
        return builder.call(builder.inttoptr(where, kind), call)

    return types.int32(types.int64, types.int64, types.int64), codegen


_pointer: Any = intrinsic(_typed_pointer)
_register: Any = intrinsic(_typed_register)
_read_clock: Any = intrinsic(_typed_clock)
_with_entry: Any = tuple_setitem


def compile_sweeps(kernel: Any, dtype: np.dtype[Any], ndim: int) -> Run:
    """Return the function that runs programs of operations with the steps of a kernel.

    Parameters
    ----------
    kernel : numba dispatcher
        ``kernel(u, start, stop, level, params, out)`` sets ``out`` to Phi(u).
    dtype : dtype
        Type of the entries of a state.
    ndim : int
        Dimension of a state; 0 is a number, which the kernel sees as an array of one entry.

    Returns
    -------
    callable
        ``run(program, table, params)``; it releases the GIL.
    """
    tag = f"{fingerprint(kernel)[:16]}_{dtype}_{ndim}"
    kernel = named_by_content(kernel)
    is_number, number = ndim == 0, dtype.type
    template = (0,) * (1 + max(ndim, 1))

    def jit(function: Callable[..., Any]) -> Any:
        return njit(nogil=True, error_model="numpy")(named(function, tag))

    @jit
    def states(address: Any, num: Any, row: Any) -> Any:
        """Return an array of states of the level, as the kernel sees them."""
        shape = _with_entry(template, 0, num)
        for axis in range(1, len(template)):
            shape = _with_entry(shape, axis, row[SHAPE + axis - 1])
        return carray(_pointer(address, dtype), shape)

    @jit
    def flat(address: Any, num: Any, row: Any) -> Any:
        """Return the same as one row of numbers for each state."""
        size = 1 if is_number else row[SIZE]
        return carray(_pointer(address, dtype), (num, size))

    @jit
    def time_array(row: Any) -> Any:
        return carray(_pointer(row[TIMES], np.float64), (row[NUM_SLOTS],))

    @jit
    def chain(row: Any, params: Any, begin: Any, end: Any) -> None:
        """Set u_i = Phi(u_{i-1}) + g_i at the slots begin + 1, ..., end, one after another."""
        num, level = row[NUM_SLOTS], row[INDEX]
        u, numbers = states(row[U], num, row), flat(row[U], num, row)
        g, has_g = flat(row[G], num, row), row[G] != 0
        times = time_array(row)
        for i in range(begin + 1, end + 1):
            kernel(u[i - 1], times[i - 1], times[i], level, params, u[i])
            if has_g:
                for k in range(numbers.shape[1]):
                    numbers[i, k] += g[i, k]

    @jit
    def chain_of_numbers(row: Any, params: Any, begin: Any, end: Any) -> None:
        """Do as `chain` for numbers: the next step need not wait for the memory."""
        level, times = row[INDEX], time_array(row)
        u, g, has_g = flat(row[U], row[NUM_SLOTS], row), flat(row[G], row[NUM_SLOTS], row), row[G]
        state, new = carray(_register(dtype), (1,)), carray(_register(dtype), (1,))
        state[0] = u[begin, 0]
        for i in range(begin + 1, end + 1):
            kernel(state, times[i - 1], times[i], level, params, new)
            state[0] = new[0] if has_g == 0 else new[0] + g[i, 0]
            u[i, 0] = state[0]

    @jit
    def sweep(row: Any, params: Any, begin: Any, end: Any, stride: Any, length: Any) -> None:
        """From each of the slots begin, begin + stride, ... < end take `length` steps.

        Small states go side by side through several intervals, so that the processor need not
        wait for one step before it begins another.
        """
        num, level = row[NUM_SLOTS], row[INDEX]
        u, numbers = states(row[U], num, row), flat(row[U], num, row)
        g, has_g = flat(row[G], num, row), row[G] != 0
        times = time_array(row)
        together = stride * max(1, _TOGETHER // numbers.shape[1])
        for first in range(begin, end, together):
            behind = min(first + together, end)
            for k in range(1, length + 1):
                for i in range(first + k, min(behind + k, num), stride):
                    kernel(u[i - 1], times[i - 1], times[i], level, params, u[i])
                    if has_g:
                        for j in range(numbers.shape[1]):
                            numbers[i, j] += g[i, j]

    @jit
    def residual(row: Any, params: Any, begin: Any, end: Any, stride: Any, slot: Any) -> None:
        """Set r = Phi(u_{i-1}) - u_i + g_i at the slots begin, begin + stride, ... < end."""
        num, level = row[NUM_SLOTS], row[INDEX]
        u, numbers = states(row[U], num, row), flat(row[U], num, row)
        g, has_g = flat(row[G], num, row), row[G] != 0
        times = time_array(row)
        r, r_numbers = states(row[RESIDUAL], num, row), flat(row[RESIDUAL], num, row)
        for i in range(begin, end, stride):
            kernel(u[i - 1], times[i - 1], times[i], level, params, r[slot])
            for k in range(numbers.shape[1]):
                r_numbers[slot, k] -= numbers[i, k]
                if has_g:
                    r_numbers[slot, k] += g[i, k]
            slot += 1

    @jit
    def norm(row: Any, begin: Any, end: Any) -> None:
        """Set the squared 2-norms of the residuals at the coarse slots begin..end-1."""
        r = flat(row[RESIDUAL], end, row)
        norms = carray(_pointer(row[NORMS], np.float64), (end,))
        for slot in range(begin, end):
            total = 0.0
            for k in range(r.shape[1]):
                size = np.float64(abs(r[slot, k]))
                total += size * size
            norms[slot] = total

    @jit
    def restrict(row: Any, coarse: Any, begin: Any, end: Any, stride: Any, slot: Any) -> None:
        """Copy the states at the slots begin, begin + stride, ... to the coarse level."""
        u, v = flat(row[U], row[NUM_SLOTS], row), flat(coarse[U], coarse[NUM_SLOTS], row)
        for i in range(begin, end, stride):
            for k in range(u.shape[1]):
                v[slot, k] = u[i, k]
            slot += 1

    @jit
    def coarse_rhs(row: Any, params: Any, begin: Any, end: Any) -> None:
        """Set g_i = g_i + u_i - Phi(u_{i-1}), where g_i is the restricted residual."""
        num, level = row[NUM_SLOTS], row[INDEX]
        u, numbers = states(row[U], num, row), flat(row[U], num, row)
        g = flat(row[G], num, row)
        times = time_array(row)
        new = np.empty_like(u[0])
        new_numbers = new.reshape(-1)
        for i in range(begin, end):
            kernel(u[i - 1], times[i - 1], times[i], level, params, new)
            for k in range(numbers.shape[1]):
                g[i, k] = (g[i, k] + numbers[i, k]) - new_numbers[k]

    @jit
    def correct(row: Any, coarse: Any, begin: Any, end: Any, stride: Any, slot: Any) -> None:
        """Add the change of the coarse states to the states they came from."""
        u, v = flat(row[U], row[NUM_SLOTS], row), flat(coarse[U], coarse[NUM_SLOTS], row)
        for i in range(begin, end, stride):
            for k in range(u.shape[1]):
                u[i, k] += v[slot, k] - u[i, k]
            slot += 1

    @jit
    def add_residual(row: Any, begin: Any, end: Any, stride: Any, slot: Any) -> None:
        """Add the residuals, times a weight, at the slots begin, begin + stride, ... < end."""
        u, r = flat(row[U], row[NUM_SLOTS], row), flat(row[RESIDUAL], row[NUM_SLOTS], row)
        weight = number(np.int64(row[WEIGHT]).view(np.float64))
        for i in range(begin, end, stride):
            for k in range(u.shape[1]):
                u[i, k] += weight * r[slot, k]
            slot += 1

    @jit
    def tick(function: Any, address: Any, clock: Any, part: Any) -> None:
        """Add the nanoseconds since the last tick to a part of the program."""
        ticks = carray(_pointer(address, np.int64), (FIRST_PART + part + 1,))
        _read_clock(function, clock, address)
        now = 1_000_000_000 * ticks[SECONDS] + ticks[NANOSECONDS]
        ticks[FIRST_PART + part] += now - ticks[LAST_TICK]
        ticks[LAST_TICK] = now

    step_on = chain_of_numbers if is_number else chain

    def run(program: Any, table: Any, params: Any) -> None:
        for line in range(program.shape[0]):
            code, at, begin, end, stride, more = program[line]
            row = table[at]
            if code == CHAIN:
                step_on(row, params, begin, end)
            elif code == SWEEP:
                sweep(row, params, begin, end, stride, more)
            elif code == RESIDUAL_AT:
                residual(row, params, begin, end, stride, more)
            elif code == NORM:
                norm(row, begin, end)
            elif code == RESTRICT:
                restrict(row, table[at + 1], begin, end, stride, more)
            elif code == COARSE_RHS:
                coarse_rhs(row, params, begin, end)
            elif code == CORRECT:
                correct(row, table[at + 1], begin, end, stride, more)
            elif code == ADD_RESIDUAL:
                add_residual(row, begin, end, stride, more)
            elif code == TICK:
                tick(begin, end, stride, more)

    run_cached: Run = cached(jit(run))
    return run_cached


@njit(cache=True, nogil=True)
def integer_digits(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the exact sum of numbers >= 0, as `pint.parallel.exact_sum.integer_digits` does."""
    digits = np.zeros(NUM_DIGITS + 2, dtype=np.int64)
    bits = values.view(np.int64)
    for i in range(bits.size):
        exponent, mantissa = (bits[i] >> 52) & 0x7FF, bits[i] & 0xFFFFFFFFFFFFF
        if exponent == 0x7FF:
            digits[NUM_DIGITS if mantissa == 0 else NUM_DIGITS + 1] += 1
        elif bits[i] != 0:
            mantissa |= (1 << 52) if exponent > 0 else 0
            place = max(exponent, 1) - 1
            low = (mantissa & 0x3FFFFFF) << (place & 31)
            digits[place >> 5] += low & 0xFFFFFFFF
            digits[(place >> 5) + 1] += low >> 32
            place += 26
            high = (mantissa >> 26) << (place & 31)
            digits[place >> 5] += high & 0xFFFFFFFF
            digits[(place >> 5) + 1] += high >> 32
    return digits
