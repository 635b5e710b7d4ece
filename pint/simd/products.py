"""Matrix products for kernels: in tiles whose sums stay in a processor's registers.

A tile of the result is a few rows by a few vectors; for each k it takes that many numbers of a, and
vectors of b, and adds their products. Every entry is summed in the order of k with fused products,
whatever tile it lies in, so that results do not depend on which rows are multiplied together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numpy.typing import NDArray

from pint.arrays import LINE, empty
from pint.parallel.thread_team import ThreadTeam
from pint.simd.kernel_cache import kernel
from pint.simd.vectors import (
    VECTOR_BYTES,
    flush_subnormals,
    instruction,
    lanes,
    load,
    masked_load,
    masked_store,
    restore_mode,
    store,
    unit,
    wide,
    without_owner,
)

Array = NDArray[Any]
_cg: Any = cgutils


class PaddedMatrix(NamedTuple):
    """A matrix on the right of products.

    Attributes
    ----------
    rows : ndarray, shape (K, at least N)
        Its contiguous rows; the last columns need not be its own.
    width : int
        N.
    """

    rows: Array
    width: int

    @classmethod
    def of(cls, matrix: Array) -> PaddedMatrix:
        """Copy a matrix, shape (K, N), so that each row begins at a cache line."""
        height, width = matrix.shape
        in_line = LINE // matrix.itemsize
        own = empty((height, -(-width // in_line) * in_line), matrix.dtype)
        own[:, :width] = matrix
        return cls(own, width)


PANEL = 4 if VECTOR_BYTES == 64 else 2
"""Vectors in a row of a tile: with six rows, their sums fill the registers but for a few."""
_UNROLLED = 4
_LINES = 2
"""Number of cache lines to prefetch in each round of k, limited by the memory bandwidth."""
_BLOCK = 128
"""Rows of b, at most, that stay in the cache while sums over many rows are made."""
_FEW = 16
"""Rows of b that stay in the cache together: then rows of `out` are written one after another."""
_FAR = 2048
"""Row stride in bytes above which rows are packed first: each row may be on its own page."""


def _general_type(kind: Any) -> Any:
    """Return an array's type without a word on its layout; int64 for a number."""
    return types.Array(kind.dtype, kind.ndim, "A") if isinstance(kind, types.Array) else types.int64


@instruction
def _general(typing: Any, array: Any) -> Any:
    """Return the same array with its general type: fewer types to compile for.

    It does not count references, see `borrowed`.
    """

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return without_owner(builder, context, array, values[0])

    return _general_type(array)(array), build


@instruction
def _address(typing: Any, array: Any) -> Any:
    """Return the address of an array's first number."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(array)(context, builder, values[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), build


@instruction
def _call(typing: Any, address: Any, given: Any) -> Any:
    """Call the function at an address, see `_address_of`, with a tuple of arrays and integers.

    A call by name would bring the function into the caller's library, to be compiled once more.
    """
    wanted = tuple(_general_type(kind) for kind in given)

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.call_conv.get_function_type(types.none, wanted)
        arguments = [
            without_owner(builder, context, own, value)
            if isinstance(own, types.Array)
            else context.cast(builder, value, own, types.int64)
            for own, value in zip(given, _cg.unpack_tuple(builder, values[1]), strict=True)
        ]
        places = [_cg.alloca_once(builder, pointer.pointee) for pointer in kind.args[:2]]
        flat = context.get_arg_packer(wanted).as_arguments(builder, arguments)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), [*places, *flat])
        return context.get_dummy_value()

    return types.void(address, given), build


@cache
def _address_of(function: Any, dtype: Any, num_arrays: int, num_integers: int) -> int:
    """Compile a kernel for matrices of a dtype, and return the address of its machine code."""
    matrix = _general_type(types.Array(from_dtype(dtype), 2, "C"))
    signature = (matrix,) * num_arrays + (types.int64,) * num_integers
    function.compile(signature)
    compiled = function.overloads[signature]
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return address


class _Tile:
    """Writes the instructions of one tile of out = a @ b, or of out += a.T @ b.

    Parameters
    ----------
    num_rows, num_vectors : int
        Its size.
    is_edge : bool
        The last vector may be cut off.
    adds : bool
        Whether it is the latter.
    fetches : bool
        Whether it brings other memory to the cache meanwhile.
    """

    def __init__(
        self, num_rows: int, num_vectors: int, is_edge: bool, adds: bool, fetches: bool
    ) -> None:
        self.num_rows, self.num_vectors = num_rows, num_vectors
        self.is_edge, self.adds, self.fetches = is_edge, adds, fetches

    def build(self, context: Any, builder: Any, kinds: Any, values: Any) -> None:
        """Write them, for arrays a, b, out, and the row i and column j where the tile begins.

        What it fetches begins at an address, and is some bytes for each of its rows.
        """
        self.builder, self.size = builder, kinds[0].dtype.bitwidth // 8
        self.real = context.get_value_type(kinds[0].dtype)
        self.vector = ir.VectorType(self.real, VECTOR_BYTES // self.size)
        a, b, out = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(kinds[:3], values[:3], strict=True)
        )
        strides_a, strides_b, strides_out = (
            _cg.unpack_tuple(builder, array.strides) for array in (a, b, out)
        )
        i, j, ahead, per_row = values[3:]
        step_row, step_k = strides_a[0], self._number(self.size)
        if self.adds:
            step_row, step_k = step_k, step_row
        left = [
            self._at(a.data, builder.mul(builder.add(i, self._number(r)), step_row))
            for r in range(self.num_rows)
        ]
        column = builder.mul(j, self._number(self.size))
        right = self._at(b.data, column)
        goals = [
            self._at(out.data, builder.add(column, builder.mul(row, strides_out[0])))
            for row in (builder.add(i, self._number(r)) for r in range(self.num_rows))
        ]
        self.mask = None
        if self.is_edge:
            columns = builder.sub(_cg.unpack_tuple(builder, out.shape)[1], j)
            before = self._number((self.num_vectors - 1) * self.vector.count)
            self.mask = _first_lanes(builder, builder.sub(columns, before), self.vector.count)
        sums = self._begin(goals)
        count = _cg.unpack_tuple(builder, b.shape)[0]
        fetch = self._fetcher(ahead, per_row, count) if self.fetches else lambda: None
        self._sum(sums, left, right, step_k, strides_b[0], count, fetch)
        for goal, row in zip(goals, sums, strict=True):
            for c, total in enumerate(row):
                self._store(builder.load(total), self._at(goal, self._number(c * VECTOR_BYTES)), c)

    def _begin(self, goals: list[Any]) -> list[list[Any]]:
        """Return places for the sums, zero at first, or what is there already."""
        zero = ir.Constant(self.vector, None)
        sums = [
            [_cg.alloca_once_value(self.builder, zero) for _ in range(self.num_vectors)]
            for _ in goals
        ]
        for goal, row in zip(goals if self.adds else [], sums, strict=False):
            for c, total in enumerate(row):
                place = self._at(goal, self._number(c * VECTOR_BYTES))
                self.builder.store(self._load(place, c), total)
        return sums

    def _fetcher(self, ahead: Any, per_row: Any, count: Any) -> Callable[[], None]:
        """Return a function that writes the fetching of a part, one for each round of `_sum`."""
        builder, byte, word = self.builder, ir.IntType(8).as_pointer(), ir.IntType(32)
        rounds = builder.udiv(count, self._number(_UNROLLED))
        parts = builder.add(builder.mul(rounds, self._number(_LINES)), self._number(1))
        part = builder.udiv(builder.mul(per_row, self._number(self.num_rows)), parts)
        place = _cg.alloca_once_value(builder, builder.inttoptr(ahead, byte))
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        prefetch = _cg.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        options = [ir.Constant(word, n) for n in (0, 2, 1)]  # data to read, to the second cache

        def fetch() -> None:
            here = builder.load(place)
            for _ in range(_LINES):
                builder.call(prefetch, [here, *options])
                here = self._at(here, part)
            builder.store(here, place)

        return fetch

    def _sum(
        self,
        sums: Any,
        left: list[Any],
        right: Any,
        step_k: Any,
        step_b: Any,
        count: Any,
        fetch: Callable[[], None],
    ) -> None:
        """Let k run; some at once, so that pointers are moved less often."""
        builder = self.builder
        places = [_cg.alloca_once_value(builder, start) for start in left]
        place_b = _cg.alloca_once_value(builder, right)

        def products(how_many: int) -> None:
            row_of_b = builder.load(place_b)
            rows_of_a = [builder.load(place) for place in places]
            for n in range(how_many):
                along_a = builder.mul(self._number(n), step_k)
                start = self._at(row_of_b, builder.mul(self._number(n), step_b))
                factors = [
                    self._load(self._at(start, self._number(c * VECTOR_BYTES)), c)
                    for c in range(self.num_vectors)
                ]
                for row, row_sums in zip(rows_of_a, sums, strict=True):
                    self._add(row_sums, self._at(row, along_a), factors)
            builder.store(self._at(row_of_b, builder.mul(self._number(how_many), step_b)), place_b)
            along_a = builder.mul(self._number(how_many), step_k)
            for place, row in zip(places, rows_of_a, strict=True):
                builder.store(self._at(row, along_a), place)

        with _cg.for_range(builder, builder.udiv(count, self._number(_UNROLLED))):
            products(_UNROLLED)
            fetch()
        with _cg.for_range(builder, builder.urem(count, self._number(_UNROLLED))):
            products(1)

    def _add(self, row_sums: list[Any], place: Any, factors: list[Any]) -> None:
        """Add a number of a times vectors of b to a row's sums."""
        builder, zero, word = self.builder, ir.Constant(self.vector, None), ir.IntType(32)
        number = builder.load(builder.bitcast(place, self.real.as_pointer()), align=self.size)
        first = builder.insert_element(zero, number, ir.Constant(word, 0))
        same_lane = ir.Constant(ir.VectorType(word, self.vector.count), None)
        number = builder.shuffle_vector(first, zero, same_lane)
        for total, factor in zip(row_sums, factors, strict=True):
            new = builder.fmul(number, factor, flags=("contract",))
            new = builder.fadd(builder.load(total), new, flags=("contract",))
            builder.store(new, total)

    def _load(self, place: Any, c: int) -> Any:
        place = self.builder.bitcast(place, self.vector.as_pointer())
        if self.mask is not None and c == self.num_vectors - 1:
            return masked_load(self.builder, place, self.mask)
        return self.builder.load(place, align=self.size)

    def _store(self, value: Any, place: Any, c: int) -> None:
        place = self.builder.bitcast(place, self.vector.as_pointer())
        if self.mask is not None and c == self.num_vectors - 1:
            masked_store(self.builder, value, place, self.mask)
        else:
            self.builder.store(value, place, align=self.size)

    def _number(self, n: int) -> Any:
        return ir.Constant(ir.IntType(64), n)

    def _at(self, start: Any, offset: Any) -> Any:
        return _cg.pointer_add(self.builder, start, offset, ir.IntType(8).as_pointer())


def _first_lanes(builder: Any, count: Any, lanes: int) -> Any:
    """Return a mask of the first `count` lanes of a vector."""
    kind, word = ir.VectorType(ir.IntType(64), lanes), ir.IntType(32)
    each = builder.insert_element(ir.Constant(kind, None), count, ir.Constant(word, 0))
    each = builder.shuffle_vector(each, each, ir.Constant(ir.VectorType(word, lanes), None))
    return builder.icmp_signed("<", ir.Constant(kind, list(range(lanes))), each)


def _tile_of(
    num_rows: int, num_vectors: int, is_edge: bool, adds: bool, fetches: bool = False
) -> Any:
    """Return a function for kernels that computes a tile, see `_Tile`."""

    @instruction
    def tile(typing: Any, a: Any, b: Any, out: Any, place: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            own = _Tile(num_rows, num_vectors, is_edge, adds, fetches)
            place = _cg.unpack_tuple(builder, values[3])
            own.build(context, builder, signature.args, [*values[:3], *place])
            return context.get_dummy_value()

        four_integers = types.UniTuple(types.intp, 4)  # type: ignore[no-untyped-call]
        return types.void(a, b, out, four_integers), build

    return tile


def _panel_of(num_rows: int, adds: bool) -> Any:
    """Return a function for kernels that computes rows i.. of a panel of out from column j on."""
    whole = _tile_of(num_rows, PANEL, False, adds, not adds)
    edges = [_tile_of(num_rows, n + 1, True, adds, not adds) for n in range(PANEL)]
    one, two, three, four = (edges * 4)[:4]

    @unit
    def panel(a: Array, b: Array, out: Array, i: int, j: int, ahead: int, per_row: int) -> None:
        in_vector = VECTOR_BYTES // out.itemsize
        rest, place = out.shape[1] - j, (i, j, ahead, per_row)
        if rest >= PANEL * in_vector:
            whole(a, b, out, place)
        elif rest <= in_vector:
            one(a, b, out, place)
        elif rest <= 2 * in_vector:
            two(a, b, out, place)
        elif rest <= 3 * in_vector:
            three(a, b, out, place)
        else:
            four(a, b, out, place)

    return panel


def _rows_of(adds: bool) -> Any:
    """Return a function for kernels that computes all rows of a panel of out from column j on."""
    six, four, three, one = (_panel_of(n, adds) for n in (6, 4, 3, 1))

    @unit
    def rows_of_panel(a: Array, b: Array, out: Array, j: int, ahead: int, per_row: int) -> None:
        rows, i = out.shape[0], 0
        while i < rows:
            place = ahead + i * per_row
            if rows - i >= 6:
                six(a, b, out, i, j, place, per_row)
                i += 6
            elif rows - i >= 4:
                four(a, b, out, i, j, place, per_row)
                i += 4
            elif rows - i == 3:
                three(a, b, out, i, j, place, per_row)
                i += 3
            else:
                one(a, b, out, i, j, place, per_row)
                i += 1

    return rows_of_panel


_set_panel, _add_to_panel, _add_to_row = _rows_of(False), _rows_of(True), _panel_of(1, True)
_wide_row, _row = _tile_of(1, 12, False, False), _tile_of(1, 4, False, False)
_narrow_row, _row_edge = _tile_of(1, 1, False, False), _tile_of(1, 1, True, False)


@kernel
def _multiply(a: Array, b: Array, out: Array, ahead: int, per_row: int, per_panel: int) -> None:
    """Multiply; prefetch the memory at an address, a part with each row and panel."""
    columns = out.shape[1]
    depth, width = b.shape[0], PANEL * (VECTOR_BYTES // out.itemsize)
    if out.shape[0] < 4 or depth <= _FEW:
        multiply_rows(a, b, out)
        return
    for j in range(0, columns, width):
        _set_panel(a, b, out, j, ahead, per_row)
        ahead += per_panel


@unit
def multiply_rows(a: Array, b: Array, out: Array) -> None:
    """Multiply row by row; in wide tiles, because additions to one sum wait for each other."""
    columns, in_vector = out.shape[1], VECTOR_BYTES // out.itemsize
    for i in range(out.shape[0]):
        j = 0
        while j < columns:
            if columns - j >= 12 * in_vector:
                _wide_row(a, b, out, (i, j, 0, 0))
                j += 12 * in_vector
            elif columns - j >= 4 * in_vector:
                _row(a, b, out, (i, j, 0, 0))
                j += 4 * in_vector
            elif columns - j >= in_vector:
                _narrow_row(a, b, out, (i, j, 0, 0))
                j += in_vector
            else:
                _row_edge(a, b, out, (i, j, 0, 0))
                j += in_vector


def multiply_at(dtype: Any) -> int:
    """Return the address that `multiply_inside` takes, for arrays of a dtype."""
    return _address_of(_multiply, dtype, 3, 3)


@unit
def multiply_inside(address: int, a: Array, b: Array, out: Array, ahead: Array) -> None:
    """Multiply as `multiply` does, in a kernel; a few rows without a call.

    The contiguous array `ahead`, which is needed next, comes to the cache meanwhile.
    """
    rows = out.shape[0]
    if rows < 4:
        multiply_rows(a, b, out)
    else:
        num_panels = out.shape[1] * out.itemsize // (PANEL * VECTOR_BYTES) + 1
        per_row = ahead.size * ahead.itemsize // (num_panels * rows)
        _call(address, (a, b, out, _address(ahead), per_row, rows * per_row))


def multiply(a: Array, b: Array, out: Array) -> None:
    """Set out = a @ b, on this thread, tile by tile.

    A panel of b as wide as a tile stays in the cache, so that nothing is copied to another order.

    Parameters
    ----------
    a : ndarray, shape (M, K)
        Its rows are contiguous.
    b : ndarray, shape (K, at least N)
        Its rows are contiguous; columns after the N-th are not used.
    out : ndarray, shape (M, N)
        Its rows are contiguous; overwritten.
    """
    _multiply_arrays(multiply_at(out.dtype), a, b, out)


@kernel
def _multiply_arrays(address: int, a: Array, b: Array, out: Array) -> None:
    mode = flush_subnormals()
    rows_are_close = 0 < a.strides[0] <= 2 * a.shape[1] * a.itemsize
    per_row = a.strides[0] if rows_are_close else 0  # the rows that the tile below needs
    _call(address, (a, b, out, _address(a) + 6 * per_row, per_row, 0))
    restore_mode(mode)


def add_product(a: Array, b: Array, out: Array, sums: Array) -> None:
    """Add a.T @ b to `out`, on this thread: the gradient of weights, from many rows.

    The sums of b's columns, the gradient of biases, cost next to nothing on the way.
    Rows are added in blocks, so that the rows of b stay in the cache.

    Parameters
    ----------
    a : ndarray, shape (K, M)
        Its rows are contiguous.
    b : ndarray, shape (K, N)
        Its rows are contiguous.
    out : ndarray, shape (M, N)
        Its rows are contiguous; changed in place.
    sums : ndarray, shape (1 or 0, N)
        The sum of b's columns is added to its row; without a row it is not computed.
    """
    _add_arrays(_address_of(_add_product, out.dtype, 5, 0), a, b, out, sums)


@kernel
def _add_arrays(address: int, a: Array, b: Array, out: Array, sums: Array) -> None:
    mode = flush_subnormals()
    # Rows far from one another are packed first, because each may be on its own page of memory.
    width = PANEL * (VECTOR_BYTES // out.itemsize)
    packed = np.empty((_BLOCK if b.strides[0] >= _FAR else 0, width), dtype=out.dtype)
    _call(address, (a, b, out, sums, packed))
    restore_mode(mode)


@kernel
def _add_product(a: Array, b: Array, out: Array, sums: Array, packed: Array) -> None:
    columns, width = out.shape[1], PANEL * (VECTOR_BYTES // out.itemsize)
    num_blocks = (b.shape[0] + _BLOCK - 1) // _BLOCK
    ones = np.ones((_BLOCK, 1), dtype=out.dtype)
    for block in range(num_blocks):
        begin, end = block * b.shape[0] // num_blocks, (block + 1) * b.shape[0] // num_blocks
        left = a[begin:end]
        for j in range(0, columns, width):
            right, goal = b[begin:end, j : j + width], out[:, j : j + width]
            if packed.shape[0] > 0:
                _copy_rows(right, packed)
                right = packed[: end - begin]
            _add_to_panel(left, right, goal, 0, 0, 0)
            if sums.shape[0] > 0:
                _add_to_row(_general(ones), right, sums[:, j : j + width], 0, 0, 0, 0)


@unit
def _copy_rows(a: Array, out: Array) -> None:
    rows, columns = a.shape
    like = wide(a)
    for k in range(rows):
        if columns < lanes(like):
            for j in range(columns):
                out[k, j] = a[k, j]
        else:
            for i in range(0, columns, lanes(like)):
                j = min(i, columns - lanes(like))
                store(load(like, a, (k, j)), out, (k, j))


def is_flat(a: Array) -> bool:
    """Return whether `flat` returns a view with contiguous rows."""
    by_point, by_row, by_number = a.strides
    points, rows, width = a.shape
    is_one_axis = points < 2 or rows < 2 or by_point == rows * by_row
    return is_one_axis and (width < 2 or by_number == a.itemsize)


def flat(a: Array) -> Array:
    """Return points and sequences, the first two axes, as one axis."""
    return a.reshape(a.shape[0] * a.shape[1], a.shape[2])


def pairs_of(a: Array, b: Array) -> list[tuple[Array, Array]]:
    """Return pairs of matrices over the longest runs of points, of two arrays (n, B, ...)."""
    if a.shape[2] > 1 and a.strides[2] != a.itemsize:
        a = np.ascontiguousarray(a)
    return [(flat(a), flat(b))] if is_flat(a) and is_flat(b) else list(zip(a, b, strict=True))


def product(a: Array, b: PaddedMatrix, team: ThreadTeam, out: Array | None = None) -> Array:
    """Return a @ b for a of shape (n, B, K), as one product if a allows that, shape (n, B, N).

    The result is `out` if that has its shape, and new otherwise.
    """
    shape = (*a.shape[:2], b.width)
    if out is None or out.shape != shape:
        out = empty(shape, a.dtype)
    if out.size == 0:
        return out
    pairs = pairs_of(a, out)

    def multiply_rows(own: slice) -> None:
        for left, rows in pairs:
            multiply(left[own], b.rows, rows[own])

    team.split(pairs[0][0].shape[0], multiply_rows, least=64)
    return out
