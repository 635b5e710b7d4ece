"""Sphinx configuration of the manual."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

# The apps belong to the checkout, not to the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "pint"
author = "The pint developers"
copyright = "2026, the pint developers"
release = installed_version("pint-mgrit")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"pint {release}"
