"""What pytest leaves out when it collects, and with which tests it begins."""

import importlib.util

# Modules that cannot be imported without a package that `make test` does not install.
NEEDS = {"torch": "pint/torch.py", "grimp": "tests/lint/house.py"}
collect_ignore = [path for package, path in NEEDS.items() if not importlib.util.find_spec(package)]


def pytest_collection_modifyitems(items):
    """Begin with the tests that start many ranks: they are long."""
    items.sort(key=lambda item: item.get_closest_marker("mpi") is None)
