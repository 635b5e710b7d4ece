"""Runs each test of this folder on ranks that are threads; every rank runs every line.

A test function runs on 2, 3, 4 and 7 ranks, or on the ranks of its marker `ranks`. With at least
four choices of parameters it gets one number of ranks for each choice, in turn.
"""

import re

import pytest

from pint.parallel import run_on_threads
from tests.ranks import references

SIZES = (2, 3, 4, 7)


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("ranks")
    sizes = marker.args if marker else SIZES
    metafunc.parametrize("num_ranks", sizes, ids=[f"{size} ranks" for size in sizes], indirect=True)


def pytest_itemcollected(item):
    item.choice = re.sub(r"-?\d ranks-?", "", item.name)


def pytest_collection_modifyitems(items):
    choices = {}
    for item in items:
        if hasattr(item, "choice"):
            of_function = choices.setdefault((item.path, item.originalname), {})
            of_function.setdefault(item.choice, len(of_function))
    items[:] = [item for item in items if not hasattr(item, "choice") or _is_kept(item, choices)]


def _is_kept(item, choices):
    of_function = choices[item.path, item.originalname]
    if item.get_closest_marker("ranks"):
        return True
    place, count = of_function[item.choice], -(-len(SIZES) // len(of_function))
    first = place * count if count > 1 else place + place // len(SIZES)
    kept = {SIZES[(first + k) % len(SIZES)] for k in range(count)}
    return item.callspec.params["num_ranks"] in kept


@pytest.fixture(autouse=True)
def num_ranks(request):
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    references.begin(f"{pyfuncitem.path} {pyfuncitem.originalname}", pyfuncitem.choice)
    run_on_threads(pyfuncitem.funcargs["num_ranks"], lambda comm: pyfuncitem.obj(**arguments))
    return True
