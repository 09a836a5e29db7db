"""The meta-learner LSTM: what it reads, what it is with fixed gates, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import algorithms, evaluate, fit, init_state, losses, maml, meta_step, models, tasks
from mamljax.inner_lstm import logarithm_and_sign
from mamljax.inner_lstm import meta_lstm as lstm_rule
from mamljax.inner_optim import InnerRule, Seen, WithRule
from mamljax.models import weights

KEY = jax.random.key(3)
MSE = losses.mean_squared_error
MODEL = models.mlp((6, 1), activation="tanh")


def with_gates(own, forget, rate):
    """The rule's parameters with gates that never change, given before their sigmoids."""
    zeros = jax.tree.map(jnp.zeros_like, own)
    for gate, value in (("forget", forget), ("rate", rate)):
        zeros[gate]["bias"] = jnp.full_like(zeros[gate]["bias"], value)
    return zeros


def test_with_gates_of_one_and_alpha_it_is_gradient_descent(tasks_of, params_of, assert_close):
    learner, tasks = algorithms.meta_lstm(MODEL, MSE, num_steps=4), tasks_of(3)
    alpha = float(jax.nn.sigmoid(jnp.float32(-3.0)))
    plain = algorithms.fomaml(MODEL, MSE, inner_lr=alpha, num_steps=4)
    params = params_of(learner, tasks)
    params = WithRule(params.model, with_gates(params.rule, 40.0, -3.0))

    def adapted(learner, params):
        adapt = jax.jit(lambda support: learner.adapt(params, support, KEY))
        return adapt(jax.tree.map(lambda x: x[0], tasks.support))

    found, expected = adapted(learner, params), adapted(plain, params.model)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    np.testing.assert_array_equal(found.support_losses, expected.support_losses)
    # First-order MAML's meta-gradient, and besides it one in the rule's own parameters.
    grads, _ = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    of_plain, _ = jax.jit(plain.meta_gradient)(params.model, tasks, KEY)
    assert_close(grads.model, of_plain, rtol=1e-5)
    assert float(jnp.abs(grads.rule["rate"]["bias"])) > 1e-3


def test_its_gradient_is_that_of_finite_differences(
    tasks_of, params_of, assert_finite_differences, x64
):
    """Through what it reads, too: that is what `first_order` leaves out."""
    learner, tasks = algorithms.meta_lstm(MODEL, MSE, num_steps=3, first_order=False), tasks_of(2)
    params = params_of(learner, tasks)
    # Gates that matter: the weights as drawn hardly move them.
    larger = jax.tree.map(lambda x: 30 * x if x.ndim else x / 4, params.rule)
    assert_finite_differences(learner, WithRule(params.model, larger), tasks, rtol=1e-5)


def test_one_step_is_that_of_numpy():
    rule = lstm_rule(units=3)
    params = {"b": jnp.array([0.5, -2.0]), "w": jnp.array([[1.0], [3.0]])}
    gradients = {"b": jnp.array([1e-6, 0.1]), "w": jnp.array([[-2.0], [0.0]])}
    own = jax.tree.map(lambda x: 30 * x, rule.init(KEY, params))
    state = rule.start(params)
    for step in range(2):
        updates, state = rule.update(own, Seen(gradients, params, jnp.float32(2.0), step), state)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def read(x):
        large = abs(x) >= np.exp(-10)
        return [np.log(abs(x)) / 10, np.sign(x)] if large else [-1.0, np.exp(10) * x]

    own = jax.tree.map(np.asarray, own)
    theta, slopes = np.array([0.5, -2.0, 1.0, 3.0]), np.array([1e-6, 0.1, -2.0, 0.0])
    expected = []
    for value, slope in zip(theta, slopes, strict=True):
        hidden, cell, gates = np.zeros(3), np.zeros(3), {"forget": 0.0, "rate": 0.0}
        for _ in range(2):
            inputs = np.concatenate([read(2.0), read(slope), hidden])
            i, f, o, new = np.split(inputs @ own["layer"]["kernel"] + own["layer"]["bias"], 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(new)
            hidden = sigmoid(o) * np.tanh(cell)
            gates = {
                name: sigmoid(np.r_[hidden, value, last] @ own[name]["kernel"] + own[name]["bias"])
                for name, last in gates.items()
            }
        expected.append(gates["forget"] * value - gates["rate"] * slope - value)
    found = np.concatenate([updates["b"], updates["w"].ravel()])
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_sizes_are_read_by_their_logarithm_and_nothing_is_infinite_at_zero():
    x = jnp.array([1.0, -np.exp(-5.0), np.exp(-10.0), -np.exp(-11.0), 0.0])
    expected = [[0, 1], [-0.5, -1], [-1, 1], [-1, -np.exp(-1)], [-1, 0]]
    np.testing.assert_allclose(logarithm_and_sign(x).T, expected, rtol=1e-5, atol=1e-6)
    slopes = jax.vmap(jax.jacobian(logarithm_and_sign))(x[:, None])
    assert np.isfinite(slopes).all()


def test_the_same_key_gives_the_model_it_has_without_the_rule():
    inputs = jnp.ones((1, 1))
    with_rule = algorithms.meta_lstm(MODEL, MSE).init(KEY, inputs)
    jax.tree.map(np.testing.assert_array_equal, with_rule.model, MODEL.init(KEY, inputs))


def trained(learner, sampler):
    tx = optax.chain(optax.clip_by_global_norm(0.25), optax.adam(1e-2))
    state = init_state(learner.init(KEY, jnp.zeros((1, 1))), tx)
    step = meta_step(learner.meta_gradient, tx)
    return fit(step, state, sampler, KEY, num_steps=300, meta_batch=8).meta_params


def recurrent_rule(units=4):
    """A rule of a user's own: a plain recurrent network over coordinates scales the gradients."""

    def init(key, adapting):
        del adapting
        return {
            "recur": 0.1 * jax.random.normal(key, (units + 2, units)),
            "out": jnp.zeros(units),
            "log_rate": jnp.log(0.02),
        }

    def start(adapting):
        return jax.tree.map(lambda x: jnp.zeros((*x.shape, units), x.dtype), adapting)

    def update(own, seen, state):
        def remember(gradient, hidden):
            loss = jnp.broadcast_to(jnp.log1p(seen.loss), gradient.shape)
            read = jnp.stack([jnp.arcsinh(gradient), loss], axis=-1)
            return jnp.tanh(jnp.concatenate([read, hidden], axis=-1) @ own["recur"])

        state = jax.tree.map(remember, seen.gradients, state)
        scales = jax.tree.map(lambda hidden: jnp.exp(hidden @ own["out"] + own["log_rate"]), state)
        return jax.tree.map(lambda scale, g: -scale * g, scales, seen.gradients), state

    return InnerRule(init, update, start)


@pytest.mark.parametrize(
    "learner",
    [
        algorithms.meta_lstm(MODEL, MSE, num_steps=3),
        maml(MODEL, MSE, inner_tx=recurrent_rule(), num_steps=3),
    ],
    ids=["meta_lstm", "a rule of one's own"],
)
def test_a_recurrent_rule_learns_to_update(learner):
    sampler = tasks.sinusoid(10, 10)
    start = learner.init(KEY, jnp.zeros((1, 1)))
    before, after = (
        evaluate(learner, params, sampler, jax.random.key(9), num_tasks=100).mean
        for params in (start, trained(learner, sampler))
    )
    assert after[-1] < 0.8 * before[-1]
    assert after[-1] < 0.9 * after[0]


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="units must be an integer of at least 1"):
        algorithms.meta_lstm(MODEL, MSE, units=0)


def test_its_parameters_are_kept_as_plain_arrays(tmp_path):
    params = algorithms.meta_lstm(MODEL, MSE).init(KEY, jnp.ones((1, 1)))
    weights.save(tmp_path / "weights.npz", params)
    assert "rule/forget/bias" in weights.to_arrays(params)
    found = weights.load(tmp_path / "weights.npz", jax.eval_shape(lambda: params))
    assert isinstance(found, WithRule)
    jax.tree.map(np.testing.assert_array_equal, found, params)
