"""Transfers between grids in space."""

import numpy as np
import pytest

from pint.models.transfer import full_weighting, linear


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_linear_functions_survive_both_ways(ndim):
    fine = np.meshgrid(*[np.linspace(0, 1, 9 + 4 * k) for k in range(ndim)], indexing="ij")
    coarse = np.meshgrid(*[np.linspace(0, 1, 5 + 2 * k) for k in range(ndim)], indexing="ij")
    slopes = np.arange(1.0, ndim + 1)
    u = 3 + np.tensordot(slopes, np.array(fine), 1)
    v = 3 + np.tensordot(slopes, np.array(coarse), 1)
    np.testing.assert_allclose(full_weighting(np.stack([u, -u]), ndim), [v, -v], atol=1e-14)
    np.testing.assert_allclose(linear(np.stack([v, 2 * v]), ndim), [u, 2 * u], atol=1e-14)


def test_full_weighting_is_half_the_transpose_of_interpolation_inside():
    """In one dimension R = P^T / 2 away from the ends; in two, a quarter."""
    P, R = linear(np.eye(5)).T, full_weighting(np.eye(9)).T
    np.testing.assert_allclose(R[1:-1], P.T[1:-1] / 2)
    for ndim, size in ((1, (5,)), (2, (5, 3))):
        unit = np.zeros(size)
        unit[(2, 1)[:ndim]] = 1.0
        spread = linear(unit, ndim)
        w = np.random.default_rng(0).normal(size=spread.shape)
        weighted = full_weighting(w, ndim)
        assert np.isclose(weighted[(2, 1)[:ndim]], (w * spread).sum() / 2**ndim)


def test_states_on_a_torch_tensor():
    torch = pytest.importorskip("torch", reason="torch is an independent reference, not required")
    u = np.random.default_rng(1).normal(size=(2, 9, 5))
    for transfer in (full_weighting, linear):
        ours = transfer(torch.as_tensor(u), 2)
        np.testing.assert_allclose(ours.numpy(), transfer(u, 2), atol=1e-15)


@pytest.mark.parametrize("num_nodes", [1, 2, 8])
def test_even_numbers_of_nodes_are_refused(num_nodes):
    with pytest.raises(ValueError, match=f"odd number of nodes, at least 3, got {num_nodes}"):
        full_weighting(np.zeros((3, num_nodes)))
