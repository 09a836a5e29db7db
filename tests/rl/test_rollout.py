"""Rollouts: rewards against the formulas, ends of episodes, broken physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import models, rl
from mamljax.rl.env import Env, EnvState
from mamljax.rl.navigation import Goal

KEY = jax.random.key(3)
POLICY = models.gaussian_policy(2, hidden=(4,), init_std=0.2)
PARAMS = POLICY.init(KEY, jnp.zeros((1, 2)))


def navigate(env, task, horizon=30, episodes=5, key=KEY):
    return rl.rollout(env, POLICY.apply, PARAMS, task, key, episodes=episodes, horizon=horizon)


@pytest.mark.parametrize("reward", ["distance", "squared_distance"])
def test_navigation_follows_its_formulas(reward):
    goal = np.array([0.2, -0.1])
    found = navigate(rl.navigation(reward=reward), Goal(jnp.asarray(goal)))
    position = np.zeros((5, 2))
    for t in range(30):
        np.testing.assert_allclose(found.observations[:, t], position, atol=1e-6)
        position = position + 0.1 * np.clip(np.asarray(found.actions[:, t]), -1, 1)
        distance = np.linalg.norm(position - goal, axis=1)
        expected = -distance if reward == "distance" else -(distance**2)
        np.testing.assert_allclose(found.rewards[:, t], expected, rtol=1e-4, atol=1e-6)
    assert not found.broken.any()


def test_goals_fill_the_square():
    goals = jax.vmap(rl.navigation().sample_task)(jax.random.split(KEY, 2000)).position
    assert jnp.abs(goals).max() <= 0.5
    np.testing.assert_allclose(goals.std(0), 1 / np.sqrt(12), rtol=0.05)


def test_nothing_counts_after_the_goal_is_reached():
    env = rl.navigation()
    found = rl.rollout(
        env,
        lambda params, observations: models.Gaussian(*jnp.full((2, 3, 2), -20.0)),
        (),
        Goal(jnp.array([-0.3, -0.3])),
        KEY,
        episodes=3,
        horizon=6,
    )
    np.testing.assert_array_equal(found.valid, [[1, 1, 1, 0, 0, 0]] * 3)
    np.testing.assert_allclose(found.rewards[0], [-0.28284, -0.141421, 0, 0, 0, 0], atol=1e-4)
    np.testing.assert_array_equal(
        found.observations[:, 3:], found.observations[:, 3:4].repeat(3, 1)
    )


def breaking(at=3):
    """The point of navigation, whose physics turn to NaN in episodes that start to the right."""

    def reset(task, key):
        position = jax.random.normal(key, (2,))
        return EnvState(jnp.zeros(()), position, jnp.zeros(()), jnp.array(False))

    def step(task, state, action):
        time = state.physics + 1
        bad = (state.observation[0] > 0) & (time >= at)
        return EnvState(
            jnp.where(bad, jnp.nan, time),
            jnp.where(bad, jnp.nan, state.observation),
            jnp.where(bad, jnp.inf, 1.0),
            jnp.array(False),
        )

    return Env(lambda key: jnp.zeros(()), reset, step, 2, 2)


def test_broken_physics_end_their_episodes_and_reach_nothing():
    found = navigate(breaking(), jnp.zeros(()), horizon=6, episodes=40)
    right = np.asarray(found.observations[:, 0, 0] > 0)
    assert 5 < right.sum() < 35
    np.testing.assert_array_equal(found.broken, right)
    np.testing.assert_array_equal(found.valid.sum(1), np.where(right, 2, 6))
    np.testing.assert_array_equal(found.rewards, found.valid)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_broken_physics_do_not_poison_the_update(recorded_of):
    learner, params, tasks = recorded_of(env=breaking(), episodes=8)
    assert tasks.query.targets.broken.any()
    gradient, metrics = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert metrics.grad_norm > 0


def test_the_oracle_sees_the_task():
    env, task = rl.reveal_task(rl.navigation()), Goal(jnp.array([0.4, 0.1]))
    assert env.observation_size == 4
    state = env.step(task, env.reset(task, KEY), jnp.array([0.5, 5.0]))
    np.testing.assert_allclose(state.observation, [0.05, 0.1, 0.4, 0.1])
    assert state.reward == pytest.approx(-0.35)


def test_the_same_key_gives_the_same_numbers():
    task = Goal(jnp.array([0.2, 0.2]))
    one, same = navigate(rl.navigation(), task), navigate(rl.navigation(), task)
    other = navigate(rl.navigation(), task, key=jax.random.key(4))
    np.testing.assert_array_equal(one.actions, same.actions)
    assert np.all(one.actions != other.actions)
    assert len(np.unique(one.actions)) == one.actions.size  # episodes and steps draw their own


@pytest.mark.parametrize("name", ["episodes", "horizon"])
def test_lengths_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
        navigate(rl.navigation(), Goal(jnp.zeros(2)), **{name: 0})


def test_unknown_rewards_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'distance'"):
        rl.navigation(reward="distanc")
