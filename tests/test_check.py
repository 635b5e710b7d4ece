"""check_propagator accepts what is right and names what is wrong, and by how much."""

import numba
import numpy as np
import pytest

from pint import Propagator
from pint.check import ContractError, check_propagator
from pint.grid.timegrid import TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions


class Pendulum(Propagator):
    """A right, unbatched propagator: one explicit Euler step of theta'' = -k sin(theta)."""

    state_shape = (2,)
    dtype = np.dtype(np.float64)

    def __init__(self):
        self.parameters = np.array([1.3])

    def step(self, u, step):
        return np.array([u[0] + step.dt * u[1], u[1] - step.dt * self.parameters[0] * np.sin(u[0])])

    def adjoint_step(self, w, u, step):
        k = self.parameters[0]
        return np.array([w[0] - step.dt * k * np.cos(u[0]) * w[1], step.dt * w[0] + w[1]])

    def adjoint_gradient(self, w, u, step):
        return np.array([-step.dt * np.sin(u[0]) * w[1]])


class Space(Pendulum):
    """Two levels in space: pairs of equal entries against one entry."""

    state_shape = (4,)

    def step(self, u, step):
        return u / (1 + step.dt)

    def adjoint_step(self, w, u, step):
        return w / (1 + step.dt)

    def adjoint_gradient(self, w, u, step):
        return np.zeros(1)

    def restrict(self, u, level):
        return u[::2]

    def interpolate(self, u, level):
        return np.repeat(u, 2)


def test_right_propagators_pass_and_every_method_was_tried():
    done = check_propagator(Pendulum(), levels=2)
    assert done == [
        f"{method} on level {level}"
        for level in (0, 1)
        for method in ("step", "adjoint_step", "adjoint_gradient")
    ]
    assert "restrict from level 0" in check_propagator(Space(), levels=2)
    assert "stack on level 2" in check_propagator(Dahlquist(-0.7))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("coarse_step", ["midpoint", "matched", "implicit"])
def test_gru_passes(coarse_step, dtype):
    options = RecurrenceOptions(
        num_features=3, hidden=5, layers=2, coarse_step=coarse_step, dtype=dtype
    )
    gru = Recurrence(options)
    gru.set_inputs(np.random.default_rng(0).standard_normal((4, 16, 3)))
    done = check_propagator(gru, grid=TimeGrid.uniform(0, 16, 16), coarsening=4)
    assert {"linearize on level 2", "adjoint_gradient on level 2"} <= set(done)


def broken(base, **methods):
    """Return an instance of `base` with some methods replaced."""
    return type("Broken", (base,), methods)()


def remember(self, u, step):
    self.count = getattr(self, "count", 0) + 1
    return u * self.count


def overwrite(self, u, step):
    u[0] += 1.0
    return u.copy()


@pytest.mark.parametrize(
    ("propagator", "message"),
    [
        (broken(Pendulum, step=lambda s, u, t: None), "step on level 0 returned NoneType"),
        (broken(Pendulum, step=lambda s, u, t: u[:1]), r"returned shape \(1,\), expected \(2,\)"),
        (broken(Pendulum, step=lambda s, u, t: u.astype("f4")), "dtype float32, expected float64"),
        (broken(Pendulum, step=lambda s, u, t: u * np.nan), "step on level 0 returned NaN or inf"),
        (
            broken(Pendulum, adjoint_gradient=None),
            "parameters need adjoint_gradient: write it, or leave parameters None",
        ),
        (broken(Pendulum, step=remember), "gave another result the second time, by up to"),
        (broken(Pendulum, step=overwrite), "step on level 0 changed its input, by up to 1"),
        (
            broken(
                Pendulum, adjoint_step=lambda s, w, u, t: 1.01 * Pendulum.adjoint_step(s, w, u, t)
            ),
            r"adjoint_step on level 0 breaks .* relative error 0.0099",
        ),
        (
            broken(Pendulum, tangent_step=lambda s, v, u, t: v),
            "tangent_step on level 0 differs from central differences: relative error",
        ),
        (
            broken(Pendulum, tangent_step=lambda s, v, u, t: s.step(v, t)),
            "tangent_step on level 0 is not linear in v: relative difference",
        ),
        (
            broken(Pendulum, tangent_step=lambda s, v, u, t: v[:1]),
            r"tangent_step on level 0 returned shape \(1,\), expected \(2,\)",
        ),
        (
            broken(Pendulum, adjoint_gradient=lambda s, w, u, t: np.array([t.dt * w[1]])),
            "adjoint_gradient on level 0 differs from central differences",
        ),
        (
            broken(Pendulum, adjoint_gradient=lambda s, w, u, t: np.zeros(2)),
            r"adjoint_gradient on level 0 returned shape \(2,\), expected \(1,\)",
        ),
        (
            broken(Dahlquist, step=lambda s, u, t: u / (1 + t.dt[0] * np.arange(1, u.size + 1))),
            "stack on level 0 differs from its members one by one: relative difference",
        ),
        (
            broken(Space, interpolate=lambda s, u, level: np.repeat(u, 3)),
            r"interpolate to level 0 returned shape \(6,\), expected \(4,\)",
        ),
        (broken(Pendulum, state_shape=[2]), r"state_shape must be a tuple of positive int"),
        (broken(Pendulum, dtype="float64"), "dtype must be a numpy.dtype, got 'float64'"),
    ],
)
def test_wrong_method_is_named(propagator, message):
    with pytest.raises(ContractError, match=message):
        check_propagator(propagator)


def test_gradient_check_restores_the_parameters():
    model = Pendulum()
    check_propagator(model)
    assert model.parameters[0] == 1.3


def test_coarse_level_that_is_wrong_is_found():
    def step(self, u, step):
        return Pendulum.step(self, u, step) * (np.nan if step.level == 2 else 1.0)

    with pytest.raises(ContractError, match="step on level 2 returned NaN"):
        check_propagator(broken(Pendulum, step=step))


def test_wrong_linearization_is_found():
    class Wrong(Recurrence):
        def linearize(self, u, step):
            lin = super().linearize(u, step)
            right = lin.adjoint
            lin.adjoint = lambda w, rows: right(w, slice(0, w.shape[0], 1))  # ignores the rows
            return lin

        def adjoint_step(self, w, u, step):
            return Recurrence.linearize(self, u, step).adjoint(w, slice(0, u.shape[0], 1))

        def adjoint_gradient(self, w, u, step):
            return Recurrence.linearize(self, u, step).gradient(w)

    gru = Wrong(RecurrenceOptions(num_features=2, hidden=3, dtype=np.float64))
    gru.set_inputs(np.random.default_rng(0).standard_normal((2, 16, 2)))
    with pytest.raises(
        ContractError, match=r"adjoint of rows slice\(3, 4, 1\) is not adjoint_step"
    ):
        check_propagator(gru, grid=TimeGrid.uniform(0, 16, 16), levels=1)


def test_a_forgotten_axis_of_a_stack_is_found():
    """dt of shape (n,) against states (n, 3) would broadcast wrongly, or only if n is 3."""

    class Forgetful(Propagator):
        state_shape, dtype, batched = (3,), np.dtype(float), True

        def step(self, u, step):
            return u * (1 - step.dt)

    with pytest.raises(ContractError, match="step on level 0 raised ValueError for a state of sha"):
        check_propagator(Forgetful())


class Stacked(Space):
    """The space levels of `Space`, for stacks."""

    batched = True

    def step(self, u, step):
        return u / (1 + step.dt[:, None])

    def adjoint_step(self, w, u, step):
        return w / (1 + step.dt[:, None])

    def restrict(self, u, level):
        return u[:, ::2]

    def interpolate(self, u, level):
        return np.repeat(u, 2, axis=1)


def test_transfers_of_stacks():
    assert "interpolate to level 0" in check_propagator(Stacked(), levels=2)
    with pytest.raises(ContractError, match="restrict from level 0 returned shape"):
        check_propagator(broken(Stacked, restrict=lambda s, u, level: u[::2]), levels=2)
    single = broken(Stacked, restrict=lambda s, u, level: u[:, ::2].astype("f4"))
    with pytest.raises(ContractError, match="restrict from level 0 returned dtype float32"):
        check_propagator(single, levels=2)


@pytest.mark.parametrize("wrong", [None, Pendulum])
def test_what_is_no_propagator_is_refused(wrong):
    with pytest.raises(TypeError, match="must be an instance of Propagator"):
        check_propagator(wrong)


def test_a_step_that_returns_a_float_is_right_for_states_of_shape_nothing():
    class Decay(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            return float(u) / (1 + step.dt)

    assert check_propagator(Decay(), grid=[0.0, 1.0, 2.0], levels=1) == ["step on level 0"]


class WrongChain(Dahlquist):
    """A chain that forgets the right-hand side."""

    def chain(self, u, step, g, out):
        super().chain(u, step, None, out)


def test_a_wrong_chain_is_named():
    with pytest.raises(ContractError, match="chain on level 0 differs from single steps with g"):
        check_propagator(WrongChain(), levels=1)


class Written(Dahlquist):
    """A step_into of its own."""

    def step_into(self, u, step, g, out):
        np.divide(u, 1 + step.dt, out=out)
        if g is not None:
            out += g


def test_a_wrong_step_into_is_named():
    assert "step_into on level 0" in check_propagator(Written(), levels=1)
    wrong = broken(Written, step_into=lambda s, u, t, g, out: np.divide(u, 1 + t.dt, out=out))
    with pytest.raises(ContractError, match="step_into on level 0 differs from step with g"):
        check_propagator(wrong, levels=1)


@numba.njit
def too_long(u, start, stop, level, params, out):
    out[0] = u[0] / (1 - 2 * params * (stop - start))


@numba.njit
def halving(u, start, stop, level, params, out):
    for i in range(params):
        out[i] = u[i] / 2


@numba.njit
def in_place(u, start, stop, level, params, out):
    for i in range(params):
        u[i] /= 2
        out[i] = u[i]


class Halving(Propagator):
    """A kernel for states of two dimensions."""

    state_shape, dtype = (2, 3), np.dtype(np.float64)
    kernel = halving
    num = 2

    def step(self, u, step):
        return u / 2

    def kernel_params(self):
        return self.num


def test_a_wrong_kernel_is_named():
    assert "kernel on level 1" in check_propagator(Halving())
    with pytest.raises(ContractError, match="kernel on level 0 differs from step: relative diff"):
        check_propagator(broken(Dahlquist, kernel=too_long))
    with pytest.raises(ContractError, match="kernel on level 0 differs from step"):
        check_propagator(broken(Halving, num=1))  # leaves one row as it was
    with pytest.raises(ContractError, match="kernel on level 0 changed its input"):
        check_propagator(broken(Halving, kernel=in_place))
