"""Operations on the levels of one rank in machine code: programs with no Python inside.

A program is a list of operations: relaxation, residual, restriction, coarse right-hand side and
correction. `compile_program` makes the function that runs programs with the steps of one kernel;
the kernel is inlined once. Operations without steps are compiled once for all kernels
(`plain_operations`), and called by their address. All code is in one file, because Numba's cache
does not notice edits in other files; `pint.simd.kernel_cache` notices edits of the kernel.

A table of addresses describes the levels, one row each, so that one compiled function serves any
number of levels of any length. In loops over states, ``u[i]`` is the state at slot i.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.cpython.unsafe.tuple import tuple_setitem
from numba.extending import intrinsic
from numba.np.numpy_support import carray, from_dtype
from numpy.typing import NDArray

from pint.parallel.exact_sum import NUM_DIGITS
from pint.parallel.once import once
from pint.simd.kernel_cache import cached, fingerprint, named, named_by_content

Run = Callable[[NDArray[np.int64], NDArray[np.int64], Any, int, int], None]

# Columns of the table of levels: arrays by the address of slot 0 (0 where there is none), bits of
# the weight of C-relaxation, number of slots, entries of a state, shape of a state. The last row
# belongs to no level.
INDEX, U, G, TIMES, RESIDUAL, NORMS, WEIGHT, NUM_SLOTS, SIZE, SHAPE = range(10)

# Operations; a row of a program also holds level, begin, end, stride, and one more number. Those
# before NORM take steps.
CHAIN, SWEEP, RESIDUAL_AT, COARSE_RHS, NORM, RESTRICT, CORRECT, ADD_RESIDUAL = range(8)
NUM_FIELDS = 6

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


def _typed_call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at an address with a tuple of integers, some of them addresses."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        numbers = cgutils.unpack_tuple(builder, values[1])  # type: ignore[no-untyped-call]
        kind = ir.FunctionType(ir.VoidType(), [number.type for number in numbers])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), numbers)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), codegen


_pointer: Any = intrinsic(_typed_pointer)
_register: Any = intrinsic(_typed_register)
_call: Any = intrinsic(_typed_call)
_with_entry: Any = tuple_setitem


def compile_program(kernel: Any, dtype: np.dtype[Any], ndim: int) -> Run:
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
        ``run(program, table, params, scratch, plain)``, with the addresses of memory for one state
        and of `plain_operations`; it releases the GIL.
    """
    tag = f"{fingerprint(kernel)[:16]}_{dtype}_{ndim}"
    kernel = named_by_content(kernel)
    is_number = ndim == 0
    template = (0,) * (1 + max(ndim, 1))

    def jit(function: Callable[..., Any], **options: bool) -> Any:
        wrap: Any = njit
        options |= {"nogil": True, "no_cfunc_wrapper": True}
        return wrap(error_model="numpy", **options)(named(function, tag))

    def chain_of_numbers(row: Any, params: Any, begin: Any, end: Any) -> None:
        """Step through numbers; a step need not wait until the one before it is in memory."""
        level, has_g = row[INDEX], row[G] != 0
        u, g = _pointer(row[U], dtype), _pointer(row[G], dtype)
        times = _pointer(row[TIMES], np.float64)
        state, new = carray(_register(dtype), (1,)), carray(_register(dtype), (1,))
        state[0] = u[begin]
        for i in range(begin + 1, end + 1):
            kernel(state, times[i - 1], times[i], level, params, new)
            state[0] = new[0] + g[i] if has_g else new[0]
            u[i] = state[0]

    def steps(line: Any, row: Any, params: Any, scratch: Any) -> None:
        """Take steps, and put them where the operation needs them.

        SWEEP: from each of the slots begin, begin + stride, ... < end take `length` steps. Small
        states go side by side through several intervals, so that the processor need not wait for
        one step before it begins another. CHAIN: one step from each slot, in order.
        RESIDUAL_AT: set r = Phi(u_{i-1}) - u_i + g_i at the slots begin, begin + stride, ... < end.
        COARSE_RHS: set g_i = g_i + u_i - Phi(u_{i-1}), where g_i is the restricted residual.
        """
        code, begin, end, stride, more = line[0], line[2], line[3], line[4], line[5]
        num, level, has_g = row[NUM_SLOTS], row[INDEX], row[G] != 0
        size = 1 if is_number else row[SIZE]
        shape = _with_entry(template, 0, num)
        for axis in range(1, len(template)):
            shape = _with_entry(shape, axis, row[SHAPE + axis - 1])
        is_sweep = code <= SWEEP
        address = row[U] if is_sweep else row[RESIDUAL] if code == RESIDUAL_AT else scratch
        states, out = (
            carray(_pointer(row[U], dtype), shape),
            carray(_pointer(address, dtype), shape),
        )
        u, g, new = _pointer(row[U], dtype), _pointer(row[G], dtype), _pointer(address, dtype)
        times = _pointer(row[TIMES], np.float64)
        together = stride * max(1, _TOGETHER // size) if is_sweep else end
        length = more if code == SWEEP else 1
        before = 0 if is_sweep else 1
        to, onward = more if code == RESIDUAL_AT else 0, 1 if code == RESIDUAL_AT else 0
        for first in range(begin, end, together):
            for k in range(1, length + 1):
                last = min(min(first + together, end) + k - before, num)
                if is_sweep:
                    to, onward = first + k, stride
                for i in range(first + k - before, last, stride):
                    kernel(states[i - 1], times[i - 1], times[i], level, params, out[to])
                    if is_sweep:
                        if has_g:
                            for j in range(i * size, (i + 1) * size):
                                u[j] += g[j]
                    elif code == RESIDUAL_AT:
                        for j in range(size):
                            new[to * size + j] -= u[i * size + j]
                            if has_g:
                                new[to * size + j] += g[i * size + j]
                    else:
                        for j in range(size):
                            g[i * size + j] = (g[i * size + j] + u[i * size + j]) - new[j]
                    to += onward

    steps = jit(steps, no_cpython_wrapper=True)
    chain_of_numbers = jit(chain_of_numbers, no_cpython_wrapper=True)

    def run(program: Any, table: Any, params: Any, scratch: Any, plain: Any) -> None:
        for index in range(program.shape[0]):
            line = program[index]
            code, at = line[0], line[1]
            row = table[at]
            if code >= NORM:
                begin, end, stride, slot = line[2], line[3], line[4], line[5]
                coarse = table[at + 1, U]
                _call(
                    plain,
                    (code, begin, end, stride, slot, row[SIZE], row[WEIGHT],
                     row[U], coarse, row[RESIDUAL], row[NORMS]),
                )  # fmt: skip
            elif is_number and code == CHAIN:
                chain_of_numbers(row, params, line[2], line[3])
            else:
                steps(line, row, params, scratch)

    run_cached: Run = cached(jit(run))
    return run_cached


@njit(error_model="numpy", forceinline=True)
def _work(
    code: Any, begin: Any, end: Any, stride: Any, slot: Any, size: Any, factor: Any,
    u: Any, coarse: Any, r: Any, norms: Any,
) -> None:  # fmt: skip
    """Work on slots of a level, and on consecutive slots of the next one.

    NORM: set the squared 2-norms of the residuals at the coarse slots begin..end-1.
    RESTRICT: copy the states at the slots begin, begin + stride, ... to the coarse level.
    CORRECT: add the change of the coarse states to the states they came from.
    ADD_RESIDUAL: add the residuals, times a factor.
    """
    if code == NORM:
        for row in range(begin, end):
            total = 0.0
            for k in range(row * size, (row + 1) * size):
                magnitude = np.float64(abs(r[k]))
                total += magnitude * magnitude
            norms[row] = total
        return
    for i in range(begin, end, stride):
        here, there = i * size, slot * size
        if code == RESTRICT:
            for k in range(size):
                coarse[there + k] = u[here + k]
        elif code == CORRECT:
            for k in range(size):
                u[here + k] += coarse[there + k] - u[here + k]
        else:
            for k in range(size):
                u[here + k] += factor * r[there + k]
        slot += 1


@once
def plain_operations(dtype: np.dtype[Any]) -> int:
    """Return the address of the C function that carries out operations without steps."""
    kind: Any = types.CPointer
    pointer, integer, number = kind(from_dtype(dtype)), types.int64, dtype.type

    def operate(
        code: Any, begin: Any, end: Any, stride: Any, slot: Any, size: Any, weight: Any,
        u: Any, coarse: Any, r: Any, norms: Any,
    ) -> None:  # fmt: skip
        """Do as `_work`; for numbers in machine code without a loop over the entries of a state."""
        factor = number(np.int64(weight).view(np.float64))
        if size == 1:
            _work(code, begin, end, stride, slot, 1, factor, u, coarse, r, norms)
        else:
            _work(code, begin, end, stride, slot, size, factor, u, coarse, r, norms)

    arguments = [integer] * 7 + [pointer] * 3 + [kind(types.float64)]
    function = named(operate, str(dtype))
    compiled = cfunc(types.void(*arguments), cache=True, error_model="numpy")(function)
    _KEPT.append(compiled)
    address: Any = compiled.address
    return int(address)


_KEPT: list[Any] = []
"""Compiled C functions; their addresses are valid while these exist."""


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
