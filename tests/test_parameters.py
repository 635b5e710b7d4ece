"""The flat vector of parameters and its named views."""

import numpy as np
import pytest

from pint.rnn.parameters import layer_shapes, num_entries, uniform, views

SHAPES = {"a": (2, 3), "b": (4,), "c": ()}


def test_num_entries():
    assert num_entries(SHAPES) == 11
    assert num_entries({}) == 0


def test_views_follow_one_another_row_by_row():
    named = views(np.arange(11), SHAPES)
    assert list(named) == ["a", "b", "c"]
    np.testing.assert_array_equal(named["a"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(named["b"], [6, 7, 8, 9])
    np.testing.assert_array_equal(named["c"], 10)
    assert [view.shape for view in named.values()] == list(SHAPES.values())


def test_views_share_memory_both_ways():
    flat = np.zeros(11)
    named = views(flat, SHAPES)
    named["a"][1, 2] = 5
    named["b"] += 1
    np.testing.assert_array_equal(flat, [0, 0, 0, 0, 0, 5, 1, 1, 1, 1, 0])
    flat[10] = 7
    assert named["c"] == 7


def test_views_refuse_a_vector_that_is_too_short():
    with pytest.raises(ValueError, match="reshape"):
        views(np.zeros(9), SHAPES)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_fills_the_interval(dtype):
    flat = uniform({"w": (100, 100)}, 0.25, np.dtype(dtype), np.random.default_rng(3))
    assert flat.shape == (10_000,)
    assert flat.dtype == dtype
    assert -0.25 <= flat.min() < -0.249
    assert 0.249 < flat.max() <= 0.25
    assert abs(flat.mean()) < 0.01  # standard error 0.0014


def test_uniform_draws_by_the_generator_alone():
    first, same, other = (
        uniform(SHAPES, 1.0, np.dtype(np.float64), np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()


def test_layer_shapes_are_those_of_torch():
    assert layer_shapes(num_gates=3, num_features=5, hidden=4, layers=2) == {
        "weight_ih_l0": (12, 5),
        "weight_hh_l0": (12, 4),
        "bias_ih_l0": (12,),
        "bias_hh_l0": (12,),
        "weight_ih_l1": (12, 4),
        "weight_hh_l1": (12, 4),
        "bias_ih_l1": (12,),
        "bias_hh_l1": (12,),
    }


@pytest.mark.parametrize("layers", [1, 3])
def test_layer_shapes_have_the_order_of_torchs_state(layers):
    torch = pytest.importorskip(
        "torch", reason="torch is not installed: pip install 'pint-mgrit[torch]'"
    )
    state = torch.nn.GRU(5, 4, layers).state_dict()
    expected = [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    assert list(layer_shapes(3, 5, 4, layers).items()) == expected
