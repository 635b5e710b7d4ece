"""Fingerprints of states, which differ where the states do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pint.parallel.thread_team import SERIAL, ThreadTeam
from pint.rnn.fingerprints import fingerprints
from tests.recurrent_models import normal

FLOATS = [np.float32, np.float64]


def made(*shape, dtype):
    return normal(*shape).astype(dtype)


def differ(u, v):
    """Whether each state has another fingerprint."""
    return (fingerprints(u, SERIAL) != fingerprints(v, SERIAL)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(0, 2, 3), (1, 1, 1), (5, 2, 3), (70, 2, 1500)], ids=str)
def test_are_the_sums_that_they_are_said_to_be(shape, dtype):
    u = made(*shape, dtype=dtype)
    words = u.reshape(shape[0], shape[1] * shape[2]).view(np.uint32)
    rng = np.random.default_rng(0)
    numbers = [int(n) for n in rng.integers(1, 2**32, words.shape[1], dtype=np.uint32)]
    sums = [sum(map(int.__mul__, map(int, row), numbers)) % 2**64 for row in words[:2]]
    assert fingerprints(u, SERIAL)[:2].tolist() == sums
    assert np.array_equal(fingerprints(u, ThreadTeam(3)), fingerprints(u, SERIAL))


@pytest.mark.parametrize("dtype", FLOATS)
def test_do_not_depend_on_the_order_of_memory(dtype):
    u = made(6, 2, 5, dtype=dtype)
    expected = fingerprints(u, SERIAL)
    for same in (np.asfortranarray(u), np.repeat(u, 2, axis=0)[::2], u[::-1].copy()[::-1]):
        assert np.array_equal(fingerprints(same, SERIAL), expected)
    assert np.array_equal(fingerprints(u[::-1], SERIAL), expected[::-1])


@given(dtype=st.sampled_from(FLOATS), place=st.integers(0, 4999), bit=st.integers(0, 63))
def test_tell_a_change_of_any_bit(dtype, place, bit):
    u = made(1, 5000, dtype=dtype)
    changed = u.copy()
    words = changed.view(f"u{u.itemsize}")
    words[0, place] ^= words.dtype.type(1 << bit % (8 * u.itemsize))
    assert differ(u, changed)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "change",
    [
        np.negative,
        lambda u: 2 * u,
        lambda u: u[:, ::-1],
        lambda u: u + np.spacing(u),
        np.zeros_like,
    ],
    ids=["opposite", "double", "other order", "last bits", "zero"],
)
def test_tell_changes_of_all_numbers(change, dtype):
    u = made(300, 8, dtype=dtype)
    assert differ(u, change(u))


def test_look_at_bits():
    """So that NaN is what it was before, and a zero of another sign is not."""
    u = np.full((3, 4), np.nan)
    assert np.array_equal(fingerprints(u, SERIAL), fingerprints(u.copy(), SERIAL))
    assert differ(np.zeros((3, 4)), -np.zeros((3, 4)))
