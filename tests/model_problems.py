"""One small problem of each model and integrator, for tests that all of them must pass."""

from pint.models import (
    advection,
    allen_cahn,
    arenstorf,
    bdf2,
    brusselator,
    burgers,
    control,
    dahlquist,
    heat,
    heat2d,
    lorenz,
)

PROBLEMS = {
    **{f"dahlquist, {m}": dahlquist.problem(-1.0, m) for m in dahlquist.STABILITY},
    **{f"heat, {m}": heat.problem(18, m) for m in heat.METHODS},
    "heat2d": heat2d.problem(9),
    "advection": advection.problem(33),
    "burgers": burgers.problem(34),
    "brusselator, rk4": brusselator.problem("rk4"),
    "brusselator, dormand_prince": brusselator.problem("dormand_prince"),
    "arenstorf, rk4": arenstorf.problem("rk4"),
    "arenstorf, dormand_prince": arenstorf.problem("dormand_prince"),
    "allen_cahn": allen_cahn.problem(12),
    "control": control.problem(64),
    "lorenz, rk4": lorenz.problem(),
    "lorenz, euler": lorenz.problem(method="euler"),
    "bdf2, dahlquist": bdf2.pairs(dahlquist.problem()),
    "bdf2, heat": bdf2.pairs(heat.problem(18)),
    "bdf2, burgers": bdf2.pairs(burgers.problem(12)),
}
