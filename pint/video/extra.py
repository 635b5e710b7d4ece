"""Packages that only this part of pint needs."""

import importlib
from types import ModuleType

__all__ = ["import_video"]


def import_video(module: str) -> ModuleType:
    """Return an optional package; without it pint still imports.

    Parameters
    ----------
    module : str
        Name of a package of the extra ``video``.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} is missing: pip install "pint-mgrit[video]"') from error
