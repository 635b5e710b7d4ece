"""Which parameters a test on many processes is tried with: all on few ranks, some on more."""

from itertools import product

from pint.parallel.comm import world

FEW = 2


def crossed(*axes, of):
    """Return all combinations on few ranks; on more one of `of`, with every value of every axis.

    It is those whose places on the axes add up to the number of ranks, but for multiples of `of`:
    for two axes a Latin square, in which each value of one meets some values of the other.
    """
    size = world().size
    places = product(*(range(len(axis)) for axis in axes))
    chosen = [at for at in places if size <= FEW or (sum(at) - size) % of == 0]
    assert all({at[k] for at in chosen} == {*range(len(axis))} for k, axis in enumerate(axes))
    return [tuple(axis[k] for axis, k in zip(axes, at, strict=True)) for at in chosen]


def pipelined(choices):
    """Return all pairs of a name and one of its choices; on more ranks one pair for each name."""
    size = world().size
    return [
        (name, choice)
        for place, (name, own) in enumerate(choices.items())
        for choice in (own if size <= FEW else [own[(place + size) % len(own)]])
    ]
