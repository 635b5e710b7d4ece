"""Drivers to be run under mpiexec: parse the options, build, run, save."""
