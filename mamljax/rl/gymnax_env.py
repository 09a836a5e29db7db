"""Environments of gymnax, and of others with its interface, as families of tasks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.rl.env import Env, EnvState
from mamljax.types import Array, PyTree

FUNCTIONS = ("reset_env", "step_env", "action_space", "default_params")
"""What an environment must have."""


def from_gymnax(
    environment: Any,
    *,
    sample_task: Callable[..., PyTree],
    params: Callable[[PyTree], Any] | None = None,
    reward: Callable[[Any, Array, PyTree], Any] | None = None,
) -> Env:
    """A family of tasks on one gymnax environment, which differ in its parameters or their reward::

        pole, default = gymnax.make("CartPole-v1")
        env = from_gymnax(
            pole,
            sample_task=lambda key: default.replace(length=jax.random.uniform(key, maxval=1.0)),
        )

    Only its pure functions are used, `reset_env` and `step_env`: it never resets itself, and
    the horizon is that of `rollout`. Observations are ravelled to vectors. A choice among A actions
    is a one-hot row, for `models.categorical_policy`; a bounded box is stretched to
    ``[-1, 1]``, beyond which actions are clipped. `EnvState.physics` is gymnax's state and a key.

    gymnax itself is needed to make an environment (``pip install gymnax``; its version 1.0 wants a
    jax below 0.12), not here: anything with the same interface will do.

    Args:
      environment: with ``reset_env(key, params) -> (observation, state)``, ``step_env(key, state,
        action, params) -> (observation, state, reward, done, info)``, ``action_space(params)``
        and ``default_params``.
      sample_task: ``key -> task``, a pytree of arrays; see `Env`.
      params: ``task -> params`` of the environment; None: the task is its parameters.
      reward: ``(state, action, task) -> scalar`` of gymnax's state after the step; None takes the
        environment's own.

    Raises:
      ArgumentError: for an environment without these functions, or with actions that are neither a
        choice nor a box.
    """
    missing = [name for name in FUNCTIONS if not hasattr(environment, name)]
    if missing:
        raise ArgumentError(
            f"environment must be gymnax's, with {', '.join(FUNCTIONS)}; "
            f"{type(environment).__name__} lacks {', '.join(missing)}. gymnax.make returns it and "
            "its default parameters as a pair."
        )
    checks.is_function("sample_task", sample_task, "key -> task")
    if params is not None:
        checks.is_function("params", params, "task -> params")
    if reward is not None:
        checks.is_function("reward", reward, "(state, action, task) -> scalar")
    params_of = params or (lambda task: task)
    default = environment.default_params
    decode, action_size, limit = _actions(environment.action_space(default))

    def call(function, *arguments):
        # Its arithmetic may promote ranks, which the caller may forbid.
        with jax.numpy_rank_promotion("allow"):
            return function(*arguments)

    def begin(key, task):
        key, reset_key = jax.random.split(key)
        observation, state = call(environment.reset_env, reset_key, params_of(task))
        return observation, (state, jax.random.key_data(key))

    def reset(task, key):
        observation, physics = begin(key, task)
        physics = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), physics)
        return EnvState(physics, _vector(observation), jnp.zeros(()), jnp.array(False))

    def step(task, state, action):
        before, key_data = state.physics
        key, step_key = jax.random.split(jax.random.wrap_key_data(key_data))
        observation, after, earned, done, _ = call(
            environment.step_env, step_key, before, decode(action), params_of(task)
        )
        if reward is not None:
            earned = reward(after, action, task)
        after = jax.tree.map(
            lambda new, old: jnp.asarray(new, old.dtype).reshape(old.shape), after, before
        )
        physics = after, jax.random.key_data(key)
        return EnvState(physics, _vector(observation), jnp.asarray(earned), jnp.asarray(done))

    task = jax.eval_shape(sample_task, jax.random.key(0))
    observation = jax.eval_shape(begin, jax.random.key(0), task)[0]
    size = sum(leaf.size for leaf in jax.tree.leaves(observation))
    return Env(sample_task, reset, step, size, action_size, limit)


def _vector(observation: PyTree) -> Array:
    leaves = [jnp.ravel(leaf).astype(float) for leaf in jax.tree.leaves(observation)]
    return jnp.concatenate(leaves)


def _actions(space: Any) -> tuple[Callable[[Array], Array], int, float | None]:
    """From a policy's action to gymnax's, the policy's size, and where it is clipped."""
    if hasattr(space, "n"):
        return jnp.argmax, int(space.n), None
    if not all(hasattr(space, name) for name in ("low", "high", "shape")):
        raise ArgumentError(
            "the environment's actions must be a choice (Discrete) or a box (Box); got "
            f"{type(space).__name__}. Wrap it in an mamljax.rl.Env of your own."
        )
    shape = tuple(space.shape)
    low, high = (np.broadcast_to(np.asarray(x), shape).ravel() for x in (space.low, space.high))
    size, largest = int(np.prod(shape)), np.finfo(np.float32).max
    bounded = np.isfinite(low) & np.isfinite(high) & (low > -largest) & (high < largest)
    if not bounded.all():
        return lambda action: action.reshape(shape), size, None

    def stretched(action):
        inside = (jnp.clip(action, -1.0, 1.0) + 1) / 2
        stretch, floor = jnp.asarray(high - low), jnp.asarray(low)
        return (floor + inside * stretch).astype(action.dtype).reshape(shape)

    return stretched, size, 1.0
