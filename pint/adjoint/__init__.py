"""The adjoint problem: propagator, solver, objectives."""
