"""Packages that only a part of pint needs."""

import sys

import pytest

from pint.optional import import_extra


def test_a_package_that_is_there_is_returned():
    assert import_extra("os.path", "data") is sys.modules["os.path"]


def test_a_package_that_is_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'^pooch is missing: pip install "pint-mgrit\[video\]"$'):
        import_extra("pooch", "video")
