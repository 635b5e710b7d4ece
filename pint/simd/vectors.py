"""A processor's vectors inside Numba's kernels: loads, stores, arithmetic.

Compilers turn plain loops into vector code where they can prove that arrays do not overlap, and
choose between two versions by addresses where they cannot; loops with many arrays stay scalar.
Here kernels say what becomes a vector, so that one pass does all there is to do, and every number
is rounded the same way wherever its array lies.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from pint.simd.kernel_cache import FASTMATH

_FEATURES = get_host_cpu_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16
_HAS_FMA = bool(_FEATURES.get("fma")) or not any("sse" in name for name in _FEATURES)
_cg: Any = cgutils


def unit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as part of the caller."""
    return njit(inline="always", error_model="numpy", fastmath=FASTMATH)(function)


def instruction(function: Callable[..., Any]) -> Any:
    """Let kernels call what a function writes in LLVM's instructions."""
    return intrinsic(function)


_FLUSHES = VECTOR_BYTES > 16  # AVX, so that there is the control register, and both of its bits
_FLUSH_TO_ZERO, _SUBNORMALS_ARE_ZERO = 1 << 15, 1 << 6


@instruction
def flush_subnormals(typing: Any) -> Any:
    """Treat subnormal numbers as zero on this thread from now on; return the mode before.

    Adjoint states of long sequences shrink below the normal numbers (1e-38 in single precision),
    with which some processors work a hundred times slower. Without an effect where the processor
    has no AVX.
    """

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(32)
        if not _FLUSHES:
            return ir.Constant(word, 0)
        place = _cg.alloca_once(builder, word)
        _control(builder, "st", place)
        mode = builder.load(place)
        bits = ir.Constant(word, _FLUSH_TO_ZERO | _SUBNORMALS_ARE_ZERO)
        builder.store(builder.or_(mode, bits), place)
        _control(builder, "ld", place)
        return mode

    return types.uint32(), build


@instruction
def restore_mode(typing: Any, mode: Any) -> Any:
    """Take back `flush_subnormals`, with what it returned."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if _FLUSHES:
            place = _cg.alloca_once(builder, ir.IntType(32))
            builder.store(values[0], place)
            _control(builder, "ld", place)
        return context.get_dummy_value()

    return types.void(types.uint32), build


def _control(builder: Any, name: str, place: Any) -> None:
    """Store ("st") or load ("ld") the control register of SSE and AVX."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer])
    function = _cg.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}mxcsr")
    builder.call(function, [builder.bitcast(place, pointer)])


class Vector(types.Type):
    """Numba's type of a vector of floats.

    Parameters
    ----------
    element : numba.types.Float
        Type of its elements.
    lanes : int
        Number of elements.
    """

    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element} x {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))  # type: ignore[no-untyped-call]


def _zeros_of(num_lanes: Callable[[int], int]) -> Any:
    @instruction
    def zeros(typing: Any, array: Any) -> Any:
        kind = Vector(array.dtype, num_lanes(array.dtype.bitwidth // 8))

        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return ir.Constant(context.get_value_type(kind), None)

        return kind(array), build

    return zeros


wide = _zeros_of(lambda size: VECTOR_BYTES // size)
"""Return a whole vector of zeros, of an array's dtype."""
single = _zeros_of(lambda size: 1)
"""Return a vector of one zero, of an array's dtype: for arrays shorter than a vector."""


@instruction
def wide_or_single(typing: Any, array: Any, is_narrow: Any) -> Any:
    """Return `wide` of an array where `is_narrow` is None, `single` where it is a bool."""
    size = VECTOR_BYTES // (array.dtype.bitwidth // 8) if is_narrow == types.none else 1
    kind = Vector(array.dtype, size)

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array, is_narrow), build


@instruction
def lanes(typing: Any, like: Any) -> Any:
    """Return the number of elements of a vector."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return context.get_constant(types.intp, like.lanes)

    return types.intp(like), build


@instruction
def splat(typing: Any, like: Any, x: Any) -> Any:
    """Return a vector like another one, with the number x in every element."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        x = context.cast(builder, values[1], signature.args[1], like.element)
        return in_all_lanes(builder, x, context.get_value_type(like))

    return like(like, x), build


def in_all_lanes(builder: Any, x: Any, kind: Any) -> Any:
    """Write a vector with the number x in every element."""
    integer, zeros = ir.IntType(32), ir.Constant(kind, None)
    first = builder.insert_element(zeros, x, ir.Constant(integer, 0))
    same_lane = ir.Constant(ir.VectorType(integer, kind.count), None)
    return builder.shuffle_vector(first, zeros, same_lane)


@instruction
def load(typing: Any, like: Any, array: Any, index: Any) -> Any:
    """Return elements of an array, from an index (a tuple) on along its contiguous last axis."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _pointer(context, builder, array, values[1], values[2], like)
        return builder.load(pointer, align=like.element.bitwidth // 8)

    return like(like, array, index), build


@instruction
def store(typing: Any, vector: Any, array: Any, index: Any) -> Any:
    """Write a vector to an array, from an index (a tuple) on along its contiguous last axis."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _pointer(context, builder, array, values[1], values[2], vector)
        builder.store(values[0], pointer, align=vector.element.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(vector, array, index), build


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, like: Vector) -> Any:
    array = context.make_array(kind)(context, builder, array)
    strides = _cg.unpack_tuple(builder, array.strides)
    places = _cg.unpack_tuple(builder, index)
    size = ir.Constant(places[-1].type, like.element.bitwidth // 8)
    offset = builder.mul(places[-1], size)
    for place, stride in zip(places[:-1], strides[:-1], strict=True):
        offset = builder.add(offset, builder.mul(place, stride))
    return _cg.pointer_add(builder, array.data, offset, context.get_value_type(like).as_pointer())


@instruction
def borrowed(typing: Any, array: Any) -> Any:
    """Return an array that does not count references, for loops that take slices of it.

    Counting takes longer than the arithmetic of a few sequences. For arguments of kernels only,
    which their callers keep alive: an array made in a kernel goes when its own name is not used any
    more.
    """

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return without_owner(builder, context, array, values[0])

    return array(array), build


def without_owner(builder: Any, context: Any, kind: Any, array: Any) -> Any:
    """Return an array without an owner of its memory, which counts no references."""
    own = _cg.create_struct_proxy(kind)(context, builder, array)
    own.meminfo = ir.Constant(own.meminfo.type, None)
    own.parent = ir.Constant(own.parent.type, None)
    return own._getvalue()


def _binary(symbol: Any, operation: str) -> None:
    """Let an operator work on two vectors."""

    @instruction
    def apply(typing: Any, a: Any, b: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, operation)(*values)

        return a(a, b), build

    @overload(symbol)
    def choose(a: Any, b: Any) -> Any:
        def implementation(a: Any, b: Any) -> Any:
            return apply(a, b)

        return implementation if isinstance(a, Vector) and a == b else None


for _symbol, _operation in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _binary(_symbol, _operation)


@instruction
def fused(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c of floats or vectors, rounded once on processors that can."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return multiply_add(builder, *values)

    return a(a, b, c), build


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Write a b + c."""
    if _HAS_FMA:
        return _call_llvm(builder, "fma", a, b, c)
    return builder.fadd(builder.fmul(a, b), c)


def _call_llvm(builder: Any, name: str, *values: Any) -> Any:
    """Call one of LLVM's functions that exist for floats and for vectors of them."""
    kind = values[0].type
    element, prefix = kind, ""
    if isinstance(kind, ir.VectorType):
        element, prefix = kind.element, f"v{kind.count}"
    suffix = prefix + ("f32" if isinstance(element, ir.FloatType) else "f64")
    signature = ir.FunctionType(kind, [kind] * len(values))
    function = _cg.get_or_insert_function(builder.module, signature, f"llvm.{name}.{suffix}")
    return builder.call(function, values)


@instruction
def square_root(typing: Any, a: Any) -> Any:
    """Return the square roots of a vector."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _call_llvm(builder, "sqrt", *values)

    return a(a), build


def masked_load(builder: Any, place: Any, mask: Any) -> Any:
    """Return a vector of what lies behind a pointer to one; zero where the mask is not set."""
    kind = place.type.pointee
    arguments = place, _alignment(kind), mask, ir.Constant(kind, None)
    return _call_masked(builder, kind, "load", kind, arguments)


def masked_store(builder: Any, vector: Any, place: Any, mask: Any) -> None:
    """Write the elements of a vector for which the mask is set."""
    arguments = vector, place, _alignment(vector.type), mask
    _call_masked(builder, vector.type, "store", ir.VoidType(), arguments)


def _alignment(kind: Any) -> Any:
    return ir.Constant(ir.IntType(32), 4 if isinstance(kind.element, ir.FloatType) else 8)


def _call_masked(builder: Any, vector: Any, name: str, result: Any, arguments: Any) -> Any:
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    bits = 8 * int(_alignment(vector).constant)
    name = f"llvm.masked.{name}.v{vector.count}f{bits}.p0"
    return builder.call(_cg.get_or_insert_function(builder.module, signature, name), arguments)
