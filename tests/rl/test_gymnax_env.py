"""Environments of gymnax: a stand-in with its interface step by step; gymnax itself if there."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import models, rl
from mamljax.checks import ArgumentError

KEY = jax.random.key(4)


class Discrete(NamedTuple):
    n: int


class Box(NamedTuple):
    low: object
    high: object
    shape: tuple[int, ...]


class Params(NamedTuple):
    size: object = 1.0


class Walker:
    """A number that goes up and down by an action, from a drawn start: gymnax's interface."""

    default_params = Params()

    def __init__(self, space):
        self.space = space

    def action_space(self, params):
        return self.space

    def reset_env(self, key, params):
        place = jax.random.normal(key)
        return self.seen(place), {"place": place, "time": 0}

    def step_env(self, key, state, action, params):
        moved = action - 1 if isinstance(self.space, Discrete) else action.sum()
        noise = 0.0 * jax.random.normal(key)
        place = state["place"] + moved * params.size + noise
        state = {"place": place, "time": state["time"] + 1}
        return self.seen(place), state, place, state["time"] >= 3, {"discount": 1.0}

    def seen(self, place):
        return jnp.array([[place, 1.0]])  # a picture


def sizes(key):
    return Params(jax.random.uniform(key, minval=1.0, maxval=2.0))


def rolled(env, policy, horizon=5):
    params = policy.init(KEY, jnp.zeros((1, env.observation_size)))
    task = env.sample_task(KEY)
    return task, rl.rollout(env, policy.apply, params, task, KEY, episodes=4, horizon=horizon)


def test_a_choice_is_a_one_hot_row_and_the_task_are_the_parameters():
    env = rl.from_gymnax(Walker(Discrete(3)), sample_task=sizes)
    assert (env.observation_size, env.action_size, env.action_limit) == (2, 3, None)
    task, found = rolled(env, models.categorical_policy(3, hidden=()))
    np.testing.assert_array_equal(found.valid, [[1, 1, 1, 0, 0]] * 4)
    place = np.asarray(found.observations[:, 0, 0])
    assert len(np.unique(place)) == 4
    for t in range(3):
        np.testing.assert_allclose(found.observations[:, t], np.stack([place, np.ones(4)], 1))
        place = place + (np.argmax(found.actions[:, t], axis=1) - 1) * float(task.size)
        np.testing.assert_allclose(found.rewards[:, t], place, rtol=1e-5)


def test_a_box_is_stretched_and_rewards_may_be_ones_own():
    env = rl.from_gymnax(
        Walker(Box(np.array([-1.0, 0.0]), np.array([3.0, 10.0]), (2,))),
        sample_task=lambda key: jax.random.normal(key),
        params=lambda task: Params(1.0),
        reward=lambda state, action, task: task - state["place"],
    )
    assert (env.action_size, env.action_limit) == (2, 1.0)
    task, found = rolled(env, models.gaussian_policy(2, hidden=()), horizon=3)
    clipped = np.clip(found.actions, -1, 1)
    moved = (-1 + 2 * (clipped[..., 0] + 1)) + 5 * (clipped[..., 1] + 1)
    place = np.asarray(found.observations[:, :1, 0]) + np.cumsum(moved, axis=1)
    np.testing.assert_allclose(found.rewards, task - place, rtol=1e-4, atol=1e-4)
    assert 0.1 < found.clipped.mean() < 0.6
    open_ended = rl.from_gymnax(Walker(Box(-np.inf, np.inf, (1,))), sample_task=sizes)
    assert (open_ended.action_size, open_ended.action_limit) == (1, None)


def test_what_is_no_gymnax_environment_is_explained():
    pair = (Walker(Discrete(2)), Params())
    with pytest.raises(ArgumentError, match=r"tuple lacks reset_env, .*gymnax\.make returns"):
        rl.from_gymnax(pair, sample_task=sizes)
    with pytest.raises(ArgumentError, match=r"a choice \(Discrete\) or a box \(Box\); got dict"):
        rl.from_gymnax(Walker({}), sample_task=sizes)
    with pytest.raises(ArgumentError, match="reward must be a function"):
        rl.from_gymnax(Walker(Discrete(2)), sample_task=sizes, reward=3)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Catch-bsuite", "PointRobot-misc"])
def test_gymnax_itself(name):
    gymnax = pytest.importorskip("gymnax")
    environment, default = gymnax.make(name)

    def sample_task(key):
        return default.replace(max_steps_in_episode=jax.random.randint(key, (), 5, 10))

    env = rl.from_gymnax(environment, sample_task=sample_task)
    policies = {None: models.categorical_policy, 1.0: models.gaussian_policy}
    _, found = rolled(env, policies[env.action_limit](env.action_size, hidden=()), horizon=4)
    assert found.observations.shape == (4, 4, env.observation_size)
    assert found.valid.all()
    assert not found.broken.any()
    if name == "Pendulum-v1":
        cos, sin, speed = np.moveaxis(np.asarray(found.observations), -1, 0)
        torque = 2 * np.clip(found.actions[..., 0], -1, 1)
        angle = np.arctan2(sin, cos)
        np.testing.assert_allclose(
            found.rewards, -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2), rtol=1e-4
        )
