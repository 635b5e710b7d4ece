"""Drivers for Delta corrections."""

from __future__ import annotations

from dataclasses import replace

from pint.drivers.choose import make_driver
from pint.drivers.driver import Driver
from pint.mgrit.delta import CorrectedPropagator, DeltaCorrection
from pint.mgrit.diagonal import DiagonalPropagator, Diagonals
from pint.options import MGRITOptions
from pint.propagator import HasResidual, HasTangent, Propagator, check_diagonal, has


def make_corrected_driver(propagator: Propagator, options: MGRITOptions) -> Driver:
    """Return the driver that the options ask for, with the Delta correction if they have one.

    Raises
    ------
    ValueError
        If the propagator cannot be driven or corrected that way.
    """
    if options.delta is None:
        return make_driver(propagator, options)
    name, is_diagonal = type(propagator).__name__, options.delta.directions == "diagonal"
    if is_diagonal:
        check_diagonal(propagator)
    elif not has(propagator, HasTangent):
        raise ValueError(
            f"the Delta correction needs the derivative of steps, and {name} has no tangent_step: "
            "write it, or leave delta out"
        )
    if has(propagator, HasResidual):
        raise ValueError(
            f"the Delta correction adds to steps, and {name} has a residual of its own: "
            "leave one out"
        )
    wrapper, finder = (
        (DiagonalPropagator, Diagonals) if is_diagonal else (CorrectedPropagator, DeltaCorrection)
    )
    corrected = wrapper(propagator)
    driver = make_driver(corrected, replace(options, delta=None))
    driver.model = propagator
    driver.correction = finder(corrected, options.delta, driver)
    return driver
