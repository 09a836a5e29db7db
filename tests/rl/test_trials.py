"""Trials, policies that remember, and RL^2: step by step, and a problem that it must solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import evaluate, fit, init_state, models, rl
from mamljax.checks import ArgumentError
from mamljax.rl.env import Env, EnvState
from mamljax.rl.navigation import Goal

KEY = jax.random.key(7)
POLICY = models.recurrent_policy(2, hidden=(4,), units=6)
ENV = rl.trials(rl.navigation(), horizon=5)
PARAMS = POLICY.init(KEY, jnp.zeros((1, 6)))


def test_a_trial_is_one_episode_after_the_other():
    goal = np.array([0.2, -0.1], np.float32)
    found = rl.rollout(ENV, POLICY, PARAMS, Goal(goal), KEY, episodes=3, horizon=15)
    seen, actions, rewards = map(np.asarray, (found.observations, found.actions, found.rewards))
    assert seen.shape == (3, 15, 6)
    position = np.zeros((3, 2))
    for t in range(15):
        position = position * (t % 5 > 0)
        np.testing.assert_allclose(seen[:, t, :2], position, atol=1e-6)
        np.testing.assert_array_equal(seen[:, t, 5], float(t % 5 == 0))
        if t:
            np.testing.assert_array_equal(seen[:, t, 2:4], actions[:, t - 1])
            np.testing.assert_allclose(seen[:, t, 4], rewards[:, t - 1])
        position = position + 0.1 * np.clip(actions[:, t], -1, 1)
        distances = np.linalg.norm(position - goal, axis=1)
        np.testing.assert_allclose(rewards[:, t], -distances, rtol=1e-4)
    by_episode = rl.returns_by_episode(found.rewards, 5)
    np.testing.assert_allclose(by_episode[1], rewards[1].reshape(3, 5).sum(1), rtol=1e-6)
    assert found.valid.all()


def ending(after=2):
    """Every step pays 1; an episode ends after some steps. Starts are drawn."""

    def reset(task, key):
        return EnvState(0, jax.random.normal(key, (1,)), 0.0, False)

    def step(task, state, action):
        return EnvState(state.physics + 1, state.observation, 1.0, state.physics + 1 >= after)

    return Env(lambda key: (), reset, step, 1, 2)


def test_an_episode_that_ends_early_waits_for_the_next():
    env = rl.trials(ending(), horizon=4)
    policy = models.recurrent_policy(2, hidden=(), units=2)
    params = policy.init(KEY, jnp.zeros((1, 5)))
    found = rl.rollout(env, policy, params, (), KEY, episodes=2, horizon=12)
    np.testing.assert_array_equal(found.rewards, [[1, 1, 0, 0] * 3] * 2)
    starts = np.asarray(found.observations[..., 0])
    np.testing.assert_array_equal(starts, starts[:, ::4].repeat(4, axis=1))
    assert len(np.unique(starts)) == 6  # each episode of each trial has a start of its own
    with pytest.raises(ArgumentError, match="whole episodes of 5 steps; got 12"):
        rl.returns_by_episode(found.rewards, 5)


def test_memory_goes_on_step_by_step_as_over_whole_episodes():
    seen = jax.random.normal(KEY, (3, 4, 6))
    whole = POLICY.apply(PARAMS, seen)
    carry = POLICY.start(PARAMS, seen[:, 0])
    for t in range(4):
        carry, found = POLICY.step(PARAMS, carry, seen[:, t])
        np.testing.assert_allclose(found.mean, whole.mean[:, t], rtol=1e-5, atol=1e-6)
        assert found.log_std.shape == (3, 2)
    # What was seen first is remembered, and what comes later is not known before.
    first, last = (seen.at[:, t].add(1.0) for t in (0, 3))
    assert np.all(POLICY.apply(PARAMS, first).mean[:, 3] != whole.mean[:, 3])
    np.testing.assert_array_equal(POLICY.apply(PARAMS, last).mean[:, :3], whole.mean[:, :3])


def test_units_begin_by_remembering_for_as_long_as_the_timescale():
    policy = models.recurrent_policy(2, hidden=(), units=500, timescale=50)
    params = policy.init(KEY, jnp.zeros((1, 4)))
    silent = jax.tree.map(jnp.zeros_like, params)  # nothing is seen: what was remembered fades
    silent["cell"]["iz"] = params["cell"]["iz"]
    kept, _ = policy.step(silent, jnp.ones(500), jnp.zeros(4))
    steps = kept / (1 - kept)  # of units that keep this share in each step
    np.testing.assert_allclose([steps.min(), steps.mean(), steps.max()], [1, 25, 49], rtol=0.1)


def test_rl2_needs_a_memory():
    with pytest.raises(ArgumentError, match=r"policy must be a mamljax.types.Recurrent.*got Model"):
        rl.rl2(models.gaussian_policy(2))
    with pytest.raises(ArgumentError, match=r"policy must be a function .* got Model"):
        rl.rollout(ENV, models.gaussian_policy(2), {}, (), KEY, episodes=1, horizon=2)  # type: ignore
    for options in ({"units": 0}, {"hidden": (0,)}, {"init_std": 0.0}, {"timescale": 1}):
        with pytest.raises(ArgumentError):
            models.recurrent_policy(2, **options)


def hidden_side():
    """A choice whose payoff the task hides: the reward of the first step tells all there is."""

    def reset(task, key):
        return EnvState((), jnp.ones(1), 0.0, False)

    def step(task, state, action):
        return EnvState((), jnp.ones(1), jnp.sign(action[0]) * task, False)

    def sample_task(key, *, place=None):
        return jax.random.rademacher(key, (), float) if place is None else 2.0 * (place % 2) - 1

    return Env(sample_task, reset, step, 1, 1)


@pytest.mark.slow
def test_rl2_finds_out_which_task_it_is_in():
    """The first step's expectation is 0; who has understood earns 1 at each of the seven others."""
    env = rl.trials(hidden_side(), horizon=2)
    policy = models.recurrent_policy(1, hidden=(), units=8)
    learner, tx = rl.rl2(policy), rl.trpo(0.05)
    drawn = rl.on_policy(env, policy, episodes=10, horizon=8)
    state = init_state(learner.init(KEY, jnp.zeros((1, 4))), tx)
    step, sampler = rl.trpo_step(learner, tx), rl.recorded(drawn, learner.adapt)
    state = fit(step, state, sampler, KEY, num_steps=60, meta_batch=10, steps_per_call=60)

    def of_episode(number):
        return lambda policy, found: jnp.mean(rl.returns_by_episode(found.rewards, 2)[:, number])

    found = evaluate(
        learner, state.meta_params, drawn, KEY, num_tasks=20,
        metric=rl.losses.mean_return, info={"first": of_episode(0), "last": of_episode(3)},
    )  # fmt: skip
    assert -0.2 < found.info["first"].mean() < 1.2
    assert found.info["last"].mean() > 1.8
