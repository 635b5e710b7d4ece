"""The clock of `time.perf_counter`, for machine code."""

from __future__ import annotations

import ctypes
import time
from functools import cache


@cache
def clock_address() -> int:
    """Return the address of the C function `clock_gettime`, which reads that clock.

    Its clock is `time.CLOCK_MONOTONIC`. 0 where Python reads another one, or where a time is not
    two numbers of 8 bytes.
    """
    read = time.get_clock_info("perf_counter").implementation
    if read != "clock_gettime(CLOCK_MONOTONIC)" or ctypes.sizeof(ctypes.c_long) != 8:
        return 0
    function = ctypes.CDLL(None).clock_gettime
    return ctypes.cast(function, ctypes.c_void_p).value or 0
