"""Environments as pure functions: a family of tasks that share their dynamics or their rewards."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mamljax.types import Array, PyTree


class EnvState(NamedTuple):
    """One environment at one time.

    physics: whatever the simulator carries.
    observation: ``[D]``, what the policy sees.
    reward: of the step that led here; 0 at the start.
    done: whether the episode ends here, a boolean.
    """

    physics: PyTree
    observation: Array
    reward: Array
    done: Array


class Env(NamedTuple):
    """A distribution of tasks over one simulator; a task is a pytree of arrays.

    It never resets itself and knows no time limit: `rollout` owns the horizon.

    sample_task: ``key -> task``.
    reset: ``(task, key) -> EnvState``.
    step: ``(task, state, action [A]) -> EnvState``.
    observation_size: ``D``.
    action_size: ``A``.
    """

    sample_task: Callable[[Array], PyTree]
    reset: Callable[[PyTree, Array], EnvState]
    step: Callable[[PyTree, EnvState, Array], EnvState]
    observation_size: int
    action_size: int


def reveal_task(env: Env) -> Env:
    """The environment with the task's numbers appended to the observation, for the oracle."""
    task = jax.eval_shape(env.sample_task, jax.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(task))

    def revealed(task, state):
        told = ravel_pytree(task)[0].astype(state.observation.dtype)
        return state._replace(observation=jnp.concatenate([state.observation, told]))

    def hidden(state):
        return state._replace(observation=state.observation[: env.observation_size])

    return env._replace(
        reset=lambda task, key: revealed(task, env.reset(task, key)),
        step=lambda task, state, action: revealed(task, env.step(task, hidden(state), action)),
        observation_size=env.observation_size + size,
    )
