"""What every learner promises, whoever wrote it: the algorithms, the baselines, and one's own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.flatten_util import ravel_pytree

from mamljax import (
    Learner,
    Task,
    algorithms,
    backprop,
    baselines,
    evaluate,
    fit,
    init_state,
    inner_optim,
    inner_update,
    losses,
    meta_step,
    models,
    partition,
    query_loss,
    task_loss,
    tasks,
    unroll,
)
from mamljax.running.checkpoint import Checkpoints
from mamljax.sharding import task_mesh

KEY = jax.random.key(5)
MSE = losses.mean_squared_error
DENSE = models.mlp((6, 1), activation="tanh")
EMBEDDING = models.mlp((6, 5), activation="tanh")
HEAD = "^Dense_1/"


class Case(NamedTuple):
    """A learner under test.

    build: ``options of backprop -> learner``.
    classifies: it needs labels; else it regresses.
    learns: the support loss falls when it adapts.
    """

    build: object
    classifies: bool = False
    learns: bool = True


def regression(method, *arguments, **options):
    options = {"inner_lr": 0.02, "num_steps": 2} | options
    return Case(lambda **more: method(DENSE, MSE, *arguments, **options, **more))


def classification(method, **options):
    return Case(lambda **more: method(EMBEDDING, ways=3, **options, **more), True, False)


CASES = {
    "maml": regression(algorithms.maml),
    "maml, momentum": regression(algorithms.maml, inner_tx=optax.sgd(0.01, momentum=0.9)),
    "maml, adam": regression(algorithms.maml, inner_tx=inner_optim.adam(0.01)),
    "maml, remat": regression(algorithms.maml, remat=True),
    "fomaml": regression(algorithms.fomaml),
    "anil": regression(algorithms.anil, HEAD),
    "boil": regression(algorithms.boil, HEAD),
    "meta_sgd": regression(algorithms.meta_sgd),
    "meta_curvature": regression(algorithms.meta_curvature),
    "maml_plus_plus": regression(algorithms.maml_plus_plus),
    "cavia": regression(algorithms.cavia, (2,)),
    "imaml": regression(algorithms.imaml),
    "reptile": regression(algorithms.reptile),
    "context_vector": regression(algorithms.context_vector, (2,)),
    "pretrain": regression(baselines.pretrain),
    "oracle": Case(lambda **more: baselines.oracle(DENSE, MSE, **more), learns=False),
    "fine_tune": Case(
        lambda **more: baselines.fine_tune(EMBEDDING, classes=3, ways=3, num_steps=2, **more), True
    ),
    "proto_maml": Case(
        lambda **more: algorithms.proto_maml(EMBEDDING, ways=3, inner_lr=0.02, num_steps=2, **more),
        True,
    ),
    "prototypical": classification(baselines.prototypical),
    "matching": classification(baselines.matching),
    "siamese": classification(baselines.siamese),
    "mann": Case(
        lambda **more: baselines.mann(ways=3, hidden=4, slots=6, width=3, **more), True, False
    ),
    "meta_lstm": regression(algorithms.meta_lstm, units=3),
    "memory_module": classification(baselines.memory_module, width=3, slots=5),
    "statistician": Case(
        lambda **more: (
            baselines.statistician(
                EMBEDDING, (4,), ways=3, context=3, latent=2, hidden=4, **more
            ).learner
        ),
        True,
        False,
    ),
}


@pytest.fixture
def batch_of(clusters_of):
    def draw(case, number=4):
        sampler = clusters_of() if case.classifies else tasks.sinusoid(4, 5)
        return tasks.sample_tasks(sampler, None, jax.random.key(1), number)

    return draw


def start(learner, batch):
    return learner.init(jax.random.key(2), batch.query.inputs[0])


def check_contract(learner, params, batch, *, learns=True, split=None):
    """What a learner promises on a batch of tasks.

    Args:
      learner: without a mesh or chunks.
      params: its meta-parameters.
      batch: tasks.
      learns: its support loss falls when it adapts.
      split: the same learner with chunks or a mesh.
    """
    gradient = jax.jit(learner.meta_gradient)
    grads, metrics = gradient(params, batch, KEY)
    # Structure, shapes and types are those of the meta-parameters; nothing is NaN.
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype), params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), grads) == kinds
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((grads, metrics)))
    # The batch is the mean over its tasks, each with a key of its own.
    keys = jax.random.split(KEY, len(metrics.task_losses))
    alone = jax.jit(jax.value_and_grad(learner.objective))
    each = [
        alone(params, jax.tree.map(lambda x, t=t: x[t], batch), key) for t, key in enumerate(keys)
    ]
    np.testing.assert_allclose(metrics.task_losses, [loss for loss, _ in each], rtol=1e-3)
    mean = jax.tree.map(lambda *g: sum(g) / len(g), *(g for _, g in each))
    assert_same(grads, mean)
    if split:
        assert_same(jax.jit(split.meta_gradient)(params, batch, KEY)[0], mean)
    # Other tasks of the same shape are the same program.
    gradient(params, jax.tree.map(lambda x: x[::-1], batch), KEY)
    assert gradient._cache_size() == 1

    # Adapting is deterministic, stays in floating point, and learns.
    @jax.jit
    def adapt(support):
        found = jax.vmap(lambda support: learner.adapt(params, support, KEY))(support)
        return found, jax.vmap(learner.loss)(found.params, support)

    adapted, after = adapt(batch.support)
    jax.tree.map(np.testing.assert_array_equal, (adapted, after), adapt(batch.support))
    assert all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(adapted.params))
    if learns:
        assert float(jnp.mean(after)) < float(jnp.mean(adapted.support_losses[:, 0]))


def assert_same(found, expected):
    """Equal but for rounding, relative to the whole: single leaves may have no gradient at all."""
    found, expected = (ravel_pytree(tree)[0] for tree in (found, expected))
    assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", CASES)
def test_contract(name, batch_of):
    case = CASES[name]
    learner, batch = case.build(), batch_of(case)
    split = case.build(task_chunk=1, mesh=task_mesh(jax.devices()[:2]))
    check_contract(learner, start(learner, batch), batch, learns=case.learns, split=split)


@pytest.mark.parametrize("name", CASES)
def test_double_precision_stays_double(name, batch_of, x64):
    case = CASES[name]
    batch = jax.tree.map(
        lambda x: x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x, batch_of(case)
    )
    learner = case.build()
    params = jax.tree.map(lambda x: x.astype(float), start(learner, batch))
    grads, metrics = jax.eval_shape(learner.meta_gradient, params, batch, KEY)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype(float)}
    assert metrics.loss.dtype == jnp.dtype(float)


@pytest.mark.parametrize(
    "name",
    [
        "maml_plus_plus",
        "meta_curvature",
        "meta_lstm",
        "cavia",
        "mann",
        "memory_module",
        "statistician",
    ],
)
def test_meta_parameters_of_every_kind_survive_a_checkpoint(name, batch_of, tmp_path):
    case = CASES[name]
    learner = case.build()
    state = init_state(start(learner, batch_of(case)), optax.adam(1e-3))
    checkpoints = Checkpoints(tmp_path, config={})
    checkpoints.save(state, score=0.0)
    found = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, found, state)


# Models of every kind, and of low precision.


def linen_model():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(jnp.tanh(linen.Dense(6)(x)))

    return models.from_linen(Net())


def nnx_model():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.body, self.head = nnx.Linear(1, 6, rngs=rngs), nnx.Linear(6, 1, rngs=rngs)

        def __call__(self, x):
            return self.head(jnp.tanh(self.body(x)))

    return models.from_nnx(Net)


def plain_model():
    def init(key, x):
        return {"w": jax.random.normal(key, (2 * x.shape[-1], 1))}

    return models.from_function(lambda p, x: jnp.concatenate([x, jnp.sin(x)], 1) @ p["w"], init)


def bfloat16_model():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = jnp.tanh(linen.Dense(6, dtype=jnp.bfloat16)(x))
            return linen.Dense(1, dtype=jnp.bfloat16)(x).astype(jnp.float32)

    return models.from_linen(Net())


@pytest.mark.parametrize("model", [linen_model, nnx_model, plain_model, bfloat16_model])
@pytest.mark.parametrize(
    "method", [algorithms.maml_plus_plus, algorithms.meta_curvature, algorithms.imaml]
)
def test_models_of_every_kind(method, model, batch_of):
    learner, batch = method(model(), MSE, num_steps=2, inner_lr=0.02), batch_of(CASES["maml"])
    params = start(learner, batch)
    grads, _ = jax.jit(learner.meta_gradient)(params, batch, KEY)
    assert jax.tree.map(lambda x: x.dtype, grads) == jax.tree.map(lambda x: x.dtype, params)
    assert all(np.isfinite(x).all() and np.any(x) for x in jax.tree.leaves(grads))


def test_no_random_number_is_used_twice(batch_of):
    """Dropout draws in every inner step and at the query, from keys that never meet again."""
    seen = []

    def apply(params, x, *, key, step):
        noise = jax.random.normal(key, ())
        jax.debug.callback(lambda drawn: seen.append(float(drawn)), noise)
        return DENSE.apply(params, x) + 0 * noise

    noisy = models.from_function(apply, DENSE.init)
    batch = batch_of(CASES["maml"], 2)
    learner = algorithms.fomaml(noisy, MSE, num_steps=2)
    params = start(learner, batch)
    jax.block_until_ready(learner.meta_gradient(params, batch, KEY))
    jax.effects_barrier()
    assert len(set(seen)) == 2 * 3  # tasks x (inner steps and the query)


# A method of one's own, in less than twenty lines.


def signed_maml(model, loss_fn, *, inner_lr, num_steps, **options):
    """MAML whose inner steps follow the sign of a smoothed gradient."""
    everything = partition.all_parameters()

    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -inner_lr * jnp.tanh(10 * g), updates), state

    tx = optax.GradientTransformation(optax.init_empty_state, update)
    loss = task_loss(model, loss_fn)
    adapt = unroll(inner_update(loss, everything, tx), num_steps)
    objective = query_loss(adapt, loss)
    meta_gradient = backprop(objective, **options)
    return Learner(model.init, adapt, model.apply, loss_fn, objective, meta_gradient)


def test_a_method_of_ones_own_keeps_the_contract_trains_and_is_evaluated(batch_of):
    learner, batch = signed_maml(DENSE, MSE, inner_lr=0.02, num_steps=2), batch_of(CASES["maml"])
    params = start(learner, batch)
    check_contract(learner, params, batch)
    sampler, tx = tasks.sinusoid(5, 5), optax.adam(0.01)
    step, state = meta_step(learner.meta_gradient, tx), init_state(params, tx)
    state = fit(step, state, sampler, KEY, num_steps=300, meta_batch=8, steps_per_call=100)
    before, after = (
        evaluate(learner, p, sampler, KEY, num_tasks=50, num_steps=2).mean[-1]
        for p in (params, state.meta_params)
    )
    assert after < 0.9 * before


def test_the_contract_tells_a_wrong_learner(batch_of):
    """A gradient that forgets the mean over tasks, and one that forgets the query set."""
    right, batch = CASES["maml"].build(), batch_of(CASES["maml"])
    params = start(right, batch)

    def summed(params, batch, key):
        grads, metrics = right.meta_gradient(params, batch, key)
        return jax.tree.map(lambda g: len(metrics.task_losses) * g, grads), metrics

    def on_support(params, batch, key):
        return right.meta_gradient(params, Task(batch.support, batch.support), key)

    for wrong in (summed, on_support):
        with pytest.raises(AssertionError):
            check_contract(right._replace(meta_gradient=wrong), params, batch)
    backwards = algorithms.maml(DENSE, MSE, inner_tx=optax.sgd(-0.05), num_steps=2)
    with pytest.raises(AssertionError):
        check_contract(backwards, params, batch)
