"""Choose the driver for a model and its options."""

from __future__ import annotations

from pint.drivers.driver import Driver
from pint.drivers.loop import LoopDriver, SingleStackDriver
from pint.drivers.stack import StackDriver
from pint.options import MGRITOptions
from pint.propagator import HasResidual, Propagator, has


def make_driver(propagator: Propagator, options: MGRITOptions) -> Driver:
    """Return the driver that the options ask for.

    Raises
    ------
    ValueError
        If a stack driver is asked of a propagator that is not batched, a compiled one of a
        propagator without a kernel.
    """
    name, threads = type(propagator).__name__, options.threads
    if options.driver == "stack" and not propagator.batched:
        raise ValueError(
            f"driver 'stack' needs a batched propagator, and {name} is not: "
            "set batched = True and let step take stacks, or use driver 'loop'"
        )
    if has(propagator, HasResidual):
        return _implicit_driver(propagator, options)
    if options.driver in ("auto", "compiled"):
        if propagator.kernel is not None:
            from pint.drivers.compiled import CompiledDriver  # Numba, only where it is needed

            return CompiledDriver(propagator, threads)
        if options.driver == "compiled":
            raise ValueError(
                f"driver 'compiled' needs a propagator with a kernel, and {name} has none: "
                "set kernel to a function compiled by Numba, or use driver 'loop' or 'stack'"
            )
    if not propagator.batched:
        return LoopDriver(propagator, threads)
    kind = SingleStackDriver if options.driver == "loop" else StackDriver
    return kind(propagator, threads)


def _implicit_driver(propagator: Propagator, options: MGRITOptions) -> Driver:
    """Return the driver of a propagator that gives its own equation."""
    if options.driver == "compiled":
        raise ValueError(
            f"driver 'compiled' takes residuals u - Phi, and {type(propagator).__name__} has a "
            "residual of its own: use driver 'loop' or 'stack'"
        )
    from pint.drivers.residual_form import ResidualFormDriver

    stacks = propagator.batched and options.driver != "loop"
    return ResidualFormDriver(propagator, stacks, options.threads)
