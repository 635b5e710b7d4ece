"""The example of a model that is parallel in space, on one process; more in tests/mpi."""

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions
from pint.models.heat_in_parts import HeatInParts
from pint.parallel.comm import SerialCommunicator


def test_sine_shrinks_as_forward_euler_says():
    model = HeatInParts(9, SerialCommunicator(), length=2.0, diffusivity=0.5)
    dt = 0.4 * model.dx**2 / 0.5
    mode = np.sin(np.pi * model.nodes)
    factor = 1 - 0.4 * 4 * np.sin(np.pi * model.dx / 2) ** 2
    result = MGRIT(model, dt * np.arange(9), MGRITOptions(levels=1)).solve(mode)
    expected = factor ** np.arange(9)[:, None] * mode
    np.testing.assert_allclose(result.u, expected, rtol=0, atol=1e-14)


def test_norm_is_that_of_all_nodes():
    model = HeatInParts(9, SerialCommunicator())
    u = np.random.default_rng(1).normal(size=9)
    assert model.norm(u) == pytest.approx(np.linalg.norm(u), rel=1e-15)


def test_unstable_steps_and_too_few_nodes_are_refused():
    model = HeatInParts(9, SerialCommunicator())
    with pytest.raises(ValueError, match="dx\\^2 must be at most 1/2, got 1"):
        MGRIT(model, model.dx**2 * np.arange(9.0), MGRITOptions()).solve(np.ones(9))
    with pytest.raises(ValueError, match="num_nodes must be at least 1"):
        HeatInParts(0, SerialCommunicator())
