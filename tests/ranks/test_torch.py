"""The torch modules over the ranks: outputs and gradients of one process, on any number."""

import copy
import threading

import numpy as np
import pytest

from pint import MGRITOptions
from pint.parallel.comm import world

torch = pytest.importorskip("torch", reason="torch is an optional extra: pint[torch]")
layers = pytest.importorskip("pint.torch")

SEED = threading.Lock()
"""Ranks that are threads have one random generator."""

OPTIONS = {
    "stepped": MGRITOptions(levels=1),
    "gather": MGRITOptions(levels=3, coarsening=(4, 2), relax=(0, 1), tolerance=1e-14),
    "in turn": MGRITOptions(levels=2, coarsening=2, coarsest="pipelined", tolerance=1e-14),
}


def module_of(kind, comm, **options):
    """The same parameters on every rank, and for every communicator."""
    with SEED:
        torch.manual_seed(0)
        return getattr(layers, kind)(3, 4, comm=comm, dtype=torch.float64, **options)


def outcome(module, num_steps, lengths=None):
    """Output, final state and all gradients, of two calls in one graph."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_steps, 2, 3, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    weights = torch.randn(num_steps, 2, 1, generator=generator, dtype=torch.float64)
    given = x
    if lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, final = module(given)
    if lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output)
    final = final[0] if isinstance(final, tuple) else final
    again, _ = module(2 * x[: num_steps // 2])
    ((weights * output.square()).sum() + final.sum() + again.sum()).backward()
    named = {name: weight.grad for name, weight in module.named_parameters()}
    return named | {"output": output.detach(), "final": final.detach(), "x": x.grad}


def assert_same(actual, expected):
    for name, tensor in expected.items():
        assert tensor.abs().max() > 1e-3, name
        np.testing.assert_allclose(actual[name], tensor, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("how", list(OPTIONS))
@pytest.mark.parametrize("kind", ["GRU", "ImplicitGRU", "LSTM"])
@pytest.mark.parametrize("num_steps", [5, 24])
def test_ranks_give_what_one_process_gives(num_steps, kind, how):
    options = {"num_layers": 2, "forward_options": OPTIONS[how]}
    expected = outcome(module_of(kind, None, num_layers=2), num_steps)
    assert_same(outcome(module_of(kind, world(), **options), num_steps), expected)


@pytest.mark.parametrize("how", list(OPTIONS))
def test_packed_sequences_in_both_directions(how):
    options = {"bidirectional": True, "forward_options": OPTIONS[how]}
    lengths = torch.tensor([9, 24])
    expected = outcome(module_of("GRU", None, bidirectional=True), 24, lengths)
    assert_same(outcome(module_of("GRU", world(), **options), 24, lengths), expected)


def test_copies_work_on_the_same_ranks():
    module = module_of("GRU", world(), forward_options=OPTIONS["gather"])
    other = copy.deepcopy(module)
    assert_same(outcome(other, 24), outcome(module, 24))
