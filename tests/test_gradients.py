"""The meta-gradient against finite differences, closed forms and itself computed otherwise."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from mamljax import (
    Batch,
    Task,
    backprop,
    inner_optim,
    inner_update,
    losses,
    maml,
    models,
    multi_step_loss,
    partition,
    query_loss,
    unroll,
)
from mamljax.sharding import task_mesh, tasks_at_a_time

KEY = jax.random.key(7)


def multi_step_learner(learner, inner_lr, weights):
    """`learner`, adapting in ``len(weights)`` steps, with the loss of every step in its goal."""
    everything = partition.all_parameters()
    tx = optax.sgd(inner_lr)
    adapt = unroll(inner_update(learner.loss, everything, tx), len(weights))
    objective = multi_step_loss(adapt, learner.loss, weights)
    return learner._replace(
        adapt=adapt, objective=objective, meta_gradient=backprop(objective, task_chunk=3)
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_steps": 1}, id="1 step"),
        pytest.param({"num_steps": 5}, id="5 steps"),
        pytest.param({"inner_lr": lambda step: 0.1 / (1 + step)}, id="schedule"),
        pytest.param({"task_chunk": 1}, id="task by task"),
        pytest.param({"task_chunk": 2}, id="task_chunk divides"),
        pytest.param({"task_chunk": 3}, id="task_chunk does not divide"),
        pytest.param({"task_chunk": 100}, id="task_chunk exceeds"),
        pytest.param({"remat": True}, id="remat"),
        pytest.param({"scan_unroll": 3}, id="unrolled"),
        pytest.param({"scan_unroll": 2, "remat": True}, id="partly unrolled, remat"),
        pytest.param({"inner_tx": optax.sgd(0.02, momentum=0.9)}, id="momentum"),
        pytest.param({"inner_tx": optax.sgd(0.02, momentum=0.9, nesterov=True)}, id="nesterov"),
        pytest.param({"inner_tx": inner_optim.adam(0.01)}, id="adam"),
        pytest.param({"partition": partition.by_path("Dense_1")}, id="by_path"),
        pytest.param(
            {"partition": partition.by_path("bias"), "inner_tx": inner_optim.adam(0.01)},
            id="by_path, adam",
        ),
    ],
)
def test_meta_gradient_is_that_of_finite_differences(
    learner_of, tasks_of, params_of, options, assert_finite_differences
):
    learner, tasks = learner_of(**{"num_steps": 3, **options}), tasks_of(4)
    assert_finite_differences(learner, params_of(learner, tasks), tasks)


@pytest.mark.usefixtures("x64")
def test_multi_step_gradient_is_that_of_finite_differences(
    learner_of, tasks_of, params_of, assert_finite_differences
):
    learner, tasks = multi_step_learner(learner_of(), 0.05, [0.2, 0.0, 0.7, 0.1]), tasks_of(4)
    assert_finite_differences(learner, params_of(learner, tasks), tasks)


@pytest.mark.usefixtures("x64")
def test_finite_differences_tell_the_first_order_gradient_apart(
    learner_of, tasks_of, params_of, assert_finite_differences
):
    # The comparison above would be worth little if it could not see the second derivatives.
    learner, tasks = learner_of(num_steps=3, first_order=True), tasks_of(4)
    with pytest.raises(AssertionError):
        assert_finite_differences(learner, params_of(learner, tasks), tasks, rtol=1e-2)


@pytest.mark.usefixtures("x64")
def test_metrics_are_the_mean_objective_and_the_norm(learner_of, tasks_of, params_of):
    learner, tasks = learner_of(num_steps=3, task_chunk=3), tasks_of(4)
    params = params_of(learner, tasks)
    each = jax.jit(jax.vmap(learner.objective, in_axes=(None, 0, None)))(params, tasks, KEY)
    gradient, metrics = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    np.testing.assert_allclose(metrics.task_losses, each, rtol=1e-12)
    np.testing.assert_allclose(metrics.loss, each.mean(), rtol=1e-12)
    flat, _ = ravel_pytree(gradient)
    np.testing.assert_allclose(metrics.grad_norm, np.linalg.norm(flat), rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="sgd"),
        pytest.param({"inner_tx": optax.sgd(0.05, momentum=0.9)}, id="momentum"),
        pytest.param({"partition": partition.by_path("Dense_1")}, id="by_path"),
    ],
)
def test_first_order_gradient_is_the_query_gradient_at_the_adapted_parameters(
    learner_of, tasks_of, params_of, assert_close, options
):
    # With the inner gradients held constant, d theta' / d theta is the identity.
    learner, tasks = learner_of(num_steps=3, first_order=True, **options), tasks_of(3)
    params = params_of(learner, tasks)

    def query_gradient(task):
        adapted = learner.adapt(params, task.support, KEY).params
        return jax.grad(learner.loss)(adapted, task.query, None, 3)

    expected = jax.tree.map(lambda g: g.mean(0), jax.jit(jax.vmap(query_gradient))(tasks))
    gradient, _ = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    assert_close(gradient, expected, 1e-12)


@pytest.mark.usefixtures("x64")
def test_zero_inner_steps_train_jointly_on_all_tasks(learner_of, tasks_of, params_of, assert_close):
    learner, tasks = learner_of(num_steps=0), tasks_of(3)
    params = params_of(learner, tasks)
    pooled = jax.tree.map(lambda x: x.reshape(-1, 1), tasks.query)
    expected = jax.grad(learner.loss)(params, pooled, None, 0)
    gradient, _ = learner.meta_gradient(params, tasks, KEY)
    assert_close(gradient, expected, 1e-12)


def quadratic(rng, dimension=3):
    """A least-squares task and its loss ``w' H w / 2 - b' w + c`` on both sets: H, b each."""

    def half(rows):
        x, y = rng.normal(size=(rows, dimension)), rng.normal(size=rows)
        return Batch(jnp.asarray(x), jnp.asarray(y)), 2 / rows * x.T @ x, 2 / rows * x.T @ y

    (support, h, b), (query, hq, bq) = half(5), half(7)
    return Task(support, query), (h, b, hq, bq)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("goal", ["exact", "first_order", "every_step"])
def test_quadratic_has_its_closed_form(num_steps, momentum, goal):
    # Gradient descent on a quadratic is linear: (w, v) -> (w - a v', v') with v' = m v + H w - b,
    # so d w_s / d w_0 is a block of a matrix power, and the meta-gradient its transpose times the
    # query gradient. Written here with numpy alone.
    alpha, dimension = 0.1, 3
    rng = np.random.default_rng(0)
    w = rng.normal(size=dimension)
    weights = rng.uniform(size=num_steps) if goal == "every_step" else np.eye(num_steps)[-1]
    task, (h, b, hq, bq) = quadratic(rng, dimension)
    eye = np.eye(dimension)
    step = np.block([[eye - alpha * h, -alpha * momentum * eye], [h, momentum * eye]])
    offset = np.concatenate([alpha * b, -b])
    z, jacobian, expected = np.concatenate([w, np.zeros(dimension)]), np.eye(2 * dimension), 0.0
    for s in range(num_steps):
        z, jacobian = step @ z + offset, step @ jacobian
        through = eye if goal == "first_order" else jacobian[:dimension, :dimension]
        expected = expected + weights[s] * through.T @ (hq @ z[:dimension] - bq)

    learner = maml(
        models.from_function(lambda params, inputs: inputs @ params),
        losses.mean_squared_error,
        inner_tx=optax.sgd(alpha, momentum=momentum or None),
        num_steps=num_steps,
        first_order=goal == "first_order",
    )
    objective = learner.objective
    if goal == "every_step":
        objective = multi_step_loss(learner.adapt, learner.loss, weights)
    tasks = jax.tree.map(lambda x: x[None], task)
    gradient, _ = backprop(objective)(jnp.asarray(w), tasks, KEY)
    adapted = learner.adapt(jnp.asarray(w), task.support, KEY).params
    np.testing.assert_allclose(adapted, z[:dimension], rtol=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-11)


@pytest.mark.usefixtures("x64")
def test_order_of_the_tasks_does_not_matter(learner_of, tasks_of, params_of, assert_close):
    learner, tasks = learner_of(num_steps=2, task_chunk=2), tasks_of(5)
    params, order = params_of(learner, tasks), np.array([3, 0, 4, 1, 2])
    meta_gradient = jax.jit(learner.meta_gradient)
    gradient, metrics = meta_gradient(params, tasks, KEY)
    shuffled = jax.tree.map(lambda x: x[order], tasks)
    other_gradient, other_metrics = meta_gradient(params, shuffled, KEY)
    np.testing.assert_allclose(other_metrics.task_losses, metrics.task_losses[order], rtol=1e-12)
    assert len(set(np.asarray(metrics.task_losses))) == 5  # or the line above compares nothing
    assert_close(other_gradient, gradient, 1e-12)


@pytest.mark.parametrize(
    ("ways", "double", "rtol"),
    [
        ([{"task_chunk": 1}, {"task_chunk": 3}, {"task_chunk": 9}], True, 1e-12),
        ([{"remat": True}, {"remat": True, "scan_unroll": 2, "task_chunk": 4}], True, 1e-12),
        ([{"mesh": 1}, {"mesh": 2}, {"mesh": 4}, {"mesh": 8}], True, 1e-12),
        ([{"mesh": 2, "task_chunk": 3, "remat": True}], True, 1e-12),
        ([{"task_chunk": 1}, {"remat": True}, {"mesh": 4, "task_chunk": 1}], False, 1e-6),
    ],
    ids=str,
)
def test_every_way_to_compute_it_gives_the_same_gradient(
    learner_of, tasks_of, params_of, assert_close, ways, double, rtol
):
    with jax.enable_x64(double):
        tasks = tasks_of(8)
        params = params_of(learner_of(), tasks)
        expected = jax.jit(learner_of(num_steps=3).meta_gradient)(params, tasks, KEY)
        assert expected[1].loss.dtype == (jnp.float64 if double else jnp.float32)
        for way in ways:
            mesh = task_mesh(jax.devices()[: way["mesh"]]) if "mesh" in way else None
            meta_gradient = learner_of(num_steps=3, **{**way, "mesh": mesh}).meta_gradient
            assert_close(jax.jit(meta_gradient)(params, tasks, KEY), expected, rtol)


@pytest.mark.parametrize("task_chunk", [None, 1])
def test_devices_talk_once_per_meta_gradient(learner_of, tasks_of, params_of, task_chunk):
    learner, tasks = learner_of(mesh=task_mesh(), task_chunk=task_chunk), tasks_of(16)
    compiled = jax.jit(learner.meta_gradient).lower(params_of(learner, tasks), tasks, KEY).compile()
    collectives = re.findall(
        r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(",
        compiled.as_text(),
    )
    assert collectives == ["all-reduce"]


def test_mesh_must_divide_the_tasks_and_name_its_axis(learner_of, tasks_of, params_of):
    tasks = tasks_of(6)
    params = params_of(learner_of(), tasks)
    with pytest.raises(ValueError, match=r"6 tasks does not divide over 4 devices"):
        learner_of(mesh=task_mesh(jax.devices()[:4])).meta_gradient(params, tasks, KEY)
    unnamed = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("batch",))
    with pytest.raises(ValueError, match=r"axis named 'task'.*task_mesh"):
        learner_of(mesh=unnamed).meta_gradient(params, tasks, KEY)


def test_tasks_must_agree_on_their_number(learner_of, tasks_of, params_of):
    learner, tasks = learner_of(), tasks_of(4)
    ragged = tasks._replace(query=jax.tree.map(lambda x: x[:3], tasks.query))
    with pytest.raises(ValueError, match=r"tasks must share .* query\.inputs: \(3,\)"):
        learner.meta_gradient(params_of(learner, tasks), ragged, KEY)


@pytest.mark.parametrize(
    ("task_chunk", "num_tasks", "inputs", "params", "expected"),
    [
        (None, 25, (20, 2), 1_761, 25),  # sinusoids
        (None, 100, (20, 2), 1_761, 36),
        (None, 32, (50, 64), 8_709, 5),
        (None, 32, (10, 28, 28, 1), 112_453, 1),  # Omniglot
        (3, 32, (10, 28, 28, 1), 112_453, 3),
        (50, 32, (20, 2), 1_761, 32),
    ],
)
def test_how_many_tasks_at_a_time(task_chunk, num_tasks, inputs, params, expected):
    task = {"inputs": jax.ShapeDtypeStruct(inputs, jnp.float32), "key": jax.random.key(0)}
    params = jax.ShapeDtypeStruct((params,), jnp.float32)
    assert min(tasks_at_a_time(task_chunk, task, params), num_tasks) == expected


@pytest.mark.parametrize("task_chunk", [0, -1, 2.5])
def test_task_chunk_must_be_positive(learner_of, task_chunk):
    with pytest.raises(ValueError, match="task_chunk must be an integer of at least 1"):
        learner_of(task_chunk=task_chunk)


@pytest.mark.usefixtures("x64")
def test_all_weight_on_the_last_step_is_the_query_loss(
    learner_of, tasks_of, params_of, assert_close
):
    learner, tasks = learner_of(num_steps=3), tasks_of(3)
    params = params_of(learner, tasks)
    weighted = multi_step_learner(learner, 0.05, [0.0, 0.0, 1.0])
    found = jax.jit(weighted.meta_gradient)(params, tasks, KEY)
    final = jax.jit(backprop(query_loss(weighted.adapt, learner.loss)))(params, tasks, KEY)
    assert_close(found, final, 1e-12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (1.0, r"weights must have shape \[S\]"),
        (np.ones((3, 1)), r"weights must have shape \[S\].*got \(3, 1\)"),
        (np.ones(2), r"one entry per inner step: 3 steps, but weights of shape \(2,\)"),
    ],
)
def test_weights_must_match_the_inner_steps(learner_of, tasks_of, params_of, weights, message):
    learner, tasks = learner_of(num_steps=3), tasks_of(2)
    params = params_of(learner, tasks)

    def meta_gradient():
        objective = multi_step_loss(learner.adapt, learner.loss, weights)
        return backprop(objective)(params, tasks, KEY)

    with pytest.raises(ValueError, match=message):
        meta_gradient()
