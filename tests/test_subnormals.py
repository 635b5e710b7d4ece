"""Subnormal numbers: zero inside the kernels of recurrent layers, and as ever outside."""

from dataclasses import replace

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, TimeGrid
from pint.simd import products
from pint.simd.products import multiply
from pint.simd.vectors import VECTOR_BYTES
from tests.recurrent_models import BATCH, CELLS, FEATURES, make, normal, stack, states

PRODUCTS = "multiply", "add_product"
TINY = np.float32(1e-39)
needs_avx = pytest.mark.skipif(VECTOR_BYTES == 16, reason="the processor has no AVX")


def numpy_has_subnormals():
    """NumPy's arithmetic on this thread, with numbers that it cannot compute beforehand."""
    half = np.full(64, TINY) * np.float32(0.5)
    return bool((half > 0).all())


@needs_avx
@pytest.mark.parametrize("shape", [(20, 6, 40), (3, 6, 40), (20, 6, 5)])
def test_products_of_subnormals_are_zero(shape):
    rows, inner, columns = shape
    a = np.full((rows, inner), TINY)
    out = np.ones((rows, columns), dtype=np.float32)
    multiply(a, np.ones((inner, columns), dtype=np.float32), out)
    np.testing.assert_array_equal(out, 0)
    assert numpy_has_subnormals()
    multiply(np.ones_like(a), np.ones((inner, columns), dtype=np.float32), out)
    np.testing.assert_array_equal(out, inner)


@pytest.mark.parametrize("cell", CELLS)
def test_no_kernel_leaves_its_mode_behind(cell, monkeypatch):
    """Each is called, and NumPy is asked right after it."""
    called = set()

    def asked(name, kernel):
        def call(*arguments):
            kernel(*arguments)
            called.add(name)
            assert numpy_has_subnormals(), name

        return call

    for module in ("rnn.gradient", "simd.products"):
        for name in PRODUCTS:
            kernel = asked(name, getattr(products, name))
            monkeypatch.setattr(f"pint.{module}.{name}", kernel, raising=False)
    model = make(2, cell, np.float32)
    layers = {name: asked(name, getattr(model.cell, name)) for name in ("forward", "backward")}
    model.cell = replace(model.cell, **layers)
    solver = MGRIT(model, TimeGrid.uniform(0, 12, 12), MGRITOptions(levels=1))
    model.set_inputs(normal(BATCH, 12, FEATURES, dtype=np.float32))
    u = states(model, 3)
    result = solver.solve(u[0])
    AdjointSolver(solver).solve(result, u[1])
    step = stack([1, 5, 9], 1)
    model.step(u, step)
    model.linearize(u, step).adjoint(u, slice(0, 3, 1))
    assert called == {*PRODUCTS, "forward", "backward"}


@needs_avx
@pytest.mark.parametrize("cell", CELLS)
def test_adjoint_states_that_fade_become_zero(cell):
    """Not subnormal: after 400 steps of a network that forgets, in single precision."""
    model, num_steps = make(1, cell, np.float32), 400
    solver = MGRIT(model, TimeGrid.uniform(0, num_steps, num_steps), MGRITOptions(levels=1))
    model.set_inputs(normal(BATCH, num_steps, FEATURES, dtype=np.float32))
    u = states(model, 2)
    w = AdjointSolver(solver).solve(solver.solve(u[0]), u[1]).w
    normal_least = np.finfo(np.float32).tiny
    assert ((w == 0) | (np.abs(w) >= normal_least)).all()
    assert (w[-1] == 0).any()
