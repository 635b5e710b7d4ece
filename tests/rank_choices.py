"""Which parameters a test on several ranks is tried with."""

from itertools import product


def crossed(*axes, of):
    """Return one of `of` combinations, with every value of every axis.

    It is those whose places on the axes add up to a multiple of `of`: for two axes a Latin square,
    in which each value of one meets some values of the other.
    """
    places = product(*(range(len(axis)) for axis in axes))
    chosen = [at for at in places if sum(at) % of == 0]
    assert all({at[k] for at in chosen} == {*range(len(axis))} for k, axis in enumerate(axes))
    return [tuple(axis[k] for axis, k in zip(axes, at, strict=True)) for at in chosen]


def paired(choices):
    """Return all pairs of a name and one of its choices."""
    return [(name, choice) for name, own in choices.items() for choice in own]
