"""The inner loop against plain Python loops, and every kind of support set it accepts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import (
    Batch,
    PerStep,
    Task,
    evaluate,
    fit,
    init_state,
    inner_optim,
    losses,
    maml,
    meta_step,
    models,
)
from mamljax.objective import task_loss
from mamljax.types import Partition

KEY = jax.random.key(3)


def linear_model():
    return models.from_function(
        lambda params, inputs: inputs @ params["w"] + params["b"][None],
        init=lambda key, inputs: {"w": jnp.ones(inputs.shape[-1:]), "b": jnp.zeros(())},
    )


def regression(seed, *leading):
    """Random linear regression data, ``[*leading, 4, 2] -> [*leading, 4]``."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*leading, 4, 2))
    return Batch(jnp.asarray(x, jnp.float32), jnp.asarray(x @ [1.0, -2.0], jnp.float32))


def descend(loss, params, batches, alpha):
    """Gradient descent in plain Python: all parameters on the way, and the losses before steps."""
    path, before = [params], []
    for batch in batches:
        value, grads = jax.value_and_grad(loss)(path[-1], batch, None, 0)
        before.append(value)
        path.append(jax.tree.map(lambda p, g: p - alpha * g, path[-1], grads))
    return path, jnp.array(before)


@pytest.fixture
def learner():
    return maml(linear_model(), losses.mean_squared_error, inner_lr=0.1, num_steps=2)


@pytest.fixture
def params():
    return {"w": jnp.array([0.3, 0.7]), "b": jnp.array(-0.2)}


@pytest.mark.parametrize(("asked", "steps"), [(None, 2), (0, 0), (1, 1), (5, 5)])
def test_adaptation_is_gradient_descent(learner, params, assert_close, asked, steps):
    support = regression(0)
    adapted = learner.adapt(params, support, KEY, num_steps=asked, observe=lambda p, s: (p, s))
    path, before = descend(learner.loss, params, [support] * steps, 0.1)
    assert adapted.support_losses.shape == (steps,)
    if steps:
        assert_close(adapted.support_losses, before, 1e-6)
    assert_close(adapted.params, path[-1], 1e-6)
    # What is observed: before the first step and after each one, with the step's number.
    seen, numbers = adapted.observed
    assert_close(seen, jax.tree.map(lambda *p: jnp.stack(p), *path), 1e-6)
    np.testing.assert_array_equal(numbers, np.arange(steps + 1))


def test_nothing_is_observed_unless_asked(learner, params):
    assert learner.adapt(params, regression(0), KEY).observed is None


def test_fresh_support_feeds_its_own_batch_to_every_step(learner, params, assert_close):
    data = regression(0, 3)
    batches = [jax.tree.map(lambda x, s=s: x[s], data) for s in range(3)]
    adapted = learner.adapt(params, PerStep(data), KEY, num_steps=3)
    path, before = descend(learner.loss, params, batches, 0.1)
    assert_close(adapted.params, path[-1], 1e-6)
    assert_close(adapted.support_losses, before, 1e-6)


def test_fresh_support_must_hold_one_batch_per_step(learner, params):
    with pytest.raises(ValueError, match=r"num_steps=2, but its leading axis has length 3"):
        learner.adapt(params, PerStep(regression(0, 3)), KEY)
    ragged = Batch(regression(0, 2).inputs, regression(0, 3).targets)
    with pytest.raises(ValueError, match=r"all arrays in support must share their leading axis"):
        learner.adapt(params, PerStep(ragged), KEY)


def test_every_inner_step_has_its_own_key_and_number():
    model = models.from_function(
        lambda params, inputs, key, step: params * (step + jax.random.uniform(key))
    )
    learner = maml(model, lambda outputs, _: outputs, inner_lr=0.0)
    support = Batch(jnp.zeros(1), jnp.zeros(1))
    seen = [
        learner.adapt(jnp.ones(()), support, key, num_steps=4).support_losses
        for key in jax.random.split(KEY, 2)
    ]
    np.testing.assert_array_equal(np.floor(seen), [[0, 1, 2, 3]] * 2)
    assert len(np.unique(np.asarray(seen) % 1)) == 8


# ---------------------------------------------------------------------------------------------
# Reinforcement learning: the sampler itself adapts, and records the data it met on the way.

ALPHA, STEPS = 0.1, 2


def on_policy_data(params, goal, key):
    """Examples that depend on the current parameters, as trajectories depend on the policy."""
    inputs = jax.random.normal(key, (4, 2)) + jax.lax.stop_gradient(params["w"])[None]
    return Batch(inputs, inputs @ goal)


def on_policy_sampler(meta_params, key):
    loss = task_loss(linear_model(), losses.mean_squared_error)
    goal_key, *keys = jax.random.split(key, STEPS + 2)
    goal = jax.random.normal(goal_key, (2,))
    params, recorded = meta_params, []
    for s in range(STEPS):
        recorded.append(on_policy_data(params, goal, keys[s]))
        params = descend(loss, params, recorded[-1:], ALPHA)[0][-1]
    support = jax.tree.map(lambda *batches: jnp.stack(batches), *recorded)
    return Task(PerStep(support), on_policy_data(params, goal, keys[-1]))


@pytest.fixture
def on_policy_learner():
    return maml(linear_model(), losses.mean_squared_error, inner_lr=ALPHA, num_steps=STEPS)


def same_task(meta_params, key):
    """A sampler that always meets the same goal and noise, but not the same parameters.

    It draws the order of the queries, since a task that no key changes is refused.
    """
    task = on_policy_sampler(meta_params, KEY)
    order = jax.random.permutation(key, len(task.query.targets))
    return task._replace(query=jax.tree.map(lambda x: x[order], task.query))


def on_policy_losses(loss, meta_params, params):
    """The query loss before and after each step from `params`, on data met from `meta_params`."""
    task = on_policy_sampler(meta_params, KEY)
    batches = [jax.tree.map(lambda x, s=s: x[s], task.support.data) for s in range(STEPS)]
    path, _ = descend(loss, params, batches, ALPHA)
    return jnp.stack([loss(p, task.query, None, 0) for p in path])


def test_recorded_adaptation_is_replayed_exactly(on_policy_learner, params, assert_close):
    # The query data was drawn from parameters that the sampler adapted in its own loop: replaying
    # the record must arrive at the same ones, and the data must count as constants.
    learner, tx = on_policy_learner, optax.sgd(0.5)

    @jax.jit
    @jax.value_and_grad
    def by_hand(params):
        return on_policy_losses(learner.loss, jax.lax.stop_gradient(params), params)[-1]

    expected_loss, expected = by_hand(params)
    tasks = jax.tree.map(lambda x: jnp.stack([x, x]), same_task(params, KEY))
    gradient, metrics = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    assert_close(metrics.loss, expected_loss, 1e-5)
    assert_close(gradient, expected, 1e-5)

    step = meta_step(learner.meta_gradient, tx)
    once = jax.tree.map(lambda p, g: p - 0.5 * g, params, expected)
    state, _ = jax.jit(step)(init_state(params, tx), tasks, KEY)
    assert_close(state.meta_params, once, 1e-5)

    # In the second iteration of fit the sampler must meet the data of the updated parameters.
    twice = jax.tree.map(lambda p, g: p - 0.5 * g, once, by_hand(once)[1])
    state = fit(step, init_state(params, tx), same_task, KEY, num_steps=2, meta_batch=2)
    assert_close(state.meta_params, twice, 1e-5)


def test_evaluate_adapts_on_recorded_data(on_policy_learner, params, assert_close):
    report = evaluate(on_policy_learner, params, same_task, KEY, num_tasks=2)
    expected = on_policy_losses(on_policy_learner.loss, params, params)
    assert_close(report.values, jnp.stack([expected] * 2), 1e-5)
    # Another number of steps needs another record, and the sampler must be told.
    with pytest.raises(ValueError, match="num_steps=3, but its leading axis has length 2"):
        evaluate(on_policy_learner, params, same_task, KEY, num_tasks=2, num_steps=3)


# ---------------------------------------------------------------------------------------------
# Inner optimizers.


def adam_by_hand(grad, w, steps, lr, b1=0.9, b2=0.999, eps=1e-8, eps_root=1e-8):
    m = v = np.zeros_like(w)
    for t in range(1, steps + 1):
        g = grad(w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
    return w


def momentum_by_hand(grad, w, steps, lr, decay=0.9):
    v = np.zeros_like(w)
    for _ in range(steps):
        v = decay * v + grad(w)
        w = w - lr * v
    return w


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("tx", "by_hand"),
    [
        (inner_optim.adam(0.05), adam_by_hand),
        (inner_optim.adam(0.05, eps_root=1e-3), adam_by_hand),
        (optax.sgd(0.05, momentum=0.9), momentum_by_hand),
    ],
    ids=["adam", "adam with another eps_root", "momentum"],
)
def test_inner_optimizers_carry_their_state(tx, by_hand, request):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(5, 2)), rng.normal(size=5), rng.normal(size=2)
    model = models.from_function(lambda params, inputs: inputs @ params)
    learner = maml(model, losses.mean_squared_error, inner_tx=tx, num_steps=4)
    adapted = learner.adapt(jnp.asarray(w), Batch(jnp.asarray(x), jnp.asarray(y)), KEY).params
    options = {"eps_root": 1e-3} if "another" in request.node.callspec.id else {}
    expected = by_hand(lambda w: 2 / 5 * x.T @ (x @ w - y), w, 4, 0.05, **options)
    np.testing.assert_allclose(adapted, expected, rtol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_adam_survives_a_gradient_of_exactly_zero(num_steps):
    # A dead ReLU: the support gradient of its weight is exactly zero.
    model = models.from_function(lambda params, inputs: jax.nn.relu(inputs @ params))
    data = Batch(jnp.array([[1.0, 0.0], [2.0, 0.0]]), jnp.array([1.0, 2.0]))
    tasks = jax.tree.map(lambda x: x[None], Task(data, data))

    def gradient_with(tx):
        learner = maml(model, losses.mean_squared_error, inner_tx=tx, num_steps=num_steps)
        return jax.jit(learner.meta_gradient)(jnp.array([0.5, 0.5]), tasks, KEY)[0]

    assert np.isnan(gradient_with(optax.adam(0.01))).any()
    assert np.isfinite(gradient_with(inner_optim.adam(0.01))).all()


def half_precision_learner(tx, dtype):
    """A learner of linear regression with three steps, its parameters and one task."""
    cast = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    learner = maml(linear_model(), losses.mean_squared_error, inner_tx=tx, num_steps=3)
    params = cast({"w": jnp.array([0.3, 0.7]), "b": jnp.array(-0.2)})
    return (
        learner,
        params,
        cast(jax.tree.map(lambda x: x[None], Task(regression(0), regression(1)))),
    )


NARROW = [
    inner_optim.adam(0.05),
    optax.chain(inner_optim.clip_by_global_norm(0.5), optax.sgd(0.1)),
    inner_optim.in_single_precision(optax.rmsprop(0.05)),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tx", NARROW, ids=["adam", "clip", "rmsprop"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_low_precision_is_near_to_double(tx, dtype):
    def both(dtype):
        learner, params, tasks = half_precision_learner(tx, dtype)
        support = jax.tree.map(lambda x: x[0], tasks.support)
        adapted = learner.adapt(params, support, KEY).params
        found = adapted, learner.meta_gradient(params, tasks, KEY)[0]
        assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
        return [
            np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)], dtype=float) for t in found
        ]

    # Three steps with a rounding of parameters, predictions and gradients in each.
    for found, expected in zip(both(dtype), both(jnp.float64), strict=True):
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < 2 * jnp.finfo(dtype).eps


@pytest.mark.parametrize(
    ("tx", "dtype"),
    [
        (inner_optim.adam(0.05, eps_root=1e-3), jnp.float16),  # 1e-8 would exceed its range
        (inner_optim.adam(0.05), jnp.bfloat16),
        (inner_optim.clip_by_global_norm(0.5), jnp.float16),
        (inner_optim.clip_by_global_norm(0.5), jnp.bfloat16),
        (inner_optim.clip_by_global_norm(0.5), jnp.float32),
    ],
)
def test_a_gradient_of_zero_has_a_finite_meta_gradient_in_every_precision(tx, dtype):
    learner, params, tasks = half_precision_learner(tx, dtype)
    # Without targets and parameters the support gradient is zero.
    zero = jax.tree.map(jnp.zeros_like, params)
    tasks = tasks._replace(support=tasks.support._replace(targets=tasks.support.targets * 0))
    gradient, metrics = learner.meta_gradient(zero, tasks, KEY)
    assert np.isfinite(metrics.grad_norm)
    assert metrics.grad_norm > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_clipping_scales_to_the_norm_and_leaves_the_rest(assert_close):
    tx, theirs = inner_optim.clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0)
    for scale in (0.1, 10.0):
        gradients = {"a": scale * jnp.array([0.3, -0.4]), "b": scale * jnp.array(0.5)}
        found, expected = (each.update(gradients, each.init(gradients))[0] for each in (tx, theirs))
        assert_close(found, expected, 1e-6)
    zero = jnp.zeros(2)
    derivative = jax.jacobian(lambda g: tx.update(g, tx.init(g))[0])(zero)
    np.testing.assert_array_equal(derivative, np.eye(2))  # below the norm it is the identity
    # In float16 the square of 300 is infinite.
    large = jnp.array([300.0, 400.0], jnp.float16)
    np.testing.assert_allclose(tx.update(large, tx.init(large))[0], [0.6, 0.8], rtol=1e-3)
    with pytest.raises(ValueError, match="max_norm must be a finite number > 0; got 0"):
        inner_optim.clip_by_global_norm(0)


@pytest.mark.parametrize("eps_root", [0, -1e-8])
def test_adam_refuses_what_makes_nan(eps_root):
    with pytest.raises(ValueError, match=r"eps_root must be positive.*NaN"):
        inner_optim.adam(0.01, eps_root=eps_root)


def test_inner_optimizer_sees_shared_parameters_and_the_step():
    # Meta-SGD in a few lines: the step sizes are meta-parameters that do not adapt.
    def update(grads, state, params=None, *, shared, step, **_):
        return jax.tree.map(lambda g: -shared * (step + 1.0) * g, grads), state

    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    own_rate = Partition(
        split=lambda meta_params: (meta_params["model"], meta_params["rate"]),
        merge=lambda adapting, rate: {"model": adapting, "rate": rate},
    )
    model = models.from_function(lambda params, inputs: inputs * params["model"])
    learner = maml(model, losses.mean_squared_error, inner_tx=tx, partition=own_rate, num_steps=2)
    task = Task(*[Batch(jnp.ones(1), jnp.zeros(1))] * 2)
    meta_params = {"model": jnp.array(1.0), "rate": jnp.array(0.1)}
    # L(w) = w^2: w1 = w (1 - 2 r), w2 = w1 (1 - 4 r), so w2 = (1 - 2 r)(1 - 4 r) w.
    adapted = learner.adapt(meta_params, task.support, KEY).params
    np.testing.assert_allclose(adapted["model"], 0.8 * 0.6, rtol=1e-6)
    gradient, _ = learner.meta_gradient(meta_params, jax.tree.map(lambda x: x[None], task), KEY)
    np.testing.assert_allclose(gradient["rate"], 2 * 0.48 * (-6 + 16 * 0.1), rtol=1e-5)
    np.testing.assert_allclose(gradient["model"], 2 * 0.48**2, rtol=1e-5)


# ---------------------------------------------------------------------------------------------
# Errors at the door.


@pytest.mark.parametrize("inner_lr", [-0.1, float("nan"), float("inf")])
def test_inner_lr_must_be_finite_and_not_negative(inner_lr):
    with pytest.raises(ValueError, match=r"inner_lr must be a finite number >= 0; got"):
        maml(linear_model(), losses.mean_squared_error, inner_lr=inner_lr)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (len, "fails on a traced step"),
        (lambda: 0.1, "fails on a traced step"),
        (lambda step: None, "which returns None"),
        (lambda step: jnp.ones(2) * step, r"which returns .*\(2,\)"),
    ],
    ids=["len", "no argument", "nothing", "vector"],
)
def test_a_schedule_gives_one_number_for_a_step(schedule, message):
    with pytest.raises(TypeError, match=rf"inner_lr must be .* a schedule .*{message}"):
        maml(linear_model(), losses.mean_squared_error, inner_lr=schedule)
    maml(linear_model(), losses.mean_squared_error, inner_lr=lambda step: 0.1)


@pytest.mark.parametrize("num_steps", [-1, 1.5, True, "2"])
def test_num_steps_must_be_a_count(learner, params, num_steps):
    message = "num_steps must be an integer of at least 0; got"
    with pytest.raises(ValueError, match=message):
        maml(linear_model(), losses.mean_squared_error, num_steps=num_steps)
    with pytest.raises(ValueError, match=message):
        learner.adapt(params, regression(0), KEY, num_steps=num_steps)


def test_scan_unroll_must_be_positive():
    with pytest.raises(ValueError, match="scan_unroll must be an integer of at least 1; got 0"):
        maml(linear_model(), losses.mean_squared_error, scan_unroll=0)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda outputs, targets: outputs - targets, r"scalar; got shape \(4,\).*Average it over"),
        (lambda outputs, targets: jnp.argmax(outputs), r"got shape \(\) and dtype int32"),
        (
            lambda outputs, targets: losses.mean_squared_error(outputs[:, None], targets),
            r"outputs have shape \(4, 1\) and targets \(4,\)",
        ),
    ],
)
def test_loss_must_be_one_number(params, loss_fn, message):
    learner = maml(linear_model(), loss_fn)
    with pytest.raises(ValueError, match=message):
        learner.adapt(params, regression(0), KEY)


def test_loss_must_be_a_function():
    with pytest.raises(TypeError, match=r"loss_fn must be a function \(outputs, targets\)"):
        maml(linear_model(), "mse")
    with pytest.raises(TypeError, match=r"loss_fn must be a function .*; got one of \(outputs\)"):
        maml(linear_model(), lambda outputs: outputs)
