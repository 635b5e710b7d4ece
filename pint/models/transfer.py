"""Full weighting and linear interpolation, for models whose levels differ in space.

All functions work on the last axes of an array, and so on stacks of states. Nodes are evenly
spaced, including both ends, and a coarse grid has every other node.
"""

from __future__ import annotations

from typing import Any

import array_api_compat

from pint.propagator import State


def full_weighting(u: State, ndim: int = 1) -> State:
    """Restrict states to every other node by full weighting.

    Inner nodes get (1/4, 1/2, 1/4) of three neighbours, the ends keep their values. Dimensions are
    restricted one after another.

    Parameters
    ----------
    u : array, shape (..., 2 n_1 + 1, ..., 2 n_d + 1)
        Values at the nodes.
    ndim : int, default 1
        Number d of dimensions.

    Returns
    -------
    array, shape (..., n_1 + 1, ..., n_d + 1)
        New.

    Raises
    ------
    ValueError
        If a dimension has an even number of nodes, or fewer than 3.

    References
    ----------
    Briggs, Henson, McCormick, "A Multigrid Tutorial", 2nd ed., SIAM (2000), chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> full_weighting(np.array([1.0, 0.0, 4.0, 0.0, 0.0, 8.0, 2.0]))
    array([1., 2., 2., 2.])
    """
    for axis in range(-ndim, 0):
        if u.shape[axis] < 3 or u.shape[axis] % 2 == 0:
            raise ValueError(
                f"full weighting needs an odd number of nodes, at least 3, got {u.shape[axis]}: "
                "choose 2^k + 1 nodes"
            )
        u = _on_axis(_weighted, u, axis)
    return u


def linear(u: State, ndim: int = 1) -> State:
    """Interpolate states to twice the intervals: new nodes get the mean of their two neighbours.

    Parameters
    ----------
    u : array, shape (..., n_1 + 1, ..., n_d + 1)
        Values at the nodes.
    ndim : int, default 1
        Number d of dimensions; linear in one, bilinear in two.

    Returns
    -------
    array, shape (..., 2 n_1 + 1, ..., 2 n_d + 1)
        New.

    References
    ----------
    Briggs, Henson, McCormick, "A Multigrid Tutorial", 2nd ed., SIAM (2000), chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> linear(np.array([1.0, 3.0, 2.0]))
    array([1. , 2. , 3. , 2.5, 2. ])
    """
    for axis in range(-ndim, 0):
        u = _on_axis(_between, u, axis)
    return u


def _weighted(u: State) -> State:
    """Restrict along the last axis."""
    xp = array_api_compat.array_namespace(u)
    inner = u[..., 1:-2:2] / 4 + u[..., 2:-1:2] / 2 + u[..., 3::2] / 4
    return xp.concat([u[..., :1], inner, u[..., -1:]], axis=-1)


def _between(u: State) -> State:
    """Interpolate along the last axis."""
    xp = array_api_compat.array_namespace(u)
    fine = xp.empty((*u.shape[:-1], 2 * u.shape[-1] - 1), dtype=u.dtype)
    fine[..., ::2] = u
    fine[..., 1::2] = (u[..., :-1] + u[..., 1:]) / 2
    return fine


def _on_axis(transfer: Any, u: State, axis: int) -> State:
    """Apply a transfer of the last axis to another axis."""
    if axis == -1:
        return transfer(u)
    xp = array_api_compat.array_namespace(u)
    return xp.moveaxis(transfer(xp.moveaxis(u, axis, -1)), -1, axis)
