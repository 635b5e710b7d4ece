"""Compiled functions made for a user's kernel, kept on disk between runs.

Numba keeps a closure under the pickled contents of its cells, and a compiled function among them
pickles otherwise in every process, so that nothing would be found again. Here the key is
the bytecode and the constants of a kernel, and of all functions that it calls, in any file.

Symbols in the machine code are made of a function's qualified name and a counter that restarts
in every process. Functions of one name, as closures are, would be taken for each other when one
comes from the disk and the other does not; so the fingerprint is made part of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import njit
from numba.core.caching import FunctionCache
from numba.core.extending import _Intrinsic
from numba.core.registry import CPUDispatcher

from pint.simd.announcement import announce_compilation

# No fused products, reassociation or assumption about NaN beside those that are written out: where
# compilers choose between vector code and a plain loop, both round alike, and NaN is passed on.
FASTMATH = {"nsz"}

announce_compilation()


class _KernelCache(FunctionCache):
    """Numba's cache of a function, under a fingerprint in place of its pickled closure."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._function = function

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self._function)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), self._fingerprint


def cached(dispatcher: Any) -> Any:
    """Let a jitted function, not called yet, keep its machine code on disk; return it."""
    dispatcher._cache = _KernelCache(dispatcher.py_func)
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compile with the one set of options that kernels share, once until anything in it changes."""
    return cached(njit(nogil=True, error_model="numpy", fastmath=FASTMATH)(function))


def named(function: Callable[..., Any], tag: str) -> Callable[..., Any]:
    """Add a tag to the name that a function has in machine code; return it."""
    function.__qualname__ += f"_{tag}"
    return function


def named_by_content(dispatcher: Any) -> Any:
    """Return a jitted function once more, named by its fingerprint, as are those in its cells."""
    function = dispatcher.py_func
    cells = [
        CellType(named_by_content(cell.cell_contents)) if _is_jitted(cell) else cell
        for cell in function.__closure__ or ()
    ]
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(cells),
    )
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    function = named(copy, fingerprint(dispatcher)[:16])
    return CPUDispatcher(function, dispatcher.locals, dispatcher.targetoptions)


def _is_jitted(cell: Any) -> bool:
    return isinstance(cell.cell_contents, CPUDispatcher)


def fingerprint(function: Callable[..., Any]) -> str:
    """Return a digest of a function's code, constants, and all that it refers to.

    Parameters
    ----------
    function : callable
        A Python function, or one compiled by Numba.

    Returns
    -------
    str
        The same in every process; another one after any edit that Numba would see in a process.
    """
    digest = hashlib.sha256()
    for part in _parts(function, set()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield the parts of a value that a kernel refers to, functions with their references."""
    if isinstance(value, CPUDispatcher):
        yield repr(sorted(map(repr, value.targetoptions.items())))
        value = value.py_func
    if isinstance(value, FunctionType):
        yield from _parts_of_function(value, seen)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    elif isinstance(value, _Intrinsic):
        yield from _parts(value._defn, seen)
    elif isinstance(value, tuple) or _is_own_class(value):
        if isinstance(value, type):
            yield value.__qualname__
        for entry in value if isinstance(value, tuple) else vars(value).values():
            yield from _parts(entry, seen)
    else:
        is_named = isinstance(value, ModuleType | type)
        yield value.__name__ if is_named else _without_address(value)


def _is_own_class(value: Any) -> bool:
    return isinstance(value, type) and value.__module__.startswith("pint.")


def _parts_of_function(function: FunctionType, seen: set[int]) -> Iterator[str]:
    if id(function) in seen:  # recursion
        return
    seen.add(id(function))
    yield f"{function.__module__}.{function.__qualname__}"  # machine code refers to its module
    yield from _parts_of_code(function.__code__)
    yield repr(function.__defaults__)
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents, seen)
    for name in sorted(_names(function.__code__)):
        yield from _parts(function.__globals__.get(name), seen)


def _parts_of_code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts_of_code(constant)
        else:
            yield repr(constant)


def _names(code: CodeType) -> set[str]:
    """Return the global names that a function and the functions inside it may refer to."""
    nested = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_names, nested))


def _without_address(value: object) -> str:
    """Return a value's repr, or the name of its class where that would show an address."""
    kind: Any = type(value)
    if kind.__repr__ is object.__repr__:
        return f"{kind.__module__}.{kind.__qualname__}"
    return repr(value)
