"""The version of the installed distribution, looked up in one place."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["DISTRIBUTION", "__version__"]

DISTRIBUTION = "pint-mgrit"
"""Name of the distribution on the package index; the import name is ``pint``."""


def _installed_version() -> str:
    """Return the distribution's version, "0+unknown" when the package was not installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+unknown"


__version__ = _installed_version()
