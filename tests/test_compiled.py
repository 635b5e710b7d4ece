"""The compiled driver: whole solves, threads, replayed cycles, and what is kept on disk."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.event import install_recorder

from pint import MGRIT, AdjointSolver, MGRITOptions, Propagator, TimeGrid
from pint.drivers.compiled import SPLIT, CompiledDriver
from pint.models.dahlquist import Dahlquist
from pint.simd.kernel_cache import fingerprint
from tests.engine_models import CompiledSwirl, stepped, uneven_times

ROOT = Path(__file__).resolve().parents[1]
START = np.array([0.5, -0.3, 0.8])


@numba.njit
def diffuse(u, start, stop, level, params, out):
    """Explicit diffusion on a torus of two dimensions."""
    rows, columns = u.shape
    for i in range(rows):
        for j in range(columns):
            around = u[i - 1, j] + u[(i + 1) % rows, j] + u[i, j - 1] + u[i, (j + 1) % columns]
            out[i, j] = u[i, j] + (stop - start) * (around - 4 * u[i, j])


class Diffusion(Propagator):
    """Explicit diffusion, by array operations and by a kernel."""

    kernel = diffuse

    def __init__(self, shape=(5, 4), dtype=np.float64):
        self.state_shape, self.dtype = shape, np.dtype(dtype)

    def step(self, u, step):
        around = sum(np.roll(u, shift, axis) for axis in (0, 1) for shift in (1, -1))
        return (u + step.dt * (around - 4 * u)).astype(self.dtype)


class Halving(Diffusion):
    """Every coarser level keeps every other row."""

    def restrict(self, u, level):
        return u[::2].copy()

    def interpolate(self, u, level):
        return np.repeat(u, 2, axis=0)


def solve(propagator, driver, start, sources=None, **options):
    settings = MGRITOptions(driver=driver, **{"coarsening": 3, "levels": 3} | options)
    return MGRIT(propagator, uneven_times(61) / 20, settings).solve(start, 0.1, sources)


def assert_alike(result, expected, dtype=np.float64):
    allowed = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(result.u, expected.u, rtol=0, atol=allowed)
    np.testing.assert_allclose(result.residuals, expected.residuals, rtol=1e-10, atol=allowed)
    assert result.num_steps == expected.num_steps
    assert result.status is expected.status


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("relax", [0, 1, 2])
def test_states_of_two_dimensions(dtype, skip, relax):
    start = np.random.default_rng(0).normal(size=(5, 4)).astype(dtype)
    if dtype is np.complex128:
        start += 1j * start[::-1]
    sources = np.random.default_rng(1).normal(size=(62, 5, 4)).astype(dtype)
    options = {"max_iterations": 3, "relax": relax, "skip_first_down": skip}
    for g in (None, sources):
        loop, compiled = (
            solve(Diffusion(dtype=dtype), driver, start, g, **options)
            for driver in ("loop", "compiled")
        )
        assert compiled.u.dtype == dtype
        assert_alike(compiled, loop, start.real.dtype)


@pytest.mark.parametrize("coarsest", ["gather", "pipelined", "relaxation"])
def test_levels_that_differ_in_space(coarsest):
    start = np.random.default_rng(0).normal(size=(8, 4))
    options = {"max_iterations": 4, "coarsest": coarsest}
    loop, compiled = (
        solve(Halving((8, 4)), driver, start, **options) for driver in ("loop", "compiled")
    )
    assert_alike(compiled, loop)


def test_one_level_is_time_stepping():
    times = uneven_times(40)
    result = MGRIT(CompiledSwirl(), times, MGRITOptions(levels=1)).solve(START)
    np.testing.assert_allclose(result.u, stepped(CompiledSwirl(), times, START), atol=1e-14)


def test_threads_give_the_same_bits():
    """The grid is long enough that sweeps of the two finest levels are split."""
    grid = TimeGrid.uniform(0.0, 50.0, 16 * SPLIT)
    results = [
        MGRIT(
            Dahlquist(-0.3),
            grid,
            MGRITOptions(levels=4, coarsening=4, max_iterations=3, threads=threads),
        ).solve(1.0)
        for threads in (1, 2, 3)
    ]
    for other in results[1:]:
        assert np.array_equal(other.u, results[0].u)
        assert np.array_equal(other.residuals, results[0].residuals, equal_nan=True)
        assert other.num_steps == results[0].num_steps


def test_solves_do_not_disturb_each_other():
    """A cycle that is replayed reads the new solve's arrays and leaves the old result alone."""
    times = uneven_times(40)
    options = MGRITOptions(levels=3, max_iterations=4, skip_first_down=False)
    sources = np.random.default_rng(0).normal(size=(41, 3))
    solver = MGRIT(CompiledSwirl(coarsening=(2, 2)), times, options)
    tasks = [(START, None), (2 * START, sources), (START, None), (-START, None)]
    results = [solver.solve(start, g, g) if g is None else solver.solve(start, 0.2, g)
               for start, g in tasks]  # fmt: skip
    for (start, g), result in zip(tasks, results, strict=True):
        fresh = MGRIT(CompiledSwirl(coarsening=(2, 2)), times, options)
        expected = fresh.solve(start, None if g is None else 0.2, g)
        assert np.array_equal(result.u, expected.u)
        assert np.array_equal(result.residuals, expected.residuals)
        assert result.num_steps == expected.num_steps


def test_parameters_are_read_anew_by_every_solve():
    propagator = Dahlquist(-1.0)
    solver = MGRIT(propagator, np.arange(9.0), MGRITOptions(tolerance=1e-12))
    solver.solve(1.0)
    propagator.parameters[0] = -3.0
    np.testing.assert_allclose(solver.solve(1.0).u, 0.25 ** np.arange(9), atol=1e-12)


def test_adjoint_of_a_compiled_solve():
    """du_N / du_0 = 2^-8; the adjoint has no kernel and takes another driver."""
    options = MGRITOptions(driver="compiled", tolerance=1e-14)
    forward = MGRIT(Dahlquist(-1.0), np.arange(9.0), options)
    gradient = AdjointSolver(forward).solve(forward.solve(1.0), 1.0)
    assert gradient.initial_gradient == pytest.approx(2.0**-8, rel=1e-13)


def test_every_thread_has_its_own_parameters():
    class Counting(Dahlquist):
        def kernel_params(self):
            self.calls = getattr(self, "calls", 0) + 1
            return super().kernel_params()

    propagator = Counting()
    solver = MGRIT(propagator, np.arange(9.0), MGRITOptions(threads=3))
    before = propagator.calls
    solver.solve(1.0)
    assert propagator.calls == before + 3


def test_a_kernel_that_is_not_compiled_is_refused():
    class Plain(Dahlquist):
        kernel = staticmethod(diffuse.py_func)

    with pytest.raises(TypeError, match=r"kernel must be a function compiled by numba\.njit, got"):
        MGRIT(Plain(), np.arange(9.0))


def test_compiling_is_no_part_of_a_solve():
    new = time.time_ns()  # so that no machine code of an earlier run is found

    @numba.njit
    def kernel(u, start, stop, level, params, out):
        out[0] = u[0] / (1 + stop - start) if new > 0 else u[0]

    class Fresh(Dahlquist):
        pass

    Fresh.kernel = kernel
    with install_recorder("numba:compile") as before:
        solver = MGRIT(Fresh(), np.arange(9.0), MGRITOptions(max_iterations=2))
    with install_recorder("numba:compile") as during:
        result = solver.solve(1.0)
    times = [at for at, _ in before.buffer]
    assert result.compile_seconds == solver.compile_seconds > times[-1] - times[0] > 0
    assert not during.buffer


# --- What is kept on disk ------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from pint import MGRIT, MGRITOptions, Propagator
from pint.drivers.compiled import CompiledDriver
from decay import kernel

class Decay(Propagator):
    state_shape, dtype = (), np.dtype(float)

    def step(self, u, step):
        return u / (1 + step.dt)

Decay.kernel = kernel
solver = MGRIT(Decay(), np.arange(4.0), MGRITOptions(levels=1))
run = solver.driver._compiled
print(sum(run._cache_hits.values()), solver.solve(1.0).u.tolist()[-1])
"""
RATE = "import numba\n\n@numba.njit\ndef shrink(x):\n    return x / {}\n"
KERNEL = """
import numba
from rate import shrink

@numba.njit
def kernel(u, start, stop, level, params, out):
    out[0] = shrink(u[0])
"""


def run_decay(folder):
    """Solve in a new process; return how many functions came from the disk, and the result."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "NUMBA_CACHE_DIR": str(folder / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    hits, value = done.stdout.split()
    return int(hits), float(value)


def test_machine_code_is_kept_until_a_kernel_or_what_it_calls_is_edited(tmp_path):
    (tmp_path / "decay.py").write_text(KERNEL)
    (tmp_path / "rate.py").write_text(RATE.format(2))
    assert run_decay(tmp_path) == (0, 0.125)
    assert run_decay(tmp_path) == (1, 0.125)
    (tmp_path / "rate.py").write_text(RATE.format(4))  # another file than the kernel's
    assert run_decay(tmp_path) == (0, 4.0**-3)
    assert run_decay(tmp_path) == (1, 4.0**-3)


MADE = """
import sys
import numba
import numpy as np
from pint import MGRIT, MGRITOptions, Propagator

def make(rate):
    @numba.njit
    def divided(x):
        return x / rate

    @numba.njit
    def kernel(u, start, stop, level, params, out):
        out[0] = divided(u[0])

    return kernel

class Decay(Propagator):
    state_shape, dtype = (), np.dtype(float)

    def step(self, u, step):
        return u

for rate in sys.argv[1:]:
    Decay.kernel = make(float(rate))
    print(MGRIT(Decay(), np.arange(3.0), MGRITOptions(levels=1)).solve(1.0).u.tolist()[-1])
"""


def test_kernels_of_one_name_are_told_apart(tmp_path):
    """One comes from the disk, the other is compiled here, and Numba counts both as its first."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    for rates in (["2"], ["4", "2"], ["8", "4", "2"]):
        done = subprocess.run(
            [sys.executable, "-c", MADE, *rates],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout.split() == [str(float(rate) ** -2) for rate in rates]


FACTOR = 2.0
TABLE = np.array([1.0, 2.0])


def scale(x):
    return FACTOR * x + TABLE[0]


def make(power):
    def function(x):
        return x**power

    return function


def test_fingerprint_sees_code_constants_globals_and_cells(monkeypatch):
    seen = {fingerprint(scale), fingerprint(make(2)), fingerprint(make(3))}
    seen |= {fingerprint(lambda x: x + 1), fingerprint(lambda x: x + 2)}
    seen |= {fingerprint(numba.njit(scale)), fingerprint(numba.njit(fastmath=True)(scale))}
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    seen.add(fingerprint(scale))
    monkeypatch.setitem(globals(), "TABLE", np.array([1.5, 2.0]))
    seen.add(fingerprint(scale))
    assert len(seen) == 9
    assert fingerprint(make(2)) == fingerprint(make(2)) in seen


def test_fingerprint_of_functions_that_call_each_other():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert fingerprint(even) != fingerprint(odd)


def test_driver_is_one_of_a_kind():
    solver = MGRIT(Dahlquist(), np.arange(9.0))
    assert type(solver.driver) is CompiledDriver
