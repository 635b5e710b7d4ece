"""Drivers to be run under mpiexec: parse the options, build, run, save.

The folder is the package `apps` in a checkout and `pint.apps` once installed, so its modules
import each other relatively.
"""

NAMES = (
    "advection",
    "allen_cahn",
    "arenstorf",
    "brusselator",
    "burgers",
    "control",
    "dahlquist",
    "heat",
    "heat2d",
    "hmdb51",
    "lorenz",
    "own_cell_numba",
    "own_cell_numpy",
    "own_cell_torch",
    "train",
)
"""Names of the drivers, for `pint run`."""
