"""Import packages of the extra `video`."""

from types import ModuleType

from pint.optional import import_extra

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
        If it is not installed; the message has the command.
    """
    return import_extra(module, "video")
