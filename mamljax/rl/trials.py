"""Trials: many episodes of one task as one, for policies that remember (RL^2)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.rl.env import Env, EnvState, checked
from mamljax.rl.learner import maml
from mamljax.rl.losses import likelihood_ratio
from mamljax.types import Array, Learner, LossFn, Recurrent


class Trial(NamedTuple):
    """The physics of a trial.

    state: of the episode at hand.
    time: its steps so far.
    key: raw data of the key of further starts.
    """

    state: EnvState
    time: Array
    key: Array


def trials(env: Env, *, horizon: int) -> Env:
    """An environment whose episodes are trials: one episode of `env` after the other.

    Every `horizon` steps the next one begins, in the same task. One that ends early waits until
    then, with rewards of 0, so that the rewards of a trial of K episodes are ``[K, horizon]``, see
    `returns_by_episode`. A trial is rolled out by K times as many steps.

    As in *RL^2* (Duan et al. 2016, section 2.2) the policy also sees its last action, what it
    earned, and whether an episode has just begun: observations have ``D + A + 2`` entries.

    Args:
      env: the environment.
      horizon: steps of each episode.
    """
    checks.at_least("horizon", horizon, 1)

    def reset(task, key):
        start_key, key = jax.random.split(key)
        state = checked(env, task, key).reset(task, start_key)
        seen = _seen(state, jnp.zeros(env.action_size), jnp.zeros(()), jnp.array(True))
        trial = Trial(state, jnp.zeros((), jnp.int32), jax.random.key_data(key))
        return EnvState(trial, seen, jnp.zeros(()), jnp.array(False))

    def step(task, state, action):
        before, time, key_data = state.physics
        key, start_key = jax.random.split(jax.random.wrap_key_data(key_data))
        inner = checked(env, task, key)
        after = inner.step(task, before, action)
        waiting = before._replace(reward=jnp.zeros_like(before.reward))
        after = _choose(before.done, waiting, after)
        over = time + 1 >= horizon
        now = _choose(over, inner.reset(task, start_key), after)
        trial = Trial(now, jnp.where(over, 0, time + 1), jax.random.key_data(key))
        return EnvState(
            trial, _seen(now, action, after.reward, over), after.reward, jnp.array(False)
        )

    size = env.observation_size + env.action_size + 2
    return env._replace(reset=reset, step=step, observation_size=size)


def _seen(state: EnvState, action: Array, reward: Array, begins: Array) -> Array:
    told = jnp.stack([reward, begins]).astype(state.observation.dtype)
    return jnp.concatenate([state.observation, action.astype(told.dtype), told])


def _choose(first: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), one, other)


def returns_by_episode(rewards: Array, horizon: int) -> Array:
    """The return of every episode of trials, ``[..., K * horizon] -> [..., K]``."""
    checks.at_least("horizon", horizon, 1)
    if rewards.shape[-1] % horizon:
        raise ArgumentError(
            f"rewards must be of whole episodes of {horizon} steps; got {rewards.shape[-1]} steps."
        )
    return jnp.sum(rewards.reshape(*rewards.shape[:-1], -1, horizon), axis=-1)


def rl2(
    policy: Recurrent,
    *,
    outer_loss: LossFn = likelihood_ratio,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """RL^2 (Duan et al. 2016): the network itself learns to learn, in its memory.

    One policy for all tasks, trained on `trials`, whose rewards say which task it is in. Nothing
    adapts by gradient: `Learner.adapt` returns the parameters as they are. The same `trpo_step`
    trains it, on ``recorded(on_policy(trials(env, ...), policy, ...), learner.adapt)``.

    Args:
      policy: with a memory, such as `models.recurrent_policy`.
      outer_loss: from `mamljax.rl.losses`.
      task_chunk, mesh: see `backprop`.

    Raises:
      ArgumentError: for a policy without a memory.
    """
    if not isinstance(policy, Recurrent):
        raise ArgumentError(
            "policy must be a mamljax.types.Recurrent, such as models.recurrent_policy(...); got "
            f"{type(policy).__name__}."
        )
    return maml(policy, num_steps=0, outer_loss=outer_loss, task_chunk=task_chunk, mesh=mesh)
