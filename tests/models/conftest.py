"""What tests of models share: other parameters than the starting ones, and derivatives by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree


@pytest.fixture
def randomised():
    """A tree of standard normal numbers, with the shapes and types of the given one."""

    def draw(tree, seed=0):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), tree)

    return draw


@pytest.fixture
def quick_compilation():
    """Without most of its optimisations XLA compiles in half the time what runs only once."""
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)


@pytest.fixture
def assert_finite_differences():
    """The meta-gradient against central differences of the meta-loss along random directions."""

    def check(learner, params, tasks, *, rtol=1e-6, eps=1e-6):
        key = jax.random.key(7)
        flat, unravel = ravel_pytree(params)

        @jax.jit
        def loss_and_gradient(flat):
            gradient, metrics = learner.meta_gradient(unravel(flat), tasks, key)
            return metrics.loss, ravel_pytree(gradient)[0]

        gradient = loss_and_gradient(flat)[1]
        for direction in np.random.default_rng(0).normal(size=(3, flat.size)):
            ahead, behind = (
                loss_and_gradient(flat + sign * eps * direction)[0] for sign in (1, -1)
            )
            np.testing.assert_allclose(gradient @ direction, (ahead - behind) / (2 * eps), rtol)

    return check
