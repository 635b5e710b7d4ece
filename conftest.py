"""What pytest leaves out when it collects, and with which tests it begins."""

import importlib.util

# This module cannot be imported without torch, and says so.
collect_ignore = [] if importlib.util.find_spec("torch") else ["pint/torch.py"]


def pytest_collection_modifyitems(items):
    """Begin with the tests that start many ranks: they are long."""
    items.sort(key=lambda item: item.get_closest_marker("mpi") is None)
