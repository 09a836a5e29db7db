"""Context vectors: what adapts, what is learned, and what batch normalisation leaves of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from mamljax import models
from mamljax.algorithms import context_vector
from mamljax.losses import cross_entropy
from mamljax.models import Norm, with_context

KEY = jax.random.key(0)
DENSE = models.mlp((6, 3), activation="tanh")
IMAGES = jax.random.uniform(jax.random.key(1), (4, 6, 6, 1))


def test_the_context_joins_the_features_of_every_example():
    model, inputs = with_context(DENSE, (2,)), jnp.ones((5, 4))
    params = model.init(KEY, inputs)
    np.testing.assert_array_equal(params["context"], np.zeros(2))
    params["context"] = jnp.array([3.0, -1.0])
    joined = jnp.concatenate([inputs, jnp.tile(params["context"], (5, 1))], axis=1)
    np.testing.assert_array_equal(model.apply(params, inputs), DENSE.apply(params["model"], joined))


def test_only_the_context_adapts_and_everything_is_learned(clusters_of):
    task = clusters_of(ways=3)(None, KEY)
    learner = context_vector(DENSE, cross_entropy, (5,), inner_lr=0.5, num_steps=3)
    meta_params = learner.init(KEY, task.support.inputs)
    adapted = learner.adapt(meta_params, task.support, KEY)
    assert np.abs(adapted.params["context"]).min() > 0
    jax.tree.map(np.testing.assert_array_equal, adapted.params["model"], meta_params["model"])
    assert np.all(np.diff(adapted.support_losses) < 0)
    batch = jax.tree.map(lambda x: x[None], task)
    grads = jax.jit(learner.meta_gradient)(meta_params, batch, KEY)[0]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.usefixtures("x64")
def test_meta_gradient_is_the_derivative(clusters_of, params_of):
    task = clusters_of(ways=3)(None, KEY)
    learner = context_vector(DENSE, cross_entropy, (2,), inner_lr=0.5, num_steps=2)
    meta_params = params_of(learner, jax.tree.map(lambda x: x[None], task))
    objective = jax.jit(lambda params: learner.objective(params, task, KEY))
    check_grads(objective, (meta_params,), 1, ["rev"], eps=1e-5)


class Convolution(nn.Module):
    """One convolution, then batch normalisation."""

    padding: str

    @nn.compact
    def __call__(self, x):
        return Norm("batch")(nn.Conv(8, (3, 3), padding=self.padding)(x))


def effect(model, shape, inputs):
    """How far a context of that shape moves the outputs, at most."""
    model = with_context(model, shape)

    def largest(context):
        params = model.init(KEY, inputs)
        still, moved = params, params | {"context": context}
        return jnp.max(jnp.abs(model.apply(moved, inputs) - model.apply(still, inputs)))

    return largest(jax.random.normal(jax.random.key(2), shape))


def test_batch_normalisation_erases_what_all_examples_and_positions_share():
    valid, same = (models.from_linen(Convolution(padding)) for padding in ("VALID", "SAME"))
    assert effect(valid, (1, 1, 3), IMAGES) < 1e-4
    assert effect(same, (1, 1, 3), IMAGES) > 0.1  # the borders tell
    assert effect(valid, (6, 6, 3), IMAGES) > 0.1
    inputs = IMAGES.reshape(4, -1)
    assert effect(models.mlp((8, 3), norm="batch"), (5,), inputs) < 1e-4
    assert effect(models.mlp((8, 3), norm="layer"), (5,), inputs) > 0.1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 6, 6, 2), r"shape \(4, 6, 6, 2\) does not fit inputs of shape \(4, 6, 6, 1\)"),
        ((6, 5, 3), "does not fit"),
        ((6, 6, 0), "shape must be an integer of at least 1"),
        ((), "empty tuple"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        with_context(DENSE, shape).init(KEY, IMAGES)
