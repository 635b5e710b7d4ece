"""The clock of machine code equals Python's clock."""

import time

import numpy as np
import pytest

from pint.drivers.choose import make_driver
from pint.drivers.clock import clock_address
from pint.drivers.operations import FIRST_PART, LAST_TICK, TICK
from pint.models.dahlquist import Dahlquist
from pint.options import MGRITOptions


def test_ticks_add_what_the_clock_of_python_says():
    if not clock_address():
        pytest.skip("Python reads another clock here")
    driver = make_driver(Dahlquist(-1.0), MGRITOptions(driver="compiled"))
    driver.compile()
    ticks = np.zeros(FIRST_PART + 3, dtype=np.int64)
    clock = (clock_address(), ticks.ctypes.data, time.CLOCK_MONOTONIC)
    begin = ticks[LAST_TICK] = time.perf_counter_ns()
    program = np.array([(TICK, 0, *clock, part) for part in (2, 0, 2)])
    driver._run(program, driver._table, driver._params[0])
    assert begin <= ticks[LAST_TICK] <= time.perf_counter_ns()
    assert ticks[FIRST_PART + 1] == 0
    assert (ticks[[FIRST_PART, FIRST_PART + 2]] > 0).all()
    assert ticks[FIRST_PART:].sum() == ticks[LAST_TICK] - begin


def test_another_clock_has_no_address(monkeypatch):
    clock_address.cache_clear()
    with monkeypatch.context() as patch:
        other = type("Info", (), {"implementation": "mach_absolute_time()"})
        patch.setattr(time, "get_clock_info", lambda name: other)
        assert clock_address() == 0
    clock_address.cache_clear()
