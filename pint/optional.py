"""Packages that only a part of pint needs."""

import importlib
from types import ModuleType

__all__ = ["import_extra"]


def import_extra(module: str, extra: str) -> ModuleType:
    """Return an optional package, which is imported where it is needed: pint imports without it.

    Parameters
    ----------
    module : str
        Name of a package, or of a module of it.
    extra : str
        The extra of pint's installation that holds it.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to.

    Examples
    --------
    >>> import_extra("json", "data").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} is missing: pip install "pint-mgrit[{extra}]"') from error
