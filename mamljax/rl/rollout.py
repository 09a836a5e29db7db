"""Rollouts: many episodes of one task at once, on the device, of a fixed length."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.rl.env import Env, EnvState
from mamljax.types import ApplyFn, Array, Params, PyTree


class Trajectories(NamedTuple):
    """Episodes ``E`` of at most ``H`` steps.

    observations: ``[E, H, D]``, before each step.
    actions: ``[E, H, A]``.
    rewards: ``[E, H]``, of each step; 0 where it is not valid.
    valid: ``[E, H]``, 1 for steps taken, 0 after the episode's end.
    behaviour: the distributions that the actions were drawn from, leaves ``[E, H, ...]``.
    broken: ``[E]``, episodes that ended because the physics became infinite or NaN.
    """

    observations: Array
    actions: Array
    rewards: Array
    valid: Array
    behaviour: PyTree
    broken: Array


def rollout(
    env: Env,
    policy: ApplyFn,
    params: Params,
    task: PyTree,
    key: Array,
    *,
    episodes: int,
    horizon: int,
) -> Trajectories:
    """Episodes of one task under a stochastic policy.

    An episode ends when the environment says so, after `horizon` steps, or when its observation or
    reward is no longer finite: that step does not count, and the state before it is kept, so that
    nothing infinite reaches an update. What follows the end of an episode is not valid.

    Args:
      env: the environment.
      policy: ``(params, observations [E, D]) -> distribution`` with a method ``sample(key)``.
      params: of the policy.
      task: one task of `env`.
      key: of starts and actions.
      episodes: how many, ``E``.
      horizon: steps of each, ``H``.
    """
    checks.at_least("episodes", episodes, 1)
    checks.at_least("horizon", horizon, 1)
    reset_key, act_key = jax.random.split(key)
    start = jax.vmap(env.reset, (None, 0))(task, jax.random.split(reset_key, episodes))
    advance = jax.vmap(env.step, (None, 0, 0))

    def step(before, key):
        behaviour = policy(params, before.observation)
        actions = behaviour.sample(key)
        after = advance(task, before, actions)
        finite = jnp.isfinite(after.observation).all(axis=1) & jnp.isfinite(after.reward)
        broken, counts = ~finite & ~before.done, finite & ~before.done
        rewards = jnp.where(counts, after.reward, 0.0)
        recorded = (before.observation, actions, rewards, counts, behaviour, broken)
        kept = jax.tree.map(lambda new, old: _where(counts, new, old), after, before)
        return kept._replace(done=before.done | broken | kept.done), recorded

    _, recorded = jax.lax.scan(step, start, jax.random.split(act_key, horizon))
    observations, actions, rewards, valid, behaviour, broken = jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1), recorded
    )
    valid = valid.astype(rewards.dtype)
    return Trajectories(observations, actions, rewards, valid, behaviour, broken.any(axis=1))


def episode(
    env: Env, policy: ApplyFn, params: Params, task: PyTree, key: Array, *, horizon: int
) -> EnvState:
    """The states of one episode, ``[H + 1, ...]``, to be looked at; see `write_rollouts`."""
    checks.at_least("horizon", horizon, 1)
    reset_key, act_key = jax.random.split(key)
    start = env.reset(task, reset_key)

    def step(state, key):
        action = policy(params, state.observation[None]).sample(key)[0]
        state = env.step(task, state, action)
        return state, state

    _, later = jax.lax.scan(step, start, jax.random.split(act_key, horizon))
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, later)


def _where(keep: Array, new: Array, old: Array) -> Array:
    """`new` for the episodes to keep, ``[E]``, else `old`."""
    return jnp.where(keep.reshape(keep.shape + (1,) * (new.ndim - 1)), new, old)
