"""The torch modules against torch's own, finite differences, and a plain NumPy reference."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

from pint import MGRITOptions
from tests.launcher import ROOT, environment
from tests.recurrent_reference import Reference, Sequences

torch = pytest.importorskip("torch", reason="torch is an optional extra: pint[torch]")
layers = pytest.importorskip("pint.torch")
rnn = torch.nn.utils.rnn

STEPS, BATCH, FEATURES, HIDDEN = 7, 4, 3, 5
PEERS = {"GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}
PARALLEL = MGRITOptions(levels=3, coarsening=2, relax=(0, 1), tolerance=1e-14)


def make(kind, num_layers=1, scale=1.5, **options):
    """A module of float64 with weights large enough for gates that open and close."""
    torch.manual_seed(1)
    module = getattr(layers, kind)(
        FEATURES, HIDDEN, num_layers, **{"dtype": torch.float64} | options
    )
    with torch.no_grad():
        for weight in module.parameters():
            weight *= scale
    return module


def peer_of(module):
    """The torch module with the same parameters."""
    kind = torch.nn.LSTM if isinstance(module, torch.nn.LSTM) else torch.nn.GRU
    peer = kind(
        module.input_size,
        module.hidden_size,
        module.num_layers,
        batch_first=module.batch_first,
        bidirectional=module.bidirectional,
        dtype=module.weight_ih_l0.dtype,
    )
    peer.load_state_dict(module.state_dict(), strict=True)
    return peer


def normal(*shape, seed=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def states(module, *batch, seed=3):
    """Random initial states, and derivatives with respect to final ones."""
    count = module.num_layers * (2 if module.bidirectional else 1)
    h, c = normal(2, count, *batch, module.hidden_size, seed=seed)
    return (h, c) if isinstance(module, torch.nn.LSTM) else (h,)


def as_hx(tensors):
    return tensors if len(tensors) == 2 else tensors[0]


def as_tuple(hx):
    return hx if isinstance(hx, tuple) else (hx,)


def outcome(module, x, start, d_output=None, d_final=None):
    """Output, final states, and the gradients of input, initial states and parameters."""
    data = x.data if isinstance(x, rnn.PackedSequence) else x
    data = data.clone().requires_grad_()
    start = tuple(state.clone().requires_grad_() for state in start)
    packed = x._replace(data=data) if isinstance(x, rnn.PackedSequence) else data
    output, final = module(packed, as_hx(start))
    output, final = output.data if isinstance(x, rnn.PackedSequence) else output, as_tuple(final)
    heads = [] if d_output is None else [(output, d_output)]
    heads += [] if d_final is None else zip(final, d_final, strict=True)
    module.zero_grad()
    torch.autograd.backward(*zip(*heads, strict=True))
    named = {f"start {i}": state.grad for i, state in enumerate(start)}
    named |= {f"final {i}": state.detach() for i, state in enumerate(final)}
    named |= {name: weight.grad for name, weight in module.named_parameters()}
    return named | {"output": output.detach(), "x": data.grad}


def assert_same(actual, expected, atol=1e-10):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].shape == tensor.shape, name
        assert actual[name].dtype == tensor.dtype, name
        assert tensor.abs().max() > 1e-3, name  # two zeros would prove nothing
        np.testing.assert_allclose(actual[name], tensor, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
class TestAgainstTorch:
    @pytest.mark.parametrize("options", [None, PARALLEL], ids=["stepped", "parallel"])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_output_and_every_gradient(self, kind, num_layers, bidirectional, batch_first, options):
        module = make(
            kind,
            num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
            forward_options=options,
        )
        x = normal(*((BATCH, STEPS) if batch_first else (STEPS, BATCH)), FEATURES)
        start, d_final = states(module, BATCH), states(module, BATCH, seed=4)
        d_output = normal(*x.shape[:2], HIDDEN * (1 + bidirectional), seed=5)
        expected = outcome(peer_of(module), x, start, d_output, d_final)
        assert_same(outcome(module, x, start, d_output, d_final), expected)

    def test_without_batch(self, kind, num_layers, bidirectional):
        module = make(kind, num_layers, bidirectional=bidirectional, batch_first=True)
        x, start, d_final = normal(STEPS, FEATURES), states(module), states(module, seed=4)
        d_output = normal(STEPS, HIDDEN * (1 + bidirectional), seed=5)
        expected = outcome(peer_of(module), x, start, d_output, d_final)
        assert_same(outcome(module, x, start, d_output, d_final), expected)

    @pytest.mark.parametrize("is_sorted", [False, True])
    @pytest.mark.parametrize("options", [None, PARALLEL], ids=["stepped", "parallel"])
    def test_packed_sequences(self, kind, num_layers, bidirectional, is_sorted, options):
        module = make(kind, num_layers, bidirectional=bidirectional, forward_options=options)
        lengths = torch.tensor([7, 5, 5, 1] if is_sorted else [5, 1, 7, 5])
        x = rnn.pack_padded_sequence(
            normal(STEPS, BATCH, FEATURES), lengths, enforce_sorted=is_sorted
        )
        start, d_final = states(module, BATCH), states(module, BATCH, seed=4)
        d_output = normal(18, HIDDEN * (1 + bidirectional), seed=5)
        expected = outcome(peer_of(module), x, start, d_output, d_final)
        assert_same(outcome(module, x, start, d_output, d_final), expected)
        output, theirs = module(x)[0], peer_of(module)(x)[0]
        for mine, other in zip(output[1:], theirs[1:], strict=True):
            assert (mine is None) == (other is None)
            assert mine is None or torch.equal(mine, other)

    def test_names_shapes_and_initial_values(self, kind, num_layers, bidirectional):
        options = {"num_layers": num_layers, "bidirectional": bidirectional}
        torch.manual_seed(0)
        module = getattr(layers, kind)(FEATURES, HIDDEN, **options)
        torch.manual_seed(0)
        peer = PEERS[kind](FEATURES, HIDDEN, **options)
        mine, theirs = module.state_dict(), peer.state_dict()
        assert list(mine) == list(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        module.load_state_dict(theirs, strict=True)
        peer.load_state_dict(mine, strict=True)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["GRU", "ImplicitGRU", "LSTM"])
def test_gradcheck(kind, num_layers):
    module = make(kind, num_layers)
    weights = dict(module.named_parameters())

    def evaluate(x, *tensors):
        start, tensors = tensors[: -len(weights)], tensors[-len(weights) :]
        named = dict(zip(weights, tensors, strict=True))
        output, final = torch.func.functional_call(module, named, (x, as_hx(start)))
        return output, *as_tuple(final)

    inputs = normal(4, 2, FEATURES), *states(module, 2), *(w.detach() for w in weights.values())
    assert torch.autograd.gradcheck(
        evaluate, [tensor.clone().requires_grad_() for tensor in inputs]
    )


@pytest.mark.parametrize("options", [None, PARALLEL], ids=["stepped", "parallel"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_implicit_unit_equals_the_plain_reference(num_layers, options):
    module = make("ImplicitGRU", num_layers, forward_options=options)
    x, (start,) = normal(STEPS, BATCH, FEATURES), states(module, BATCH)
    weights = {name: weight.detach().numpy() for name, weight in module.named_parameters()}
    sequence = x.transpose(0, 1).numpy()
    expected = Reference(weights, "implicit").trajectory(Sequences(sequence), start.numpy())
    with torch.no_grad():
        output, final = module(x, start)
    np.testing.assert_allclose(output, expected[1:, -1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(final, expected[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_gradients_of_output_alone_and_of_final_states_alone(kind):
    module = make(kind, 2)
    x, start = normal(STEPS, BATCH, FEATURES), states(module, BATCH)
    for heads in ((normal(STEPS, BATCH, HIDDEN), None), (None, states(module, BATCH, seed=4))):
        assert_same(outcome(module, x, start, *heads), outcome(peer_of(module), x, start, *heads))


def test_single_precision():
    module = make("GRU", 2, dtype=torch.float32)
    x = normal(STEPS, BATCH, FEATURES, dtype=torch.float32)
    start, d_output = states(module.float(), BATCH), normal(STEPS, BATCH, HIDDEN).float()
    heads = tuple(state.float() for state in start), d_output
    assert_same(outcome(module, x, *heads), outcome(peer_of(module), x, *heads), atol=2e-5)


def total(module, *sequences):
    """A number that depends on each call in its own way."""
    return sum(
        (k + 1) * (module(x)[0] ** 2).sum() + module(x[:3])[1].sum()
        for k, x in enumerate(sequences)
    )


def gradients(module):
    return {name: weight.grad.clone() for name, weight in module.named_parameters()}


def test_several_calls_in_one_graph():
    module = make("GRU", 2)
    peer = peer_of(module)
    sequences = normal(3, STEPS, BATCH, FEATURES)
    for each in (module, peer):
        total(each, *sequences).backward()
    assert_same(gradients(module), gradients(peer))


def test_output_fed_back_into_the_same_module():
    module = layers.GRU(HIDDEN, HIDDEN, dtype=torch.float64)
    peer, x = peer_of(module), normal(STEPS, BATCH, HIDDEN)
    for each in (module, peer):
        each(each(each(x)[0])[0])[0].square().sum().backward()
    assert_same(gradients(module), gradients(peer))


def test_gradients_accumulate_in_any_order_of_backward_passes():
    module = make("GRU")
    peer = peer_of(module)
    sequences = normal(3, STEPS, BATCH, FEATURES)
    for each in (module, peer):
        losses = [total(each, x) for x in sequences]
        for index in (1, 2, 0):
            losses[index].backward()
    assert_same(gradients(module), gradients(peer))


def test_backward_twice_through_a_retained_graph():
    module = make("GRU", 2)
    peer, x = peer_of(module), normal(STEPS, BATCH, FEATURES)
    for each in (module, peer):
        loss = total(each, x)
        loss.backward(retain_graph=True)
        total(each, 2 * x).backward()  # takes the solver that the first pass gave back
        loss.backward()
    assert_same(gradients(module), gradients(peer))


def test_training_takes_the_steps_of_torch():
    module = make("GRU")
    peer, x = peer_of(module), normal(STEPS, BATCH, FEATURES)
    for each in (module, peer):
        optimizer = torch.optim.Adam(each.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            total(each, x).backward()
            optimizer.step()
    assert_same(dict(module.state_dict()), dict(peer.state_dict()))


@pytest.mark.parametrize("what", ["weight", "input", "output"])
def test_a_tensor_changed_in_place_before_backward_is_told(what):
    module, x = make("GRU"), normal(STEPS, BATCH, FEATURES)
    output, _ = module(x)
    loss = output.sum()
    with torch.no_grad():
        {"weight": module.weight_hh_l0, "input": x, "output": output}[what].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen_parameters_get_no_gradient():
    module, x = make("GRU"), normal(STEPS, BATCH, FEATURES)
    module.weight_ih_l0.requires_grad_(False)
    module(x)[0].sum().backward()
    assert module.weight_ih_l0.grad is None
    assert module.weight_hh_l0.grad is not None


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_nothing_is_recorded_without_gradients(guard):
    module, x = make("GRU", 2), normal(STEPS, BATCH, FEATURES)
    expected = module(x)[0].detach()
    with guard():
        output, final = module(x)
    assert output.grad_fn is final.grad_fn is None
    assert not output.requires_grad
    assert torch.equal(output, expected)
    solver = module._solvers._spares[-1][1]
    assert solver.model._recorded is None


def test_a_later_call_leaves_an_output_alone():
    module, x = make("GRU"), normal(STEPS, BATCH, FEATURES)
    with torch.no_grad():
        output, _ = module(x)
        before = output.clone()
        module(2 * x)
    assert torch.equal(output, before)


def test_second_derivatives_are_refused():
    module, x = make("GRU"), normal(STEPS, BATCH, FEATURES).requires_grad_()
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)


def test_copies_and_pickles_have_solvers_of_their_own():
    module, x = make("GRU"), normal(STEPS, BATCH, FEATURES)
    expected = module(x)[0]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other._solvers is not module._solvers
        assert torch.equal(other(x)[0], expected)


def test_a_solve_that_does_not_converge_warns():
    options = MGRITOptions(levels=2, coarsening=2, max_iterations=1, tolerance=1e-14)
    module = make("GRU", forward_options=options, backward_options=MGRITOptions(levels=1))
    with pytest.warns(RuntimeWarning, match="not converged: increase max_iterations"):
        module(normal(STEPS, BATCH, FEATURES))


def test_numbers_that_are_not_finite_are_told():
    module, x = make("GRU"), normal(STEPS, BATCH, FEATURES)
    module(x)
    x[3] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite at point 4"):
        module(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": False}, "bias must be True"),
        ({"dropout": 0.1}, "dropout must be 0, got 0.1"),
    ],
)
def test_constructor_refuses_what_it_lacks(options, message):
    with pytest.raises(ValueError, match=message):
        layers.GRU(FEATURES, HIDDEN, 2, **options)


@pytest.mark.parametrize(
    ("x", "hx", "message"),
    [
        (normal(STEPS, BATCH, 2), None, "must have 3 features, got 2"),
        (normal(STEPS, BATCH, 2, FEATURES), None, r"2 or 3 axes, the last of 3: \(7, 4, 2, 3\)"),
        (normal(0, BATCH, FEATURES), None, "at least one step"),
        (normal(STEPS, 0, FEATURES), None, "at least one step and sequence"),
        (normal(STEPS, BATCH, FEATURES).float(), None, "input must be torch.float64"),
        (normal(STEPS, BATCH, FEATURES), normal(1, 2, HIDDEN), r"a tensor of shape \(1, 4, 5\)"),
        (normal(STEPS, BATCH, FEATURES), normal(1, BATCH, HIDDEN).float(), "hx must be"),
        (normal(STEPS, FEATURES), normal(1, 1, HIDDEN), r"a tensor of shape \(1, 5\)"),
    ],
)
def test_call_refuses_what_does_not_fit(x, hx, message):
    with pytest.raises(ValueError, match=message):
        make("GRU")(x, hx)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_types_are_refused(dtype):
    module = make("GRU").to(dtype)
    with pytest.raises(ValueError, match="float32 or float64 on the CPU"):
        module(torch.zeros(STEPS, BATCH, FEATURES, dtype=dtype))


def start(script):
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True
    )


def test_pint_alone_does_not_import_torch():
    done = start("import sys, pint, pint.rnn.layer_solver; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_the_error_without_torch_names_the_extra():
    done = start("import sys; sys.modules['torch'] = None; import pint.torch")
    assert 'ImportError: pint.torch needs torch: pip install "pint-mgrit[torch]"' in done.stderr


def test_residuals_of_the_last_solve_are_told():
    """They fall from cycle to cycle, as the distance from exact stepping does."""
    mgrit = MGRITOptions(levels=2, coarsening=4, max_iterations=4)
    near = layers.GRU(2, 5, dtype=torch.float64, forward_options=mgrit)
    exact = layers.GRU(2, 5, dtype=torch.float64)
    exact.load_state_dict(near.state_dict())
    x = torch.sin(torch.arange(48.0, dtype=torch.float64) / 4)[:, None, None].expand(48, 3, 2)
    with torch.no_grad():
        output, expected = near(x)[0], exact(x)[0]
    assert np.isnan(near.residuals[0])
    assert near.residuals[1] > near.residuals[2] > near.residuals[3] > 0
    error = float(torch.linalg.norm(output - expected))
    assert error < 10 * near.residuals[-1]
    assert np.isnan(exact.residuals).all()
