"""What pytest leaves out when it collects, and which tests must not run side by side."""

import importlib.util

import pytest

# This module cannot be imported without torch, and says so.
collect_ignore = [] if importlib.util.find_spec("torch") else ["pint/torch.py"]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items):
    """Begin with tests that start MPI ranks, on one of pytest-xdist's workers: they are long."""
    items.sort(key=lambda item: item.get_closest_marker("mpi") is None)
    for item in items:
        if item.get_closest_marker("mpi"):
            item.add_marker(pytest.mark.xdist_group("mpi"))
