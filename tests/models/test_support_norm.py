"""norm="support": predictions by the statistics of the support set, each by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from mamljax import Batch, PerStep, Task, algorithms, baselines, losses, maml, models
from mamljax.checks import ArgumentError

KEY = jax.random.key(0)
INPUTS = 3 + jax.random.normal(KEY, (6, 8, 8, 1))
SUPPORT, QUERY = Batch(INPUTS[:4], jnp.arange(4) % 2), Batch(INPUTS[4:], jnp.arange(2))


class Own(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(4)(x.reshape(len(x), -1))
        return nn.Dense(2)(nn.relu(nn.BatchNorm(use_running_average=not train)(x)))


def conv(outputs=2):
    return models.conv_net(outputs, filters=3, blocks=1, norm="support", norm_scale=True)


NETS = {
    "conv": conv,
    "resnet": lambda: models.resnet12(2, widths=(2,), norm="support"),
    "mlp": lambda: models.mlp((4, 2), norm="support"),
    "Flax": lambda: models.from_linen(Own(), norm="support"),
    "context": lambda: models.with_context(models.mlp((4, 2), norm="support"), (8, 8, 1)),
}


@pytest.mark.parametrize("name", NETS)
def test_each_is_predicted_by_itself_and_the_support_set_as_before(name):
    learner = maml(NETS[name](), losses.cross_entropy, inner_lr=0.1)
    params = learner.init(KEY, INPUTS)
    adapted = learner.adapt(params, SUPPORT, None).params
    together = learner.predict(adapted, INPUTS)
    alone = jnp.concatenate([learner.predict(adapted, INPUTS[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)
    # The batch's own statistics are those of the support set where the batch is the support set.
    plain = maml(NETS[name]()._replace(condition=None), losses.cross_entropy, inner_lr=0.1)
    of_batch = plain.adapt(params, SUPPORT, None).params
    expected = plain.predict(of_batch, SUPPORT.inputs)
    np.testing.assert_allclose(together[:4], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(plain.predict(of_batch, INPUTS) - together).max() > 1e-2
    # Adapting again begins from the parameters, not from the statistics.
    again = learner.adapt(adapted, SUPPORT, None, num_steps=0).params
    assert jax.tree.structure(again) == jax.tree.structure(adapted)


def test_gradients_pass_through_the_statistics(assert_finite_differences, x64):
    del x64
    learner = maml(NETS["mlp"](), losses.cross_entropy, inner_lr=0.1)
    tasks = jax.tree.map(
        lambda x: x[None].astype(jnp.float64) if x.ndim > 1 else x[None], Task(SUPPORT, QUERY)
    )
    params = learner.init(KEY, tasks.query.inputs[0])
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    assert_finite_differences(learner, params, tasks, rtol=1e-5)


@pytest.mark.parametrize("make", [baselines.prototypical, baselines.siamese])
def test_comparing_methods_embed_queries_by_the_support_set(make):
    learner = make(conv(None), ways=2)
    adapted = learner.adapt(learner.init(KEY, INPUTS), SUPPORT, None).params
    together, alone = learner.predict(adapted, INPUTS), learner.predict(adapted, INPUTS[5:])
    np.testing.assert_allclose(alone, together[5:], rtol=1e-5, atol=1e-5)


def test_every_step_is_observed_with_its_own_statistics():
    learner = maml(NETS["mlp"](), losses.cross_entropy, inner_lr=0.5)
    params = learner.init(KEY, INPUTS)

    def observe(params, step):
        return learner.predict(params, QUERY.inputs, step=step)

    seen = learner.adapt(params, SUPPORT, None, num_steps=2, observe=observe).observed
    for steps in range(3):
        found = learner.adapt(params, SUPPORT, None, num_steps=steps).params
        np.testing.assert_allclose(seen[steps], learner.predict(found, QUERY.inputs), rtol=1e-4)


def test_reptile_moves_plain_parameters():
    learner = algorithms.reptile(NETS["mlp"](), losses.cross_entropy, num_steps=1)
    params = learner.init(KEY, INPUTS)
    tasks = jax.tree.map(lambda x: x[None], Task(SUPPORT, QUERY))
    gradient, _ = learner.meta_gradient(params, tasks, KEY)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.reshape(len(x), -1))


def adapting(net, support=SUPPORT):
    learner = maml(net, losses.cross_entropy)
    return lambda: learner.adapt(learner.init(KEY, INPUTS), support, None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (adapting(models.from_linen(Plain(), norm="support")), "this one has none"),
        (
            adapting(NETS["mlp"](), PerStep(jax.tree.map(lambda x: x[None], SUPPORT))),
            "one support set, a mamljax.Batch; got PerStep",
        ),
        (
            lambda: models.from_nnx(lambda rngs: nnx.Linear(1, 1, rngs=rngs), norm="support"),
            "for Linen modules",
        ),
        (lambda: baselines.memory_module(conv(None), ways=2), "does not take a network"),
        (lambda: models.mlp((2, 2), norm="suport"), "Did you mean 'support'"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
