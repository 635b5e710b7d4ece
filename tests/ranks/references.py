"""What tests compare with, computed once for all ranks and all numbers of ranks."""

import threading
from collections import Counter

from pint.parallel import world

_LOCK = threading.RLock()
_values = {}
_calls = Counter()
_test = ("", "")


def begin(function, choice):
    """Begin a run of a test function with some choice of its parameters."""
    global _test
    if function != _test[0]:
        _values.clear()
    _test = (function, choice)
    _calls.clear()


def reference(compute, *arguments):
    """Return ``compute(*arguments)``, which does not depend on the ranks.

    One rank computes it, for the first number of ranks; each rank must make all of its calls in
    the order of the other ranks.
    """
    with _LOCK:
        rank = world().rank
        key = (_test, _calls[rank])
        _calls[rank] += 1
        if key not in _values:
            _values[key] = compute(*arguments)
        return _values[key]
