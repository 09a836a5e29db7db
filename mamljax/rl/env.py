"""Environments as pure functions: a family of tasks that share their dynamics or their rewards."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Array, PyTree


class EnvState(NamedTuple):
    """One environment at one time.

    physics: whatever the simulator carries.
    observation: ``[D]``, what the policy sees, one vector.
    reward: of the step that led here, a scalar; 0 at the start.
    done: whether the episode ends here, a boolean, or a number 0 or 1.
    """

    physics: PyTree
    observation: Array
    reward: Array
    done: Array


class Env(NamedTuple):
    """A distribution of tasks over one simulator; a task is a pytree of arrays.

    It never resets itself and knows no time limit: `rollout` owns the horizon.

    sample_task: ``key -> task``, drawn by `jax.random`; ``()`` for a family of one task. It may
      take a keyword ``place=None``, see `mamljax.types.Sampler`, to take kinds of tasks in turn.
    reset: ``(task, key) -> EnvState``.
    step: ``(task, state, action [A]) -> EnvState``.
    observation_size: ``D``.
    action_size: ``A``.
    action_limit: size beyond which an entry of an action is clipped; None if nothing is.
    """

    sample_task: Callable[..., PyTree]
    reset: Callable[[PyTree, Array], EnvState]
    step: Callable[[PyTree, EnvState, Array], EnvState]
    observation_size: int
    action_size: int
    action_limit: float | None = None


def checked(env: Env, task: PyTree, key: Array) -> Env:
    """The environment, found to keep the contract on a task, and with states of one kind.

    Looked at by tracing: nothing is simulated. Numbers become floats of the default kind (a `done`
    of 0 and 1 a boolean), so that a state can be carried from step to step.

    Raises:
      ArgumentError: naming what is no `Env`, `EnvState`, array, vector or scalar where there should
        be one, what changes its shape or type in a step, or a function that has no hash.
    """
    if not isinstance(env, Env):
        raise ArgumentError(
            f"env must be a mamljax.rl.Env; got {type(env).__name__}. Wrap another simulator's "
            "reset and step in one; from_brax does it for Brax."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(task):
        where = jax.tree_util.keystr(path, simple=True, separator=".")
        checks.is_numeric(f"{where} in the task of env" if where else "the task of env", leaf)

    for name in ("reset", "step"):
        checks.is_hashable(f"env.{name}", getattr(env, name))
    reset, step = _tidied(env.reset, env.step, env.observation_size)
    env = env._replace(reset=reset, step=step)
    action = jax.ShapeDtypeStruct((env.action_size,), jnp.result_type(float))
    before = jax.eval_shape(env.reset, task, key)
    after = jax.eval_shape(env.step, task, before, action)
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ArgumentError(
            "env.step must return a state of the structure that env.reset returns; got "
            f"{jax.tree.structure(after)} after {jax.tree.structure(before)}."
        )
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            where = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ArgumentError(
                f"env.step must keep shapes and types; {where} is {old.dtype} {old.shape} after "
                f"env.reset and {new.dtype} {new.shape} after env.step."
            )
    return env


@functools.lru_cache(maxsize=16)
def _tidied(reset: Callable, step: Callable, size: int) -> tuple[Callable, Callable]:
    """Both, with states of one kind; each is traced once, for a simulator's step takes seconds."""

    @jax.jit
    def tidy_reset(task, key):
        return _tidy("env.reset", reset(task, key), size)

    @jax.jit
    def tidy_step(task, state, action):
        return _tidy("env.step", step(task, state, action), size)

    return tidy_reset, tidy_step


def _tidy(name: str, state: Any, size: int) -> EnvState:
    """A state with an observation ``[D]`` and a reward of floats, and a boolean `done`."""
    if not isinstance(state, EnvState):
        raise ArgumentError(
            f"{name} must return a mamljax.rl.EnvState(physics, observation, reward, done); got "
            f"{type(state).__name__}."
        )
    expected = {"observation": (size,), "reward": (), "done": ()}
    for field, shape in expected.items():
        found = getattr(state, field)
        if isinstance(found, (dict, list, tuple)):
            raise ArgumentError(
                f"{name}: {field} must be one array of shape {shape}; got a "
                f"{type(found).__name__}. Join what is seen to one vector "
                "(jax.flatten_util.ravel_pytree)."
            )
        checks.is_numeric(f"{name}: {field}", found)
        if jnp.shape(found) != shape:
            raise ArgumentError(
                f"{name}: {field} must have shape {shape}; got {jnp.shape(found)}. An observation "
                "is a vector of env.observation_size (ravel an image), reward and done are scalars."
            )
    physics = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state.physics)
    done = jnp.asarray(state.done).astype(bool)
    return EnvState(physics, _floats(state.observation), _floats(state.reward), done)


def _floats(x: Any) -> Array:
    kept = jnp.issubdtype(jnp.result_type(x), jnp.floating)
    return jnp.asarray(x, jnp.result_type(x) if kept else jnp.result_type(float))


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
