"""exp, tanh and the sigmoid function inside kernels, of floats and vectors.

Each is the same few operations for every element, without a branch, so that vectors of any length
round alike; `docs/gru.md` has the source of the numbers. NaN stays NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from pint.simd.vectors import Vector, instruction, multiply_add

_NUMERATOR = (
    1.0,
    0.13406875729560852,
    0.003526401938870549,
    2.1122390535310842e-05,
    1.4082488952738004e-08,
)
_DENOMINATOR = (
    1.0,
    0.46740198135375977,
    0.02599390223622322,
    0.00033362710382789373,
    8.070642820712237e-07,
)
"""tanh(x) is x p(x^2) / q(x^2), with p and q of these coefficients, within 2e-8 for |x| <= 8.6."""
_SATURATED = 10.0
"""From here on the quotient is greater than one."""


def _element(kind: Any) -> Any:
    return kind.element if isinstance(kind, Vector) else kind


def _number(value: float, kind: Any) -> Any:
    """Return a constant of a type, in all elements of a vector."""
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    value = float(np.float32(value)) if isinstance(element, ir.FloatType) else value
    is_vector = isinstance(kind, ir.VectorType)
    return ir.Constant(kind, [value] * kind.count if is_vector else value)


def _bounded(builder: Any, x: Any, least: float, greatest: float) -> Any:
    low, high = _number(least, x.type), _number(greatest, x.type)
    x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
    return builder.select(builder.fcmp_ordered(">", x, high), high, x)


def _polynomial(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    total = _number(coefficients[-1], x.type)
    for coefficient in coefficients[-2::-1]:
        total = multiply_add(builder, total, x, _number(coefficient, x.type))
    return total


@instruction
def exp(typing: Any, x: Any) -> Any:
    """Return exp of a float or a vector, for |x| <= 80 (float32) or 700 (float64), clamped outside.

    exp(x) = 2^k exp(r) with k the integer next to x / ln 2, and exp(r) by its Taylor polynomial on
    |r| <= ln 2 / 2; the remainder is below 5e-9 (degree 7) or 2e-16 (degree 12). Adding 1.5 2^bits
    rounds x / ln 2 to an integer and leaves it in the low bits of the sum.
    """
    is_single = _element(x) == types.float32

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _exp(builder, values[0], is_single)

    return x(x), build


def _exp(builder: Any, x: Any, is_single: bool) -> Any:
    size, bits, degree, limit = (32, 23, 7, 80.0) if is_single else (64, 52, 12, 700.0)
    high = round(math.log(2) * 2**8) / 2**8  # few bits: k * high is exact
    low = math.log(2) - high + 2.3190468138462996e-17  # ln 2 beyond float64
    kind, integers = x.type, ir.IntType(size)
    if isinstance(kind, ir.VectorType):
        integers = ir.VectorType(integers, kind.count)
    places = _number(bits, integers)
    inside, magic = _bounded(builder, x, -limit, limit), _number(1.5 * 2.0**bits, kind)
    shifted = multiply_add(builder, inside, _number(1 / math.log(2), kind), magic)
    k = builder.fsub(shifted, magic)
    r = multiply_add(builder, k, _number(-high, kind), inside)
    r = multiply_add(builder, k, _number(-low, kind), r)
    p = _polynomial(builder, r, tuple(1 / math.factorial(i) for i in range(degree + 1)))
    power = builder.shl(builder.bitcast(shifted, integers), places)
    scaled = builder.bitcast(builder.add(builder.bitcast(p, integers), power), kind)
    return builder.select(builder.fcmp_ordered("ord", x, x), scaled, x)


def _rational(builder: Any, x: Any, scale: float) -> tuple[Any, Any]:
    """Return x clamped, and p / q, of which tanh(scale x) is scale times the product."""
    x = _bounded(builder, x, -_SATURATED / scale, _SATURATED / scale)
    square = builder.fmul(x, x)
    p, q = (
        _polynomial(builder, square, tuple(c * scale ** (2 * i) for i, c in enumerate(own)))
        for own in (_NUMERATOR, _DENOMINATOR)
    )
    return x, builder.fdiv(p, q)


@instruction
def tanh(typing: Any, x: Any) -> Any:
    """Return tanh of a float or a vector, within 3e-7 (float32) or 1e-15.

    In float32 it is a rational function, and exactly one for |x| above 9; in float64 it is
    2 / (1 + exp(-2 x)) - 1.
    """
    is_single = _element(x) == types.float32

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        (x,) = values
        one = _number(1.0, x.type)
        if is_single:
            x, quotient = _rational(builder, x, 1.0)
            return _bounded(builder, builder.fmul(x, quotient), -1.0, 1.0)
        twice = builder.fmul(_number(-2.0, x.type), x)
        divisor = builder.fadd(one, _exp(builder, twice, is_single))
        return builder.fsub(builder.fdiv(_number(2.0, x.type), divisor), one)

    return x(x), build


@instruction
def sigmoid(typing: Any, x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) of a float or a vector, within 2e-7 (float32) or 1e-15.

    In float32 it is (1 + tanh(x / 2)) / 2, and exactly zero or one for |x| above 18.
    """
    is_single = _element(x) == types.float32

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        (x,) = values
        if not is_single:
            return _by_exp(builder, x, is_single)
        x, quotient = _rational(builder, x, 0.5)
        half, quarter = _number(0.5, x.type), _number(0.25, x.type)
        value = multiply_add(builder, builder.fmul(quarter, x), quotient, half)
        return _bounded(builder, value, 0.0, 1.0)

    return x(x), build


@instruction
def relative_sigmoid(typing: Any, x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) with a small relative error, for its roots; never zero."""
    is_single = _element(x) == types.float32

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _by_exp(builder, values[0], is_single)

    return x(x), build


def _by_exp(builder: Any, x: Any, is_single: bool) -> Any:
    one = _number(1.0, x.type)
    return builder.fdiv(one, builder.fadd(one, _exp(builder, builder.fneg(x), is_single)))
