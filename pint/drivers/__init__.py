"""Drivers: how a level calls the propagator."""
