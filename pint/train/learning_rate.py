"""The learning rate over a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pint.options import at_least, one_of


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Factor of the learning rate as a function of the number of updates.

    Parameters
    ----------
    kind : {"constant", "step", "cosine"}, default "constant"
        "step" multiplies by `decay` after every `period` updates; "cosine" falls from 1 to 0 as
        half a cosine over all updates.
    warm_up : int, default 0
        Number of first updates, over which the factor rises linearly.
    period : int, default 1000
        Updates between two decays of "step".
    decay : float, default 0.5
        Factor of each decay of "step", in (0, 1].

    References
    ----------
    Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, eq. 5,
    for the cosine; Goyal et al., arXiv:1706.02677, for the warm-up.

    Examples
    --------
    >>> round(LearningRate(kind="cosine").factor(50, 100), 12)
    0.5
    """

    kind: Literal["constant", "step", "cosine"] = "constant"
    warm_up: int = 0
    period: int = 1000
    decay: float = 0.5

    def __post_init__(self) -> None:
        one_of("kind", self.kind, ("constant", "step", "cosine"))
        at_least("warm_up", self.warm_up, 0)
        at_least("period", self.period, 1)
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be in (0, 1], got {self.decay}")

    def factor(self, update: int, num_updates: int) -> float:
        """Return the factor for update number `update` (from 0) of `num_updates`."""
        factor = 1.0
        if self.kind == "step":
            factor = self.decay ** (update // self.period)
        elif self.kind == "cosine":
            factor = math.cos(math.pi * update / (2 * num_updates)) ** 2
        return factor * min(1.0, (update + 1) / (self.warm_up + 1))
