"""Small policies and recorded tasks for the tests of reinforcement learning."""

import jax
import jax.numpy as jnp
import pytest

from mamljax import models, rl, tasks


@pytest.fixture
def recorded_of():
    """A learner on navigation, its parameters, and tasks recorded with them, as the seed says."""

    def build(*, num_tasks=3, episodes=4, horizon=5, seed=0, env=None, **options):
        env = rl.navigation() if env is None else env
        policy = models.gaussian_policy(env.action_size, hidden=(6,), init_std=0.5)
        learner = rl.maml(policy, **{"inner_lr": 0.3, **options})
        params = learner.init(jax.random.key(1), jnp.zeros((1, env.observation_size)))
        # With biases of 0 every ReLU is at its kink at the origin, where episodes start.
        noise = jax.random.key(2)
        params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(noise, x.shape), params)
        drawn = rl.on_policy(env, learner.predict, episodes=episodes, horizon=horizon)
        sampler = rl.recorded(drawn, learner.adapt)

        @jax.jit
        def draw(params, key):
            return tasks.sample_tasks(sampler, params, key, num_tasks)

        return learner, params, draw(params, jax.random.key(seed))

    return build
